"""The token in a return path: what a bounce says of itself, whatever else it says. Pure.

Behind the prefix and its `+`, in characters of Crockford's base 32 (0-9 and a-z without i, l, o and
u), in either case:

    queue id | key (1) | day (3) | origin (5) | signature (8) | - | recipient

The origin is a hash of the sender's domain and the stream. The recipient is `user=example.com`, or
a hash of 8 characters where that has no room or is not wanted. An address has an `=` in it and a
hash has none. Mail that is under way depends on this form: it may never change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b

from gateway.hooks import domain_name

LONGEST_LOCAL_PART = 64
"""Octets (RFC 5321 4.5.3.1.1)."""
DAY = 86_400

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_TEXT = re.compile(
    r"([0-9a-z]{1,20})([0-9a-hjkmnp-tv-z])([0-9a-hjkmnp-tv-z]{3})([0-9a-hjkmnp-tv-z]{5})"
    r"([0-9a-hjkmnp-tv-z]{8})-(.+)",
    re.IGNORECASE | re.ASCII,
)
_HASH = re.compile(r"[0-9a-hjkmnp-tv-z]{8}", re.IGNORECASE | re.ASCII)
# What goes through every server as it is. `%`, `!` and `|` meant routes and programs once.
_PLAIN = re.compile(r"[A-Za-z0-9_+=~'.-]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?", re.ASCII)
FIXED = 18
"""Characters of a token besides the queue id and the recipient."""

_SIGNED_FOR = b"return path"
_HASHED_FOR = b"recipient"


@dataclass(frozen=True, slots=True)
class Token:
    """What stands in a return path.

    Attributes:
        message_id: the queue id of the message.
        key: the id of the key that signed it.
        day: when it was made, in days since the epoch.
        origin: what `origin` gave for the sender's domain and the stream.
        recipient: whom the message went to; '' if only the hash is known.
        recipient_hash: a hash of the recipient; '' where the address stands itself.
        signed: the text that is signed.
        signature: the signature over it.
    """

    message_id: str
    key: int
    day: int
    origin: str
    recipient: str
    recipient_hash: str
    signed: str
    signature: str

    def older_than(self, seconds: float, now: float) -> bool:
        """Whether more than `seconds` have passed at `now` (since the epoch), in whole days."""
        return now - (self.day + 1) * DAY > seconds


def stamp(key: int, day: int) -> str:
    """Key and day as they stand in a token."""
    return _ALPHABET[key] + _ALPHABET[day >> 10 & 31] + _PAIRS[day & 1023]


def origin(sender_domain: str, stream: str) -> str:
    """A hash of 25 bits of what a message belongs to."""
    number = _number(blake2b(f"{sender_domain} {stream}".encode(), digest_size=5))
    return _PAIRS[number & 1023] + _PAIRS[number >> 10 & 1023] + _ALPHABET[number >> 20 & 31]


def write(head: str, secret: bytes, recipient: str) -> str:
    """A token.

    Args:
        head: the queue id, what `stamp` gave for the key and the day, and what `origin` gave.
        secret: the key.
        recipient: what `verp` or `recipient_hash` gave.
    """
    return f"{head}{sign(f'{head}-{recipient}', secret)}-{recipient}"


def sign(signed: str, secret: bytes) -> str:
    """The signature of 40 bits over a text in either case."""
    number = _number(
        blake2b(signed.lower().encode(), digest_size=5, key=secret, person=_SIGNED_FOR)
    )
    pairs = _PAIRS
    return (
        pairs[number >> 30]
        + pairs[number >> 20 & 1023]
        + pairs[number >> 10 & 1023]
        + pairs[number & 1023]
    )


def _number(digest: blake2b) -> int:
    return int.from_bytes(digest.digest(), "big")


def verp(address: str) -> str | None:
    """`user=example.com`; None for an address that does not go into a local part as it is."""
    if not _PLAIN.fullmatch(address) or ".." in address:
        return None
    local, _, domain = address.rpartition("@")
    return f"{local}={domain}"


def recipient_hash(address: str, secret: bytes) -> str:
    """A hash of 40 bits of an address, the same for all ways to write it.

    It depends on the key: nobody else can find out which address it was by trying.
    """
    number = _number(
        blake2b(normal(address).encode(), digest_size=5, key=secret, person=_HASHED_FOR)
    )
    return "".join([_PAIRS[number >> shift & 1023] for shift in (30, 20, 10, 0)])


def normal(address: str) -> str:
    """An address in the form in which addresses are compared."""
    local, _, domain = address.rpartition("@")
    try:
        domain = domain_name(domain)
    except ValueError:
        domain = domain.lower()
    return f"{local.lower()}@{domain}"


def read(text: str) -> Token | None:
    """Reads a token, which may be forged; None for anything else."""
    match = _TEXT.fullmatch(text)
    if match is None or len(text) > LONGEST_LOCAL_PART:
        return None
    message_id, key, day, origin_, signature, recipient = match.groups()
    local, is_address, domain = recipient.rpartition("=")
    if not is_address and not _HASH.fullmatch(recipient):
        return None
    number = 0
    for character in day.lower():
        number = number << 5 | _VALUES[character]
    return Token(
        message_id=message_id.upper(),
        key=_VALUES[key.lower()],
        day=number,
        origin=origin_.lower(),
        recipient=f"{local}@{domain}" if is_address else "",
        recipient_hash="" if is_address else recipient.lower(),
        signed=f"{message_id}{key}{day}{origin_}-{recipient}",
        signature=signature.lower(),
    )
