"""What each plugin did to one message: for how long, what it changed, what it answered.

The short text of a trace stands in the log and beside the message in the queue:

    suppression@rcpt:0.10ms*3 personalization:0.41ms[headers,body] dkim@seal:0.30ms[headers]

A step is a plugin, its hook (`message` if none is named), the time that its calls took, how many
they were if more than one, and in brackets what came of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gateway.hooks.actions import Delay, Discard, Quarantine, Reject, Tempfail
from gateway.hooks.step import Fault, Step, Unasked
from gateway.mail.body import Body
from gateway.mail.headers import State as HeadersState
from gateway.mail.message import Message, Recipient

LONGEST_REASON = 100
"""Characters of a reason that the text keeps."""

_HEADERS, _BODY, _SENDER, _RECIPIENTS, _STREAM, _NOTES = (1 << bit for bit in range(6))
_CHANGES = ("headers", "body", "sender", "recipients", "stream", "notes")
_NAMES = tuple(
    [
        tuple([name for bit, name in enumerate(_CHANGES) if changed & 1 << bit])
        for changed in range(1 << len(_CHANGES))
    ]
)
_ENDS = tuple([f"ms[{','.join(names)}]" if names else "ms" for names in _NAMES])
"""Changes as bits are the index of their names, and of how the text of a step ends."""

_UNFIT = re.compile(r"[\s:@\[\]]")
_REASON = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_RESULT = re.compile(rf"([a-z]+)(?:=({_REASON}|[0-9.]++))?")
_STEP = re.compile(
    rf"([^\s:@\[\]]++)(?:@([a-z]++))?:([0-9.]++)ms(?:\*([0-9]++))?(?:\[((?:{_REASON}|[^\]\"])*)\])?"
)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a step besides changes.

    `name` is `reject`, `discard`, `quarantine`, `delay`, `failed` (the plugin raised, ran late or
    answered what it may not) or `skipped` (it was not asked, as it has failed too often). `reason`
    is the answer's text; of a delay, its seconds.
    """

    name: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TracedStep:
    """One hook of one plugin, over all its calls for a message.

    `seconds` is what they took together. `changed` has any of `headers`, `body`, `sender`,
    `recipients` (and their return paths), `stream`, `notes` (of the message).
    """

    plugin: str
    hook: str
    seconds: float
    calls: int = 1
    changed: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()


_Addressed = list[tuple[Recipient, str, str | None]]
_State = tuple[HeadersState, Body, Any, str, str, dict[str, str] | None, _Addressed]


def state(message: Message) -> _State:
    """What `Trace.ran` compares with; all of it is shared, so that it costs little."""
    # The body itself, not its octets: to join those of an edited one would take long.
    body = message._body
    addressed = []
    for recipient in message.recipients:
        # Twice as fast for one as a comprehension.
        addressed.append((recipient, recipient.address, recipient.return_path))  # noqa: PERF401
    return (
        message.headers.state(),
        body,
        body.state() if body.edited else None,
        message._sender,
        message._stream,
        message.notes.copy() if message.notes else None,
        addressed,
    )


def _changes(message: Message, before: _State) -> int:
    """What is another object than before, as bits."""
    headers, body, edits, sender, stream, notes, addressed = before
    changed = 0
    raw, fields = message.headers.state()
    if (raw is None or raw is not headers[0]) and (fields is None or fields is not headers[1]):
        changed = _HEADERS
    if message._body is not body or (
        body.edited and (edits is None or _texts(body.state()) != _texts(edits))
    ):
        changed |= _BODY
    if message._sender is not sender:
        changed |= _SENDER
    if message._stream is not stream:
        changed |= _STREAM
    if message.notes != notes and (notes or message.notes):
        changed |= _NOTES
    recipients = message.recipients
    if len(recipients) != len(addressed):
        return changed | _RECIPIENTS
    for place, (recipient, address, return_path) in enumerate(addressed):
        if (
            recipients[place] is not recipient
            or recipient.address is not address
            or recipient.return_path is not return_path
        ):
            return changed | _RECIPIENTS
    return changed


def _texts(edits: Any) -> list[Any]:
    """The texts of a body's parts, without what is only known of them."""
    return [text for text, _ in edits[1]]


