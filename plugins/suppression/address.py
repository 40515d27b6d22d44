"""Addresses, domains and patterns in the one form in which they are compared. Pure."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

from gateway.hooks import domain_name

_ESCAPED = re.compile(r"\\(.)")
_QUOTED = re.compile(r'"(?:[^"\\\x00-\x1f\x7f-\x9f\ud800-\udfff]|\\[ -~])*"')
# What may stand without quotes (RFC 5321 4.1.2, RFC 6531), with dots at any place: Japanese
# carriers gave out `a..b@docomo.ne.jp` and `a.@ezweb.ne.jp`.
_ATOMS = re.compile(r'[^\x00-\x20\x7f-\xa0\ud800-\udfff"(),:;<>@\[\\\]]+')
_LITERAL = re.compile(r"\[[a-z0-9.:-]+\]")
_NAME_PATTERN = re.compile(r"[a-z0-9_*-]+(?:\.[a-z0-9_*-]+)*")
# Nearly every address of a long list; what does not match is read with more care.
_PLAIN = re.compile(r"[a-z0-9!#$%&'+/=?^_`{|}~.-]+@[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")

_GMAIL = ("gmail.com", "googlemail.com")


def normal_local_part(text: str) -> str:
    """A valid part before the `@`, in the form in which it is compared.

    Without quotes where it can do without them, composed, and caseless: RFC 5321 2.4 would allow
    `Taro@` and `taro@` to be two people, and nobody gives out addresses like that.
    """
    if text[:1] == '"':
        text = _ESCAPED.sub(r"\1", text[1:-1])
    elif text.isascii():
        return text.lower()
    text = _folded(text)
    if _ATOMS.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def normal_domain(text: str) -> str:
    """A domain in lower case and A-labels, or an address literal.

    Raises:
        ValueError: it is neither.
    """
    literal = text.lower()
    return literal if _LITERAL.fullmatch(literal) else domain_name(text)


def normal_address(text: str) -> str:
    """A whole address in the form in which it is compared.

    Raises:
        ValueError: it has not the form user@domain.
    """
    plain = text.lower()
    if _PLAIN.fullmatch(plain):
        return plain
    local, _, domain = text.rpartition("@")
    if not _ATOMS.fullmatch(local) and not _QUOTED.fullmatch(local):
        raise ValueError(f"{text!r} is not an address; expected user@domain")
    return f"{normal_local_part(local)}@{normal_domain(domain)}"


def normal_pattern(text: str) -> str:
    """A pattern in which `*` stands for any text: `info@*`, `*@*.example.com`.

    `*@example.com` is the domain, `@example.com`.

    Raises:
        ValueError: it has not this form, or is `*@*`.
    """
    local, _, domain = text.rpartition("@")
    local, domain = (re.sub(r"\*+", "*", part) for part in (local, domain))
    if not domain.isascii():
        # Label by label, because IDNA refuses the asterisk.
        labels = domain.split(".")
        domain = ".".join(label if "*" in label else normal_domain(label) for label in labels)
    local, domain = _folded(local), domain.lower()
    if not _ATOMS.fullmatch(local) or not _NAME_PATTERN.fullmatch(domain):
        raise ValueError(f"{text!r} is not a pattern; expected one like info@* or *@*.example.com")
    if local == "*":
        if domain == "*":
            raise ValueError("the pattern *@* would suppress all mail")
        if "*" not in domain:
            return f"@{domain}"
    return f"{local}@{domain}"


def normal_entry(text: str) -> str:
    """Whatever a list may name, in the form in which it is compared.

    An address, `@example.org` for a domain, `@.example.org` for a domain with all its subdomains,
    or a pattern, which is what has an asterisk.

    Raises:
        ValueError: it is none of these.
    """
    if "*" in text:
        return normal_pattern(text)
    if not text.startswith("@"):
        return normal_address(text)
    if text.startswith("@."):
        return f"@.{normal_domain(text[2:])}"
    return f"@{normal_domain(text[1:])}"


def is_pattern(entry: str) -> bool:
    """Whether a normal entry is a pattern."""
    return "*" in entry


class Target(NamedTuple):
    """An address that is looked for.

    Attributes:
        local: the part before the `@`, normal.
        domain: the domain, normal.
        address: both.
        reduced: the address without what makes no difference.
        names: the entries, patterns apart, that name it.
    """

    local: str
    domain: str
    address: str
    reduced: str
    names: list[str]


def root(address: str) -> str | None:
    """The address that this normal one is a spelling of if all is ignored that may be.

    That is a tag (`user+tag@`), and the dots of Gmail. None if it is that address itself, and for
    domains and patterns.
    """
    reduced = _ALL_IGNORED.reduced(address)
    return None if reduced == address else reduced


@dataclass(frozen=True, slots=True)
class Spelling:
    """What makes no difference between addresses besides case.

    Attributes:
        subaddresses: the tag of `user+tag@example.com` (RFC 5233).
        gmail: dots and tags at gmail.com, which is also googlemail.com.
    """

    subaddresses: bool = False
    gmail: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether everything makes a difference."""
        return not (self.subaddresses or self.gmail)

    def reduced(self, address: str) -> str:
        """A normal address without what makes no difference; anything else as it is."""
        local, _, domain = address.rpartition("@")
        if not local or local[0] == '"' or "*" in address:
            return address
        at_gmail = self.gmail and domain in _GMAIL
        if "+" in local and (self.subaddresses or at_gmail):
            local = local.partition("+")[0] or local
        if at_gmail:
            local, domain = local.replace(".", "") or local, _GMAIL[0]
        return f"{local}@{domain}"

    def target(self, local: str, domain: str) -> Target:
        """What to look for to find an address, of which both parts are normal."""
        address = f"{local}@{domain}"
        names = [address, f"@{domain}", f"@.{domain}"]
        if domain[:1] != "[":
            dot = domain.find(".")
            while dot >= 0:
                names.append(f"@{domain[dot:]}")
                dot = domain.find(".", dot + 1)
        reduced = address
        if self.subaddresses or self.gmail:
            reduced = self.reduced(address)
            if reduced != address:
                names.append(reduced)
        return Target(local, domain, address, reduced, names)


_ALL_IGNORED = Spelling(subaddresses=True, gmail=True)
