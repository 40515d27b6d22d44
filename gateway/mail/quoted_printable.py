"""Quoted-printable (RFC 2045 6.7): decoding, and edits that keep the other octets. Pure.

White space at the end of a line was put there on the way (rule 3): it is called padding here, and
stands for nothing. All else in valid lines is a token: `=XX` is an escape, `=` and a line end are a
soft line break, and any other octet stands for itself. `=` is nowhere but where a token begins.
"""

from __future__ import annotations

import binascii
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from gateway.mail.charset import Splice

Stretch = tuple[int, int, bool]
"""Where a stretch of what is encoded begins and ends, and whether a line ends there too."""

LONGEST_LINE = 76
_ROOM = LONGEST_LINE - 1  # for the `=` of a soft line break

_BROKEN = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r\n|\Z)")
_PADDED = re.compile(rb"\n(?<=[ \t]\r\n)")
_PADDING = re.compile(rb"(?<![ \t])[ \t]++(?=\r\n|\Z)")
_PLAIN = re.compile(rb"[\t -<>-~]++(?<![\t ])")
_TOKENS = re.compile(
    rb"\r\n|(?P<plain>(?:[!-<>-~]++|[ \t](?!\r\n|\Z))+)|[^\t\n\r -<>-~]++|.", re.DOTALL
)


def decode(content: bytes) -> tuple[bytes, bool]:
    """The octets that were encoded, and whether every octet of `content` made sense."""
    content = _without_padding(content)
    data = binascii.a2b_qp(content)
    return data, _is_valid(content, data)


def encode(data: bytes) -> bytes:
    """Encodes octets anew; lines end in CRLF."""
    # `b2a_qp` is much faster. But it takes single CR and LF for line ends, writes LF where there is
    # no CRLF, and where white space ends a line makes some longer than they may be.
    if b"\n" in data and _has_whole_lines(data):
        content = binascii.b2a_qp(data)
        if max(map(len, content.split(b"\r\n"))) <= LONGEST_LINE:
            return content
    return _lines(data, 0, at_line_end=True)[0]


def _without_padding(content: bytes) -> bytes:
    if content[-1:] in (b" ", b"\t") or _PADDED.search(content) is not None:
        return _PADDING.sub(b"", content)
    return content


def _is_valid(content: bytes, data: bytes) -> bool:
    """Whether `content`, which was decoded to `data`, is nothing but tokens."""
    shrunk = len(content) - len(data)
    if shrunk < len(content) >> 4 or not _has_whole_lines(content):
        return _BROKEN.search(content) is None
    # Where `=` is frequent, counting is several times faster: an escape shrinks by two octets, a
    # soft line break by three, and a `=` that is neither by less.
    soft = content.count(b"=\r\n")
    return shrunk == 2 * content.count(b"=") + soft - content.endswith(b"=")


def _has_whole_lines(octets: bytes) -> bool:
    """Whether CR and LF are nowhere but in CRLF."""
    return octets.replace(b"\r", b"").replace(b"\n", b"\r\n") == octets


class _Walk:
    """A walk forward through valid tokens: place in the decoded octets → in the encoded.

    Where soft line breaks leave a choice it is the earlier place.
    """

    __slots__ = ("at", "place", "tokens")

    def __init__(self, tokens: bytes) -> None:
        self.tokens = tokens
        self.place = 0  # in the decoded octets
        self.at = 0  # in the encoded

    def go(self, place: int) -> int:
        """Moves on to a place in the decoded octets; returns the one in the encoded."""
        tokens, at = self.tokens, self.at
        missing = place - self.place
        self.place = place
        # So many octets are encoded in at least as many; whole tokens of those are decoded at
        # once. When nothing is missing, the last step had no token but single octets.
        while missing > 0 and at < len(tokens):
            end = at + missing
            cut = tokens.find(b"=", end - 2 if missing > 1 else at, end)
            if cut >= 0:
                end = cut + 3
            missing -= len(binascii.a2b_qp(tokens[at:end]))
            at = end
        self.at = at
        return at


class _Padding:
    """The padding in lines: place without it → place with it, before what is padded there."""

    def __init__(self, content: bytes) -> None:
        found = [match.span() for match in _PADDING.finditer(content)]
        self._widths = [0, *accumulate(end - start for start, end in found)]
        widths = zip(found, self._widths, strict=False)
        self._places = [start - before for (start, _), before in widths]

    def before(self, place: int) -> int:
        """How much padding there is before a place that is given without it."""
        return self._widths[bisect_left(self._places, place)]


