"""Content-Transfer-Encodings (RFC 2045 6): decoding, and edits that keep the other octets. Pure."""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence

from gateway.mail import quoted_printable
from gateway.mail.charset import Splice

_BASE64_LINE = 76
_LONGEST_LINE = 998

_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]++")


def decode(content: bytes, encoding: str) -> tuple[bytes, bool]:
    """The octets that were encoded, and whether every octet of `content` made sense.

    An encoding that RFC 2045 does not define leaves the octets as they are, and makes no sense.
    """
    if encoding in ("7bit", "8bit", "binary"):
        return content, True
    if encoding == "quoted-printable":
        return quoted_printable.decode(content)
    if encoding == "base64":
        return _decode_base64(content)
    return content, False


def encode(data: bytes, encoding: str) -> bytes:
    """Encodes octets anew; lines end in CRLF."""
    if encoding == "base64":
        return _base64_lines(binascii.b2a_base64(data, newline=False), 0, _BASE64_LINE)[0]
    if encoding == "quoted-printable":
        return quoted_printable.encode(data)
    return data


def splice(content: bytes, data: bytes, encoding: str, splices: Sequence[Splice]) -> bytes:
    """Replaces stretches of what `content` encodes.

    `data` is what `decode` made of it, without loss; the splices are in order, and neither overlap
    nor touch. All other octets of `content` stay, as far as the encoding lets them.
    """
    if encoding == "quoted-printable":
        return quoted_printable.splice(content, splices)
    if encoding == "base64":
        return _splice_base64(content, data, splices)
    return apply(content, splices)


def apply(data: bytes, splices: Sequence[Splice]) -> bytes:
    """Replaces stretches of plain octets."""
    pieces: list[bytes] = []
    done = 0
    for start, end, new in splices:
        pieces += data[done:start], new
        done = end
    pieces.append(data[done:])
    return b"".join(pieces)


def line_start(data: bytes, place: int) -> int:
    """Where the line that a place is in begins."""
    line_end = data.rfind(b"\r\n", 0, place)
    return line_end + 2 if line_end >= 0 else 0


def _decode_base64(content: bytes) -> tuple[bytes, bool]:
    compact = content.replace(b"\r", b"").replace(b"\n", b"")  # faster than `translate`
    try:
        return binascii.a2b_base64(compact, strict_mode=True), True
    except binascii.Error:
        pass
    letters = _NOT_BASE64.sub(b"", compact)
    if len(letters) % 4 == 1:
        letters = letters[:-1]
    return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4)), False


def _splice_base64(content: bytes, data: bytes, splices: Sequence[Splice]) -> bytes:
    new = apply(data, splices)
    first = splices[0][0] // 3 * 3
    text = content.rstrip(b"\r\n")
    width = text.find(b"\r\n")
    width = width if 4 <= width <= _LONGEST_LINE else _BASE64_LINE
    place = _after_letters(text, 0, first // 3 * 4)
    head = text[:place]
    column = place - line_start(text, place)
    last = -(-splices[-1][1] // 3) * 3
    growth = len(new) - len(data)
    if growth % 3 or last >= len(data):
        middle, _ = _base64_lines(binascii.b2a_base64(new[first:], newline=False), column, width)
        return head + middle + content[len(text) :]
    place = _after_letters(text, place, (last - first) // 3 * 4)
    while content.startswith(b"\r\n", place):
        place += 2
    middle, column = _base64_lines(
        binascii.b2a_base64(new[first : last + growth], newline=False), column, width
    )
    line_end = content.find(b"\r\n", place)
    rest = (line_end if line_end >= 0 else len(content)) - place
    joint = b"\r\n" if column and column + rest > width else b""
    return head + middle + joint + content[place:]


def _after_letters(text: bytes, place: int, letters: int) -> int:
    """Where so many letters from a place on end."""
    while letters > 0 and place < len(text):
        end = place + letters
        if text[end - 1 : end] == b"\r":
            end += 1
        letters -= end - place - 2 * text.count(b"\n", place, end)
        place = end
    return place


def _base64_lines(letters: bytes, column: int, width: int) -> tuple[bytes, int]:
    """Breaks letters that begin at a column into lines; also returns the column of the end."""
    room = width - column
    if len(letters) <= room or not letters:
        return letters, column + len(letters)
    room = max(room, 0)
    pieces = [letters[:room]]
    pieces += [letters[place : place + width] for place in range(room, len(letters), width)]
    return b"\r\n".join(pieces), len(pieces[-1])
