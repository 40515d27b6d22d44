"""The Authentication-Results field (RFC 8601): ours written, and forged ones told. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

import authres

from gateway.hooks import domain_name
from plugins.dkim.author import without_comments
from plugins.dkim.signature import fold
from plugins.dkim.verification import Verdict

FIELD = "Authentication-Results"

_AUTHSERV_ID = re.compile(rb'"((?:[^"\\]|\\.)*)"|([^\s;/="]*)', re.DOTALL)


def results_field(authserv_id: str, verdicts: Sequence[Verdict]) -> bytes:
    """The value of the field, folded; without verdicts it says that there was no signature.

    Args:
        authserv_id: the name that receivers know us by, a domain name.
        verdicts: of each signature, from the top of the message.
    """
    results = [_result(verdict) for verdict in verdicts]
    header = authres.AuthenticationResultsHeader(
        authserv_id=authserv_id,
        results=results or [authres.DKIMAuthenticationResult(result="none")],
    )
    words = str(header.header_value()).encode("ascii").split(b" ")
    return fold(words, b" ", used=len(FIELD) + 2)


def claims(value: bytes, authserv_id: str) -> bool:
    """Whether a field's body says that it was written by us, however it writes our name.

    One that cannot be read for certain does if our name is anywhere in it (RFC 8601 5).
    """
    ours = authserv_id.encode("ascii")
    try:
        match = _AUTHSERV_ID.match(without_comments(value).lstrip())
    except ValueError:
        match = None
    name = b"" if match is None else match[1] or match[2] or b""
    name = re.sub(rb"\\(.)", rb"\1", name, flags=re.DOTALL).strip().rstrip(b".")
    try:
        return domain_name(name.decode("utf-8")) == authserv_id
    except ValueError:
        return ours in value.lower()


def _result(verdict: Verdict) -> authres.DKIMAuthenticationResult:
    result = authres.DKIMAuthenticationResult(
        result=str(verdict.result), result_comment=verdict.reason
    )
    signature = verdict.signature
    if signature is not None:
        result.header_d = signature.domain
        if signature.identity is not None:
            result.header_i = signature.identity
        result.header_s = signature.selector
        result.header_a = signature.algorithm
        # RFC 6008
        result.properties.append(
            authres.AuthenticationResultProperty("header", "b", signature.start)
        )
    return result
