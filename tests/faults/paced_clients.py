"""Clients that send at fixed times, whatever becomes of the message before.

Who waits for a reply before the next message measures one slow reply where many clients would have
had it. Here the time of a message counts from when it was due.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from tests.e2e.conftest import DEADLINE, Gateway

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: the end of a connection is RST, and its port is free at once."""


class Refused(Exception):  # noqa: N818 - the field's word
    """A reply that was not the one wished for. The text is the reply."""


class Connection:
    """A connection to a gateway, from one of the many addresses of the loopback interface.

    Attributes:
        port: its port at the client's end.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.port: int = writer.get_extra_info("sockname")[1]

    @classmethod
    async def open(cls, gateway: Gateway, address: str, port: int = 0) -> Connection:
        """Connects, from any port or from this one."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setblocking(False)
        try:
            made.bind((address, port))
            loop = asyncio.get_running_loop()
            await loop.sock_connect(made, ("127.0.0.1", gateway.port))
            return cls(*await asyncio.open_connection(sock=made))
        except BaseException:
            made.close()
            raise

    def close(self) -> None:
        """Ends it, at once."""
        self._writer.transport.abort()

    async def expect(self, code: str, *lines: str) -> None:
        """Sends commands and reads the reply to each; a greeting where there is none.

        Raises:
            Refused: a reply had another code.
            ConnectionError: the connection has ended.
        """
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())
        for _ in lines or [""]:
            reply = await self._reply()
            if not reply.startswith(code):
                raise Refused(reply)

    async def _reply(self) -> str:
        while True:
            line = await self._reader.readline()
            if not line.endswith(b"\n"):
                raise ConnectionResetError("the connection has ended")
            if line[3:4] != b"-":
                return line.decode().rstrip()

    async def send(self, sender: str, recipient: str, subject: str) -> None:
        """Sends a message.

        Raises:
            Refused, ConnectionError: as in `expect`.
        """
        await self.expect("250", f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>")
        await self.expect("354", "DATA")
        await self.expect("250", f"Subject: {subject}\r\n\r\n{'x' * 70}\r\n.")


def owner(gateway: Gateway, workers: Sequence[int], address: str, port: int) -> int | None:
    """Which of the worker processes has the connection from this address and port."""
    packed = struct.unpack("<I", IPv4Address(address).packed)[0]
    peer = f"{packed:08X}:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2] == peer and int(fields[1][-4:], 16) == gateway.port:
            wanted = f"socket:[{fields[9]}]"
            for pid in workers:
                if wanted in _open_files(pid):
                    return pid
    return None


def _open_files(pid: int) -> set[str]:
    found = set()
    with suppress(FileNotFoundError):
        for descriptor in list(Path(f"/proc/{pid}/fd").iterdir()):
            with suppress(FileNotFoundError):
                found.add(str(descriptor.readlink()))
    return found


async def connections_by_worker(
    gateway: Gateway, address: str, each: int, workers: Sequence[int], of: Sequence[int]
) -> dict[int, list[Connection]]:
    """So many greeted connections to each worker in `of`; the gateway shares them evenly."""
    found: dict[int, list[Connection]] = {pid: [] for pid in of}
    async with asyncio.timeout(DEADLINE):
        while any(len(those) < each for those in found.values()):
            connection = await Connection.open(gateway, address)
            await connection.expect("220")
            pid = owner(gateway, workers, address, connection.port)
            if pid in found and len(found[pid]) < each:
                found[pid].append(connection)
            else:
                connection.close()
    return found


class PacedClient:
    """Sends a message over one connection each `interval` seconds.

    Attributes:
        seconds: how long each message took from when it was due to the reply to its dot.
        accepted: the recipient of each message, in the same order.
    """

    def __init__(self, connection: Connection, name: str, interval: float) -> None:
        self._connection = connection
        self._name = name
        self._interval = interval
        self.seconds: list[float] = []
        self.accepted: list[str] = []

    async def run(self, start: float, end: float) -> None:
        """Sends from `start` to `end`, in seconds of the event loop.

        Raises:
            Refused, ConnectionError: a message was not accepted.
        """
        loop = asyncio.get_running_loop()
        try:
            await self._connection.expect("250", "EHLO good.example.org")
            due = start
            while due < end:
                await asyncio.sleep(due - loop.time())
                recipient = f"{self._name}.{len(self.accepted)}@example.net"
                async with asyncio.timeout(DEADLINE):
                    await self._connection.send("good@example.com", recipient, "good")
                self.accepted.append(recipient)
                self.seconds.append(loop.time() - due)
                due += self._interval
        finally:
            self._connection.close()


def p99(seconds: Sequence[float]) -> float:
    """The time that one of a hundred exceeds; 0 of none."""
    return sorted(seconds)[int(len(seconds) * 0.99)] if seconds else 0.0
