"""The pieces that the body of a header field is made of: words, and what is between them. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from gateway.mail import charset
from gateway.mail.charset import Edit
from gateway.mail.encoded_word import Form, Stretch

_OCTETS = re.compile(rb"[ \t]++|[^ \t]++")
_CHARACTERS = re.compile(r"[ \t]++|[^ \t]++")
_SPACE = re.compile(r"[ \t]++")
_FOLD = re.compile(rb"\r\n")


class Kind(Enum):
    """What a piece is."""

    SPACE = "white space"
    PLAIN = "a word as it is"
    QUOTED = "a quoted string"
    COMMENT = "a word in a comment"
    ENCODED = "encoded words"
    FIXED = "an address, or a mark between mailboxes"


class Piece(NamedTuple):
    """A piece of a field's body.

    Attributes:
        kind: what it is.
        text: what a reader sees of it. White space between encoded words is not seen.
        raw: its octets, folds included; None of a piece that has to be written.
        form: how encoded words are written; None of other kinds.
    """

    kind: Kind
    text: str
    raw: bytes | None = None
    form: Form | None = None


class Body:
    """The body of a field: as it stands in the message, and unfolded.

    Attributes:
        folded: as it stands in the message; octets: unfolded.
    """

    def __init__(self, folded: bytes) -> None:
        self.folded = folded
        self._folds: list[int] = []
        self.octets = folded
        if b"\r" in folded:
            self.octets = folded.replace(b"\r\n", b"")
            ends = [match.start() for match in _FOLD.finditer(folded)]
            self._folds = [end - 2 * index for index, end in enumerate(ends)]

    def raw(self, start: int, end: int) -> bytes:
        """The octets from `start` to `end` of the unfolded body, with the folds before each."""
        if not self._folds:
            return self.folded[start:end]
        before, within = bisect_left(self._folds, start), bisect_left(self._folds, end)
        return self.folded[start + 2 * before : end + 2 * within]

    def pieces(self, stretches: list[Stretch], edits: list[Edit]) -> list[Piece]:
        """The pieces of a field of free text: SPACE, PLAIN and ENCODED.

        Words that these edits of the joined text do not come near may be one piece.
        """
        found: list[Piece] = []
        end = position = 0
        for stretch in stretches:
            start = stretch.start
            if start > end:
                found.append(Piece(Kind.SPACE, "", self.raw(end, start)))
            end = stretch.end
            if stretch.form is not None:
                raw = self.raw(start, end)
                found.append(Piece(Kind.ENCODED, stretch.text, raw, stretch.form))
            elif stretch.charset == "iso-2022-jp":
                found += self._shifted_words(stretch)
            else:
                found += self._words(stretch, position, edits)
            position += len(stretch.text)
        return found

    def _words(self, stretch: Stretch, position: int, edits: list[Edit]) -> Iterator[Piece]:
        text = stretch.text
        stop = position + len(text)
        near = [edit for edit in edits if edit[0] <= stop and edit[1] >= position]
        first, last = len(text), len(text)
        if near:
            first, last = max(0, near[0][0] - position), min(len(text), near[-1][1] - position)
        start = stretch.start
        for kind, word in _tokens(text, first, last):
            size = len(word.encode()) if stretch.charset == "utf-8" else len(word)
            yield Piece(kind, word, self.raw(start, start + size))
            start += size

    def _shifted_words(self, stretch: Stretch) -> list[Piece]:
        found = []
        for match in _OCTETS.finditer(self.octets, stretch.start, stretch.end):
            kind = Kind.SPACE if match[0][0] in b" \t" else Kind.PLAIN
            raw = self.raw(match.start(), match.end())
            found.append(Piece(kind, charset.decode_lossy(match[0], stretch.charset), raw))
        if "".join([piece.text for piece in found]) != stretch.text:
            # It does not shift back before white space.
            return [Piece(Kind.PLAIN, stretch.text, self.raw(stretch.start, stretch.end))]
        return found


def _tokens(text: str, first: int, last: int) -> Iterator[tuple[Kind, str]]:
    """White space and words; those before the word at `first` and after that at `last` are one.

    Where there is white space, it is the word beside it.
    """
    near = len(text[:first].rstrip(" \t"))
    blank = max(text.rfind(" ", 0, near), text.rfind("\t", 0, near))
    before = text[: blank + 1].rstrip(" \t")
    here = _SPACE.match(text, last)
    space = _SPACE.search(text, here.end() if here else last)
    end = space.end() if space else len(text)
    if before:
        word = before.lstrip(" \t")
        if word != before:
            yield Kind.SPACE, before[: -len(word)]
        yield Kind.PLAIN, word
    for token in _CHARACTERS.findall(text[len(before) : end]):
        yield Kind.SPACE if token[0] in " \t" else Kind.PLAIN, token
    if end < len(text):
        word = text[end:].rstrip(" \t")
        yield Kind.PLAIN, word
        if end + len(word) < len(text):
            yield Kind.SPACE, text[end + len(word) :]
