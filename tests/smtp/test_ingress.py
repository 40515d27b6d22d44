"""From the last byte of a message to its place on disk: checks, chain, streams, replies."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from gateway.testing import NextHop
from tests.assembly import Assembly, below_trace, configure, until, write_plugin

NOWHERE = "relay: {via: ['127.0.0.1:1']}"


def _assembly(folder: Path, *hooks: str, more: str = "", rules: str = "") -> Assembly:
    lines = [NOWHERE, more, "plugins:"]
    for number, hook in enumerate(hooks):
        lines.append(f"  - {write_plugin(folder, f'p{number}', hook)}: {{{rules}}}")
    return Assembly(configure(folder, "\n".join(lines)))


def _contents(gateway: Assembly) -> list[bytes]:
    (shard,) = gateway.spool.shards
    rows = shard.query("SELECT content FROM messages ORDER BY copy", ())
    return [content for (content,) in rows]


def _message_hook(line: str) -> str:
    return f"@hookimpl\ndef message(self, message):\n    {line}"


async def test_the_trace_field_names_a_single_recipient(tmp_path: Path) -> None:
    async with _assembly(tmp_path) as gateway:
        await gateway.submit("b@example.net")
        await gateway.submit("b@example.net", "c@example.net")
        one, two = _contents(gateway)
        assert b"\r\n\tfor <b@example.net>;" in one
        assert b"for <" not in two
        assert below_trace(one) == below_trace(two) == b"Subject: test\r\n\r\nHello\r\n"


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("return Reject('No spam', 554, '5.7.1')", "554 5.7.1 No spam"),
        ("return Tempfail('Later', 452, '4.2.2')", "452 4.2.2 Later"),
        ("raise RuntimeError", "451 4.3.0"),
        ("message.body = b'bare\\nLF\\r\\n'", "451 4.3.0"),
        ("message.body = b'x' * 999 + b'\\r\\n'", "451 4.3.0"),
        ("message.recipients[0].address = 'b c@example.net'", "451 4.3.0"),
        ("message.recipients[0].address = 'b@example.net> NOTIFY=NEVER'", "451 4.3.0"),
        ("message.recipients[0].address = ''", "451 4.3.0"),
        ("message.recipients[0].address = 'postmaster'", "451 4.3.0"),
        ("message.sender = 'no address'", "451 4.3.0"),
        ("message.sender = ''", "250 2.0.0"),
        ("message.headers.add('X', 'y')", "250 2.0.0"),
        ("return Discard('unwanted')", "250 2.0.0"),
        ("message.remove_recipient(message.recipients[0])", "250 2.0.0"),
        ("return Quarantine('look')", "250 2.0.0"),
        ("return Delay(5)", "250 2.0.0"),
    ],
)
async def test_what_a_plugin_does_is_what_the_client_hears(
    tmp_path: Path, line: str, reply: str
) -> None:
    async with _assembly(tmp_path, _message_hook(line)) as gateway:
        assert (await gateway.submit("b@example.net")).startswith(reply)
        accepted = reply.startswith("250") and "Discard" not in line and "remove" not in line
        assert len(gateway.rows()) == accepted
        # Whatever it was, the session and the gateway go on.
        assert (await gateway.submit("b@example.net")).startswith(reply)


async def test_a_recipient_knows_its_message_up_to_the_queue(tmp_path: Path) -> None:
    body = f"""
{_message_hook("assert message.recipients[0].message is message")}
@hookimpl
def admit(self, delivery):
    assert delivery.recipients[0].message is None
    return Quarantine("as it should")
