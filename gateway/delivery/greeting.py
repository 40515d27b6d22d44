"""The first words with a next hop: its banner, and EHLO (RFC 5321 3.1, 3.2)."""

from __future__ import annotations

import aiosmtplib

from gateway.delivery.protection import failure


async def await_banner(smtp: aiosmtplib.SMTP) -> None:
    """Awaits the banner, after the handshake where TLS begins at the first octet.

    Raises:
        TlsError: the handshake failed.
        aiosmtplib.SMTPException: there is no banner, or it says no.
    """
    try:
        await smtp.connect()
    except aiosmtplib.SMTPConnectError as error:
        cause = error.__cause__
        # What went wrong, and is no error of SMTP, did so before the banner.
        if smtp.use_tls and cause is not None and not isinstance(cause, aiosmtplib.SMTPException):
            raise failure(error) from None
        raise


async def say_hello(smtp: aiosmtplib.SMTP, timeout: float) -> None:
    """Says EHLO, or HELO to a server that knows no other.

    Raises:
        aiosmtplib.SMTPException, OSError: the server refused both, or is gone.
        ValueError: the name cannot be said.
    """
    try:
        await smtp.ehlo(timeout=timeout)
    except aiosmtplib.SMTPHeloError as error:
        if error.code // 100 != 5:
            raise
        try:
            await smtp.helo(timeout=timeout)
        except aiosmtplib.SMTPServerDisconnected:
            # It hung up after its no, which therefore is its last word.
            raise error from None
