"""`gateway why`: the story of one message."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gateway.cli.lines import say
from gateway.cli.options import config_option, json_option, load
from gateway.cli.queue_selection import local_time
from gateway.history.happening import Happening
from gateway.history.inquiry import Log, inquire, logs_of, made_at
from gateway.history.log_search import lines_of, rotated, size_of
from gateway.history.story import Story, Waiting
from gateway.hooks.trace import TracedStep
from gateway.log_line import escape
from gateway.queue.explanation import duration

SLACK = 86400.0
"""Seconds that clocks may have been set back by: older files are not looked through."""

LARGE = 64 << 20
"""Octets of log from which on it is shown how far the search has come."""

_COLOURS = {
    "accepted": "cyan",
    "delivered": "green",
    "deferred": "yellow",
    "held": "yellow",
    "bounced": "red",
    "expired": "red",
    "refused": "red",
    "discarded": "red",
    "dropped": "red",
}

_RESULTS = {
    "reject": "refused it",
    "discard": "discarded it",
    "quarantine": "had it held",
    "delay": "delayed it",
    "failed": "FAILED",
    "skipped": "not asked, as it has failed too often",
}

_DELAYS = ("before this attempt", "waiting for a connection", "connecting", "sending")


@click.command()
@click.argument("id", metavar="ID")
@click.option(
    "--log",
    "logs",
    multiple=True,
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Read this log, too, and what it was rotated into; - is standard input.",
)
@config_option
@json_option
def why(id: str, logs: tuple[Path, ...], path: Path, as_json: bool) -> None:  # noqa: A002
    """Tell the story of one message.

    What happened to the message of this queue id, in the order of time: who sent it, what plugins
    did, each attempt, and what happens next. It is told from the queue, from events that no
    observer has seen yet, and from the log: the file of `log.file` in gateway.yaml, its older
    files (.1, .2.gz) and those that you name. With a log in the journal:

        journalctl -u mail-gateway -o cat | gateway why ID --log -

    Exit status 1: nothing is known of it.
    """
    name = id.strip().rstrip(":,;.").upper()
    try:
        made = made_at(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    config = load(path)
    named = [log for log in logs if str(log) != "-"]
    if config.log.file is not None:
        named.append(config.log.file)
    files = [file for log in dict.fromkeys(named) for file in rotated(log, made - SLACK)]
    size = size_of(files)
    hidden = size < LARGE or not sys.stderr.isatty()
    with click.progressbar(
        length=size, label="reading the log", file=sys.stderr, hidden=hidden
    ) as bar:
        sources = logs_of(files, name, bar.update)
        if len(named) < len(logs) + (config.log.file is not None):
            sources.append(Log("standard input", lines_of(sys.stdin.buffer, name)))
        story = inquire(config, name, sources)
    if as_json:
        click.echo(json.dumps(story.to_dict(), ensure_ascii=False, indent=2))
    else:
        say(_told(story))
    if not story.is_known:
        sys.exit(1)


def _told(story: Story) -> Iterator[str]:
    if story.is_known:
        yield click.style(f"{story.id}", bold=True) + f"  begun {local_time(story.made)}"
    else:
        begun = local_time(story.made)
        yield f"Nothing is known of {story.id}, an id that was given at {begun}."
    for one in story.happenings:
        yield ""
        yield from _happened(one)
    if story.waiting:
        yield ""
        yield click.style("Now", bold=True)
        for waiting in story.waiting:
            yield from _waits(waiting, story.id)
        if not story.running:
            yield "  The gateway is not running: nothing is tried before it is started."
    elif story.is_known:
        yield ""
        yield click.style("Now", bold=True) + "  nothing of it is in the queue"
    yield ""
    yield "Looked at:"
    for source in story.consulted:
        yield f"  {escape(source.name)}: {source.found} found"
        if source.problem:
            yield click.style(f"    {escape(source.problem)}", fg="red")
    for sentence in story.missing:
        yield f"Note: {escape(sentence)}"


def _happened(one: Happening) -> Iterator[str]:
    stamp = local_time(one.time)
    what = click.style(one.kind, fg=_COLOURS.get(one.kind), bold=True)
    if one.kind == "accepted":
        yield f"{stamp}  {what} {_from(one.details)}"
    elif one.kind == "note":
        who = f"plugin {one.details['plugin']}: " if "plugin" in one.details else ""
        about = f"<{one.recipient}> " if one.recipient else ""
        yield f"{stamp}  {escape(f'{who}{about}{one.text}')}"
    else:
        recipient = f" <{one.recipient}>" if one.recipient else ""
        relay = one.details.get("relay", "none")
        at = f" by {relay}" if relay != "none" else ""
        yield f"{stamp}  {what}{escape(recipient + at)}"
        if one.text:
            yield f"    {escape(one.text)}"
    if "delays" in one.details:
        yield f"    {_delays(one.details)}"
    for step in one.plugins:
        yield f"    {_step(step)}"


def _from(details: Any) -> str:
    parts = [f"from {details.get('helo', '')} [{details.get('client', '')}]".replace("  ", " ")]
    for name, label in (("user", "user"), ("tls", "over"), ("stream", "stream")):
        if details.get(name):
            parts.append(f"{label} {details[name]}")
    parts.append(f"sender <{details.get('sender', '')}>")
    if "recipients" in details:
        count = details["recipients"]
        parts.append(f"{count:,} {'recipient' if count == 1 else 'recipients'}")
    if "size" in details:
        parts.append(f"{details['size']:,} octets")
    return escape(", ".join(parts))


def _delays(details: Any) -> str:
    spans = zip(details["delays"], _DELAYS, strict=True)
    said = [f"{_span(span)} {what}" for span, what in spans if span > 0]
    text = f"{_span(details['delay'])} after it was accepted"
    return f"{text}: {', '.join(said)}" if said else text


def _span(seconds: float) -> str:
    """A span of time: exact while it is short, then in words."""
    return f"{seconds:.3g} s" if seconds < 60 else duration(seconds).english


def _step(step: TracedStep) -> str:
    name = step.plugin if step.hook == "message" else f"{step.plugin} ({step.hook})"
    text = f"plugin {name}: {step.seconds * 1000:.2f} ms"
    if step.calls > 1:
        text += f" in {step.calls:,} calls"
    if step.changed:
        text += f", changed {', '.join(step.changed)}"
    for result in step.results:
        reason = f"{result.reason} s" if result.name == "delay" else result.reason
        text += f", {_RESULTS.get(result.name, result.name)}" + (f": {reason}" if reason else "")
    failed = any(result.name in ("failed", "skipped") for result in step.results)
    return click.style(escape(text), fg="red" if failed else None)


def _waits(waiting: Waiting, id: str) -> Iterator[str]:  # noqa: A002
    state = click.style(waiting.state, fg=_COLOURS.get(waiting.state), bold=True)
    yield f"  {escape(f'<{waiting.recipient}>')}  {state}, in the lane {escape(waiting.lane)}"
    for line in _reasons(waiting, id):
        yield f"    {escape(line)}"


def _reasons(waiting: Waiting, id: str) -> Iterator[str]:  # noqa: A002
    if waiting.held is not None:
        yield waiting.held
        if waiting.pause is not None:
            yield f"until the pause ends: gateway queue resume {waiting.pause}"
        else:
            yield f"until a person decides: gateway queue release {id}, or drop {id}"
    elif waiting.state == "active":
        yield "an attempt is due, or under way"
    elif waiting.due is not None:
        which = "first attempt" if waiting.state == "scheduled" else "next attempt"
        ahead = duration(waiting.due - time.time()).english
        yield f"{which} at {local_time(waiting.due)}, in {ahead}; {waiting.attempts} so far"
    if waiting.reply:
        yield f"because: {waiting.reply}"
    if waiting.via:
        yield f"rerouted to {', '.join(waiting.via)}"
    if waiting.ends is not None:
        yield f"given up and reported to the sender after {local_time(waiting.ends)}"
