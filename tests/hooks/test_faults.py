"""Every way of a plugin to do wrong, at every hook that mail passes, with every `on_error`.

A message goes to two recipients through a real gateway, over real sockets. It must be refused,
held, delayed or delivered as `on_error` says, and never be changed halfway or let out unfiltered.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.hooks.watchdog import NEVER
from gateway.testing import NextHop
from tests.assembly import Assembly, below_trace, configure, until
from tests.hooks.faults import (
    CONTENT,
    FAULTS,
    FILTERED,
    HOOKS,
    NAME,
    ON_ERROR,
    OUTCOMES,
    SENDER,
    statement,
    write,
)

CELLS = [
    pytest.param(hook, fault, variant, on_error, id=f"{hook}-{fault}-{variant}-{on_error}")
    for hook, about in HOOKS.items()
    for fault in FAULTS
    for variant in about.variants
    for on_error in (ON_ERROR if fault != "leaks" else ["tempfail"])
]

RECIPIENTS = {"receive": ("b@own.example", "c@example.net")}
USUAL = ("b@example.net", "c@example.net")


class Gateway:
    """A gateway with the three plugins, and the next hop."""

    def __init__(self, assembly: Assembly, hop: NextHop) -> None:
        self.assembly = assembly
        self.hop = hop
        plugins: dict[str, Any] = {one.entry.name: one.instance for one in assembly.plugins}
        self.wrong, self.after = plugins[NAME], plugins["after"]

    async def talk(self, *recipients: str, login: bool = False) -> str:
        """Sends a message to recipients; the first refusal, or `taken`.

        A refused recipient is left out, as clients do.
        """
        refused = ""
        async with self.assembly.client(greet=False) as client:
            reply = await client.reply()
            if not reply.startswith("220 "):
                assert await client.is_closed()
                return f"connect {reply[:3]}"
            reply = await client.say("EHLO client.example.org")
            if not reply.startswith("250"):
                return f"helo {reply[:3]}"
            if login:
                token = base64.b64encode(b"\0shop\0secret").decode()
                reply = await client.say(f"AUTH PLAIN {token}")
                if not reply.startswith("235 "):
                    return f"auth {reply[:3]}"
            reply = await client.say(f"MAIL FROM:<{SENDER}>")
            if not reply.startswith("250 "):
                return f"mail {reply[:3]}"
            for recipient in recipients:
                reply = await client.say(f"RCPT TO:<{recipient}>")
                if not reply.startswith("250 "):
                    refused = f"rcpt {reply[:3]}"
            reply = await client.data(CONTENT)
            return refused or ("taken" if reply.startswith("250 ") else f"dot {reply[:3]}")

    def delivered(self) -> list[str]:
        """Who got the message as it should be, in the order of the alphabet."""
        found = []
        for message in self.hop.messages:
            assert message.sender == SENDER
            seal, _, rest = message.content.partition(b"\r\n")
            assert seal == b"X-Seal: yes"
            assert below_trace(rest) == FILTERED
            found += [address for address, _ in message.recipients]
        return sorted(found)

    def stored(self) -> list[bytes]:
        """The messages in the spool, below the trace field."""
        contents = []
        for shard in self.assembly.spool.shards:
            for (content,) in shard.query("SELECT content FROM messages ORDER BY copy", ()):
                contents.append(below_trace(content.removeprefix(b"X-Seal: yes\r\n")))
        return contents


@asynccontextmanager
async def gateway(
    folder: Path, hook: str, wrong: str, variant: str, on_error: str
) -> AsyncIterator[Gateway]:
    """A gateway whose middle plugin does something wrong at a hook."""
    rcpt = {"b@*": "450 4.2.0 Later"} if hook == "reply" else {}
    async with NextHop(rcpt=rcpt) as hop:
        config = configure(
            folder,
            f"relay: {{via: ['{hop.address}']}}\n{write(folder, hook, wrong, variant, on_error)}",
        )
        async with Assembly(config, plaintext_auth=True) as assembly:
            assembly.watchdog.start()
            try:
                yield Gateway(assembly, hop)
            finally:
                assembly.watchdog.stop()


def _of_plugin() -> list[str]:
    """The tasks that run code of a plugin."""
    found = []
    for task in asyncio.all_tasks():
        code: Any = getattr(task.get_coro(), "cr_code", None)
        if code is not None and f"/{NAME}.py" in code.co_filename:
            found.append(repr(task))
    return found


@pytest.fixture
def faults(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What the log says of plugins that failed."""
    caplog.set_level(logging.ERROR)

    def read() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "gateway.chain"]

    yield read
    # Nothing else in the gateway broke.
    assert [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.ERROR and record.name != "gateway.chain"
    ] == []


