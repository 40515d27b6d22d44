"""The names and addresses of the gateway itself, as receivers look them up."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address

from gateway.doctor.finding import Finding, listed, note, ok, problem, warning
from gateway.doctor.site import Site
from gateway.resolver import NoSuchDomainError, ResolutionError, Resolver, stays_here

_ELSEWHERE = ("192.0.2.1", "2001:db8::1")
"""Addresses of nobody (RFC 5737, RFC 3849): nothing is sent, only the way there is asked for."""


async def examine(site: Site) -> AsyncIterator[Finding]:
    """What is to be said of hostname, addresses and PTR records."""
    hostname = site.config.hostname
    if "." not in hostname:
        yield warning(
            f'hostname is "{hostname}", a name that nobody else knows',
            "hostname: the name of this machine in the DNS",
        )
        return
    try:
        own = await site.outside.addresses(hostname)
    except NoSuchDomainError:
        own = []
    except ResolutionError as error:
        yield problem(
            f"the DNS does not answer for {hostname}: {error}",
            "look at dns.nameservers and /etc/resolv.conf: no mail can be sent without it",
        )
        return
    if own and all(map(stays_here, own)):
        yield warning(
            f"{hostname} leads to {listed(own)} in the DNS, where nobody else finds this machine",
            f"publish the public address of {hostname}",
        )
    elif own:
        yield ok(f"{hostname} has {listed(own)}")
    else:
        yield warning(
            f"{hostname} has no address in the DNS: receivers distrust an EHLO with it",
            f"publish an A or AAAA record of {hostname}",
        )
    sources = await source_addresses(site)
    if not sources:
        yield note(
            "the public addresses of this machine are not known: it is behind another one",
            "gateway doctor --address IP, for each address that mail leaves from",
        )
    if site.plugins_with("source") and not site.addresses:
        yield note(
            f"{listed(site.plugins_with('source'))} chooses source addresses of its own",
            "gateway doctor --address IP, for each that mail leaves from",
        )
    direct = not site.config.relay.via
    for address in sources:
        yield await _pointer(site.outside, address, hostname, direct)


async def source_addresses(site: Site) -> list[str]:
    """The addresses that receivers see mail come from, as far as this machine can know.

    Those that somebody named; or else those of this machine that are public; or else, behind
    another machine, those that `hostname` has.
    """
    if site.addresses:
        return list(site.addresses)
    local = [address for address in map(_local, _ELSEWHERE) if address]
    public = [address for address in local if ip_address(address).is_global]
    if public:
        return public
    try:
        found = await site.outside.addresses(site.config.hostname)
    except (NoSuchDomainError, ResolutionError):
        return []
    return [address for address in found if ip_address(address).is_global]


def _local(elsewhere: str) -> str:
    """The address that this machine takes on its way to another; '' without a way."""
    family = socket.AF_INET6 if ":" in elsewhere else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect((elsewhere, 25))
            return str(way.getsockname()[0])
    except OSError:
        return ""


async def _pointer(resolver: Resolver, address: str, hostname: str, direct: bool) -> Finding:
    """Whether the name of an address leads back to it, and is the one in EHLO."""
    remedy = f"have your provider set the PTR record of {address} to {hostname}"
    bad = problem if direct else warning
    try:
        names = await resolver.names(address)
        back = [name for name in names if address in await _addresses(resolver, name)]
    except ResolutionError as error:
        return warning(f"the DNS does not tell the name of {address}: {error}", "try again")
    if not names:
        return bad(f"{address} has no name (PTR): many receivers refuse its mail", remedy)
    if not back:
        return bad(f"{address} is called {listed(names)}, which does not lead back to it", remedy)
    if hostname.lower() not in back:
        return warning(
            f"{address} is called {listed(back)}, and says EHLO {hostname}: some receivers mind",
            remedy,
        )
    return ok(f"{address} is called {hostname}, which leads back to it")


async def _addresses(resolver: Resolver, name: str) -> list[str]:
    try:
        return await resolver.addresses(name)
    except NoSuchDomainError:
        return []
