"""Tokens in URLs, at a running gateway: each bit counts, and nobody is led where no mail led."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote

from gateway.testing import NextHop
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, free_port, until
from tests.faults.figures import Figures

TARGET = "https://www.example.com/sale?item=1"
EVIL = "https://evil.example/"
HTML = f"""MIME-Version: 1.0\r
Content-Type: text/html; charset=utf-8\r
Subject: Sale\r
From: Shop <news@example.com>\r
\r
<html><body><a href="{TARGET}">Sale</a> <a href="%%unsubscribe_url%%">No more</a></body></html>\r
"""


@dataclass(frozen=True)
class Response:
    """Status, header fields by name in lower case, and body."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def location(self) -> str | None:
        return self.fields.get("location")


class Browser:
    """HTTP with exactly the octets that a test says."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._stream: BinaryIO | None = None

    def ask(self, path: bytes, method: bytes = b"GET", body: bytes = b"") -> Response:
        """The response; status 0 where the server hangs up without one."""
        for _ in range(2):
            fresh = self._socket is None
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), DEADLINE)
                self._stream = self._socket.makefile("rb")
            try:
                self._socket.sendall(
                    b"%s %s HTTP/1.1\r\nHost: t.example\r\nUser-Agent: Mozilla/5.0\r\n"
                    b"Content-Type: application/x-www-form-urlencoded\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (method, path, len(body), body)
                )
                response = self._read()
            except ConnectionError:
                response = Response(0, {}, b"")
            if response.status == 0 or response.fields.get("connection") == "close":
                self.close()
            if response.status or fresh:
                return response
        return Response(0, {}, b"")

    def _read(self) -> Response:
        assert self._stream is not None
        line = self._stream.readline()
        if not line:
            return Response(0, {}, b"")
        fields: dict[str, str] = {}
        while (field := self._stream.readline()) not in (b"\r\n", b""):
            name, _, value = field.decode("latin-1").partition(":")
            assert name.lower() not in fields, f"{name} twice"
            fields[name.lower()] = value.strip()
        status = int(line.split()[1])
        return Response(status, fields, self._stream.read(int(fields.get("content-length", 0))))

    def close(self) -> None:
        if self._stream is not None and self._socket is not None:
            self._stream.close()
            self._socket.close()
        self._stream = self._socket = None


def flipped(data: bytes, bit: int) -> bytes:
    """The octets with one bit changed."""
    changed = bytearray(data)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


def text_of(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def octets_of(text: bytes) -> bytes:
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def start(gateway: Gateway, web: int) -> None:
    gateway.configure(
        f"http: {{address: '127.0.0.1:{web}'}}\n"
        "plugins:\n"
        "  - suppression: {}\n"
        f"  - tracking: {{base_url: 'http://127.0.0.1:{web}/tracking'}}\n"
    )
    gateway.start()


def submit(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert client.sendmail("news@example.com", ["taro@example.net"], HTML) == {}


def paths(content: bytes) -> dict[str, bytes]:
    """The paths in a message by letter: click, open, unsubscribe."""
    text = re.sub(rb"=\r\n", b"", content).replace(b"=3D", b"=")
    found = re.findall(rb"http://127\.0\.0\.1:\d+(/tracking/([cou])/[A-Za-z0-9_-]+)", text)
    return {letter.decode(): path for path, letter in found}


async def test_no_changed_token_and_no_other_target_is_taken(
    make_gateway: MakeGateway, scale: Scale, figures: Figures
) -> None:
    async with NextHop() as hop:
        web = free_port()
        gateway = make_gateway(hop.address, workers=1)
        await asyncio.to_thread(start, gateway, web)
        await asyncio.to_thread(submit, gateway)
        (message,) = await hop.wait(1, DEADLINE)
        found = paths(message.content)
        assert set(found) == {"c", "o", "u"}
        count = await asyncio.to_thread(_attack, web, found, scale(3, 1))
        # Nobody was unsubscribed by all that.
        await asyncio.to_thread(submit, gateway)
        await hop.wait(2, DEADLINE)
        suppressed = await asyncio.to_thread(gateway.command, "suppression", "list")
        assert "taro@example.net" not in suppressed
        await asyncio.to_thread(_use, gateway, web, found)
        figures(16, forged_requests=count, taken=0)


def _use(gateway: Gateway, web: int, found: dict[str, bytes]) -> None:
    """The tokens as they are do what they are for."""
    browser = Browser(web)
    assert browser.ask(found["c"]).location == TARGET
    assert browser.ask(found["o"]).fields["content-type"] == "image/gif"
    response = browser.ask(found["u"], b"POST", b"List-Unsubscribe=One-Click")
    assert response.status == 200
    browser.close()
    until(
        lambda: "taro@example.net" in gateway.command("suppression", "list"), "the unsubscription"
    )


def _attack(web: int, found: dict[str, bytes], step: int) -> int:
    """Asks for forged things, and returns how many."""
    browser = Browser(web)
    count = 0

    def refused(path: bytes, method: bytes = b"GET", body: bytes = b"") -> None:
        nonlocal count
        count += 1
        response = browser.ask(path, method, body)
        assert response.location is None, (path, response)
        assert response.status in (0, 400, 404, 405, 410, 414), (path, response)
        assert b"evil.example" not in response.body.replace(quote(path).encode(), b"")
        assert b"<script" not in response.body.lower()
        assert "set-cookie" not in response.fields

    for letter, path in found.items():
        base, _, token = path.rpartition(b"/")
        octets = octets_of(token)
        method, body = (b"POST", b"List-Unsubscribe=One-Click") if letter == "u" else (b"GET", b"")
        # An image is given to everybody, so that no page looks broken; a click never is.
        if letter == "o":
            continue
        # Each bit of what is sealed, and each bit of how it is written.
        for bit in range(8 * len(octets)):
            refused(base + b"/" + text_of(flipped(octets, bit)), method, body)
        for bit in range(0, 8 * len(token), step):
            written = flipped(token, bit)
            if not re.search(rb"[/?#%]", written):
                refused(base + b"/" + written, method, body)
        for length in range(0, len(token), 7):
            refused(base + b"/" + token[:length], method, body)
        for more in (b"A", b"=", b"==", b"%00", b".", b"AAAA", b"%3D"):
            refused(base + b"/" + token + more, method, body)
    click = found["c"].rpartition(b"/")[2]
    for kind, path in found.items():
        for other in "cuo":
            if other != kind and other != "o":
                token = path.rpartition(b"/")[2]
                refused(b"/tracking/%s/%s" % (other.encode(), token), b"POST")
    for target in (
        *(
            EVIL,
            quote(EVIL, ""),
            EVIL.removeprefix("https:"),
            "\\\\evil.example",
            "%2f%2fevil.example",
        ),
        *(
            f"?url={EVIL}",
            f"?u={EVIL}",
            f"?target={EVIL}&token=",
            "javascript:alert(1)",
            "@evil.example",
        ),
        *(f"%0d%0aLocation:%20{EVIL}", "..%2f..%2fmetrics", "%00", "<script>alert(1)</script>"),
        base64.urlsafe_b64encode(EVIL.encode()).decode().rstrip("="),
        text_of(octets_of(click) + EVIL.encode()).decode(),
    ):
        refused(b"/tracking/c/" + target.encode())
        refused(b"/tracking/u/" + target.encode())
        refused(b"/tracking/c/%s/%s" % (click, target.encode()))
    # What is added to a good one changes nothing of where it leads.
    for query in (f"url={EVIL}", EVIL, "%0d%0aLocation:%20x", "a=b&url=//evil.example"):
        assert browser.ask(found["c"] + b"?" + query.encode()).location == TARGET
    browser.close()
    return count
