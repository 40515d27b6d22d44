"""The content of a text part: text in lines, a charset and a transfer encoding. Pure.

What is written of a part passes three layers: line ends (text has LF, mail has CRLF), the charset,
and the transfer encoding. An edit is carried down through all three as spans.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import cached_property

from gateway.mail import charset, quoted_printable, transfer_encoding
from gateway.mail.charset import Edit, Splice

_LONGEST_LINE = 998
_SEVEN_BIT = frozenset(("7bit", "8bit", "binary"))


class EncodedText:
    """The content of a text part in its encoding: a value, decoded when first asked for.

    `edited` is what `content` encodes, where that is known: octets, and splices to apply to them.
    """

    def __init__(
        self,
        content: bytes,
        encoding: str,
        charset_name: str | None,
        edited: tuple[bytes, list[Splice]] | None = None,
    ) -> None:
        self.content = content
        self.encoding = encoding
        self.charset = charset_name
        self._edited = edited
        self._known: _Carried | None = None

    @cached_property
    def _data(self) -> tuple[bytes, bool]:
        if self._edited is not None:
            return transfer_encoding.apply(*self._edited), True
        return transfer_encoding.decode(self.content, self.encoding)

    @cached_property
    def effective_charset(self) -> str:
        """The charset that it is read in: without a name UTF-8 where that fits, or ASCII."""
        if self.charset is not None:
            return self.charset
        data = self._data[0]
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                pass
            else:
                return "utf-8"
        return "us-ascii"

    @cached_property
    def _source(self) -> tuple[bytes, bool]:
        """The octets that are read as text, and whether they have LF where the part has CRLF.

        To replace single octets is several times faster than to replace CRLF in a text.
        """
        data = self._data[0]
        if charset.has_plain_lines(self.effective_charset):
            lines = data.replace(b"\r", b"")
            if lines.replace(b"\n", b"\r\n") == data:
                return lines, True
        return data, False

    @cached_property
    def _decoded(self) -> tuple[str, str]:
        """The text of `_source`, and why it is not exact ('' if it is)."""
        name = self.effective_charset
        try:
            text = charset.decode(self._source[0], name)
        except LookupError:
            return charset.decode_lossy(self._data[0], name), f"its charset {name} is unknown"
        except UnicodeDecodeError:
            return charset.decode_lossy(self._data[0], name), f"it is not valid {name}"
        exact = self._data[1]
        return text, "" if exact else f"its transfer encoding is not valid {self.encoding}"

    @property
    def problem(self) -> str:
        """Why the text cannot be carried back to the octets, '' if it can."""
        return self._decoded[1]

    @cached_property
    def text(self) -> str:
        """The text; lines end in LF."""
        text = self._decoded[0]
        return text.replace("\r\n", "\n") if "\r" in text else text

    def splices(self, edits: list[Edit]) -> list[Splice]:
        """Carries edits of `text` down to the decoded octets.

        New lines end in CRLF, or in LF inside of an encoding where all lines do so.

        Raises:
            UnicodeEncodeError: a character does not fit the charset.
        """
        source, has_lf = self._source
        if has_lf:
            known = self._known
            if known is not None and (new := self._new_octets(known, edits)) is not None:
                return [(*place, octets) for place, octets in zip(known.in_data, new, strict=True)]
            splices = _with_crlf(
                source, charset.splice(source, self.text, self.effective_charset, edits)
            )
            self._known = _Carried(edits, splices)
            return splices
        wide = self._decoded[0]
        ends = [match.start() - index for index, match in enumerate(re.finditer("\r\n", wide))]
        line_end = "\n" if "\n" in wide and "\r" not in wide else "\r\n"
        edits = [
            (
                start + bisect_left(ends, start),
                end + bisect_left(ends, end),
                new.replace("\n", line_end),
            )
            for start, end, new in edits
        ]
        return charset.splice(source, wide, self.effective_charset, edits)

    def edited(self, edits: list[Edit]) -> EncodedText:
        """The same with edits of `text`: `spliced`, and quicker in the places of the last edits.

        Raises:
            UnicodeEncodeError: a character does not fit the charset.
        """
        known = self._known
        if known is not None and known.in_content is not None:
            new = self._new_octets(known, edits)
            if new is not None:
                content = known.in_content.replaced(new)
                return EncodedText(content, self.encoding, self.charset)
        return self.spliced(self.splices(edits))

    def _new_octets(self, known: _Carried, edits: list[Edit]) -> list[bytes] | None:
        """What is new in edits; None if they are in other places, or meet what is around them."""
        if not known.fits(edits):
            return None
        new = charset.new_octets(self.effective_charset, [edit[2] for edit in edits])
        return None if new is None else [octets.replace(b"\n", b"\r\n") for octets in new]

    def spliced(self, splices: list[Splice]) -> EncodedText:
        """The same with stretches of its decoded octets replaced; encoded anew if they need it."""
        data = self._data[0]
        if self.encoding in _SEVEN_BIT:
            content = transfer_encoding.apply(data, splices)
            if self._fits_lines(content, splices):
                return EncodedText(content, self.encoding, self.charset)
            return self.encoded_anew(content, self.charset)
        if self.encoding == "quoted-printable":
            content = self._spliced_in_quoted_printable(splices)
        else:
            content = transfer_encoding.splice(self.content, data, self.encoding, splices)
        return EncodedText(content, self.encoding, self.charset, (data, splices))

    def _spliced_in_quoted_printable(self, splices: list[Splice]) -> bytes:
        known = self._known
        places = [splice[:2] for splice in splices]
        if known is not None and known.in_content is not None and known.in_data == places:
            found = known.in_content
        else:
            found = quoted_printable.Stretches(self.content, places)
            if known is not None and known.in_data == places:
                known.in_content = found
        return found.replaced([splice[2] for splice in splices])

    def _fits_lines(self, content: bytes, splices: list[Splice]) -> bool:
        """Whether new octets may stand in the message as they are (RFC 5321 4.5.3.1.6, RFC 2045 2).

        What was wrong before the edit does not count: it came so and goes so.
        """
        new = b"".join([splice[2] for splice in splices])
        if b"\0" in new:
            return False
        if self.encoding == "7bit" and not new.isascii() and self.content.isascii():
            return False
        shift = checked = 0
        for start, end, octets in splices:
            first, last = start + shift, start + shift + len(octets)
            shift += len(octets) - (end - start)
            if last < checked or _fits_one_line(content, first, last):
                continue  # in a line that was measured already, or in a short one
            longest, checked = _longest_line(content, first, last)
            if longest > _LONGEST_LINE and longest > _longest_line(self.content, start, end)[0]:
                return False
        return True

    def in_utf8(self, edits: list[Edit]) -> EncodedText:
        """All of it in UTF-8, with edits of `text`."""
        text = with_edits(self.text, edits)
        return self.encoded_anew(text.replace("\n", "\r\n").encode(), "utf-8")

    def encoded_anew(self, data: bytes, charset_name: str | None) -> EncodedText:
        """Other octets in this encoding, or in a safe one where they do not fit this."""
        encoding = self.encoding
        if encoding in _SEVEN_BIT and (
            (encoding == "7bit" and not data.isascii())
            or b"\0" in data
            or _longest_line(data, 0, len(data))[0] > _LONGEST_LINE
        ):
            wide = len(data) - len(data.translate(None, _EIGHT_BIT))
            encoding = "base64" if wide * 6 > len(data) else "quoted-printable"
        return EncodedText(transfer_encoding.encode(data, encoding), encoding, charset_name)

    def has_line_of(self, boundaries: tuple[bytes, ...]) -> bool:
        """Whether a line would be read as the end of the part."""
        if self.encoding == "base64":
            return False
        content = self.content
        return any(
            b"\r\n--" + boundary in content or content.startswith(b"--" + boundary)
            for boundary in boundaries
        )

    def in_base64(self) -> EncodedText:
        """The same in an encoding in which no line can be mistaken for anything."""
        content = transfer_encoding.encode(self._data[0], "base64")
        return EncodedText(content, "base64", self.charset)

    def terminated(self) -> EncodedText:
        """The same, ending in a line end: a message's last line must have one."""
        content = self.content
        if not content or content.endswith(b"\r\n"):
            return self
        if self.encoding in _SEVEN_BIT:
            return EncodedText(content + b"\r\n", self.encoding, self.charset)
        if self.encoding == "quoted-printable":
            content = quoted_printable.end_softly(content)
        else:
            content += b"\r\n"
        return EncodedText(content, self.encoding, self.charset, self._edited)