def stretches(content: bytes, places: Sequence[tuple[int, int]]) -> list[Stretch]:
    """Where valid `content` encodes stretches, which are in order."""
    tokens = _without_padding(content)
    padding = None if tokens is content else _Padding(content)
    go = _Walk(tokens).go
    found: list[Stretch] = []
    for start, end in places:
        first, last = go(start), go(end)
        at_line_end = tokens.startswith(b"\r\n", last) or last == len(tokens)
        if padding is not None:
            first, last = first + padding.before(first), last + padding.before(last)
        found.append((first, last, at_line_end))
    return found


def splice(content: bytes, splices: Sequence[Splice]) -> bytes:
    """Replaces stretches of what valid `content` encodes.

    The splices are in order, and neither overlap nor touch. All other octets of `content` stay,
    except for one before a splice that has to be written in another way at times.
    """
    places = [splice[:2] for splice in splices]
    return replace(content, stretches(content, places), [splice[2] for splice in splices])


def replace(content: bytes, found: Sequence[Stretch], new_octets: Iterable[bytes]) -> bytes:
    """As `splice`, for `stretches` that have been found, each replaced by some new octets."""
    pieces: list[bytes] = []
    done = column = 0
    for (first, last, at_line_end), new in zip(found, new_octets, strict=True):
        kept = content[done:first]
        line_end = kept.rfind(b"\n")
        column = len(kept) - line_end - 1 if line_end >= 0 else column + len(kept)
        line_end = content.find(b"\r\n", last, last + LONGEST_LINE + 2)
        tail = (line_end if line_end >= 0 else len(content)) - last
        ends_line = new.startswith(b"\r\n") if new else at_line_end
        if column and (
            kept.endswith((b" ", b"\t")) if ends_line else column >= LONGEST_LINE and new
        ):
            # The octet before has to be written in another way, or has to make room for `=`.
            width = 3 if kept[-3:-2] == b"=" else 1
            new = binascii.a2b_qp(kept[-width:]) + new
            kept = kept[:-width]
            column -= width
        encoded, column = _lines(new, column, at_line_end=at_line_end)
        pieces += kept, encoded
        if column and tail <= LONGEST_LINE < column + tail and not at_line_end:
            pieces.append(b"=\r\n")
            column = 0
        done = last
    pieces.append(content[done:])
    return b"".join(pieces)


def end_softly(content: bytes) -> bytes:
    """Ends quoted-printable in a line end that is not part of what it encodes."""
    content = content.rstrip(b" \t")  # before `=` it would no longer be padding
    if not content or content.endswith(b"\r\n"):
        return content
    if content.endswith(b"="):
        return content + b"\r\n"
    if len(content) - (content.rfind(b"\n") + 1) < LONGEST_LINE:
        return content + b"=\r\n"
    last = 3 if content[-3:-2] == b"=" else 1
    return content[:-last] + b"=\r\n" + content[-last:] + b"=\r\n"


def _lines(data: bytes, column: int, *, at_line_end: bool) -> tuple[bytes, int]:
    """Encodes octets that begin at a column; also returns the column that they end at."""
    if _PLAIN.fullmatch(data) is not None:
        return _broken(data, column, 1)
    out = []
    for match in _TOKENS.finditer(data):
        text = match[0]
        if text == b"\r\n":
            out.append(text)
            column = 0
            continue
        plain = match.lastgroup is not None
        if not plain and not (text in b" \t" and match.end() == len(data) and not at_line_end):
            text = b"=" + text.hex("=").upper().encode()
        text, column = _broken(text, column, 1 if plain else min(len(text), 3))
        out.append(text)
    return b"".join(out), column


def _broken(text: bytes, column: int, width: int) -> tuple[bytes, int]:
    """Tokens, each `width` octets wide, with soft line breaks; also the column of the end."""
    room = (_ROOM - column) // width * width
    if len(text) <= room:
        return text, column + len(text)
    room = max(room, 0)
    pieces = [text[:room]]
    pieces += [text[place : place + _ROOM] for place in range(room, len(text), _ROOM)]
    return b"=\r\n".join(pieces), len(pieces[-1])
