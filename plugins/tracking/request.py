"""What the endpoints need of an HTTP request (ASGI 3.0), whatever a client sends.

Nothing here raises anything but `RequestError` for what comes from outside.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGEST_BODY = 16_384
BODY_SECONDS = 8.0
LONGEST_USER_AGENT = 300
_LONGEST_QUERY = 8_192
_MOST_FIELDS = 50
_BOUNDARY = re.compile(rb'boundary=(?:"([^"]{1,200})"|([^\s;,"]{1,200}))', re.IGNORECASE)
_PART_NAME = re.compile(rb'\bname="([^"]*)"', re.IGNORECASE)
_PURPOSES = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")


class RequestError(Exception):
    """The request cannot be served.

    Attributes:
        status: the HTTP status code that says so.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class DisconnectedError(Exception):
    """The client has gone; nobody waits for an answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request's line and header.

    Attributes:
        method: as it came.
        path: below where the application is mounted; starts with / unless it is ''.
        raw_query: as it came, without the question mark.
        headers: names in lower case; of several fields with one name, the first.
        address: the client's IP address; '' if it is not known.
    """

    method: str
    path: str
    raw_query: bytes
    headers: Mapping[bytes, bytes]
    address: str

    @classmethod
    def of(cls, scope: Scope) -> Request:
        """Reads an ASGI scope of the type `http`."""
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, value)
        path, root = scope["path"], scope.get("root_path", "")
        # The path is whole, whatever is mounted where (ASGI 2.3); some servers cut it all the same.
        if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
            path = path[len(root) :]
        client = scope.get("client")
        return cls(
            scope["method"], path, scope["query_string"], headers, client[0] if client else ""
        )

    def header(self, name: bytes) -> str:
        """A header field's value, one character for each octet; '' without one."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def user_agent(self) -> str:
        """The User-Agent field without control characters, cut to a length worth keeping."""
        text = self.header(b"user-agent")[:LONGEST_USER_AGENT]
        return text if text.isprintable() else "".join(filter(str.isprintable, text))

    @property
    def purpose(self) -> str:
        """The fields that say that nobody has asked for this yet, joined; mostly ''."""
        headers = self.headers
        return " ".join([self.header(name) for name in _PURPOSES if name in headers])

    def query(self) -> dict[str, str]:
        """The fields of the query; of several with one name, the first.

        Raises:
            RequestError: it is too long, has too many fields or is not UTF-8.
        """
        return urlencoded(self.raw_query, _LONGEST_QUERY) if self.raw_query else {}

    def cookie(self, name: str) -> str:
        """A cookie's value; '' without one (RFC 6265 5.4)."""
        for pair in self.header(b"cookie").split(";"):
            key, _, value = pair.partition("=")
            if key.strip() == name:
                return value.strip().strip('"')
        return ""

    async def body(self, receive: Receive) -> bytes:
        """The whole body.

        Raises:
            RequestError: it is too long, or takes too long.
            DisconnectedError: the client has gone before its end.
        """
        length = self.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > LARGEST_BODY:
            raise RequestError(413, "the body is too long")
        chunks, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise DisconnectedError
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > LARGEST_BODY:
                        raise RequestError(413, "the body is too long")
                    more = message.get("more_body", False)
        except TimeoutError:
            raise RequestError(408, "the body did not come in time") from None
        return b"".join(chunks)

    def fields(self, body: bytes) -> dict[str, str]:
        """The fields of a body: multipart/form-data (RFC 7578), JSON, or else a form's.

        Raises:
            RequestError: it is not what its Content-Type says.
        """
        content_type = self.headers.get(b"content-type", b"")
        media_type = content_type.partition(b";")[0].strip().lower()
        if media_type == b"multipart/form-data":
            return _multipart(content_type, body)
        if media_type == b"application/json":
            return _json(body)
        return urlencoded(body, LARGEST_BODY)


def urlencoded(octets: bytes, longest: int) -> dict[str, str]:
    """The fields of application/x-www-form-urlencoded; of several with one name, the first.

    Raises:
        RequestError: it is too long, has too many fields or is not UTF-8.
    """
    if len(octets) > longest:
        raise RequestError(414 if longest == _LONGEST_QUERY else 413, "it is too long")
    try:
        pairs = parse_qsl(
            octets.decode("utf-8"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise RequestError(400, "the fields are not UTF-8, or too many") from None
    return _firsts(pairs)


def _firsts(pairs: list[tuple[str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    return fields


def _multipart(content_type: bytes, body: bytes) -> dict[str, str]:
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise RequestError(400, "multipart/form-data without a boundary")
    # The first boundary has no line end before it.
    parts = (b"\r\n" + body).split(b"\r\n--" + (match[1] or match[2]))[1:]
    if len(parts) > _MOST_FIELDS:
        raise RequestError(400, "there are too many fields")
    pairs = []
    for part in parts:
        header, blank, value = part.partition(b"\r\n\r\n")
        name = _PART_NAME.search(header)
        if not blank or name is None:
            continue
        try:
            pairs.append((name[1].decode("utf-8"), value.decode("utf-8")))
        except UnicodeDecodeError:
            raise RequestError(400, "a field is not UTF-8") from None
    return _firsts(pairs)


def _json(body: bytes) -> dict[str, str]:
    try:
        data = json.loads(body, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse)
    except (ValueError, ArithmeticError, RecursionError):
        raise RequestError(400, "the body is no JSON in UTF-8") from None
    if not isinstance(data, dict):
        raise RequestError(400, "the body must be a JSON object")
    fields = {}
    for name, value in data.items():
        if isinstance(value, Decimal):
            fields[name] = f"{value:f}" if abs(value.adjusted()) < 30 else "too large"
        elif isinstance(value, str):
            fields[name] = value
        elif value is not None:
            raise RequestError(400, "the values must be text or numbers")
    return fields


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
