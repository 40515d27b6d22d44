"""Text in header fields: encoded words (RFC 2047), folding and unfolding (RFC 5322 2.2.3). Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from gateway.mail import charset

_WORD = re.compile(rb"=\?([!->@-~]+)\?([BbQq])\?([!->@-~]*|[ ->@-~]*)\?=")
_LOOKS_ENCODED = re.compile(r"=\?[^?]+\?[BbQq]\?[^?]*\?=")
_SPACE_OR_WORD = re.compile(r"[ \t]+|[^ \t]+")
_ADDRESS_TOKEN = re.compile(r'[ \t]+|"(?:[^"\\]|\\.)*"?|<[^<>]*+>?|[,:;()]|[^ \t"<,:;()]+|.')
_ADDRESS_FIELDS = frozenset(
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
_LINE = 78
_ENCODED_LINE = 76
_LONGEST_WORD = 900


def decode_value(body: bytes) -> str:
    """The text of a field's body: unfolded, decoded and stripped. Never raises.

    What is broken or in an unknown charset stays as it is written.
    """
    if b"\r" in body:
        body = body.replace(b"\r\n", b"")
    if b"=?" in body:
        return _decode_words(body).strip()
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


def _decode_word(encoding: bytes, encoded: bytes) -> bytes | None:
    if encoding in b"Bb":
        encoded = encoded.rstrip(b"=")
        try:
            return binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4))
        except binascii.Error:
            return None
    return binascii.a2b_qp(encoded, header=True)


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
    items = _address_items if name.lower() in _ADDRESS_FIELDS else _text_items
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
