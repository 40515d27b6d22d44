"""How connections to next hops must be protected: as configured, and as receivers publish."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.attempt import Credentials, Delivery, Disposition, Hop, Outcome, Route, TlsLevel
from gateway.configuration.relay import RelayTls, TlsPolicy
from gateway.delivery.dane import usable
from gateway.delivery.https import Fetch
from gateway.delivery.mta_sts import Mode, Policy
from gateway.delivery.mta_sts_policies import Policies
from gateway.delivery.protection import Protection
from gateway.delivery.tls_context import Contexts
from gateway.hooks.condition import glob
from gateway.mail.address import domain_name, domain_of
from gateway.mail.large_content import Content
from gateway.resolver import NoSuchDomainError, ResolutionError, Resolver, Tlsa, ip_address

AVOIDED_SECONDS = 600.0
"""How long TLS that failed with a host, and that nobody demands, is not tried again there."""

_CONFIGURED = "the configuration"
_RANK = {level: rank for rank, level in enumerate(TlsLevel)}
_WITHOUT_DEMAND = (TlsLevel.NONE, TlsLevel.OPPORTUNISTIC)
_MOST = 10_000
_TLS_REQUIRED_NO = re.compile(rb"(?im)^tls-required[ \t]*:[ \t]*no[ \t]*\r?$")

log = logging.getLogger("gateway.tls")


@dataclass(frozen=True, slots=True)
class Requirement:
    """What the connections for some mail must be like; equal ones share connections.

    Attributes:
        level: what the configuration demands.
        implicit, login: as in `Route`.
        dane: whether TLSA records are asked for and obeyed.
        policy: the MTA-STS policy that holds.
        require_tls: the message came with REQUIRETLS (RFC 8689).
        certain: whether the names of the hops are: configured, or authenticated (DNSSEC).
        domain: the receiving domain, where it publishes what is obeyed.
    """

    level: TlsLevel
    implicit: bool = False
    login: Credentials | None = None
    dane: bool = False
    policy: Policy | None = None
    require_tls: bool = False
    certain: bool = True
    domain: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class _Published:
    """The TLSA records of a server, under which of its names, and those that can be used."""

    name: str
    usable: tuple[Tlsa, ...]


class Tls:
    """Decides how connections are protected.

    The configuration gives the level. Where mail goes to the exchangers of its domain, what the
    domain publishes comes on top: TLSA records (RFC 7672) and an MTA-STS policy (RFC 8461); a
    message with `TLS-Required: No` (RFC 8689) does without them. The level `none` does without
    all TLS, except for a message with REQUIRETLS.

    Args:
        config: `relay.tls`.
        resolver: asks the DNS.
        folder: for the files of MTA-STS policies.
        clock: seconds since the epoch.
        https_port: where policies are fetched.
    """

    def __init__(
        self,
        config: RelayTls,
        resolver: Resolver,
        folder: Path,
        clock: Callable[[], float] = time.time,
        *,
        https_port: int = 443,
    ) -> None:
        self._config = config
        self._resolver = resolver
        self._clock = clock
        self._contexts = Contexts(config)
        fetch = Fetch(resolver, lambda: self._contexts.web, https_port)
        self._policies = Policies(resolver, fetch, folder, clock)
        self._rules = [_Rule(policy) for policy in config.policies]
        self._by_recipient = any(policy.recipient_domain for policy in config.policies)
        self._levels: dict[tuple[str, str], TlsLevel] = {}
        self._requirements: dict[tuple[object, ...], Requirement] = {}
        self._avoided: dict[tuple[Hop, str], float] = {}

    async def requirement(self, delivery: Delivery, route: Route) -> Requirement:
        """What the connections for a delivery must be like.

        It waits only where it is not known yet whether the domain has an MTA-STS policy.
        """
        level = route.tls
        if level is None:
            level = self._level(delivery, route) if self._rules else self._config.level
        if (route.login is not None or route.implicit_tls) and level in _WITHOUT_DEMAND:
            level = TlsLevel.REQUIRED
        require_tls = delivery.require_tls
        dane, policy, domain = False, None, ""
        if route.is_mx and (level is not TlsLevel.NONE or require_tls):
            domain = delivery.domain
            dane = route.authentic and self._config.dane
            if self._config.mta_sts:
                policy = await self._policies.policy(domain)
            if (dane or policy is not None) and not require_tls and _does_without(delivery.octets):
                dane, policy = False, None
        certain = route.authentic or not route.is_mx
        key = (level, route.implicit_tls, route.login, dane, policy, require_tls, certain, domain)
        requirement = self._requirements.get(key)
        if requirement is None:
            if len(self._requirements) >= _MOST:
                self._requirements.clear()
            requirement = self._requirements[key] = Requirement(*key)
        return requirement

    async def protection(self, requirement: Requirement, hop: Hop) -> Protection | Outcome:
        """How a new connection to a hop is protected, or why the hop must not be used."""
        policy, domain = requirement.policy, requirement.domain
        if requirement.require_tls and policy is None and not requirement.certain:
            # Whoever forges an MX has a certificate for the name in it (RFC 8689 4.2.1).
            reason = f"neither DNSSEC nor an MTA-STS policy of {domain} vouches for it"
            return _unusable(hop, reason, requirement)
        if policy is not None and not policy.allows(hop.host):
            reason = f"it is not among the servers in the MTA-STS policy of {domain}"
            if not _is_in_testing(requirement):
                return _unusable(hop, reason, requirement)
            self._break(hop, domain, reason)
            requirement = replace(requirement, policy=None)
        published = await self._published(hop) if requirement.dane else None
        if isinstance(published, Outcome):
            return published
        try:
            return self._protection(requirement, hop, published)
        except OSError as error:
            text = f"the certificates of relay.tls cannot be read: {error.strerror}"
            return Outcome(Disposition.DEFERRED, 0, "4.3.5", text, "tls")

    async def close(self) -> None:
        """Gives up what is under way."""
        await self._policies.close()

    def _protection(
        self, requirement: Requirement, hop: Hop, published: _Published | None
    ) -> Protection | Outcome:
        contexts, level = self._contexts, requirement.level
        common = Protection(
            name=_name(hop.host),
            implicit=requirement.implicit,
            require_tls=requirement.require_tls,
            login=requirement.login,
        )
        encrypted = replace(common, context=contexts.encrypted, demanded_by=_CONFIGURED)
        if published is not None:
            by = f"TLSA of {published.name}"
            encrypted = replace(encrypted, demanded_by=by, name=_name(published.name))
            if published.usable:
                names = (published.name, hop.host, requirement.domain)
                return replace(encrypted, verified_by="DANE", tlsa=published.usable, names=names)
        usual = common
        if level is TlsLevel.REQUIRED or published is not None:
            usual = encrypted
        elif level is TlsLevel.OPPORTUNISTIC:
            usual = self._unless_avoided(hop, contexts.opportunistic, common)
        if level is TlsLevel.VERIFIED:
            by, verified_by, context = _CONFIGURED, "certificate", contexts.verified
        elif requirement.policy is not None:
            by, verified_by = f"the MTA-STS policy of {requirement.domain}", "MTA-STS"
            context = contexts.public
        elif requirement.require_tls:
            by, verified_by, context = "REQUIRETLS", "certificate", contexts.public
        else:
            return usual
        if not common.name:
            return _unusable(hop, "no certificate can have such a name", requirement)
        verified = replace(common, context=context, demanded_by=by, verified_by=verified_by)
        if level is TlsLevel.VERIFIED or not _is_in_testing(requirement):
            return verified
        return self._in_testing(hop, requirement.domain, verified, usual)

    def _unless_avoided(self, hop: Hop, context: ssl.SSLContext, common: Protection) -> Protection:
        """TLS that nobody demands, unless it failed lately."""
        if self._is_avoided(hop, ""):
            return common

        def avoid(reason: str) -> None:
            if self._avoid(hop, ""):
                minutes = AVOIDED_SECONDS / 60
                log.warning("mail to %s is in the clear for %g minutes: %s", hop, minutes, reason)

        return replace(common, context=context, otherwise=common, failed=avoid)

    def _in_testing(
        self, hop: Hop, domain: str, verified: Protection, usual: Protection
    ) -> Protection:
        """What a policy in testing asks for, unless that failed lately; otherwise as usual."""
        if self._is_avoided(hop, domain):
            return usual
        return replace(
            verified, otherwise=usual, failed=functools.partial(self._break, hop, domain)
        )

    def _break(self, hop: Hop, domain: str, reason: str) -> None:
        """Tells that a policy is broken that is only in testing (RFC 8461 5)."""
        if self._avoid(hop, domain):
            log.warning("MTA-STS policy of %s (testing) is broken by %s: %s", domain, hop, reason)

    def _avoid(self, hop: Hop, domain: str) -> bool:
        """Remembers that TLS failed; returns whether that is news."""
        news = not self._is_avoided(hop, domain)
        if len(self._avoided) >= _MOST:
            del self._avoided[next(iter(self._avoided))]
        self._avoided[hop, domain] = self._clock() + AVOIDED_SECONDS
        return news

    def _is_avoided(self, hop: Hop, domain: str) -> bool:
        return self._avoided.get((hop, domain), 0.0) > self._clock()

    async def _published(self, hop: Hop) -> _Published | Outcome | None:
        """The TLSA records of a hop; None if it has none, or its addresses are not authentic."""
        own = hop.host.rstrip(".").lower()
        name = own
        try:
            base = await self._resolver.authentic_name(own)
            # At the end of all aliases first (RFC 7672 2.2.2).
            for host in dict.fromkeys((base, own)) if base is not None else ():
                name = f"_{hop.port}._tcp.{host}"
                with contextlib.suppress(NoSuchDomainError):
                    records = await self._resolver.tlsa(name)
                    if records:
                        return _Published(host, usable(records))
        except ResolutionError as error:
            text = f"{hop.host} must not be used: DNS has no answer for TLSA of {name}: {error}"
            return Outcome(Disposition.DEFERRED, 0, "4.7.5", text, "tls")
        return None

    def _level(self, delivery: Delivery, route: Route) -> TlsLevel:
        """The strictest of the levels that the recipients' domains have."""
        sender = domain_of(delivery.sender)
        domains = {delivery.domain}
        if self._by_recipient and not route.is_mx:
            domains.update([recipient.domain for recipient in delivery.recipients])
        levels = [self._level_of(domain, sender) for domain in domains]
        return max(levels, key=_RANK.__getitem__)

    def _level_of(self, recipient: str, sender: str) -> TlsLevel:
        known = self._levels.get((recipient, sender))
        if known is None:
            found = (rule.level for rule in self._rules if rule.matches(recipient, sender))
            known = next(found, self._config.level)
            if len(self._levels) >= _MOST:
                self._levels.clear()
            self._levels[recipient, sender] = known
        return known


