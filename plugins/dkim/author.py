"""The domains in a From field, read from its bytes (RFC 5322 3.4 and 3.6.2). Pure.

A field that two programs could read differently has no domain here: a signature must not vouch for
an author that the receiver does not see.
"""

from __future__ import annotations

import re

from gateway.hooks import domain_name

# RFC 1035 2.3.4, without the length octet of the first label and the root.
_LONGEST_NAME = 253
_QUOTED = rb'"(?:[^"\\]|\\.)*"'
# One address with or without a display name, as nearly all mail has it.
_PLAIN = re.compile(
    rb'(?:(?:[^"(),:;<>@\\\[\]]*|\s*' + _QUOTED + rb"\s*)<|\s*)"
    rb'[^"(),:;<>@\\\[\]\s]+@([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)(>?)\s*',
    re.DOTALL,
)
# Text whose octets stand for other characters: encoded words, and Japanese that was sent raw.
_ENCODED = re.compile(rb'=\?[^?\s<>"]+\?[BbQq]\?[^?\s<>"]*\?=|\x1b(?:\$[@B][^\x1b]*|\([A-Z])')
# Where a comment may begin, and what can stand in one, where quotation marks mean nothing.
_BEFORE_COMMENT = re.compile(_QUOTED + rb"|\\.|\(", re.DOTALL)
_IN_COMMENT = re.compile(rb"\\.|[()]", re.DOTALL)
_TOKEN = re.compile(
    rb'<(?P<angle>(?:[^"<>]|' + _QUOTED + rb")*)>|(?P<end>[,;])|(?P<group>:)|(?P<stray>[<>])|"
    rb'(?P<text>[^"<>,;:]+|' + _QUOTED + rb')|(?P<quote>")',
    re.DOTALL,
)
_WHITE_SPACE = re.compile(rb"\s")


def author_domains(value: bytes) -> tuple[str, ...]:
    """The domains of all addresses in a From field's body, each once, in order, as A-labels.

    Returns:
        Nothing if there is no address, or if any part of the field cannot be read for certain.
    """
    plain = _PLAIN.fullmatch(value)
    if plain is not None and (b"<" in value) is (plain[2] == b">"):
        domain = plain[1].decode("ascii").lower()
        return (domain,) if len(domain) <= _LONGEST_NAME else ()
    try:
        addresses = _addresses(without_comments(_ENCODED.sub(b"_", value)))
        return tuple(dict.fromkeys(_domain(address) for address in addresses))
    except ValueError:
        return ()


def without_comments(value: bytes) -> bytes:
    """A field's body with a space in place of each comment (RFC 5322 3.2.2).

    Raises:
        ValueError: a comment does not end.
    """
    kept = []
    depth = start = end = 0
    while token := (_IN_COMMENT if depth else _BEFORE_COMMENT).search(value, end):
        end = token.end()
        if token[0] == b"(":
            if depth == 0:
                kept.append(value[start : token.start()])
            depth += 1
        elif token[0] == b")":
            depth -= 1
            start = end
    if depth:
        raise ValueError("a comment does not end")
    kept.append(value[start:])
    return b" ".join(kept)


def _addresses(value: bytes) -> list[bytes]:
    """Takes a list of mailboxes and groups apart."""
    addresses: list[bytes] = []
    text: list[bytes] = []
    angle: bytes | None = None
    for token in _TOKEN.finditer(value + b","):
        kind = token.lastgroup
        if kind == "text":
            text.append(token[0])
        elif kind == "angle" and angle is None:
            angle = token["angle"]
        elif kind == "end":
            if angle is not None:
                addresses.append(angle)
            elif b"@" in (words := b"".join(text)):
                addresses.append(words)
            text, angle = [], None
        elif kind == "group" and angle is None:
            text = []
        else:
            raise ValueError("an address cannot be told from its name")
    return addresses


def _domain(address: bytes) -> str:
    address = address.strip()
    if address.startswith(b"@"):
        # A source route (RFC 5322 4.4) comes before the address.
        address = address.partition(b":")[2]
    local, _, domain = address.rpartition(b"@")
    if not local or (not local.startswith(b'"') and _WHITE_SPACE.search(local.strip())):
        raise ValueError("there is more than an address")
    return domain_name(domain.strip().decode("utf-8"))
