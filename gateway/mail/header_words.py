"""Words of a header field that are written anew: plain, quoted, or encoded (RFC 2047 5). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gateway.mail import charset
from gateway.mail.encoded_word import UTF_8, Form, Stretch
from gateway.mail.header_piece import Kind, Piece

_TOKEN = re.compile(r"[ \t]++|[^ \t]++")
_UNSAFE = re.compile(r"=\?|[\x00-\x08\x0a-\x1f\x7f]")
_NO_ATOM = re.compile(r"[^A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]")
_NO_COMMENT = re.compile(r"[()\\]")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_TO_ESCAPE = re.compile(r'(["\\])')
_LONGEST_WORD = 900
_LONGEST_SPACE = 60
_MARK = Piece(Kind.PLAIN, "")
_SEPARATOR = Piece(Kind.SPACE, "")


@dataclass(frozen=True)
class Writing:
    """How the words of one field are written.

    Attributes:
        plain_charset: what words outside of encoded words are written in, where they fit it.
        form: how words that do not are encoded, where they fit that, and otherwise in UTF-8.
        address: whether the field holds mailboxes.
        cautious: whether everything that is written anew is encoded, in UTF-8.
    """

    plain_charset: str
    form: Form
    address: bool
    cautious: bool

    @classmethod
    def of(cls, found: list[Stretch], *, address: bool, cautious: bool) -> Writing:
        """As the field is written already, if it has words that are not ASCII."""
        form, plain_charset = None, "us-ascii"
        for stretch in found:
            if stretch.form is not None:
                form = form or stretch.form
            elif stretch.charset != "us-ascii" == plain_charset:
                plain_charset = stretch.charset
        return cls(plain_charset, form or UTF_8, address, cautious)

    def new(self, text: str, kind: Kind) -> Iterator[Piece]:
        """The pieces for new text where `kind` (PLAIN or COMMENT) may stand; at least one."""
        name = text.strip(" \t")
        if self.address and kind is Kind.PLAIN and _NO_ATOM.search(name.replace(" ", "")):
            start = text.index(name)
            yield from self._tokens(text[:start], kind)
            yield Piece(Kind.QUOTED, name)
            yield from self._tokens(text[start + len(name) :], kind)
        elif text:
            yield from self._tokens(text, kind)
        else:
            yield _MARK

    def _tokens(self, text: str, kind: Kind) -> Iterator[Piece]:
        for token in _TOKEN.findall(text):
            if token[0] not in " \t":
                yield Piece(kind, token)
            elif len(token) <= _LONGEST_SPACE:
                yield Piece(Kind.SPACE, token)
            else:
                yield Piece(Kind.ENCODED, token, None, self._form(self.form, token))

    def touched(self, piece: Piece, parts: Sequence[tuple[str, bool]], kind: Kind) -> list[Piece]:
        """The pieces for one that changes: its text now in parts, and whether each is new.

        The first part is what is left of its beginning, and the last of its end.

        Raises:
            ValueError: it must not change.
        """
        if piece.kind is Kind.FIXED:
            raise ValueError(f"{piece.text} cannot be replaced; change the field")
        if piece.kind is Kind.ENCODED and piece.form is not None:
            form = self._form(piece.form, "".join([text for text, new in parts if new]))
            return [Piece(Kind.ENCODED, "".join([text for text, _ in parts]), None, form)]
        if piece.kind is Kind.QUOTED:
            first, last = parts[0][0].removeprefix('"'), parts[-1][0].removesuffix('"')
            inner = [(first, False), *parts[1:-1], (last, False)]
            text = "".join([text if new else _ESCAPED.sub(r"\1", text) for text, new in inner])
            return [Piece(Kind.QUOTED, text)]
        found = [_MARK]
        for text, new in parts:
            found += self.new(text, kind) if new else self._tokens(text, kind)
        return found

    def resolved(self, pieces: Iterable[Piece]) -> list[Piece]:
        """Pieces of which some are new, as they can be written: what touches these is new too."""
        found: list[Piece] = []
        cluster: list[Piece] = []
        last = None
        for piece in pieces:
            last = piece
            if piece.kind is not Kind.SPACE:
                cluster.append(piece)
                continue
            self._add_words(found, cluster, gap=not piece.text)
            cluster.clear()
            if found and found[-1].kind is Kind.SPACE:
                piece = _merged(found.pop(), piece, at_start=not found)
            found.append(piece)
        self._add_words(found, cluster, gap=False)
        if (
            found
            and found[-1].kind is Kind.SPACE
            and (found[-1] is not last or len(found) == 1 or found[-2].raw is None)
        ):
            found.pop()  # white space at the end is no part of the text
        return found

    def _add_words(self, found: list[Piece], cluster: list[Piece], *, gap: bool) -> None:
        """Adds what stands together; `gap` if encoded words follow after white space not seen."""
        for piece in self._joined(cluster, gap):
            before = found[-2] if len(found) > 1 and found[-1].kind is Kind.SPACE else None
            if before is not None and before.kind is piece.kind is Kind.ENCODED:
                self._add_encoded(found, before, piece)
            else:
                found.append(piece)

    def _add_encoded(self, found: list[Piece], before: Piece, piece: Piece) -> None:
        """Adds encoded words after others: white space that is seen between them is encoded too."""
        space = found[-1].text
        if before.raw is None and piece.raw is None and (space or before.form == piece.form):
            found[-2:] = [before._replace(text=before.text + space + piece.text)]
        elif not space:
            found.append(piece)
        else:
            gap = Piece(Kind.SPACE, "", found[-1].raw)
            if before.raw is None:
                found[-2:] = [before._replace(text=before.text + space), gap, piece]
            elif piece.raw is None:
                found[-1:] = [gap, piece._replace(text=space + piece.text)]
            else:
                form = self._form(self.form, space)
                found[-1:] = [gap, Piece(Kind.ENCODED, space, None, form), _SEPARATOR, piece]

    def _joined(self, cluster: list[Piece], gap: bool) -> list[Piece]:
        """Pieces without white space between them, as words."""
        if all(piece.raw is not None for piece in cluster):
            return cluster
        # What keeps its octets whatever stands beside it, and the words around that.
        parts: list[list[Piece]] = [[]]
        for piece in cluster:
            if piece.kind is Kind.FIXED or (piece.kind is Kind.ENCODED and piece.raw is not None):
                parts += [piece], []
            else:
                parts[-1].append(piece)
        found: list[Piece] = []
        changed = False  # whether something was or is between the last piece and the next
        for index, part in enumerate(parts):
            if index % 2 == 0:
                changed = any(piece.raw is None for piece in part)
                if changed:
                    places = (place for place in (index - 1, index + 1) if 0 <= place < len(parts))
                    beside = [parts[place][0].kind for place in places]
                    if gap and index == len(parts) - 1:
                        beside.append(Kind.ENCODED)
                    word = self._word(part, beside)
                    part = [] if word is None else [word]
            if part and found and changed:
                found += _separators(found[-1], part[0])
            found += part
        return found

    def _word(self, parts: list[Piece], beside: list[Kind]) -> Piece | None:
        """One word of what stands together; None if nothing is left of it."""
        encoded = next((one for one in parts if one.kind is Kind.ENCODED), None)
        texts = [_unquoted(one) for one in parts]
        text = "".join(texts)
        if not text:
            return None
        if encoded is None and Kind.ENCODED not in beside:
            word = self._as_it_is(text, {one.kind for one in parts})
            if word is not None:
                return word
        form = self.form if encoded is None else encoded.form or self.form
        plain = [one for part, one in zip(parts, texts, strict=True) if part is not encoded]
        return Piece(Kind.ENCODED, text, None, self._form(form, "".join(plain)))

    def _as_it_is(self, text: str, kinds: set[Kind]) -> Piece | None:
        """A word without encoding; None if it cannot be one."""
        if self.cautious or len(text) > _LONGEST_WORD or _UNSAFE.search(text):
            return None
        if not _fits(text, self.plain_charset):
            return None
        if Kind.COMMENT in kinds:
            return None if _NO_COMMENT.search(text) else Piece(Kind.COMMENT, text)
        if Kind.QUOTED in kinds or (self.address and _NO_ATOM.search(text)):
            return Piece(Kind.QUOTED, '"' + _TO_ESCAPE.sub(r"\\\1", text) + '"')
        return Piece(Kind.PLAIN, text)

    def _form(self, form: Form, text: str) -> Form:
        """The form in which new text is encoded."""
        return form if not self.cautious and _fits(text, form.charset) else form.in_utf_8()


def _fits(text: str, name: str) -> bool:
    try:
        charset.encode(text, name, exact=True)
    except UnicodeEncodeError:
        return False
    return True


def _unquoted(piece: Piece) -> str:
    if piece.kind is not Kind.QUOTED or piece.raw is None:
        return piece.text
    return _ESCAPED.sub(r"\1", piece.text[1:-1])


def _separators(before: Piece, after: Piece) -> list[Piece]:
    """The white space without which encoded words would not be read as such (RFC 2047 5)."""
    if before.kind is after.kind is Kind.ENCODED:
        return [_SEPARATOR]
    if Kind.ENCODED not in (before.kind, after.kind) or before.text == "(" or after.text == ")":
        return []
    return [Piece(Kind.SPACE, " ")]


def _merged(one: Piece, other: Piece, *, at_start: bool) -> Piece:
    """White space that nothing stands between any more, with one fold at most."""
    text = one.text + other.text
    raw = text.encode() or b" "
    cut = 1 if at_start else 0  # a name is followed by white space
    if b"\n" in (one.raw or b"") + (other.raw or b"") and cut < len(raw):
        return Piece(Kind.SPACE, text, raw[:cut] + b"\r\n" + raw[cut:])
    return Piece(Kind.SPACE, text)
