"""Every message of the corpus passes, and nothing in it changes but what the plugin declares."""

from __future__ import annotations

import email
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.events import Event
from gateway.hooks.division import Copy
from gateway.smtp.content import flaw
from gateway.testing.changes import Changes, changes
from gateway.testing.conformance.examination import MOST_LATE, Examination, among
from gateway.testing.conformance.journey import Journey, attempt, deliveries, outcomes, send
from gateway.testing.corpus import Sample

LINE_LENGTH = 998
_COPIES = 5
"""Different copies of one message that are compared."""
_ATTEMPTED = 40
"""Messages that attempts are made of."""
_WHOLE = ("body", "header:*", "header:content-type")
"""Who declares one of these may make another structure."""


@dataclass(slots=True)
class _Seen:
    """What changed: in which messages, by the words of `Plugin.changes`, with an example."""

    words: dict[str, list[str]] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    flaws: dict[str, list[str]] = field(default_factory=dict)
    varying: dict[str, list[str]] = field(default_factory=dict)
    accepted: int = 0

    def change(self, word: str, label: str, example: str) -> None:
        self.words.setdefault(word, []).append(label)
        self.examples.setdefault(word, example)


async def check(examination: Examination) -> str:
    """Sends each message twice, and then what became of it once more."""
    probe, instance = examination.probe, examination.worker
    first = len(probe.failures)
    seen = _Seen()
    total = len(examination.samples)
    for number, sample in enumerate(examination.samples):
        before = len(probe.failures)
        probe.label = sample.name
        await _pass(examination, sample, number, seen)
        if len(probe.failures) > before:
            instance.renew()
            examination.service.renew()
        if sum(failure.late for failure in probe.failures[first:]) >= MOST_LATE:
            examination.error(f"given up after {number + 1} messages: too many calls do not end")
            break
        examination.advance((number + 1) / total)
    probe.label = ""
    examination.blame(probe.failures[first:])
    _compare(examination, seen)
    changed = ", ".join(sorted(seen.words)) or "nothing"
    return f"{total} messages, {seen.accepted} accepted; changes: {changed}"


async def _pass(examination: Examination, sample: Sample, number: int, seen: _Seen) -> None:
    probe, instance, now = examination.probe, examination.worker, examination.site.now
    queue_id = f"CHECK{number:05}"
    probe.round = 0
    journey = await send(instance, sample, queue_id, now)
    _look(journey, sample, seen)
    if number < _ATTEMPTED:
        for outcome in outcomes():
            for copy in journey.copies[:_COPIES]:
                for delivery in deliveries(copy, now):
                    await attempt(instance, delivery, outcome)
    await _observe(examination, sample, queue_id)
    probe.round = 1
    again = await send(instance, sample, queue_id, now)
    for word in _varying(journey, again):
        seen.varying.setdefault(word, []).append(sample.name)
    probe.round = 2
    if journey.copies:
        message = journey.copies[0].message
        addresses = tuple(recipient.address for recipient in message.recipients)
        output = Sample(sample.name, message.content, message.sender, addresses, sample.smtputf8)
        await send(instance, output, f"{queue_id}B", now)


async def _observe(examination: Examination, sample: Sample, queue_id: str) -> None:
    """Tells the observer what would have become of the message."""
    service, now = examination.service, examination.site.now
    events = [
        Event(kind, now, queue_id, sample.sender, sample.recipients[0], "default", "192.0.2.10")
        for kind in ("accepted", "delivered", "deferred", "bounced")
    ]
    for step in service.chain.steps["observe"]:
        wanted = [event for event in events if event.type in step.interest]
        if wanted:
            await service.chain.observe(step, wanted)


def _look(journey: Journey, sample: Sample, seen: _Seen) -> None:
    label = sample.name
    seen.accepted += journey.accepted
    for word, example in _envelope(journey):
        seen.change(word, label, example)
    structure = _structure(journey.content)
    for content in _contents(journey.copies):
        found = changes(journey.content, content)
        for word in found.what:
            seen.change(word, label, _example(found, word))
        problem = flaw(content, LINE_LENGTH)
        if problem is not None and flaw(journey.content, LINE_LENGTH) is None:
            seen.flaws.setdefault(f"makes a message that cannot go out: {problem}", []).append(
                label
            )
        if found and _structure(content) != structure:
            seen.flaws.setdefault(_STRUCTURE, []).append(label)


