"""The pieces of a report: fields and MIME parts that nothing from outside can break. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

_LINE = 76
_MAX_LINE = 998
_MAX_ADDRESS = 320
_PLAIN_LOCAL = re.compile(r"[^\x00-\x20\x7f\"(),:;<>@\[\\\]]+")
_QUOTED_LOCAL = re.compile(r'"(?:[^\x00-\x1f\x7f"\\]|\\[ -~])*"')
_NO_DOMAIN_CHARACTER = re.compile(r"[\x00-\x20\x7f\"(),;<>@\\]")
_UNENCODED = re.compile(rb"[^\t -<>-~]|[\t ]$")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")


def text_part(text: str) -> bytes:
    """A text of ours, as a part in UTF-8."""
    encoded = base64.encodebytes(text.replace("\n", "\r\n").encode()).replace(b"\n", b"\r\n")
    return (
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded
    )


def typed_part(content_type: str, content: bytes) -> bytes:
    """Content as a part of that type, which must be fit to stand in it: see `is_clean`."""
    encoding = b"7bit" if content.isascii() else b"8bit"
    return b"Content-Type: %b\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (
        content_type.encode(),
        encoding,
        content,
    )


def boundary_for(identifier: str, parts: Sequence[bytes]) -> bytes:
    """A boundary that occurs in no part. Quoted-printable and base64 have no `=_` of their own."""
    number = 0
    while True:
        boundary = f"=_{identifier[:40]}/{number}".encode()
        if not any(boundary in part for part in parts):
            return boundary
        number += 1


def field_of(name: str, value: str) -> bytes:
    """A header field, folded at white space; words that no line can hold are broken."""
    lines: list[str] = []
    line = f"{name}:"
    for word in value.split(" "):
        # Four octets a character at most; an address must stay in one piece.
        pieces = [word[at : at + _MAX_LINE // 4] for at in range(0, len(word), _MAX_LINE // 4)]
        for piece in pieces if len(word.encode()) > _MAX_LINE - 100 else [word]:
            if len(line) + 1 + len(piece) > _LINE and piece and line != f"{name}:":
                lines.append(line)
                line = ""
            line += " " + piece
    lines.append(line)
    return "\r\n".join(lines).encode() + b"\r\n"


def printable(text: str, limit: int) -> str:
    """One line without anything that a terminal or a mail program could take for a command."""
    shown = "".join(character if character.isprintable() else " " for character in text[:limit])
    return " ".join(shown.split())


def ascii_text(text: str) -> str:
    r"""Text with `\x{20AC}` for what is not printable ASCII, as in RFC 6533 3."""
    return "".join(
        character if " " <= character <= "~" else f"\\x{{{ord(character):02X}}}"
        for character in text
    )


def typed_address(address: str, international: bool, address_type: str = "rfc822") -> str:
    """An address with its type (RFC 3464 2.3.2, RFC 6533 3)."""
    address = address[:_MAX_ADDRESS]
    if address.isascii() and address_type.lower() != "utf-8":
        return f"{address_type}; {ascii_text(address)}"
    return "utf-8; " + "".join(
        character
        if "!" <= character <= "~" and character not in "+=\\"
        else character
        if international and not character.isascii() and character.isprintable()
        else f"\\x{{{ord(character):02X}}}"
        for character in address
    )


def mailbox(address: str) -> str:
    """An address as it stands in a header field (RFC 5322 3.4.1); quoted where it has to be.

    Dots at odd places, as some carriers gave out (`a..b@`, `a.@`), stay as they are.
    """
    local, at, domain = address[:_MAX_ADDRESS].rpartition("@")
    if not at:
        local, domain = domain, ""
    if not _PLAIN_LOCAL.fullmatch(local) and not _QUOTED_LOCAL.fullmatch(local):
        local = re.sub(r'(["\\])', r"\\\1", local)
        local = f'"{local}"'
    local = "".join(character if character.isprintable() else "?" for character in local)
    return local + at + domain_name(domain, international=True)


def domain_name(text: str, international: bool) -> str:
    """A domain without characters that no domain has."""
    text = _NO_DOMAIN_CHARACTER.sub("?", text[:255])
    return "".join(
        character if character.isprintable() and (international or character.isascii()) else "?"
        for character in text
    )


def is_utf8(content: bytes) -> bool:
    """Whether octets are UTF-8."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_clean(content: bytes) -> bool:
    """Whether content can stand in a part as it is: lines that end in CRLF and are not too long."""
    if _BARE.search(content):
        return False
    return all(len(line) <= _MAX_LINE for line in content.split(b"\r\n"))


def quoted_printable(content: bytes) -> bytes:
    """RFC 2045 6.7; unlike the standard library's, it keeps bare CR and LF apart from line ends."""
    lines: list[bytes] = []
    for line in content.split(b"\r\n"):
        encoded = _UNENCODED.sub(lambda match: b"=%02X" % match[0][0], line)
        while len(encoded) > _LINE:
            end = _LINE - 1
            # An octet's three characters stay together.
            end -= (encoded[end - 1] == 0x3D) + 2 * (encoded[end - 2] == 0x3D)
            lines.append(encoded[:end] + b"=")
            encoded = encoded[end:]
        lines.append(encoded)
    return b"\r\n".join(lines)
