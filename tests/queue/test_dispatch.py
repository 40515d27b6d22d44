"""From the spool to the next hop and back: attempts, retries, reports, windows, hands."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import apsw
import pytest

from gateway.process.control import ControlError
from gateway.queue.administration import change
from gateway.queue.lane import Bounds
from gateway.queue.schedule import RetryPolicy
from gateway.queue.selection import Selection
from gateway.spool import queue_id
from gateway.testing import Drop, Hang, NextHop, Wait
from gateway.testing.nexthop import Answer, Script
from tests.assembly import Assembly, below_trace, configure, until, write_plugin

SOON = RetryPolicy((0.05,), 0.0, 3600.0)
AT_ONCE_OVER = RetryPolicy((60.0,), 0.0, 0.001)
SMALL = Bounds(runners_per_lane=2, window=4, memory=12, runners=20)


def _assembly(folder: Path, hop: NextHop | str, text: str = "", **options: object) -> Assembly:
    via = hop if isinstance(hop, str) else hop.address
    config = configure(folder, f"relay: {{via: ['{via}'], idle: 1s}}\n{text}")
    return Assembly(config, **options)  # type: ignore[arg-type]


async def _empty(gateway: Assembly) -> None:
    await until(lambda: not gateway.rows(), "the queue to be empty")


def _report(content: bytes) -> EmailMessage:
    report = message_from_bytes(content, policy=policy.default)
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    return report


def _fields(report: EmailMessage) -> str:
    """The machine-readable part (RFC 3464)."""
    _, status, _ = report.iter_parts()
    assert status.get_content_type() == "message/delivery-status"
    return "\n".join(str(part) for part in status.get_payload())


# Attempts wait here until the test opens it.
GATE = """
@hookimpl
async def route(self, delivery):
    while not (Path(__file__).parent / "open").exists():
        await asyncio.sleep(0.005)
