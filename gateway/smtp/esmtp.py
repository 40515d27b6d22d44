"""The parameters of MAIL and RCPT that we advertise: SIZE, 8BITMIME, SMTPUTF8 and DSN. Pure.

ENVID and ORCPT stay in xtext, as they go out again.
"""

from __future__ import annotations

from gateway.mail.address import AddressSyntaxError, decode_xtext
from gateway.mail.message import Message, Recipient

_NOTIFY = frozenset({"NEVER", "SUCCESS", "FAILURE", "DELAY"})


def apply_mail_parameters(
    message: Message, parameters: dict[str, str | None], max_size: int
) -> tuple[int, str | None]:
    """Notes on a message what its MAIL command said.

    Returns the declared size in octets (0: none) and the reply that refuses the command, if any.
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
            if value is None or len(value) > 100 or not _is_xtext(value):
                return size, "501 5.5.4 ENVID takes up to 100 characters of xtext (RFC 3461)"
            message.envid = value
        elif keyword == "AUTH":
            if value is None or not _is_xtext(value):
                return size, "501 5.5.4 AUTH takes an address in xtext (RFC 4954)"
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
            kind, separator, address = (value or "").partition(";")
            if not kind or not separator or len(value or "") > 500 or not _is_xtext(address):
                return "501 5.5.4 ORCPT takes a type and an address: rfc822;a@example.com"
            recipient.orcpt = value
        else:
            return f"555 5.5.4 The parameter {keyword} is not supported"
    return None


def _is_xtext(value: str) -> bool:
    try:
        decode_xtext(value)
    except AddressSyntaxError:
        return False
    return True