"""
    async with _assembly(tmp_path, body) as gateway:
        assert (await gateway.submit("b@example.net")).startswith("250")
        await until(lambda: [row.held for row in gateway.rows()] == ["as it should"], "the hook")


async def test_a_plugin_may_see_a_quoted_address(tmp_path: Path) -> None:
    async with _assembly(tmp_path, _message_hook("pass")) as gateway:
        assert (await gateway.submit('"b <c>"@example.net')).startswith("250")
        (row,) = gateway.rows()
        assert row.recipient == '"b <c>"@example.net'


@pytest.mark.parametrize("hook", ["mail", "rcpt"])
async def test_an_address_that_an_early_hook_breaks(tmp_path: Path, hook: str) -> None:
    subject = {"mail": "message", "rcpt": "recipient"}[hook]
    what = {"mail": "message.sender", "rcpt": "recipient.address"}[hook]
    body = f"@hookimpl\ndef {hook}(self, {subject}):\n    {what} = 'a b@example.com'"
    async with _assembly(tmp_path, body) as gateway:
        async with gateway.client() as client:
            replies = [
                await client.say(line)
                for line in ("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>")
            ]
            assert replies[hook == "rcpt"].startswith("451 4.3.0")
        assert gateway.rows() == []


async def test_seal_is_on_top_and_the_rest_as_it_came(tmp_path: Path) -> None:
    seal = "@hookimpl\ndef seal(self, message):\n    message.headers.prepend('X-Seal', 'yes')"
    content = b"Subject:  odd   spaces \r\nX: =?utf-8?q?a?=\r\n\tb\r\n\r\n\x80\xff .\r\n"
    async with _assembly(tmp_path, seal) as gateway:
        await gateway.submit("b@example.net", content=content)
        (stored,) = _contents(gateway)
        assert stored.startswith(b"X-Seal: yes\r\nReceived: from client.example.org")
        assert below_trace(stored.removeprefix(b"X-Seal: yes\r\n")) == content


async def test_copies_for_recipients(tmp_path: Path) -> None:
    hook = "per_recipient = True\n" + _message_hook(
        "message.headers.add('X-For', message.recipients[0].address)"
    )
    async with _assembly(tmp_path, hook) as gateway:
        reply = await gateway.submit("b@example.net", "c@example.net")
        rows = gateway.rows()
        assert {row.id for row in rows} == {reply.split()[-1]}
        assert len({row.copy for row in rows}) == 2
        found = [
            content.partition(b"X-For: ")[2].partition(b"\r")[0] for content in _contents(gateway)
        ]
        assert found == [b"b@example.net", b"c@example.net"]


async def test_the_first_stream_that_matches_is_taken(tmp_path: Path) -> None:
    more = """
streams:
  bulk: {when: {header: {Precedence: bulk}}, priority: low}
  shop: {when: {sender: 'shop@*'}, priority: high}
"""
    body = """
@hookimpl
def mail(self, message):
    if message.sender == "own@example.com":
        message.stream = "own"
