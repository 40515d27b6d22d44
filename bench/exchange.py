"""A client of the gateway and its next hop in one thread, which take turns with each message."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from bench.daemon import LOCALHOST
from bench.error import BenchError
from gateway.queue.listing import read
from gateway.queue.selection import Selection

_SECONDS = 30.0
_LOOK_SECONDS = 0.001


class Exchange:
    """Sends a message, takes it back from the gateway, and waits until that is written down.

    Nothing happens at the same time, so the gateway does the same for each message. `port` is the
    gateway's, `spool` the folder of its queue, and `next_hop` the port that it has to deliver to.
    """

    def __init__(self, port: int, spool: Path) -> None:
        self._spool = spool
        self._port = port
        self._listening = socket.create_server((LOCALHOST, 0))
        self._listening.settimeout(_SECONDS)
        self.next_hop: int = self._listening.getsockname()[1]
        self._client: socket.socket | None = None
        self._hop: socket.socket | None = None
        self._input = b""

    def close(self) -> None:
        """Closes all connections."""
        for one in (self._client, self._hop, self._listening):
            if one is not None:
                one.close()

    def send(self, content: bytes) -> None:
        """Sends one message, whose lines do not begin with a dot.

        Raises:
            BenchError: it was not taken, or did not arrive.
            OSError: the gateway did not answer in time.
        """
        if self._client is None:
            self._client = socket.create_connection((LOCALHOST, self._port), _SECONDS)
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._expect(b"220")
            self._say(b"EHLO client.bench.test", b"250")
        self._say(b"MAIL FROM:<sender@bench.test>", b"250")
        self._say(b"RCPT TO:<recipient@example.net>", b"250")
        self._say(b"DATA", b"354")
        self._say(content + b".", b"250")
        self._take()
        deadline = time.monotonic() + _SECONDS
        while list(read(self._spool, Selection())):
            if time.monotonic() > deadline:
                raise BenchError("a message that was delivered stays in the queue")
            time.sleep(_LOOK_SECONDS)

    def _say(self, line: bytes, code: bytes) -> None:
        assert self._client is not None
        self._client.sendall(line + b"\r\n")
        self._expect(code)

    def _expect(self, code: bytes) -> None:
        assert self._client is not None
        reply = b""
        while not (reply.endswith(b"\r\n") and reply.splitlines()[-1][3:4] == b" "):
            received = self._client.recv(4096)
            if not received:
                break
            reply += received
        if not reply.startswith(code):
            raise BenchError(f"expected {code.decode()}, and got {reply!r}")

    def _take(self) -> None:
        """Is the next hop until it has taken a message."""
        content = False
        while True:
            while b"\r\n" in self._input:
                if content:
                    _, dot, rest = self._input.partition(b"\r\n.\r\n")
                    if not dot:
                        break
                    self._input = rest
                    self._answer(b"250 2.0.0 Ok\r\n")
                    return
                replies = b""
                while not content and b"\r\n" in self._input:
                    command, _, self._input = self._input.partition(b"\r\n")
                    content = command[:4].upper() == b"DATA"
                    replies += _reply(command[:4].upper())
                self._answer(replies)
            self._receive()

    def _answer(self, replies: bytes) -> None:
        # All that a client may have sent in one go is answered in one go.
        assert self._hop is not None
        self._hop.sendall(replies)

    def _receive(self) -> None:
        while True:
            if self._hop is None:
                self._hop, _ = self._listening.accept()
                self._hop.settimeout(_SECONDS)
                self._hop.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._input = b""
                self._hop.sendall(b"220 hop.bench.test ESMTP\r\n")
            if received := self._hop.recv(1 << 16):
                self._input += received
                return
            self._hop.close()
            self._hop = None


def _reply(verb: bytes) -> bytes:
    if verb == b"EHLO":
        return b"250-hop.bench.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n"
    if verb == b"DATA":
        return b"354 Go on\r\n"
    return b"221 2.0.0 Bye\r\n" if verb == b"QUIT" else b"250 2.0.0 Ok\r\n"
