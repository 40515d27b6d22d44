"""A gateway that works without a pause needs no more at the end than it did when it was warm.

All plugins that need no network are in its chain, so that what they keep is found too; and between
the good messages come those that are refused, that bounce, that break off, and questions over HTTP.
GATEWAY_SOAK_MESSAGES in the environment names another number of messages.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.daemon import free_port
from bench.load import Sink
from gateway.testing import NextHop
from tests.conftest import DebianProgram, Scale
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, until
from tests.faults.consumption import Consumption
from tests.faults.figures import Figures

DOMAINS = 40
"""Most domains of recipients, each with its batch of messages, in turn. All have had theirs when it
is warm: what is remembered of a domain is no leak."""

ODD = 3
"""Messages and dialogues of each odd kind between two batches."""

WARM_UP = 30
"""Percent of the batches, in which caches fill and the allocator finds its sizes."""

GROWTH = 1.05
"""How many times as much memory there may be at the end."""

MESSAGE = """\
From: Shop <shop@example.com>
To: Customer <customer@example.net>
Subject: The offers of the week
X-Campaign: soak
Date: Wed, 15 Apr 2026 09:00:00 +0900
Message-ID: <soak@example.com>
MIME-Version: 1.0
Content-Type: text/html; charset=utf-8

<html><body>
{links}
<a href="%%unsubscribe_url%%">Leave</a></body></html>
"""

PLUGINS = """\
http: {{address: '127.0.0.1:{http}'}}
relay: {{via: ['{sink}'], routes: {{bounce.example: ['{hop}']}}, idle: 500ms}}
plugins:
  - suppression: {{domains: [refused.example]}}
  - tracking: {{base_url: 'https://t.example.com'}}
  - report
  - dkim: {{keys: [{{domain: example.com, selector: s1, file: key.pem}}]}}
  - throttle
"""


class Soak:
    """A gateway under load, and what goes to it.

    Args:
        gateway: it; it has been configured for `sink`, the HTTP port and plugins.
        source: the program smtp-source.
        sink: where its mail goes.
        web: the port of its HTTP service.
        next_hops: the ports that its mail goes to.
    """

    def __init__(
        self, gateway: Gateway, source: Path, sink: Sink, web: int, next_hops: Iterable[int]
    ) -> None:
        self.gateway = gateway
        self._source = source
        self._sink = sink
        self._web = web
        self._next_hops = tuple(next_hops)
        self._message = gateway.folder / "message"
        links = [
            f"<p>{'An offer that is worth a look. ' * 4}"
            f'<a href="https://www.example.com/{number}">{number}</a></p>'
            for number in range(8)
        ]
        self._message.write_text(MESSAGE.format(links="\n".join(links)))

    async def batch(self, number: int, domain: str, messages: int) -> None:
        """Sends some messages to a domain, and waits until all have arrived."""
        goal = self._sink.count() + messages
        process = await asyncio.create_subprocess_exec(
            self._source,
            *("-4", "-d", "-N", "-s", "10", "-m", str(messages), "-F", str(self._message)),
            *("-M", "client.example.com", "-f", f"s{number}@example.com"),
            *("-t", f"r@{domain}", f"127.0.0.1:{self.gateway.port}"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, complaint = await asyncio.wait_for(process.communicate(), DEADLINE)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, complaint
        await self.arrived(goal)

    async def odd(self, number: int) -> None:
        """Mail that is refused, or bounces, or breaks off; and questions over HTTP."""
        goal = self._sink.count() + ODD
        await asyncio.to_thread(self._odd, number)
        await self.arrived(goal)

    def _odd(self, number: int) -> None:
        for turn in range(ODD):
            with self.gateway.client() as client:
                client.ehlo()
                client.mail(f"s{number}@example.com")
                code, _ = client.rcpt(f"r{turn}@refused.example")
                assert code == 550
                client.rset()
                client.mail(f"s{number}@example.com")
                client.rcpt(f"r{number}.{turn}@bounce.example")  # each is suppressed from then on
                code, text = client.data("Subject: x\r\n\r\nHello\r\n")
                assert code == 250, text
            with socket.create_connection(("127.0.0.1", self.gateway.port), DEADLINE) as broken:
                broken.sendall(
                    b"EHLO x.example.org\r\nMAIL FROM:<a@example.com>\r\n"
                    b"RCPT TO:<b@example.net>\r\nDATA\r\nSubject: never"
                )
                broken.recv(100)
            for path, status in (("/metrics", 200), ("/health", 200), ("/tracking/c/none", 404)):
                assert self._ask(path) == status

    def _ask(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._web, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    async def arrived(self, goal: int) -> None:
        """Waits until the next hop has had so many messages in all."""
        await asyncio.to_thread(until, lambda: self._sink.count() >= goal, f"{goal} messages")

    async def rest(self) -> dict[str, Consumption]:
        """What each process uses when no mail is on its way and no connection is open."""
        ports = {self.gateway.port, self._web, *self._next_hops}
        await asyncio.to_thread(until, lambda: not _connections(ports), "connections to be closed")
        return self.consumption()

    def consumption(self) -> dict[str, Consumption]:
        """What each process uses now."""
        return {name: Consumption.of(pid) for name, pid in self.gateway.pids().items()}


def _connections(ports: set[int]) -> int:
    """How many open connections of this machine lead to one of these ports."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    remote, state = 2, 3
    rows = (line.split() for line in lines)
    return sum(row[state] == "01" and int(row[remote][-4:], 16) in ports for row in rows)


