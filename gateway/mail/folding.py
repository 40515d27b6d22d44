"""Folding of header fields (RFC 5322 2.2.3): what is new is folded, the rest stays. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.mail import charset
from gateway.mail.encoded_word import UTF_8, Form
from gateway.mail.header_piece import Kind, Piece

LONGEST_LINE = 998
"""Octets that a line may have without its CRLF (RFC 5322 2.1.1)."""

LINE = 78
ENCODED_LINE = 76
ENCODED_WORD = 75
_WORTH_A_WORD = 16  # octets left in a line that are worth beginning an encoded word


def lay_out(start: bytes, pieces: Sequence[Piece], plain_charset: str) -> bytes:
    """Writes a field without its last line end: `start`, its name and colon, and then the pieces.

    New lines begin beside pieces that are written anew, before white space, and only where a line
    would be too long; pieces that have their octets keep them. `plain_charset` is that of words
    outside of encoded words, which fit it.
    """
    lines = _Lines(start)
    anew = False
    for index, piece in enumerate(pieces):
        if piece.kind is Kind.SPACE:
            space = piece.raw if piece.raw is not None else piece.text.encode() or b" "
            following = pieces[index + 1] if index + 1 < len(pieces) else piece
            if b"\n" not in space and (anew or piece.raw is None or following.raw is None):
                lines.space = space
            else:
                lines.add(space)
        elif piece.raw is not None:
            if lines.space:
                length, encoded = _rest_of_line(pieces, index)
                lines.make_room(length, encoded, new=False)
            lines.add(piece.raw, encoded=piece.kind is Kind.ENCODED)
            anew = False
        elif piece.kind is Kind.ENCODED:
            lines.add_words(piece.text, piece.form or UTF_8, _glued(pieces, index + 1))
            anew = True
        else:
            word = charset.encode(piece.text, plain_charset)
            if lines.space:
                lines.make_room(len(word) + _glued(pieces, index + 1), encoded=False, new=True)
            lines.add(word)
            anew = True
    return bytes(lines.octets)


def _glued(pieces: Sequence[Piece], index: int) -> int:
    """How many octets follow before white space at which a line can begin."""
    length = 0
    while index < len(pieces):
        raw = pieces[index].raw or b""
        if pieces[index].kind is Kind.SPACE:
            return length + max(0, raw.find(b"\r\n"))
        length += len(raw)
        index += 1
    return length


def _rest_of_line(pieces: Sequence[Piece], index: int) -> tuple[int, bool]:
    """How many octets stand in one line as they came, and whether encoded words are among them."""
    length, encoded = 0, False
    while index < len(pieces) and length <= LONGEST_LINE:
        raw = pieces[index].raw
        if raw is None:
            break
        encoded |= pieces[index].kind is Kind.ENCODED
        end = raw.find(b"\r\n")
        if end >= 0:
            return length + end, encoded
        length += len(raw)
        index += 1
    return length, encoded


class _Lines:
    """The lines that are written so far.

    Attributes:
        octets: all of them.
        space: white space that comes next, perhaps in a new line.
    """

    def __init__(self, start: bytes) -> None:
        self.octets = bytearray(start)
        self.space = b""
        self._start = self._column = len(start)
        self._encoded = False  # whether there is an encoded word in the last line

    def add(self, octets: bytes, encoded: bool = False) -> None:
        """Writes the white space and then these octets."""
        octets = self.space + octets
        self.space = b""
        self.octets += octets
        self._encoded |= encoded
        end = octets.rfind(b"\n")
        if end >= 0:
            self._column, self._encoded = len(octets) - end - 1, encoded
        else:
            self._column += len(octets)

    def make_room(self, length: int, encoded: bool, *, new: bool) -> None:
        """Begins a new line with the white space if what follows does not fit the last.

        What is not `new` and too long for a line of its own goes on in the last one.
        """
        longest = ENCODED_LINE if encoded or self._encoded else LINE
        whole = self._column + len(self.space) + length
        if whole > longest and (new or length < longest or whole > LONGEST_LINE):
            self._break()

    def add_words(self, text: str, form: Form, glued: int) -> None:
        """Writes text as encoded words, in UTF-8 if it does not fit their charset.

        `glued` is how many octets must stand in the last line after them.
        """
        try:
            charset.encode(text, form.charset)
        except UnicodeEncodeError:
            form, text = form.in_utf_8(), text.encode(errors="replace").decode()
        payload = _encoded_beginning(text, form)
        while len(payload) + glued > (room := self._room(form)):
            fresh = self._room(form, fresh=True)
            if len(payload) + glued <= fresh and self._break():
                continue
            rest, word = _split(text, form, room, len(payload))
            if (len(word) > room or room < _WORTH_A_WORD) and self._break(at_start=True):
                continue
            if not rest:
                break  # it fits, but for what is glued to it
            text = rest
            self.add(form.opening + word + b"?=", encoded=True)
            self.space = b" "
            payload = _encoded_beginning(text, form)
        self.add(form.opening + payload + b"?=", encoded=True)

    def _room(self, form: Form, *, fresh: bool = False) -> int:
        """How much encoded text fits into one word here, or in a new line."""
        column = (0 if fresh else self._column) + len(self.space)
        return min(ENCODED_WORD, ENCODED_LINE - column) - len(form.opening) - 2

    def _break(self, *, at_start: bool = False) -> bool:
        """Begins a new line where there is white space; right after the name only if `at_start`."""
        if not self.space or not self._column:
            return False
        if len(self.octets) == self._start and not at_start:
            return False
        self.octets += b"\r\n"
        self._column, self._encoded = 0, False
        return True


def _encoded_beginning(text: str, form: Form) -> bytes:
    """Encoded text: all, if it fits into one word, and otherwise too much for one."""
    return form.encoded(charset.encode(text[:ENCODED_WORD], form.charset))


def _split(text: str, form: Form, room: int, length: int) -> tuple[str, bytes]:
    """Takes from text what fits into `room` octets, at least a character: the rest, and those.

    `length` is that of the encoded beginning.
    """

    def encoded(count: int) -> bytes:
        return form.encoded(charset.encode(text[:count], form.charset))

    # Most texts have characters of one width.
    count = max(1, min(len(text), ENCODED_WORD) * room // length)
    word = encoded(count)
    while len(word) > room and count > 1:
        count -= 1
        word = encoded(count)
    while count < len(text) and len(longer := encoded(count + 1)) <= room:
        count, word = count + 1, longer
    return text[count:], word
