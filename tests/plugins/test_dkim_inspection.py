"""Mail that comes in, through the `message` hook, with a DNS server on loopback."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import authres
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Client, Message, Resolver
from gateway.testing import Failure, FakeDns, NextHop
from plugins.dkim import Dkim, DkimConfig
from plugins.dkim.authentication_results import claims, results_field
from plugins.dkim.canonicalization import Canonicalization, measured_digest
from plugins.dkim.verification import Result, Verdict, Verifier
from tests.assembly import Assembly, configure
from tests.plugins.dkim_keys import KeyPair, context, ed25519_key, plugin, rsa_key
from tests.plugins.test_dkim import MESSAGES, sealed

NAME = "s1._domainkey.example.com"
FIELD = "Authentication-Results"


def published(pair: KeyPair) -> dict[str, list[str] | Failure]:
    """The key's record in several strings, as long keys have it."""
    text = pair.record
    strings = [f'"{text[start : start + 100]}"' for start in range(0, len(text), 100)]
    return {"TXT": [" ".join(strings)]}


@pytest.fixture
async def dns() -> AsyncIterator[FakeDns]:
    async with FakeDns({NAME: published(rsa_key())}) as server:
        yield server


def verifier(folder: Path, dns: FakeDns, **verify: object) -> Dkim:
    made = Dkim(DkimConfig.model_validate({"verify": verify or True}))
    made.start(context(folder, Resolver([dns.address], 2.0)))
    return made


def received(content: bytes) -> Message:
    """A message as a `message` hook gets it."""
    made = Message("4fJx", "news@example.com", Client("192.0.2.1"))
    made.content = content
    return made


def results(message: Message, occurrence: int = 0) -> list[authres.DKIMAuthenticationResult]:
    """What one of the Authentication-Results fields says."""
    field = message.headers.fields(FIELD)[occurrence]
    text = field.body.decode().replace("\r\n", "")
    return list(authres.FeatureContext().parse_value(text).results)


async def test_the_result_is_put_on_top_and_all_else_stays(tmp_path: Path, dns: FakeDns) -> None:
    content = sealed(plugin(tmp_path), MESSAGES["plain"])
    message = received(content)

    await verifier(tmp_path, dns).message(message)

    (one,) = results(message)
    assert (one.method, one.result) == ("dkim", "pass")
    assert (one.header_d, one.header_s, one.header_a) == ("example.com", "s1", "rsa-sha256")
    field, _, rest = message.content.partition(b"\r\nDKIM-Signature:")
    assert field.startswith(
        b"Authentication-Results: gw.example.com; dkim=pass (2048-bit key)\r\n"
        b" header.d=example.com header.s=s1 header.a=rsa-sha256 header.b="
    )
    assert b"DKIM-Signature:" + rest == content


async def test_without_verify_nothing_happens(tmp_path: Path) -> None:
    content = b"Authentication-Results: gw.example.com; dkim=pass\r\n" + MESSAGES["plain"]
    message = received(content)

    await plugin(tmp_path).message(message)

    assert message.content == content


async def test_a_message_without_a_signature(tmp_path: Path, dns: FakeDns) -> None:
    message = received(MESSAGES["plain"])

    await verifier(tmp_path, dns).message(message)

    (field,) = message.headers.fields(FIELD)
    assert field.raw == b"Authentication-Results: gw.example.com; dkim=none\r\n"
    assert not dns.queries


async def test_the_verdict_on_each_signature(tmp_path: Path, dns: FakeDns) -> None:
    signer = plugin(
        tmp_path,
        {"selector": "s1"},
        {"selector": "e1", "identity": "@news.example.com"},
        {"selector": "gone"},
        {"selector": "none"},
        {"selector": "broken"},
        pairs=(rsa_key(), ed25519_key(), rsa_key(), rsa_key(), rsa_key()),
    )
    dns.zones["e1._domainkey.example.com"] = published(ed25519_key())
    dns.zones["none._domainkey.example.com"] = {"A": ["192.0.2.1"]}
    dns.zones["broken._domainkey.example.com"] = Failure.SERVFAIL
    message = received(b"DKIM-Signature: v=1\r\n" + sealed(signer, MESSAGES["plain"]))

    await verifier(tmp_path, dns).message(message)

    assert [(one.result, one.header_s, one.header_i) for one in results(message)] == [
        ("neutral", None, None),
        ("pass", "s1", None),
        ("pass", "e1", "@news.example.com"),
        ("permerror", "gone", None),
        ("permerror", "none", None),
        ("temperror", "broken", None),
    ]
    (field,) = message.headers.fields(FIELD)
    assert b"dkim=neutral (there is no a=);" in field.raw
    assert all(len(line) <= 78 for line in field.raw.split(b"\r\n"))