def _example(found: Changes, word: str) -> str:
    try:
        return str(found.beyond(*(found.what - {word})))
    except ValueError:
        return str(found)  # a field whose name is none


_STRUCTURE = "makes other parts of the message, as Python's email package reads it"


def _contents(copies: list[Copy]) -> list[bytes]:
    return list(dict.fromkeys(copy.message.content for copy in copies[: 4 * _COPIES]))[:_COPIES]


def _envelope(journey: Journey) -> Iterator[tuple[str, str]]:
    left = Counter(journey.recipients)
    left.subtract(address for address in journey.gone if address in left)
    given: Counter[str] = Counter()
    for copy in journey.copies:
        message = copy.message
        if message.sender != journey.sender:
            yield "sender", f"{journey.sender} becomes {message.sender}"
        if message.stream != "default":
            yield "stream", f"it becomes {message.stream}"
        for recipient in message.recipients:
            given[recipient.address] += 1
            if recipient.return_path is not None:
                yield "sender", f"a return path, {recipient.return_path}"
    if journey.copies and given != +left:
        odd = (given - +left) or (+left - given)
        yield "recipients", f"{next(iter(odd))} {'is new' if given - +left else 'is gone'}"


def _structure(content: bytes) -> list[tuple[str, bool]]:
    try:
        message = email.message_from_bytes(content)
        return [(part.get_content_type(), part.is_multipart()) for part in message.walk()]
    except (ValueError, LookupError, RecursionError, AttributeError):
        return []  # the parser has its limits; then there is nothing to compare


def _result(journey: Journey) -> list[tuple[object, ...]]:
    return [
        (copy.held, copy.message.sender, [one.address for one in copy.message.recipients])
        for copy in journey.copies
    ]


def _varying(journey: Journey, again: Journey) -> Iterator[str]:
    """What is another thing when the same message comes again."""
    if journey.answers != again.answers:
        yield "the answer"
    elif _result(journey) != _result(again):
        yield "the envelope"
    elif len(journey.copies) == len(again.copies):
        pairs = zip(journey.copies[:_COPIES], again.copies, strict=False)
        for one, other in pairs:
            yield from changes(one.message.content, other.message.content).what


def _compare(examination: Examination, seen: _Seen) -> None:
    declared = examination.worker.loaded.instance.changes
    words = {word.lower() for word in declared or ()}
    for problem, labels in seen.flaws.items():
        if problem == _STRUCTURE and words.intersection(_WHOLE):
            continue
        examination.error(f"{problem} ({among(labels)})")
    if declared is None:
        if examination.has("mail", "rcpt", "message", "seal"):
            line = ", ".join(f'"{word}"' for word in sorted(seen.words))
            line += "," if len(seen.words) == 1 else ""
            examination.warn(f"does not declare what it changes; write: changes = ({line})")
    else:
        for word, labels in seen.words.items():
            if not _declares(words, word):
                example = " ".join(seen.examples[word].split())[:200]
                examination.error(
                    f"changes {word} ({among(labels)}), and does not declare it: {example}; do not,"
                    f' or add "{word}" to `changes`'
                )
    for word, labels in seen.varying.items():
        examination.warn(
            f"the same message at the same time gives {word} anew ({among(labels)}): what is drawn "
            "by chance cannot be tested, and differs if a client sends again"
        )
    refused = len(examination.samples) - seen.accepted
    if refused > len(examination.samples) // 2:
        examination.warn(
            f"refuses {refused} of {len(examination.samples)} messages, so little could be seen; "
            "give it a configuration that takes mail from news@example.com to ada@example.net"
        )


def _declares(words: set[str], word: str) -> bool:
    word = word.lower()
    if word in words:
        return True
    if word.startswith("header:"):
        return "header:*" in words
    if word.startswith("text/"):
        return not words.isdisjoint(("parts", "body"))
    return False
