"""One attempt at delivery: what is sent, over which hop, and how it ended. Pure values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Self, cast

from gateway.mail.guard import CLOSED, FINISHED, Guard
from gateway.mail.headers import Headers, split
from gateway.mail.large_content import Content
from gateway.mail.message import Client, Recipient
from gateway.mail.notes import GuardedDict


@dataclass(frozen=True, slots=True)
class Hop:
    """A server to hand mail to: a host name or an IP address, and a port."""

    host: str
    port: int = 25

    def __post_init__(self) -> None:
        if type(self.host) is not str:
            raise TypeError(f"{self.host!r} is no host")
        if type(self.port) is not int or not 0 < self.port < 65536:
            raise ValueError(f"{self.port!r} is no port from 1 to 65535")

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

    def __post_init__(self) -> None:
        if type(self.hops) is not tuple or not all(type(hop) is Hop for hop in self.hops):
            raise TypeError(f"the hops of a route are a tuple of Hop, not {self.hops!r}")
        if type(self.site) is not str:
            raise TypeError(f"the site of a route is text, not {self.site!r}")
        if self.tls is not None and type(self.tls) is not TlsLevel:
            raise TypeError(f"the tls of a route is a TlsLevel, not {self.tls!r}")
        if self.login is not None and type(self.login) is not Credentials:
            raise TypeError("the login of a route is Credentials")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a connection comes from: a local IP address (None: any) and its EHLO name."""

    address: str | None
    helo: str

    def __post_init__(self) -> None:
        if self.address is not None:
            ip_address(self.address)
        if type(self.helo) is not str:
            raise TypeError(f"{self.helo!r} is no name for EHLO")


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

    def problem(self, *, delivered: bool) -> str | None:
        """Why a plugin may not answer this; None if it may. `delivered`: of mail that was."""
        if delivered:
            return "answered for mail that was delivered"
        if type(self.disposition) is not Disposition:
            return f"answered the disposition {self.disposition!r}"
        if self.disposition is Disposition.DELIVERED:
            return "answered DELIVERED for mail that was not"
        if type(self.code) is not int or not (self.code == 0 or 200 <= self.code <= 599):
            return f"answered the reply code {self.code!r}"
        for text in (self.status, self.text, self.stage, self.relay):
            if type(text) is not str or not text.isprintable():
                return f"answered {text!r}, which is not a line of text"
        return None


@dataclass(slots=True)
class Times:
    """When an attempt passed its points, in seconds of the wall clock (for `delays=`)."""

    active: float = 0.0
    connect: float = 0.0
    connected: float = 0.0
    done: float = 0.0


class _ContentAttribute:
    """`Delivery.content`: bytes, which are read when somebody asks for them if there are many."""

    def __get__(self, delivery: Delivery | None, owner: type) -> bytes:
        if delivery is None:
            raise AttributeError("content")  # so that it has no default
        return bytes(delivery.octets)

    def __set__(self, delivery: Delivery, content: Content) -> None:
        object.__setattr__(delivery, "octets", content)


class _Octets:
    """What the content of a delivery is kept in.

    `octets` is the whole message, without reading one that is large: for the gateway itself.
    """

    octets: Content


@dataclass(eq=False)
class Delivery(_Octets):
    """A message on its way to some recipients over one route: the subject of the hooks
    `route`, `admit` and `source`, and inside `Attempt` of `reply`.

    `message_id` is the queue id that the client was told. `attempts` counts those before this one.
    `received` is when the message was accepted, in seconds since the epoch. `notes` are those that
    plugins left on the message. `content` is the whole message as it goes out; one of more than 1
    MiB is read from the disk each time that it is asked for. `return_path` stands
    in MAIL instead of `sender`, if it is not None. `require_tls` is REQUIRETLS (RFC 8689) and
    `priority` MT-PRIORITY (RFC 6710), as MAIL said it.

    `lane` is the queue that the recipients wait in: a domain, or that of the smarthosts. `route` is
    known from `source` on, `source` from `admit` on.

    What `admit` may set, so that the attempt is made within these bounds:
        ceilings: how many connections may be open at a time, under each name, over all workers.
        messages_per_connection: after so many, the connection is closed; None: as configured.
        recipients_per_message: more than these go in further transactions; None: as usual.

    `in_seven_bits` gives the content for a server without 8BITMIME, signed anew, or why there is
    none; the gateway sets it. `guard` says what may be changed now, in the recipients too.
    """

    message_id: str
    sender: str
    recipients: Sequence[Recipient]
    client: Client
    stream: str
    received: float
    attempts: int
    content: bytes = cast(bytes, _ContentAttribute())
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
    in_seven_bits: Callable[[], Content | Outcome] | None = field(default=None, repr=False)
    guard: Guard = field(default_factory=Guard, init=False, repr=False)

    @property
    def domain(self) -> str:
        """The recipients' domain, in lower case and A-labels. All of them share a lane."""
        return self.recipients[0].domain

    @cached_property
    def headers(self) -> Headers:
        """The header of the message as it goes out. It cannot be changed."""
        octets = self.octets
        header = split(octets)[0] if isinstance(octets, bytes) else octets.header()
        return Headers(header, Guard(FINISHED))

    def close(self) -> None:
        """From now on hooks can change what their stage allows, and nothing else."""
        guard = self.guard
        guard.rights = CLOSED
        for recipient in self.recipients:
            recipient.join(guard)
        self.recipients = tuple(self.recipients)
        self.notes = MappingProxyType(self.notes)
        self.ceilings = Ceilings(self.ceilings, guard)
        self.__class__ = _ClosedDelivery

    def proceed(self, **values: Any) -> None:
        """Sets what the gateway has found out: route, source, recipients."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def checkpoint(self) -> tuple[dict[str, int], int | None, int | None]:
        """What `restore` goes back to: the bounds."""
        return dict(self.ceilings), self.messages_per_connection, self.recipients_per_message

    def restore(self, checkpoint: tuple[dict[str, int], int | None, int | None]) -> None:
        """Goes back to bounds that it had, whatever may be changed now."""
        ceilings, messages, recipients = checkpoint
        self.proceed(
            ceilings=Ceilings(ceilings, self.guard),
            messages_per_connection=messages,
            recipients_per_message=recipients,
        )


class Ceilings(GuardedDict[int]):
    """How many connections may be open, by name."""

    __slots__ = ()
    name = "delivery.ceilings"

    @staticmethod
    def check(values: Mapping[Any, Any]) -> None:
        """Refuses names that are no text, and numbers that are none.

        Raises:
            TypeError: there is such a thing.
        """
        for name, most in values.items():
            if type(name) is not str or type(most) is not int:
                raise TypeError(f"ceilings are numbers by name, not {name!r}: {most!r}")


_BOUNDS = ("messages_per_connection", "recipients_per_message")


class _ClosedDelivery(Delivery):
    """A delivery that hooks have seen, or are going to see."""

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        # For `dataclasses.replace`: who makes one anew may do with it what he wants.
        return Delivery(*arguments, **named)  # type: ignore[return-value]

    def __setattr__(self, name: str, value: Any) -> None:
        self.guard.check(f"delivery.{name}")
        if name == "ceilings":
            Ceilings.check(value)
            value = Ceilings(value, self.guard)
        elif name in _BOUNDS and value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"delivery.{name} is a number from 1, or None, not {value!r}")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"delivery.{name} cannot be deleted")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One recipient's end of one attempt: the subject of the hook `reply`."""

    delivery: Delivery
    recipient: Recipient
    route: Route | None
    source: Source | None
    outcome: Outcome
