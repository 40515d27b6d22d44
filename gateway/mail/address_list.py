"""Fields that hold mailboxes (RFC 5322 3.4): names and comments, and what must not change. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from gateway.mail import charset
from gateway.mail.encoded_word import Stretch
from gateway.mail.header_piece import Body, Kind, Piece

_TOKEN = re.compile(
    rb'[ \t]++|"(?:[^"\\]++|\\.)*"?|<(?:[^<>"]++|"(?:[^"\\]++|\\.)*")*>?|[,:;()>]'
    rb'|(?:\[[^\[\] \t]*+\]|[^ \t"<>,:;()\[]++)+|.',
    re.DOTALL,
)
_IN_COMMENT = re.compile(rb"[ \t]++|[()]|(?:[^ \t()\\]++|\\.)+|.", re.DOTALL)
_QUOTED = re.compile(rb'"(?:[^"\\]++|\\.)*"', re.DOTALL)
_KANJI = re.compile(rb"\x1b\$[^\x1b]*+(?:\x1b\([BJ])?")
_ENDS = (b",", b";", b":")


def pieces(body: Body, stretches: list[Stretch]) -> list[Piece]:
    """The pieces of the body: FIXED what must stay, the others what a name or comment is made of.

    A mailbox without angle brackets is an address, and FIXED but for its comments. Where a name
    may be written and there is none stands an empty piece.
    """
    return list(_Reader(body, stretches).read())


class _Reader:
    """Reads one body."""

    def __init__(self, body: Body, stretches: list[Stretch]) -> None:
        self._body = body
        self._stretches = stretches
        self._starts = [stretch.start for stretch in stretches]
        # What looks like a mark inside of encoded words and kanji is none.
        masked = bytearray(body.octets)
        for stretch in stretches:
            place = slice(stretch.start, stretch.end)
            if stretch.form is not None:
                masked[place] = b"\x01" * (stretch.end - stretch.start)
            elif stretch.charset == "iso-2022-jp":
                masked[place] = _KANJI.sub(lambda match: b"\x01" * len(match[0]), masked[place])
        self._masked = bytes(masked)
        # The mailbox that is being read, with whether each piece is in a comment; where its angle
        # brackets are; whether it is beyond understanding.
        self._mailbox: list[tuple[Piece, bool]] = []
        self._angle: int | None = None
        self._broken = False

    def read(self) -> Iterator[Piece]:
        position = depth = 0
        while position < len(self._masked):
            pattern = _IN_COMMENT if depth else _TOKEN
            match = pattern.match(self._masked, position)
            assert match is not None
            start, position = match.span()
            token = match[0]
            if token[0] in b" \t":
                self._add(Kind.SPACE, start, position, depth > 0)
            elif token in (b"(", b")"):
                depth = max(0, depth + (1 if token == b"(" else -1))
                self._add(Kind.FIXED, start, position, commented=True)
                if token == b"(":  # words may stand in an empty comment
                    self._mailbox.append((Piece(Kind.COMMENT, "", b""), True))
            elif depth:
                self._add_words(Kind.COMMENT, start, position)
            elif token in _ENDS:
                yield from self._end(named=token == b":")
                self._add(Kind.FIXED, start, position)
                yield from self._end(named=False)
            elif token[0] in b'"':
                self._broken |= not _QUOTED.fullmatch(token)
                self._add(Kind.QUOTED, start, position)
            elif token[0] in b"<":
                self._broken |= not token.endswith(b">") or self._angle is not None
                self._angle = len(self._mailbox)
                self._add(Kind.FIXED, start, position)
            elif token in (b">", b"["):
                self._add(Kind.FIXED, start, position)
            else:
                self._add_words(Kind.PLAIN, start, position)
        self._broken |= depth > 0
        yield from self._end(named=False)

    def _add(self, kind: Kind, start: int, end: int, commented: bool = False) -> None:
        piece = Piece(kind, self._text(start, end), self._body.raw(start, end))
        self._mailbox.append((piece, commented))

    def _add_words(self, kind: Kind, start: int, end: int) -> None:
        """Adds words and encoded words that touch."""
        for stretch in self._between(start, end):
            first, last = max(start, stretch.start), min(end, stretch.end)
            piece = Piece(kind, self._text(first, last), self._body.raw(first, last))
            if stretch.form is not None:
                piece = piece._replace(kind=Kind.ENCODED, form=stretch.form)
            self._mailbox.append((piece, kind is Kind.COMMENT))

    def _between(self, start: int, end: int) -> list[Stretch]:
        first, last = bisect_right(self._starts, start) - 1, bisect_left(self._starts, end)
        return [one for one in self._stretches[max(0, first) : last] if one.end > start]

    def _text(self, start: int, end: int) -> str:
        text = []
        for stretch in self._between(start, end):
            if stretch.form is None:
                octets = self._body.octets[max(start, stretch.start) : min(end, stretch.end)]
                text.append(charset.decode_lossy(octets, stretch.charset))
            elif start <= stretch.start:
                text.append(stretch.text)
        return "".join(text)

    def _end(self, *, named: bool) -> Iterator[Piece]:
        """The pieces of the mailbox that ends here, or of a group's name."""
        angle = len(self._mailbox) if named else self._angle
        for index, (piece, commented) in enumerate(self._mailbox):
            if index == angle and not self._broken:
                yield Piece(Kind.PLAIN, "", b"")
            if self._broken or not (commented or (angle is not None and index < angle)):
                piece = piece._replace(kind=Kind.FIXED)
            yield piece
        self._mailbox.clear()
        self._angle, self._broken = None, False
