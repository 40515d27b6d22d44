from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.doctor.plugin_checks import PluginCheck
from gateway.doctor.sample import Signer, Specimen, specimen, specimens
from gateway.testing.dns import Failure, Records
from tests.doctor.sites import found, resolving, site_of, texts
from tests.queue.served import Left, leave, shard_database

ADDRESS = "192.0.2.25"
SIGNED = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=Example.com;\r\n s=s1; bh=x; b=y\r\n"
    b"From: Shop <shop@news.example.com>\r\n\r\nHi\r\n"
)


def _txt(text: str) -> dict[str, list[str]]:
    return {"TXT": [f'"{text}"']}


GOOD: Mapping[str, Records | Failure] = {
    "example.com": _txt(f"v=spf1 ip4:{ADDRESS} -all"),
    "_dmarc.example.com": _txt("v=DMARC1; p=reject"),
    "s1._domainkey.example.com": _txt("v=DKIM1; p=AAAA"),
}


def test_what_one_message_has() -> None:
    assert specimen("b-1@bounce.example.com", SIGNED) == Specimen(
        "news.example.com",
        frozenset({"bounce.example.com"}),
        frozenset({Signer("example.com", "s1")}),
    )
    two = b"From: a@example.com, b@example.net\r\n\r\n"
    assert specimen("", two) == Specimen("", frozenset())
    deep = b"From: " + b"(" * 5000 + b"a@example.com\r\n\r\n"
    assert specimen("", deep) == Specimen("", frozenset())


async def test_senders_are_found_in_queue_and_log(tmp_path: Path) -> None:
    site = site_of(tmp_path, "log: {file: gateway.log}\n")
    parameters = '{"return_path": "b1@bounce.example.com"}'
    leave(site.config.spool.path, [Left(columns={"parameters": parameters}), Left(sender="")])
    with shard_database(site.config.spool.path) as db:
        db.execute("UPDATE messages SET content=?", (SIGNED,))
    (tmp_path / "gateway.log").write_text(
        "x: client=a[10.0.0.7], user=u, from=<shop@log.example>, size=1, nrcpt=1, stream=default\n"
        '{"id": "x", "from": "shop@json.example", "size": 1}\n'
    )
    known = specimens(site.config)
    signers = frozenset({Signer("example.com", "s1")})
    assert known == {
        Specimen("news.example.com", frozenset({"bounce.example.com"}), signers),
        Specimen("news.example.com", frozenset(), signers),
        Specimen("", frozenset({"log.example"})),
        Specimen("", frozenset({"json.example"})),
    }


async def test_a_domain_that_is_all_right(tmp_path: Path) -> None:
    check = PluginCheck("dkim", 0, [{"domain": "example.com", "selector": "s1", "status": "ok"}])
    async with resolving(GOOD) as resolver:
        site = site_of(
            tmp_path,
            resolver=resolver,
            domains=("example.com",),
            addresses=(ADDRESS,),
            checks=[check],
        )
        findings = await found("senders", site)
    assert [(one.severity, one.text) for one in findings] == [
        ("ok", "a key is published at s1._domainkey.example.com"),
        ("ok", f"SPF of example.com names {ADDRESS}"),
        ("ok", "DMARC of example.com holds (p=reject)"),
    ]


async def test_a_domain_whose_spf_does_not_name_us(tmp_path: Path) -> None:
    async with resolving(GOOD) as resolver:
        site = site_of(
            tmp_path, resolver=resolver, domains=("example.com",), addresses=("198.51.100.1",)
        )
        told = await texts("senders", site, "problem")
    assert told == [
        "SPF of example.com for 198.51.100.1: fail (-all of example.com)",
        "mail from example.com fails DMARC (p=reject): not signed, and SPF does not align",
    ]


async def test_a_domain_without_anything(tmp_path: Path) -> None:
    async with resolving({}) as resolver:
        site = site_of(tmp_path, resolver=resolver, domains=("example.com",), addresses=(ADDRESS,))
        told = await texts("senders", site, "warning")
    assert told[0].startswith(f"SPF of example.com for {ADDRESS}: none")
    assert told[1].startswith("example.com has no DMARC record")


async def test_a_signature_of_another_domain_does_not_align(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    leave(site.config.spool.path, [Left(sender="b@esp.example")])
    content = SIGNED.replace(b"d=Example.com", b"d=esp.example")
    with shard_database(site.config.spool.path) as db:
        db.execute("UPDATE messages SET content=?", (content,))
    zones = {
        **GOOD,
        "esp.example": _txt(f"v=spf1 ip4:{ADDRESS} -all"),
        "s1._domainkey.esp.example": _txt("v=DKIM1; p="),
    }
    async with resolving(zones) as resolver:
        site = site_of(tmp_path, resolver=resolver, addresses=(ADDRESS,))
        told = await texts("senders", site, "problem")
    assert told == [
        "mail is signed by s1._domainkey.esp.example, and that key was revoked",
        "mail from news.example.com fails DMARC (p=reject): signed by esp.example, "
        "and SPF does not align",
    ]


async def test_a_dns_that_does_not_answer_is_no_verdict(tmp_path: Path) -> None:
    zones = {"example.com": Failure.SERVFAIL, "_dmarc.example.com": Failure.SERVFAIL}
    async with resolving(zones) as resolver:
        site = site_of(tmp_path, resolver=resolver, domains=("example.com",), addresses=(ADDRESS,))
        findings = await found("senders", site)
    assert [one.severity for one in findings] == ["warning", "warning"]
    assert "temperror" in findings[0].text
    assert "does not tell the DMARC record" in findings[1].text


async def test_nobody_sends(tmp_path: Path) -> None:
    (finding,) = await found("senders", site_of(tmp_path))
    assert finding.remedy == "gateway doctor --domain example.com"
