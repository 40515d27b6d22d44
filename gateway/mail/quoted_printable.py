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

LONGEST_LINE = 76
_ROOM = LONGEST_LINE - 1  # for the `=` of a soft line break

# A stretch of what is encoded, by what is around it: the octets since the stretch before, how many
# of them are in their last line, whether a line ends among them; whether a line ends where the
# stretch does, and how many octets come after it in its line.
_Stretch = tuple[bytes, int, bool, bool, int]

_BROKEN = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r\n|\Z)")
_PADDED = re.compile(rb"\n(?<=[ \t]\r\n)")
_PADDING = re.compile(rb"(?<![ \t])[ \t]++(?=\r\n|\Z)")
_PRINTABLE = re.compile(rb"[\t -~]++(?<![\t ])")
_SPECIAL = re.compile(rb"[^\t -<>-~]++")
_SPECIAL_AT_LINE_END = re.compile(rb"[^\t -<>-~]++|[\t ]\Z")


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


class Stretches:
    """Stretches of what valid `content` encodes: found once, and replaced as often as need be.

    Args:
        content: the encoded octets.
        places: where the stretches are in the decoded octets; in order, and none touches another.
    """

    __slots__ = ("_found", "_rest")

    def __init__(self, content: bytes, places: Iterable[tuple[int, int]]) -> None:
        tokens = _without_padding(content)
        padding = None if tokens is content else _Padding(content)
        go = _Walk(tokens).go
        self._found: list[_Stretch] = []
        done = 0
        for start, end in places:
            first, last = go(start), go(end)
            at_line_end = tokens.startswith(b"\r\n", last) or last == len(tokens)
            if padding is not None:
                first, last = first + padding.before(first), last + padding.before(last)
            line = content.rfind(b"\n", done, first) + 1
            line_end = content.find(b"\r\n", last, last + LONGEST_LINE + 2)
            tail = (line_end if line_end >= 0 else len(content)) - last
            width = first - (line or done)
            self._found.append((content[done:first], width, line > 0, at_line_end, tail))
            done = last
        self._rest = content[done:]

    def replaced(self, new_octets: Iterable[bytes]) -> bytes:
        """`content` with new octets for each stretch, as `splice` writes them."""
        pieces: list[bytes] = []
        column = 0
        for stretch, new in zip(self._found, new_octets, strict=True):
            kept, width, has_line_end, at_line_end, tail = stretch
            column = width if has_line_end else column + width
            ends_line = new.startswith(b"\r\n") if new else at_line_end
            if column and (
                kept.endswith((b" ", b"\t")) if ends_line else column >= LONGEST_LINE and new
            ):
                # The octet before has to be written in another way, or has to make room for `=`.
                size = 3 if kept[-3:-2] == b"=" else 1
                new = binascii.a2b_qp(kept[-size:]) + new
                kept = kept[:-size]
                column -= size
            encoded, column = _lines(new, column, at_line_end=at_line_end)
            pieces += kept, encoded
            if column and tail <= LONGEST_LINE < column + tail and not at_line_end:
                pieces.append(b"=\r\n")
                column = 0
        pieces.append(self._rest)
        return b"".join(pieces)


def splice(content: bytes, splices: Sequence[Splice]) -> bytes:
    """Replaces stretches of what valid `content` encodes.

    The splices are in order, and neither overlap nor touch. All other octets of `content` stay,
    except for one before a splice that has to be written in another way at times.
    """
    found = Stretches(content, [splice[:2] for splice in splices])
    return found.replaced([splice[2] for splice in splices])


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
    if _PRINTABLE.fullmatch(data) is not None:
        return _broken(data.replace(b"=", b"=3D"), column)
    *lines, last = data.split(b"\r\n")
    out: list[bytes] = []
    for line in lines:
        out += _broken(_escaped(line, at_line_end=True), column)[0], b"\r\n"
        column = 0
    text, column = _broken(_escaped(last, at_line_end=at_line_end), column)
    out.append(text)
    return b"".join(out), column


def _escaped(line: bytes, *, at_line_end: bool) -> bytes:
    """The tokens of one line."""
    return (_SPECIAL_AT_LINE_END if at_line_end else _SPECIAL).sub(_escapes, line)


def _escapes(match: re.Match[bytes]) -> bytes:
    return b"=" + binascii.b2a_hex(match[0], b"=").upper()


def _broken(tokens: bytes, column: int) -> tuple[bytes, int]:
    """Tokens of one line with soft line breaks; also returns the column that they end at."""
    end = _ROOM - column
    if len(tokens) <= end or not tokens:
        return tokens, column + len(tokens)
    has_escapes = b"=" in tokens
    pieces = []
    done, end = 0, max(end, 0)
    while end < len(tokens):
        if has_escapes and (cut := tokens.find(b"=", max(end - 2, 0), end)) >= 0:
            end = cut  # an escape stays whole
        pieces.append(tokens[done:end])
        done = end
        end += _ROOM
    pieces.append(tokens[done:])
    return b"=\r\n".join(pieces), len(tokens) - done
