"""An address that we listen on: who may do what there, and the sessions that are open."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.configuration.network import NetworkSet
from gateway.configuration.users import Users
from gateway.mail.message import Client
from gateway.smtp.guesses import Guesses
from gateway.smtp.ingress import Ingress
from gateway.smtp.patience import Patience

DISMISSED_AT_A_TIME = 10
DISMISSAL_PAUSE = 0.005
"""How many clients that are late are dismissed at a time, and seconds until the next of them."""


class OpenSession(Protocol):
    """What a listener knows of a session.

    Attributes:
        patience: until when the client must have gone on, on the loop's clock.
    """

    patience: Patience

    @property
    def busy(self) -> bool:
        """Whether a message is on its way in."""

    def dismiss(self, reply: str) -> None:
        """Says a last word and closes."""

    def expire(self, reply: str) -> None:
        """The client took too long: it is dismissed, and cut off if it does not take that in."""


@dataclass(slots=True, eq=False)
class Listener:
    """One address that we listen on, and who may do what there.

    Attributes:
        name: address and port, as configured.
        allow: networks that may relay without a login.
        tls: for STARTTLS, or for TLS from the first byte; None without a certificate.
        users: who may log in, besides those whom an `auth` hook lets in.
        logins: whether AUTH is offered at all.
        plaintext_auth: whether AUTH is offered without TLS.
        guesses: counts failed logins; None: as many as one likes.
        sessions: those that are open.
        stopping: no new transaction begins.
    """

    name: str
    ingress: Ingress
    allow: NetworkSet
    tls: ssl.SSLContext | None = None
    users: Users | None = None
    logins: bool = False
    plaintext_auth: bool = False
    guesses: Guesses | None = None
    sessions: set[OpenSession] = field(default_factory=set)
    stopping: bool = False

    async def dismiss_silent(self, clock: Callable[[], float]) -> None:
        """Ends the sessions whose clients take too long, by the loop's clock.

        One look at all of them now and then costs less than a timer for each command. A crowd goes
        a few at a time, so that the mail of others does not wait until all of it is gone.
        """
        now = clock()
        late = [session for session in self.sessions if now > session.patience.deadline]
        for number, session in enumerate(late, 1):
            # It may have gone on, or gone, while others had their turn.
            if session in self.sessions and now > session.patience.deadline:
                session.expire("421 4.4.2 Timeout, closing the connection")
            if not number % DISMISSED_AT_A_TIME:
                await asyncio.sleep(DISMISSAL_PAUSE)

    def may_relay(self, client: Client) -> bool:
        """Whether a client may send to any domain: it is in an allowed network, or logged in."""
        return client.user is not None or client.address in self.allow
