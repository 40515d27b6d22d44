"""Answers that look like one and are junk: they are refused where they are made, or are faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.attempt import Attempt, Delivery, Disposition, Hop, Outcome, Route, Source
from gateway.hooks.actions import Delay, Discard, Quarantine, Reject, Tempfail
from gateway.hooks.chain import Chain
from gateway.hooks.load import load_plugins
from gateway.hooks.watchdog import Watchdog
from gateway.mail.message import Client, Recipient
from tests.assembly import Assembly, configure, until, write_plugin

JUNK: dict[str, Callable[[], Any]] = {
    "a reply text of two lines": lambda: Reject("No\r\n250 Ok"),
    "a code that is no whole number": lambda: Reject("No", code=550.0),  # type: ignore[arg-type]
    "a code of another class": lambda: Tempfail("Later", code=550),
    "a reason that is no text": lambda: Quarantine(None),  # type: ignore[arg-type]
    "another reason that is no text": lambda: Discard(5),  # type: ignore[arg-type]
    "a delay's reason that is no text": lambda: Delay(1, reason=b"x"),  # type: ignore[arg-type]
    "a delay without end": lambda: Delay(float("inf")),
    "a delay that is no number": lambda: Delay(float("nan")),
    "a delay into the past": lambda: Delay(-1),
    "a delay of text": lambda: Delay("5m"),  # type: ignore[arg-type]
    "a port that is none": lambda: Hop("192.0.2.1", 0),
    "a port of text": lambda: Hop("192.0.2.1", "25"),  # type: ignore[arg-type]
    "a host that is no text": lambda: Hop(None),  # type: ignore[arg-type]
    "hops that are text": lambda: Route(("192.0.2.1",), "x"),  # type: ignore[arg-type]
    "hops that are one hop": lambda: Route(Hop("192.0.2.1"), "x"),  # type: ignore[arg-type]
    "hops in a list": lambda: Route([Hop("192.0.2.1")], "x"),  # type: ignore[arg-type]
    "a site that is no text": lambda: Route((Hop("192.0.2.1"),), None),  # type: ignore[arg-type]
    "a level that is text": lambda: Route((Hop("x"),), "x", tls="none"),  # type: ignore[arg-type]
    "a login that is a pair": lambda: Route((Hop("x"),), "x", login=("a", "b")),  # type: ignore[arg-type]
    "a source that is no address": lambda: Source("eth0", "gw.example.com"),
    "a name that is no text": lambda: Source(None, None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("make", JUNK.values(), ids=JUNK)
def test_what_cannot_be_made(make: Callable[[], Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        make()


def test_a_reason_is_one_line() -> None:
    assert Quarantine("look\r\nat\tthis\x1b[2J").reason == "look at this [2J"
    assert Discard("a\nb").reason == "a b"
    assert Delay(1, "a\nb").reason == "a b"
    assert Quarantine("").reason == Quarantine("\r\n").reason == "(no reason given)"


async def test_mail_is_held_without_a_reason_too(tmp_path: Path) -> None:
    hook = "@hookimpl\ndef message(self, message):\n    return Quarantine('')"
    text = f"relay: {{via: ['127.0.0.1:1']}}\nplugins: [{write_plugin(tmp_path, 'site', hook)}]"
    async with Assembly(configure(tmp_path, text)) as gateway:
        assert (await gateway.submit("b@example.net")).startswith("250")
        await until(lambda: [row.held for row in gateway.rows()] == ["(no reason given)"], "it")


OUTCOMES = {
    "delivered": "Outcome(Disposition.DELIVERED, 250, '2.0.0', 'Ok', 'site')",
    "disposition": "Outcome('failed', 550, '5.1.1', 'no', 'site')",
    "code": "Outcome(Disposition.FAILED, '550', '5.1.1', 'no', 'site')",
    "code out of range": "Outcome(Disposition.FAILED, 999, '5.1.1', 'no', 'site')",
    "status": "Outcome(Disposition.FAILED, 550, None, 'no', 'site')",
    "text": "Outcome(Disposition.FAILED, 550, '5.1.1', 'no\\r\\nX: y', 'site')",
    "stage": "Outcome(Disposition.FAILED, 550, '5.1.1', 'no', 5)",
    "relay": "Outcome(Disposition.FAILED, 550, '5.1.1', 'no', 'site', relay=None)",
}


@pytest.mark.parametrize("on_error", ["tempfail", "skip", "quarantine"])
@pytest.mark.parametrize("answer", OUTCOMES.values(), ids=OUTCOMES)
def test_an_outcome_that_is_none(tmp_path: Path, answer: str, on_error: str) -> None:
    hook = f"@hookimpl\ndef reply(self, attempt):\n    return {answer}"
    text = f"plugins: [{write_plugin(tmp_path, 'site', hook)}: {{on_error: {on_error}}}]"
    chain = Chain(load_plugins(configure(tmp_path, text)), Watchdog())
    delivery = Delivery(
        message_id="0",
        sender="a@example.com",
        recipients=[Recipient("b@example.net")],
        client=Client("127.0.0.1"),
        stream="default",
        received=0.0,
        attempts=0,
        content=b"\r\n",
    )
    outcome = Outcome(Disposition.DEFERRED, 450, "4.2.0", "later", "rcpt")
    found = chain.reply(Attempt(delivery, delivery.recipients[0], None, None, outcome))
    assert chain.steps["reply"][0].faults == 1
    if on_error == "quarantine":
        assert isinstance(found, Quarantine)
    else:
        assert found is outcome


async def test_only_the_hook_that_runs_may_change_a_message(tmp_path: Path) -> None:
    """While a hook waits, tasks that it has started may change the message; those of others not."""
    leaks = """
refused = ()
@hookimpl
def message(self, message):
    async def later():
        for _ in range(20):
            await asyncio.sleep(0.002)
            try:
                message.headers.add("X-Bad", "x")
            except ForbiddenChangeError as error:
                self.refused += (str(error),)
    self.task = asyncio.get_running_loop().create_task(later())
"""
    waits = """
@hookimpl
async def message(self, message):
    async def add(name):
        await asyncio.sleep(0.01)
        message.headers.add(name, "yes")
    await asyncio.gather(add("X-One"), add("X-Two"))
    await asyncio.to_thread(message.headers.add, "X-T", "yes")
"""
    first, second = write_plugin(tmp_path, "leaks", leaks), write_plugin(tmp_path, "waits", waits)
    text = f"relay: {{via: ['127.0.0.1:1']}}\nplugins: [{first}, {second}]"
    async with Assembly(configure(tmp_path, text)) as gateway:
        assert (await gateway.submit("b@example.net")).startswith("250")
        leaking: Any = gateway.plugins[0].instance
        await asyncio.wait_for(leaking.task, 30)
        assert len(leaking.refused) == 20
        assert "the hook of leaks has ended" in leaking.refused[0]
        assert "the message is sealed and on its way" in leaking.refused[-1]
        (shard,) = gateway.spool.shards
        ((content,),) = shard.query("SELECT content FROM messages", ())
        assert b"X-Bad" not in content
        assert all(name in content for name in (b"\r\nX-One: ", b"\r\nX-Two: ", b"\r\nX-T: "))