def _write_key(path: Path) -> None:
    path.touch(0o600)
    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    )


Readings = Sequence[Mapping[str, Consumption]]


def _ends(readings: Readings, process: str) -> tuple[Consumption, Consumption]:
    """What a process typically used in the first and in the last quarter of the time."""
    quarter = max(1, len(readings) // 4)
    early = [reading[process] for reading in readings[:quarter]]
    late = [reading[process] for reading in readings[-quarter:]]
    return Consumption.typical(early), Consumption.typical(late)


def _growth(readings: Readings) -> list[str]:
    """Where memory has grown."""
    found = []
    for process in readings[0]:
        early, late = _ends(readings, process)
        if late.memory > early.memory * GROWTH:
            found.append(f"{process}: {early.memory >> 10} KiB, and {late.memory >> 10} later")
    return found


def _leaks(before: Mapping[str, Consumption], after: Mapping[str, Consumption]) -> list[str]:
    """What was opened or started meanwhile, and is still there."""
    found = []
    for process, early in before.items():
        late = after[process]
        if late.descriptors > early.descriptors:
            found.append(f"{process}: {early.descriptors} files, and {late.descriptors} later")
        if late.threads > early.threads:
            found.append(f"{process}: {early.threads} threads, and {late.threads} later")
    return found


async def test_what_processes_use_does_not_grow(
    make_gateway: MakeGateway, debian_program: DebianProgram, scale: Scale, figures: Figures
) -> None:
    source = debian_program("smtp-source")
    debian_program("smtp-sink")
    messages = int(os.environ.get("GATEWAY_SOAK_MESSAGES") or scale(2_000, 1_000_000))
    size = scale(250, 5_000)
    batches = messages // size
    warm_up = batches * WARM_UP // 100
    domains = min(DOMAINS, max(1, warm_up))
    async with NextHop(rcpt="550 5.1.1 No such user") as hop:
        gateway = make_gateway(workers=2)
        _write_key(gateway.folder / "key.pem")
        port, web = free_port(), free_port()
        text = PLUGINS.format(sink=f"127.0.0.1:{port}", http=web, hop=hop.address)
        gateway.configure(text)
        with Sink(port, gateway.folder) as sink:
            await asyncio.to_thread(gateway.start)
            next_hops = (port, int(hop.address.rpartition(":")[2]))
            soak = Soak(gateway, source, sink, web, next_hops)
            readings = []
            pids = gateway.pids()
            started = time.monotonic()
            for number in range(batches):
                await soak.batch(number, f"d{number % domains}.example.net", size)
                await soak.odd(number)
                readings.append(soak.consumption())
                if number == warm_up:
                    before = await soak.rest()
                os.truncate(gateway.folder / "log-1", 0)  # it would be a gigabyte
            seconds = time.monotonic() - started
            after = await soak.rest()
            assert gateway.pids() == pids  # nothing was started anew meanwhile
            await asyncio.to_thread(gateway.wait_empty)
            assert await asyncio.to_thread(gateway.stop) == 0
            assert sink.count() == batches * (size + ODD)  # each once, reports too
    warm = readings[warm_up:]
    growth = {}
    for name in pids:
        early, late = _ends(warm, name)
        growth[f"{name}:"] = (
            f"{early.memory / (1 << 20):.1f} to {late.memory / (1 << 20):.1f} MiB, "
            f"{before[name].descriptors} to {after[name].descriptors} files, "
            f"{before[name].threads} to {after[name].threads} threads"
        )
    assert _growth(warm) + _leaks(before, after) == []
    figures(17, messages=messages, messages_a_second=round(messages / seconds), **growth)
