"""Sender Policy Framework (RFC 7208): may an address send for a domain?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from gateway.resolver import NoSuchDomainError, ResolutionError, Resolver

LOOKUPS = 10
"""Terms that ask the DNS, at most (4.6.4)."""

VOID_LOOKUPS = 2
"""Questions without an answer, at most (4.6.4)."""

_NAMES_OF_ADDRESS = 10
_TERM = re.compile(
    r"([+?~-]?)(all|include|a|mx|ptr|ip4|ip6|exists)(?::(.*?))?((?:/\d{1,3})?(?://\d{1,3})?)",
    re.IGNORECASE,
)
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=(\S*)", re.IGNORECASE)
_MACRO = re.compile(r"%(?:\{([slodiphvr])(\d{0,3})(r?)([.\-+,/_=]*)\}|([%_-]))", re.IGNORECASE)
_RESULTS = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral", "": "pass"}

Address = IPv4Address | IPv6Address


class PolicyError(Exception):
    """A policy that receivers cannot follow: permerror."""


class UnknownNowError(Exception):
    """The DNS cannot tell now: temperror."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a receiver comes to.

    Attributes:
        result: `pass`, `fail`, `softfail`, `neutral`, `none`, `permerror` or `temperror`.
        reason: the term that matched, or what is wrong.
        lookups: how many terms asked the DNS.
    """

    result: str
    reason: str
    lookups: int = 0


@dataclass(slots=True)
class _Inquiry:
    resolver: Resolver
    address: Address
    sender: str
    helo: str
    lookups: int = 0
    voids: int = 0

    def count(self) -> None:
        self.lookups += 1
        if self.lookups > LOOKUPS:
            raise PolicyError(f"more than {LOOKUPS} terms ask the DNS")

    async def ask(self, method: str, name: str) -> list[Any]:
        """Asks the resolver; nothing for a name that does not exist."""
        try:
            found = list(await getattr(self.resolver, method)(name))
        except NoSuchDomainError:
            found = []
        except ResolutionError as error:
            raise UnknownNowError(f"{name}: {error}") from None
        if not found:
            self.voids += 1
            if self.voids > VOID_LOOKUPS:
                raise PolicyError(f"more than {VOID_LOOKUPS} questions have no answer")
        return found


async def policies(resolver: Resolver, domain: str) -> list[str]:
    """The SPF records of a domain; there should be one.

    Raises:
        UnknownNowError: the DNS cannot tell now.
    """
    try:
        records = await resolver.txt(domain)
    except NoSuchDomainError:
        return []
    except ResolutionError as error:
        raise UnknownNowError(f"{domain}: {error}") from None
    texts = [record.decode("ascii", "replace") for record in records]
    return [text for text in texts if re.match(r"v=spf1(?: |$)", text, re.IGNORECASE)]


async def check_host(resolver: Resolver, address: str, domain: str, helo: str) -> Verdict:
    """What a receiver finds for mail from `postmaster@domain` that comes from an address (4)."""
    inquiry = _Inquiry(resolver, ip_address(address), f"postmaster@{domain}", helo)
    try:
        result, reason = await _check(inquiry, domain)
    except PolicyError as error:
        result, reason = "permerror", str(error)
    except UnknownNowError as error:
        result, reason = "temperror", str(error)
    return Verdict(result, reason, inquiry.lookups)


async def _check(inquiry: _Inquiry, domain: str) -> tuple[str, str]:
    records = await policies(inquiry.resolver, domain)
    if not records:
        return "none", f"{domain} has no SPF record"
    if len(records) > 1:
        raise PolicyError(f"{domain} has {len(records)} SPF records; one is allowed")
    redirect = ""
    for word in records[0].split()[1:]:
        term = _TERM.fullmatch(word)
        if term is None:
            modifier = _MODIFIER.fullmatch(word)
            if modifier is None:
                raise PolicyError(f"{domain} has a term that nobody knows: {word}")
            if modifier[1].lower() == "redirect":
                redirect = modifier[2]
            continue
        if await _matches(inquiry, domain, term):
            return _RESULTS[term[1]], f"{word} of {domain}"
    if redirect:
        inquiry.count()
        target = await _expanded(inquiry, redirect, domain)
        result, reason = await _check(inquiry, target)
        if result == "none":
            raise PolicyError(f"{domain} redirects to {target}, which has no SPF record")
        return result, reason
    return "neutral", f"no term of {domain} names it"


async def _matches(inquiry: _Inquiry, domain: str, term: re.Match[str]) -> bool:
    kind, value, lengths = term[2].lower(), term[3] or "", term[4] or ""
    if kind == "all":
        return True
    if kind in ("ip4", "ip6"):
        return _within(inquiry.address, f"{value}{lengths}", kind)
    inquiry.count()
    name = await _expanded(inquiry, value, domain) if value else domain
    if kind == "include":
        result, _ = await _check(inquiry, name)
        if result == "none":
            raise PolicyError(f"{domain} includes {name}, which has no SPF record")
        return result == "pass"
    if kind == "exists":
        return any(":" not in str(one) for one in await inquiry.ask("addresses", name))
    if kind == "ptr":
        return await _named_below(inquiry, name)
    hosts = [name]
    if kind == "mx":
        exchangers = await inquiry.ask("mx", name)
        hosts = [host for _, host in exchangers if host]
        if len(hosts) > LOOKUPS:
            raise PolicyError(f"{name} has more than {LOOKUPS} mail exchangers")
    four, _, six = lengths.partition("//")
    length = (four.strip("/") or "32") if inquiry.address.version == 4 else (six or "128")
    for host in hosts:
        for one in await inquiry.ask("addresses", host):
            found = ip_address(str(one))
            if found.version == inquiry.address.version and inquiry.address in ip_network(
                f"{found}/{length}", strict=False
            ):
                return True
    return False


def _within(address: Address, text: str, kind: str) -> bool:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise PolicyError(f"{kind}:{text} is no network") from None
    if network.version != int(kind[2]):
        raise PolicyError(f"{kind}:{text} is no network of version {kind[2]}")
    return address.version == network.version and address in network


async def _named_below(inquiry: _Inquiry, name: str) -> bool:
    """Whether a name of the address, which leads back to it, is at or below a name (5.5)."""
    names = await inquiry.ask("names", str(inquiry.address))
    for one in [str(found) for found in names][:_NAMES_OF_ADDRESS]:
        if one == name or one.endswith(f".{name}"):
            back = await inquiry.ask("addresses", one)
            if str(inquiry.address) in map(str, back):
                return True
    return False


async def _expanded(inquiry: _Inquiry, text: str, domain: str) -> str:
    """A name with its macros replaced (7)."""
    if "%" not in text:
        return text.rstrip(".").lower()
    local, _, sender_domain = inquiry.sender.rpartition("@")
    address = inquiry.address
    dotted = str(address) if address.version == 4 else ".".join(address.exploded.replace(":", ""))
    values = {
        "s": inquiry.sender,
        "l": local,
        "o": sender_domain,
        "d": domain,
        "i": dotted,
        "p": "unknown",
        "v": "in-addr" if address.version == 4 else "ip6",
        "h": inquiry.helo,
        "r": "unknown",
    }

    def replaced(match: re.Match[str]) -> str:
        if match[5]:
            return {"%": "%", "_": " ", "-": "%20"}[match[5]]
        parts = re.split(f"[{re.escape(match[4] or '.')}]", values[match[1].lower()])
        if match[3]:
            parts.reverse()
        return ".".join(parts[-int(match[2]) :] if match[2] and int(match[2]) else parts)

    return _MACRO.sub(replaced, text).rstrip(".").lower()
