"""Asks the queue, the outbox and the log about one message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.configuration.config import Config
from gateway.history.happening import Happening
from gateway.history.log_record import happening_of, happening_of_event
from gateway.history.log_search import LogSearchError, lines_in
from gateway.history.story import Consulted, Story, Waiting, in_order
from gateway.hooks.trace import parse
from gateway.queue import listing
from gateway.queue.administration import worker_stats
from gateway.queue.listing import Row
from gateway.queue.pauses import pause_of
from gateway.queue.selection import Selection
from gateway.spool import queue_id
from gateway.spool.queue_entry import Envelope
from gateway.spool.shard_file import SpoolError
from gateway.spool.spool import shard_numbers

EPOCH = 1_704_067_200.0
"""When queue ids begin to count, in seconds since the epoch of Unix: 2024-01-01T00:00:00Z."""


@dataclass(frozen=True, slots=True)
class Log:
    """A log that is asked: its name, and the lines in it that have the queue id."""

    name: str
    lines: Iterable[str]


def made_at(id: str) -> float:  # noqa: A002 - the word that everyone uses
    """When a queue id was given, in seconds since the epoch.

    Raises:
        ValueError: the text is no queue id.
    """
    return (queue_id.from_text(id) >> queue_id.SHARD_BITS) / 1_000_000 + EPOCH


def logs_of(paths: Sequence[Path], id: str, advance: Callable[[int], None]) -> list[Log]:  # noqa: A002
    """The files of a log; `advance` is told the octets that were read."""
    return [Log(str(path), lines_in(path, id, advance)) for path in paths]


def inquire(config: Config, id: str, logs: Sequence[Log]) -> Story:  # noqa: A002
    """Puts together what is known of a message. What cannot be read is said in the story."""
    folder = config.spool.path
    consulted: list[Consulted] = []
    missing: list[str] = []
    rows, envelope = _queue(folder, id, consulted, missing)
    outbox = _outbox(folder, id, consulted, missing)
    told = _told(logs, id, consulted, missing)
    if not logs:
        missing.append(
            "no log was read, as gateway.yaml names none in log.file: what is over is only there; "
            f"say --log FILE, or: journalctl -u mail-gateway -o cat | gateway why {id} --log -"
        )
    queued = [] if envelope is None else [_accepted(envelope)]
    story = Story(
        id,
        made_at(id),
        in_order(told, queued, outbox),
        tuple([_waiting(row, envelope, config) for row in rows]),
        running=bool(worker_stats(folder)) if rows else None,
        consulted=tuple(consulted),
    )
    if logs and story.is_known and not any(one.kind in _BEGIN for one in told):
        missing.append(
            "the logs that were read do not have the beginning: older ones can be named by --log"
        )
    if told and not rows and not story.is_over:
        missing.append("it is not in the queue, and the logs do not tell of its end")
    return Story(
        story.id,
        story.made,
        story.happenings,
        story.waiting,
        story.consulted,
        tuple(missing),
        story.running,
    )


_BEGIN = {"accepted", "refused"}


def _queue(
    folder: Path,
    id: str,  # noqa: A002
    consulted: list[Consulted],
    missing: list[str],
) -> tuple[list[Row], Envelope | None]:
    shards = len(shard_numbers(folder)) if folder.is_dir() else 0
    name = f"the queue in {folder} ({shards} {'shard' if shards == 1 else 'shards'})"
    rows: list[Row] = []
    envelope: Envelope | None = None
    problem = ""
    try:
        for row in listing.read(folder, Selection(ids=(id,))):
            rows.append(row)
            envelope = envelope or listing.read_envelope(folder, row)
    except SpoolError as error:
        problem = str(error)
        missing.append("not all that waits in the queue is known")
    consulted.append(Consulted(name, len(rows), problem))
    return rows, envelope


def _outbox(
    folder: Path,
    id: str,  # noqa: A002
    consulted: list[Consulted],
    missing: list[str],
) -> list[Happening]:
    name = "the events that no observer has seen yet"
    found: list[Happening] = []
    problem = ""
    try:
        for event in listing.read_events(folder, id):
            found.append(happening_of_event(event))  # noqa: PERF401 - what came before an error counts
    except SpoolError as error:
        problem = str(error)
        missing.append("not all that observers have not seen yet is known")
    consulted.append(Consulted(name, len(found), problem))
    return found


def _told(
    logs: Sequence[Log],
    id: str,  # noqa: A002
    consulted: list[Consulted],
    missing: list[str],
) -> list[Happening]:
    told: list[Happening] = []
    for log in logs:
        before = len(told)
        problem = ""
        try:
            for line in log.lines:
                one = happening_of(line, id)
                if one is not None:
                    told.append(one)
        except LogSearchError as error:
            problem = str(error)
            missing.append(f"not all that {log.name} tells is known")
        consulted.append(Consulted(log.name, len(told) - before, problem))
    return told


def _accepted(envelope: Envelope) -> Happening:
    client = envelope.client
    details = {
        "helo": client.helo,
        "client": client.address,
        "user": client.user or "",
        "tls": client.tls or "",
        "sender": envelope.sender,
        "size": envelope.size,
        "stream": envelope.stream,
    }
    plugins = tuple(parse(envelope.trace))
    return Happening(
        envelope.received, "accepted", source="queue", details=details, plugins=plugins
    )


def _waiting(row: Row, envelope: Envelope | None, config: Config) -> Waiting:
    stream = config.streams.get(row.stream)
    retry = stream.retry if stream is not None and stream.retry is not None else config.retry
    begins = row.received if envelope is None else envelope.begins
    return Waiting(
        recipient=row.recipient,
        state=row.state,
        lane=row.lane,
        attempts=row.attempts,
        due=row.due,
        ends=None if row.held is not None else begins + retry.lifetime,
        held=row.held,
        pause=None if row.held is None else pause_of(row.held),
        reply=row.reply,
        via=row.via,
    )
