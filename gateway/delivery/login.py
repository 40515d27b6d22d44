"""Login at a next hop (RFC 4954)."""

from __future__ import annotations

import base64
import logging

import aiosmtplib

from gateway.attempt import Credentials, Disposition, Outcome
from gateway.delivery.reply import Reply

_NOT_IMPLEMENTED = 504
_HIDDEN = "***"

log = logging.getLogger("gateway.login")


async def log_in(
    smtp: aiosmtplib.SMTP, credentials: Credentials, relay: str, timeout: float
) -> Outcome | None:
    """Logs in, over TLS; returns None, or why it did not work: DEFERRED, for a person to mend.

    One mechanism is tried, the simplest, as the connection is encrypted: servers lock out who
    fails too often. The next one follows only where a server does not know what it offers.

    Raises:
        aiosmtplib.SMTPException, OSError: the connection is lost.
    """
    mechanisms = {"plain": smtp.auth_plain, "login": smtp.auth_login, "cram-md5": smtp.auth_crammd5}
    said = Outcome(
        Disposition.DEFERRED, 0, "4.7.8", "no AUTH PLAIN, LOGIN or CRAM-MD5 is offered", "auth"
    )
    for name, mechanism in mechanisms.items():
        if name not in smtp.server_auth_methods:
            continue
        try:
            await mechanism(credentials.user, credentials.password, timeout=timeout)
        except aiosmtplib.SMTPAuthenticationError as error:
            reply = Reply.of(error.code, error.message.encode("utf-8", "surrogateescape"))
            status = reply.status if reply.code // 100 == 4 else "4.7.8"
            text = _without_secrets(f"{reply.code} {reply.status} {reply.text}", credentials)
            said = Outcome(Disposition.DEFERRED, reply.code, status, text, "auth")
            if reply.code != _NOT_IMPLEMENTED:
                break
        else:
            return None
    log.error("login at %s as %s failed: %s", relay, credentials.user, said.text)
    text = f"login at {relay} as {credentials.user} failed: {said.text}"
    return Outcome(said.disposition, said.code, said.status, text, "auth", relay)


def _without_secrets(text: str, credentials: Credentials) -> str:
    """A server's words without the password, which it may repeat."""
    user, password = credentials.user.encode(), credentials.password.encode()
    plain = b"\0" + user + b"\0" + password
    for secret in (
        base64.b64encode(plain).decode(),
        base64.b64encode(password).decode(),
        credentials.password,
    ):
        text = text.replace(secret, _HIDDEN)
    return text
