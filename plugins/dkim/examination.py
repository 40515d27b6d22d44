"""Keys compared with what the DNS publishes of them now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.hooks import NoSuchDomainError, ResolutionError, Resolver
from plugins.dkim.config import DkimConfig, Use
from plugins.dkim.publication import Finding, Publication, findings
from plugins.dkim.tag_list import parse_tags
from plugins.dkim.validity import warning

_AT_A_TIME = 20


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found of one key. `ended` says that it signs no more, and was not looked up."""

    key: Publication
    ended: bool
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> list[str]:
        """What is wrong."""
        return [finding.text for finding in self.findings if finding.is_error]

    @property
    def warnings(self) -> list[str]:
        """What somebody should know."""
        return [finding.text for finding in self.findings if not finding.is_error]

    @property
    def status(self) -> str:
        """All of it in one word."""
        return "ended" if self.ended else "wrong" if self.errors else "ok"


async def examine(
    config: DkimConfig,
    keys: Sequence[Publication],
    resolver: Resolver,
    now: float,
    progress: Callable[[], object],
) -> list[Examination]:
    """Looks up all keys, some at a time.

    Args:
        config: where they are from.
        keys: the keys, whose domains are known.
        resolver: asks the DNS.
        now: seconds since the epoch.
        progress: called after each key.
    """
    turns = asyncio.Semaphore(_AT_A_TIME)
    uses = config.uses()

    async def one(key: Publication) -> Examination:
        if now >= key.validity.end:
            progress()
            return Examination(key, ended=True)
        async with turns:
            found = findings(key, await _records(resolver, key.name), now)
            found += await _alignment(resolver, key)
        follows = uses.get(Use(key.private.public.type, key.pattern), [])
        text = warning(Use(key.private.public.type, key.pattern), follows, now)
        if text is not None:
            found.append(Finding(False, text))
        progress()
        return Examination(key, ended=False, findings=tuple(found))

    return await asyncio.gather(*map(one, keys))


async def _records(resolver: Resolver, name: str) -> list[bytes] | None:
    try:
        return await resolver.txt(name)
    except NoSuchDomainError:
        return []
    except ResolutionError:
        return None


async def _alignment(resolver: Resolver, key: Publication) -> list[Finding]:
    """Whether DMARC, of the domain or of the nearest parent that has it, knows the signature."""
    domain = key.domain or ""
    while "." in domain:
        records = await _records(resolver, f"_dmarc.{domain}")
        if records is None:
            return []
        for record in records:
            if record.startswith(b"v=DMARC1"):
                return _strictness(record, domain, key)
        domain = domain.partition(".")[2]
    text = f"no DMARC record at _dmarc.{key.domain}: receivers do not compare signatures with From"
    return [Finding(False, text)]


def _strictness(record: bytes, domain: str, key: Publication) -> list[Finding]:
    try:
        tags = parse_tags(record)
    except ValueError:
        return [Finding(False, f"the DMARC record at _dmarc.{domain} cannot be read")]
    if key.subdomains and "adkim" in tags and tags["adkim"].value.lower() == b"s":
        text = f"adkim=s at _dmarc.{domain}: mail of subdomains is signed, but not aligned"
        return [Finding(False, text)]
    return []
