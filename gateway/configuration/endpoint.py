"""Addresses to listen on and to connect to, and how they are written in a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from gateway.attempt import Hop
from gateway.configuration.validation import kind


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IP address and a port to listen on; port 0 is any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Endpoint:
        """Reads `127.0.0.1:25` or `[::1]:25`, and the bare address if there is a default port.

        Raises:
            ValueError: it is neither, or the port is no number up to 65535.
        """
        match = re.fullmatch(r"(?:\[([^\]]*)\]|([^\[\]:]*))(?::(\d{1,5}))?", text, re.ASCII)
        if default_port is not None and text.count(":") > 1 and not text.startswith("["):
            match = re.fullmatch(r"()(.*)()", text)
        host = (match[1] or match[2]) if match else ""
        port = int(match[3]) if match and match[3] else default_port
        example = "an IP address and a port, for example 127.0.0.1:2525 or [::1]:25"
        try:
            address = ip_address(host)
        except ValueError:
            raise ValueError(f'"{text}" is no endpoint; expected {example}') from None
        if port is None:
            raise ValueError(f'"{text}" has no port; expected {example}')
        if port > 65535:
            raise ValueError(f'"{text}": a port is a number up to 65535')
        return cls(str(address), port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _text(expected: str) -> Callable[[Any], str]:
    def check_text(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"expected {expected}, not {kind(value)}")
        return value

    return check_text


def _endpoint(value: Any) -> Endpoint:
    if isinstance(value, Endpoint):
        return value
    return Endpoint.parse(_text("an IP address and a port, for example 127.0.0.1:2525")(value))


def _nameserver(value: Any) -> Endpoint:
    if isinstance(value, Endpoint):
        return value
    return Endpoint.parse(_text("an IP address, for example 127.0.0.1")(value), default_port=53)


def _hop(value: Any) -> Hop:
    if isinstance(value, Hop):
        return value
    text = _text('a host and a port, for example "smtp.example.com:25"')(value)
    try:
        return Hop.parse(text)
    except ValueError as error:
        raise ValueError(f"{error}; for example: smtp.example.com:25 or [2001:db8::1]:25") from None


EndpointField = Annotated[
    Endpoint,
    BeforeValidator(_endpoint),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.1:2525", "[::1]:25"]}),
]
"""`127.0.0.1:25` or `[::1]:25`."""

NameserverField = Annotated[
    Endpoint,
    BeforeValidator(_nameserver),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.1", "[::1]:5353"]}),
]
"""As `EndpointField`, or an address alone: port 53."""

HopField = Annotated[
    Hop,
    BeforeValidator(_hop),
    WithJsonSchema({"type": "string", "examples": ["smtp.example.com:25"]}),
]
"""`smtp.example.com:25`."""
