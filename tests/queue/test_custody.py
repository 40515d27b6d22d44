"""Hooks that end their process over mail in the queue: what is noted of them, and what is held."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.queue.administration import change
from gateway.queue.selection import Selection
from gateway.testing import NextHop
from tests.assembly import Assembly, configure, until, write_plugin
from tests.queue.dying_worker import STATUS, run

DIES = """
@hookimpl
{kind} {hook}(self, {subject}):
    {before}
    recipients = [one.address for one in {recipients}]
    if "poison@example.net" in recipients and not Path("{folder}/repaired").exists():
        import os
        os._exit(3)
"""


def _dies(folder: Path, hook: str, kind: str = "def", before: str = "pass") -> str:
    subject, recipients = "delivery", "delivery.recipients"
    if hook == "reply":
        subject, recipients = "attempt", "[attempt.recipient]"
    text = DIES.format(
        kind=kind, hook=hook, subject=subject, before=before, recipients=recipients, folder=folder
    )
    return write_plugin(folder, "site", text)


async def _run(folder: Path, *messages: str) -> int:
    return await asyncio.to_thread(run, folder, *messages)


async def _run_all(folder: Path, *messages: str) -> int:
    """Runs workers until one ends in good order; returns how many have died before."""
    deaths = 0
    while await _run(folder, *messages) == STATUS:
        deaths += 1
        messages = ()
        assert deaths < 10
    return deaths


async def _left(folder: Path) -> dict[str, str | None]:
    """Who waits in the queue, and why they are held."""
    async with Assembly(configure(folder, "relay: {via: ['127.0.0.1:1']}")) as gateway:
        return {row.recipient: row.held for row in gateway.rows()}


def _arrived(hop: NextHop) -> list[str]:
    return sorted(to for one in hop.messages for to, _ in one.recipients)


async def test_mail_that_ends_its_process_is_held_and_may_be_released(tmp_path: Path) -> None:
    async with NextHop() as hop:
        text = f"relay: {{via: ['{hop.address}']}}\nplugins: [{_dies(tmp_path, 'route')}]"
        configure(tmp_path, text)
        assert await _run_all(tmp_path, "good@example.net", "poison@example.net") == 3
        assert set(_arrived(hop)) == {"good@example.net"}
        assert await _left(tmp_path) == {
            "poison@example.net": "a process ended 3 times while plugin site's `route` had this "
            "message"
        }
        # The plugin is as before: the count begins anew.
        configure(tmp_path, text)
        await change(tmp_path / "spool", "release", Selection())
        assert await _run(tmp_path) == STATUS
        (tmp_path / "repaired").touch()
        assert await _run(tmp_path) == 0
        assert _arrived(hop)[-1] == "poison@example.net"
    assert await _left(tmp_path) == {}
    assert not list((tmp_path / "spool").glob("*.suspects"))


async def test_what_was_delivered_is_not_delivered_again(tmp_path: Path) -> None:
    async with NextHop(rcpt={"late@*": ["450 4.2.0 Later", "250 2.1.5 Ok"]}) as hop:
        text = f"relay: {{via: ['{hop.address}']}}\nplugins: [{_dies(tmp_path, 'reply')}]"
        configure(tmp_path, f"retry: {{schedule: [1h]}}\n{text}")
        deaths = await _run_all(tmp_path, "good@example.net,late@example.net,poison@example.net")
        assert deaths == 1
        assert _arrived(hop) == ["good@example.net", "late@example.net", "poison@example.net"]
    assert await _left(tmp_path) == {}


async def test_what_was_in_hand_by_chance_is_tried_alone(tmp_path: Path) -> None:
    async with NextHop() as hop:
        # All of them are in hand when the first process ends.
        before = "await asyncio.sleep(0.3)"
        path = _dies(tmp_path, "route", "async def", before)
        configure(tmp_path, f"relay: {{via: ['{hop.address}']}}\nplugins: [{path}]")
        good = [f"g{number}@example.net" for number in range(6)]
        assert await _run_all(tmp_path, *good, "poison@example.net") == 3
        assert set(_arrived(hop)) == set(good)
    (held,) = (await _left(tmp_path)).items()
    assert held[0] == "poison@example.net"


async def test_a_hook_that_dies_over_all_of_its_mail_is_not_asked_for_a_while(
    tmp_path: Path,
) -> None:
    async with NextHop() as hop:
        # Other mail does not meet the plugin.
        when = "{when: {recipient_domain: example.net}}"
        path = _dies(tmp_path, "route", "async def", "await asyncio.sleep(0.3)")
        configure(tmp_path, f"relay: {{via: ['{hop.address}']}}\nplugins: [{path}: {when}]")
        one = "poison@example.net"
        assert await _run_all(tmp_path, one, one, one, one, "good@example.org") == 4
        assert "good@example.org" in _arrived(hop)
    async with Assembly(configure(tmp_path, "relay: {via: ['127.0.0.1:1']}")) as gateway:
        rows = gateway.rows()
    assert [row.held is not None for row in rows].count(True) == 2
    (reply,) = {row.reply for row in rows if row.held is None}
    assert reply.startswith("plugin site is not asked in route: it failed ")
    assert "its process ended; again in 2 s" in reply


# Each hook writes down what the file of the shard says of it.
WATCHES = """
{blocking}
def note(self, hook):
    octets = (Path(__file__).parent / "spool" / "0001.suspects").read_bytes()
    names = [octets[at + 1 : at + 64].rstrip(bytes(1)).decode() for at in range(0, 16384, 64)]
    places = range(16384, len(octets), 64)
    marks = [names[octets[at]] for at in places if octets[at]]
    with (Path(__file__).parent / "noted").open("a") as log:
        print(hook, *marks, file=log)
