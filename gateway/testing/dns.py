"""A DNS server on loopback that answers from a dict, or fails in the way that a test asks for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from enum import Enum
from types import TracebackType
from typing import Self, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

_SOA = "ns.invalid. hostmaster.invalid. 1 3600 600 86400 60"


class Failure(Enum):
    """An answer other than records.

    `SILENCE` is no answer at all, `NONSENSE` bytes that are no DNS message, and `TRUNCATED` a UDP
    answer that sends the client to TCP, where it gets NODATA.
    """

    NXDOMAIN = "nxdomain"
    SERVFAIL = "servfail"
    REFUSED = "refused"
    SILENCE = "silence"
    NONSENSE = "nonsense"
    TRUNCATED = "truncated"


Records = Mapping[str, list[str] | Failure]
"""Record type to the records in the form of a zone file, such as `{"MX": ["10 mx.example."]}`."""


class FakeDns:
    """A DNS server for tests, on UDP and TCP at one port of the loopback interface.

    A name that is not in `zones` does not exist; a type that a name lacks is an empty answer.
    `zones` may be changed while the server runs.

        async with FakeDns({"example.com": {"MX": ["10 mx.example.com."]}}) as server:
            resolver = Resolver([server.address])

    Args:
        zones: name to records, or to the failure that every question about it meets.
        ttl: of all records, in seconds.
        signed: the zones whose answers are authenticated (DNSSEC): the AD bit says so to who asks
            for it, if all names of an answer are in them. The root zone is `.`.

    Attributes:
        address: `127.0.0.1:port`, once it runs.
        queries: how often each (name, type) was asked, over UDP and TCP together.
    """

    def __init__(
        self,
        zones: Mapping[str, Records | Failure],
        *,
        ttl: int = 60,
        signed: Collection[str] = (),
    ) -> None:
        self.zones = dict(zones)
        self.ttl = ttl
        self.signed = set(signed)
        self.queries: Counter[tuple[str, str]] = Counter()
        self.address = ""
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        # The system chooses a port for TCP; the same port may be taken for UDP.
        for remaining in reversed(range(10)):
            tcp = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            port = int(tcp.sockets[0].getsockname()[1])
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Udp(self), local_addr=("127.0.0.1", port)
                )
            except OSError:
                tcp.close()
                if not remaining:
                    raise
            else:
                self._tcp = tcp
                self.address = f"127.0.0.1:{port}"
                break
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._udp is not None
        assert self._tcp is not None
        self._udp.close()
        self._tcp.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        await self._tcp.wait_closed()

    def answer(self, wire: bytes, *, over_tcp: bool) -> bytes | None:
        """The answer to a question, both in wire format; None for silence."""
        try:
            question = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if not question.question:
            return None
        asked = question.question[0]
        name = asked.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(asked.rdtype)
        self.queries[name, kind] += 1
        response = dns.message.make_response(question, recursion_available=True)
        failure = self._fill(response, name, kind)
        if _wants_to_know(question) and self._is_signed(response):
            response.flags |= dns.flags.AD
        if failure is Failure.SILENCE:
            return None
        if failure is Failure.NONSENSE:
            # The right id, so that the client cannot take it for a stray packet.
            return wire[:2] + b"\xff" * 7
        if failure is Failure.TRUNCATED and not over_tcp:
            response.flags |= dns.flags.TC
        try:
            largest = 65535 if over_tcp else max(512, question.payload)
            return response.to_wire(max_size=largest)
        except dns.exception.TooBig:
            for section in (response.answer, response.authority, response.additional):
                section.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> Failure | None:
        """Adds the records, following aliases; returns what else there is to answer."""
        for _ in range(10):
            records = self.zones.get(name, Failure.NXDOMAIN)
            if not isinstance(records, Failure):
                found = records.get(kind, [])
                if not found and kind != "CNAME" and isinstance(records.get("CNAME"), list):
                    found = records["CNAME"]
                    assert not isinstance(found, Failure)
                    response.answer.append(self._rrset(name, "CNAME", found))
                    name = found[0].rstrip(".").lower()
                    continue
                if not isinstance(found, Failure):
                    if found:
                        response.answer.append(self._rrset(name, kind, found))
                    else:
                        response.authority.append(self._rrset(name, "SOA", [_SOA]))
                    return None
                records = found
            if records is Failure.NXDOMAIN:
                response.set_rcode(dns.rcode.NXDOMAIN)
                response.authority.append(self._rrset(name, "SOA", [_SOA]))
            elif records is Failure.SERVFAIL:
                response.set_rcode(dns.rcode.SERVFAIL)
            elif records is Failure.REFUSED:
                response.set_rcode(dns.rcode.REFUSED)
            return records
        return None

    def _is_signed(self, response: dns.message.Message) -> bool:
        names = [rrset.name for rrset in (*response.answer, *response.authority)]
        zones = [dns.name.from_text(zone) for zone in self.signed]
        return bool(names) and all(any(n.is_subdomain(zone) for zone in zones) for n in names)

    def _rrset(self, name: str, kind: str, records: list[str]) -> dns.rrset.RRset:
        absolute = dns.name.from_text(name)
        return dns.rrset.from_text_list(absolute, self.ttl, "IN", kind, records)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.create_task(self._serve_tcp(reader, writer))
        self._sessions.add(session)
        # Not in the task itself: one that is cancelled before it begins runs no line of it.
        session.add_done_callback(lambda _: self._ended(session, writer))

    def _ended(self, session: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        writer.close()
        self._sessions.discard(session)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                response = self.answer(await reader.readexactly(length), over_tcp=True)
                if response is not None:
                    writer.write(len(response).to_bytes(2, "big") + response)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has what it wanted


def _wants_to_know(question: dns.message.Message) -> bool:
    """Whether a client asks if the answer is authenticated (RFC 6840 5.7)."""
    return bool(question.flags & dns.flags.AD or question.ednsflags & dns.flags.DO)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: FakeDns) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        response = self._server.answer(data, over_tcp=False)
        if response is not None:
            self._transport.sendto(response, addr)
