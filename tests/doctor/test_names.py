from __future__ import annotations

from pathlib import Path

from gateway.doctor.finding import Severity
from gateway.testing import NextHop
from gateway.testing.dns import Failure, Records
from tests.doctor.sites import BASE, found, resolving, site_of, texts

ADDRESS = "192.0.2.25"
POINTER = "25.2.0.192.in-addr.arpa"
OURS = {"gw.example.com": {"A": [ADDRESS]}, POINTER: {"PTR": ["gw.example.com."]}}


async def test_a_name_and_an_address_that_fit(tmp_path: Path) -> None:
    async with resolving(OURS) as resolver:
        site = site_of(tmp_path, resolver=resolver, addresses=(ADDRESS,))
        findings = await found("names", site)
    assert [one.severity for one in findings] == ["ok", "ok"]
    assert findings[1].text == f"{ADDRESS} is called gw.example.com, which leads back to it"


async def test_an_address_without_a_name(tmp_path: Path) -> None:
    async with resolving({"gw.example.com": {"A": [ADDRESS]}}) as resolver:
        direct = site_of(tmp_path, resolver=resolver, addresses=(ADDRESS,))
        (text,) = await texts("names", direct, "problem")
        assert "has no name (PTR)" in text
        relay = "relay: {via: ['127.0.0.1:1']}\n"
        smarthost = site_of(tmp_path, relay, resolver=resolver, addresses=(ADDRESS,))
        assert await texts("names", smarthost, "problem") == []
        assert len(await texts("names", smarthost, "warning")) == 1


async def test_a_name_that_does_not_lead_back_and_another_name(tmp_path: Path) -> None:
    zones = {**OURS, POINTER: {"PTR": ["dsl-25.example.net."]}}
    async with resolving(zones) as resolver:
        site = site_of(tmp_path, resolver=resolver, addresses=(ADDRESS,))
        (text,) = await texts("names", site, "problem")
    assert "dsl-25.example.net, which does not lead back" in text
    async with resolving({**zones, "dsl-25.example.net": {"A": [ADDRESS]}}) as resolver:
        site = site_of(tmp_path, resolver=resolver, addresses=(ADDRESS,))
        (text,) = await texts("names", site, "warning")
    assert "says EHLO gw.example.com" in text


async def test_a_hostname_that_nobody_knows(tmp_path: Path) -> None:
    async with resolving({}) as resolver:
        told = await texts("names", site_of(tmp_path, resolver=resolver), "warning")
    assert told == ["gw.example.com has no address in the DNS: receivers distrust an EHLO with it"]
    base = BASE.replace("gw.example.com", "gw")
    (finding,) = await found("names", site_of(tmp_path, base=base))
    assert 'hostname is "gw"' in finding.text


async def test_a_hostname_that_leads_to_this_machine(tmp_path: Path) -> None:
    async with resolving({"gw.example.com": {"A": ["127.0.1.1"]}}) as resolver:
        told = await texts("names", site_of(tmp_path, resolver=resolver), "warning")
    assert "leads to 127.0.1.1 in the DNS" in told[0]


async def test_a_dns_that_does_not_answer(tmp_path: Path) -> None:
    async with resolving({"gw.example.com": Failure.SERVFAIL}) as resolver:
        (text,) = await texts("names", site_of(tmp_path, resolver=resolver), "problem")
    assert text.startswith("the DNS does not answer for gw.example.com")


async def test_smarthosts(tmp_path: Path) -> None:
    zones: dict[str, Records | Failure] = {
        "down.example": Failure.SERVFAIL,
        "empty.example": {"TXT": ['"x"']},
    }

    async def told(via: str, severity: Severity) -> list[str]:
        async with resolving(zones) as resolver:
            site = site_of(tmp_path, f"relay: {{via: ['{via}']}}\n", resolver=resolver)
            return await texts("relay", site, severity)

    async with NextHop() as hop:
        assert await told(hop.address, "ok") == [f"{hop.address} answers"]
    assert "cannot be reached" in (await told(hop.address, "problem"))[0]
    assert "does not exist" in (await told("none.example:25", "problem"))[0]
    assert "does not tell where" in (await told("down.example:25", "problem"))[0]
    assert "has no address" in (await told("empty.example:25", "problem"))[0]


async def test_a_password_that_is_not_there(tmp_path: Path) -> None:
    relay = (
        "relay: {via: ['127.0.0.1:1'], tls: {level: required}, "
        "login: {user: u, password_env: NO_SUCH_VARIABLE}}\n"
    )
    told = await texts("relay", site_of(tmp_path, relay), "problem")
    assert any("NO_SUCH_VARIABLE is not set" in text for text in told)


async def test_without_smarthosts_port_25_is_mentioned(tmp_path: Path) -> None:
    (finding,) = await found("relay", site_of(tmp_path))
    assert finding.severity == "note"
