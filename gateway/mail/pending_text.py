"""Edits of a text part that are encoded when its content is asked for. Pure.

Several plugins edit the same part, one after the other. Their edits are put together, and carried
down to the encoded octets once, for all of them.
"""

from __future__ import annotations

from gateway.mail.charset import Edit
from gateway.mail.encoded_text import EncodedText, with_edits

# In these, ASCII is itself wherever it stands.
_PLAIN_CHARSETS = frozenset(("utf-8", "us-ascii", "iso-8859-1", "windows-1252"))
_ENCODINGS = frozenset(("quoted-printable", "base64"))


class PendingText(EncodedText):
    """`base` with edits of its text, which change neither its charset nor its encoding."""

    def __init__(self, base: EncodedText, edits: list[Edit]) -> None:
        self.encoding = base.encoding
        self.charset = base.charset
        self.effective_charset = base.effective_charset  # what is new fits it
        self.base = base
        self.edits = edits
        self._edited = None
        self._known = None
        # Not cached properties: each of those takes a lock, for every message anew.
        self._encoded: EncodedText | None = None
        self._text: str | None = None

    def _encode(self) -> EncodedText:
        encoded = self._encoded
        if encoded is None:
            encoded = self._encoded = self.base.edited(self.edits)
        return encoded

    @property
    def content(self) -> bytes:  # type: ignore[override]
        """The encoded octets."""
        return self._encode().content

    @property
    def _data(self) -> tuple[bytes, bool]:
        return self._encode()._data

    @property
    def problem(self) -> str:
        """None: what can be edited stays so."""
        return ""

    @property
    def text(self) -> str:
        """The text; lines end in LF."""
        text = self._text
        if text is None:
            text = self._text = with_edits(self.base.text, self.edits)
        return text


def pending(text: EncodedText, edits: list[Edit]) -> PendingText | None:
    """A text with edits; None where they may change more than octets, or meet earlier ones.

    Args:
        text: a text that decodes exactly.
        edits: in order; they neither overlap nor touch.
    """
    if text.encoding not in _ENCODINGS or text.effective_charset not in _PLAIN_CHARSETS:
        return None
    if not _fits(text, "".join([new for _, _, new in edits])):
        return None
    if isinstance(text, PendingText):
        composed = compose(text.edits, edits)
        return None if composed is None else PendingText(text.base, composed)
    return PendingText(text, edits)


def _fits(text: EncodedText, new: str) -> bool:
    """Whether new characters fit the charset, for certain."""
    if new.isascii():
        return True
    if text.effective_charset != "utf-8":
        return False
    try:
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
