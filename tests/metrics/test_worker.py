"""The numbers of a worker, whose objects run in the test's own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.hooks.breaker import FAULTS
from gateway.metrics.exposition import exposition
from gateway.metrics.worker import WorkerMetrics
from gateway.queue.schedule import RetryPolicy
from gateway.testing import NextHop
from gateway.web.health import Report
from tests.assembly import Assembly, configure, until, write_plugin
from tests.metrics.text import Told

SOON = RetryPolicy((0.05,), 0.0, 3600.0)
AT_ONCE_OVER = RetryPolicy((60.0,), 0.0, 0.001)
BODY = b"Subject: test\r\n\r\nHello\r\n"

# Fails, or answers, as the subject of the message says.
MOODY = """
@hookimpl
async def message(self, message):
    mood = message.headers.get("Subject")
    if mood == "raise":
        raise ValueError("secret")
    if mood == "late":
        await asyncio.sleep(60)
    if mood == "reject":
        return Reject("no")
    if mood == "tempfail":
        return Tempfail("later")

@hookimpl
def rcpt(self, recipient):
    if recipient.address.startswith("later"):
        return Tempfail("later")
    if recipient.address.startswith("never"):
        return Reject("never")
"""


def _assembly(folder: Path, hop: NextHop | None, text: str = "", **options: Any) -> Assembly:
    via = hop.address if hop is not None else "127.0.0.1:1"
    return Assembly(configure(folder, f"relay: {{via: ['{via}'], idle: 1s}}\n{text}"), **options)


def _metrics(gateway: Assembly) -> WorkerMetrics:
    return WorkerMetrics(
        chain=gateway.chain,
        ingress=gateway.ingress,
        settler=gateway.settler,
        dispatcher=gateway.dispatcher,
        connections=gateway.connections,
        spool=gateway.spool,
    )


def _told(gateway: Assembly) -> Told:
    return Told(exposition({"worker-0": _metrics(gateway).read()}))


async def test_a_message_and_its_delivery(tmp_path: Path) -> None:
    async with NextHop() as hop, _assembly(tmp_path, hop) as gateway:
        before = _told(gateway)
        assert before.sum("gateway_messages_total") == 0
        assert before.sum("gateway_outgoing_connections") == 0
        async with gateway.client() as client:
            told = _told(gateway)
            assert told.sum("gateway_smtp_sessions") == 1
            assert told.sum("gateway_smtp_connections_total") == 1
            await client.begin()
            assert (await client.say("RCPT TO:<c@example.org>")).startswith("250")
            assert (await client.data(BODY)).startswith("250")
        await until(lambda: gateway.settler.delivered == 2, "the delivery")
        await until(lambda: not gateway.rows(), "the queue to be empty")
        await until(lambda: not gateway.listener.sessions, "the session to end")
        told = _told(gateway)
        assert told.sum("gateway_messages_total", reply="2xx") == 1
        assert told.sum("gateway_messages_total") == 1
        assert told.sum("gateway_message_bytes_total") == len(BODY)
        assert told.sum("gateway_smtp_recipients_total") == 2
        assert told.sum("gateway_smtp_refusals_total") == 0
        assert told.sum("gateway_smtp_sessions") == 0
        assert told.sum("gateway_smtp_connections_total") == 1
        assert told.sum("gateway_deliveries_total", outcome="delivered") == 2
        assert told.sum("gateway_deliveries_total") == 2
        for name in ("gateway_reception_seconds", "gateway_attempt_seconds"):
            assert told.sum(f"{name}_count") == 1
            assert 0 < told.sum(f"{name}_sum") < 60
        assert told.sum("gateway_chain_seconds_count") == 1
        assert told.sum("gateway_commit_seconds_count") >= 2
        assert told.sum("gateway_commit_seconds_sum") > 0
        assert told.sum("gateway_outgoing_connections") == 1
        assert told.sum("gateway_spool_failed") == 0
        for name in ("lanes", "attempts", "memory_recipients", "memory_message_bytes"):
            assert told.sum(f"gateway_{name}") == 0, name
        await hop.wait_closed()
        assert _told(gateway).sum("gateway_outgoing_connections") == 0


async def test_a_chunked_message_counts_as_well(tmp_path: Path) -> None:
    async with _assembly(tmp_path, None) as gateway, gateway.client() as client:
        await client.begin()
        client.send(b"BDAT 10\r\n0123456789")
        assert (await client.reply()).startswith("250")
        client.send(b"BDAT 10 LAST\r\n01234567\r\n")
        assert (await client.reply()).startswith("250 2.0.0 Ok: queued")
        told = _told(gateway)
        assert told.sum("gateway_messages_total", reply="2xx") == 1
        assert told.sum("gateway_message_bytes_total") == 20
        assert told.sum("gateway_reception_seconds_count") == 1


async def test_what_is_refused_is_counted_by_its_class(tmp_path: Path) -> None:
    text = f"plugins: [{write_plugin(tmp_path, 'site', MOODY)}]\nlimits: {{message_size: 1KiB}}"
    async with _assembly(tmp_path, None, text) as gateway:
        for subject, code in (("reject", "550"), ("tempfail", "451"), ("raise", "451")):
            reply = await gateway.submit(
                "b@example.net", content=f"Subject: {subject}\r\n\r\n".encode()
            )
            assert reply.startswith(code)
        assert (await gateway.submit("b@example.net", content=b"x" * 2000 + b"\r\n"))[:3] == "552"
        assert (await gateway.submit("b@example.net", content=b"a\nb\r\n")).startswith("550")
        told = _told(gateway)
        assert told.sum("gateway_messages_total", reply="2xx") == 0
        assert told.sum("gateway_messages_total", reply="4xx") == 2
        assert told.sum("gateway_messages_total", reply="5xx") == 3
        assert told.sum("gateway_message_bytes_total") == 0
        assert told.sum("gateway_reception_seconds_count") == 5
        assert told.sum("gateway_chain_seconds_count") == 5
        assert told.sum("gateway_smtp_recipients_total") == 5
        assert told.sum("gateway_smtp_refusals_total") == 0

        async with gateway.client() as client:
            await client.begin()
            for line, code in (
                ("RCPT TO:<later@example.net>", "451"),
                ("RCPT TO:<never@example.net>", "550"),
                ("RCPT TO:nonsense", "501"),
                ("MAIL FROM:<a@example.com>", "503"),
                ("NOOP", "250"),
                ("NONSENSE", "500"),
            ):
                assert (await client.say(line)).startswith(code), line
            await client.say("QUIT")
        told = _told(gateway)
        assert told.sum("gateway_smtp_refusals_total", reply="4xx") == 1
        assert told.sum("gateway_smtp_refusals_total", reply="5xx") == 4
        assert told.sum("gateway_smtp_recipients_total") == 6


@pytest.mark.parametrize(
    ("retry", "rcpt", "outcomes"),
    [
        (SOON, "550 5.1.1 Nobody", {"bounced": 1}),
        (AT_ONCE_OVER, "451 4.2.1 Later", {"expired": 1}),
        (RetryPolicy((60.0,), 0.0, 3600.0), "451 4.2.1 Later", {"deferred": 1}),
    ],
)
async def test_what_became_of_attempts(
    tmp_path: Path, retry: RetryPolicy, rcpt: str, outcomes: dict[str, int]
) -> None:
    every = ("delivered", "deferred", "bounced", "expired")
    expected = dict.fromkeys(every, 0) | outcomes
    if "deferred" not in outcomes:
        expected["delivered"] = 1  # the report
    async with (
        NextHop(rcpt={"b@example.net": rcpt, "*": "250 Ok"}) as hop,
        _assembly(tmp_path, hop, retry=retry) as gateway,
    ):
        await gateway.submit("b@example.net")

        def sums() -> dict[str, float]:
            told = _told(gateway)
            return {one: told.sum("gateway_deliveries_total", outcome=one) for one in every}

        await until(lambda: sums() == expected, f"{expected}")


async def test_a_plugin_and_its_faults(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "site", MOODY)
    text = f"plugins:\n  - {plugin}: {{timeout: 0.2s}}\n"
    async with _assembly(tmp_path, None, text) as gateway:
        for subject in ("raise", "late", "good"):
            await gateway.submit("b@example.net", content=f"Subject: {subject}\r\n\r\n".encode())
        told = _told(gateway)
        labels = {"plugin": "site", "hook": "message", "process": "worker-0"}
        assert told.sum("gateway_plugin_call_seconds_count", **labels) == 3
        assert 0.2 < told.sum("gateway_plugin_call_seconds_sum", **labels) < 60
        assert told.sum("gateway_chain_seconds_sum") == pytest.approx(
            told.sum("gateway_plugin_call_seconds_sum", **labels)
        )
        assert told.sum("gateway_plugin_faults_total", **labels) == 2
        assert told.sum("gateway_plugin_timeouts_total", **labels) == 1
        assert told.sum("gateway_plugin_skipped_total", **labels) == 0
        assert told.sum("gateway_plugin_call_seconds_count", plugin="site", hook="rcpt") == 3
        assert told.sum("gateway_plugin_breaker", **labels, state="closed") == 1
        assert told.sum("gateway_plugin_breaker", **labels) == 1
        assert _metrics(gateway).report().breakers == ()


async def test_a_breaker_that_is_open(tmp_path: Path) -> None:
    broken = "@hookimpl\ndef message(self, message):\n    raise ValueError('secret')"
    text = f"plugins: [{write_plugin(tmp_path, 'site', broken)}]"
    async with _assembly(tmp_path, None, text) as gateway:
        for _ in range(FAULTS):
            assert _metrics(gateway).report().breakers == ()
            assert (await gateway.submit("b@example.net")).startswith("451")
        (told,) = _metrics(gateway).report().breakers
        assert (told.plugin, told.on_error) == ("site", "tempfail")
        assert told.reason == "message raised ValueError: secret"
        assert 0 <= told.seconds <= 1
        numbers = _told(gateway)
        closed = numbers.sum("gateway_plugin_breaker", hook="message", state="closed")
        assert (closed, numbers.sum("gateway_plugin_breaker", plugin="site")) == (0, 1)


async def test_a_spool_that_fails(tmp_path: Path) -> None:
    async with _assembly(tmp_path, None) as gateway:
        home = gateway.spool.home
        assert _metrics(gateway).report().storage == ""
        for full, storage in ((True, "full"), (False, "failed")):
            home.failure, home.full = "the disk is gone", full
            try:
                assert _metrics(gateway).report().storage == storage
                assert _told(gateway).sum("gateway_spool_failed") == 1
            finally:
                home.failure, home.full = None, False


async def test_a_shard_that_cannot_be_read(tmp_path: Path) -> None:
    async with _assembly(tmp_path, None) as gateway:
        assert _metrics(gateway).report() == Report()
        for number in (8, 7):
            (gateway.spool.folder / f"{number:04d}.db").write_bytes(b"no database" * 1000)
        assert gateway.spool.adopt() == []
        assert _metrics(gateway).report() == Report(left=(7, 8))


async def test_only_its_own_requests_are_answered(tmp_path: Path) -> None:
    async with _assembly(tmp_path, None) as gateway:
        metrics = _metrics(gateway)
        assert metrics.answer({"command": "stats"}) is None
        assert metrics.answer({}) is None
        assert set(metrics.answer({"command": "metrics"}) or {}) == {"readings"}
        assert set(metrics.answer({"command": "health"}) or {}) == {"report"}


async def test_commits_of_shards_that_are_gone_still_count(tmp_path: Path) -> None:
    """A counter that goes back would be taken for a restart."""
    async with NextHop() as hop:
        first = _assembly(tmp_path, hop)
        async with first:
            # A second shard, as another worker has left it: higher numbers than the home's.
            async with _assembly(tmp_path, hop) as second:
                await second.submit("b@example.net")
                await until(lambda: not second.rows(), "the queue to be empty")
            (adopted,) = first.spool.adopt()
            adopted.change(lambda db: None, lambda error: None)
            await adopted.drain()
            assert adopted.commits == 1
            before = first.spool.commits, first.spool.commit_seconds
            first.dispatcher.release(first.spool.release_empty())
            assert len(first.spool.shards) == 1
            assert (first.spool.commits, first.spool.commit_seconds) == before


async def test_commits_on_a_slow_disk_count_as_well(tmp_path: Path) -> None:
    async with _assembly(tmp_path, None) as gateway:
        # As after commits that took long: the next ones are made in the thread.
        gateway.spool.home._threads_until = float("inf")
        before = gateway.spool.commits
        await gateway.submit("b@example.net")
        await until(lambda: gateway.spool.commits > before, "the commit")
        assert gateway.spool.commit_seconds > 0
