"""Asks the DNS, and remembers the answers."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.TLSA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver
import dns.reversename

from gateway.attempt import Hop

_NAMES_IN_CACHE = 100_000


class NoSuchDomainError(Exception):
    """The DNS says that the name does not exist, or it cannot be a name in the DNS."""


class ResolutionError(Exception):
    """The DNS gave no answer, or none that makes sense; a later one may."""


@dataclass(frozen=True, slots=True)
class Tlsa:
    """A TLSA record (RFC 6698 2.1): what certificate or key a server has.

    `usage`, `selector` and `matching` are the numbers of the RFC, `data` is what to compare with.
    """

    usage: int
    selector: int
    matching: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is known of a name and record type until `expires`, on the loop's clock.

    `authentic`: a name server that is believed has checked the signatures (DNSSEC) of the whole
    answer. `canonical` is the name at the end of all aliases.
    """

    expires: float
    records: tuple[Any, ...] = ()
    error: NoSuchDomainError | ResolutionError | None = None
    authentic: bool = False
    canonical: str = ""


class Resolver:
    """Asks the DNS, and remembers the answers.

    Equal questions asked at the same time are asked once. Answers are kept for their TTL within
    `min_ttl` and `max_ttl` seconds, negative ones for at most `max_negative_ttl` (RFC 2308), and
    that there was no answer for `failure_ttl` (RFC 9520).

    Args:
        nameservers: `ip` or `ip:port` of each server to ask in turn; the system's without any.
        timeout: seconds for one question, over all servers and repetitions.
        hosts: the file of host names that come before the DNS.
        loopback: whether addresses of this machine itself are believed when they come from the DNS.
            Without it a domain cannot make the gateway send mail back to itself.
        authenticated: whether the name servers are believed when they say that an answer is
            authenticated (the AD bit, RFC 4035 3.2.3); None: if all of them are on this machine,
            because nobody on the way to them can set the bit.

    Attributes:
        authenticated: the same, decided.

    Raises:
        ValueError: a name server is not given by its IP address.
    """

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        timeout: float = 10.0,
        *,
        min_ttl: float = 10.0,
        max_ttl: float = 3600.0,
        max_negative_ttl: float = 300.0,
        failure_ttl: float = 5.0,
        hosts: Path = Path("/etc/hosts"),
        loopback: bool = False,
        authenticated: bool | None = None,
    ) -> None:
        self.loopback = loopback
        self._min_ttl = min_ttl
        self._max_ttl = max_ttl
        self._max_negative_ttl = max_negative_ttl
        self._failure_ttl = failure_ttl
        self._hosts = _HostsFile(hosts)
        self._cache: dict[tuple[str, str], _Answer] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[_Answer]] = {}
        self._dns = _dns_resolver(nameservers)
        self._dns.lifetime = timeout
        # A lost packet must leave time to ask again.
        self._dns.timeout = timeout / 3
        if authenticated is None:
            authenticated = all(map(_is_here, self._dns.nameservers))
        self.authenticated = authenticated
        if authenticated:
            # Asked so, a server says whether the answer is authenticated (RFC 6840 5.7).
            self._dns.set_flags(dns.flags.RD | dns.flags.AD)

    async def mx(self, domain: str) -> list[tuple[int, str]]:
        """The mail exchangers of a domain as (preference, host), the most preferred first.

        The host is empty for a null MX (RFC 7505). The list is empty for a domain without any.

        Raises:
            NoSuchDomainError: the domain does not exist.
            ResolutionError: the DNS cannot tell now.
        """
        return sorted(await self._records(domain, "MX"))

    async def mx_authentic(self, domain: str) -> bool:
        """Whether what `mx` says of a domain, even that there is none, is authenticated."""
        return self.authenticated and (await self._answer(domain, "MX")).authentic

    async def tlsa(self, name: str) -> list[Tlsa]:
        """The TLSA records of a name such as `_25._tcp.mx.example.com`, if they are authenticated.

        Empty if there are none, and if they are not authenticated.

        Raises:
            NoSuchDomainError: the name does not exist.
            ResolutionError: the DNS cannot tell now; that is also what a forged answer is.
        """
        answer = await self._answer(name, "TLSA")
        records = _records(answer)
        return list(records) if answer.authentic else []

    async def authentic_name(self, host: str) -> str | None:
        """The name at the end of a host's aliases; None if its addresses are not authenticated."""
        if not self.authenticated or not self._in_dns(host):
            return None
        answers = await asyncio.gather(self._answer(host, "AAAA"), self._answer(host, "A"))
        found = [answer for answer in answers if answer.records]
        if not found or not all(answer.authentic for answer in found):
            return None
        return found[0].canonical

    async def txt(self, name: str) -> list[bytes]:
        """The TXT records of a name, the strings of each joined; empty if it has none.

        Raises:
            NoSuchDomainError: the name does not exist.
            ResolutionError: the DNS cannot tell now.
        """
        return list(await self._records(name, "TXT"))

    async def addresses(self, host: str) -> list[str]:
        """The IP addresses of a host in the order to try them; empty if it has none.

        An IP address is its own. Names in the hosts file have the addresses there, single labels
        such as `localhost` are looked up as the system does it, all others in the DNS, where those
        of version 6 come first.

        Raises:
            NoSuchDomainError: the host does not exist.
            ResolutionError: the DNS cannot tell now.
        """
        if ip_address(host) is not None:
            return [host]
        local = self._hosts.addresses(host)
        if local:
            return local
        if "." not in host.rstrip("."):
            return [address for _, address in await self._records(host, "system")]
        answers = await asyncio.gather(
            self._records(host, "AAAA"), self._records(host, "A"), return_exceptions=True
        )
        found = [
            address
            for answer in answers
            if not isinstance(answer, BaseException)
            for _, address in answer
            if self.loopback or not stays_here(address)
        ]
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        if not found and errors:
            # Where one type has no answer for now, what the other says is not for good.
            raise next((e for e in errors if not isinstance(e, NoSuchDomainError)), errors[0])
        return found

    async def names(self, address: str) -> list[str]:
        """The names of an IP address, in lower case, as its PTR records give them; often one.

        Raises:
            ValueError: it is no IP address.
            ResolutionError: the DNS cannot tell now.
        """
        name = dns.reversename.from_address(str(ipaddress.ip_address(address))).to_text()
        try:
            return list(await self._records(name, "PTR"))
        except NoSuchDomainError:
            return []

    async def close(self) -> None:
        """Gives up the questions that are still open."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _in_dns(self, host: str) -> bool:
        """Whether `addresses` asks the DNS about a host."""
        name = host.rstrip(".")
        return ip_address(host) is None and "." in name and not self._hosts.addresses(host)

    async def _records(self, name: str, kind: str) -> tuple[Any, ...]:
        return _records(await self._answer(name, kind))

    async def _answer(self, name: str, kind: str) -> _Answer:
        key = (name, kind)
        answer = self._cache.get(key)
        if answer is None or answer.expires <= asyncio.get_running_loop().time():
            task = self._asking.get(key)
            if task is None:
                task = asyncio.create_task(self._ask(name, kind))
                self._asking[key] = task
                task.add_done_callback(lambda _: self._asking.pop(key, None))
            # Whoever asked first may lose interest; the others still wait.
            try:
                answer = await asyncio.shield(task)
            except asyncio.CancelledError:
                waiter = asyncio.current_task()
                if task.cancelled() and waiter is not None and not waiter.cancelling():
                    raise ResolutionError("the resolver was closed") from None
                raise
        return answer

    async def _ask(self, name: str, kind: str) -> _Answer:
        if kind == "system":
            answer = await self._ask_system(name)
        else:
            answer = await self._ask_dns(name, kind)
        while len(self._cache) >= _NAMES_IN_CACHE:
            del self._cache[next(iter(self._cache))]
        self._cache[name, kind] = answer
        return answer

    async def _ask_dns(self, name: str, kind: str) -> _Answer:
        now = asyncio.get_running_loop().time
        try:
            absolute = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError) as error:
            return _Answer(now() + self._max_negative_ttl, error=NoSuchDomainError(str(error)))
        try:
            found = await self._dns.resolve(absolute, kind, search=False, raise_on_no_answer=False)
            records = tuple(_record(data) for data in found) if found.rrset is not None else ()
            ttl = found.chaining_result.minimum_ttl
            authentic = self._believes(found.response)
            canonical = found.canonical_name.to_text(omit_final_dot=True).lower()
        except dns.resolver.NXDOMAIN as error:
            response = error.response(absolute)  # type: ignore[no-untyped-call]
            assert isinstance(response, dns.message.QueryMessage)
            ttl = response.resolve_chaining().minimum_ttl
            return _Answer(
                now() + self._bounded(ttl, self._max_negative_ttl),
                error=NoSuchDomainError(name),
                authentic=self._believes(response),
            )
        except (dns.exception.DNSException, OSError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            return _Answer(now() + self._failure_ttl, error=ResolutionError(reason))
        longest = self._max_ttl if records else self._max_negative_ttl
        return _Answer(
            now() + self._bounded(ttl, longest), records, authentic=authentic, canonical=canonical
        )

    def _believes(self, response: dns.message.Message) -> bool:
        return self.authenticated and bool(response.flags & dns.flags.AD)

    async def _ask_system(self, name: str) -> _Answer:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            # The system does not say reliably whether a name does not exist or cannot be found now.
            reason = f"{name}: {error}"
            return _Answer(loop.time() + self._failure_ttl, error=ResolutionError(reason))
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        in_order = sorted(addresses, key=lambda address: ":" not in address)
        return _Answer(loop.time() + self._min_ttl, tuple((0, address) for address in in_order))

    def _bounded(self, ttl: float, longest: float) -> float:
        return max(self._min_ttl, min(ttl, longest))


class _HostsFile:
    """The addresses that `/etc/hosts` gives, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int] | None = None
        self._addresses: dict[str, list[str]] = {}

    def addresses(self, host: str) -> list[str]:
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_size)
            if version != self._version:
                self._addresses = self._read()
                self._version = version
        except OSError:
            return []
        return list(self._addresses.get(host.lower(), ()))

    def _read(self) -> dict[str, list[str]]:
        addresses: dict[str, list[str]] = {}
        for line in self._path.read_text("utf-8", "replace").splitlines():
            fields = line.partition("#")[0].split()
            if fields and ip_address(fields[0]) is not None:
                for name in fields[1:]:
                    addresses.setdefault(name.lower(), []).append(fields[0])
        return addresses


