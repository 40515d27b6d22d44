"""Mail for the gateway itself: plugins claim addresses at RCPT and receive after the dot."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.assembly import Assembly, below_trace, configure, write_plugin

NOWHERE = "relay: {via: ['127.0.0.1:1']}"
CONTENT = b"Subject: test\r\n\r\nHello\r\n"

BOUNCES = """
def __init__(self, config):
    super().__init__(config)
    self.got = []

@hookimpl
def claim(self, recipient):
    assert recipient.message.sender == "a@example.com"
    local, _, domain = recipient.address.rpartition("@")
    if domain.lower() not in ("own.example", "postmaster"):
        return None
    if local == "forged":
        return Reject("No such address", 550, "5.1.1")
    if local == "full":
        return Tempfail("Later", 450, "4.2.1")
    recipient.notes["token"] = local
    return Accept()

@hookimpl
async def receive(self, message):
    self.got.append(message)
    message.headers.add("X-Received", "yes")
    message.add_recipient("evil@example.com")
    for recipient in list(message.recipients):
        recipient.address = recipient.address.upper()
    {0}
"""

MARK = """
@hookimpl
def message(self, message):
    message.headers.add("X-Mark", " ".join(one.address for one in message.recipients))
    {0}
@hookimpl
def seal(self, message):
    message.headers.prepend("X-Seal", "yes")
