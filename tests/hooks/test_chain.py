"""The chain: order, conditions, what answers mean, and every way for a plugin to fail."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.attempt import Attempt, Delivery, Disposition, Hop, Outcome, Route, Source
from gateway.events import Event
from gateway.hooks.actions import Accept, Delay, Quarantine, Reject, Tempfail
from gateway.hooks.chain import FAULT_DELAY, TEMPFAIL, Chain, Filtered
from gateway.hooks.load import load_plugins
from gateway.hooks.plugin import Login
from gateway.hooks.watchdog import Watchdog
from gateway.mail.message import Client, Message, Recipient
from tests.assembly import configure, write_plugin

CONTENT = b"Subject: test\r\nFrom: a@example.com\r\n\r\nHello\r\n"


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    watchdog.start()
    yield watchdog
    watchdog.stop()


class Site:
    """A folder with plugins, from which chains are made."""

    def __init__(self, folder: Path, watchdog: Watchdog) -> None:
        self._folder = folder
        self._watchdog = watchdog
        self._entries: list[str] = []

    def plugin(self, body: str, rules: str = "") -> None:
        """Adds a plugin with these hooks; `rules` is the rest of its entry in the YAML."""
        name = f"p{len(self._entries)}"
        self._entries.append(f"  - {write_plugin(self._folder, name, body)}: {{{rules}}}")

    def chain(self, more: str = "") -> Chain:
        """The chain of all plugins so far."""
        text = "\n".join([more, "plugins:", *self._entries])
        return Chain(load_plugins(configure(self._folder, text)), self._watchdog)


@pytest.fixture
def site(tmp_path: Path, watchdog: Watchdog) -> Site:
    return Site(tmp_path, watchdog)


def _message(*recipients: str, content: bytes = CONTENT) -> Message:
    message = Message("0", "a@example.com", Client("127.0.0.1"))
    message.content = content
    for address in recipients or ("b@example.net",):
        message.add_recipient(address)
    return message


def _delivery(*recipients: str, sender: str = "a@example.com") -> Delivery:
    return Delivery(
        message_id="0",
        sender=sender,
        recipients=[Recipient(address) for address in recipients or ("b@example.net",)],
        client=Client("127.0.0.1"),
        stream="default",
        received=0.0,
        attempts=0,
        content=CONTENT,
    )


async def _filtered(chain: Chain, message: Message) -> Filtered:
    filtered = await chain.message(message)
    assert isinstance(filtered, Filtered)
    return filtered


def _hook(name: str, line: str) -> str:
    subject = {"reply": "attempt", "observe": "events", "auth": "login", "rcpt": "recipient"}
    subject |= {"claim": "recipient"}
    subject |= dict.fromkeys(("mail", "message", "seal", "receive"), "message")
    subject |= dict.fromkeys(("route", "admit", "source"), "delivery")
    subject |= dict.fromkeys(("connect", "helo"), "client")
    return f"@hookimpl\ndef {name}(self, {subject[name]}):\n    {line}"


# Order and conditions.


async def test_hooks_run_in_the_order_of_the_file_async_or_not(site: Site) -> None:
    for number in range(4):
        line = f"message.headers.add('X-Order', '{number}')"
        kind = "async def" if number % 2 else "def"
        wait = "await asyncio.sleep(0.01)\n    " if number % 2 else ""
        site.plugin(f"@hookimpl\n{kind} message(self, message):\n    {wait}{line}")
    (copy,) = (await _filtered(site.chain(), _message())).copies
    assert copy.message.headers.get_all("X-Order") == ["0", "1", "2", "3"]


async def test_the_first_answer_ends_the_stage(site: Site) -> None:
    site.plugin(_hook("connect", "return None"))
    site.plugin(_hook("connect", "return Accept()"))
    site.plugin(_hook("connect", "return Reject('never asked')"))
    assert await site.chain().connect(Client("127.0.0.1")) == Accept()


async def test_each_smtp_stage_passes_on_its_answer(site: Site) -> None:
    for name in ("connect", "helo", "auth", "mail", "rcpt"):
        site.plugin(_hook(name, f"return Tempfail('{name}')"))
    chain = site.chain()
    client, message = Client("127.0.0.1"), _message()
    assert await chain.connect(client) == Tempfail("connect")
    assert await chain.helo(client) == Tempfail("helo")
    assert await chain.auth(Login(client, "PLAIN", "u", "p")) == Tempfail("auth")
    assert await chain.mail(message) == Tempfail("mail")
    assert await chain.rcpt(Recipient("b@example.net", message=message)) == Tempfail("rcpt")


async def test_a_message_that_is_refused_sees_no_later_plugin(site: Site) -> None:
    site.plugin(_hook("message", "return Reject('No', 554, '5.7.1')"))
    site.plugin(_hook("message", "Site.seen = True"))
    chain = site.chain()
    assert await chain.message(_message()) == Reject("No", 554, "5.7.1")
    assert chain.steps["message"][1].calls == 0


async def test_conditions_on_client_sender_and_header(site: Site) -> None:
    when = "when: {client: 10.0.0.0/8, sender: 'a@*', header: {Subject: '*test*'}}"
    site.plugin(_hook("message", "message.headers.add('X-Seen', 'yes')"), when)
    chain = site.chain()
    for address, expected in (("10.1.2.3", ["yes"]), ("127.0.0.1", [])):
        message = _message()
        message.client = Client(address)
        (copy,) = (await _filtered(chain, message)).copies
        assert copy.message.headers.get_all("X-Seen") == expected


async def test_a_condition_on_recipients_parts_a_message(site: Site) -> None:
    mark = "message.headers.add('X-Seen', str(len(message.recipients)))"
    site.plugin(_hook("message", mark), "when: {recipient_domain: example.net}")
    recipients = ("b@example.net", "c@example.org", "d@EXAMPLE.net")
    filtered = await _filtered(site.chain(), _message(*recipients))
    found = {
        tuple(recipient.address for recipient in copy.message.recipients): copy.message.headers.get(
            "X-Seen"
        )
        for copy in filtered.copies
    }
    assert found == {("b@example.net", "d@EXAMPLE.net"): "2", ("c@example.org",): None}
    assert all(copy.message.content.endswith(b"\r\n\r\nHello\r\n") for copy in filtered.copies)


async def test_per_recipient_work_parts_a_message(site: Site) -> None:
    body = "per_recipient = True\n" + _hook(
        "message", "(one,) = message.recipients; message.headers.add('X-For', one.address)"
    )
    site.plugin(body, "when: {recipient_domain: [example.net, example.com]}")
    site.plugin(_hook("message", "message.headers.add('X-All', 'yes')"))
    recipients = ("b@example.net", "c@example.org", "d@example.com", "e@example.org")
    filtered = await _filtered(site.chain(), _message(*recipients))
    found = {
        tuple(recipient.address for recipient in copy.message.recipients): copy.message.headers.get(
            "X-For"
        )
        for copy in filtered.copies
    }
    assert found == {
        ("b@example.net",): "b@example.net",
        ("d@example.com",): "d@example.com",
        ("c@example.org", "e@example.org"): None,
    }
    assert all(copy.message.headers.get("X-All") == "yes" for copy in filtered.copies)


# What answers mean.


async def test_discard_is_for_those_that_the_plugin_saw(site: Site) -> None:
    site.plugin(_hook("message", "return Discard('gone')"), "when: {recipient: 'b@*'}")
    filtered = await _filtered(site.chain(), _message("b@example.net", "c@example.net"))
    assert [(r.address, reason) for r, reason in filtered.discarded] == [("b@example.net", "gone")]
    (copy,) = filtered.copies
    assert [r.address for r in copy.message.recipients] == ["c@example.net"]


async def test_quarantine_and_delay_do_not_end_the_stage(site: Site) -> None:
    site.plugin(_hook("message", "return Quarantine('look at this')"))
    site.plugin(_hook("message", "return Delay(60)"))
    site.plugin(_hook("message", "return Delay(30)"))
    site.plugin(_hook("message", "return Quarantine('second')"))
    site.plugin(_hook("message", "message.headers.add('X-Last', 'yes')"))
    (copy,) = (await _filtered(site.chain(), _message())).copies
    assert (copy.held, copy.delay) == ("look at this", 60)
    assert copy.message.headers.get("X-Last") == "yes"


async def test_a_plugin_takes_all_recipients_away(site: Site) -> None:
    body = "for recipient in list(message.recipients): message.remove_recipient(recipient)"
    site.plugin(_hook("message", body))
    site.plugin(_hook("message", "raise AssertionError('nobody is left')"))
    filtered = await _filtered(site.chain(), _message())
    assert (filtered.copies, filtered.discarded) == ([], [])


async def test_seal_comes_last_for_each_copy_and_may_only_prepend(site: Site) -> None:
    site.plugin(_hook("seal", "message.headers.prepend('X-Seal', message.headers.get('X-For'))"))
    site.plugin(
        "per_recipient = True\n"
        + _hook("message", "message.headers.add('X-For', message.recipients[0].address)")
    )
    filtered = await _filtered(site.chain(), _message("b@example.net", "c@example.net"))
    for copy in filtered.copies:
        (recipient,) = copy.message.recipients
        assert copy.message.content.startswith(f"X-Seal: {recipient.address}\r\n".encode())


@pytest.mark.parametrize(
    "line",
    [
        "message.headers.add('X', 'y')",
        "message.headers.change('Subject', 'y')",
        "message.headers.delete('Subject')",
        "message.body = b'new'",
        "message.content = b'new'",
        "message.sender = 'evil@example.com'",
        "message.add_recipient('evil@example.com')",
        "message.text_parts()[0].text = 'new'",
    ],
)
async def test_seal_changes_nothing_else(site: Site, line: str) -> None:
    site.plugin(_hook("seal", line))
    message = _message()
    assert await site.chain().message(message) == TEMPFAIL
    assert message.content == CONTENT


@pytest.mark.parametrize("answer", [Reject("No"), Tempfail("Later")])
async def test_seal_may_refuse(site: Site, answer: Reject | Tempfail) -> None:
    site.plugin(_hook("seal", f"return {type(answer).__name__}('{answer.text}')"))
    assert await site.chain().message(_message()) == answer


async def test_seal_may_hold(site: Site) -> None:
    site.plugin(_hook("seal", "return Quarantine('no key')"))
    (copy,) = (await _filtered(site.chain(), _message())).copies
    assert copy.held == "no key"


@pytest.mark.parametrize("size", [100, 3_000_000])
@pytest.mark.parametrize("fields", [0, 1, 3])
async def test_a_copy_knows_how_many_octets_seal_has_put_on_top(
    site: Site, size: int, fields: int
) -> None:
    for number in range(fields):
        site.plugin(_hook("seal", f"message.headers.prepend('X-Seal', b'{number}\\r\\n\\tfolded')"))
    site.plugin(
        "per_recipient = True\n"
        + _hook("message", "message.headers.add('X-For', message.recipients[0].address)")
    )
    content = CONTENT + b"x" * 70 * (size // 70) + b"\r\n"
    filtered = await _filtered(site.chain(), _message("b@x", "c@x", content=content))
    assert len(filtered.copies) == 2
    for copy in filtered.copies:
        (recipient,) = copy.message.recipients
        header, body = content.split(b"\r\n\r\n", 1)
        unsealed = header + f"\r\nX-For: {recipient.address}\r\n\r\n".encode() + body
        assert copy.message.content[copy.seal :] == unsealed
        assert copy.message.content[: copy.seal].count(b"X-Seal: ") == fields


@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_a_seal_that_failed_leaves_nothing_behind(site: Site, size: int) -> None:
    prepend = "message.headers.prepend('X-Half', 'yes')"
    site.plugin(_hook("seal", f"{prepend}; raise RuntimeError('broken')"), "on_error: skip")
    site.plugin(_hook("seal", f"{prepend}; return 5"), "on_error: quarantine")
    site.plugin(_hook("seal", "message.headers.prepend('X-Seal', 'yes')"))
    content = CONTENT + b"x" * 70 * (size // 70) + b"\r\n"
    (copy,) = (await _filtered(site.chain(), _message(content=content))).copies
    assert copy.message.content == b"X-Seal: yes\r\n" + content
    assert copy.seal == len(b"X-Seal: yes\r\n")
    assert copy.held is not None


# Before and after an attempt.


async def test_what_delivery_hooks_answer(site: Site) -> None:
    site.plugin(_hook("route", "return Route((Hop('mx.example.net'),), 'site')"))
    site.plugin(_hook("admit", "return Delay(5, 'slowly')"))
    site.plugin(_hook("source", "return Source('127.0.0.2', 'two.example.com')"))
    site.plugin(_hook("reply", "return Outcome(Disposition.FAILED, 550, '5.1.1', 'never', 'site')"))
    chain = site.chain()
    delivery = _delivery()
    assert await chain.route(delivery) == Route((Hop("mx.example.net"),), "site")
    assert chain.admit(delivery) == Delay(5, "slowly")
    assert chain.source(delivery) == Source("127.0.0.2", "two.example.com")
    (recipient,) = delivery.recipients
    deferred = Outcome(Disposition.DEFERRED, 450, "4.2.0", "later", "rcpt")
    answer = chain.reply(Attempt(delivery, recipient, None, None, deferred))
    assert answer == Outcome(Disposition.FAILED, 550, "5.1.1", "never", "site")
    # What was delivered stays delivered.
    delivered = Outcome(Disposition.DELIVERED, 250, "2.0.0", "Ok", "dot")
    assert chain.reply(Attempt(delivery, recipient, None, None, delivered)) == delivered
    assert chain.steps["reply"][0].faults == 1


@pytest.mark.parametrize("hook", ["route", "admit", "source"])
async def test_a_failure_before_an_attempt(site: Site, hook: str) -> None:
    for rules in ("on_error: skip", "on_error: tempfail"):
        site.plugin(_hook(hook, "raise RuntimeError('broken')"), rules)
    chain = site.chain()
    answer: Any = getattr(chain, hook)(_delivery())
    if hook == "route":
        answer = await answer
    assert answer == Delay(FAULT_DELAY, f"plugin p1 failed in {hook}: raised RuntimeError: broken")
    assert [step.faults for step in chain.steps[hook]] == [1, 1]


@pytest.mark.parametrize("hook", ["route", "admit", "source"])
async def test_a_failure_before_an_attempt_may_hold(site: Site, hook: str) -> None:
    site.plugin(_hook(hook, "raise RuntimeError('broken')"), "on_error: quarantine")
    answer: Any = getattr(site.chain(), hook)(_delivery())
    if hook == "route":
        answer = await answer
    assert isinstance(answer, Quarantine)


def test_a_failure_in_reply(site: Site) -> None:
    site.plugin(_hook("reply", "raise RuntimeError('broken')"))
    site.plugin(_hook("reply", "raise RuntimeError('broken')"), "on_error: quarantine")
    chain = site.chain()
    delivery = _delivery()
    deferred = Outcome(Disposition.DEFERRED, 450, "4.2.0", "later", "rcpt")
    delivered = Outcome(Disposition.DELIVERED, 250, "2.0.0", "Ok", "dot")
    assert isinstance(
        chain.reply(Attempt(delivery, delivery.recipients[0], None, None, deferred)), Quarantine
    )
    attempt = Attempt(delivery, delivery.recipients[0], None, None, delivered)
    assert chain.reply(attempt) == delivered


# Failures.

FAILURES = {
    "raising": "@hookimpl\ndef {0}(self, {1}):\n    raise RuntimeError('broken')",
    "raising async": "@hookimpl\nasync def {0}(self, {1}):\n    raise RuntimeError('broken')",
    "junk": "@hookimpl\ndef {0}(self, {1}):\n    return 'junk'",
    "another stage's": "@hookimpl\ndef {0}(self, {1}):\n    return Delay(1) if '{0}' != 'message'"
    " else Accept()",
    "async junk": "@hookimpl\nasync def {0}(self, {1}):\n    return True",
    "class": "@hookimpl\ndef {0}(self, {1}):\n    return Reject",
    "busy": "@hookimpl\ndef {0}(self, {1}):\n    while True: pass",
    "asleep": "@hookimpl\ndef {0}(self, {1}):\n    time.sleep(60)",
    "async busy": "@hookimpl\nasync def {0}(self, {1}):\n    while True: pass",
    "async asleep": "@hookimpl\nasync def {0}(self, {1}):\n    await asyncio.sleep(60)",
    "async time.sleep": "@hookimpl\nasync def {0}(self, {1}):\n    time.sleep(60)",
    "catching": "@hookimpl\ndef {0}(self, {1}):\n    try:\n        time.sleep(60)\n"
    "    except Exception:\n        return None",
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("on_error", ["tempfail", "skip", "quarantine"])
async def test_a_message_hook_that_fails(site: Site, failure: str, on_error: str) -> None:
    change = "    message.headers.add('X-Bad', 'x'); message.body = b'bad'; message.sender = ''\n"
    change += "    message.add_recipient('bad@example.com'); message.notes['bad'] = 'x'\n"
    body = FAILURES[failure].format("message", "message").replace("):\n", f"):\n{change}", 1)
    site.plugin(body, f"on_error: {on_error}, timeout: 200ms")
    site.plugin(_hook("message", "message.headers.prepend('X-Later', 'yes')"))
    chain = site.chain()
    message = _message()
    started = time.monotonic()
    answer = await chain.message(message)
    assert time.monotonic() - started < 30
    assert chain.steps["message"][0].faults == 1
    if on_error == "tempfail":
        assert answer == TEMPFAIL
        return
    # What it did before it failed is undone, and the others still see the message.
    assert isinstance(answer, Filtered)
    (copy,) = answer.copies
    assert copy.message.content == b"X-Later: yes\r\n" + CONTENT
    assert (copy.message.sender, copy.message.notes) == ("a@example.com", {})
    assert [recipient.address for recipient in copy.message.recipients] == ["b@example.net"]
    assert (copy.held is None) == (on_error == "skip")


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("stage", ["mail", "connect"])
async def test_an_early_hook_that_fails(site: Site, failure: str, stage: str) -> None:
    subject = {"mail": "message", "connect": "client"}[stage]
    body = FAILURES[failure].format(stage, subject)
    site.plugin(body, "on_error: skip, timeout: 200ms")
    chain = site.chain()
    message = _message()
    of: Any = message if stage == "mail" else message.client
    assert await getattr(chain, stage)(of) is None
    site.plugin(body, "timeout: 200ms")
    assert await getattr(site.chain(), stage)(of) == TEMPFAIL
    site.plugin(body, "on_error: quarantine, timeout: 200ms")
    site._entries[:-1] = []
    answer = await getattr(site.chain(), stage)(of)
    assert isinstance(answer, Quarantine) if stage == "mail" else answer == TEMPFAIL


@pytest.mark.parametrize("failure", ["raising", "junk", "busy"])
async def test_a_seal_hook_that_fails(site: Site, failure: str) -> None:
    body = FAILURES[failure].format("seal", "message")
    site.plugin(body, "on_error: skip, timeout: 200ms")
    site.plugin(body, "on_error: quarantine, timeout: 200ms")
    site.plugin(_hook("seal", "message.headers.prepend('X-Seal', 'yes')"))
    (copy,) = (await _filtered(site.chain(), _message())).copies
    assert copy.message.content == b"X-Seal: yes\r\n" + CONTENT
    assert copy.held is not None
    assert copy.held.startswith("plugin p1 failed in seal")
    site.plugin(body, "timeout: 200ms")
    assert await site.chain().message(_message()) == TEMPFAIL


async def test_a_failure_is_logged_with_the_plugin_and_the_traceback(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.plugin(_hook("message", "raise RuntimeError('broken here')"))
    site.plugin(_hook("seal", "return 5"))
    with caplog.at_level(logging.ERROR):
        await site.chain().message(_message())
    (record,) = caplog.records
    expected = "plugin p0 failed in message: raised RuntimeError: broken here (on_error: tempfail)"
    assert record.getMessage() == expected
    assert record.exc_info


async def test_other_mail_goes_on_while_an_async_hook_waits(site: Site) -> None:
    site.plugin("@hookimpl\nasync def message(self, message):\n    await asyncio.sleep(60)")
    chain = site.chain()
    slow = asyncio.create_task(chain.message(_message()))
    await asyncio.sleep(0)
    assert await chain.connect(Client("127.0.0.1")) is None
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert chain.steps["message"][0].faults == 0


async def test_observers(site: Site) -> None:
    for rules in ("on_error: skip", "on_error: tempfail", "on_error: quarantine"):
        site.plugin(_hook("observe", "raise RuntimeError('broken')"), rules)
    site.plugin(_hook("observe", "assert events[0].type == 'accepted'"))
    chain = site.chain()
    events = [Event("accepted", 0.0, "1")]
    results = [await chain.observe(step, events) for step in chain.steps["observe"]]
    assert results == [True, False, False, True]


async def test_time_and_calls_are_counted(site: Site) -> None:
    site.plugin(_hook("message", "time.sleep(0.01)"))
    site.plugin("@hookimpl\nasync def message(self, message):\n    await asyncio.sleep(0.01)")
    chain = site.chain()
    for _ in range(2):
        await chain.message(_message())
    for step in chain.steps["message"]:
        assert step.calls == 2
        assert step.seconds >= 0.02
        assert step.faults == 0


LARGE_SEAL = """
@hookimpl
def seal(self, message):
    import threading
    main = threading.current_thread() is threading.main_thread()
    message.headers.prepend("X-Thread", "main" if main else "other")
