"""A request over HTTP without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import unquote

from gateway.testing.result import HttpResult
from gateway.web.asgi import ASGIApplication, Message


async def request(
    applications: Mapping[str, ASGIApplication],
    method: str,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    client: str,
) -> HttpResult:
    """Asks the application that is served under the first part of a path.

    Raises:
        ValueError: nothing is served there; the text says what is.
    """
    path, _, query = url.partition("?")
    mount, slash, _ = path.removeprefix("/").partition("/")
    if mount not in applications or not slash or not path.startswith("/"):
        served = ", ".join(f"/{name}/" for name in applications) or "none"
        raise ValueError(f"{path!r} is no path of a plugin; there are {served}")
    given = {name.lower(): value for name, value in headers.items()}
    given.setdefault("host", "gw.example.com")
    if body:
        given.setdefault("content-length", str(len(body)))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method.upper(),
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": f"/{mount}",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        "client": (client, 50000),
        "server": ("gw.example.com", 80),
    }
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if waiting:
            return waiting.pop()
        await asyncio.Event().wait()  # the client stays until it has its answer
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    await applications[mount](scope, receive, send)
    answered: dict[str, str] = {}
    for name, value in sent[0].get("headers", ()) if sent else ():
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        answered[key] = f"{answered[key]}, {text}" if key in answered else text
    status = sent[0]["status"] if sent else 500
    return HttpResult(status, answered, b"".join(one.get("body", b"") for one in sent[1:]))