"""
    bulk = b"Precedence: bulk\r\n\r\n"
    async with _assembly(tmp_path, body, more=more) as gateway:
        for sender, content, stream, priority in (
            ("a@example.com", b"", "default", 1),
            ("a@example.com", bulk, "bulk", 0),
            ("shop@example.com", b"", "shop", 2),
            ("shop@example.com", bulk, "bulk", 0),
            ("own@example.com", bulk, "own", 1),
        ):
            reply = await gateway.submit("b@example.net", sender=sender, content=content)
            (row,) = gateway.rows(ids=(reply.split()[-1],))
            assert (row.stream, row.priority) == (stream, priority)


# When mail is to go out.


def _dated(header: str) -> bytes:
    """A header with `@60` as the time in a minute, and `#60` as the same in the other form."""

    def moment(match: re.Match[str]) -> str:
        moment = datetime.now(UTC) + timedelta(seconds=int(match[2]))
        return moment.isoformat() if match[1] == "@" else format_datetime(moment)

    return re.sub(r"([@#])(-?\d+)", moment, header).encode()


@pytest.mark.parametrize(
    ("header", "mail", "seconds"),
    [
        ("", "", 0),
        ("X-Deliver-At: @3600\r\n", "", 3600),
        ("x-deliver-at:\r\n\t@3600\r\n", "", 3600),
        ("X-Deliver-At: #86400\r\n", "", 86400),
        ("X-Deliver-At: @-60\r\n", "", 0),
        ("X-Deliver-At: @3600\r\n", " HOLDFOR=7200", 7200),
        ("X-Deliver-At: @7200\r\n", " HOLDFOR=3600", 7200),
        ("X-Deliver-At: @-60\r\n", " HOLDFOR=3600", 3600),
        ("X-Deliver-Attempt: @3600\r\n", "", 0),
    ],
)
async def test_a_header_field_says_when_mail_is_to_go(
    tmp_path: Path, header: str, mail: str, seconds: int
) -> None:
    hook = _message_hook("return Reject(str(message.release), 554, '5.7.1')")
    async with _assembly(tmp_path, hook) as gateway:
        content = _dated(f"{header}Subject: x\r\n\r\n")
        reply = await gateway.submit("b@example.net", content=content, mail=mail)
        release = float(reply.removeprefix("554 5.7.1 "))
        expected = time.time() + seconds if seconds else 0.0
        assert abs(release - expected) < 90


@pytest.mark.parametrize(
    ("header", "reply"),
    [
        ("X-Deliver-At: tomorrow\r\n", "550 5.6.0 X-Deliver-At: expected a date such as Thu, 31 "),
        ("X-Deliver-At:\r\n", "550 5.6.0 X-Deliver-At: expected a date"),
        ("X-Deliver-At: =?utf-8?q?2030?=\r\n", "550 5.6.0 X-Deliver-At: expected a date"),
        ("X-Deliver-At: @90000\r\n", "550 5.6.0 X-Deliver-At: mail is kept until 20"),
        (
            "X-Deliver-At: @60\r\nX-Deliver-At: @120\r\n",
            "550 5.6.0 X-Deliver-At: the field comes 2 times",
        ),
    ],
)
async def test_mail_that_was_to_go_at_a_time_does_not_go_at_once(
    tmp_path: Path, header: str, reply: str
) -> None:
    async with _assembly(tmp_path, more="limits: {hold: 1d}") as gateway:
        content = _dated(f"{header}Subject: x\r\n\r\n")
        assert (await gateway.submit("b@example.net", content=content)).startswith(reply)
        assert gateway.rows() == []


async def test_no_header_field_says_when_mail_is_to_go(tmp_path: Path) -> None:
    content = _dated("X-Deliver-At: @60\r\n\r\n")
    hook = _message_hook("return Reject(str(message.release), 554, '5.7.1')")
    for value in ("null", ""):
        async with _assembly(tmp_path, hook, more=f"release_header: {value}") as gateway:
            assert gateway.config.release_header is None
            reply = await gateway.submit("b@example.net", content=content)
            assert reply == "554 5.7.1 0.0"
    async with _assembly(tmp_path, more="limits: {hold: null}") as gateway:
        reply = await gateway.submit("b@example.net", content=content)
        assert reply == "550 5.6.0 X-Deliver-At: mail is not kept for later here"


async def test_the_field_stays_in_the_message(tmp_path: Path) -> None:
    async with _assembly(tmp_path, more="release_header: X-Later") as gateway:
        content = _dated("X-Later:  @3600 \r\nSubject: x\r\n\r\n")
        await gateway.submit("b@example.net", content=content)
        (stored,) = _contents(gateway)
        assert below_trace(stored) == content


async def test_many_lines_are_no_loop(tmp_path: Path) -> None:
    async with _assembly(tmp_path, more="limits: {hops: 5}") as gateway:
        lines = b"X: y\r\n" * 20 + b"Subject: x\r\n\r\n"
        hop = b"Received: from x\r\n\tby y; Mon, 18 Mar 2030 09:00:00 +0900\r\n"
        assert (await gateway.submit("b@example.net", content=hop * 4 + lines)).startswith("250")
        reply = await gateway.submit("b@example.net", content=hop * 5 + lines)
        assert reply.startswith("554 5.4.6")
        assert (await gateway.submit("b@example.net", content=b"Received:\r\n" * 5)).startswith(
            "554"
        )


async def test_the_original_recipient_is_in_the_queue(tmp_path: Path) -> None:
    hooks = (
        "@hookimpl\ndef rcpt(self, recipient):\n"
        "    if recipient.address.startswith('b'):\n        recipient.address = 'x@example.net'",
        _message_hook("message.recipients[-1].address = 'y@example.net'"),
        "@hookimpl\ndef admit(self, delivery):\n    return Quarantine(' '.join(sorted("
        "one.address + '=' + str(one.orcpt) for one in delivery.recipients)))",
    )
    async with _assembly(tmp_path, *hooks) as gateway:
        await gateway.submit("b@example.net", "c@example.net", "d@example.net")
        rows = await until(lambda: [row.held for row in gateway.rows() if row.held], "the hook")
        assert set(rows) == {
            "c@example.net=None x@example.net=rfc822;b@example.net"
            " y@example.net=rfc822;d@example.net"
        }


async def test_quarantine_and_discard_at_mail(tmp_path: Path) -> None:
    body = """
