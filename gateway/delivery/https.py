"""A small text from a web server, over HTTPS (RFC 9110, 9112)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import httptools

from gateway.resolver import NoSuchDomainError, ResolutionError, Resolver

_ADDRESSES = 3
"""Addresses of a host that are tried, each for its part of the time."""
_HEAD = 32768
_BLOCK = 8192


class HttpsError(Exception):
    """There is no text; the message says why, on one line."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """How texts are fetched.

    `context` gives the context that tells which certificates are trusted; `port` is the servers'. A
    text has at most `largest` octets and arrives within `timeout` seconds, from the first question
    to the DNS on.
    """

    resolver: Resolver
    context: Callable[[], ssl.SSLContext]
    port: int = 443
    largest: int = 65536
    timeout: float = 30.0

    async def text(self, host: str, path: str) -> str:
        """Gets a text/plain from a host. Redirects are not followed.

        Raises:
            HttpsError: the host cannot be reached, has no certificate for its name, answers
                anything but 200, or sends no text or too much of it.
        """
        try:
            async with asyncio.timeout(self.timeout):
                response = await self._get(host, path)
        except TimeoutError:
            raise HttpsError(f"{host} did not answer within {self.timeout:g} seconds") from None
        if response.status != 200:
            raise HttpsError(f"{host} answered {response.status}, not 200")
        media_type = response.media_type.partition(";")[0].strip().lower()
        if media_type != "text/plain":
            raise HttpsError(f"{host} sent {media_type[:80] or 'no media type'}, not text/plain")
        try:
            return response.body.decode()
        except UnicodeDecodeError:
            raise HttpsError(f"what {host} sent is not UTF-8") from None

    async def _get(self, host: str, path: str) -> _Response:
        try:
            addresses = await self.resolver.addresses(host)
        except NoSuchDomainError:
            raise HttpsError(f"{host} does not exist") from None
        except ResolutionError as error:
            raise HttpsError(f"DNS has no answer for {host}: {error}") from None
        reason = f"{host} has no address"
        for address in addresses[:_ADDRESSES]:
            try:
                return await self._exchange(address, host, path)
            except OSError as error:
                said = getattr(error, "verify_message", "") or error.strerror or str(error)
                reason = f"{host}[{address}]: {said}"
        raise HttpsError(reason)

    async def _exchange(self, address: str, host: str, path: str) -> _Response:
        async with asyncio.timeout(self.timeout / _ADDRESSES):
            reader, writer = await asyncio.open_connection(
                address, self.port, ssl=self.context(), server_hostname=host
            )
        try:
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/plain\r\n"
                "User-Agent: mail-gateway\r\nConnection: close\r\n\r\n".encode()
            )
            response = _Response()
            parser = httptools.HttpResponseParser(response)
            received = 0
            # What comes before the final answer has a status of 100 to 199 (RFC 9110 15.2).
            while not response.complete or parser.get_status_code() < 200:
                data = await reader.read(_BLOCK)
                if not data and response.ends_with_connection:
                    break
                if not data:
                    raise HttpsError(f"{host} closed the connection within its answer")
                try:
                    parser.feed_data(data)
                except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                    raise HttpsError(f"what {host} sent is not HTTP") from None
                received += len(data)
                if len(response.body) > self.largest or received > self.largest + _HEAD:
                    raise HttpsError(f"{host} sent more than {self.largest} octets")
        finally:
            writer.transport.abort()
        response.status = parser.get_status_code()
        return response


class _Response:
    """An answer, as the parser finds it."""

    def __init__(self) -> None:
        self.status = 0
        self.on_message_begin()

    def on_message_begin(self) -> None:
        self.media_type = ""
        self.body = bytearray()
        self.complete = False
        self.ends_with_connection = False
        self._measured = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.media_type = value.decode("latin-1")
        self._measured |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        # A body that nothing measures goes on to the end of the connection (RFC 9112 6.3).
        self.ends_with_connection = not self._measured

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True
