"""Blocking plugins in the chain: threads, copies, and what is taken over."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.attempt import Delivery, Route
from gateway.events import Event
from gateway.hooks.actions import Accept, Delay, Discard, Quarantine, Reject, Tempfail
from gateway.hooks.breaker import FAULTS
from gateway.hooks.chain import TEMPFAIL, Chain, Filtered
from gateway.hooks.division import Copy
from gateway.hooks.load import LoadedPlugin, load_plugins
from gateway.hooks.plugin import Login
from gateway.hooks.watchdog import Watchdog
from gateway.mail.large_content import LARGE
from gateway.mail.message import Client, ForbiddenChangeError, Message, Recipient
from tests.assembly import configure, write_plugin

CONTENT = (
    b"Subject: test\r\nFrom: a@example.com\r\nX-Odd:   spaces \r\n"
    b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\nHello\r\n"
)
DEADLINE = 30.0


class Site:
    """A folder with blocking plugins; `seen` is where their classes leave what they want."""

    def __init__(self, folder: Path, watchdog: Watchdog) -> None:
        self._folder = folder
        self._watchdog = watchdog
        self._entries: list[str] = []
        self.plugins: list[LoadedPlugin] = []

    def plugin(self, hook: str, body: str, rules: str = "", head: str = "blocking = True") -> None:
        """Adds a plugin with one hook; `rules` is the rest of its entry in the YAML."""
        subjects = dict.fromkeys(("connect", "helo"), "client")
        subjects |= {"auth": "login", "rcpt": "recipient"}
        subjects |= {"observe": "events", "route": "delivery"}
        lines = "\n    ".join(["import threading", *body.strip("\n").split("\n")])
        subject = subjects.get(hook, "message")
        self.source(f"{head}\n@hookimpl\ndef {hook}(self, {subject}):\n    {lines}", rules)

    def source(self, source: str, rules: str = "") -> None:
        """Adds a plugin with such a class body."""
        name = f"p{len(self._entries)}"
        self._entries.append(f"  - {write_plugin(self._folder, name, source)}: {{{rules}}}")

    def chain(self) -> Chain:
        """The chain of all plugins so far."""
        text = "\n".join(["plugins:", *self._entries])
        self.plugins = load_plugins(configure(self._folder, text))
        return Chain(self.plugins, self._watchdog)

    @property
    def instance(self) -> Any:
        """The last plugin."""
        return self.plugins[-1].instance

    def close(self) -> None:
        """Ends the threads."""
        for plugin in self.plugins:
            if plugin.pool is not None:
                plugin.pool.close()


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    watchdog.start()
    yield watchdog
    watchdog.stop()


@pytest.fixture
async def site(tmp_path: Path, watchdog: Watchdog) -> AsyncIterator[Site]:
    site = Site(tmp_path, watchdog)
    yield site
    site.close()


def _message(*recipients: str, content: bytes = CONTENT) -> Message:
    message = Message("0", "a@example.com", Client("127.0.0.1"))
    message.content = content
    for address in recipients or ("b@example.net",):
        message.add_recipient(address)
    return message


def _delivery() -> Delivery:
    return Delivery(
        message_id="0",
        sender="a@example.com",
        recipients=[Recipient("b@example.net")],
        client=Client("127.0.0.1"),
        stream="default",
        received=0.0,
        attempts=0,
        content=CONTENT,
        notes={"campaign": "x"},
    )


async def _copy_of(chain: Chain, message: Message) -> Copy:
    filtered = await chain.message(message)
    assert isinstance(filtered, Filtered)
    (copy,) = filtered.copies
    return copy


async def _until(condition: Any) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


# Each hook.


async def test_every_hook_that_may_wait_runs_in_a_thread(site: Site) -> None:
    note = "self.thread = threading.current_thread()"
    client, message = Client("127.0.0.1"), _message()
    calls: dict[str, Callable[[Chain], Awaitable[Any]]] = {
        "connect": lambda chain: chain.connect(client),
        "helo": lambda chain: chain.helo(client),
        "auth": lambda chain: chain.auth(Login(client, "PLAIN", "u", "p")),
        "mail": lambda chain: chain.mail(Message("0", "", client)),
        "rcpt": lambda chain: chain.rcpt(Recipient("b@example.net", message=message)),
        "message": lambda chain: chain.message(_message()),
        "seal": lambda chain: chain.message(_message()),
        "route": lambda chain: chain.route(_delivery()),
        "observe": lambda chain: chain.observe(chain.steps["observe"][0], [Event("x", 0.0, "1")]),
    }
    for hook in calls:
        site.plugin(hook, note)
    chain = site.chain()
    for number, (hook, call) in enumerate(calls.items()):
        await call(chain)
        instance: Any = site.plugins[number].instance
        assert instance.thread is not threading.main_thread(), hook
        assert instance.thread.name == f"plugin p{number} 1"
        assert all(step.calls for step in chain.steps[hook])


async def test_receive_runs_in_a_thread(site: Site) -> None:
    site.plugin("receive", "self.got = message.content, threading.current_thread().name")
    chain = site.chain()
    assert await chain.receive("p0", _message()) is None
    assert site.instance.got == (CONTENT, "plugin p0 1")


@pytest.mark.parametrize(
    ("hook", "answer"),
    [
        ("connect", Reject("No")),
        ("helo", Tempfail("Later")),
        ("auth", Accept()),
        ("mail", Quarantine("odd")),
        ("rcpt", Discard("gone")),
        ("message", Reject("No")),
        ("seal", Tempfail("Later")),
        ("route", Delay(5.0)),
    ],
)
async def test_answers_are_as_of_other_plugins(site: Site, hook: str, answer: Any) -> None:
    site.plugin(hook, f"return {answer!r}")
    chain, client, message = site.chain(), Client("127.0.0.1"), _message()
    subjects: dict[str, Any] = {
        **dict.fromkeys(("connect", "helo"), client),
        "auth": Login(client, "PLAIN", "u", "p"),
        "rcpt": Recipient("b@example.net", message=message),
        "route": _delivery(),
    }
    stage = "message" if hook == "seal" else hook
    assert await getattr(chain, stage)(subjects.get(hook, message)) == answer


async def test_notes_of_a_connection_are_taken_over(site: Site) -> None:
    site.plugin("connect", "client.notes['country'] = 'jp'")
    client = Client("127.0.0.1", notes={"before": "1"})  # type: ignore[arg-type]
    notes = client.notes
    await site.chain().connect(client)
    assert client.notes == {"before": "1", "country": "jp"}
    assert client.notes is notes


async def test_who_logs_in_is_taken_over(site: Site) -> None:
    site.plugin("auth", "login.user = 'taro'\nlogin.client.notes['a'] = 'b'\nreturn Accept()")
    login = Login(Client("127.0.0.1"), "PLAIN", "u", "p")
    assert await site.chain().auth(login) == Accept()
    assert (login.user, login.client.notes) == ("taro", {"a": "b"})


async def test_sender_and_stream_are_taken_over(site: Site) -> None:
    site.plugin("mail", "message.sender = 'x@example.org'; message.notes['a'] = 'b'")
    message = Message("0", "a@example.com", Client("127.0.0.1"))
    await site.chain().mail(message)
    assert (message.sender, message.notes) == ("x@example.org", {"a": "b"})


async def test_an_address_is_taken_over_and_the_sender_s_is_kept(site: Site) -> None:
    site.plugin(
        "rcpt",
        "recipient.notes['n'] = str(len(recipient.message.recipients))\n"
        "recipient.address = 'new@example.org'",
    )
    message = _message("b@example.net", "c@example.net")
    recipient = Recipient("old@example.org", message=message)
    await site.chain().rcpt(recipient)
    assert (recipient.address, recipient.notes) == ("new@example.org", {"n": "2"})
    assert recipient.orcpt == "rfc822;old@example.org"
    assert recipient.message is message
    assert [one.address for one in message.recipients] == ["b@example.net", "c@example.net"]


async def test_each_recipient_knows_those_before_it(site: Site) -> None:
    site.plugin(
        "rcpt",
        "before = recipient.message.recipients\n"
        "recipient.notes['before'] = ' '.join(f'{o.address}={o.notes[\"n\"]}' for o in before)\n"
        "recipient.notes['n'] = str(len(before))\n"
        "recipient.message.client.notes['last'] = recipient.address",
    )
    chain = site.chain()
    message = Message("0", "a@example.com", Client("127.0.0.1"))
    for number in range(3):
        recipient = Recipient(f"{number}@example.net")
        recipient.join(message.guard, message)
        assert await chain.rcpt(recipient) is None
        assert message.client.notes == {"last": f"{number}@example.net"}
        message.take(recipient)
    assert [one.notes["before"] for one in message.recipients] == [
        "",
        "0@example.net=0",
        "0@example.net=0 1@example.net=1",
    ]


async def test_a_route_is_answered_and_nothing_else(site: Site) -> None:
    site.plugin(
        "route",
        "assert delivery.headers.get('Subject') == 'test'\n"
        "assert (delivery.domain, delivery.notes['campaign']) == ('example.net', 'x')\n"
        "return Route((Hop('mx.example.net'),), 'x')",
        head="blocking = True",
    )
    delivery = _delivery()
    assert isinstance(await site.chain().route(delivery), Route)


async def test_events_come_in_order(site: Site) -> None:
    site.plugin(
        "observe", "self.got = [*getattr(self, 'got', []), *[e.message_id for e in events]]"
    )
    chain = site.chain()
    (step,) = chain.steps["observe"]
    for start in (0, 3):
        events = [Event("x", 0.0, str(number)) for number in range(start, start + 3)]
        assert await chain.observe(step, events)
    assert site.instance.got == list("012345")


# Messages.


async def test_a_message_that_was_not_changed_keeps_its_octets_and_its_objects(site: Site) -> None:
    site.plugin("message", "message.text_parts(); message.content; message.headers.get('Subject')")
    message = _message("b@example.net", "c@example.net")
    recipients, headers, body = list(message.recipients), message.headers, message.body
    copy = await _copy_of(site.chain(), message)
    assert copy.message is message
    assert copy.message.content == CONTENT
    assert copy.message.headers is headers
    assert copy.message.body is body
    assert all(a is b for a, b in zip(message.recipients, recipients, strict=True))


async def test_what_was_changed_is_taken_over(site: Site) -> None:
    site.plugin(
        "message",
        "message.headers.add('X-New', 'yes')\n"
        "message.text_parts()[0].text += '日本\\n'\n"
        "message.remove_recipient(message.recipients[0])\n"
        "message.recipients[0].address = 'd@example.net'\n"
        "message.recipients[0].notes['who'] = 'c'\n"
        "message.recipients[0].return_path = 'v@example.com'\n"
        "message.add_recipient('e@example.net', notes={'who': 'e'})\n"
        "message.notes['seen'] = 'yes'; message.client.notes['n'] = '1'\n"
        "message.sender = 's@example.com'; message.stream = 'other'",
    )
    site.plugin("message", "message.text_parts()[0].text += 'end'", head="")
    message = _message("b@example.net", "c@example.net")
    kept = message.recipients[1]
    copy = await _copy_of(site.chain(), message)
    assert copy.message is message
    assert message.text_parts()[0].text == "Hello\n日本\nend\n"
    assert message.content.startswith(CONTENT.partition(b"Content-Type")[0])
    assert b"\x1b$BF|K\\\x1b(B" in message.content
    assert message.headers.get("X-New") == "yes"
    assert [one.address for one in message.recipients] == ["d@example.net", "e@example.net"]
    assert message.recipients[0] is kept
    assert (kept.notes, kept.return_path) == ({"who": "c"}, "v@example.com")
    assert kept.orcpt == "rfc822;c@example.net"
    assert all(one.message is message for one in message.recipients)
    assert message.recipients[1].notes == {"who": "e"}
    assert (message.sender, message.stream) == ("s@example.com", "other")
    assert (message.notes, message.client.notes) == ({"seen": "yes"}, {"n": "1"})


async def test_plugins_of_both_kinds_run_in_the_order_of_the_file(site: Site) -> None:
    for number in range(6):
        site.plugin(
            "message",
            f"time.sleep(0.002)\nmessage.headers.add('X-Order', '{number}')\n"
            f"message.text_parts()[0].text += '{number}'",
            head="blocking = True" if number % 2 else "",
        )
    message = (await _copy_of(site.chain(), _message())).message
    assert message.headers.get_all("X-Order") == list("012345")
    assert message.text_parts()[0].text == "Hello\n0\n1\n2\n3\n4\n5\n"


async def test_a_body_that_was_replaced(site: Site) -> None:
    site.plugin("message", "message.text_parts()\nmessage.body = b'New\\r\\n'")
    site.plugin("message", "message.text_parts()[0].text += 'er\\n'", head="")
    message = (await _copy_of(site.chain(), _message())).message
    assert message.body == b"New\r\ner\r\n"


async def test_what_the_plugin_keeps_changes_nothing(site: Site) -> None:
    site.plugin(
        "message",
        "message.text_parts()[0].text += 'x'\nnew = message.add_recipient('n@example.net')\n"
        "self.kept = message, message.text_parts()[0], message.recipients[0], new",
    )
    message = (await _copy_of(site.chain(), _message())).message
    before = message.content
    kept, part, recipient, new = site.instance.kept
    for change in (
        lambda: setattr(part, "text", "late"),
        lambda: kept.headers.add("X-Late", "x"),
        lambda: setattr(kept, "body", b"late"),
        lambda: setattr(recipient, "address", "late@example.net"),
        lambda: setattr(new, "address", "late@example.net"),
        lambda: kept.notes.update(late="1"),
        lambda: kept.recipients.clear(),
    ):
        with pytest.raises(ForbiddenChangeError):
            change()
    kept.client.notes["late"] = "1"
    assert message.content == before
    assert [one.address for one in message.recipients] == ["b@example.net", "n@example.net"]
    assert (message.notes, message.client.notes) == ({}, {})


async def test_one_recipient_at_a_time_with_the_whole_at_hand(site: Site) -> None:
    site.plugin(
        "message",
        "self.wholes = [*getattr(self, 'wholes', []), message.whole]\n"
        "(recipient,) = message.recipients\n"
        "if recipient.address != 'b@example.net':\n"
        "    message.headers.add('X-To', recipient.address)",
        head="blocking = True\nper_recipient = True",
    )
    message = _message("b@example.net", "c@example.net", "d@example.net", "b@example.net")
    filtered = await site.chain().message(message)
    assert isinstance(filtered, Filtered)
    got = [
        (copy.message.headers.get("X-To"), [one.address for one in copy.message.recipients])
        for copy in filtered.copies
    ]
    assert got == [
        (None, ["b@example.net", "b@example.net"]),
        ("c@example.net", ["c@example.net"]),
        ("d@example.net", ["d@example.net"]),
    ]
    wholes = site.instance.wholes
    assert len(set(map(id, wholes))) == 1
    assert wholes[0] is not message
    assert [one.address for one in wholes[0].recipients] == [
        one.address for one in message.recipients
    ]
    assert wholes[0].content == CONTENT
    assert all(copy.message.whole is message for copy in filtered.copies)


async def test_a_message_is_its_own_whole(site: Site) -> None:
    site.plugin("message", "assert message.whole is message")
    site.plugin("seal", "assert message.whole is message")
    message = _message()
    assert (await _copy_of(site.chain(), message)).message.whole is message


# Seals.


@pytest.mark.parametrize("size", [10, LARGE + 1000])
async def test_seals_of_both_kinds(site: Site, size: int) -> None:
    site.plugin("seal", "message.headers.prepend('X-Seal', threading.current_thread().name)")
    site.plugin(
        "seal",
        "main = threading.current_thread() is threading.main_thread()\n"
        "message.headers.prepend('X-Plain', str(main))",
        head="",
    )
    content = CONTENT + b"x" * 70 * (size // 70) + b"\r\n"
    message = _message(content=content)
    copy = await _copy_of(site.chain(), message)
    plain = b"X-Plain: " + (b"True" if size < LARGE else b"False") + b"\r\n"
    seal = plain + b"X-Seal: plugin p0 1\r\n"
    assert message.content == seal + content
    assert copy.seal == len(seal)
    with pytest.raises(RuntimeError):
        message.headers.add("X-Late", "x")


async def test_a_report_is_sealed_in_a_thread_too(site: Site) -> None:
    site.plugin("seal", "message.headers.prepend('X-Seal', threading.current_thread().name)")
    copy = Copy(_message())
    assert site.chain().seal(copy) is None
    assert copy.message.content == b"X-Seal: plugin p0 1\r\n" + CONTENT


@pytest.mark.parametrize("size", [10, LARGE + 1000])
async def test_a_seal_that_does_more_than_it_may(site: Site, size: int) -> None:
    site.plugin("seal", "message.headers.prepend('X', 'y')\nmessage.body = b''", "on_error: skip")
    content = CONTENT + b"x" * 70 * (size // 70) + b"\r\n"
    message = _message(content=content)
    assert (await _copy_of(site.chain(), message)).seal == 0
    assert message.content == content


async def test_a_seal_that_is_late_is_not_seen(site: Site) -> None:
    site.plugin(
        "seal",
        "try:\n    while True: time.sleep(0.001)\nfinally:\n"
        "    message.headers.prepend('X-Late', 'x')\n    self.ended = True",
        "on_error: quarantine, timeout: 100ms",
    )
    message = _message()
    copy = await _copy_of(site.chain(), message)
    assert copy.held == "plugin p0 failed in seal: ran longer than 0.1 s"
    await _until(lambda: getattr(site.instance, "ended", False))
    assert message.content == CONTENT


# Failures.

LATE = """
try:
    {wait}
