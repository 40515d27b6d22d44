"""What a trial saw, as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import click

from gateway.attempt import Outcome, Route, Source
from gateway.hooks.actions import Accept, Delay, Discard, Quarantine, Reject, Tempfail
from gateway.log_line import escape
from gateway.trial.dialogue import Submission
from gateway.trial.record import Call, Fact, ResultingCopy, Trial, Way

_SHOWN = 10
"""Recipients that are named."""


def told(trial: Trial, submission: Submission, *, timings: bool = False) -> Iterator[str]:
    """The lines, in colour."""
    to = _some([f"<{recipient}>" for recipient in submission.recipients])
    size = f"{len(submission.content):,} octets"
    yield escape(f"from <{submission.sender}> to {to}, {size}, client {submission.client}")
    for note in trial.notes:
        yield click.style(escape(f"note: {note}"), dim=True)
    for hook, found in groupby(trial.calls, key=lambda call: call.hook):
        yield ""
        yield click.style(hook, bold=True)
        calls = list(found)
        for call in calls:
            again = sum(1 for other in calls if other.plugin == call.plugin) > 1
            yield from _call(call, again or hook not in ("message", "seal"))
    yield ""
    yield click.style("outcome", bold=True)
    yield from _outcome(trial)
    if trial.log:
        yield ""
        yield click.style("log", bold=True)
        yield from (f"  {escape(line)}" for line in trial.log)
    if trial.events:
        yield ""
        yield click.style("events", bold=True) + "  (not written)"
        for event in trial.events:
            about = f" <{event.recipient}>" if event.recipient else ""
            reason = f": {event.reason}" if event.reason else ""
            yield escape(f"  {event.type}{about}{reason}")
    if timings:
        yield ""
        yield click.style("timings", bold=True)
        yield from _timings(trial)


def _call(call: Call, tell_whom: bool) -> Iterator[str]:
    said = "" if call.answer is None or call.fault else f"  {_answer(call.answer)}"
    if not (said or call.changes or call.facts or call.fault):
        said = click.style("  nothing to do", dim=True)
    about = f"  {call.about}" if tell_whom and call.about else ""
    time = f"{call.seconds * 1000:.2f} ms"
    yield f"  {click.style(escape(call.plugin), fg='cyan')}  {time}{escape(about)}{said}"
    if call.fault:
        text = f"    FAILED: {call.fault} (on_error: {call.on_error})"
        yield click.style(escape(text), fg="red", bold=True)
        yield from (click.style(escape(f"      {line}"), fg="red") for line in call.traceback)
    for fact in call.facts:
        yield from _fact(fact)
    if call.changes:
        for line in str(call.changes).splitlines():
            yield f"    {_coloured(escape(line))}"


def _fact(fact: Fact) -> Iterator[str]:
    for sign, value in (("-", fact.before), ("+", fact.after)):
        if value is not None:
            yield f"    {_coloured(escape(f'{sign} {fact.name}: {value}'))}"


def _coloured(line: str) -> str:
    """A line of a diff."""
    colour = {"-": "red", "+": "green"}.get(line[:1])
    return click.style(line, fg=colour) if colour else line


def _answer(answer: Any) -> str:
    match answer:
        case Accept():
            return click.style("accepts: nobody after it is asked", fg="green")
        case Reject() | Tempfail():
            text = f"refuses: {answer.code} {answer.status} {answer.text}"
            return click.style(escape(text), fg="red")
        case Discard():
            return click.style(escape(f"discards: {answer.reason}"), fg="red")
        case Quarantine():
            return click.style(escape(f"has it held: {answer.reason}"), fg="yellow")
        case Delay():
            why = f": {answer.reason}" if answer.reason else ""
            lane = " the whole lane" if answer.lane else ""
            return click.style(escape(f"delays{lane} by {answer.seconds:g} s{why}"), fg="yellow")
        case Route():
            return escape(f"names the way: {_hops(answer)}")
        case Source():
            return escape(f"chooses the source: {_source(answer)}")
    return escape(f"answers {answer}")


def _hops(route: Route) -> str:
    level = f", TLS {route.tls.value}" if route.tls is not None else ""
    return ", then ".join(map(str, route.hops)) + level


def _source(source: Source) -> str:
    return f"{source.address or 'any address'} as {source.helo}"


def _outcome(trial: Trial) -> Iterator[str]:
    for one in trial.replies[:-1]:
        if not one.reply.startswith(("2", "3")):
            yield _reply(one.command, one.reply)
    yield _reply(trial.replies[-1].command, trial.reply)
    for number, copy in enumerate(trial.copies, 1):
        yield from _copy(copy, number, len(trial.copies))
    for recipient, reason in trial.discarded:
        yield click.style(escape(f"  discarded: <{recipient}>: {reason}"), fg="red")
    if trial.is_accepted and not trial.copies and not trial.discarded:
        yield "  no copy goes out: the plugin that has claimed the address has dealt with it"


def _reply(command: str, reply: str) -> str:
    what = escape(command) or "the connection"
    colour = "green" if reply.startswith("2") else "red"
    return f"  {what}: {click.style(escape(reply), fg=colour)}"


def _copy(copy: ResultingCopy, number: int, count: int) -> Iterator[str]:
    name = "queued" if count == 1 else f"copy {number} of {count}"
    to = _some([f"<{recipient}>" for recipient in copy.recipients])
    text = f"  {name}: from <{copy.sender}> to {to}, {len(copy.content):,} octets"
    yield escape(f"{text}, stream {copy.stream}")
    if copy.held is not None:
        yield click.style(escape(f"    held until a person decides: {copy.held}"), fg="yellow")
    if copy.delay > 0:
        yield click.style(f"    goes out in {copy.delay:.0f} s", fg="yellow")
    if copy.claimed_by:
        yield escape(f"    it is for the plugin {copy.claimed_by}, and goes nowhere else")
    for way in copy.ways:
        yield from _way(way)


def _way(way: Way) -> Iterator[str]:
    yield escape(f"    lane {way.lane}: {_some([f'<{one}>' for one in way.recipients])}")
    if way.route is not None:
        yield escape(f"      by {_hops(way.route)}")
    if way.source is not None:
        yield escape(f"      from {_source(way.source)}")
    for name, most in way.ceilings.items():
        yield escape(f"      at most {most} connections at a time ({name})")
    if isinstance(way.answer, Outcome):
        text = f"      {way.answer.disposition.value}: {way.answer.reply}"
        yield click.style(escape(text), fg="red")
    elif way.answer is not None:
        yield f"      {_answer(way.answer)}"


def _timings(trial: Trial) -> Iterator[str]:
    totals: dict[tuple[str, str], list[float]] = {}
    for call in trial.calls:
        totals.setdefault((call.plugin, call.hook), []).append(call.seconds)
    width = max([len(plugin) for plugin, _ in totals], default=0)
    for (plugin, hook), seconds in totals.items():
        calls = f"{len(seconds)} calls" if len(seconds) > 1 else "1 call"
        yield escape(f"  {plugin:<{width}}  {hook:<8}  {sum(seconds) * 1000:8.2f} ms  {calls}")
    total = sum(call.seconds for call in trial.calls)
    yield f"  {'':<{width}}  {'all':<8}  {total * 1000:8.2f} ms"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} others"
