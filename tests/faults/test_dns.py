"""The DNS fails, in each way: what may pass waits and never bounces, what is for good says why."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import NamedTuple

from gateway.testing import Failure, FakeDns, NextHop
from gateway.testing.dns import Records
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, until
from tests.faults.figures import Figures

Zones = Mapping[str, Records | Failure]

HERE: Records = {"A": ["127.0.0.1"]}

TEMPORARY: Mapping[str, Zones] = {
    "servfail": {"": Failure.SERVFAIL},
    "silence": {"": Failure.SILENCE},
    "refused": {"": Failure.REFUSED},
    "nonsense": {"": Failure.NONSENSE},
    # An address is no way around an MX that nobody could see.
    "mx-servfail": {"": {"MX": Failure.SERVFAIL, "A": ["127.0.0.1"]}},
    "mx-silence": {"": {"MX": Failure.SILENCE, "A": ["127.0.0.1"]}},
    "mx-nonsense": {"": {"MX": Failure.NONSENSE, "A": ["127.0.0.1"]}},
    "a-servfail": {"": {"A": Failure.SERVFAIL}},
    "host-servfail": {"": {"MX": ["10 mx"]}, "mx.": Failure.SERVFAIL},
    "host-silence": {"": {"MX": ["10 mx"]}, "mx.": Failure.SILENCE},
    # Perhaps somebody is about to enter it.
    "host-nxdomain": {"": {"MX": ["10 mx"]}},
    "host-empty": {"": {"MX": ["10 mx"]}, "mx.": {"TXT": ['"no address"']}},
    "alias-loop": {"": {"CNAME": ["other"]}, "other.": {"CNAME": [""]}},
    "odd-name": {"": {"MX": [r"10 \013\010evil\000"]}},
    "alias-servfail": {"": {"CNAME": ["other"]}, "other.": Failure.SERVFAIL},
}
"""What may be better later. `mx.` is a name below the domain, and a name in a record as well."""


class Permanent(NamedTuple):
    """What is for good, and what the sender is told."""

    zones: Zones
    status: str
    reason: str


PERMANENT: Mapping[str, Permanent] = {
    "nxdomain": Permanent({}, "5.1.2", "does not exist"),
    "null-mx": Permanent({"": {"MX": ["0 ."]}}, "5.1.10", "does not accept mail (null MX)"),
    "nothing": Permanent({"": {"TXT": ['"x"']}}, "5.4.4", "has neither MX nor address"),
    "truncated": Permanent({"": Failure.TRUNCATED}, "5.4.4", "has neither MX nor address"),
    "alias-gone": Permanent({"": {"CNAME": ["gone"]}}, "5.1.2", "does not exist"),
    "ourselves": Permanent(
        {"": {"MX": ["10 gw.example.com."]}}, "5.4.6", "loops back to this gateway"
    ),
}

DELIVERED: Mapping[str, Zones] = {
    "address": {"": HERE},
    "alias": {"": {"CNAME": ["other"]}, "other.": HERE},
    "second": {"": {"MX": ["10 gone", "20 mx"]}, "mx.": HERE},
    "third": {"": {"MX": ["10 bad", "15 dark", "20 mx"]}, "bad.": Failure.SERVFAIL, "mx.": HERE},
    "half": {"": {"MX": ["10 mx"]}, "mx.": {"AAAA": Failure.SERVFAIL, "A": ["127.0.0.1"]}},
}


def _zones(domain: str, zones: Zones) -> dict[str, Records | Failure]:
    """Zones with the full names of a domain."""
    found: dict[str, Records | Failure] = {}
    for prefix, records in zones.items():
        if not isinstance(records, Failure):
            records = {kind: _full(domain, entries) for kind, entries in records.items()}
        found[prefix + domain] = records
    return found


def _full(domain: str, entries: list[str] | Failure) -> list[str] | Failure:
    if isinstance(entries, Failure):
        return entries
    return [
        entry if entry.endswith(('"', ".", "1")) else f"{entry}.{domain}.".removeprefix(".")
        for entry in entries
    ]


async def test_the_dns_fails_in_each_way(
    make_gateway: MakeGateway, scale: Scale, figures: Figures
) -> None:
    zones: dict[str, Records | Failure] = {"sender.test": HERE, "gw.example.com": HERE}
    permanent = {name: case.zones for name, case in PERMANENT.items()}
    for cases in (TEMPORARY, permanent, DELIVERED):
        for name, case in cases.items():
            zones |= _zones(f"{name}.test", case)
    async with NextHop() as hop, FakeDns(zones, ttl=1) as dns:
        port = hop.address.rpartition(":")[2]
        gateway = make_gateway()
        gateway.configure(
            f"relay: {{mx_port: {port}}}\nretry: {{schedule: [1s], jitter: 0}}\n"
            f"dns: {{nameservers: ['{dns.address}'], timeout: 500ms, loopback: true}}"
        )
        await asyncio.to_thread(gateway.start)
        names = [*TEMPORARY, *permanent, *DELIVERED]
        await asyncio.to_thread(_submit, gateway, names)
        attempts = scale(2, 20)
        for name in TEMPORARY:
            deferred = f"to=<b@{name}.test>"
            await asyncio.to_thread(_wait_deferred, gateway, deferred, attempts)
        await hop.wait(len(DELIVERED) + len(PERMANENT), DEADLINE)
        _check_permanent(hop, gateway.log)
        _check_log(gateway.log)
        assert _delivered(hop) == {f"b@{name}.test" for name in DELIVERED}
        assert await asyncio.to_thread(gateway.stop) == 0
        # The DNS is as it should be again. A gateway that starts anew has asked nothing before.
        for name in TEMPORARY:
            dns.zones[f"{name}.test"] = HERE
        await asyncio.to_thread(gateway.start)
        await hop.wait(len(names), DEADLINE)
        await asyncio.to_thread(gateway.wait_empty)
        assert _delivered(hop) == {f"b@{name}.test" for name in (*TEMPORARY, *DELIVERED)}
        assert len(hop.messages) == len(names)
        assert await asyncio.to_thread(gateway.stop) == 0
    figures(
        8,
        temporary_failures=len(TEMPORARY),
        attempts=attempts,
        bounced=0,
        permanent_failures=len(PERMANENT),
    )


def _submit(gateway: Gateway, names: list[str]) -> None:
    for name in names:
        gateway.submit(name, f"b@{name}.test", sender=f"{name}@sender.test")


def _wait_deferred(gateway: Gateway, recipient: str, attempts: int) -> None:
    def is_enough() -> bool:
        lines = [line for line in gateway.log.splitlines() if recipient in line]
        assert all("status=deferred" in line for line in lines), lines
        return len(lines) >= attempts

    until(is_enough, f"{attempts} attempts for {recipient}")


def _delivered(hop: NextHop) -> set[str]:
    found = [message.recipients[0][0] for message in hop.messages]
    return {address for address in found if not address.endswith("@sender.test")}


def _check_permanent(hop: NextHop, log: str) -> None:
    for name, case in PERMANENT.items():
        reports = [m for m in hop.messages if m.recipients[0][0] == f"{name}@sender.test"]
        assert len(reports) == 1, name
        text = re.sub(r"\s+", " ", reports[0].content.decode())
        assert f"Final-Recipient: rfc822; b@{name}.test" in text, name
        assert f"Status: {case.status}" in text, name
        assert case.reason in text, name
        (line,) = [line for line in log.splitlines() if f"to=<b@{name}.test>" in line]
        assert "status=bounced" in line, name
        assert case.reason in line, name


def _check_log(log: str) -> None:
    """Each line is a line of ours, whatever was in the DNS."""
    assert "Traceback" not in log
    for line in log.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00 gw\.example\.com gateway/", line), line
        assert line.isprintable(), line