finally:
    for change in (
        'message.headers.add("X-Late", "x")', 'message.body = b"late"',
        'message.sender = "late@example.com"', 'message.notes["late"] = "1"',
        'message.recipients[0].address = "late@example.com"', 'message.recipients.clear()',
        'message.client.notes["late"] = "1"', 'message.whole.notes["late"] = "1"',
        'message.whole.headers.add("X-Late", "x")',
    ):
        try:
            exec(change)
        except RuntimeError:
            pass
    self.ended = threading.current_thread()
"""
WAITS = {
    "sleeps": "time.sleep(0.3)",
    "spins": "turns = 0\n    while True: turns += 1",
    "waits": "threading.Event().wait(0.3)",
}


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("per_recipient", [True, False])
async def test_a_hook_that_is_late_changes_nothing(
    site: Site, wait: str, per_recipient: bool
) -> None:
    site.plugin(
        "message",
        LATE.format(wait=WAITS[wait]),
        "on_error: skip, timeout: 100ms",
        head=f"blocking = True\nper_recipient = {per_recipient}",
    )
    message = _message("b@example.net", "c@example.net")
    chain = site.chain()
    filtered = await chain.message(message)
    await _until(lambda: getattr(site.instance, "ended", None))
    site.instance.ended.join(DEADLINE)
    assert not site.instance.ended.is_alive()
    assert isinstance(filtered, Filtered)
    (copy,) = filtered.copies
    for one in (copy.message, message):
        assert one.content == CONTENT
        assert one.sender == "a@example.com"
        assert (one.notes, one.client.notes) == ({}, {})
    assert [one.address for one in copy.message.recipients] == ["b@example.net", "c@example.net"]
    (step,) = chain.steps["message"]
    assert step.timeouts == step.faults == (2 if per_recipient else 1)


@pytest.mark.parametrize("rule", ["tempfail", "skip", "quarantine"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("message.headers.add('X', 'y')\nraise ValueError('bad')", "raised ValueError: bad"),
        ("message.headers.add('X', 'y')\nraise SystemExit(3)", "raised SystemExit: 3"),
        ("message.headers.add('X', 'y')\nreturn 7", "answered int, and may answer None, Reject"),
        ("message.headers.add('X', 'y')\ntime.sleep(10)", "ran longer than 0.1 s"),
    ],
)
async def test_failures_are_those_of_other_plugins(
    site: Site, rule: str, body: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.plugin("message", body, f"on_error: {rule}, timeout: 100ms")
    message, chain = _message(), site.chain()
    answer = await chain.message(message)
    if rule == "tempfail":
        assert answer == TEMPFAIL
    else:
        assert isinstance(answer, Filtered)
        held = answer.copies[0].held
        assert (held is None) if rule == "skip" else (held is not None and said in held)
    assert message.content == CONTENT
    assert f"plugin p0 failed in message: {said}" in caplog.text
    assert chain.steps["message"][0].faults == 1


async def test_junk_in_a_message_is_a_fault(site: Site) -> None:
    site.plugin("message", "message.headers.add('X', 'y')\nmessage.recipients = None")
    message = _message()
    assert await site.chain().message(message) == TEMPFAIL
    assert message.content == CONTENT
    assert [one.address for one in message.recipients] == ["b@example.net"]


async def test_others_go_on_while_a_thread_waits(site: Site) -> None:
    site.plugin("message", "time.sleep(0.2)", head="blocking = True\nthreads = 3")
    chain, turns = site.chain(), 0
    running = [asyncio.create_task(chain.message(_message())) for _ in range(9)]
    started = time.monotonic()
    while not all(task.done() for task in running):
        turns += 1
        await asyncio.sleep(0.001)
    assert time.monotonic() - started >= 0.6
    assert turns > 20
    for task in running:
        assert isinstance(await task, Filtered)
    assert chain.steps["message"][0].calls == 9


async def test_a_client_that_goes_takes_no_thread_with_it(site: Site) -> None:
    site.plugin(
        "message",
        "time.sleep(0.1)\nself.done = getattr(self, 'done', 0) + 1",
        head="blocking = True\nthreads = 1",
    )
    chain = site.chain()
    task = asyncio.create_task(chain.message(_message()))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(await chain.message(_message()), Filtered)
    assert site.instance.done == 2
    assert chain.steps["message"][0].faults == 0


# Breakers.


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("rule", ["tempfail", "skip", "quarantine"])
async def test_while_it_is_open_on_error_applies_at_once(
    site: Site, rule: str, blocking: bool
) -> None:
    site.plugin(
        "message",
        "if (Path(__file__).parent / 'broken').exists(): raise OSError('no database')\n"
        "message.headers.add('X-Seen', 'yes')",
        f"on_error: {rule}",
        head=f"blocking = {blocking}",
    )
    chain, broken = site.chain(), site._folder / "broken"
    breaker = chain.steps["message"][0].breaker
    broken.touch()
    for _ in range(FAULTS + 10):
        message = _message()
        answer = await chain.message(message)
        assert message.content == CONTENT
        if rule == "tempfail":
            assert answer == TEMPFAIL
            continue
        assert isinstance(answer, Filtered)
        (copy,) = answer.copies
        assert (copy.held is not None) == (rule == "quarantine")
    if rule == "quarantine":
        assert copy.held == (
            "plugin p0 is not asked in message: it failed 5 times in a row, last: raised OSError: "
            "no database; again in 1 s"
        )
    (step,) = chain.steps["message"]
    assert (step.calls, step.faults, step.skipped) == (FAULTS, FAULTS, 10)
    assert breaker.state(time.monotonic()) == "open"
    broken.unlink()
    await _until(lambda: breaker.state(time.monotonic()) == "half-open")
    copy = await _copy_of(chain, _message())
    assert copy.message.headers.get("X-Seen") == "yes"
    assert breaker.state(time.monotonic()) == "closed"


async def test_a_success_of_another_hook_tells_nothing(site: Site) -> None:
    site.source(
        "@hookimpl\ndef connect(self, client): ...\n"
        "@hookimpl\ndef message(self, message): raise ValueError('bad mail')"
    )
    chain = site.chain()
    for _ in range(FAULTS + 3):
        assert await chain.connect(Client("127.0.0.1")) is None
        assert await chain.message(_message()) == TEMPFAIL
    assert chain.steps["connect"][0].breaker.opened_at is None
    assert chain.steps["connect"][0].skipped == 0
    assert chain.steps["message"][0].skipped == 3


@pytest.mark.parametrize("rule", ["tempfail", "skip"])
async def test_events_wait_while_the_breaker_is_open(site: Site, rule: str) -> None:
    site.plugin("observe", "raise OSError('down')", f"on_error: {rule}")
    chain = site.chain()
    (step,) = chain.steps["observe"]
    events = [Event("x", 0.0, "1")]
    for _ in range(FAULTS):
        assert await chain.observe(step, events) is (rule == "skip")
    for _ in range(3):
        assert not await chain.observe(step, events)
    assert step.skipped == 3


async def test_plain_stages_have_the_breaker_too(site: Site) -> None:
    site.source(
        "@hookimpl\ndef source(self, delivery): raise OSError('down')", "on_error: quarantine"
    )
    chain = site.chain()
    for _ in range(FAULTS + 3):
        assert isinstance(chain.source(_delivery()), Quarantine)
    assert chain.steps["source"][0].skipped == 3


async def test_a_plugin_on_the_loop_has_no_threads(site: Site) -> None:
    site.plugin("message", "...", head="")
    chain = site.chain()
    before = threading.active_count()
    await chain.message(_message())
    assert site.plugins[0].pool is None
    assert threading.active_count() == before


async def test_nothing_is_logged_for_what_goes_well(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    site.plugin("message", "message.headers.add('X', 'y')")
    await _copy_of(site.chain(), _message())
    assert [record for record in caplog.records if record.name.startswith("gateway")] == []
