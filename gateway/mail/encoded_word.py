"""Text in header fields: encoded words (RFC 2047), folding and unfolding (RFC 5322 2.2.3). Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from gateway.mail import charset

_WORD = re.compile(rb"=\?([!->@-~]+)\?([BbQq])\?([!->@-~]*|[ ->@-~]*)\?=")
_LOOKS_ENCODED = re.compile(r"=\?[^?]+\?[BbQq]\?[^?]*\?=")
_SPACE_OR_WORD = re.compile(r"[ \t]+|[^ \t]+")
_ADDRESS_TOKEN = re.compile(r'[ \t]+|"(?:[^"\\]|\\.)*"?|<[^<>]*+>?|[,:;()]|[^ \t"<,:;()]+|.')
ADDRESS_FIELDS = frozenset(
    (
        "from",
        "sender",
        "reply-to",
        "to",
        "cc",
        "bcc",
        "errors-to",
        "return-receipt-to",
        "resent-from",
        "resent-sender",
        "resent-reply-to",
        "resent-to",
        "resent-cc",
        "resent-bcc",
        "disposition-notification-to",
    )
)
"""Fields that hold mailboxes, in lower case."""
_LINE = 78
_ENCODED_LINE = 76
_LONGEST_WORD = 900
_REMEMBERED = 512
"""Octets of the longest body of which is remembered how it reads."""


def decode_value(body: bytes) -> str:
    """The text of a field's body: unfolded, decoded and stripped. Never raises.

    What is broken or in an unknown charset stays as it is written.
    """
    if b"\r" in body:
        body = body.replace(b"\r\n", b"")
    if b"=?" in body:
        # Mail of a campaign has the same Subject, and what one plugin reads others read too.
        return (_remembered if len(body) <= _REMEMBERED else _decode_words)(body).strip()
    return _decode_plain(body).strip()


def _decode_plain(body: bytes) -> str:
    """Text outside encoded words: should be ASCII, is UTF-8, or anything that old systems write."""
    if b"\x1b" in body:
        return charset.decode_lossy(body, "iso-2022-jp")
    try:
        return body.decode()
    except UnicodeDecodeError:
        return charset.decode_lossy(body, "windows-1252")


def _decode_words(body: bytes) -> str:
    text: list[str] = []
    # Neighbours in one charset are joined before decoding: some mailers cut inside a character.
    pending, pending_charset, end = bytearray(), "", 0
    for match in _WORD.finditer(body):
        gap = body[end : match.start()]
        name = match[1].partition(b"*")[0].decode("latin-1").lower()
        octets = _decode_word(match[2], match[3])
        if octets is None or not charset.known(name):
            continue
        if gap.strip(b" \t") or not pending_charset or name != pending_charset:
            if pending_charset:
                text.append(charset.decode_lossy(bytes(pending), pending_charset))
                pending.clear()
            if gap.strip(b" \t") or not pending_charset:
                text.append(_decode_plain(gap))
        pending += octets
        pending_charset, end = name, match.end()
    if pending_charset:
        text.append(charset.decode_lossy(bytes(pending), pending_charset))
    text.append(_decode_plain(body[end:]))
    return "".join(text)


_remembered = lru_cache(maxsize=256)(_decode_words)


def _decode_word(encoding: bytes, encoded: bytes) -> bytes | None:
    if encoding in b"Bb":
        encoded = encoded.rstrip(b"=")
        try:
            return binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4))
        except binascii.Error:
            return None
    return binascii.a2b_qp(encoded, header=True)


class Form(NamedTuple):
    """How an encoded word is written.

    Attributes:
        opening: all that comes before its text, such as `=?ISO-2022-JP?B?`.
        charset: in lower case, and without the language that may follow it (RFC 2231 5).
    """

    opening: bytes
    charset: str

    def in_utf_8(self) -> Form:
        """The same encoding, of UTF-8."""
        return Form(b"=?utf-8?%b?" % self.opening[-2:-1], "utf-8")

    def encoded(self, octets: bytes) -> bytes:
        """The text of a word that stands for octets, fit for phrases too (RFC 2047 5)."""
        if self.opening[-2:-1] in b"Bb":
            return binascii.b2a_base64(octets, newline=False)
        return _NOT_IN_Q.sub(lambda match: _Q_ESCAPES[match[0]], octets)


UTF_8 = Form(b"=?utf-8?b?", "utf-8")
_NOT_IN_Q = re.compile(rb"[^A-Za-z0-9!*+/-]")
_Q_ESCAPES = {bytes((octet,)): b"=%02X" % octet for octet in range(256)} | {b" ": b"_"}


class Stretch(NamedTuple):
    """Octets of an unfolded body that are decoded on their own, and what they decode to.

    Attributes:
        start: where they begin; end: where they end.
        text: what they decode to.
        charset: what they are written in.
        form: how they are encoded; None for what stands outside of encoded words.
    """

    start: int
    end: int
    text: str
    charset: str
    form: Form | None


def stretches(body: bytes, *, joint: bool = False) -> list[Stretch]:
    """What `decode_value` reads in an unfolded body, in order, without white space between words.

    Each encoded word is a stretch, but words that have to be decoded together are one, as are all
    neighbours in one charset if `joint`.
    """
    found: list[Stretch] = []
    words: list[tuple[int, int, bytes, Form]] = []
    end = 0
    for match in _WORD.finditer(body):
        name = match[1].partition(b"*")[0].decode("latin-1").lower()
        octets = _decode_word(match[2], match[3])
        if octets is None or not charset.known(name):
            continue
        start, gap = match.start(), body[end : match.start()]
        plain = not words or gap.strip(b" \t")
        if words and (plain or name != words[0][3].charset):
            found += _word_stretches(words, joint)
            words.clear()
        if plain and gap:
            found.append(_plain_stretch(end, start, gap))
        words.append((start, match.end(), octets, Form(body[start : match.start(3)], name)))
        end = match.end()
    if words:
        found += _word_stretches(words, joint)
    if end < len(body):
        found.append(_plain_stretch(end, len(body), body[end:]))
    return found


def _plain_stretch(start: int, end: int, octets: bytes) -> Stretch:
    if b"\x1b" in octets:
        name = "iso-2022-jp"
    else:
        try:
            text = octets.decode()
        except UnicodeDecodeError:
            name = "windows-1252"
        else:
            return Stretch(start, end, text, "us-ascii" if text.isascii() else "utf-8", None)
    return Stretch(start, end, charset.decode_lossy(octets, name), name, None)


def _word_stretches(words: list[tuple[int, int, bytes, Form]], joint: bool) -> list[Stretch]:
    form = words[0][3]
    text = charset.decode_lossy(b"".join([octets for _, _, octets, _ in words]), form.charset)
    if len(words) > 1 and not joint:
        try:
            texts = [charset.decode(octets, one.charset) for _, _, octets, one in words]
        except UnicodeDecodeError:
            texts = []
        if texts and "".join(texts) == text:
            return [
                Stretch(start, end, one, own.charset, own)
                for (start, end, _, own), one in zip(words, texts, strict=True)
            ]
    return [Stretch(words[0][0], words[-1][1], text, form.charset, form)]


def encode_value(name: str, text: str) -> bytes:
    """The whole field for a name and a text without control characters, CRLF included.

    Words that are not ASCII become encoded words in UTF-8, and lines are folded at 78 octets where
    white space allows. In fields that hold addresses only names and comments are encoded; an
    address outside ASCII stays UTF-8 (RFC 6532).
    """
    text = text.strip(" \t")
    start = f"{name}:".encode("ascii")
    if text.isascii() and len(start) + len(text) < _LINE and "=?" not in text:
        return b"%b %b\r\n" % (start, text.encode()) if text else start + b"\r\n"
    items = _address_items if name.lower() in ADDRESS_FIELDS else _text_items
    return _fold(start, items(text))


Item = tuple[str, str, bool]
"""White space before a piece of text, the text, and whether it must be encoded."""


def _text_items(text: str) -> Iterator[Item]:
    """Words; neighbours that must be encoded are one item with the space between them."""
    space, pending, pending_space = " ", "", " "
    for piece in _SPACE_OR_WORD.findall(text):
        if piece[0] in " \t":
            space = piece
        elif not piece.isascii() or _LOOKS_ENCODED.search(piece) or len(piece) > _LONGEST_WORD:
            if pending:
                pending += space + piece
            else:
                pending, pending_space = piece, space
        else:
            if pending:
                yield pending_space, pending, True
                pending = ""
            yield space, piece, False
    if pending:
        yield pending_space, pending, True


def _address_items(text: str) -> Iterator[Item]:
    """Names and comments to encode, and what stands between them as it is."""
    space, pending, pending_space, encoded_before, opened = " ", "", " ", False, False
    for piece in _ADDRESS_TOKEN.findall(text):
        if piece[0] in " \t":
            space = piece
            continue
        plain = piece.isascii() and not (piece[0] != '"' and _LOOKS_ENCODED.search(piece))
        if plain or piece[0] == "<" or (piece[0] != '"' and "@" in piece):
            if pending:
                yield pending_space, pending, True
                pending, encoded_before = "", True
            # An encoded word stands alone between white space, or inside parentheses.
            if encoded_before and piece not in ")":
                space = space or " "
            yield space, piece, False
            encoded_before, opened, space = False, piece in "(", ""
            continue
        name = re.sub(r"\\(.)", r"\1", piece[1:].removesuffix('"')) if piece[0] == '"' else piece
        if pending:
            pending += space + name
        else:
            pending, pending_space = name, space or ("" if opened else " ")
        space = ""
    if pending:
        yield pending_space, pending, True


def _fold(start: bytes, items: Iterator[Item]) -> bytes:
    """Lays out items after `start`, breaking lines before white space only."""
    out = bytearray(start)
    column = len(out)
    for space, text, encode in items:
        if not encode:
            word = text.encode()
            if column + len(space) + len(word) > _LINE and space and column != len(start):
                out += b"\r\n"
                column = 0
            out += space.encode() + word
            column += len(space) + len(word)
            continue
        while text:
            room = _ENCODED_LINE - column - len(space) - len("=?utf-8?b??=")
            if room < 8 and space and column:  # 8: the longest character, four octets in base64
                out += b"\r\n"
                column = 0
                continue
            piece = _prefix(text, max(room, 8) // 4 * 3)
            word = b"=?utf-8?b?%b?=" % base64.b64encode(piece.encode())
            out += space.encode() + word
            column += len(space) + len(word)
            text, space = text[len(piece) :], " "
    return bytes(out) + b"\r\n"


def _prefix(text: str, octets: int) -> str:
    """The longest beginning of `text` that fits into so many octets of UTF-8; at least one."""
    return text[:octets].encode()[:octets].decode(errors="ignore") or text[:1]
