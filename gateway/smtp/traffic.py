"""What clients have sent, counted in plain attributes: next to nothing on the mail's way."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.hooks.histogram import Histogram


@dataclass(slots=True)
class Traffic:
    """Counts of one process since its start.

    Attributes:
        connections: those that clients have made.
        recipients: those that were taken at RCPT.
        octets: of the messages that were accepted.
        deferred, refused: messages that were answered with 4xx and 5xx after their last octet.
        commands_deferred, commands_refused: other answers of 4xx and 5xx.
        reception: from the last octet of a message to its answer.
    """

    connections: int = 0
    recipients: int = 0
    octets: int = 0
    deferred: int = 0
    refused: int = 0
    commands_deferred: int = 0
    commands_refused: int = 0
    reception: Histogram = field(default_factory=Histogram)

    def answered(self, reply: str, octets: int, seconds: float) -> None:
        """A message of so many octets has got its answer after so many seconds."""
        if reply[0] == "2":
            self.octets += octets
        elif reply[0] == "4":
            self.deferred += 1
        else:
            self.refused += 1
        self.reception.add(seconds)

    def refuse(self, reply: str) -> None:
        """A command, or a connection, is refused."""
        if reply[0] == "4":
            self.commands_deferred += 1
        else:
            self.commands_refused += 1
