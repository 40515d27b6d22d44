"""Who gives a message to the gateway. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.mail.notes import Notes


@dataclass(frozen=True, slots=True)
class Client:
    """Who gave the message to the gateway. Only its notes can be changed.

    Attributes:
        address: the IP address; port: its port.
        listener: the address of ours that was connected to.
        helo: what the client called itself; esmtp: whether it did so with EHLO.
        user: the identity that it logged in as, None without a login.
        tls: the protocol and cipher of the connection, None if it is not encrypted.
        notes: what plugins want to remember about this connection.
    """

    address: str
    port: int = 0
    listener: str = ""
    helo: str = ""
    esmtp: bool = False
    user: str | None = None
    tls: str | None = None
    notes: Notes = field(default_factory=Notes)

    def checkpoint(self) -> dict[str, str]:
        """What `restore` goes back to."""
        return self.notes.copy()

    def restore(self, checkpoint: dict[str, str]) -> None:
        """Goes back to notes that there were before."""
        self.notes.restore(checkpoint)
