"""What the commands of `gateway queue` share: how mail is selected, described and asked about."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import click

from gateway.cli.options import fail, fail_config
from gateway.log_line import escape
from gateway.process.control import ControlError
from gateway.queue.administration import Advance
from gateway.queue.change import Changed
from gateway.queue.listing import Survey
from gateway.queue.selection import Selection
from gateway.spool.shard_file import SpoolError, UnreadableShard

T = TypeVar("T")

NOTHING = "Nothing matches."

LANES_SHOWN = 10

INCOMPLETE = 3
"""The exit status where a part of the queue cannot be read, and all else was done."""

LARGE = 1000
"""Recipients from which on a change shows how far it has come."""

_CONDITIONS = (
    click.option("--sender", metavar="ADDRESS", help="Only mail from this sender."),
    click.option("--recipient", metavar="ADDRESS", help="Only mail to this recipient."),
    click.option("--domain", metavar="NAME", help="Only mail to this domain."),
    click.option("--stream", metavar="NAME", help="Only mail of this stream."),
    click.option("--lane", metavar="NAME", help="Only mail in this lane."),
    click.option("--campaign", metavar="NAME", help="Only mail of this campaign."),
    click.option(
        "--client",
        metavar="CLIENT",
        help="Only mail from this IP address or network, or of this user.",
    ),
)
_STATE = click.option(
    "--state",
    type=click.Choice(["active", "deferred", "scheduled", "held"]),
    help="Only mail in this state.",
)
_IDS = click.argument("ids", nargs=-1, metavar="[ID]...")

_QUESTION = (
    click.option("--yes", is_flag=True, help="Do not ask."),
    click.option("--dry-run", is_flag=True, help="Only say what would be done."),
)


def conditions(function: Callable[..., None]) -> Callable[..., None]:
    """The options by which mail is selected that is in the queue or will be."""
    return _with(function, *_CONDITIONS)


def selection_options(function: Callable[..., None]) -> Callable[..., None]:
    """The arguments and options by which mail in the queue is selected."""
    return _with(function, _IDS, *_CONDITIONS, _STATE)


def question_options(function: Callable[..., None]) -> Callable[..., None]:
    """`--yes` and `--dry-run`."""
    return _with(function, *_QUESTION)


def _with(function: Callable[..., None], *options: Any) -> Callable[..., None]:
    for option in reversed(options):
        function = option(function)
    return function


@contextmanager
def failing() -> Iterator[None]:
    """Ends the program with status 1 for what went wrong."""
    try:
        yield
    except (SpoolError, ControlError) as error:
        fail(error)


def unreadable(skipped: Sequence[UnreadableShard]) -> dict[str, Any]:
    """For JSON: which shards cannot be read; nothing if all can be."""
    if not skipped:
        return {}
    shards = [{"shard": one.number, "file": str(one.path), "error": one.reason} for one in skipped]
    return {"unreadable": shards}


def end(skipped: Sequence[UnreadableShard]) -> None:
    """Says which shards cannot be read, and ends the program with status 3 if there are any."""
    for one in skipped:
        click.echo(
            f"gateway: {one}; its mail is missing here, and can be saved: gateway queue salvage",
            err=True,
        )
    if skipped:
        sys.exit(INCOMPLETE)


def selection_of(selected: dict[str, Any]) -> Selection:
    """The selection that the options say; ends the program with status 2 if it makes no sense."""
    try:
        return Selection(**selected)
    except ValueError as error:
        fail_config([f"gateway: {error}"])


@dataclass(frozen=True, slots=True)
class Consent:
    """What the command line says of questions.

    `asks`: a person has to agree; `yes`: has done so already.
    """

    asks: bool
    yes: bool
    dry_run: bool
    as_json: bool

    def ask(
        self,
        found: Survey,
        what: str,
        question: str,
        skipped: Sequence[UnreadableShard] = (),
    ) -> None:
        """Says what would be done, and asks; ends the program unless it is to be done.

        Args:
            found: what it is done to.
            what: `to be held`.
            question: `Hold them?`
            skipped: the shards that cannot be read.
        """
        if self.dry_run:
            self._end(found, what, skipped)
        if found.recipients and self.asks:
            for line in _summary(found, what):
                click.echo(line, err=True)
            self.agree(question)

    def agree(self, question: str) -> None:
        """Asks; ends the program if nobody agrees."""
        if self.yes:
            return
        if not sys.stdin.isatty():
            fail("this needs an answer, and here is no terminal to ask on: say --yes")
        click.confirm(question, abort=True, err=True)

    def _end(self, found: Survey, what: str, skipped: Sequence[UnreadableShard]) -> NoReturn:
        """Only says what would be done."""
        if self.as_json:
            data = {"recipients": found.recipients, "messages": found.messages}
            lanes = {"lanes": dict(found.lanes.most_common())}
            click.echo(json.dumps({**data, **lanes, **unreadable(skipped)}, ensure_ascii=False))
        elif not found.recipients:
            click.echo(NOTHING)
        else:
            click.echo("\n".join(_summary(found, what)))
        end(skipped)
        sys.exit(0)


def _summary(found: Survey, what: str) -> Iterator[str]:
    """How much it is, and in which lanes."""
    yield f"{recipients(found.recipients)} of {counted(found.messages, 'message')} {what}:"
    shown = found.lanes.most_common(LANES_SHOWN)
    lines = [(count, escape(lane)) for lane, count in shown]
    others = len(found.lanes) - len(shown)
    if others:
        rest = found.recipients - sum(count for _, count in shown)
        lines.append((rest, f"in {counted(others, 'other lane')}"))
    width = max(len(f"{count:,}") for count, _ in lines)
    for count, text in lines:
        yield f"  {count:>{width},}  {text}"


def carry_out(label: str, length: int, work: Callable[[Advance], Coroutine[Any, Any, T]]) -> T:
    """Makes a change to about `length` recipients, and shows on a terminal how far it has come.

    Ends the program with status 1 if it cannot be made, or not all of it.
    """
    done = Changed()
    shown = length >= LARGE and sys.stderr.isatty()
    bar: Any = (
        click.progressbar(length=length, label=label, file=sys.stderr) if shown else nullcontext()
    )

    def advance(more: Changed) -> None:
        nonlocal done
        done += more
        if shown:
            bar.update(more.changed + more.busy + more.paused)

    try:
        with bar:
            result = asyncio.run(work(advance))
    except (SpoolError, ControlError) as error:
        fail(f"{error} ({recipients(done.changed)} done before)")
    except KeyboardInterrupt:
        fail(f"stopped ({recipients(done.changed)} done before)")
    return result


def report(done: Changed, past: str) -> None:
    """Says what was done."""
    click.echo(f"{recipients(done.changed)} {past}")
    if done.busy:
        click.echo(f"{recipients(done.busy)} left alone: being delivered now")
    if done.paused:
        click.echo(f"{recipients(done.paused)} kept: a pause is in force, see gateway queue pauses")


def recipients(count: int) -> str:
    """`1 recipient`, `2 recipients`."""
    return counted(count, "recipient")


def counted(count: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def local_time(seconds: float) -> str:
    """A time as people read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
