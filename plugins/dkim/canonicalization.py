"""The two ways in which DKIM evens out what transport may change (RFC 6376 3.4). Pure.

Both work on whole blocks, one pass in C for each rule, and copy nothing where a rule has nothing
to change. A regular expression finds a rare space faster than `bytes.replace` does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum

_CRLF = b"\r\n"
_BLOCK = 1 << 16
_BLANK_LINES = _CRLF * 1024
_SPACES = re.compile(rb"  +")
_SPACE_AT_END = re.compile(rb" \r\n")
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


def body_digest(body: bytes, canonicalization: Canonicalization) -> bytes:
    """The SHA-256 digest of a canonical body: what `bh=` says of it."""
    digest = hashlib.sha256()
    for block in canonical_body(body, canonicalization):
        digest.update(block)
    return digest.digest()


def canonical_body(body: bytes, canonicalization: Canonicalization) -> Iterator[bytes]:
    """A body in canonical form (RFC 6376 3.4.3 and 3.4.4), in blocks.

    A body without a final CRLF is taken with it, since that is how it arrives.
    """
    relaxed = canonicalization is Canonicalization.RELAXED
    empty = True
    held_back = 0
    for lines in _blocks_of_lines(body):
        block = _relax(lines) if relaxed else lines
        end = _end_of_text(block)
        if end == 0:
            held_back += len(block)
            continue
        if held_back:
            yield _CRLF * (held_back // 2)
        empty = False
        end += 2
        held_back = len(block) - end
        yield block[:end]
    if empty and not relaxed:
        yield _CRLF


def _blocks_of_lines(body: bytes) -> Iterator[bytes]:
    """Cuts a body after line ends, so that a large one is never copied as a whole."""
    size = len(body)
    start = 0
    while start < size:
        end = body.find(_CRLF, start + _BLOCK)
        end = size if end < 0 else end + 2
        block = body[start:end]
        start = end
        yield block if block.endswith(_CRLF) else block + _CRLF


def _relax(lines: bytes) -> bytes:
    """Makes each run of white space one space, and takes it away at the ends of lines."""
    if b"\t" in lines:
        lines = lines.translate(_TAB_TO_SPACE)
    return _SPACE_AT_END.sub(_CRLF, _SPACES.sub(b" ", lines))


def _end_of_text(block: bytes) -> int:
    """Where the last CRLFs of a block begin."""
    end = len(block)
    while block.endswith(_BLANK_LINES, 0, end):
        end -= len(_BLANK_LINES)
    while block.endswith(_CRLF, 0, end):
        end -= 2
    return end