class _Rule:
    """A policy of the configuration, compiled."""

    def __init__(self, policy: TlsPolicy) -> None:
        self.level = policy.level
        self._recipient = glob(policy.recipient_domain or "*")
        self._sender = glob(policy.sender_domain or "*")

    def matches(self, recipient: str, sender: str) -> bool:
        return self._recipient(recipient) and self._sender(sender)


def _is_in_testing(requirement: Requirement) -> bool:
    """Whether a policy is only to be tried; who demands REQUIRETLS cannot wait for that."""
    policy = requirement.policy
    return policy is not None and policy.mode is Mode.TESTING and not requirement.require_tls


def _does_without(content: Content) -> bool:
    """Whether a message prefers arriving to being protected (RFC 8689 5)."""
    if not isinstance(content, bytes):
        content = content.header()
    end = content.find(b"\r\n\r\n")
    header = content if end < 0 else content[:end]
    # Nearly none has it, and this is quicker than the expression.
    return b"tls-required" in header.lower() and _TLS_REQUIRED_NO.search(header) is not None


def _name(host: str) -> str:
    """The name or address that a host has in certificates; '' if it can have none."""
    if ip_address(host) is not None:
        return host
    try:
        return domain_name(host.rstrip("."))
    except ValueError:
        return ""


def _unusable(hop: Hop, reason: str, requirement: Requirement) -> Outcome:
    text = f"{hop.host} must not be used: {reason}"
    if requirement.require_tls:
        return Outcome(Disposition.FAILED, 0, "5.7.30", f"REQUIRETLS: {text}", "tls")
    return Outcome(Disposition.DEFERRED, 0, "4.7.5", text, "tls")
