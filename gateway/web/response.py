"""Answers of the service's own."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TypeAlias

from gateway.web.asgi import Send

Headers: TypeAlias = list[tuple[bytes, bytes]]

SECURITY: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
"""What every answer says unless an application says it in its own way."""


def secured(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers with those of `SECURITY` that are not among them."""
    result = list(headers)
    names = {name.lower() for name, _ in result}
    result += [header for header in SECURITY if header[0] not in names]
    return result


def described(status: int) -> str:
    """The text of an answer that has nothing to say but its status."""
    return HTTPStatus(status).phrase + "\n"


async def respond(
    send: Send,
    status: int,
    text: str | bytes | None = None,
    *headers: tuple[bytes, bytes],
    kind: bytes = b"text/plain; charset=utf-8",
) -> None:
    """Sends a whole answer; without `text`, it names the status."""
    content = described(status) if text is None else text
    if isinstance(content, str):
        content = content.encode()
    length = (b"content-length", str(len(content)).encode())
    own = [(b"content-type", kind), length, *SECURITY, *headers]
    await send({"type": "http.response.start", "status": status, "headers": own})
    await send({"type": "http.response.body", "body": content})