def _dns_resolver(nameservers: Sequence[str]) -> dns.asyncresolver.Resolver:
    if not nameservers:
        try:
            resolver = dns.asyncresolver.Resolver()
        except dns.resolver.NoResolverConfiguration:
            # What resolv.conf(5) says where there is no such file.
            nameservers = ["127.0.0.1:53"]
    if nameservers:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = [_nameserver(server) for server in nameservers]
    # The size that fits any path without fragments (RFC 9715).
    resolver.use_edns(0, 0, 1232)
    return resolver


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    server = Hop(text, 53) if ip_address(text) is not None else Hop.parse(text)
    if ip_address(server.host) is None:
        raise ValueError(f"name server {text!r}: expected an IP address, and a port if not 53")
    return dns.nameserver.Do53Nameserver(server.host, server.port)


def _is_here(server: str | dns.nameserver.Nameserver) -> bool:
    """Whether a name server is on this machine."""
    address = ip_address(server if isinstance(server, str) else server.answer_nameserver())
    return address is not None and address.is_loopback


def _records(answer: _Answer) -> tuple[Any, ...]:
    if answer.error is not None:
        # A new one each time: raising adds a traceback to it.
        raise type(answer.error)(*answer.error.args)
    return answer.records


def _record(data: dns.rdata.Rdata) -> tuple[int, str] | str | bytes | Tlsa:
    """A mail exchanger as (preference, host), an address as (0, address), a text as octets, and
    what a PTR leads to as a name.
    """
    if isinstance(data, dns.rdtypes.ANY.TXT.TXT):
        return b"".join(data.strings)
    if isinstance(data, dns.rdtypes.ANY.MX.MX):
        host = data.exchange.to_text(omit_final_dot=True).lower()
        return data.preference, "" if data.exchange == dns.name.root else host
    if isinstance(data, dns.rdtypes.ANY.TLSA.TLSA):
        return Tlsa(data.usage, data.selector, data.mtype, data.cert)
    if isinstance(data, dns.rdtypes.ANY.PTR.PTR):
        return data.target.to_text(omit_final_dot=True).lower()
    assert isinstance(data, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA)
    return 0, data.address


def ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a text is; None for a name."""
    # Most names are not addresses, and finding that out by an exception is slow.
    if ":" not in text and not text[-1:].isdigit():
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def stays_here(host: str) -> bool:
    """Whether a host can only be this machine, or a group of them, and never a mail exchanger."""
    address = ip_address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified or address.is_multicast
