"""How one connection to a next hop is protected: what is tried, and what must come of it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiosmtplib

from gateway.attempt import Credentials, Disposition, Outcome
from gateway.delivery.dane import matches
from gateway.delivery.reply import Reply
from gateway.resolver import Tlsa


class TlsError(Exception):
    """There is no TLS as it must be.

    `status` is an enhanced code (RFC 3463), `reason` what went wrong, on one line.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def _nobody_notes(_: str) -> None:
    """What happens when TLS fails where nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Protection:
    """What is tried and demanded of a new connection.

    Attributes:
        context: with what TLS is done, and which certificates it accepts; None: no TLS.
        name: the server's name, for SNI and its certificate; '' if it has none that can be said.
        demanded_by: who demands TLS, for outcomes; '' if nobody does.
        verified_by: what the certificate is held to: `certificate`, `MTA-STS`, `DANE`, or '' if
            any is taken.
        implicit: TLS begins at the first octet.
        tlsa, names: usable TLSA records that the server must match, and the names that its
            certificate may have where they name the issuer.
        require_tls: the server must offer REQUIRETLS (RFC 8689).
        login: what to log in with.
        otherwise: what to do on a new connection if this fails; None: nothing, it is demanded.
        failed: is told why it did.
    """

    context: ssl.SSLContext | None = None
    name: str = ""
    demanded_by: str = ""
    verified_by: str = ""
    implicit: bool = False
    tlsa: tuple[Tlsa, ...] = ()
    names: tuple[str, ...] = ()
    require_tls: bool = False
    login: Credentials | None = None
    otherwise: Protection | None = None
    failed: Callable[[str], None] = _nobody_notes

    async def start(self, smtp: aiosmtplib.SMTP, timeout: float) -> bool:
        """Starts TLS after EHLO; false if it is not wanted, or the server does not and need not.

        Raises:
            TlsError: it is demanded, or the connection is of no more use.
        """
        if self.context is None:
            return False
        if not smtp.supports_extension("starttls"):
            return self._without("no STARTTLS is offered")
        try:
            await smtp.starttls(
                server_hostname=self.name, tls_context=self.context, timeout=timeout
            )
        except aiosmtplib.SMTPResponseException as error:
            reply = Reply.of(error.code, error.message.encode("utf-8", "surrogateescape"))
            refusal = f"STARTTLS is refused: {error.code} {reply.text}"
            if error.code == 421 or reply.code // 100 not in (4, 5):
                raise TlsError("4.7.4", refusal) from None
            return self._without(refusal)
        except OSError as error:
            raise failure(error) from None
        return True

    def check(self, smtp: aiosmtplib.SMTP) -> str:
        """Checks what TLS can only tell afterwards, and describes the TLS that was reached.

        Raises:
            TlsError: the server's certificates are not those of its TLSA records.
        """
        session: ssl.SSLObject = smtp.get_transport_info("ssl_object")
        if self.tlsa and not matches(self.tlsa, _chain(session), self.names, datetime.now(UTC)):
            raise TlsError("4.7.5", "the TLSA records do not match the certificate")
        cipher = session.cipher()
        verified = f"verified by {self.verified_by}" if self.verified_by else "not verified"
        return f"{session.version()} with {cipher[0] if cipher else 'no cipher'}, {verified}"

    def unmet(self, error: TlsError, relay: str) -> Outcome:
        """The outcome where TLS is not as it must be."""
        demand = f", which {self.demanded_by} demands" if self.demanded_by else ""
        text = f"no TLS with {relay}{demand}: {error.reason}"
        if self.require_tls and error.status.startswith("4.7."):
            return Outcome(Disposition.FAILED, 0, "5.7.10", text, "tls", relay)
        return Outcome(Disposition.DEFERRED, 0, error.status, text, "tls", relay)

    def _without(self, reason: str) -> bool:
        # Only for what would go in the clear at once, on a new connection too.
        if self.otherwise is None or self.otherwise.context is not None:
            raise TlsError("4.7.4", reason)
        return False


def failure(error: Exception) -> TlsError:
    """Why a handshake failed."""
    # The library's own errors say only that something did.
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TlsError("4.7.5", cause.verify_message.rstrip("."))
    if isinstance(cause, ssl.SSLError):
        return TlsError("4.7.5", (cause.reason or str(cause)).replace("_", " ").lower())
    # The latter is asyncio's word for it.
    if isinstance(cause, TimeoutError | ConnectionAbortedError):
        return TlsError("4.4.2", "the handshake timed out")
    return TlsError("4.4.2", "the server closed the connection during the handshake")


def _chain(session: ssl.SSLObject) -> list[bytes]:
    """The certificates that the server showed, its own first, as DER."""
    if hasattr(session, "get_unverified_chain"):
        return list(session.get_unverified_chain())
    # Before Python 3.13 only the object inside knows more than the server's own certificate.
    inside: Any = getattr(session, "_sslobj", None)
    if inside is not None and hasattr(inside, "get_unverified_chain"):
        shown = inside.get_unverified_chain() or ()
        return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in shown]
    own = session.getpeercert(binary_form=True)
    return [own] if own is not None else []
