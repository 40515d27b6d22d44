"""The trace: what is noted of each step, how it is written and read, and where it is kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks.breaker import FAULTS
from gateway.hooks.chain import Chain, Copy, Filtered
from gateway.hooks.load import load_plugins
from gateway.hooks.step import Fault, Step
from gateway.hooks.trace import LONGEST_REASON, Result, Trace, TracedStep, parse, state
from gateway.hooks.watchdog import Watchdog
from gateway.log_line import AcceptRecord, JsonLines, TextLines
from gateway.mail.large_content import LARGE
from gateway.mail.message import Client, Message
from gateway.queue.placement import entries_of
from gateway.spool.queue_entry import Envelope, envelope_of
from gateway.spool.shard import Shard
from tests.assembly import Assembly, configure, until, write_plugin

CONTENT = b"Subject: test\r\nFrom: a@b.example\r\nContent-Type: text/plain\r\n\r\nHello\r\n"


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    watchdog.start()
    yield watchdog
    watchdog.stop()


class Site:
    """A folder with plugins, from which a chain is made."""

    def __init__(self, folder: Path, watchdog: Watchdog) -> None:
        self._folder = folder
        self._watchdog = watchdog
        self._entries: list[str] = []

    def plugin(self, body: str, rules: str = "") -> None:
        """Adds a plugin with these hooks; `rules` is the rest of its entry."""
        name = f"p{len(self._entries)}"
        self._entries.append(f"  - {write_plugin(self._folder, name, body)}: {{{rules}}}")

    def chain(self) -> Chain:
        """The chain of all plugins so far."""
        text = "\n".join(["plugins:", *self._entries])
        return Chain(load_plugins(configure(self._folder, text)), self._watchdog)

    async def trace(self, message: Message | None = None) -> Trace:
        """What the chain notes of a message."""
        trace = Trace()
        await self.chain().message(message or _message(), trace)
        return trace


@pytest.fixture
def site(tmp_path: Path, watchdog: Watchdog) -> Site:
    return Site(tmp_path, watchdog)


def _message(*recipients: str, content: bytes = CONTENT) -> Message:
    message = Message("0000000000001", "a@example.com", Client("127.0.0.1"))
    message.content = content
    for address in recipients or ("b@example.net",):
        message.add_recipient(address)
    return message


def _hook(lines: str, signature: str = "message(self, message)") -> str:
    body = "\n".join(f"    {line}" for line in lines.strip().splitlines())
    return f"@hookimpl\ndef {signature}:\n{body}"


_READS = """
list(message.headers); message.headers.get("Subject"); message.headers.raw
message.headers.fields("From"); message.body; message.content; message.sender
[part.text for part in message.text_parts()]
"""


@pytest.mark.parametrize(
    ("lines", "changed"),
    [
        ("pass", ()),
        (_READS, ()),
        ("message.headers.add('X-A', 'b')", ("headers",)),
        ("message.headers.prepend('X-A', 'b')", ("headers",)),
        ("message.headers.delete('Subject')", ("headers",)),
        ("message.headers.delete('No-Such-Field')", ()),
        ("message.text_parts()[0].text += 'more'", ("body",)),
        ("message.text_parts()[0].text = message.text_parts()[0].text", ()),
        ("message.body = b'other\\r\\n'", ("body",)),
        ("message.sender = 'other@example.com'", ("sender",)),
        ("message.stream = 'bulk'", ("stream",)),
        ("message.notes['a'] = 'b'", ("notes",)),
        ("message.add_recipient('c@example.net')", ("recipients",)),
        ("message.remove_recipient(message.recipients[0])", ("recipients",)),
        ("message.recipients[0].address = 'c@example.net'", ("recipients",)),
        ("message.recipients[0].return_path = 'c@example.net'", ("recipients",)),
        ("message.headers.add('X-A', 'b'); message.notes['a'] = 'b'", ("headers", "notes")),
    ],
)
@pytest.mark.parametrize("edited_before", [False, True])
async def test_what_a_hook_changed(
    site: Site, lines: str, changed: tuple[str, ...], edited_before: bool
) -> None:
    if edited_before:
        site.plugin(_hook("message.headers.add('X-0', '1')\nmessage.text_parts()[0].text += 'x'"))
    site.plugin(_hook(lines))
    trace = await site.trace()
    assert [(step.hook, step.changed) for step in trace.steps][-1] == ("message", changed)
    assert all(not step.results for step in trace.steps)


async def test_a_blocking_plugin_that_only_reads_has_changed_nothing(site: Site) -> None:
    site.plugin(f"blocking = True\n{_hook(_READS)}")
    assert [step.changed for step in (await site.trace()).steps] == [()]


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ("Quarantine('odd')", Result("quarantine", "odd")),
        ("Delay(300)", Result("delay", "300")),
        ("Discard('no')", Result("discard", "no")),
        ("Reject('no')", Result("reject", "550 5.7.1 no")),
        ("Tempfail('later')", Result("reject", "451 4.7.1 later")),
    ],
)
async def test_what_a_hook_answered(site: Site, answer: str, result: Result) -> None:
    site.plugin(_hook(f"return {answer}"))
    (step,) = (await site.trace()).steps
    assert (step.plugin, step.results, step.calls) == ("p0", (result,), 1)


@pytest.mark.parametrize("on_error", ["skip", "quarantine", "tempfail"])
async def test_a_fault_is_seen_whatever_becomes_of_the_message(site: Site, on_error: str) -> None:
    change = "message.headers.add('X-A', 'b')\nraise ValueError('no good')"
    site.plugin(_hook(change), f"on_error: {on_error}")
    (step,) = (await site.trace()).steps
    assert step.results == (Result("failed", "raised ValueError: no good"),)
    assert step.changed == ()


async def test_who_is_not_asked_any_more_is_seen(site: Site) -> None:
    site.plugin(_hook("raise ValueError"), "on_error: skip")
    chain = site.chain()
    for _ in range(FAULTS):
        await chain.message(_message())
    trace = Trace()
    assert isinstance(await chain.message(_message(), trace), Filtered)
    assert [step.results for step in trace.steps] == [(Result("skipped"),)]
    assert str(trace) == "p0:0.00ms[skipped]"


async def test_only_steps_that_ran(site: Site) -> None:
    site.plugin(_hook("pass"), "when: {recipient_domain: example.org}")
    site.plugin(_hook("pass"))
    assert [step.plugin for step in (await site.trace()).steps] == ["p1"]


async def test_copies_are_counted_together_and_share_the_trace(site: Site) -> None:
    site.plugin(
        "per_recipient = True\n"
        + _hook("message.headers.add('X-To', message.recipients[0].address)")
    )
    filtered = await site.chain().message(message := _message("b@example.net", "c@example.net"))
    assert isinstance(filtered, Filtered)
    assert len(filtered.copies) == 2
    assert len({id(copy.trace) for copy in filtered.copies}) == 1
    (step,) = filtered.copies[0].trace.steps
    assert (step.calls, step.changed) == (2, ("headers",))
    assert message.recipients


@pytest.mark.parametrize("size", [10, LARGE + 1])
async def test_seals_are_noted_also_those_in_a_thread(site: Site, size: int) -> None:
    site.plugin(_hook("message.headers.prepend('X-Seal', 'a')", "seal(self, message)"))
    site.plugin(_hook("pass", "seal(self, message)"))
    site.plugin(_hook("raise ValueError('no')", "seal(self, message)"), "on_error: skip")
    line = b"x" * 68 + b"\r\n"
    trace = await site.trace(_message(content=b"Subject: a\r\n\r\n" + line * (size // 70 + 1)))
    assert [(step.hook, step.changed, step.results) for step in trace.steps] == [
        ("seal", ("headers",), ()),
        ("seal", (), ()),
        ("seal", (), (Result("failed", "raised ValueError: no"),)),
    ]


async def test_mail_and_rcpt_are_noted_for_who_asks(site: Site) -> None:
    site.plugin(
        _hook("return Quarantine('odd')", "mail(self, message)")
        + "\n"
        + _hook(
            "if recipient.address[0] == 'c': return Discard('no')\nraise ValueError('bad')",
            "rcpt(self, recipient)",
        ),
        "on_error: skip",
    )
    chain, trace, message = site.chain(), Trace(), _message("b@example.net", "c@example.net")
    await chain.mail(message, trace)
    for recipient in message.recipients:
        await chain.rcpt(recipient, trace)
    assert [(step.hook, step.calls, step.results) for step in trace.steps] == [
        ("mail", 1, (Result("quarantine", "odd"),)),
        ("rcpt", 2, (Result("failed", "raised ValueError: bad"), Result("discard", "no"))),
    ]


def test_nothing_has_no_text() -> None:
    assert str(Trace()) == ""
    assert parse("") == []


def _step(plugin: str, hook: str = "message") -> Step:
    return Step(plugin, hook, lambda subject: None, False, (), None, 1.0, "skip", False)


def test_the_text_is_short() -> None:
    trace, message = Trace(), _message()
    trace.ran(_step("suppression"), 0.00011, message, state(message), None)
    before = state(message)
    message.headers.add("X-A", "b")
    message.body = b"other\r\n"
    trace.ran(_step("personalization"), 0.0004, message, before, None)
    headers = message.headers.state()
    message.headers.prepend("DKIM-Signature", "b")
    trace.sealed(_step("dkim", "seal"), 0.0003, message, headers, None)
    assert str(trace) == (
        "suppression:0.11ms personalization:0.40ms[headers,body] dkim@seal:0.30ms[headers]"
    )
    trace.asked(_step("late", "rcpt"), 1.5, None)
    assert str(trace).endswith(" late@rcpt:1500.00ms"), "the text is not an old one"


def test_the_same_reason_is_told_once() -> None:
    trace, step = Trace(), _step("p")
    for _ in range(1000):
        trace.failed(step, 0.0, Fault("plugin p failed in message: raised ValueError"))
    assert str(trace) == 'p:0.00ms*1000[failed="raised ValueError"]'


_REASONS = st.text(min_size=1, max_size=LONGEST_REASON).map(lambda text: " ".join(text.split()))


@given(
    st.lists(
        st.tuples(
            st.text(min_size=1),
            st.sampled_from(["message", "seal", "rcpt"]),
            st.floats(0, 1000),
            st.lists(st.tuples(st.sampled_from(["failed", "discard"]), _REASONS), max_size=2),
        ),
        max_size=4,
    )
)
def test_what_is_written_is_read(steps: list[tuple[str, str, float, list[Any]]]) -> None:
    trace = Trace()
    for plugin, hook, seconds, reasons in steps:
        step = _step(plugin, hook)
        for name, reason in reasons or [("asked", "")]:
            if name == "failed":
                trace.failed(step, seconds, Fault(reason))
            elif name == "discard":
                trace._add(step, seconds, 0, (Result(name, reason),))
            else:
                trace.asked(step, seconds, None)
    read = parse(str(trace))
    assert len(read) == len(steps)
    for one, other in zip(read, trace.steps, strict=True):
        assert (one.hook, one.calls, one.changed) == (other.hook, other.calls, other.changed)
        assert one.results == other.results
        assert one.seconds == pytest.approx(other.seconds, abs=0.00001)


@given(st.text(alphabet='ab:@[]"\\*,.=0ms ', max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    assert all(isinstance(step, TracedStep) for step in parse(text))


def test_a_long_hostile_text_is_read_quickly() -> None:
    # A quadratic search over this would take minutes.
    for text in ('a:1ms["' * 3000, "a:1ms[" + '"\\' * 10000, "a@" * 10000, "[" * 20000):
        assert len(parse(text)) <= 3000


def _accepted(plugins: str) -> AcceptRecord:
    return AcceptRecord("ID", "mx", "192.0.2.1", "", "a@b.example", 10, 1, "bulk", plugins)


def test_the_log_has_it_in_both_formats() -> None:
    text = 'p:0.10ms[headers] q@seal:0.20ms[failed="no \\"x\\" \u2028"]'
    line = TextLines("gw", "worker").accepted(_accepted(text), 1_700_000_000.0)
    assert ", stream=bulk, plugins=p:0.10ms[headers] q@seal" in line
    assert "\u2028" not in line
    line = JsonLines("gw", "worker").accepted(_accepted(text), 1_700_000_000.0)
    assert json.loads(line)["plugins"] == text
    assert "plugins" not in TextLines("gw", "worker").accepted(_accepted(""), 0.0)
    assert "plugins" not in json.loads(JsonLines("gw", "worker").accepted(_accepted(""), 0.0))


async def test_the_queue_keeps_it(tmp_path: Path) -> None:
    message, copy = _message(), Copy(_message())
    copy.trace.ran(_step("p"), 0.001, message, state(message), None)
    shard = Shard.claim(tmp_path, 1, "")
    try:
        ((_, entry),) = entries_of([copy], shard, 1.0, lambda domain: domain, lambda stream: 1)
    finally:
        shard.close()
    assert entry.envelope.trace == "p:1.00ms"
    kept = entry.envelope
    read = envelope_of(
        kept.id, kept.copy, kept.received, kept.sender, kept.stream, kept.size, kept.to_json()
    )
    assert read.trace == "p:1.00ms"
    bare = Envelope(1, 1, 1.0, "", "bulk", 10, Client("127.0.0.1"))
    assert "trace" not in json.loads(bare.to_json())
    assert envelope_of(1, 1, 1.0, "", "bulk", 10, bare.to_json()).trace == ""


async def test_an_accepted_and_a_refused_message_have_it_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = "if message.headers.get('Subject') == 'bad': return Reject('no')"
    reference = write_plugin(tmp_path, "p", _hook(lines))
    config = configure(tmp_path, f"relay: {{via: ['127.0.0.1:1']}}\nplugins: [{reference}]")
    with caplog.at_level(logging.INFO, "gateway"):
        async with Assembly(config) as assembly:
            assert (await assembly.submit("b@example.net")).startswith("250")
            reply = await assembly.submit("b@example.net", content=b"Subject: bad\r\n\r\nHello\r\n")
            assert reply.startswith("550")
            await until(lambda: assembly.rows(state="deferred"), "the deferral")
    texts = [record.getMessage() for record in caplog.records]
    (accepted,) = [text for text in texts if "nrcpt=1" in text]
    assert parse(accepted.partition("plugins=")[2])[0].plugin == "p"
    (refused,) = [text for text in texts if "message refused" in text]
    assert "client=127.0.0.1, from=<a@example.com>" in refused
    (step,) = parse(refused.partition("plugins=")[2])
    assert step.results == (Result("reject", "550 5.7.1 no"),)
