"""The domains that mail is sent from: SPF, DKIM and DMARC as receivers see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator

from gateway.doctor.dmarc import Policy, policy_of
from gateway.doctor.finding import Finding, count, listed, note, ok, problem, warning
from gateway.doctor.names import source_addresses
from gateway.doctor.plugin_checks import PluginCheck
from gateway.doctor.sample import Signer, Specimen, specimens
from gateway.doctor.site import Site
from gateway.doctor.spf import Verdict, check_host
from gateway.resolver import NoSuchDomainError, ResolutionError, Resolver

MOST = 50
"""Domains that are looked up."""


async def examine(site: Site) -> AsyncIterator[Finding]:
    """What is to be said of the domains of senders."""
    found = await asyncio.to_thread(specimens, site.config)
    published = set(signers_of(site.checks))
    if site.domains:
        found = {one for one in found if {one.author, *one.envelope} & set(site.domains)}
        found |= {
            Specimen(domain, frozenset({domain}), frozenset(published)) for domain in site.domains
        }
    envelopes = sorted({domain for one in found for domain in one.envelope})
    authors = sorted({one.author for one in found if one.author})
    signers = {signer for one in found for signer in one.signers} | published
    if not envelopes and not authors:
        yield note(
            "no sender is known: the queue is empty, and there is no log.file to read",
            "gateway doctor --domain example.com",
        )
        return
    if max(len(envelopes), len(authors)) > MOST:
        yield note(f"{count(len(envelopes), 'domain')} send; the first {MOST} are looked up")
    keys = sorted(signers, key=lambda one: (one.domain, one.selector))[:MOST]
    for finding in await asyncio.gather(*(_key(site.outside, signer) for signer in keys)):
        yield finding
    addresses = await source_addresses(site)
    domains = envelopes[:MOST]
    judged = await asyncio.gather(*(_verdicts(site, domain, addresses) for domain in domains))
    proved: set[str] = set()
    for domain, verdicts in zip(domains, judged, strict=True):
        if verdicts and all(verdict.result == "pass" for verdict in verdicts.values()):
            proved.add(domain)
        for finding in _policy_of_senders(domain, verdicts):
            yield finding
    alignments = [
        _alignment(
            site.outside,
            author,
            [one for one in found if one.author == author],
            proved,
            bool(addresses),
        )
        for author in authors[:MOST]
    ]
    for findings in await asyncio.gather(*alignments):
        for finding in findings:
            yield finding


def signers_of(checks: Iterable[PluginCheck]) -> Iterator[Signer]:
    """The keys that plugins say they sign with: objects with a domain and a selector."""
    for check in checks:
        for one in check.said if isinstance(check.said, list) else ():
            if isinstance(one, dict) and one.get("status") != "ended":
                domain, selector = one.get("domain"), one.get("selector")
                if isinstance(domain, str) and isinstance(selector, str):
                    yield Signer(domain.lower(), selector.lower())


async def _key(resolver: Resolver, signer: Signer) -> Finding:
    """Whether the public half of a key is published (RFC 6376 3.6.2)."""
    name = f"{signer.selector}._domainkey.{signer.domain}"
    remedy = f"publish the key at {name}, or sign with another selector"
    try:
        records = await resolver.txt(name)
    except NoSuchDomainError:
        records = []
    except ResolutionError as error:
        return warning(f"the DNS does not tell the key at {name}: {error}", "try again")
    keys = [record.replace(b" ", b"") for record in records if b"p=" in record]
    if not keys:
        return problem(f"mail is signed by {name}, and no key is published there", remedy)
    if any(key.endswith(b"p=") or b"p=;" in key for key in keys):
        return problem(f"mail is signed by {name}, and that key was revoked", remedy)
    return ok(f"a key is published at {name}")


async def _verdicts(site: Site, domain: str, addresses: Iterable[str]) -> dict[str, Verdict]:
    hostname = site.config.hostname
    return {
        address: await check_host(site.outside, address, domain, hostname) for address in addresses
    }


def _policy_of_senders(domain: str, verdicts: dict[str, Verdict]) -> Iterator[Finding]:
    """What SPF says of the gateway's addresses."""
    good = [address for address, verdict in verdicts.items() if verdict.result == "pass"]
    if good:
        yield ok(f"SPF of {domain} names {listed(good)}")
    for address, verdict in verdicts.items():
        if verdict.result == "pass":
            continue
        told = f"SPF of {domain} for {address}: {verdict.result} ({verdict.reason})"
        kind = "ip6" if ":" in address else "ip4"
        remedy = f"add {kind}:{address} to the TXT record of {domain} that begins with v=spf1"
        if verdict.result == "temperror":
            yield warning(told, "try again")
        elif verdict.result == "permerror":
            yield problem(told, f"correct the SPF record of {domain}")
        elif verdict.result == "fail":
            yield problem(told, remedy)
        else:
            yield warning(told, remedy)


async def _alignment(
    resolver: Resolver,
    author: str,
    mine: list[Specimen],
    proved: set[str],
    addresses_known: bool,
) -> list[Finding]:
    """Whether what signs, or what SPF proves, stands for the domain in From."""
    try:
        policy = await policy_of(resolver, author)
        if not policy.domain:
            return [
                warning(
                    f"{author} has no DMARC record: large receivers want one",
                    f'publish at _dmarc.{author}: "v=DMARC1; p=none; rua=mailto:…"',
                )
            ]
        lacking = [one for one in mine if not await _stands(resolver, policy, author, one, proved)]
    except ResolutionError as error:
        return [
            warning(f"the DNS does not tell the DMARC record of {author}: {error}", "try again")
        ]
    action = policy.action(author)
    if not lacking:
        told = f"DMARC of {author} holds (p={action})"
        if action == "none":
            return [note(f"{told}: forged mail is not refused", "p=quarantine, then p=reject")]
        return [ok(told)]
    signed = sorted({signer.domain for one in lacking for signer in one.signers})
    who = f"signed by {listed(signed)}" if signed else "not signed"
    unknown = "" if addresses_known else ", as far as is known without the public addresses"
    told = f"mail from {author} fails DMARC (p={action}{unknown}): {who}, and SPF does not align"
    remedy = f"sign it with a key of {author}: gateway dkim keygen {author}"
    bad = problem if action in ("reject", "quarantine") and addresses_known else warning
    return [bad(told, remedy)]


async def _stands(
    resolver: Resolver, policy: Policy, author: str, one: Specimen, proved: set[str]
) -> bool:
    claims = [("adkim", signer.domain) for signer in one.signers]
    claims += [("aspf", domain) for domain in one.envelope & proved]
    for kind, domain in claims:
        organization = (await policy_of(resolver, domain)).organization
        if policy.aligned(kind, author, domain, organization):
            return True
    return False