class Trace:
    """What plugins did to one message, and to all copies of it, step by step."""

    __slots__ = ("_steps", "_text")

    def __init__(self) -> None:
        # Seconds, calls, changes as bits, results.
        self._steps: dict[Step, tuple[float, int, int, tuple[Result, ...]]] = {}
        self._text: str | None = None

    def ran(
        self, step: Step, seconds: float, message: Message, before: _State, answer: Any
    ) -> None:
        """A step was run on the message, which was in a certain state before."""
        results = () if answer is None else _answered(answer)
        self._add(step, seconds, _changes(message, before), results)

    def sealed(
        self, step: Step, seconds: float, message: Message, headers: HeadersState, answer: Any
    ) -> None:
        """A `seal` hook was run; `headers` is the state of the header before."""
        raw, fields = message.headers.state()
        same = (raw is not None and raw is headers[0]) or (
            fields is not None and fields is headers[1]
        )
        results = () if answer is None else _answered(answer)
        self._add(step, seconds, 0 if same else _HEADERS, results)

    def asked(self, step: Step, seconds: float, answer: Any) -> None:
        """A step was asked of which only the answer counts."""
        self._add(step, seconds, 0, () if answer is None else _answered(answer))

    def failed(self, step: Step, seconds: float, fault: Fault) -> None:
        """A step failed, or was not asked; the message is as it was before."""
        if isinstance(fault, Unasked):
            self._add(step, 0.0, 0, (Result("skipped"),))
        else:
            reason = str(fault).removeprefix(f"plugin {step.plugin} failed in {step.hook}: ")
            self._add(step, seconds, 0, (Result("failed", reason),))

    def _add(self, step: Step, seconds: float, changed: int, results: tuple[Result, ...]) -> None:
        self._text = None
        steps = self._steps
        known = steps.get(step)
        if known is None:
            steps[step] = (seconds, 1, changed, results)
            return
        # Of a thousand copies that are discarded for one reason, the reason is told once.
        new = tuple([result for result in results if result not in known[3]])
        steps[step] = (known[0] + seconds, known[1] + 1, known[2] | changed, known[3] + new)

    @property
    def steps(self) -> list[TracedStep]:
        """The steps in the order in which they were first run."""
        return [
            TracedStep(step.plugin, step.hook, seconds, calls, _NAMES[changed], results)
            for step, (seconds, calls, changed, results) in self._steps.items()
        ]

    def __str__(self) -> str:
        if self._text is None:
            self._text = " ".join(
                [
                    f"{_label(step.plugin, step.hook)}{seconds * 1000:.2f}{_ENDS[changed]}"
                    if calls == 1 and not results
                    else _text(step, seconds, calls, changed, results)
                    for step, (seconds, calls, changed, results) in self._steps.items()
                ]
            )
        return self._text


def parse(text: str) -> list[TracedStep]:
    """Reads the text of a trace; what cannot be understood is left out."""
    return [
        TracedStep(
            plugin=found[1],
            hook=found[2] or "message",
            seconds=float(found[3]) / 1000,
            calls=int(found[4] or 1),
            changed=tuple([name for name in _words(found[5]) if name in _CHANGES]),
            results=tuple(_results(found[5])),
        )
        for found in _STEP.finditer(text)
        if found[3].count(".") < 2 and found[3].strip(".")
    ]


def _words(text: str | None) -> Sequence[str]:
    return [found[1] for found in _RESULT.finditer(text or "") if found[2] is None]


def _results(text: str | None) -> list[Result]:
    results = []
    for found in _RESULT.finditer(text or ""):
        name, reason = found[1], found[2] or ""
        if name in _CHANGES:
            continue
        if reason.startswith('"'):
            try:
                reason = json.loads(reason, strict=False)
            except ValueError:
                reason = reason.strip('"')
        results.append(Result(name, reason))
    return results


@lru_cache(maxsize=1024)
def _label(plugin: str, hook: str) -> str:
    name = _UNFIT.sub("_", plugin) or "_"
    return f"{name}:" if hook == "message" else f"{name}@{hook}:"


def _text(step: Step, seconds: float, calls: int, changed: int, results: Sequence[Result]) -> str:
    text = f"{_label(step.plugin, step.hook)}{seconds * 1000:.2f}ms"
    if calls > 1:
        text += f"*{calls}"
    if changed or results:
        text += f"[{','.join([*_NAMES[changed], *map(_result, results)])}]"
    return text


def _answered(answer: Any) -> tuple[Result, ...]:
    if isinstance(answer, Reject | Tempfail):
        return (Result("reject", f"{answer.code} {answer.status} {answer.text}"),)
    if isinstance(answer, Quarantine):
        return (Result("quarantine", answer.reason),)
    if isinstance(answer, Discard):
        return (Result("discard", answer.reason),)
    if isinstance(answer, Delay):
        return (Result("delay", f"{answer.seconds:.0f}"),)
    return ()


def _result(result: Result) -> str:
    if not result.reason:
        return result.name
    if result.name == "delay":
        return f"delay={result.reason}"
    reason = " ".join(result.reason[: LONGEST_REASON + 1].split())
    if len(result.reason) > LONGEST_REASON:
        reason = f"{reason[: LONGEST_REASON - 1]}…"
    return f"{result.name}={json.dumps(reason, ensure_ascii=False)}"