def with_edits(text: str, edits: list[Edit]) -> str:
    """A text with edits, which are in order and do not overlap."""
    pieces: list[str] = []
    done = 0
    for start, end, new in edits:
        pieces += text[done:start], new
        done = end
    pieces.append(text[done:])
    return "".join(pieces)


class _Carried:
    """Where the stretches that were edited last are: the next copy is edited in the same places."""

    __slots__ = ("in_content", "in_data", "in_text")

    def __init__(self, edits: list[Edit], splices: list[Splice]) -> None:
        self.in_text = [edit[:2] for edit in edits]
        self.in_data = [splice[:2] for splice in splices]
        self.in_content: quoted_printable.Stretches | None = None

    def fits(self, edits: list[Edit]) -> bool:
        """Whether these edits are in the same places."""
        return self.in_text == [edit[:2] for edit in edits]


_EIGHT_BIT = bytes(range(128, 256))


def _with_crlf(source: bytes, splices: list[Splice]) -> list[Splice]:
    """Splices of octets with LF, as splices of the same with CRLF."""
    shifted: list[Splice] = []
    done = lines = 0
    for start, end, new in splices:
        lines += source.count(b"\n", done, start)
        first = start + lines
        lines += source.count(b"\n", start, end)
        shifted.append((first, end + lines, new.replace(b"\n", b"\r\n")))
        done = end
    return shifted


def _fits_one_line(data: bytes, start: int, end: int) -> bool:
    """Whether a stretch is in one line, and that is surely not too long."""
    before = data.rfind(b"\n", max(start - _LONGEST_LINE, 0), start)
    # Without a line end before that is near, this ends before `start`.
    return data.find(b"\r\n", start, before + 1 + _LONGEST_LINE + 2) >= end


def _longest_line(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The length of the longest of the lines that a stretch touches, and where the last ends."""
    last = data.find(b"\r\n", end)
    last = last if last >= 0 else len(data)
    lines = data[transfer_encoding.line_start(data, start) : last]
    return max(map(len, lines.split(b"\r\n"))), last
