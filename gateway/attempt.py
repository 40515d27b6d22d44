"""One attempt at delivery: what is sent, over which hop, and how it ended. Pure values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from gateway.mail.headers import Headers, split
from gateway.mail.message import Client, Recipient


@dataclass(frozen=True, slots=True)
class Hop:
    """A server to hand mail to: a host name or an IP address, and a port."""

    host: str
    port: int = 25

    @classmethod
    def parse(cls, text: str) -> Hop:
        """Reads `mx.example.com`, `10.0.0.5:2525` or `[2001:db8::1]:25`.

        Raises:
            ValueError: there is no host, or the port is not a number from 1 to 65535.
        """
        host, port = text, "25"
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ValueError(f"{text!r}: expected [address]:port")
            port = rest[1:] if rest else "25"
        elif text.count(":") == 1:
            host, _, port = text.partition(":")
        if not host or any(character.isspace() for character in host):
            raise ValueError(f"{text!r}: expected host:port")
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r}: the port must be a number from 1 to 65535")
        return cls(host, int(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class TlsLevel(StrEnum):
    """How a connection is protected, from least to most.

    `NONE`: not at all. `OPPORTUNISTIC`: encrypted where the server offers it. `REQUIRED`: encrypted
    or not at all. `VERIFIED`: encrypted, with a certificate that is valid for the server's name.
    """

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    VERIFIED = "verified"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password for a next hop (RFC 4954)."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Route:
    """The hops to try, in order, and the name under which their connections are counted.

    Domains whose mail goes to the same set of servers have the same `site`. `tls` is the level that
    this way asks for; None: `relay.tls` in `gateway.yaml` decides. With `implicit_tls` TLS begins
    at the first octet. `login` is given to the server, over TLS only. `is_mx` tells that the hops
    are a domain's mail exchangers, found in the DNS, and `authentic` that the answers which named
    them were authenticated (DNSSEC).
    """

    hops: tuple[Hop, ...]
    site: str
    tls: TlsLevel | None = None
    implicit_tls: bool = False
    login: Credentials | None = None
    is_mx: bool = False
    authentic: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Where a connection comes from: a local IP address (None: any) and its EHLO name."""

    address: str | None
    helo: str


class Disposition(StrEnum):
    """What an attempt means for a recipient."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended for one recipient.

    `code` is the SMTP reply code, 0 where no server answered. `status` is the enhanced code
    (RFC 3463), made up from `code` where the server sent none. `text` is the reply's text on one
    line. `stage` is what was answered: `route`, `connect`, `ehlo`, `tls`, `auth`, `mail`, `rcpt`,
    `data`, `dot`, or a plugin's hook. `relay` is `host[address]:port`, or `none`.
    `relayed_dsn` tells whether the next hop took over the duty to report (RFC 3461).
    """

    disposition: Disposition
    code: int
    status: str
    text: str
    stage: str
    relay: str = "none"
    relayed_dsn: bool = False

    @property
    def reply(self) -> str:
        """The reply as the server would say it, on one line."""
        if not self.code:
            return self.text
        return f"{self.code} {self.status} {self.text}".rstrip()


@dataclass(slots=True)
class Times:
    """When an attempt passed its points, in seconds of the wall clock (for `delays=`)."""

    active: float = 0.0
    connect: float = 0.0
    connected: float = 0.0
    done: float = 0.0


@dataclass(eq=False)
class Delivery:
    """A message on its way to some recipients over one route: the subject of the hooks
    `route`, `admit` and `source`, and inside `Attempt` of `reply`.

    `message_id` is the queue id that the client was told. `attempts` counts those before this one.
    `received` is when the message was accepted, in seconds since the epoch. `notes` are those that
    plugins left on the message. `content` is the whole message as it goes out. `return_path` stands
    in MAIL instead of `sender`, if it is not None. `require_tls` is REQUIRETLS (RFC 8689) and
    `priority` MT-PRIORITY (RFC 6710), as MAIL said it.

    `lane` is the queue that the recipients wait in: a domain, or that of the smarthosts. `route` is
    known from `source` on, `source` from `admit` on.

    What `admit` may set, so that the attempt is made within these bounds:
        ceilings: how many connections may be open at a time, under each name, over all workers.
        messages_per_connection: after so many, the connection is closed; None: as configured.
        recipients_per_message: more than these go in further transactions; None: as usual.

    `in_seven_bits` gives the content for a server without 8BITMIME, signed anew, or why there is
    none; the gateway sets it.
    """

    message_id: str
    sender: str
    recipients: Sequence[Recipient]
    client: Client
    stream: str
    received: float
    attempts: int
    content: bytes
    notes: Mapping[str, str] = field(default_factory=dict)
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    return_path: str | None = None
    require_tls: bool = False
    priority: int | None = None
    lane: str = ""
    route: Route | None = None
    source: Source | None = None
    ceilings: dict[str, int] = field(default_factory=dict)
    messages_per_connection: int | None = None
    recipients_per_message: int | None = None
    in_seven_bits: Callable[[], bytes | Outcome] | None = field(default=None, repr=False)

    @property
    def domain(self) -> str:
        """The recipients' domain, in lower case and A-labels. All of them share a lane."""
        return self.recipients[0].domain

    @cached_property
    def headers(self) -> Headers:
        """The header of the message as it goes out. A copy: changing it changes nothing."""
        return Headers(split(self.content)[0])


@dataclass(frozen=True, slots=True)
class Attempt:
    """One recipient's end of one attempt: the subject of the hook `reply`."""

    delivery: Delivery
    recipient: Recipient
    route: Route | None
    source: Source | None
    outcome: Outcome
