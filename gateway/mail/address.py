"""Addresses and parameters of MAIL and RCPT: SMTP paths, ESMTP parameters, xtext. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

import idna

MAX_PATH = 256
"""Octets in a path with its angle brackets (RFC 5321 4.5.3.1.3)."""


class AddressSyntaxError(ValueError):
    """A path, parameter or xtext that breaks the grammar; the text says how, on one line."""


# What may stand outside ASCII (RFC 6531): no C1 controls, no spaces, nothing that UTF-8 cannot say.
_WIDE = (
    r"\xa1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u2fff"
    r"\u3001-\ud7ff\ue000-\U0010ffff"
)
# Dots may stand anywhere: Japanese carriers gave out `a..b@docomo.ne.jp` and `a.@ezweb.ne.jp`.
_ATOMS = rf"[A-Za-z0-9!#$%&'*+\-/=?^_`{{|}}~.{_WIDE}]++"
_QUOTED = rf'"(?:[ !#-\[\]-~\xa0{_WIDE}]|\\[ -~])*"'
_LABEL = rf"[A-Za-z0-9_\-{_WIDE}]++"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[!-Z^-~]++\])"

# RFC 1035 2.3.4, without the length octet of the first label and the root.
_LONGEST_NAME = 253
_DOMAIN_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
_MAILBOX = re.compile(rf" *+<({_ATOMS}@{_DOMAIN})>(?: ++|\Z)")
_PATH = re.compile(
    rf" *+<(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?((?:{_ATOMS}|{_QUOTED})@{_DOMAIN}|[Pp][Oo][Ss][Tt]"
    r"[Mm][Aa][Ss][Tt][Ee][Rr])?>(?: ++|\Z)"
)
_BARE = re.compile(r" *+([A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.]++@[A-Za-z0-9_.\-]*[A-Za-z0-9])(?: ++|\Z)")
_PARAMETER = re.compile(
    rf"([A-Za-z0-9][A-Za-z0-9\-]*+)(?:=([!-<>-~{_WIDE}]++))?(?: ++|\Z)",
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ORCPT = re.compile(rf"[!-:<>-~]++;([!-<>-~{_WIDE}]++)")
_LONGEST_ORCPT = 500
_XTEXT = re.compile(r"[!-*,-<>-~]++")
_XTEXT_PIECE = re.compile(r"\+([0-9A-F]{2})|\\x\{([0-9A-F]{1,6})\}|(.)", re.DOTALL)


@lru_cache(maxsize=8192)
def domain_of(address: str) -> str:
    """The domain of an address in lower case and A-labels (RFC 5890), '' if it has none.

    An address literal such as `[192.0.2.1]` stays one. A domain that IDNA cannot convert comes
    back in lower case and otherwise as it is.
    """
    domain = address.rpartition("@")[2] if "@" in address else ""
    if not domain.isascii():
        try:
            return idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError:
            pass  # no name in the DNS; it will fail there, with a report to the sender
    return domain.lower()


def domain_name(text: str) -> str:
    """A domain name in the form in which names are compared: lower case, A-labels (RFC 5891).

    Raises:
        ValueError: it is none, or longer than the DNS takes (RFC 1035 2.3.4).
    """
    try:
        name = text.lower() if text.isascii() else idna.encode(text, uts46=True).decode("ascii")
    except UnicodeError:
        name = ""
    if len(name) > _LONGEST_NAME or not _DOMAIN_NAME.fullmatch(name):
        raise ValueError(f"{text!r} is not a domain name")
    return name


def parse_path(text: str) -> tuple[str, str]:
    """Reads the path that follows `FROM:` or `TO:` (RFC 5321 4.1.2).

    Returns the address ('' for the null path `<>`) and what comes after it: the parameters. A
    source route is dropped. More than the grammar is accepted where real mail needs it: dots at
    any place of the local part, spaces before the path, and a plain address without brackets.
    Characters outside ASCII are accepted: the caller checks for SMTPUTF8.

    Raises:
        AddressSyntaxError: there is no path, or it is longer than 256 octets.
    """
    match = _MAILBOX.match(text) or _PATH.match(text) or _BARE.match(text)
    if match is None:
        raise AddressSyntaxError(_complaint(text))
    end = match.end()
    if end > MAX_PATH // 4 and len(match[0].strip(" ").encode()) > MAX_PATH:
        raise AddressSyntaxError(f"the path is longer than {MAX_PATH} octets")
    return match[1] or "", text[end:]


def is_path(address: object) -> bool:
    """Whether an address, or '', can stand in MAIL or RCPT."""
    if not isinstance(address, str):
        return False
    try:
        return parse_path(f"<{address}>") == (address, "")
    except AddressSyntaxError:
        return False


def _complaint(text: str) -> str:
    """Why `text` does not begin with a path."""
    path = text.strip(" ")
    if not path:
        return "the address is missing"
    if _CONTROL.search(path):
        return "the address contains a control character"
    if path.startswith("<") and ">" not in path:
        return "the address lacks its closing bracket"
    if not path.startswith("<"):
        return "the address must stand in angle brackets"
    if "@" not in path:
        return "the address has no domain"
    return "the address is not valid"


def check(address: str) -> str:
    """Returns an address that a program made, if it cannot break out of a command.

    Raises:
        AddressSyntaxError: it contains a control character.
    """
    if _CONTROL.search(address):
        raise AddressSyntaxError(f"the address {address!r} contains a control character")
    return address


def parse_parameters(text: str) -> dict[str, str | None]:
    """Reads the ESMTP parameters after a path: keyword in upper case → value as it came.

    A keyword without a value has None.

    Raises:
        AddressSyntaxError: a parameter breaks RFC 5321 4.1.2, or comes twice.
    """
    parameters: dict[str, str | None] = {}
    position = len(text) - len(text.lstrip(" "))
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            raise AddressSyntaxError("a parameter is not valid")
        keyword = match[1].upper()
        if keyword in parameters:
            raise AddressSyntaxError(f"the parameter {keyword} comes twice")
        parameters[keyword] = match[2]
        position = match.end()
    return parameters


def decode_xtext(value: str) -> str:
    r"""Decodes xtext (RFC 3461 4), and `\x{20AC}` as it stands in ORCPT (RFC 6533 3).

    Raises:
        AddressSyntaxError: the text is not valid, or decodes to control characters, which the
            RFC excludes and a report must never carry.
    """
    if "+" not in value and "\\" not in value and _XTEXT.fullmatch(value):
        return value
    octets = bytearray()
    for escape, point, plain in _XTEXT_PIECE.findall(value):
        if escape:
            octets.append(int(escape, 16))
        elif point and int(point, 16) < 0x110000:
            octets += chr(int(point, 16)).encode("utf-8", "surrogatepass")
        elif not plain or plain in "+=" or plain < "!" or "\x7f" <= plain < "\xa0":
            raise AddressSyntaxError("the text is not valid xtext")
        else:
            octets += plain.encode("utf-8", "surrogatepass")
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise AddressSyntaxError("the xtext does not decode to UTF-8") from None
    if _CONTROL.search(text):
        raise AddressSyntaxError("the xtext contains a control character")
    return text


def is_xtext(value: str) -> bool:
    """Whether `decode_xtext` takes a value."""
    try:
        decode_xtext(value)
    except AddressSyntaxError:
        return False
    return True


def is_original_recipient(value: object) -> bool:
    """Whether a value can stand in ORCPT: type, semicolon and xtext (RFC 3461 4.2, RFC 6533 3)."""
    if not isinstance(value, str) or len(value) > _LONGEST_ORCPT:
        return False
    match = _ORCPT.fullmatch(value)
    return match is not None and is_xtext(match[1])


def encode_xtext(value: str) -> str:
    """Encodes text as xtext (RFC 3461 4); what is not ASCII as the octets of its UTF-8."""
    if _XTEXT.fullmatch(value):
        return value
    return "".join(
        chr(octet) if 0x21 <= octet <= 0x7E and octet not in b"+=" else f"+{octet:02X}"
        for octet in value.encode()
    )
