"""The ASGI application of the whole service: which plugin answers a request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from gateway.web.asgi import ASGIApplication, Message, Receive, Scope, Send
from gateway.web.forwarded import client_address
from gateway.web.health import Health
from gateway.web.mount import HEALTH, METRICS
from gateway.web.response import respond

_ALLOW = (b"allow", b"GET, HEAD, OPTIONS")
_NEVER = (b"cache-control", b"no-store")
_TEXT = b"text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger("gateway.web")


class Site:
    """Serves each application under `/<name>/`, and `/health` and `/metrics`.

    An application gets requests as its own server would give them, with `root_path` set, and with
    the whole body at once: who sends slowly does not take the application's time.

    Args:
        applications: what is served, by the first part of the path.
        trusted: whether an address is that of a proxy, whose X-Forwarded-For and X-Forwarded-Proto
            are believed.
        max_body: octets of a request's body; larger ones are answered with 413.
        health: how the gateway is now.
        metrics: what the gateway has counted, in Prometheus's text format.
        may_read: whether a client with that address may read the metrics.
    """

    def __init__(
        self,
        applications: Mapping[str, ASGIApplication],
        trusted: Callable[[str], bool],
        max_body: int,
        health: Callable[[], Health],
        metrics: Callable[[], Awaitable[bytes]],
        may_read: Callable[[str], bool],
    ) -> None:
        self._applications = applications
        self._trusted = trusted
        self._max_body = max_body
        self._health = health
        self._metrics = metrics
        self._may_read = may_read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request."""
        length = 0
        chunked = False
        forwarded: list[bytes] = []
        scheme = b""
        for name, value in scope["headers"]:
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                chunked = True
            elif name == b"x-forwarded-for":
                forwarded.append(value)
            elif name == b"x-forwarded-proto":
                scheme = value
        if (forwarded or scheme) and scope["client"] and self._trusted(scope["client"][0]):
            address = client_address(forwarded, self._trusted)
            if address is not None:
                scope["client"] = (address, 0)
            if scheme in (b"http", b"https"):
                scope["scheme"] = scheme.decode()

        mount, slash, _ = scope["path"][1:].partition("/")
        application = self._applications.get(mount)
        if application is None:
            await self._answer(scope, send)
        elif not slash:
            # Relative, so that it is right behind a proxy that maps paths too.
            query = b"?" + scope["query_string"] if scope["query_string"] else b""
            target = scope["raw_path"].rpartition(b"/")[2] + b"/" + query
            await respond(send, 307, None, (b"location", target))
        elif length > self._max_body:
            await respond(send, 413)
        else:
            if length or chunked:
                try:
                    body = await _body(receive, self._max_body)
                except ConnectionError:
                    return
                if body is None:
                    await respond(send, 413)
                    return
                receive = _body_first(body, receive)
            scope["root_path"] = f"/{mount}"
            await application(scope, receive, send)

    async def _answer(self, scope: Scope, send: Send) -> None:
        """Answers where no plugin does."""
        path = scope["path"]
        if path not in (f"/{HEALTH}", f"/{METRICS}"):
            await respond(send, 404)
        elif path == f"/{METRICS}" and not (scope["client"] and self._may_read(scope["client"][0])):
            await respond(send, 403)
        elif scope["method"] not in ("GET", "HEAD"):
            known = scope["method"] == "OPTIONS"
            await respond(send, 200 if known else 405, "" if known else None, _ALLOW)
        elif path == f"/{HEALTH}":
            health = self._health()
            await respond(send, health.status, health.to_json(), _NEVER, kind=b"application/json")
        else:
            await self._tell(send)

    async def _tell(self, send: Send) -> None:
        """Answers with the metrics."""
        try:
            text = await self._metrics()
        except Exception:
            log.exception("the metrics cannot be told")
            await respond(send, 500)
        else:
            await respond(send, 200, text, _NEVER, kind=_TEXT)


async def _body(receive: Receive, most: int) -> bytes | None:
    """The whole body; None if it is too large.

    Raises:
        ConnectionError: the client went away before the end.
    """
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        parts.append(message["body"])
        most -= len(message["body"])
        if most < 0:
            return None
        if not message["more_body"]:
            return b"".join(parts)


def _body_first(body: bytes, receive: Receive) -> Receive:
    """As `receive`, but the body comes first."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def take() -> Message:
        return waiting.pop() if waiting else await receive()

    return take