@hookimpl
def mail(self, message):
    if message.sender.startswith("hold"):
        return Quarantine("odd sender")
    if message.sender.startswith("drop"):
        return Discard("no thanks")
@hookimpl
def observe(self, events):
    pass
"""
    async with _assembly(tmp_path, body) as gateway:
        await gateway.submit("b@example.net", sender="hold@example.com")
        await gateway.submit("b@example.net", "c@example.net", sender="drop@example.com")
        (row,) = gateway.rows()
        assert (row.state, row.held) == ("held", "odd sender")
        events = [(event.type, event.recipient, event.reason) for event in gateway.events()]
        assert events == [
            ("accepted", "b@example.net", ""),
            ("held", "b@example.net", "odd sender"),
            ("discarded", "b@example.net", "no thanks"),
            ("discarded", "c@example.net", "no thanks"),
        ]


async def test_a_rcpt_hook_that_fails_with_quarantine_holds_the_message(tmp_path: Path) -> None:
    body = "@hookimpl\ndef rcpt(self, recipient):\n    raise RuntimeError('broken')"
    async with _assembly(tmp_path, body, rules="on_error: quarantine") as gateway:
        assert (await gateway.submit("b@example.net")).startswith("250")
        (row,) = gateway.rows()
        assert (row.held or "").startswith("plugin p0 failed in rcpt")


async def test_what_cannot_be_stored_is_not_accepted(tmp_path: Path) -> None:
    async with _assembly(tmp_path) as gateway:
        (shard,) = gateway.spool.shards
        async with gateway.client() as client:
            await client.begin()
            assert shard._db is not None
            shard._db.pragma("query_only", True)
            assert (await client.data(b"Subject: x\r\n\r\n")).startswith("451 4.3.0")
            assert (await client.say("MAIL FROM:<a@example.com>")).startswith("451 4.3.0")
            await until(lambda: shard.failure is None, "the shard to work again")
            await client.begin()
            assert (await client.data(b"Subject: x\r\n\r\n")).startswith("250")
        assert len(gateway.rows()) == 1


async def test_a_database_that_is_deleted_costs_no_mail(tmp_path: Path) -> None:
    async with _assembly(tmp_path) as gateway:
        await gateway.submit("first@example.net")
        (shard,) = gateway.spool.shards
        async with gateway.client() as client:
            await client.begin("second@example.net")
            for path in (tmp_path / "spool").glob("0001.*"):
                path.unlink()
            assert (await client.data(b"Subject: x\r\n\r\n")).startswith("451 4.3.0")
            await until(lambda: shard.failure is None, "the shard to work again")
            await client.begin("second@example.net")
            assert (await client.data(b"Subject: x\r\n\r\n")).startswith("250")
        assert [row.recipient for row in gateway.rows()] == [
            "first@example.net",
            "second@example.net",
        ]


async def test_a_disk_without_room(tmp_path: Path) -> None:
    async with _assembly(tmp_path) as gateway, gateway.client() as client:
        gateway.spool._reserve = 1 << 60
        assert (await client.say("MAIL FROM:<a@example.com>")).startswith("452 4.3.1")
        gateway.spool._reserve = 0
        assert (await client.say("MAIL FROM:<a@example.com>")).startswith("250")


async def test_a_plugin_that_holds_up_one_message_holds_up_no_other(tmp_path: Path) -> None:
    body = """
@hookimpl
async def message(self, message):
    if message.headers.get("Subject") == "slow":
        await asyncio.sleep(60)
"""
    async with NextHop() as hop:
        path = write_plugin(tmp_path, "slow", body)
        config = configure(tmp_path, f"relay: {{via: ['{hop.address}']}}\nplugins: [{path}]")
        async with Assembly(config) as gateway, gateway.client() as slow:
            await slow.begin()
            await slow.say("DATA")
            slow.send(b"Subject: slow\r\n\r\n.\r\n")
            for _ in range(3):
                assert (await gateway.submit("b@example.net")).startswith("250")
            await hop.wait(3)
