"""Content-Transfer-Encodings (RFC 2045 6): decoding, and edits that keep the other octets. Pure."""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence

from gateway.mail.charset import Splice

QP_LINE = 76
_BASE64_LINE = 76
_LONGEST_LINE = 998

_QP_BROKEN = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*+(?:\r\n|\Z))")
_QP_PADDING = re.compile(rb"(?<![ \t])[ \t]++(?=\r\n|\Z)")
_QP_TOKEN = re.compile(rb"\r\n|(?P<plain>(?:[!-<>-~]|[ \t](?!\r\n|\Z))+)|.", re.DOTALL)
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]++")


def decode(content: bytes, encoding: str) -> tuple[bytes, bool]:
    """The octets that were encoded, and whether every octet of `content` made sense.

    An encoding that RFC 2045 does not define leaves the octets as they are, and makes no sense.
    """
    if encoding in ("7bit", "8bit", "binary"):
        return content, True
    if encoding == "quoted-printable":
        return _decode_quoted_printable(content)
    if encoding == "base64":
        return _decode_base64(content)
    return content, False


def encode(data: bytes, encoding: str) -> bytes:
    """Encodes octets anew; lines end in CRLF."""
    if encoding == "base64":
        return _base64_lines(binascii.b2a_base64(data, newline=False), 0, _BASE64_LINE)[0]
    if encoding == "quoted-printable":
        return _qp_lines(data, 0, at_line_end=True)[0]
    return data


def splice(content: bytes, data: bytes, encoding: str, splices: Sequence[Splice]) -> bytes:
    """Replaces stretches of what `content` encodes.

    `data` is what `decode` made of it, without loss; the splices are in order, and neither overlap
    nor touch. All other octets of `content` stay, as far as the encoding lets them.
    """
    if encoding == "quoted-printable":
        return _splice_quoted_printable(content, splices)
    if encoding == "base64":
        return _splice_base64(content, data, splices)
    return apply(content, splices)


def apply(data: bytes, splices: Sequence[Splice]) -> bytes:
    """Replaces stretches of plain octets."""
    pieces: list[bytes] = []
    done = 0
    for start, end, new in splices:
        pieces += data[done:start], new
        done = end
    pieces.append(data[done:])
    return b"".join(pieces)


def line_start(data: bytes | bytearray, place: int) -> int:
    """Where the line that a place is in begins."""
    line_end = data.rfind(b"\r\n", 0, place)
    return line_end + 2 if line_end >= 0 else 0


def _decode_quoted_printable(content: bytes) -> tuple[bytes, bool]:
    exact = _QP_BROKEN.search(content) is None
    # White space at the end of a line was put there on the way (RFC 2045 6.7 rule 3).
    if b" \r\n" in content or b"\t\r\n" in content or content[-1:] in (b" ", b"\t"):
        content = _QP_PADDING.sub(b"", content)
    if exact and content.endswith(b"="):
        content = content[:-1]
    return binascii.a2b_qp(content), exact


def _decode_base64(content: bytes) -> tuple[bytes, bool]:
    compact = content.translate(None, b"\r\n")
    try:
        return binascii.a2b_base64(compact, strict_mode=True), True
    except binascii.Error:
        pass
    letters = _NOT_BASE64.sub(b"", compact)
    if len(letters) % 4 == 1:
        letters = letters[:-1]
    return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4)), False