"""


async def test_a_large_message_is_sealed_in_a_thread(site: Site) -> None:
    site.plugin(LARGE_SEAL)
    chain = site.chain()
    for size, thread in ((1000, "main"), (3_000_000, "other")):
        message = _message("b@example.net", content=CONTENT + b"x" * 70 * (size // 70) + b"\r\n")
        filtered = await chain.message(message)
        assert isinstance(filtered, Filtered)
        (copy,) = filtered.copies
        assert copy.message.headers.get("X-Thread") == thread
        with pytest.raises(RuntimeError):
            copy.message.headers.add("X-Late", "x")


@pytest.mark.parametrize("rule", ["tempfail", "skip", "quarantine"])
async def test_a_seal_that_hangs_on_a_large_message(site: Site, rule: str) -> None:
    site.plugin(
        "@hookimpl\ndef seal(self, message):\n    time.sleep(0.5)\n"
        "    message.headers.prepend('X-Late', 'x')",
        f"timeout: 0.1, on_error: {rule}",
    )
    site.plugin(LARGE_SEAL)
    answer = await site.chain().message(
        _message("b@example.net", content=CONTENT + b"x" * 2_000_000)
    )
    if rule == "tempfail":
        assert answer == TEMPFAIL
        return
    assert isinstance(answer, Filtered)
    (copy,) = answer.copies
    assert (copy.held is not None) == (rule == "quarantine")
    await asyncio.sleep(0.6)  # until the thread has ended, whose change must not be seen
    assert "X-Late" not in copy.message.headers
    assert "X-Thread" in copy.message.headers


async def test_a_copy_knows_the_whole_message(site: Site) -> None:
    site.plugin(
        "per_recipient = True\n@hookimpl\ndef message(self, message):\n"
        "    assert message.whole is not message\n"
        "    message.notes['all'] = ' '.join(one.address for one in message.whole.recipients)"
    )
    filtered = await site.chain().message(_message("b@example.net", "c@example.net"))
    assert isinstance(filtered, Filtered)
    assert [copy.message.notes["all"] for copy in filtered.copies] == [
        "b@example.net c@example.net"
    ] * 2
    assert _message("b@example.net").copy().copy().whole.recipients[0].address == "b@example.net"
    alone = _message("b@example.net")
    assert alone.whole is alone


REJOIN = """
per_recipient = True

