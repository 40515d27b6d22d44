"""The two ways in which DKIM evens out what transport may change (RFC 6376 3.4). Pure.

Both work on whole blocks, one pass in C for each rule, and copy nothing where a rule has nothing
to change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

_CRLF = b"\r\n"
_BLOCK = 1 << 16
_BLANK_LINES = _CRLF * 1024
_SPACES = re.compile(rb"  +")
_AFTER_BLANKS = re.compile(rb"\r\n|(?=[^ \t])", re.DOTALL)
Octets = bytes | memoryview

_TAB_TO_SPACE = bytes.maketrans(b"\t", b" ")


class Canonicalization(StrEnum):
    """An algorithm for the header or for the body."""

    SIMPLE = "simple"
    RELAXED = "relaxed"


def simple_header(fields: Iterable[bytes]) -> bytes:
    """Complete header fields in simple form (RFC 6376 3.4.1): as they are, each with its CRLF."""
    return b"".join([raw if raw.endswith(_CRLF) else raw + _CRLF for raw in fields])


def relaxed_header(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header fields in relaxed form (RFC 6376 3.4.2), each with its CRLF.

    Args:
        fields: of each field the name in lower case, and what is between its colon and its last
            CRLF, folded as it came.
    """
    lines = [name + b":" + body.lstrip(b" \t\r\n") for name, body in fields]
    lines.append(b"")
    # A line break before white space is a fold; one before a name ends a field.
    header = _CRLF.join(lines).replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    return _relax(header)


def body_digest(
    body: Octets, canonicalization: Canonicalization, pause: Callable[[], None] | None = None
) -> bytes:
    """The SHA-256 digest of a canonical body: what `bh=` says of it.

    Args:
        body: the body as it is in the message.
        canonicalization: its canonical form.
        pause: called after each block of some 64 KiB, to let other threads run.
    """
    return measured_digest(body, canonicalization, pause)[0]


def measured_digest(
    body: Octets, canonicalization: Canonicalization, pause: Callable[[], None] | None = None
) -> tuple[bytes, int]:
    """As `body_digest`, with how many octets the canonical body has."""
    digest = hashlib.sha256()
    size = 0
    for block in canonical_body(body, canonicalization):
        digest.update(block)
        size += len(block)
        if pause is not None:
            pause()
    return digest.digest(), size


def canonical_body(body: Octets, canonicalization: Canonicalization) -> Iterator[bytes]:
    """A body in canonical form (RFC 6376 3.4.3 and 3.4.4), in blocks.

    A body without a final CRLF is taken with it, since that is how it arrives.
    """
    relaxed = canonicalization is Canonicalization.RELAXED
    empty = True
    held_back = 0
    for piece in _blocks(body):
        block = _relax(piece) if relaxed else piece
        end = _end_of_text(block)
        if end == 0:
            held_back += len(block)
            continue
        if held_back:
            yield from _blank_lines(held_back)
        empty = False
        if end < len(block):
            end += 2
        held_back = len(block) - end
        yield block[:end]
    if empty and not relaxed:
        yield _CRLF


def _blocks(body: Octets) -> Iterator[bytes]:
    """Cuts a body after line ends, so that a large one is never copied as a whole.

    A line that is longer than a block is cut too, where no white space is parted from what decides
    about it: the octet after it.
    """
    size = len(body)
    start = 0
    while start < size:
        reach = start + 2 * _BLOCK
        # Of a small body that is no copy.
        window = bytes(body[start:reach])
        end = window.find(_CRLF, _BLOCK)
        if end >= 0:
            block = window[: end + 2]
        elif reach <= size and (found := _AFTER_BLANKS.search(body, reach - 1)):
            block = bytes(body[start : found.end()])
        else:
            block = window if reach >= size else bytes(body[start:])
        start += len(block)
        if start == size and not block.endswith(_CRLF):
            block += _CRLF
        yield block


def _blank_lines(octets: int) -> Iterator[bytes]:
    while octets > 0:
        yield _BLANK_LINES[:octets]
        octets -= len(_BLANK_LINES)


def _relax(lines: bytes) -> bytes:
    """Makes each run of white space one space, and takes it away at the ends of lines."""
    if b"\t" in lines:
        lines = lines.translate(_TAB_TO_SPACE)
    if b"  " in lines:  # to ask first takes half the time where there are none
        lines = _SPACES.sub(b" ", lines)
    return lines.replace(b" \r\n", _CRLF)


def _end_of_text(block: bytes) -> int:
    """Where the last CRLFs of a block begin; its length if it does not end in any."""
    end = len(block)
    while block.endswith(_BLANK_LINES, 0, end):
        end -= len(_BLANK_LINES)
    while block.endswith(_CRLF, 0, end):
        end -= 2
    return end