"""


def _assembly(
    folder: Path, *hooks: str, more: str = "", rules: Sequence[str] = (), **options: Any
) -> Assembly:
    lines = [NOWHERE, more, "plugins:"]
    for number, hook in enumerate(hooks):
        rule = rules[number] if rules else ""
        lines.append(f"  - {write_plugin(folder, f'p{number}', hook)}: {{{rule}}}")
    return Assembly(configure(folder, "\n".join(lines)), **options)


def _got(gateway: Assembly, index: int = 0) -> list[Any]:
    """The messages that a plugin has received."""
    return list(getattr(gateway.plugins[index].instance, "got"))  # noqa: B009 - the test's own class


def _names(gateway: Assembly) -> list[str]:
    return [plugin.entry.name for plugin in gateway.plugins]


def _contents(gateway: Assembly) -> dict[str, bytes]:
    """What is in the queue, by recipient."""
    (shard,) = gateway.spool.shards
    copies = dict(shard.query("SELECT copy, content FROM messages", ()))
    return {row.recipient: copies[row.copy] for row in gateway.rows()}


async def test_anybody_may_send_to_what_is_claimed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    hooks = (MARK.format("raise AssertionError"), BOUNCES.format("return None"))
    async with (
        _assembly(tmp_path, *hooks, allow=()) as gateway,
        gateway.client() as client,
    ):
        assert await client.say("MAIL FROM:<a@example.com>") == "250 2.1.0 Ok"
        assert (await client.say("RCPT TO:<b@example.net>")).startswith("550 5.7.1")
        assert await client.say("RCPT TO:<token@own.example>") == "250 2.1.5 Ok"
        assert await client.data(CONTENT) == "250 2.0.0 Ok"
        assert gateway.rows() == []
        (message,) = _got(gateway, 1)
        name = _names(gateway)[1]
    assert b"\tfor <token@own.example>;" in message.content
    assert below_trace(message.content) == CONTENT.replace(
        b"\r\n\r\n", b"\r\nX-Received: yes\r\n\r\n"
    )
    assert message.recipients[0].notes == {"token": "token"}
    assert message.client.helo == "client.example.org"
    lines = [record.getMessage() for record in caplog.records if message.id in record.getMessage()]
    assert f"{message.id}: to=<token@own.example>, received by plugin {name}" in lines
    assert [line for line in lines if "from=<a@example.com>" in line and "nrcpt=1," in line]


async def test_what_is_refused_at_rcpt(tmp_path: Path) -> None:
    more = "limits: {errors: 2}"
    async with (
        _assembly(tmp_path, BOUNCES.format("return None"), more=more) as gateway,
        gateway.client() as client,
    ):
        await client.say("MAIL FROM:<a@example.com>")
        assert await client.say("RCPT TO:<full@own.example>") == "450 4.2.1 Later"
        assert await client.say("RCPT TO:<forged@own.example>") == "550 5.1.1 No such address"
        assert (await client.say("DATA")).startswith("554 5.5.1")
        assert (await client.say("RCPT TO:<forged@own.example>")).startswith("421 4.7.0")
        assert await client.is_closed()
        assert _got(gateway) == []


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("<Postmaster>", "250 2.1.5"),
        ("<>", "550 5.7.1"),
        ("<ä@own.example>", "553 5.6.7"),
        ("<token@own.example> NOTIFY=NEVER", "250 2.1.5"),
        ("<token@own.example> NOTIFY=SOMETIMES", "501 5.5.4"),
    ],
)
async def test_the_address_is_looked_at_as_any_other(
    tmp_path: Path, recipient: str, reply: str
) -> None:
    body = BOUNCES.format("return None")
    async with _assembly(tmp_path, body, allow=()) as gateway, gateway.client() as client:
        await client.say("MAIL FROM:<a@example.com>")
        assert (await client.say(f"RCPT TO:{recipient}")).startswith(reply)
        if reply.startswith("250"):
            assert await client.data(CONTENT) == "250 2.0.0 Ok"
            assert len(_got(gateway)) == 1


async def test_claimed_and_relayed_recipients_of_one_message(tmp_path: Path) -> None:
    hooks = (MARK.format("return None"), BOUNCES.format("return None"))
    recipients = ("b@example.net", "one@own.example", "c@example.net", "two@own.example")
    async with _assembly(tmp_path, *hooks) as gateway:
        reply = await gateway.submit(*recipients)
        assert reply.startswith("250 2.0.0 Ok: queued as ")
        (message,) = _got(gateway, 1)
        assert [one.notes for one in message.recipients] == [{"token": "one"}, {"token": "two"}, {}]
        assert message.headers.get("X-Mark") is None
        assert message.headers.get("X-Seal") is None
        assert b"for <" not in message.content
        contents = _contents(gateway)
        assert set(contents) == {"b@example.net", "c@example.net"}
        for content in contents.values():
            assert b"X-Mark: b@example.net c@example.net\r\n" in content
            assert b"X-Received" not in content
            assert content.startswith(b"X-Seal: yes\r\n")


@pytest.mark.parametrize("refusal", ["Reject('No')", "Tempfail('Later')"])
async def test_nothing_is_received_if_the_relayed_part_is_refused(
    tmp_path: Path, refusal: str
) -> None:
    hooks = (MARK.format(f"return {refusal}"), BOUNCES.format("return None"))
    async with _assembly(tmp_path, *hooks) as gateway:
        reply = await gateway.submit("b@example.net", "token@own.example")
        assert reply.startswith("550" if "Reject" in refusal else "451")
        assert gateway.rows() == []
        assert _got(gateway, 1) == []
        # The claimed part alone is received.
        assert await gateway.submit("token@own.example") == "250 2.0.0 Ok"


async def test_nothing_is_received_if_plugins_broke_the_relayed_part(tmp_path: Path) -> None:
    hooks = (MARK.format("message.sender = 'a b'"), BOUNCES.format("return None"))
    async with _assembly(tmp_path, *hooks) as gateway:
        reply = await gateway.submit("b@example.net", "token@own.example")
        assert reply.startswith("451 4.3.0")
        assert (gateway.rows(), _got(gateway, 1)) == ([], [])


@pytest.mark.parametrize(
    ("answer", "reply"),
    [("Reject('No', 554, '5.7.1')", "554 5.7.1 No"), ("Tempfail('Later')", "451 4.7.1 Later")],
)
async def test_nothing_is_accepted_that_a_plugin_does_not_receive(
    tmp_path: Path, answer: str, reply: str
) -> None:
    hooks = (MARK.format("return None"), BOUNCES.format(f"return {answer}"))
    async with _assembly(tmp_path, *hooks) as gateway:
        assert await gateway.submit("token@own.example") == reply
        assert await gateway.submit("b@example.net", "token@own.example") == reply
        assert gateway.rows() == []
        assert gateway.ingress.accepted == 0
        assert (await gateway.submit("b@example.net")).startswith("250")


@pytest.mark.parametrize("recipients", [("token@own.example",), ("b@example.net", "T@OWN.example")])
@pytest.mark.parametrize(
    ("line", "rules", "held"),
    [
        ("return Quarantine('look')", "", "look"),
        ("raise RuntimeError('broken')", "on_error: quarantine", "failed in receive"),
        ("raise RuntimeError('broken')", "on_error: skip", "failed in receive"),
        ("await asyncio.sleep(60)", "on_error: quarantine, timeout: 100ms", "ran longer"),
    ],
)
async def test_what_a_person_has_to_look_at_is_held_as_it_came(
    tmp_path: Path, recipients: tuple[str, ...], line: str, rules: str, held: str
) -> None:
    hooks = (MARK.format("return None"), BOUNCES.format(line))
    async with _assembly(tmp_path, *hooks, rules=("", rules)) as gateway:
        reply = await gateway.submit(*recipients)
        assert reply.startswith("250 2.0.0 Ok: queued as ")
        rows = {row.recipient: row for row in gateway.rows()}
        assert set(rows) == set(recipients)
        assert {row.id for row in rows.values()} == {reply.split()[-1]}
        row = rows[recipients[-1]]
        assert row.state == "held"
        assert held in (row.held or "")
        content = _contents(gateway)[recipients[-1]]
        assert below_trace(content) == CONTENT


async def test_a_plugin_that_fails_keeps_the_message_with_the_client(tmp_path: Path) -> None:
    async with _assembly(tmp_path, BOUNCES.format("raise RuntimeError('broken')")) as gateway:
        reply = await gateway.submit("b@example.net", "token@own.example")
        assert reply.startswith("451 4.3.0")
        assert gateway.rows() == []


@pytest.mark.parametrize("rules", ["on_error: tempfail", "on_error: quarantine", "on_error: skip"])
async def test_a_claim_that_fails(tmp_path: Path, rules: str) -> None:
    body = "@hookimpl\ndef claim(self, recipient):\n    raise RuntimeError('broken')\n"
    body += "@hookimpl\ndef receive(self, message):\n    return None"
    async with (
        _assembly(tmp_path, body, rules=(rules,)) as gateway,
        gateway.client() as client,
    ):
        await client.say("MAIL FROM:<a@example.com>")
        reply = await client.say("RCPT TO:<b@example.net>")
        assert reply.startswith("250" if "skip" in rules else "451 4.3.0")


async def test_two_plugins_that_receive(tmp_path: Path) -> None:
    second = BOUNCES.replace("own.example", "other.example").format("return Site.answer")
    hooks = (BOUNCES.format("return None"), f"answer = Tempfail('Later')\n{second}")
    async with _assembly(tmp_path, *hooks) as gateway:
        recipients = ("one@own.example", "two@other.example", "b@example.net")
        assert await gateway.submit(*recipients) == "451 4.7.1 Later"
        assert gateway.rows() == []
        type(gateway.plugins[1].instance).answer = None  # type: ignore[attr-defined]
        assert (await gateway.submit(*recipients)).startswith("250 2.0.0 Ok: queued as")
        # What the first received before comes to it again; nothing is lost.
        for index, address in enumerate(("ONE@OWN.EXAMPLE", "TWO@OTHER.EXAMPLE")):
            messages = _got(gateway, index)
            assert len(messages) == 2
            assert messages[1].recipients[0].address == address
        assert [row.recipient for row in gateway.rows()] == ["b@example.net"]


async def test_a_disk_that_fails_keeps_the_message_with_the_client(tmp_path: Path) -> None:
    async with (
        _assembly(tmp_path, BOUNCES.format("return None")) as gateway,
        gateway.client() as client,
    ):
        (shard,) = gateway.spool.shards
        await client.begin()
        assert (await client.say("RCPT TO:<token@own.example>")).startswith("250")
        assert shard._db is not None
        shard._db.pragma("query_only", True)
        assert (await client.data(CONTENT)).startswith("451 4.3.0")


async def test_limits_count_for_what_is_claimed(tmp_path: Path) -> None:
    more = "limits: {recipients: 2, hops: 3, message_size: 1000}"
    async with (
        _assembly(tmp_path, BOUNCES.format("return None"), more=more, allow=()) as gateway,
        gateway.client() as client,
    ):
        for content, reply in (
            (b"Received: by x\r\n" * 3 + CONTENT, "554 5.4.6"),
            (b"Subject: x\r\n\r\nbare\nLF\r\n", "550 5.6.0"),
            (b"Subject: x\r\n\r\n" + b"x" * 990 + b"\r\n", "552 5.3.4"),
            (b"Received: by x\r\n" * 2 + CONTENT, "250 2.0.0 Ok"),
        ):
            await client.say("MAIL FROM:<a@example.com>")
            for local, answer in (("a", "250"), ("b", "250"), ("c", "452 4.5.3")):
                assert (await client.say(f"RCPT TO:<{local}@own.example>")).startswith(answer)
            assert (await client.data(content)).startswith(reply)
        (message,) = _got(gateway)
        assert [one.notes.get("token") for one in message.recipients[:2]] == ["a", "b"]


async def test_a_chunked_message_is_received(tmp_path: Path) -> None:
    async with (
        _assembly(tmp_path, BOUNCES.format("return None"), allow=()) as gateway,
        gateway.client() as client,
    ):
        await client.say("MAIL FROM:<a@example.com>")
        await client.say("RCPT TO:<token@own.example>")
        client.send(f"BDAT {len(CONTENT)} LAST\r\n".encode() + CONTENT)
        assert await client.reply() == "250 2.0.0 Ok"
        assert len(_got(gateway)) == 1


@pytest.mark.parametrize("answer", ["Discard('no thanks')", "Quarantine('odd sender')"])
async def test_what_mail_said_counts_for_all_recipients(tmp_path: Path, answer: str) -> None:
    body = f"""
@hookimpl
def mail(self, message):
    return {answer}
@hookimpl
def observe(self, events):
    pass
"""
    hooks = (body, BOUNCES.format("return None"))
    recipients = ["b@example.net", "token@own.example"]
    async with _assembly(tmp_path, *hooks) as gateway:
        assert (await gateway.submit(*recipients)).startswith("250 2.0.0 Ok: queued as")
        assert _got(gateway, 1) == []
        kinds = {(event.type, event.recipient) for event in gateway.events()}
        if "Discard" in answer:
            assert kinds == {("discarded", recipient) for recipient in recipients}
            assert gateway.rows() == []
        else:
            assert {("held", recipient) for recipient in recipients} <= kinds
            assert [row.held for row in gateway.rows()] == ["odd sender"] * 2


async def test_a_condition_is_asked_when_the_address_is_claimed(tmp_path: Path) -> None:
    body = BOUNCES.format("return None")
    rules = ("when: {client: 192.0.2.0/24}",)
    async with (
        _assembly(tmp_path, body, rules=rules, allow=()) as gateway,
        gateway.client() as client,
    ):
        await client.say("MAIL FROM:<a@example.com>")
        assert (await client.say("RCPT TO:<token@own.example>")).startswith("550 5.7.1")