"""


# Attempts and their outcomes.


async def test_what_is_delivered_leaves_nothing_behind(tmp_path: Path) -> None:
    async with NextHop() as hop, _assembly(tmp_path, hop) as gateway:
        reply = await gateway.submit("b@example.net", "c@example.org")
        (message,) = await hop.wait(1)
        assert message.sender == "a@example.com"
        assert [address for address, _ in message.recipients] == ["b@example.net", "c@example.org"]
        assert below_trace(message.content) == b"Subject: test\r\n\r\nHello\r\n"
        assert f"id {reply.split()[-1]}" in message.content.decode()
        await _empty(gateway)
        (shard,) = gateway.spool.shards
        await until(shard.is_empty, "the shard to be empty")
        assert gateway.settler.delivered == 2


async def test_what_is_deferred_is_tried_again(tmp_path: Path) -> None:
    later = "451 4.3.0 Later"
    async with (
        NextHop(dot=[later, later, "250 2.0.0 Ok"]) as hop,
        _assembly(tmp_path, hop, retry=SOON) as gateway,
    ):
        await gateway.submit("b@example.net")
        await hop.wait(3)
        await _empty(gateway)
        assert len({message.content for message in hop.messages}) == 1
        assert gateway.settler.deferred == 2
        assert gateway.settler.failed == 0


async def test_the_schedule_counts_from_the_attempt(tmp_path: Path) -> None:
    retry = RetryPolicy((100.0, 200.0), 0.0, 3600.0)
    async with (
        NextHop(dot="451 4.3.0 Later") as hop,
        _assembly(tmp_path, hop, retry=retry) as gateway,
    ):
        await gateway.submit("b@example.net")
        (row,) = await until(lambda: gateway.rows(state="deferred"), "the deferral")
        assert row.attempts == 1
        assert row.reply == "451 4.3.0 Later"
        assert row.due == pytest.approx(time.time() + 100, abs=30)


async def test_a_refusal_is_reported_to_the_sender(tmp_path: Path) -> None:
    async with (
        NextHop(rcpt={"b@*": "550 5.1.1 No such user"}) as hop,
        _assembly(tmp_path, hop) as gateway,
    ):
        await gateway.submit("b@example.net", mail=" ENVID=q+2B RET=HDRS")
        (message,) = await hop.wait(1)
        assert message.sender == ""
        assert message.recipients == (("a@example.com", ("NOTIFY=NEVER",)),)
        fields = _fields(_report(message.content))
        for line in (
            "Reporting-MTA: dns; gw.example.com",
            "Original-Envelope-Id: q+",
            "Final-Recipient: rfc822; b@example.net",
            "Action: failed",
            "Status: 5.1.1",
        ):
            assert line in fields
        assert "550 5.1.1 No such user" in fields
        await _empty(gateway)


async def test_each_recipient_has_an_outcome_of_its_own(tmp_path: Path) -> None:
    answers: dict[str, Script] = {
        "ok@*": "250 2.1.5 Ok",
        "gone@*": "550 5.1.1 Gone",
        "silent@*": "550 5.1.1 Gone",
        "full@*": ["452 4.2.2 Full", "250 2.1.5 Ok"],
    }
    async with NextHop(rcpt=answers) as hop, _assembly(tmp_path, hop, retry=SOON) as gateway:
        async with gateway.client() as client:
            await client.say("MAIL FROM:<a@example.com>")
            for address in ("ok@x.example", "gone@x.example", "full@x.example"):
                await client.say(f"RCPT TO:<{address}>")
            await client.say("RCPT TO:<silent@x.example> NOTIFY=NEVER")
            assert (await client.data(b"Subject: x\r\n\r\n")).startswith("250")
        messages = await hop.wait(3)
        await _empty(gateway)
        sent = [address for m in messages if m.sender for address, _ in m.recipients]
        assert sorted(sent) == ["full@x.example", "ok@x.example"]
        (report,) = [m.content for m in messages if not m.sender]
        assert "gone@x.example" in _fields(_report(report))
        assert "silent@x.example" not in _fields(_report(report))


async def test_mail_without_a_sender_is_never_reported(tmp_path: Path) -> None:
    async with NextHop(rcpt="550 5.1.1 No") as hop, _assembly(tmp_path, hop) as gateway:
        await gateway.submit("b@example.net", sender="")
        await until(lambda: gateway.settler.failed == 1, "the refusal")
        await _empty(gateway)
        assert hop.messages == []


async def test_at_the_end_of_its_lifetime_mail_is_given_up(tmp_path: Path) -> None:
    async with (
        NextHop(rcpt={"b@*": "450 4.2.1 Later", "*": "250 Ok"}) as hop,
        _assembly(tmp_path, hop, retry=AT_ONCE_OVER) as gateway,
    ):
        await gateway.submit("b@example.net")
        (message,) = await hop.wait(1)
        fields = _fields(_report(message.content))
        assert "Action: failed" in fields
        assert "Status: 4.4.7" in fields or "Status: 4.2.1" in fields
        await _empty(gateway)


async def test_success_is_reported_where_the_next_hop_does_not(tmp_path: Path) -> None:
    async with NextHop(extensions=("PIPELINING",)) as hop, _assembly(tmp_path, hop) as gateway:
        await gateway.submit("b@example.net", rcpt=" NOTIFY=SUCCESS")
        messages = await hop.wait(2)
        assert "Action: relayed" in _fields(_report(messages[1].content))
        await _empty(gateway)


async def test_a_server_that_takes_few_recipients_gets_them_in_parts(tmp_path: Path) -> None:
    answers: list[Answer] = [
        "250 Ok",
        "250 Ok",
        "452 4.5.3 Too many",
        "452 4.5.3 Too many",
        "250 Ok",
    ]
    async with NextHop(rcpt=answers) as hop, _assembly(tmp_path, hop) as gateway:
        await gateway.submit(*(f"{n}@example.net" for n in range(4)))
        messages = await hop.wait(2)
        await _empty(gateway)
        addresses = [address for message in messages for address, _ in message.recipients]
        assert addresses == [f"{n}@example.net" for n in range(4)]


async def test_many_recipients_go_in_transactions_of_a_hundred(tmp_path: Path) -> None:
    async with NextHop() as hop, _assembly(tmp_path, hop) as gateway:
        await gateway.submit(*(f"{n}@example.net" for n in range(250)))
        messages = await hop.wait(3)
        await _empty(gateway)
        assert sorted(len(message.recipients) for message in messages) == [50, 100, 100]
        addresses = {address for message in messages for address, _ in message.recipients}
        assert len(addresses) == 250


# Hooks.


async def test_mail_that_a_hook_delays_for_ever_is_given_up_in_the_end(tmp_path: Path) -> None:
    body = """
