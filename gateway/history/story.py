"""The story of one message: what happened to it, and what is going to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gateway.history.happening import Happening

_ENDS = {"delivered", "bounced", "expired", "discarded", "dropped", "refused"}


@dataclass(frozen=True, slots=True)
class Waiting:
    """One recipient that is in the queue.

    Attributes:
        state: `held`, `active`, `deferred` or `scheduled`, as `gateway queue list` says it.
        due: when the next attempt is made; ends: when the mail is given up (None while it is
            held); both in seconds since the epoch.
        held: why it is held; None if it is not. `pause` is the number of the pause that holds it.
        reply: what the last attempt was told, or why it was put off.
        via: the servers that a person sends it to.
    """

    recipient: str
    state: str
    lane: str
    attempts: int
    due: float | None = None
    ends: float | None = None
    held: str | None = None
    pause: int | None = None
    reply: str = ""
    via: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Consulted:
    """A place where it was looked, and how much there was; `problem` says why it is not told."""

    name: str
    found: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of a message.

    Attributes:
        id: the queue id.
        made: when the id was given, in seconds since the epoch: at MAIL.
        happenings: in the order of time.
        waiting: what is still in the queue.
        consulted: where it was looked.
        missing: what may be missing, and what would help, in sentences.
        running: whether the gateway runs; None if nobody asked.
    """

    id: str
    made: float
    happenings: tuple[Happening, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    consulted: tuple[Consulted, ...] = ()
    missing: tuple[str, ...] = field(default=())
    running: bool | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything was found at all."""
        return bool(self.happenings or self.waiting)

    @property
    def is_over(self) -> bool:
        """Whether nothing waits, and the end of something was seen."""
        return not self.waiting and any(one.kind in _ENDS for one in self.happenings)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.id,
            "happenings": [
                {
                    "time": one.time,
                    "kind": one.kind,
                    "recipient": one.recipient,
                    "text": one.text,
                    "source": one.source,
                    **one.details,
                    **({"plugins": [asdict(step) for step in one.plugins]} if one.plugins else {}),
                }
                for one in self.happenings
            ],
            "waiting": [asdict(one) for one in self.waiting],
            "running": self.running,
            "consulted": [asdict(one) for one in self.consulted],
            "missing": list(self.missing),
        }


def in_order(
    log: Iterable[Happening], queue: Iterable[Happening], outbox: Iterable[Happening]
) -> tuple[Happening, ...]:
    """What several sources tell, in the order of time; nothing is told twice.

    The log is the most exact. The queue and the outbox tell what the log does not.
    """
    told: list[Happening] = []
    accepted: Happening | None = None
    known: dict[tuple[str, str], list[Happening]] = {}
    for one in [*log, *queue, *outbox]:
        if one.kind == "accepted":
            accepted = one if accepted is None else _completed(accepted, one)
            continue
        # What is told of the whole message is told of each recipient.
        alike = [*known.get((one.kind, one.recipient), ()), *known.get((one.kind, ""), ())]
        if one.source == "log" or not any(one.is_told_by(other) for other in alike):
            known.setdefault((one.kind, one.recipient), []).append(one)
            told.append(one)
    if accepted is not None:
        told.append(accepted)
    # At the same moment a message is accepted first.
    return tuple(sorted(told, key=lambda one: (one.time, one.kind != "accepted")))


def _completed(known: Happening, other: Happening) -> Happening:
    """How a message was accepted, with what another source knows besides."""
    details = {**other.details, **known.details}
    return replace(known, details=details, plugins=known.plugins or other.plugins)