class _QuotedPrintable:
    """Walks forward through quoted-printable lines: place in the decoded octets → in the encoded.

    Where soft line breaks leave a choice it is the earlier place.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.place = 0  # in the decoded octets
        self.at = 0  # in the encoded
        self.read_line()

    def read_line(self) -> None:
        """Finds where the text of the line at `at` ends, and how much it decodes to."""
        end = self.content.find(b"\r\n", self.at)
        last = end < 0
        self.line_end = len(self.content) if last else end
        self.next = self.line_end if last else end + 2
        text = self.content[self.at : self.line_end].rstrip(b" \t")
        self.soft = soft = text.endswith(b"=")
        self.text_end = self.at + len(text) - soft
        self.text_width = len(text) - soft - 2 * (text.count(b"=") - soft)
        self.break_width = 0 if soft or last else 2

    def go(self, place: int) -> int:
        """Moves on to a place in the decoded octets; returns the one in the encoded."""
        while place > self.place + self.text_width and self.next > self.at:
            self.place += self.text_width + self.break_width
            self.at = self.next
            self.read_line()
        while self.place < place and self.text_width:
            end = min(self.text_end, self.at + place - self.place)
            escape = self.content.find(b"=", self.at, end)
            plain = (escape if escape >= 0 else end) - self.at
            width = plain or 1
            self.at += plain or 3
            self.place += width
            self.text_width -= width
        return self.at


def _splice_quoted_printable(content: bytes, splices: Sequence[Splice]) -> bytes:
    walker = _QuotedPrintable(content)
    out = bytearray()
    done = 0
    for start, end, new in splices:
        first = walker.go(start)
        out += content[done:first]
        last = walker.go(end)
        tail = walker.line_end - last
        at_line_end = walker.at == walker.text_end and not walker.soft
        column = len(out) - line_start(out, len(out))
        ends_line = new.startswith(b"\r\n") or (not new and at_line_end)
        after_space = out.endswith((b" ", b"\t"))
        if column and (
            (ends_line and after_space) or (column >= QP_LINE and new and not ends_line)
        ):
            # The octet before has to be written in another way, or has to make room for `=`.
            width = 3 if out[-3:-2] == b"=" else 1
            before = binascii.a2b_qp(bytes(out[-width:]))
            del out[-width:]
            new, column = before + new, column - width
        encoded, column = _qp_lines(new, column, at_line_end=at_line_end)
        out += encoded
        if column and tail <= QP_LINE < column + tail and not at_line_end:
            out += b"=\r\n"
        done = last
    return bytes(out + content[done:])


def end_softly(content: bytes) -> bytes:
    """Ends quoted-printable in a line end that is not part of what it encodes."""
    if len(content) - line_start(content, len(content)) < QP_LINE:
        return content + b"=\r\n"
    last = 3 if content[-3:-2] == b"=" else 1
    return content[:-last] + b"=\r\n" + content[-last:] + b"=\r\n"


def _qp_lines(data: bytes, column: int, *, at_line_end: bool) -> tuple[bytes, int]:
    """Encodes octets that begin at a column; also returns the column that they end at."""
    out = []
    for match in _QP_TOKEN.finditer(data):
        text = match[0]
        if text == b"\r\n":
            out.append(text)
            column = 0
            continue
        plain = match.lastgroup is not None
        if not plain and not (text in b" \t" and match.end() == len(data) and not at_line_end):
            text = b"=%02X" % text[0]
        while text:
            room = QP_LINE - 1 - column
            if room < (1 if plain else len(text)):
                out.append(b"=\r\n")
                column = 0
                continue
            piece = text[:room]
            out.append(piece)
            column += len(piece)
            text = text[len(piece) :]
    return b"".join(out), column


def _splice_base64(content: bytes, data: bytes, splices: Sequence[Splice]) -> bytes:
    new = apply(data, splices)
    first = splices[0][0] // 3 * 3
    text = content.rstrip(b"\r\n")
    breaks = [match.start() for match in re.finditer(rb"\r\n", text)]
    width = breaks[0] if breaks else _BASE64_LINE
    width = width if 4 <= width <= _LONGEST_LINE else _BASE64_LINE
    head = text[: _base64_place(breaks, first // 3 * 4, after=False)]
    column = len(head) - line_start(head, len(head))
    last = -(-splices[-1][1] // 3) * 3
    growth = len(new) - len(data)
    if growth % 3 or last >= len(data):
        middle, _ = _base64_lines(binascii.b2a_base64(new[first:], newline=False), column, width)
        return head + middle + content[len(text) :]
    place = _base64_place(breaks, last // 3 * 4, after=True)
    middle, column = _base64_lines(
        binascii.b2a_base64(new[first : last + growth], newline=False), column, width
    )
    line_end = content.find(b"\r\n", place)
    rest = (line_end if line_end >= 0 else len(content)) - place
    joint = b"\r\n" if column and column + rest > width else b""
    return head + middle + joint + content[place:]


def _base64_place(breaks: list[int], letters: int, *, after: bool) -> int:
    """Where so many letters end (or, `after`, the next begins), given the places of line ends."""
    place = letters
    for line_end in breaks:
        if line_end > place or (line_end == place and not after):
            break
        place += 2
    return place


def _base64_lines(letters: bytes, column: int, width: int) -> tuple[bytes, int]:
    """Breaks letters that begin at a column into lines; also returns the column of the end."""
    out = []
    done = 0
    while done < len(letters):
        if column >= width:
            out.append(b"\r\n")
            column = 0
        piece = letters[done : done + width - column]
        out.append(piece)
        done += len(piece)
        column += len(piece)
    return b"".join(out), column
