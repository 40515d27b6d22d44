"""The record in the DNS that holds a public key (RFC 6376 3.6.1): read and written. Pure."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass

from plugins.dkim.key import PublicKey, public_key
from plugins.dkim.tag_list import parse_tags, words

_LONGEST_STRING = 255
"""Of the strings that a TXT record is made of, in octets (RFC 1035 3.3)."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What a record says.

    Attributes:
        type: `k=`, how the key is used; `rsa` if the record does not say.
        octets: `p=`, decoded; empty if the key was revoked.
        hashes: `h=`, the hash algorithms that the key is for; None: all.
        services: `s=`, what the key is for; `*` is all.
        testing: `t=y`: the domain tries DKIM, and its signatures prove nothing yet.
        exact: `t=s`: the domain in a signature's `i=` must be its `d=`, not one below.
    """

    type: str
    octets: bytes
    hashes: frozenset[str] | None
    services: frozenset[str]
    testing: bool
    exact: bool

    @property
    def revoked(self) -> bool:
        """Whether the key must not be used any more."""
        return not self.octets

    @property
    def serves_mail(self) -> bool:
        """Whether the key may sign mail."""
        return bool(self.services & {"*", "email"})

    @property
    def serves_sha256(self) -> bool:
        """Whether the key may sign what was hashed with SHA-256."""
        return self.hashes is None or "sha256" in self.hashes

    def key(self) -> PublicKey:
        """The key itself.

        Raises:
            ValueError: it is of no type that we know, or is no key.
        """
        return public_key(self.type, self.octets)


def parse_record(text: bytes) -> KeyRecord:
    """Reads the text of a record.

    Raises:
        ValueError: it is no record of a key. The text is made of ours alone.
    """
    tags = {name: tag.value for name, tag in parse_tags(text).items()}
    if "v" in tags and (tags["v"] != b"DKIM1" or next(iter(tags)) != "v"):
        raise ValueError("v= is not DKIM1, or does not come first")
    if "p" not in tags:
        raise ValueError("there is no p=")
    try:
        octets = b64decode(b"".join(tags["p"].split()), validate=True)
    except binascii.Error:
        raise ValueError("p= is not base64") from None
    flags = _words(tags.get("t", b""))
    return KeyRecord(
        type=tags.get("k", b"rsa").decode("latin-1").lower(),
        octets=octets,
        hashes=_words(tags["h"]) if "h" in tags else None,
        services=_words(tags.get("s", b"*")),
        testing="y" in flags,
        exact="s" in flags,
    )


def record_name(selector: str, domain: str) -> str:
    """Where the record of a key stands."""
    return f"{selector}._domainkey.{domain}"


def record_text(key: PublicKey) -> str:
    """The text of a key's record."""
    return f"v=DKIM1; k={key.type}; p={b64encode(key.octets).decode()}"


def zone_lines(name: str, text: str) -> str:
    """A TXT record in the form of a zone file (RFC 1035 5.1).

    Args:
        name: without the dot at the end.
        text: ASCII, of any length, without quotation marks.
    """
    strings = [
        f'"{text[start : start + _LONGEST_STRING]}"'
        for start in range(0, len(text), _LONGEST_STRING)
    ]
    if len(strings) == 1:
        return f"{name}. IN TXT {strings[0]}"
    lines = "".join(f"\n    {string}" for string in strings)
    return f"{name}. IN TXT ({lines} )"


def _words(value: bytes) -> frozenset[str]:
    return frozenset(word.decode("latin-1").lower() for word in words(value))
