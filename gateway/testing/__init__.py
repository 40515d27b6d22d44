"""What plugins are tested with: gateways, messages, a next hop, a DNS server, a clock."""

from gateway.testing.certificate import Certificate
from gateway.testing.changes import (
    Changes,
    EnvelopeChange,
    FieldChange,
    OtherChange,
    TextChange,
    changes,
)
from gateway.testing.clock import Clock
from gateway.testing.dns import Failure, FakeDns
from gateway.testing.faults import Fault
from gateway.testing.gateway import Gateway, Sent
from gateway.testing.memory_gateway import MemoryGateway
from gateway.testing.nexthop import Command, NextHop, ReceivedMessage
from gateway.testing.result import (
    AttemptResult,
    CommandResult,
    HttpResult,
    ObserveResult,
    QueuedMessage,
    Result,
)
from gateway.testing.script import Drop, Hang, Raw, Trickle, Wait
from gateway.testing.spans import Span
from gateway.testing.specimen import mail, message

__all__ = [
    "AttemptResult",
    "Certificate",
    "Changes",
    "Clock",
    "Command",
    "CommandResult",
    "Drop",
    "EnvelopeChange",
    "Failure",
    "FakeDns",
    "Fault",
    "FieldChange",
    "Gateway",
    "Hang",
    "HttpResult",
    "MemoryGateway",
    "NextHop",
    "ObserveResult",
    "OtherChange",
    "QueuedMessage",
    "Raw",
    "ReceivedMessage",
    "Result",
    "Sent",
    "Span",
    "TextChange",
    "Trickle",
    "Wait",
    "changes",
    "mail",
    "message",
]