"""
WATCHED = """
@hookimpl
{kind} {hook}(self, it):
    {wait}
    self.note("{hook}")
"""


@pytest.mark.parametrize("kind", ["plain", "async", "blocking"])
async def test_each_hook_is_noted_while_it_has_mail_in_hand(tmp_path: Path, kind: str) -> None:
    blocking = "blocking = True" if kind == "blocking" else ""
    hooks = ["route", "seal"] if blocking else ["route", "source", "admit", "reply", "seal"]
    body = WATCHES.format(blocking=blocking)
    for hook in hooks:
        is_async = kind == "async" and hook == "route"
        text = WATCHED.format(
            kind="async def" if is_async else "def",
            hook=hook,
            wait="await asyncio.sleep(0.01)" if is_async else "pass",
        )
        names = {"reply": "attempt", "seal": "message"}
        body += text.replace("it)", f"{names.get(hook, 'delivery')})")
    path = write_plugin(tmp_path, "site", body)
    other = write_plugin(tmp_path, "other", "@hookimpl\ndef admit(self, delivery):\n    pass")
    async with NextHop(rcpt={"b@*": "550 5.1.1 No"}) as hop:
        text = f"relay: {{via: ['{hop.address}']}}\nplugins: [{other}, {path}]"
        async with Assembly(configure(tmp_path, text)) as gateway:
            await gateway.submit("b@example.net")
            await until(lambda: hop.messages and not gateway.rows(), "the report")
    noted = (tmp_path / "noted").read_text().splitlines()
    # The message is sealed before it is in the queue, and its report while it is.
    assert noted[0] == "seal"
    assert {*noted[1:]} == {f"{hook} {hook} site" for hook in hooks}


async def test_what_a_plugin_receives_is_noted(tmp_path: Path) -> None:
    body = WATCHES.format(blocking="") + (
        "@hookimpl\n"
        "def claim(self, recipient):\n"
        "    return Accept() if recipient.domain == 'own.example' else None\n"
        "@hookimpl\n"
        "def receive(self, message):\n"
        "    self.note('receive')\n"
        "    if not (Path(__file__).parent / 'ready').exists():\n"
        "        return Quarantine('odd')\n"
    )
    text = f"relay: {{via: ['127.0.0.1:1']}}\nplugins: [{write_plugin(tmp_path, 'site', body)}]"
    async with Assembly(configure(tmp_path, text)) as gateway:
        await gateway.submit("b@own.example")
        await until(lambda: gateway.rows(state="held"), "the message to be held")
    (tmp_path / "ready").touch()
    await change(tmp_path / "spool", "release", Selection())
    async with Assembly(configure(tmp_path, text)) as gateway:
        await until(lambda: not gateway.rows(), "the message to be received")
    assert (tmp_path / "noted").read_text().splitlines() == ["receive", "receive receive site"]


async def test_mail_goes_on_where_nothing_can_be_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "spool" / "0001.suspects").mkdir(parents=True)
    path = write_plugin(tmp_path, "site", "@hookimpl\ndef admit(self, delivery):\n    pass")
    async with NextHop() as hop:
        text = f"relay: {{via: ['{hop.address}']}}\nplugins: [{path}]"
        async with Assembly(configure(tmp_path, text)) as gateway:
            await gateway.submit("b@example.net")
            await gateway.submit("c@example.net")
            await hop.wait(2)
    (line,) = [one for one in caplog.messages if "will not be found out" in one]
    assert "0001.suspects: Is a directory" in line


async def test_there_is_no_file_where_there_is_no_hook(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    left = tmp_path / "spool" / "0001.suspects"
    left.write_bytes(b"of another time")
    async with (
        NextHop() as hop,
        Assembly(configure(tmp_path, f"relay: {{via: ['{hop.address}']}}")) as gateway,
    ):
        assert not left.exists()
        await gateway.submit("b@example.net")
        await hop.wait(1)
        assert not left.exists()
        assert gateway.spool.home.suspects is None
