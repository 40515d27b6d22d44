"""The page: the counts of the last hours, as JSON, for those who have the token."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from mail_gateway_event_database.store import Store, described

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

_CHALLENGE = (b"www-authenticate", b"Bearer")
_ALLOW = (b"allow", b"GET, HEAD")


class Page:
    """An ASGI application that answers `GET /`.

    Args:
        store: gives the store, as soon as it can be used; None before.
        token: what has to be sent along.
        hours: how many are shown.
        now: the time, as the table has it.
        failed: is told what a failing database said.
    """

    def __init__(
        self,
        store: Callable[[], Store | None],
        token: str,
        hours: int,
        now: Callable[[], datetime],
        failed: Callable[[str], None],
    ) -> None:
        self._store = store
        self._credentials = f"Bearer {token}".encode()
        self._hours = hours
        self._now = now
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        status, data, headers = await self._answer(scope)
        body = json.dumps(data).encode() + b"\n"
        head = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            *headers,
        ]
        await send({"type": "http.response.start", "status": status, "headers": head})
        body = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope) -> tuple[int, dict[str, Any], Headers]:
        if not self._may_ask(scope):
            return 401, {"error": "Authorization: Bearer TOKEN is needed"}, (_CHALLENGE,)
        if scope["path"].removeprefix(scope.get("root_path", "")) != "/":
            return 404, {"error": "there is only /"}, ()
        if scope["method"] not in ("GET", "HEAD"):
            return 405, {"error": "only GET"}, (_ALLOW,)
        store = self._store()
        if store is None:
            return 503, {"error": "the database cannot be reached"}, ()
        try:
            # The hook's threads are for hooks: what runs for a request waits in one of asyncio's.
            hours = await asyncio.to_thread(store.hours, self._now(), self._hours)
        except SQLAlchemyError as error:
            self._failed(described(error))
            return 503, {"error": "the database cannot be read"}, ()
        total: Counter[str] = Counter()
        for _, counts in hours:
            total.update(counts)
        shown = [{"hour": f"{hour:%Y-%m-%dT%H:00Z}", "counts": counts} for hour, counts in hours]
        return 200, {"total": dict(sorted(total.items())), "hours": shown}, ()

    def _may_ask(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._credentials)
