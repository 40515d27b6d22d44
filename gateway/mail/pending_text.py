"""Edits of a text part that are encoded when its content is asked for. Pure.

Several plugins edit the same part, one after the other. Their edits are put together, and carried
down to the encoded octets once, for all of them.
"""

from __future__ import annotations

from functools import cached_property

from gateway.mail.charset import Edit
from gateway.mail.encoded_text import EncodedText

# In these, ASCII is itself wherever it stands.
_PLAIN_CHARSETS = frozenset(("utf-8", "us-ascii", "iso-8859-1", "windows-1252"))
_ENCODINGS = frozenset(("quoted-printable", "base64"))


class PendingText(EncodedText):
    """`base` with edits of its text, which change neither its charset nor its encoding."""

    def __init__(self, base: EncodedText, edits: list[Edit]) -> None:
        self.encoding = base.encoding
        self.charset = base.charset
        self.base = base
        self.edits = edits
        self._edited = None
        self._known = None

    @cached_property
    def _encoded(self) -> EncodedText:
        return self.base.spliced(self.base.splices(self.edits))

    @cached_property
    def content(self) -> bytes:  # type: ignore[override]
        """The encoded octets."""
        return self._encoded.content

    @cached_property
    def _data(self) -> tuple[bytes, bool]:
        return self._encoded._data

    @cached_property
    def effective_charset(self) -> str:
        """That of `base`: what is new fits it."""
        return self.base.effective_charset

    @property
    def problem(self) -> str:
        """None: what can be edited stays so."""
        return ""

    @cached_property
    def text(self) -> str:
        """The text; lines end in LF."""
        text = self.base.text
        pieces: list[str] = []
        done = 0
        for start, end, new in self.edits:
            pieces += text[done:start], new
            done = end
        pieces.append(text[done:])
        return "".join(pieces)


def pending(text: EncodedText, edits: list[Edit]) -> PendingText | None:
    """A text with edits; None where they may change more than octets, or meet earlier ones.

    Args:
        text: a text that decodes exactly.
        edits: in order; they neither overlap nor touch.
    """
    if text.encoding not in _ENCODINGS or text.effective_charset not in _PLAIN_CHARSETS:
        return None
    if not "".join([new for _, _, new in edits]).isascii() and not _fits(text, edits):
        return None
    if isinstance(text, PendingText):
        composed = compose(text.edits, edits)
        return None if composed is None else PendingText(text.base, composed)
    return PendingText(text, edits)


def _fits(text: EncodedText, edits: list[Edit]) -> bool:
    """Whether new characters fit the charset, for certain."""
    if text.effective_charset != "utf-8":
        return False
    try:
        for _, _, new in edits:
            new.encode()
    except UnicodeEncodeError:
        return False
    return True


def compose(first: list[Edit], second: list[Edit]) -> list[Edit] | None:
    """The edits that do at once what `first` and then `second` do.

    Both are in order, and none of one list overlaps or touches another of it. None if one of
    `second` overlaps or touches one of `first` that it does not replace as a whole.
    """
    composed: list[Edit] = []
    shift = index = 0  # what lies before is by so much longer after `first`
    for start, end, new in second:
        while index < len(first):
            old_start, old_end, text = first[index]
            if old_start + shift + len(text) >= start:
                break
            composed.append(first[index])
            shift += len(text) - (old_end - old_start)
            index += 1
        begin = start - shift
        while index < len(first):
            old_start, old_end, text = first[index]
            if old_start + shift > end:
                break
            if old_start + shift < start or old_start + shift + len(text) > end:
                return None
            shift += len(text) - (old_end - old_start)
            index += 1
        composed.append((begin, end - shift, new))
    return composed + first[index:]