@pytest.mark.parametrize(("hook", "fault", "variant", "on_error"), CELLS)
async def test_a_plugin_that_does_wrong(
    tmp_path: Path,
    faults: Callable[[], list[str]],
    hook: str,
    fault: str,
    variant: str,
    on_error: str,
) -> None:
    recipients = RECIPIENTS.get(hook, USUAL)
    async with gateway(tmp_path, hook, statement(hook, fault, variant), variant, on_error) as site:
        said = await site.talk(*recipients, login=hook == "auth")
        if fault == "leaks":
            await _leaks(site, hook, said, recipients)
            assert faults() == []
        else:
            await _fails(site, hook, said, OUTCOMES[hook][on_error], recipients)
            assert faults()
            for line in faults():
                assert line.startswith(f"plugin {NAME} failed in {hook}: ")
                assert line.endswith(f"(on_error: {on_error})")
        assert _of_plugin() == []
        assert (site.assembly.watchdog.tasks, site.assembly.watchdog.deadline) == ({}, NEVER)
        for seen in site.after.seen:
            assert "evil" not in repr(seen)
            assert "bad" not in repr(seen)
        # Once it does right, mail passes.
        site.wrong.broken = False
        before = len(site.hop.messages)
        assert await site.talk("d@example.net", login=hook == "auth") == "taken"
        await site.hop.wait(before + 1)
        assert "d@example.net" in site.delivered()
        assert site.assembly.events() == []


async def _fails(
    site: Gateway, hook: str, said: str, outcome: str, recipients: tuple[str, ...]
) -> None:
    rows = site.assembly.rows
    b, c = recipients
    if outcome == "delivered":
        assert said == "taken"
        await until(lambda: not rows(), "delivery")
        assert site.delivered() == [b, c]
    elif outcome in ("held", "one held"):
        assert said == "taken"
        others = [] if outcome == "held" else [c]
        held = [one for one in recipients if one not in others]

        def is_held() -> bool:
            return [row.recipient for row in rows() if row.held] == held

        await until(is_held, "it to be held")
        await until(lambda: len(rows()) == len(held), "the others to be delivered")
        for row in rows():
            assert (row.sender, row.stream) == (SENDER, "default")
            assert f"plugin {NAME} failed in {hook}: " in str(row.held)
        assert site.delivered() == others
        # What was claimed passes no hook but `receive`.
        assert site.stored() == [CONTENT if hook == "receive" else FILTERED]
    elif outcome in ("delayed", "one deferred"):
        assert said == "taken"
        others = [] if outcome == "delayed" else [c]
        await until(lambda: len(rows()) == 2 - len(others) and rows()[0].due, "the queue")
        for row in rows():
            assert (row.sender, row.stream, row.held) == (SENDER, "default", None)
            assert row.recipient not in others
        assert site.delivered() == others
        assert site.stored() == [FILTERED]
    else:
        assert said == outcome
        if outcome.startswith("rcpt"):
            await site.hop.wait(1)  # the other recipient is no worse off
            assert site.delivered() == [c]
        else:
            assert site.hop.messages == []
        await until(lambda: not rows(), "the queue to be empty")


async def _leaks(site: Gateway, hook: str, said: str, recipients: tuple[str, ...]) -> None:
    """What is left behind by a hook that has answered changes nothing any more."""
    assert said == "taken"
    delivered = [one for one in recipients if not one.endswith("own.example")]
    if hook == "reply":
        await until(
            lambda: [row.recipient for row in site.assembly.rows()] == ["b@example.net"],
            "the other",
        )
        delivered = ["c@example.net"]
    else:
        await until(lambda: not site.assembly.rows(), "delivery")
    assert site.delivered() == delivered
    tries = 30 * len(HOOKS[hook].late)
    await until(lambda: site.wrong.refused + len(site.wrong.made) >= tries, "all its attempts")
    await until(lambda: not _of_plugin(), "the end of the task that was left behind")
    assert site.wrong.made == ()
    # `receive` has a copy of its own, of which nobody asks again.
    assert site.wrong.refused == tries