async def test_a_record_behind_an_alias(tmp_path: Path, dns: FakeDns) -> None:
    dns.zones[NAME] = {"CNAME": ["s1.keys.example.net."]}
    dns.zones["s1.keys.example.net"] = published(rsa_key())
    message = received(sealed(plugin(tmp_path), MESSAGES["plain"]))

    await verifier(tmp_path, dns).message(message)

    assert [one.result for one in results(message)] == ["pass"]


async def test_only_so_many_signatures_are_verified(tmp_path: Path, dns: FakeDns) -> None:
    message = received(b"DKIM-Signature: v=1\r\n" * 50 + MESSAGES["plain"])
    await verifier(tmp_path, dns).message(message)
    assert len(results(message)) == 8

    message = received(b"DKIM-Signature: v=1\r\n" * 50 + MESSAGES["plain"])
    await verifier(tmp_path, dns, signatures=3).message(message)
    assert len(results(message)) == 3


async def test_slow_name_servers_hold_up_no_mail(
    tmp_path: Path, dns: FakeDns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.dkim.inspection._DNS_SECONDS", 0.05)
    dns.zones[NAME] = Failure.SILENCE
    message = received(sealed(plugin(tmp_path), MESSAGES["plain"]))
    resolver = Resolver([dns.address], 30.0)
    made = Dkim(DkimConfig.model_validate({"verify": True}))
    made.start(context(tmp_path, resolver))

    await made.message(message)

    assert [one.result for one in results(message)] == ["temperror"]
    await resolver.close()


async def test_keys_are_asked_for_once(tmp_path: Path, dns: FakeDns) -> None:
    content = sealed(plugin(tmp_path), MESSAGES["plain"])
    made = verifier(tmp_path, dns)

    for _ in range(3):
        await made.message(received(content))

    assert dns.queries == {(NAME, "TXT"): 1}


async def test_messages_that_come_together_ask_once(tmp_path: Path, dns: FakeDns) -> None:
    made = verifier(tmp_path, dns)
    content = sealed(plugin(tmp_path), MESSAGES["plain"])
    messages = [received(content) for _ in range(20)]

    await asyncio.gather(*map(made.message, messages))

    assert all(results(message)[0].result == "pass" for message in messages)
    assert dns.queries == {(NAME, "TXT"): 1}


async def test_large_bodies_are_hashed_in_a_thread(
    tmp_path: Path, dns: FakeDns, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    original = Verifier.verdicts

    def verdicts(*arguments: object) -> list[Verdict]:
        threads.append(threading.current_thread() is threading.main_thread())
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Verifier, "verdicts", verdicts)
    made = verifier(tmp_path, dns)
    for line, lines in ((b"One  line \r\n", 10), (b"One  line \r\n", 120_000)):
        message = received(sealed(plugin(tmp_path), MESSAGES["no subject"] + line * lines))
        await made.message(message)
        assert [one.result for one in results(message)] == ["pass"]

    assert threads == [True, False]


@pytest.mark.parametrize("canonicalization", list(Canonicalization))
def test_whoever_hashes_a_large_body_pauses(canonicalization: Canonicalization) -> None:
    pauses = []

    body = b"One  line \r\n" * 100_000
    digest = measured_digest(body, canonicalization, lambda: pauses.append(1))

    assert digest == measured_digest(body, canonicalization)
    assert len(pauses) == len(body) // 65_536 + 1


# Fields that others wrote.

OURS = [
    b" gw.example.com; dkim=pass",
    b"gw.example.com;dkim=pass",
    b" GW.Example.COM; dkim=pass",
    b" gw.example.com.; dkim=pass",
    b" gw.example.com 1; dkim=pass",
    b" gw.example.com/1; dkim=pass",
    b" gw.example.com",
    b" gw.example.com (comment) 1; dkim=pass",
    b" (comment) gw.example.com; dkim=pass",
    b" (a (nested) comment)\r\n\t(and\r\n another)gw.example.com(x); dkim=pass",
    b' (") gw.example.com (") other.example; dkim=pass',
    b" (\\)) gw.example.com; dkim=pass",
    b"\r\n\tgw.example.com;\r\n\tdkim=pass",
    b' "gw.example.com"; dkim=pass',
    b' "gw\\.example.com"; dkim=pass',
    b' "gw.example.com',
    b" (never ends gw.example.com; dkim=pass",
    b" ; gw.example.com",
    b' "gw.example.com mx.example.com"; dkim=pass',
    b" =?utf-8?Q?gw.example.com?=; dkim=pass",
    b" gw.example.com\xe3; dkim=pass",
]
OTHERS = [
    b" mx.example.com; dkim=pass",
    b" gw.example.com.example.org; dkim=pass",
    b" xgw.example.com; dkim=pass",
    b" (gw.example.com) mx.example.com; dkim=pass",
    b" mx.example.com; dkim=pass reason=gw.example.com",
    b" (never ends mx.example.com; dkim=pass",
    b" ; dkim=pass",
    b"",
]


@pytest.mark.parametrize("value", OURS)
async def test_a_field_that_claims_to_be_ours_is_taken_away(
    tmp_path: Path, dns: FakeDns, value: bytes
) -> None:
    forged = b"authentication-RESULTS :" + value + b"\r\n"
    message = received(forged + MESSAGES["plain"].replace(b"SUBJECT", forged + b"SUBJECT"))

    await verifier(tmp_path, dns).message(message)

    (field,) = message.headers.fields(FIELD)
    assert field.raw == b"Authentication-Results: gw.example.com; dkim=none\r\n"
    assert message.content == field.raw + MESSAGES["plain"]


async def test_very_many_forged_fields(tmp_path: Path, dns: FakeDns) -> None:
    forged = b"Authentication-Results: gw.example.com; dkim=pass\r\n"
    other = b"Authentication-Results: mx.example.com; dkim=pass\r\n"
    message = received((other + forged) * 20_000 + MESSAGES["plain"])

    await verifier(tmp_path, dns).message(message)

    assert len(message.headers.fields(FIELD)) == 1
    assert message.content.endswith(b"dkim=none\r\n" + MESSAGES["plain"])


@pytest.mark.parametrize("value", OTHERS)
async def test_a_field_of_another_stays(tmp_path: Path, dns: FakeDns, value: bytes) -> None:
    content = b"Authentication-Results:" + value + b"\r\n" + MESSAGES["plain"]
    message = received(content)

    await verifier(tmp_path, dns).message(message)

    assert message.content == (b"Authentication-Results: gw.example.com; dkim=none\r\n" + content)


async def test_the_name_may_be_another(tmp_path: Path, dns: FakeDns) -> None:
    kept = b"Authentication-Results: gw.example.com; dkim=pass\r\n"
    forged = "Authentication-Results: 例え.jp; dkim=pass\r\n".encode()
    message = received(forged + kept + MESSAGES["plain"])

    await verifier(tmp_path, dns, authserv_id="例え.JP").message(message)

    ours = b"Authentication-Results: xn--r8jz45g.jp; dkim=none\r\n"
    assert message.content == ours + kept + MESSAGES["plain"]


@given(octets=st.binary(max_size=60), junk=st.lists(st.sampled_from([b"(", b")", b'"', b"\\"])))
def test_no_octets_break_the_search_for_our_name(octets: bytes, junk: list[bytes]) -> None:
    claims(b"".join(junk) + octets + b"".join(junk), "gw.example.com")
    value = b" (" + octets.replace(b"\\", b"").replace(b"(", b"").replace(b")", b"") + b") "
    assert claims(value + b"gw.example.com; none", "gw.example.com")


def test_all_results_can_be_written_and_read() -> None:
    for result in Result:
        value = results_field("gw.example.com", [Verdict(result, "for a reason")])
        (one,) = authres.FeatureContext().parse_value(value.decode().replace("\r\n", "")).results
        assert (one.method, one.result) == ("dkim", str(result))


# In a gateway.


async def test_mail_that_comes_in_is_verified_and_signed_as_it_goes_out(
    tmp_path: Path, dns: FakeDns
) -> None:
    rsa_key().write(tmp_path / "key.pem")
    content = sealed(plugin(tmp_path), MESSAGES["plain"])
    async with NextHop() as receiver:
        config = configure(
            tmp_path,
            f"relay: {{via: ['{receiver.address}']}}\n"
            "plugins:\n  - dkim:\n      verify: true\n      keys:\n"
            "        - {domain: example.com, selector: out, file: key.pem}\n",
        )
        assembly = Assembly(config)
        assembly.resolver = Resolver([dns.address], 2.0)
        async with assembly:
            reply = await assembly.submit("taro@example.org", content=content)
            assert reply.startswith("250"), reply
            (message,) = await receiver.wait(1)

    assert re.match(
        rb"DKIM-Signature: v=1; .* s=out;(?:.|\r\n )*\r\n"
        rb"Authentication-Results: gw\.example\.com; dkim=pass \(2048-bit key\)\r\n"
        rb" header\.d=example\.com header\.s=s1 .*\r\n"
        rb"Received: ",
        message.content,
    )
    assert message.content.endswith(content)