@hookimpl
def message(self, message):
    (recipient,) = message.recipients
    recipient.notes["seen"] = "yes"
    if recipient.address.startswith("c"):
        message.headers.add("X-For", recipient.address)
    if recipient.address.startswith("n"):
        message.notes["note"] = "own"
    if recipient.address.startswith("d"):
        return Delay(60)
    if recipient.address.startswith("x"):
        return Discard("gone")
"""


@pytest.mark.parametrize("edited", [False, True])
async def test_copies_that_stay_as_they_were_are_one_message_again(
    site: Site, edited: bool
) -> None:
    if edited:
        site.plugin(
            "@hookimpl\ndef message(self, message):\n"
            "    message.text_parts()[0].text += 'more\\n'\n    message.headers.add('X-A', 'b')"
        )
    site.plugin(REJOIN)
    addresses = ["a1@x", "c1@x", "a2@x", "d1@x", "n1@x", "x1@x", "a3@x"]
    filtered = await site.chain().message(_message(*addresses))
    assert isinstance(filtered, Filtered)
    assert [[one.address for one in copy.message.recipients] for copy in filtered.copies] == [
        ["a1@x", "a2@x", "a3@x"],
        ["c1@x"],
        ["d1@x"],
        ["n1@x"],
    ]
    for copy in filtered.copies:
        assert copy.message.content.endswith(b"more\r\n" if edited else b"Hello\r\n")
        assert [one.message for one in copy.message.recipients] == [copy.message] * len(
            copy.message.recipients
        )
        assert {one.notes["seen"] for one in copy.message.recipients} == {"yes"}


# Addresses that hooks change, and those that are the gateway's own.


@pytest.mark.parametrize(
    ("address", "orcpt"),
    [("b+x@example.net", "rfc822;b+2Bx@example.net"), ("ü@x.jp", "utf-8;\\x{FC}@x.jp")],
)
async def test_a_report_names_the_recipient_that_the_sender_wrote(
    site: Site, address: str, orcpt: str
) -> None:
    site.plugin(_hook("rcpt", "recipient.address = 'second@example.net'"))
    site.plugin(_hook("rcpt", "recipient.address = 'third@example.net'"))
    recipient = Recipient(address, message=_message())
    assert await site.chain().rcpt(recipient) is None
    assert (recipient.address, recipient.orcpt) == ("third@example.net", orcpt)
    said = Recipient(address, orcpt="rfc822;said@example.net", message=_message())
    assert await site.chain().rcpt(said) is None
    assert said.orcpt == "rfc822;said@example.net"


@pytest.mark.parametrize("rules", ["", "on_error: skip"])
async def test_the_message_stage_keeps_original_recipients(site: Site, rules: str) -> None:
    body = """
