"""The endpoints of a tracking plugin, its outbox, and a client that speaks ASGI to them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from gateway.hooks import Context, Event, Resolver
from gateway.limits import Limits
from plugins.tracking.endpoints import Endpoints
from plugins.tracking.endpoints_config import EndpointsConfig
from plugins.tracking.keys import Keyring
from plugins.tracking.token import Kind, Token

BROWSER = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36"
)
TARGET = "https://www.example.com/sale?item=1#top"
NOW = 1_790_000_000.0


class Outbox:
    """What was emitted.

    Attributes:
        events: everything that was emitted, in order.
        failure: what emitting ends with; None if it works.
        stuck: the disk does not answer, until `release`.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.failure: Exception | None = None
        self.stuck = False
        self._waiting: list[asyncio.Future[None]] = []

    def emit(self, event: Event) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.stuck:
            self._waiting.append(future)
        elif self.failure is not None:
            future.set_exception(self.failure)
            return future
        else:
            asyncio.get_running_loop().call_soon(future.set_result, None)
        self.events.append(event)
        return future

    def release(self) -> None:
        self.stuck = False
        for future in self._waiting:
            future.set_result(None)
        self._waiting.clear()

    def of(self, event_type: str) -> list[Event]:
        return [event for event in self.events if event.type == event_type]

    @property
    def one(self) -> Event:
        (event,) = self.events
        return event


def make_context(
    folder: Path,
    emit: Callable[[Event], asyncio.Future[None]],
    clock: Callable[[], float] = lambda: NOW,
) -> Context:
    return Context(
        name="tracking",
        hostname="gw.example.com",
        role="service",
        folder=folder / "data",
        base=folder,
        clock=clock,
        log=logging.getLogger("gateway.plugins.tracking"),
        resolver=Resolver(["127.0.0.1:1"], 1.0),
        limits=Limits(folder / "limits"),
        emit=emit,
    )


@dataclass(frozen=True)
class Response:
    """An HTTP response; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


async def call(
    app: Any,
    method: str,
    target: str,
    *,
    headers: Iterable[tuple[str, str | bytes]] = (),
    body: bytes | list[bytes] = b"",
    root_path: str = "",
    agent: str | bytes | None = BROWSER,
    client: tuple[str, int] | None = ("192.0.2.7", 50_000),
) -> Response:
    """One request, as a server gives it to an application; checks that the answer is one."""
    path, _, query = target.partition("?")
    chunks = [body] if isinstance(body, bytes) else list(body)
    messages = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
        for number, chunk in enumerate(chunks)
    ]
    sent: list[dict[str, Any]] = []
    fields = [*headers] if agent is None else [("user-agent", agent), *headers]

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": unquote(root_path + path),
        "raw_path": (root_path + path).encode("ascii", "replace"),
        "root_path": root_path,
        "query_string": query.encode("latin-1"),
        "headers": [(name.encode(), _octets(value)) for name, value in fields],
        "client": client,
        "server": ("127.0.0.1", 8025),
    }
    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    start, end = sent
    assert not end.get("more_body", False)
    names = [name for name, _ in start["headers"]]
    assert len(names) == len(set(names))
    for name, value in start["headers"]:
        assert name == name.lower()
        assert all(0x20 <= octet < 0x7F for octet in name + value), (name, value)
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    if method == "HEAD":
        assert end["body"] == b""
    else:
        assert int(found["content-length"]) == len(end["body"])
    return Response(start["status"], found, end["body"])


def _octets(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")


@dataclass
class Web:
    """Endpoints with keys, files and an outbox of their own."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    base_urls: tuple[str, ...] = ("https://t.example.com",)
    clock: Callable[[], float] = lambda: NOW

    def __post_init__(self) -> None:
        self.outbox = Outbox()
        self.keyring = Keyring(self.folder / "keys.json", time.time)
        self.endpoints = Endpoints(
            EndpointsConfig.model_validate(self.config),
            self.base_urls,
            self.keyring,
            make_context(self.folder, self.outbox.emit, self.clock),
        )

    def token(self, kind: Kind, url: str = TARGET, **fields: str) -> str:
        given = {
            "message_id": "06N2CKTD00001",
            "recipient": "taro@example.jp",
            "sender": "bounce@shop.example.com",
            "stream": "bulk",
            "campaign": "spring",
            "variant": "b",
            **fields,
        }
        return self.keyring.seal(
            Token(kind, url=url if kind is Kind.CLICK else "", **given)  # type: ignore[arg-type]
        )

    async def get(self, target: str, **options: Any) -> Response:
        return await call(self.endpoints, "GET", target, **options)

    async def head(self, target: str, **options: Any) -> Response:
        return await call(self.endpoints, "HEAD", target, **options)

    async def post(self, target: str, body: bytes | list[bytes], **options: Any) -> Response:
        return await call(self.endpoints, "POST", target, body=body, **options)


def form(fields: dict[str, str]) -> bytes:
    """A body as browsers send a form."""
    return "&".join(f"{quote(name)}={quote(value)}" for name, value in fields.items()).encode()