@hookimpl
def admit(self, delivery):
    return Delay(0.05, "not today") if delivery.sender else None
"""
    text = f"retry: {{lifetime: 1s}}\nplugins: [{write_plugin(tmp_path, 'site', body)}]"
    async with NextHop() as hop, _assembly(tmp_path, hop, text) as gateway:
        await gateway.submit("b@example.net", sender="a@example.com")
        (report,) = await hop.wait(1)
        await _empty(gateway)
    assert (report.sender, [address for address, _ in report.recipients]) == ("", ["a@example.com"])
    assert b"Final-Recipient: rfc822; b@example.net" in report.content
    assert b"Status: 4.4.7" in report.content


async def test_what_hooks_say_before_and_after_an_attempt(tmp_path: Path) -> None:
    async with NextHop() as hop, NextHop(dot="450 4.9.9 Never ends") as other:
        body = f"""
@hookimpl
async def route(self, delivery):
    name = delivery.recipients[0].address
    if name.startswith("refused"):
        return Reject("No way")
    if name.startswith("elsewhere"):
        return Route((Hop.parse("{other.address}"),), "other")
@hookimpl
def admit(self, delivery):
    name = delivery.recipients[0].address
    if name.startswith("later"):
        return Delay(100, "not so fast")
    if name.startswith("odd"):
        return Quarantine("odd")
    if name.startswith("broken"):
        raise RuntimeError("broken")
@hookimpl
def source(self, delivery):
    return Source("127.0.0.1", "source.example.com")
@hookimpl
def reply(self, attempt):
    if attempt.outcome.status == "4.9.9":
        return Outcome(Disposition.FAILED, 550, "5.9.9", "given up", "dot")
"""
        text = f"plugins: [{write_plugin(tmp_path, 'site', body)}]"
        async with _assembly(tmp_path, hop, text) as gateway:
            names = ("refused", "elsewhere", "later", "odd", "broken", "plain")
            for name in names:
                await gateway.submit(f"{name}@example.net", sender=f"from-{name}@example.com")
            messages = await hop.wait(3)
            by_recipient = {message.recipients[0][0]: message for message in messages}
            assert set(by_recipient) == {
                "from-refused@example.com",
                "from-elsewhere@example.com",
                "plain@example.net",
            }
            assert by_recipient["plain@example.net"].helo == "source.example.com"
            refused = _fields(_report(by_recipient["from-refused@example.com"].content))
            assert "No way" in refused
            elsewhere = _fields(_report(by_recipient["from-elsewhere@example.com"].content))
            assert "Status: 5.9.9" in elsewhere

            def waiting() -> dict[str, str]:
                return {row.recipient.split("@")[0]: row.state for row in gateway.rows()}

            expected = {"later": "deferred", "odd": "held", "broken": "deferred"}
            await until(lambda: waiting() == expected, "the others to wait")
            rows = {row.recipient.split("@")[0]: row for row in gateway.rows()}
            assert rows["later"].reply == "not so fast"
            assert rows["later"].attempts == 0
            assert rows["odd"].held == "odd"
            assert "plugin site failed in admit" in rows["broken"].reply


async def test_held_and_delayed_mail_waits(tmp_path: Path) -> None:
    body = """
