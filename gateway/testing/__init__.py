"""Servers to test against: a scripted next hop and a DNS server, both on real loopback sockets."""

from gateway.testing.dns import Failure, FakeDns
from gateway.testing.nexthop import Command, NextHop, ReceivedMessage
from gateway.testing.script import Drop, Hang, Raw, Trickle, Wait

__all__ = [
    "Command",
    "Drop",
    "Failure",
    "FakeDns",
    "Hang",
    "NextHop",
    "Raw",
    "ReceivedMessage",
    "Trickle",
    "Wait",
]
