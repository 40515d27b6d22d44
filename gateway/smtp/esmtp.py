"""The parameters of MAIL and RCPT that we advertise. Pure.

SIZE, 8BITMIME, SMTPUTF8, DSN, FUTURERELEASE, MT-PRIORITY and REQUIRETLS. ENVID and ORCPT stay in
xtext, as they go out again.
"""

from __future__ import annotations

import re

from gateway.mail.address import encode_xtext, is_original_recipient, is_xtext
from gateway.mail.message import Message, Recipient
from gateway.smtp.future_release import FutureReleaseError, after_interval, at_date_time

_PRIORITY = re.compile(r"0|-?[1-9]")
# What RFC 6533 3 has as QCHAR, and what is not ASCII.
_NOT_PLAIN = re.compile(r"[^!-*,-<>-\[\]-~]")
_NOTIFY = frozenset({"NEVER", "SUCCESS", "FAILURE", "DELAY"})


def apply_mail_parameters(
    message: Message,
    parameters: dict[str, str | None],
    *,
    max_size: int,
    now: float,
    longest_hold: float,
) -> tuple[int, str | None]:
    """Notes on a message what its MAIL command said.

    Returns the declared size in octets (0: none) and the reply that refuses the command, if any.

    Args:
        message: what is noted on; its client says whether the connection is encrypted.
        parameters: keywords in upper case, and values.
        max_size: octets of the largest message.
        now: seconds since the epoch.
        longest_hold: how many seconds mail may be kept for later; 0.0: FUTURERELEASE is off.
    """
    size = 0
    for keyword, value in parameters.items():
        if keyword == "SIZE":
            if value is None or not value.isascii() or not value.isdigit() or len(value) > 20:
                return 0, "501 5.5.4 SIZE takes a number of octets (RFC 1870)"
            size = int(value)
            if size > max_size:
                return size, "552 5.3.4 The message is too large"
        elif keyword == "BODY":
            if value is None or value.upper() not in ("7BIT", "8BITMIME"):
                return size, "501 5.5.4 BODY is 7BIT or 8BITMIME (RFC 6152)"
        elif keyword == "SMTPUTF8":
            if value is not None:
                return size, "501 5.5.4 SMTPUTF8 takes no value (RFC 6531)"
            message.smtputf8 = True
        elif keyword == "RET":
            if value is None or value.upper() not in ("FULL", "HDRS"):
                return size, "501 5.5.4 RET is FULL or HDRS (RFC 3461)"
            message.ret = value.upper()
        elif keyword == "ENVID":
            if value is None or len(value) > 100 or not is_xtext(value):
                return size, "501 5.5.4 ENVID takes up to 100 characters of xtext (RFC 3461)"
            message.envid = value
        elif keyword == "AUTH":
            if value is None or not is_xtext(value):
                return size, "501 5.5.4 AUTH takes an address in xtext (RFC 4954)"
        elif keyword == "MT-PRIORITY":
            if value is None or not _PRIORITY.fullmatch(value):
                return size, "501 5.5.4 MT-PRIORITY is a number from -9 to 9 (RFC 6710)"
            message.priority = int(value)
        elif keyword == "REQUIRETLS":
            if value is not None:
                return size, "501 5.5.4 REQUIRETLS takes no value (RFC 8689)"
            if message.client.tls is None:
                return size, "530 5.7.10 REQUIRETLS needs an encrypted connection (RFC 8689)"
            message.require_tls = True
        elif keyword in ("HOLDFOR", "HOLDUNTIL") and longest_hold:
            if "HOLDFOR" in parameters and "HOLDUNTIL" in parameters:
                return size, "501 5.5.4 HOLDFOR and HOLDUNTIL do not go together (RFC 4865)"
            release = after_interval if keyword == "HOLDFOR" else at_date_time
            try:
                message.release = release(value, now, longest_hold)
            except FutureReleaseError as error:
                return size, f"501 5.5.4 {error}"
        else:
            return size, f"555 5.5.4 The parameter {keyword} is not supported"
    return size, None


def apply_rcpt_parameters(recipient: Recipient, parameters: dict[str, str | None]) -> str | None:
    """Notes on a recipient what its RCPT command said; returns the reply that refuses it."""
    for keyword, value in parameters.items():
        if keyword == "NOTIFY":
            wishes = frozenset((value or "").upper().split(","))
            if not wishes <= _NOTIFY or ("NEVER" in wishes and len(wishes) > 1):
                return "501 5.5.4 NOTIFY is NEVER, or some of SUCCESS,FAILURE,DELAY (RFC 3461)"
            recipient.notify = wishes
        elif keyword == "ORCPT":
            if not is_original_recipient(value):
                return "501 5.5.4 ORCPT takes a type and an address: rfc822;a@example.com"
            recipient.orcpt = value
        else:
            return f"555 5.5.4 The parameter {keyword} is not supported"
    return None


def original_recipient(address: str) -> str:
    """An address as ORCPT carries it: in xtext (RFC 3461 4.2), or in that of RFC 6533 3."""
    if address.isascii():
        return f"rfc822;{encode_xtext(address)}"
    return f"utf-8;{_NOT_PLAIN.sub(_embedded, address)}"


def _embedded(match: re.Match[str]) -> str:
    return f"\\x{{{ord(match[0]):X}}}"