@hookimpl
def message(self, message):
    subject = message.headers.get("Subject")
    if subject == "hold":
        return Quarantine("suspicious")
    if subject == "delay":
        return Delay(0.2)
    if subject == "long":
        return Delay(100)
    if subject == "discard":
        return Discard("unwanted")
@hookimpl
def observe(self, events):
    pass
"""
    text = f"plugins: [{write_plugin(tmp_path, 'site', body)}]"
    async with NextHop() as hop, _assembly(tmp_path, hop, text) as gateway:
        ids = {}
        for subject in ("hold", "delay", "long", "discard"):
            content = f"Subject: {subject}\r\n\r\n".encode()
            reply = await gateway.submit("b@example.net", content=content)
            ids[subject] = reply.split()[-1]
        (message,) = await hop.wait(1)
        assert b"Subject: delay" in message.content
        await until(lambda: len(gateway.rows()) == 2, "the others to wait")
        states = {row.id: (row.state, row.held) for row in gateway.rows()}
        assert states == {ids["hold"]: ("held", "suspicious"), ids["long"]: ("scheduled", None)}
        types = Counter(event.type for event in gateway.events())
        assert types == {"accepted": 3, "held": 1, "discarded": 1, "delivered": 1}


# Priorities, windows, lanes.


async def test_mail_of_a_higher_priority_is_delivered_first(tmp_path: Path) -> None:
    text = "streams: {bulk: {when: {sender: 'bulk@*'}, priority: low}}\n"
    text += f"plugins: [{write_plugin(tmp_path, 'gate', GATE)}]"
    bounds = Bounds(runners_per_lane=1)
    async with NextHop() as hop, _assembly(tmp_path, hop, text, bounds=bounds) as gateway:
        await gateway.submit("first@example.net")
        for number in range(20):
            await gateway.submit(f"{number}@example.net", sender="bulk@example.com")
        for number in range(6):
            await gateway.submit(f"fast{number}@example.net")
        (tmp_path / "open").touch()
        messages = await hop.wait(27)
        order = [message.recipients[0][0] for message in messages[1:]]
        places = [place for place, address in enumerate(order) if "fast" in address]
        # One turn of eight goes to low mail first.
        assert places[-1] <= 8
        assert "0@example.net" in order[:10]
        await _empty(gateway)


async def test_what_is_beyond_the_window_waits_on_disk(tmp_path: Path) -> None:
    async with (
        NextHop(mail=[Wait(1.0, "250 Ok"), Wait(1.0, "250 Ok"), "250 Ok"]) as hop,
        _assembly(tmp_path, hop, bounds=SMALL) as gateway,
    ):
        async with gateway.client() as client:
            for number in range(60):
                await client.begin(f"{number}@example.net")
                assert (await client.data(b"Subject: x\r\n\r\n")).startswith("250")
        assert gateway.dispatcher._memory.recipients <= 12
        messages = await hop.wait(60, 60)
        await _empty(gateway)
        found = Counter(message.recipients[0][0] for message in messages)
        assert found == {f"{number}@example.net": 1 for number in range(60)}
        await until(lambda: not gateway.dispatcher._lanes, "no lane to be left")
        await until(lambda: gateway.dispatcher._memory.recipients == 0, "memory to be empty")


async def test_more_recipients_than_the_window(tmp_path: Path) -> None:
    async with NextHop() as hop, _assembly(tmp_path, hop, bounds=SMALL) as gateway:
        await gateway.submit(*(f"{n}@example.net" for n in range(30)))
        await _empty(gateway)
        found = Counter(address for m in hop.messages for address, _ in m.recipients)
        assert found == {f"{n}@example.net": 1 for n in range(30)}


async def test_windows_while_mail_comes_and_is_deferred(tmp_path: Path) -> None:
    answers: list[Answer] = [*["250 Ok", "451 4.3.0 Later"] * 60, "250 Ok"]
    async with (
        NextHop(dot=answers) as hop,
        _assembly(tmp_path, hop, bounds=SMALL, retry=SOON) as gateway,
    ):

        async def send(client_number: int) -> None:
            async with gateway.client() as client:
                for number in range(25):
                    await client.begin(f"{client_number}-{number}@example.net")
                    assert (await client.data(b"Subject: x\r\n\r\n")).startswith("250")

        await asyncio.gather(*(send(number) for number in range(4)))
        await _empty(gateway)
        delivered = {message.recipients[0][0] for message in hop.messages}
        assert len(delivered) == 100
        assert gateway.settler.delivered == 100
        await until(lambda: gateway.dispatcher._memory.recipients == 0, "memory to be empty")


async def test_a_lane_that_does_not_move_delays_no_other(tmp_path: Path) -> None:
    async with NextHop(banner=Hang()) as hole, NextHop() as hop:
        body = f"""
