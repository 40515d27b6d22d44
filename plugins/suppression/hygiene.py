"""Recipients that cannot be right: misspelled domains, and domains that take no mail."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import lru_cache

from gateway.hooks import NoSuchDomainError, Reject, ResolutionError, Resolver
from plugins.suppression.config import HygieneConfig
from plugins.suppression.misspelling import Misspellings


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a domain.

    Attributes:
        text: what it is, for the log.
        answer: the reply to a client, should it get one.
        rejects: whether it gets one.
    """

    text: str
    answer: Reject
    rejects: bool


class Hygiene:
    """Looks at the domains of recipients.

    Args:
        config: what is done about which flaw.
        resolver: asks the DNS.
    """

    def __init__(self, config: HygieneConfig, resolver: Resolver) -> None:
        self._config = config
        self._resolver = resolver
        self._misspellings = Misspellings(config.known)
        # Mail has the same domains over and over.
        self.misspelled = lru_cache(maxsize=8192)(self._misspelled)

    def _misspelled(self, domain: str) -> Flaw | None:
        """What is wrong with the spelling of a normal domain."""
        if self._config.misspelled == "pass" or not domain.isascii():
            return None
        meant = self._misspellings.meant(domain)
        if meant is None:
            return None
        return Flaw(
            f"misspelled: {domain}, {meant} is meant",
            Reject(f"There is no mail domain {domain}, did you mean {meant}?", status="5.1.2"),
            self._config.misspelled == "reject",
        )

    async def without_mail(self, domain: str) -> Flaw | None:
        """What the DNS says against a normal domain; nothing if it does not answer in time.

        An address literal, and a name without a dot, is not looked up.
        """
        if "." not in domain or domain[0] == "[" or not domain.isascii():
            return None
        try:
            async with asyncio.timeout(self._config.timeout):
                return await self._ask(domain)
        except (TimeoutError, ResolutionError):
            return None

    async def _ask(self, domain: str) -> Flaw | None:
        try:
            exchangers = await self._resolver.mx(domain)
        except NoSuchDomainError:
            exchangers = []
        if any(host for _, host in exchangers):
            return None
        if exchangers:
            text = f"The domain {domain} takes no mail"
            return self._unreachable(f"null MX: {domain}", Reject(text, 556, "5.1.10"))
        try:
            # Also asks the system's own table of hosts, which the DNS does not know.
            addresses = await self._resolver.addresses(domain)
        except NoSuchDomainError:
            addresses = []
        if addresses:
            return None
        return self._unreachable(
            f"no mail server: {domain}",
            Reject(f"There is no mail server for the domain {domain}", status="5.1.2"),
        )

    def _unreachable(self, text: str, answer: Reject) -> Flaw:
        return Flaw(text, answer, self._config.without_mail == "reject")
