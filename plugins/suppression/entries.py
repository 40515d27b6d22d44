"""Suppressed addresses and domains, in the one form in which they are compared. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import idna

_COMMENT = re.compile(r"(?:^|\s)#.*")
_ESCAPED = re.compile(r"\\(.)")
_DOMAIN = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[a-z0-9.:-]+\]")
# Nearly every address of a long list; what does not match is read with more care.
_PLAIN = re.compile(r"[a-z0-9!$%&'*+/=?^_`{|}~.-]+@[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Entries:
    """Addresses and whole domains, as `address` and `domain` write them."""

    addresses: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()

    def __or__(self, other: Entries) -> Entries:
        return Entries(self.addresses | other.addresses, self.domains | other.domains)


def local_part(text: str) -> str:
    """The part before the `@`, in the form in which it is compared: unquoted, NFC, caseless."""
    if text.startswith('"') and text.endswith('"'):
        text = _ESCAPED.sub(r"\1", text[1:-1])
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def domain(text: str) -> str:
    """A domain in lower case and A-labels (RFC 5891), or an address literal.

    Raises:
        ValueError: it is neither.
    """
    try:
        name = text.lower() if text.isascii() else idna.encode(text, uts46=True).decode("ascii")
    except idna.IDNAError:
        name = ""
    if not _DOMAIN.fullmatch(name):
        raise ValueError(f"{text!r} is not a domain")
    return name


def address(text: str) -> str:
    """A whole address in the form in which it is compared.

    Raises:
        ValueError: it has not the form user@domain.
    """
    local, _, name = text.rpartition("@")
    quoted = len(local) > 1 and local.startswith('"') and local.endswith('"')
    if not local or _FORBIDDEN.search(local) or (" " in local and not quoted):
        raise ValueError(f"{text!r} is not an address; expected user@domain")
    return f"{local_part(local)}@{domain(name)}"


def parse(lines: Iterable[str]) -> Entries:
    """Reads a list: on each line an address or `@domain`; `#` begins a comment.

    Raises:
        ValueError: a line is neither; the text begins with its number.
    """
    addresses, domains = set(), set()
    for number, line in enumerate(lines, 1):
        plain = line.strip().lower()
        if _PLAIN.fullmatch(plain):
            addresses.add(plain)
            continue
        entry = (_COMMENT.sub("", line) if "#" in line else line).strip()
        try:
            if entry.startswith("@"):
                domains.add(domain(entry[1:]))
            elif entry:
                addresses.add(address(entry))
        except ValueError as error:
            raise ValueError(f"{number}: {error}") from None
    return Entries(frozenset(addresses), frozenset(domains))