@hookimpl
def route(self, delivery):
    address = "{hole.address}" if delivery.domain == "hole.example" else "{hop.address}"
    return Route((Hop.parse(address),), delivery.domain)
"""
        text = f"plugins: [{write_plugin(tmp_path, 'site', body)}]"
        config = configure(tmp_path, text)
        bounds = Bounds(runners_per_lane=2, window=4, memory=1000, runners=20)
        async with Assembly(config, bounds=bounds) as gateway:
            for number in range(20):
                await gateway.submit(f"{number}@hole.example")
            for number in range(20):
                await gateway.submit(f"{number}@fine{number % 5}.example")
            await hop.wait(20)
            await until(lambda: len(gateway.rows()) == 20, "the others to be settled")
            assert hole.connections == 2


async def test_lanes_that_do_not_move_leave_room_in_memory(tmp_path: Path) -> None:
    async with NextHop(banner=Hang()) as hole, NextHop() as hop:
        body = f"""
@hookimpl
def route(self, delivery):
    address = "{hole.address}" if delivery.domain.startswith("hole") else "{hop.address}"
    return Route((Hop.parse(address),), delivery.domain)
"""
        text = f"plugins: [{write_plugin(tmp_path, 'site', body)}]"
        bounds = Bounds(runners_per_lane=2, window=4, memory=12, share=2, runners=50)
        async with Assembly(configure(tmp_path, text), bounds=bounds) as gateway:
            for number in range(40):
                await gateway.submit(f"{number}@hole{number % 5}.example")
            for number in range(20):
                await gateway.submit(f"{number}@fine{number % 2}.example")
            await hop.wait(20)
            await until(lambda: len(gateway.rows()) == 40, "the others to be settled")


async def test_the_first_of_many_does_not_hold_up_the_rest_after_a_restart(
    tmp_path: Path,
) -> None:
    async with _assembly(tmp_path, "127.0.0.1:1") as gateway:
        for number in range(10):
            await gateway.submit(f"{number}@example.net")
        await until(lambda: len(gateway.rows(state="deferred")) == 10, "all to be deferred")
    await change(gateway.config.spool.path, "retry", Selection())
    async with NextHop(mail=[Hang(), "250 Ok"]) as hop, _assembly(tmp_path, hop) as gateway:
        await hop.wait(9)
        await until(lambda: len(gateway.rows()) == 1, "nine of ten")


async def test_mail_in_memory_survives_a_stop(tmp_path: Path) -> None:
    async with NextHop(banner=Hang()) as hole, _assembly(tmp_path, hole) as gateway:
        for number in range(5):
            await gateway.submit(f"{number}@example.net")
    async with NextHop() as hop, _assembly(tmp_path, hop) as gateway:
        await hop.wait(5)
        await _empty(gateway)


# Damage.


async def test_damaged_mail_is_held_and_not_sent(tmp_path: Path) -> None:
    async with _assembly(tmp_path, "127.0.0.1:1") as gateway:
        await gateway.submit("b@example.net")
        await until(lambda: gateway.rows(state="deferred"), "the deferral")
    with apsw.Connection(str(tmp_path / "spool" / "0001.db")) as db:
        db.execute("UPDATE messages SET content=zeroblob(100)")
    await change(gateway.config.spool.path, "retry", Selection())
    async with NextHop() as hop, _assembly(tmp_path, hop) as gateway:
        (row,) = await until(lambda: gateway.rows(state="held"), "it to be held")
        assert "checksum" in (row.held or "")
        assert hop.messages == []


async def test_a_damaged_row_does_not_stop_the_others(tmp_path: Path) -> None:
    async with _assembly(tmp_path, "127.0.0.1:1") as gateway:
        for number in range(3):
            await gateway.submit(f"{number}@example.net")
        await until(lambda: len(gateway.rows(state="deferred")) == 3, "the deferrals")
    with apsw.Connection(str(tmp_path / "spool" / "0001.db")) as db:
        db.execute("UPDATE messages SET envelope='{' WHERE copy=(SELECT min(copy) FROM messages)")
    await change(gateway.config.spool.path, "retry", Selection())
    async with NextHop() as hop, _assembly(tmp_path, hop) as gateway:
        await hop.wait(2)
        await until(lambda: len(gateway.rows()) == 1, "two of three")


async def test_outcomes_wait_for_the_disk(tmp_path: Path) -> None:
    async with NextHop(dot=Wait(0.3, "250 Ok")) as hop, _assembly(tmp_path, hop) as gateway:
        await gateway.submit("b@example.net")
        (shard,) = gateway.spool.shards
        assert shard._db is not None
        shard._db.pragma("query_only", True)
        await until(lambda: shard.failure, "the failure")
        reply = ""
        async with gateway.client() as client:
            reply = await client.say("MAIL FROM:<a@example.com>")
        assert reply.startswith("451 4.3.0")
        await _empty(gateway)
        assert len(hop.messages) == 1
        assert (await gateway.submit("b@example.net")).startswith("250")
        await _empty(gateway)


# By hand.


async def _by_hand(gateway: Assembly, command: str, **selection: object) -> tuple[int, int]:
    (shard,) = gateway.spool.shards
    asked = {
        "command": "change",
        "shard": shard.number,
        "change": {"name": command, "via": []},
        "keys": [(queue_id.from_text(row.id), row.number) for row in gateway.rows(**selection)],
    }
    done = await gateway.queue.answer(asked)
    return done["changed"], done["busy"]


async def test_changes_by_hand_while_it_runs(tmp_path: Path) -> None:
    async with (
        NextHop(mail=[*["450 4.3.0 Later"] * 3, "250 Ok"]) as hop,
        _assembly(tmp_path, hop) as gateway,
    ):
        for name in ("one", "two", "three"):
            await gateway.submit(f"{name}@example.net")
        await until(lambda: len(gateway.rows(state="deferred")) == 3, "the deferrals")
        assert await _by_hand(gateway, "hold", recipient="one@example.net") == (1, 0)
        assert await _by_hand(gateway, "drop", recipient="two@example.net") == (1, 0)
        assert await _by_hand(gateway, "retry") == (1, 0)
        (message,) = await hop.wait(1)
        assert message.recipients[0][0] == "three@example.net"
        (row,) = await until(lambda: len(rows := gateway.rows()) == 1 and rows, "one")
        assert (row.recipient, row.held) == ("one@example.net", "held by hand")
        assert await _by_hand(gateway, "release") == (1, 0)
        await hop.wait(2)
        await _empty(gateway)


async def test_what_is_being_delivered_is_left_alone(tmp_path: Path) -> None:
    text = f"plugins: [{write_plugin(tmp_path, 'gate', GATE)}]"
    bounds = Bounds(runners_per_lane=1)
    async with NextHop() as hop, _assembly(tmp_path, hop, text, bounds=bounds) as gateway:
        for number in range(5):
            await gateway.submit(f"{number}@example.net")
        assert await _by_hand(gateway, "drop") == (4, 1)
        (tmp_path / "open").touch()
        await _empty(gateway)
        assert len(hop.messages) == 1
        await until(lambda: gateway.dispatcher._memory.recipients == 0, "memory to be empty")


async def test_what_was_dropped_is_not_loaded_again_meanwhile(tmp_path: Path) -> None:
    async with (
        NextHop(dot=Wait(0.02, "250 Ok")) as hop,
        _assembly(tmp_path, hop, bounds=SMALL) as gateway,
    ):
        for number in range(40):
            await gateway.submit(f"{number}@example.net", sender=f"{number % 2}@example.com")
        changed, busy = await _by_hand(gateway, "drop", sender="1@example.com")
        sent = sum(message.sender == "1@example.com" for message in hop.messages)
        await _empty(gateway)
        await until(lambda: not gateway.dispatcher._lanes, "no lane to be left")
        ones = sum(message.sender == "1@example.com" for message in hop.messages)
        assert ones <= sent + busy
        assert ones + changed == 20
        assert len(hop.messages) - ones == 20


async def test_requests_that_make_no_sense(tmp_path: Path) -> None:
    async with _assembly(tmp_path, "127.0.0.1:1") as gateway:
        for asked in (
            {"command": "explode"},
            {"command": "change", "shard": 1, "change": {"name": "paint", "via": []}, "keys": []},
            {"command": "change", "shard": 1, "change": {"colour": "red"}, "keys": []},
            {"command": "change", "shard": 1, "change": {"name": "drop", "via": []}, "keys": ["x"]},
            {"command": "change", "shard": 1},
        ):
            with pytest.raises(ControlError):
                await gateway.queue.answer(asked)
        stats = await gateway.queue.answer({"command": "stats"})
        assert stats["accepted"] == 0
        assert stats["storage"] is None


async def test_a_lost_connection_is_a_deferral(tmp_path: Path) -> None:
    async with (
        NextHop(dot=[Drop(), "250 Ok"]) as hop,
        _assembly(tmp_path, hop, retry=SOON) as gateway,
    ):
        await gateway.submit("b@example.net")
        await hop.wait(2)
        await _empty(gateway)


async def test_events_tell_the_whole_way(tmp_path: Path) -> None:
    body = "@hookimpl\ndef observe(self, events):\n    pass"
    text = f"plugins: [{write_plugin(tmp_path, 'site', body)}]"
    answers: dict[str, Script] = {
        "gone@*": "550 5.1.1 Gone",
        "slow@*": ["450 4.2.0 Wait", "250 Ok"],
    }
    async with (
        NextHop(rcpt=answers) as hop,
        _assembly(tmp_path, hop, text, retry=SOON) as gateway,
    ):
        reply = await gateway.submit("ok@x.example", "gone@x.example", "slow@x.example")
        await hop.wait(3)
        await _empty(gateway)
        identifier = reply.split()[-1]
        ways: dict[str, list[str]] = {}
        for event in gateway.events():
            if event.message_id == identifier:
                ways.setdefault(event.recipient.split("@")[0], []).append(event.type)
        assert ways == {
            "ok": ["accepted", "delivered"],
            "gone": ["accepted", "bounced"],
            "slow": ["accepted", "deferred", "delivered"],
        }
        (bounced,) = [event for event in gateway.events() if event.type == "bounced"]
        assert (bounced.code, bounced.status, bounced.reason) == (550, "5.1.1", "Gone")
        assert re.fullmatch(r"127\.0\.0\.1\[127\.0\.0\.1\]:\d+", bounced.relay)
        assert bounced.client == "127.0.0.1"
