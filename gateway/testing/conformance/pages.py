"""Requests for what a plugin serves by `http`: every kind of nonsense that HTTP lets through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from gateway.web.asgi import ASGIApplication, Message, Scope

_PATHS = (
    b"/",
    b"//",
    b"/x",
    b"/../../etc/passwd",
    b"/%2e%2e/%00",
    b"/%ff%fe",
    b"/%",
    b"/" + b"a" * 4000,
    b"/o/AAAA",
    b"/c/" + b"A" * 300,
    b"/u/%E6%97%A5",
    b"/'%22%3Cscript%3E",
)
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW")
_QUERIES = (b"", b"a", b"=&=&&", b"url=https%3A%2F%2Fexample.com&t=%00%ff", b"x" * 4000)
_BODIES = (
    b"",
    b"List-Unsubscribe=One-Click",
    b"{",
    b'{"a": ' * 200,
    b"[]",
    b"\0\xff" * 500,
    b"a=b&" * 5000,
)
_TYPES = (
    b"",
    b"application/json",
    b"application/x-www-form-urlencoded",
    b"multipart/form-data",
    b";",
)


def scopes(mount: str) -> Iterator[tuple[Scope, bytes]]:
    """Requests, each with its body, as the gateway's own server would give them."""
    number = 0
    for path in _PATHS:
        for method in _METHODS:
            number += 1
            body = _BODIES[number % len(_BODIES)] if method in ("POST", "PUT", "BREW") else b""
            raw = f"/{mount}".encode() + path
            yield (
                {
                    "type": "http",
                    "asgi": {"version": "3.0", "spec_version": "2.3"},
                    "http_version": "1.1",
                    "method": method,
                    "scheme": "https",
                    "path": unquote_to_bytes(raw).decode("utf-8", "replace"),
                    "raw_path": raw,
                    "query_string": _QUERIES[number % len(_QUERIES)],
                    "root_path": f"/{mount}",
                    "headers": _headers(number, body),
                    "client": ("192.0.2.1", 50000) if number % 3 else None,
                    "server": ("192.0.2.2", 443),
                    "state": {},
                },
                body,
            )


def _headers(number: int, body: bytes) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"host", (b"gw.example.com", b"", b"\xff\xfe", b"a" * 300)[number % 4]),
        (b"content-length", str(len(body)).encode()),
        (b"user-agent", b"\xe6\x97\xa5 %s" * (number % 7)),
        (b"cookie", b"a=b; =; \xff=\xfe; a=c"),
        (b"accept-language", b"ja,;q=,en;q=9"),
    ]
    kind = _TYPES[number % len(_TYPES)]
    return [*headers, (b"content-type", kind)] if kind else headers


async def ask(application: ASGIApplication, scope: Scope, body: bytes) -> None:
    """Asks an application as the HTTP service does.

    Raises:
        ValueError: it gave no whole answer.
        Exception: whatever it raises.
    """
    begun = ended = given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            return {"type": "http.disconnect"}
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal begun, ended
        if message["type"] == "http.response.start":
            begun = 100 <= message["status"] <= 599
        else:
            ended = begun and not message.get("more_body", False)

    await application(scope, receive, send)
    if not ended:
        raise ValueError("ended before its answer did" if begun else "gave no answer")


def shown(scope: Scope) -> str:
    """A request as people read it."""
    path: Any = scope["raw_path"][:60]
    return f"{scope['method']} {path.decode('ascii', 'replace')}"
