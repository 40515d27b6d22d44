"""MTA-STS policies (RFC 8461): found, fetched over HTTPS, kept, renewed, shared."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.configuration.relay import RelayTls
from gateway.delivery import mta_sts_policies
from gateway.delivery.https import Fetch
from gateway.delivery.mta_sts import LONGEST_AGE, Mode, Policy
from gateway.delivery.mta_sts_policies import (
    ASK_SECONDS,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    Policies,
)
from gateway.delivery.tls_context import Contexts
from gateway.resolver import Resolver
from gateway.testing import Failure, FakeDns
from tests.delivery.authority import Authority, self_signed
from tests.delivery.policy_host import POLICY, PolicyHost, answer
from tests.delivery.sending import until

AUTHORITY = Authority()
SERVER = AUTHORITY.issue("mta-sts.example.com").server()
RECORD = "_mta-sts.example.com"
EXPECTED = Policy(Mode.ENFORCE, ("*.example.com",), 86400)


@dataclass
class Site:
    """A domain with a policy, and what looks at it."""

    dns: FakeDns
    host: PolicyHost
    resolver: Resolver
    fetch: Fetch
    folder: Path
    now: list[float] = field(default_factory=lambda: [1_000_000.0])
    opened: list[Policies] = field(default_factory=list)

    def policies(self) -> Policies:
        """As a worker has them."""
        policies = Policies(self.resolver, self.fetch, self.folder, lambda: self.now[0])
        self.opened.append(policies)
        return policies

    def announce(self, *records: str) -> None:
        """Changes the record in the DNS, and forgets what was known of it."""
        self.dns.zones[RECORD] = {"TXT": [f'"{record}"' for record in records]}
        self.resolver._cache.clear()

    def later(self, seconds: float) -> None:
        """Time passes."""
        self.now[0] += seconds
        self.resolver._cache.clear()

    @property
    def file(self) -> Path:
        """What is kept of the policy."""
        return self.folder / "example.com.json"


@asynccontextmanager
async def _site(
    folder: Path, tls: ssl.SSLContext = SERVER, timeout: float = 30.0
) -> AsyncIterator[Site]:
    zones = {
        RECORD: {"TXT": ['"v=STSv1; id=1"']},
        "mta-sts.example.com": {"A": ["127.0.0.1"]},
    }
    async with FakeDns(zones) as dns, PolicyHost(tls, answer()) as host:
        resolver = Resolver([dns.address], timeout=1.0, loopback=True)
        fetch = Fetch(resolver, _trusted, host.port, timeout=timeout)
        site = Site(dns, host, resolver, fetch, folder / "mta-sts")
        try:
            yield site
        finally:
            for policies in site.opened:
                await policies.close()
            await resolver.close()


@functools.cache
def _trusted() -> ssl.SSLContext:
    with tempfile.TemporaryDirectory() as folder:
        return Contexts(RelayTls(ca=AUTHORITY.write(Path(folder, "ca.pem")))).web


async def _settle(policies: Policies) -> None:
    """Waits for what is under way in the background."""
    await until(lambda: not policies._looking, "the end of the look-up")


# Found and fetched.


async def test_a_policy_is_found_fetched_and_kept(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        policies = site.policies()
        for _ in range(3):
            assert await policies.policy("example.com") == EXPECTED
        (request,) = site.host.requests
        assert request.startswith("GET /.well-known/mta-sts.txt HTTP/1.1\r\n")
        assert "\r\nHost: mta-sts.example.com\r\n" in request
        assert site.dns.queries[RECORD, "TXT"] == 1
        assert [path.name for path in site.folder.iterdir()] == ["example.com.json"]
        assert site.folder.stat().st_mode & 0o777 == 0o700


async def test_equal_questions_at_the_same_time_are_asked_once(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        policies = site.policies()
        found = await asyncio.gather(*(policies.policy("example.com") for _ in range(20)))
        assert found == [EXPECTED] * 20
        assert len(site.host.requests) == 1


async def test_without_a_record_nothing_is_fetched(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        for records in ([], ["v=spf1 -all"], ["v=STSv1; id=1", "v=STSv1; id=2"]):
            site.announce(*records)
            assert await site.policies().policy("example.com") is None
        for failure in (Failure.NXDOMAIN, Failure.SERVFAIL):
            site.dns.zones[RECORD] = failure
            site.later(1)
            assert await site.policies().policy("example.com") is None
        assert site.host.requests == []
        assert not site.folder.exists()


@pytest.mark.parametrize(
    "domain", ["[192.0.2.1]", "localhost", "", "a..b", "../../x.y", "a/b.c", "x" * 64 + ".y", "é.x"]
)
async def test_what_is_no_domain_is_not_asked_about(tmp_path: Path, domain: str) -> None:
    async with _site(tmp_path) as site:
        assert await site.policies().policy(domain) is None
        assert site.dns.queries.total() == 0


async def test_the_longest_name_has_a_file(tmp_path: Path) -> None:
    domain = ".".join(["a" * 60] * 3 + ["b" * 60])
    assert len(domain) == 243
    server = AUTHORITY.issue(f"mta-sts.{domain}").server()
    async with _site(tmp_path, server) as site:
        site.dns.zones[f"_mta-sts.{domain}"] = {"TXT": ['"v=STSv1; id=1"']}
        site.dns.zones[f"mta-sts.{domain}"] = {"A": ["127.0.0.1"]}
        assert await site.policies().policy(domain) == EXPECTED
        assert (site.folder / f"{domain}.json").exists()
        assert await site.policies().policy(f"{domain}c") is None


async def test_mode_none_is_no_policy(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        site.host.answer = answer("version: STSv1\nmode: none\nmax_age: 86400\n")
        policies = site.policies()
        for _ in range(2):
            assert await policies.policy("example.com") is None
        assert len(site.host.requests) == 1


async def test_an_age_of_nothing_is_no_policy(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        site.host.answer = answer(POLICY.replace("86400", "0"))
        assert await site.policies().policy("example.com") is None


async def test_the_next_address_is_tried(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        site.dns.zones["mta-sts.example.com"] = {"AAAA": ["::1"], "A": ["127.0.0.1"]}
        assert await site.policies().policy("example.com") == EXPECTED


# Answers of all kinds.


@pytest.mark.parametrize(
    "said",
    [
        answer(headers="content-TYPE: Text/Plain; charset=utf-8\r\n"),
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + POLICY.encode(),
        b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + POLICY.encode(),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%s\r\n" % (len(POLICY) - 3, POLICY[:-3].encode())
        + b"3\r\n%s\r\n0\r\n\r\n" % POLICY[-3:].encode(),
    ],
)
async def test_answers_that_have_a_policy(tmp_path: Path, said: bytes) -> None:
    async with _site(tmp_path) as site:
        site.host.answer = said
        assert await site.policies().policy("example.com") == EXPECTED


async def test_an_answer_is_complete_without_the_end_of_the_connection(tmp_path: Path) -> None:
    async with _site(tmp_path, timeout=60.0) as site:
        site.host.closes = False
        async with asyncio.timeout(30):
            assert await site.policies().policy("example.com") == EXPECTED


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (answer(status="404 Not Found"), "answered 404"),
        (answer(status="206 Partial Content"), "answered 206"),
        (answer(status="301 Moved", headers="Location: https://mta-sts.example.com/x\r\n"), "301"),
        (answer(headers="Content-Type: text/html\r\n"), "sent text/html"),
        (answer(headers=""), "no media type"),
        (answer("<html>"), "not a field"),
        (answer(""), "no version"),
        (answer("\udcff".encode("utf-8", "surrogateescape").decode("latin-1")), "not a field"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\n\xff", "UTF-8"),
        (answer(POLICY + "#" * 65536), "more than 65536"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "."),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx", "within its answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz", "not HTTP"),
        (b"220 mail.example.com ESMTP\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx", "."),
        (b"", "within its answer"),
        (None, "did not answer within"),
    ],
)
async def test_answers_without_a_policy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, said: bytes | None, reason: str
) -> None:
    async with _site(tmp_path, timeout=2.0 if said is None else 30.0) as site:
        site.host.answer = said
        policies = site.policies()
        for _ in range(2):
            assert await policies.policy("example.com") is None
        assert len(site.host.requests) == 1
        assert not site.folder.exists()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no MTA-STS policy of example.com" in record.message
    assert reason in record.message


async def test_a_text_without_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with _site(tmp_path) as site:
        site.host.answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + b"x" * 5_000_000
        assert await site.policies().policy("example.com") is None
    assert "more than 65536 octets" in caplog.text


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (AUTHORITY.issue("example.com"), "Hostname mismatch"),
        (AUTHORITY.issue(common_name="mta-sts.example.com"), "Hostname mismatch"),
        (AUTHORITY.issue("mta-sts.example.com", days=(-9, -8)), "expired"),
        (self_signed("mta-sts.example.com"), "self-signed"),
        (Authority(name="Other").issue("mta-sts.example.com"), "unable to get local issuer"),
    ],
)
async def test_the_certificate_must_be_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, identity: Any, reason: str
) -> None:
    async with _site(tmp_path, identity.server()) as site:
        assert await site.policies().policy("example.com") is None
        assert site.host.requests == []
    assert reason in caplog.text


async def test_a_host_that_cannot_be_reached(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with _site(tmp_path) as site:
        for zone, reason in (
            (Failure.NXDOMAIN, "mta-sts.example.com does not exist"),
            (Failure.SERVFAIL, "DNS has no answer for mta-sts.example.com"),
            ({"TXT": ["x"]}, "mta-sts.example.com has no address"),
            ({"A": ["127.0.0.9"]}, "mta-sts.example.com[127.0.0.9]: "),
        ):
            site.dns.zones["mta-sts.example.com"] = zone
            site.later(1)
            caplog.clear()
            assert await site.policies().policy("example.com") is None
            assert reason in caplog.text


# Kept.


async def test_a_policy_survives_a_restart_and_the_loss_of_everything_else(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        await site.policies().policy("example.com")
        site.host.answer = None
        site.dns.zones.clear()
        site.later(86399)
        again = site.policies()
        assert await again.policy("example.com") == EXPECTED
        await _settle(again)
        site.later(1)
        assert await again.policy("example.com") is None
        assert await site.policies().policy("example.com") is None


async def test_workers_share_what_they_fetched(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        workers = [site.policies() for _ in range(4)]
        for worker in workers:
            assert await worker.policy("example.com") == EXPECTED
            await _settle(worker)
        assert len(site.host.requests) == 1
        # One of them sees the new one; the others take it from there.
        site.host.answer = answer(POLICY.replace("enforce", "testing"))
        site.announce("v=STSv1; id=2")
        site.now[0] += ASK_SECONDS
        for worker in workers:
            await worker.policy("example.com")
            await _settle(worker)
            found = await worker.policy("example.com")
            assert found is not None
            assert found.mode is Mode.TESTING
        assert len(site.host.requests) == 2


async def test_a_new_id_brings_a_new_policy_without_waiting(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        policies = site.policies()
        await policies.policy("example.com")
        site.host.answer = None
        site.announce("v=STSv1; id=2")
        site.now[0] += ASK_SECONDS
        # The host does not answer; nobody waits for it.
        async with asyncio.timeout(2.5):
            assert await policies.policy("example.com") == EXPECTED
        await until(lambda: len(site.host.requests) == 2, "the second request")
        assert await policies.policy("example.com") == EXPECTED


async def test_what_cannot_be_renewed_holds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with _site(tmp_path) as site:
        policies = site.policies()
        await policies.policy("example.com")
        site.announce("v=STSv1; id=2")
        site.host.answer = answer("<html>")
        site.now[0] += ASK_SECONDS
        assert await policies.policy("example.com") == EXPECTED
        await _settle(policies)
        assert await policies.policy("example.com") == EXPECTED
        assert "the one from before holds" in caplog.text
        # It is not asked for all the time.
        site.now[0] += RETRY_SECONDS - 1
        await policies.policy("example.com")
        await _settle(policies)
        assert len(site.host.requests) == 2
        site.host.answer = answer(POLICY.replace("*.example.com", "mx.example.com"))
        site.now[0] += 1
        await policies.policy("example.com")
        await _settle(policies)
        found = await policies.policy("example.com")
        assert found is not None
        assert found.mx == ("mx.example.com",)


async def test_a_policy_is_renewed_before_it_runs_out(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        for age, renewed_after in ((600, 300), (10_000_000, REFRESH_SECONDS)):
            site.file.unlink(missing_ok=True)
            site.host.requests.clear()
            site.host.answer = answer(POLICY.replace("86400", str(age)))
            policies = site.policies()
            assert await policies.policy("example.com")
            site.later(renewed_after - 1)
            assert await policies.policy("example.com")
            await _settle(policies)
            assert len(site.host.requests) == 1
            site.later(ASK_SECONDS)
            # Nobody waits for the new one.
            assert await policies.policy("example.com")
            await _settle(policies)
            assert len(site.host.requests) == 2


async def test_an_unreachable_host_keeps_mail_waiting_once(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        site.host.answer = None
        patient, site.fetch = site.fetch, replace(site.fetch, timeout=0.3)
        policies = site.policies()
        assert await policies.policy("example.com") is None
        site.now[0] += RETRY_SECONDS - 1
        # It is not asked, so there is nothing to wait for.
        known = policies.policy("example.com")
        with pytest.raises(StopIteration):
            known.send(None)
        site.now[0] += 1
        site.host.answer = answer()
        policies._fetch = patient
        assert await policies.policy("example.com") == EXPECTED


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"id": 1}', '{"mode": "x"}', "\0", '{"mx": 5}']
)
async def test_a_damaged_file_is_as_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    async with _site(tmp_path) as site:
        site.folder.mkdir()
        site.file.write_text(text)
        assert await site.policies().policy("example.com") == EXPECTED
        assert json.loads(site.file.read_text())["mode"] == "enforce"
    assert "cannot be read" in caplog.text


async def test_a_file_from_the_future_does_not_count(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        await site.policies().policy("example.com")
        site.now[0] -= 1000
        site.host.answer = answer(POLICY.replace("enforce", "testing"))
        found = await site.policies().policy("example.com")
        assert found is not None
        assert found.mode is Mode.TESTING


async def test_a_folder_that_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with _site(tmp_path) as site:
        site.folder.write_text("a file")
        assert await site.policies().policy("example.com") == EXPECTED
    assert "cannot be written" in caplog.text


async def test_no_age_is_beyond_a_year(tmp_path: Path) -> None:
    async with _site(tmp_path) as site:
        site.host.answer = answer(POLICY.replace("86400", "9999999999"))
        assert await site.policies().policy("example.com") == replace(EXPECTED, max_age=LONGEST_AGE)


async def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mta_sts_policies, "_DOMAINS", 3)
    async with _site(tmp_path) as site:
        policies = site.policies()
        for number in range(10):
            await policies.policy(f"{number}.example.com")
        assert len(policies._known) == 3


async def test_the_end_lets_nobody_wait(tmp_path: Path) -> None:
    async with _site(tmp_path, timeout=60.0) as site:
        site.host.answer = None
        policies = site.policies()
        waiting = asyncio.create_task(policies.policy("example.com"))
        await until(lambda: bool(site.host.requests), "the request")
        await policies.close()
        assert await asyncio.wait_for(waiting, 5) is None


async def test_who_gives_up_waiting_stops_nobody_else(tmp_path: Path) -> None:
    async with _site(tmp_path, timeout=60.0) as site:
        site.host.answer = None
        policies = site.policies()
        first = asyncio.create_task(policies.policy("example.com"))
        second = asyncio.create_task(policies.policy("example.com"))
        await until(lambda: bool(site.host.requests), "the request")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not second.done()
        assert policies._looking
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)


@pytest.mark.parametrize(
    "scenario",
    [
        test_a_policy_is_found_fetched_and_kept,
        test_a_text_without_end,
        test_a_policy_survives_a_restart_and_the_loss_of_everything_else,
    ],
)
def test_on_uvloop(
    scenario: Callable[..., Coroutine[Any, Any, None]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = {"tmp_path": tmp_path, "caplog": caplog}
    wanted = scenario.__code__.co_varnames[: scenario.__code__.co_argcount]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario(**{name: given[name] for name in wanted}))
