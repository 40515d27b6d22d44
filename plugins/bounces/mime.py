"""The parts of a message (RFC 2045, 2046), as far as reports need them. Pure.

Reads what is broken too, never raises, and takes time in proportion to the size. What is nested
too deep, or comes after too many parts, is left out.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.hooks import Headers
from plugins.bounces.charset import decode

MOST_PARTS = 100
DEEPEST = 8
LARGEST_HEADER = 65_536
"""Octets of a header that are looked at."""
_LONGEST_BOUNDARY = 200

_FIRST_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_MBOX_LINE = re.compile(rb">?From [^\r\n]*\r\n")
_TYPE = re.compile(r"\s*([\w.+-]+/[\w.+-]+)")
_PARAMETER = re.compile(r";\s*([\w*-]+)\s*=\s*(?:\"([^\"]*)\"?|([^\s;\"]+))")
_NO_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


@dataclass(frozen=True, slots=True)
class Part:
    """One part that is no multipart.

    Attributes:
        headers: its header.
        content_type: its type in lower case; `text/plain` if it names none.
        parameters: of its Content-Type, by names in lower case.
        octets: its content, with the transfer encoding taken off.
        within: the types of the multiparts that it is in, the outermost first.
    """

    headers: Headers
    content_type: str
    parameters: dict[str, str]
    octets: bytes
    within: tuple[str, ...]

    @property
    def text(self) -> str:
        """Its text, with LF at the ends of lines."""
        return decode(self.octets, self.parameters.get("charset", "")).replace("\r\n", "\n")


def split(content: bytes) -> tuple[Headers, bytes]:
    """The header of a message or a part, and what comes after the blank line."""
    mbox = _MBOX_LINE.match(content)
    if mbox is not None:
        content = content[mbox.end() :]
    if not _FIRST_FIELD.match(content):
        return Headers(), content.removeprefix(b"\r\n")
    header, blank, body = content.partition(b"\r\n\r\n")
    return Headers((header + b"\r\n" if blank else header)[:LARGEST_HEADER]), body


def content_type(headers: Headers) -> tuple[str, dict[str, str]]:
    """Type and parameters of a Content-Type field (RFC 2045 5.1)."""
    value = headers.get("Content-Type", "")
    match = _TYPE.match(value)
    if match is None:
        return "text/plain", {}
    parameters: dict[str, str] = {}
    for found in _PARAMETER.finditer(value, match.end()):
        parameters.setdefault(found[1].lower(), found[2] if found[2] is not None else found[3])
    return match[1].lower(), parameters


def parts(content: bytes) -> list[Part]:
    """The parts of a message that are no multiparts, in order; at least one."""
    found: list[Part] = []
    waiting: list[tuple[bytes, tuple[str, ...]]] = [(content, ())]
    while waiting and len(found) < MOST_PARTS:
        piece, within = waiting.pop()
        headers, body = split(piece)
        kind, parameters = content_type(headers)
        if kind.startswith("multipart/") and len(within) < DEEPEST:
            inner = _split_multipart(body, parameters.get("boundary", ""))
            if inner:
                waiting += [(one, (*within, kind)) for one in reversed(inner[:MOST_PARTS])]
                continue
            kind = "text/plain"
        octets = _decoded(body, headers.get("Content-Transfer-Encoding", ""))
        found.append(Part(headers, kind, parameters, octets, within))
    return found


def _split_multipart(body: bytes, boundary: str) -> list[bytes]:
    """The pieces between the delimiters; none if there is no delimiter."""
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        first = re.search(rb"(?:\A|\r\n)--([!-~][ -~]{0,69})[ \t]*\r\n", body)
        if first is None:
            return []
        name = first[1].rstrip()
    else:
        name = boundary.encode("utf-8", "surrogateescape")
    delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(name) + rb"(--)?[ \t]*(?=\r\n|\Z)")
    pieces = []
    start = -1
    for match in _bounded(delimiter.finditer(body)):
        if start >= 0:
            pieces.append(body[start : match.start()])
        start = -1 if match[1] else match.end() + 2
        if match[1]:
            break
    if start >= 0:
        pieces.append(body[start:])  # the end is missing
    return pieces


def _bounded(matches: Iterator[re.Match[bytes]]) -> Iterator[re.Match[bytes]]:
    return (match for _, match in zip(range(MOST_PARTS + 1), matches, strict=False))


def _decoded(octets: bytes, encoding: str) -> bytes:
    name = encoding.strip().lower()
    if name == "quoted-printable":
        return a2b_qp(octets)
    if name == "base64":
        data = _NO_BASE64.sub(b"", octets)
        data = data[: len(data) - (len(data) % 4 == 1)]
        try:
            return a2b_base64(data + b"=" * (-len(data) % 4))
        except Base64Error:
            return octets
    return octets