for recipient in message.recipients:
    if recipient.address.startswith("b"):
        recipient.address = "second@example.net"
    if recipient.address.startswith("same"):
        recipient.address = "same@" + "example.net"
if any(recipient.address.startswith("gone") for recipient in message.recipients):
    message.remove_recipient(message.recipients[0])
    message.add_recipient("new@example.net")
""".strip().replace("\n", "\n    ")
    site.plugin(_hook("message", body), rules)
    again = "message.recipients[0].address = 'third@example.net'"
    site.plugin("per_recipient = True\n" + _hook("message", again), "when: {recipient: second@*}")
    site.plugin(
        _hook("message", "message.recipients[0].address = 'bad@x'; raise RuntimeError"),
        "on_error: skip",
    )
    message = _message("gone@example.net", "b@example.net", "same@example.net", "d@example.net")
    message.recipients[3].orcpt = "rfc822;said@example.net"
    filtered = await _filtered(site.chain(), message)
    assert {
        recipient.address: recipient.orcpt
        for copy in filtered.copies
        for recipient in copy.message.recipients
    } == {
        "third@example.net": "rfc822;b@example.net",
        "same@example.net": None,
        "d@example.net": "rfc822;said@example.net",
        "new@example.net": None,
    }


def _claims(body: str) -> str:
    """The hook `claim` with this body, and a `receive` that goes with it."""
    return _hook("claim", body) + "\n" + _hook("receive", "return None")


async def test_who_claims_an_address(site: Site) -> None:
    site.plugin(_claims("return None"))
    site.plugin(
        _hook("claim", "recipient.notes['seen'] = 'yes'; return Accept()")
        + "\n"
        + _hook("receive", "return None"),
        "when: {recipient_domain: own.example}",
    )
    site.plugin(_claims("return Reject('Never', 550, '5.1.1')"), "when: {recipient: r@*}")
    site.plugin(_claims("return Tempfail('Later')"), "when: {recipient: t@*}")
    chain = site.chain()

    def claim(address: str) -> str | Reject | Tempfail | None:
        return chain.claim(Recipient(address, message=_message()))

    assert claim("b@example.net") is None
    assert claim("b@own.example") == chain.steps["claim"][1].plugin
    assert claim("r@own.example") == chain.steps["claim"][1].plugin
    assert claim("r@example.net") == Reject("Never", 550, "5.1.1")
    assert claim("t@example.net") == Tempfail("Later")


@pytest.mark.parametrize("failure", ["raising", "junk", "busy"])
@pytest.mark.parametrize("on_error", ["tempfail", "skip", "quarantine"])
async def test_a_claim_hook_that_fails(site: Site, failure: str, on_error: str) -> None:
    change = "):\n    recipient.address = 'evil@example.com'\n"
    body = FAILURES[failure].format("claim", "recipient").replace("):\n", change, 1)
    body += "\n" + _hook("receive", "return None")
    site.plugin(body, f"on_error: {on_error}, timeout: 200ms")
    recipient = Recipient("b@example.net", message=_message())
    assert site.chain().claim(recipient) == (None if on_error == "skip" else TEMPFAIL)
    assert recipient.address == "b@example.net"


@pytest.mark.parametrize("on_error", ["tempfail", "skip"])
async def test_who_claims_must_receive(site: Site, on_error: str) -> None:
    site.plugin(
        _hook("claim", "return Accept()") + "\n" + _hook("receive", "return None"),
        f"on_error: {on_error}",
    )
    chain = site.chain()
    chain._receivers.clear()
    recipient = Recipient("b@example.net", message=_message())
    assert chain.claim(recipient) == (None if on_error == "skip" else TEMPFAIL)


async def test_a_plugin_receives(site: Site) -> None:
    for kind, line in (
        ("def", "return None"),
        ("async def", "await asyncio.sleep(0); return Quarantine('look')"),
        ("def", "return Reject('No')"),
        ("async def", "return Tempfail('Later')"),
    ):
        receive = _hook("receive", line).replace("def", kind)
        site.plugin(_hook("claim", "return Accept()") + "\n" + receive, "when: {recipient: 'b@*'}")
    chain = site.chain()
    answers = [await chain.receive(step.plugin, _message("x@y")) for step in chain.steps["claim"]]
    assert answers == [None, Quarantine("look"), Reject("No"), Tempfail("Later")]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("on_error", ["tempfail", "skip", "quarantine"])
async def test_a_receive_hook_that_fails(site: Site, failure: str, on_error: str) -> None:
    site.plugin(
        FAILURES[failure].format("receive", "message"), f"on_error: {on_error}, timeout: 200ms"
    )
    chain = site.chain()
    answer = await chain.receive(chain.steps["receive"][0].plugin, _message())
    if on_error == "tempfail":
        assert answer == TEMPFAIL
    else:
        # Nobody else would take it.
        assert isinstance(answer, Quarantine)
        assert "failed in receive" in answer.reason


def test_each_reply_hook_sees_what_the_one_before_made_of_it(site: Site) -> None:
    site.plugin("""
