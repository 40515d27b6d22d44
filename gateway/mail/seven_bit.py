"""Messages with 8-bit octets, written anew for servers that take 7 bits only (RFC 6152 3). Pure."""

from __future__ import annotations

from gateway.mail import quoted_printable, transfer_encoding
from gateway.mail.charset import Splice
from gateway.mail.headers import Headers, split
from gateway.mail.mime import Part, scan

_FIELD = "Content-Transfer-Encoding"
_IDENTITY = ("7bit", "8bit", "binary")

# Of the types of `message` only these may be encoded (RFC 2046 5.2, RFC 6532 3.7, RFC 6533).
_MESSAGES = ("message/global", "message/global-headers", "message/global-delivery-status")


def seven_bit(content: bytes) -> bytes | None:
    """The message in 7 bits: parts with 8-bit octets are encoded, all others keep their bytes.

    What a reader decodes from each part stays the same. None where that cannot be: 8-bit octets in
    a header, in what is signed or encrypted, in an encoding that is none, or in no part at all.
    """
    if content.isascii():
        return content
    header, separator, body = split(content)
    root = scan(body, Headers(header))
    parts = root.walk()
    messages = {root, *(part.children[0] for part in parts if _holds_message(part))}
    converted: set[Part] = set()
    splices: list[Splice] = []
    # What is inside of a part comes before it.
    for part in reversed(parts):
        if part.children:
            if converted.isdisjoint(part.children):
                continue
            encoding = "7bit" if part.transfer_encoding in _IDENTITY else None
        else:
            octets = body[part.start : part.end]
            if octets.isascii():
                continue
            encoding, octets = _encoded(part, octets)
            if part.end == len(body):
                octets = _terminated(octets, encoding)
            splices.append((part.start, part.end, octets))
        converted.add(part)
        if encoding == part.transfer_encoding:
            continue
        blank_line = part.start > part.header_end if part is not root else bool(separator)
        if encoding is None or not blank_line:
            return None
        described = _described(part.headers, encoding, is_message=part in messages)
        if part is root:
            header = described
        else:
            splices.append((part.header_start, part.header_end, described))
    new = header + separator + transfer_encoding.apply(body, sorted(splices))
    return new if new.isascii() else None


def _holds_message(part: Part) -> bool:
    return bool(part.children) and not part.content_type.startswith("multipart/")


def _encoded(part: Part, octets: bytes) -> tuple[str | None, bytes]:
    """The encoding for a part without parts inside, or None, and the part in that encoding."""
    kind = part.content_type.partition("/")[0]
    data = octets
    if part.transfer_encoding == "quoted-printable":
        data, valid = quoted_printable.decode(octets)
    else:
        valid = part.transfer_encoding in _IDENTITY
    if (
        not valid
        or part.protected
        or kind == "multipart"
        or (kind == "message" and part.content_type not in _MESSAGES)
    ):
        return None, octets
    in_base64 = transfer_encoding.encode(data, "base64")
    if kind != "text" and part.transfer_encoding != "quoted-printable":
        return "base64", in_base64
    in_quoted_printable = quoted_printable.encode(data)
    if len(in_quoted_printable) > len(in_base64) or _has_delimiter(in_quoted_printable, part):
        return "base64", in_base64
    return "quoted-printable", in_quoted_printable


def _has_delimiter(content: bytes, part: Part) -> bool:
    """Whether a line, perhaps one that encoding broke off, would end the part."""
    text = b"\r\n" + content
    return any(b"\r\n--" + boundary in text for boundary in part.boundaries)


def _terminated(content: bytes, encoding: str | None) -> bytes:
    """With a line end, which is not part of what is encoded: the message ends there."""
    if encoding == "quoted-printable":
        return quoted_printable.end_softly(content)
    return content + b"\r\n"


def _described(headers: Headers, encoding: str, *, is_message: bool) -> bytes:
    """A header that names the encoding, once."""
    headers = headers.copy()
    while headers.delete(_FIELD, 1):
        pass  # of several the first counts
    headers.change(_FIELD, encoding)
    if is_message and "MIME-Version" not in headers:
        headers.add("MIME-Version", "1.0")
    return headers.raw
