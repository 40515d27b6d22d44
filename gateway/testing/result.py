"""What became of a message that a test sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gateway.attempt import Delivery, Outcome, Route, Source
from gateway.events import Event
from gateway.hooks.actions import Delay, Quarantine, Reject
from gateway.mail.headers import Headers
from gateway.mail.message import Message
from gateway.testing.changes import Changes, changes
from gateway.testing.faults import Fault

Timings = Mapping[tuple[str, str], float]
"""Seconds in hooks, by plugin and hook."""


@dataclass(frozen=True)
class QueuedMessage:
    """A message as it would wait in the queue: all of them, or one of several copies.

    Attributes:
        before: what came, with our Received field on top and before any hook of the message; the
            sender, recipients and stream are those that the client chose.
        message: what the plugins made of it.
        held: why it waits for a person (`Quarantine`); None if it does not.
        delay: seconds until it may go out (`Delay`).
    """

    before: Message = field(repr=False)
    message: Message
    held: str | None = None
    delay: float = 0.0

    @property
    def sender(self) -> str:
        """The envelope sender."""
        return self.message.sender

    @property
    def recipients(self) -> list[str]:
        """The addresses that it goes to."""
        return [recipient.address for recipient in self.message.recipients]

    @property
    def stream(self) -> str:
        """The stream that it belongs to."""
        return self.message.stream

    @property
    def notes(self) -> dict[str, str]:
        """What plugins noted on it."""
        return self.message.notes

    @property
    def content(self) -> bytes:
        """Its octets, with our Received field on top, or what `seal` hooks put above that."""
        return self.message.content

    @property
    def headers(self) -> Headers:
        """Its header."""
        return self.message.headers

    @property
    def subject(self) -> str | None:
        """Its Subject, decoded."""
        return self.message.headers.get("Subject")

    @property
    def text(self) -> str | None:
        r"""Its first plain text, as hooks see it, with `\n` as line end; None without any."""
        return self._text("text/plain")

    @property
    def html(self) -> str | None:
        r"""Its first text in HTML, with `\n` as line end; None without any."""
        return self._text("text/html")

    def _text(self, content_type: str) -> str | None:
        # A copy: a sealed message may be read, but not described anew.
        parts = self.message.copy().text_parts(content_type)
        return parts[0].text if parts else None

    @cached_property
    def changes(self) -> Changes:
        """What the plugins changed."""
        return changes(self.before, self.message)


@dataclass(frozen=True)
class Result:
    """What became of a message that was sent.

    Attributes:
        reply: what the client was told in the end, such as `250 2.0.0 Ok: queued as …`: the first
            refusal of the message, or the answer to its end.
        replies: the answers to RCPT, by recipient.
        messages: what would be queued.
        discarded: recipients that get nothing, and why (`Discard`).
        events: what plugins emitted, and `discarded`.
        faults: what plugins did wrong.
        timings: how long the hooks took.
        dialogue: all that client and gateway said.
    """

    reply: str
    replies: Mapping[str, str] = field(default_factory=dict)
    messages: Sequence[QueuedMessage] = ()
    discarded: Mapping[str, str] = field(default_factory=dict)
    events: Sequence[Event] = ()
    faults: Sequence[Fault] = ()
    timings: Timings = field(default_factory=dict, repr=False)
    dialogue: str = field(default="", repr=False)

    @property
    def accepted(self) -> bool:
        """Whether the client was told that all is well."""
        return self.reply.startswith("250")

    @property
    def message(self) -> QueuedMessage:
        """The only message.

        Raises:
            AssertionError: there is none, or several; the text says why.
        """
        __tracebackhide__ = True
        if len(self.messages) == 1:
            return self.messages[0]
        if self.messages:
            copies = "\n".join(f"  {', '.join(one.recipients)}" for one in self.messages)
            raise AssertionError(
                f"there are {len(self.messages)} copies; look at `messages`:\n{copies}"
            )
        if self.discarded:
            reasons = "\n".join(f"  {to}: {reason}" for to, reason in self.discarded.items())
            raise AssertionError(f"nothing was queued; these were discarded:\n{reasons}")
        raise AssertionError(f"nothing was queued:\n{self.dialogue}")

    @property
    def changes(self) -> Changes:
        """What the plugins changed in the only message.

        Raises:
            AssertionError: there is none, or several.
        """
        __tracebackhide__ = True
        return self.message.changes


@dataclass(frozen=True)
class AttemptResult:
    """What plugins made of an attempt at delivery.

    Attributes:
        delivery: what they were asked about, with the bounds that `admit` set.
        route, source, admit: the answer of each stage; None: no plugin had one, or the stage was
            not reached.
        outcomes: by recipient, what `reply` made of the outcome; empty if the attempt was not made.
        made: whether the attempt would be made.
        events, faults, timings: as in `Result`.
    """

    delivery: Delivery
    route: Route | Delay | Reject | Quarantine | None = None
    source: Source | Delay | Quarantine | None = None
    admit: Delay | Quarantine | Reject | None = None
    outcomes: Mapping[str, Outcome | Quarantine] = field(default_factory=dict)
    made: bool = False
    events: Sequence[Event] = ()
    faults: Sequence[Fault] = ()
    timings: Timings = field(default_factory=dict, repr=False)

    @property
    def outcome(self) -> Outcome | Quarantine:
        """The outcome for the only recipient.

        Raises:
            AssertionError: there is none, or several.
        """
        __tracebackhide__ = True
        if len(self.outcomes) == 1:
            return next(iter(self.outcomes.values()))
        if not self.made:
            answer = self.admit or self.source or self.route
            raise AssertionError(f"the attempt was not made: {answer}")
        raise AssertionError(f"there are {len(self.outcomes)} recipients; look at `outcomes`")


@dataclass(frozen=True)
class ObserveResult:
    """What plugins did with events.

    Attributes:
        seen: by plugin, the events that it was given.
        again: the plugins that have to get theirs again, because they failed.
        events: what they emitted themselves.
        faults, timings: as in `Result`.
    """

    seen: Mapping[str, Sequence[Event]]
    again: Sequence[str] = ()
    events: Sequence[Event] = ()
    faults: Sequence[Fault] = ()
    timings: Timings = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class HttpResult:
    """An answer over HTTP.

    Attributes:
        status: such as 200.
        headers: names in lower case; of a name that comes twice, the values joined by `, `.
        body: its octets.
        events, faults: as in `Result`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    events: Sequence[Event] = ()
    faults: Sequence[Fault] = ()

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode("utf-8", "replace")


@dataclass(frozen=True)
class CommandResult:
    """What a command printed and how it ended.

    Attributes:
        status: its exit status.
        output: standard output.
        errors: standard error.
        faults: as in `Result`.
    """

    status: int
    output: str
    errors: str
    faults: Sequence[Fault] = ()