@hookimpl
def reply(self, attempt):
    if attempt.outcome.disposition is Disposition.FAILED:
        return Outcome(Disposition.DEFERRED, 450, "4.7.1", attempt.outcome.text, "rcpt")
""")
    site.plugin("""
@hookimpl
def reply(self, attempt):
    if attempt.outcome.disposition is Disposition.DEFERRED:
        return Outcome(Disposition.DEFERRED, 450, "4.7.1", "seen", "rcpt")
""")
    delivery = _delivery()
    outcome = Outcome(Disposition.FAILED, 550, "5.7.1", "no", "rcpt")
    answer = site.chain().reply(Attempt(delivery, delivery.recipients[0], None, None, outcome))
    assert isinstance(answer, Outcome)
    assert answer.text == "seen"


def test_a_delay_of_the_lane_under_a_condition_is_one_of_the_message(site: Site) -> None:
    body = """
@hookimpl
def admit(self, delivery):
    return Delay(3, "slow", lane=True)
"""
    site.plugin(body, "when: {sender: 'news@*'}")
    site.plugin(body)
    chain = site.chain()
    assert chain.admit(_delivery(sender="news@example.com")) == Delay(3, "slow", lane=False)
    assert chain.admit(_delivery()) == Delay(3, "slow", lane=True)
