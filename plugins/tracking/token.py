"""What a tracked URL carries, and its compact form before it is sealed. Pure.

The form has two pieces. The first is the same in all tokens for one recipient of a message, and
made once: the day in two octets, then the fields with a NUL after each, in raw deflate (RFC 1951)
with a preset dictionary. The second is the letter of the kind, the link's name, a NUL, and the URL,
in which a single octet stands for some frequent strings.

URLs in mail that was sent long ago depend on it: neither the order of the fields, nor the
dictionary, nor the letters and octets may ever change.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import StrEnum

_DAY = 86_400
_LAST_DAY = 0xFFFF
# What is likeliest stands last, where it costs least to refer to.
_DICTIONARY = (
    b"newsletter\0noreply@\0bounces@mail.\0.example\0.org\0.net\0.co.jp\0.com\0"
    b"@outlook.com\0@icloud.com\0@softbank.ne.jp\0@ezweb.ne.jp\0@docomo.ne.jp\0@yahoo.co.jp\0"
    b"@gmail.com\0transactional\0default\0bulk\0"
)
_WINDOW = -10
# To copy it is faster than to make one, and with less memory more so.
_DEFLATE = zlib.compressobj(wbits=_WINDOW, memLevel=4, zdict=_DICTIONARY)
_LONGEST = 4096
_TARGET = re.compile(r"https?://[!-~]++", re.IGNORECASE)
# In the order in which they are replaced. A URL has no octets below 33 of its own.
_FREQUENT = (
    ("https://www.", "\x01"),
    ("https://", "\x02"),
    ("http://", "\x03"),
    (".co.jp/", "\x04"),
    (".com/", "\x05"),
    ("utm_source=", "\x06"),
    ("utm_medium=email", "\x07"),
    ("utm_campaign=", "\x08"),
)


class Kind(StrEnum):
    """What a token is for. One kind is never taken for another."""

    CLICK = "click"
    OPEN = "open"
    UNSUBSCRIBE = "unsubscribe"
    CONVERSION = "conversion"


_LETTERS = {Kind.CLICK: "c", Kind.OPEN: "o", Kind.UNSUBSCRIBE: "u", Kind.CONVERSION: "v"}
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}


@dataclass(frozen=True, slots=True)
class Token:
    """What the gateway says to itself through a URL in a message.

    Attributes:
        kind: what the URL is for.
        message_id: the queue id of the message.
        recipient: whom the message went to.
        sender: the envelope sender.
        stream, campaign, variant: what the message belonged to, '' where it belonged to none.
        day: when the token was made, in days since the epoch; 0: it is not made yet.
        url: where a click leads: http or https, in ASCII; '' in tokens of all other kinds.
        link: the name of the link that was clicked, '' if it has none.
    """

    kind: Kind
    message_id: str
    recipient: str
    sender: str = ""
    stream: str = ""
    campaign: str = ""
    variant: str = ""
    day: int = 0
    url: str = ""
    link: str = ""

    def older_than(self, seconds: float, now: float) -> bool:
        """Whether more than `seconds` have passed at `now` (since the epoch), in whole days."""
        return now - (self.day + 1) * _DAY > seconds


def day_of(now: float) -> int:
    """The day of a time in seconds since the epoch."""
    return int(now // _DAY)


def encode_common(
    message_id: str,
    recipient: str,
    sender: str = "",
    stream: str = "",
    campaign: str = "",
    variant: str = "",
    day: int = 0,
) -> bytes:
    """The piece that all tokens for one recipient of a message have in common.

    Raises:
        ValueError: a field contains a NUL, all are too long, or the day is not in 0 to 65535.
    """
    text = "\0".join((message_id, recipient, sender, stream, campaign, variant))
    if text.count("\0") != 5:
        raise ValueError("a token cannot carry a NUL")
    if len(text) > _LONGEST:
        raise ValueError(f"{len(text)} characters are too long for a token")
    if not 0 <= day <= _LAST_DAY:
        raise ValueError(f"{day} is no day that a token can carry")
    deflate = _DEFLATE.copy()
    plain = day.to_bytes(2, "big") + text.encode("utf-8", "surrogatepass")
    return deflate.compress(plain) + deflate.flush()


def encode_own(kind: Kind, url: str = "", link: str = "") -> bytes:
    """The piece that is a token's own.

    Raises:
        ValueError: a click leads to something else than an http or https URL in ASCII, a token of
            another kind has a URL, or the link's name contains a NUL.
    """
    if kind is Kind.CLICK:
        if not _TARGET.fullmatch(url):
            raise ValueError("a click must lead to an http or https URL in ASCII")
        for text, octet in _FREQUENT:
            url = url.replace(text, octet)
    elif url:
        raise ValueError(f"a token for {kind} has no URL")
    if "\0" in link:
        raise ValueError("a token cannot carry a NUL")
    return f"{_LETTERS[kind]}{link}\0{url}".encode("utf-8", "surrogatepass")


def decode(data: bytes) -> Token | None:
    """Reads the two pieces, joined; None for anything else."""
    inflate = zlib.decompressobj(_WINDOW, zdict=_DICTIONARY)
    try:
        plain = inflate.decompress(data, 4 * _LONGEST + 2)
        common = plain[2:].decode("utf-8", "surrogatepass").split("\0")
        own = inflate.unused_data.decode("utf-8", "surrogatepass")
    except (zlib.error, UnicodeDecodeError):
        return None
    letter, (link, nul, url) = own[:1], own[1:].partition("\0")
    kind = _KINDS.get(letter)
    if kind is None or not nul or len(common) != 6:
        return None
    if kind is Kind.CLICK:
        for text, octet in _FREQUENT:
            url = url.replace(octet, text)
        if not _TARGET.fullmatch(url):
            return None
    elif url:
        return None
    message_id, recipient, sender, stream, campaign, variant = common
    day = int.from_bytes(plain[:2], "big")
    return Token(kind, message_id, recipient, sender, stream, campaign, variant, day, url, link)
