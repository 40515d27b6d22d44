"""What the internet may give to a hook: as odd as the gateway lets it through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from gateway.attempt import Attempt, Delivery, Disposition, Hop, Outcome, Route, Source
from gateway.events import Event
from gateway.hooks.plugin import Login
from gateway.mail.message import Client, Message, Recipient
from gateway.testing.corpus import Sample

_TEXT = b"Subject: Hi\r\n\r\nHello\r\n"

TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "x" * 9000,
    "%s%n{0}${x}",
    "../../etc/passwd",
    "' OR 1=1 --",
    "<script>",
    "日本語",
    "\u202e\u2028\x85\ufeff",
    "\U0001f600" * 50,
    "a\r\nb",
    "-1",
    "9" * 400,
)
"""Texts that programs stumble over."""

ADDRESSES = (
    "postmaster",
    "a..b@docomo.ne.jp",
    '"a b\\"c@d"@example.net',
    f"{'l' * 64}@example.net",
    f"x@{'d' * 60}.{'e' * 60}.example",
    "x@[192.0.2.1]",
    "x@[IPv6:2001:db8::1]",
    "x@[general:literal]",
    "森@例え.テスト",
    "x@xn--zzzzzz99999",
    "x@-._.-",
    "x@1",
    "!#$%&'*+-/=?^_`{|}~@example.net",
    "bounce+a=b=c@example.net",
    "Ada@EXAMPLE.NET",
)
"""Addresses that SMTP takes."""


def clients() -> Iterator[Client]:
    """Who connects."""
    for address in ("192.0.2.1", "::1", "2001:db8::ff", "fe80::1%eth0", "0.0.0.0", ""):  # noqa: S104
        yield Client(address)
        yield Client(address, 65535, "test", "h" * 255, True, "user", "TLSv1.3")
    for name in ("[192.0.2.1]", "[IPv6:::]", "localhost", "日本", "\x85", "-", "a" * 255, "%s"):
        client = Client("192.0.2.1", helo=name, esmtp=True)
        client.notes.update({"": "", "other": "\0" * 500})
        yield client


def logins() -> Iterator[Login]:
    """Who logs in, with what."""
    for text in TEXTS:
        for mechanism in ("PLAIN", "LOGIN"):
            with suppress(ValueError):  # no name of a user; the gateway lets none pass
                yield Login(Client("192.0.2.1"), mechanism, text, text)
        yield Login(Client("2001:db8::1"), "PLAIN", "ada@example.net", text)


def messages() -> Iterator[Sample]:
    """Mail with odd envelopes."""
    for address in ("", *ADDRESSES):
        yield Sample(f"from <{address}>", _TEXT, address, smtputf8=True)
    for address in ADDRESSES:
        yield Sample(f"to <{address}>", _TEXT, recipients=(address,), smtputf8=True)
    many = tuple(f"{number}@d{number}.example.net" for number in range(1000))
    yield Sample("a thousand recipients", _TEXT, recipients=many)
    yield Sample("the same recipient often", _TEXT, recipients=("ada@example.net",) * 50)


def noted() -> Iterator[Message]:
    """Messages on which other plugins have left notes, and changed what they may."""
    for text in TEXTS:
        message = Message("HOSTILE", "news@example.com", Client("192.0.2.1"))
        message.receive(_TEXT)
        message.notes.update({"campaign": text, "pool": text, "variant": text, text: text})
        message.add_recipient("ada@example.net", notes={"class": text, "source": text, text: ""})
        yield message
    message = Message("X" * 200, "", Client(""), "no-such-stream")
    message.receive(b"")
    message.add_recipient("a@example.net").return_path = "b+c=d@bounce.example.com"
    message.smtputf8, message.require_tls, message.priority = True, True, -9
    message.ret, message.envid, message.release = "HDRS", "+41", 4e9
    yield message


def deliveries(now: float) -> Iterator[Delivery]:
    """Mail on its way out: to odd domains, over odd routes, very old, with odd notes."""
    routes = (
        Route((), ""),
        Route((Hop("192.0.2.25"),), "mx.example.net"),
        Route((Hop("2001:db8::25", 2525), Hop("mx.example.net")), "x" * 300, is_mx=True),
    )
    sources = (Source(None, ""), Source("192.0.2.77", "gw.example.com"))
    for number, address in enumerate(ADDRESSES):
        yield _delivery(address, now, routes[number % 3], sources[number % 2])
    for number, text in enumerate(TEXTS):
        notes = {"campaign": text, "pool": text, "variant": text}
        one = _delivery("ada@example.net", now, routes[number % 3], sources[number % 2], notes)
        one.stream = one.lane = text
        yield one
    yield _delivery("ada@example.net", now + 1e6, routes[1], sources[0])
    old = _delivery("ada@example.net", 0.0, routes[1], sources[1])
    old.attempts, old.recipients_per_message, old.messages_per_connection = 10_000, 1, 1
    old.content = b""
    yield old


def _delivery(
    address: str,
    received: float,
    route: Route,
    source: Source,
    notes: dict[str, str] | None = None,
) -> Delivery:
    return Delivery(
        "HOSTILE",
        "",
        [Recipient(address, notes=dict(notes or {})), Recipient(address)],
        Client("192.0.2.1"),
        "default",
        received,
        0,
        _TEXT,
        dict(notes or {}),
        lane=address.rpartition("@")[2],
        route=route,
        source=source,
    )


def attempts(now: float) -> Iterator[Attempt]:
    """Ends of attempts: every kind of reply, and none at all."""
    cases = list(deliveries(now))
    for one in cases:
        one.close()
    position = 0
    for disposition, code in (
        (Disposition.DEFERRED, 0),
        (Disposition.DEFERRED, 421),
        (Disposition.DEFERRED, 499),
        (Disposition.FAILED, 0),
        (Disposition.FAILED, 550),
        (Disposition.FAILED, 599),
        (Disposition.DELIVERED, 250),
    ):
        for stage in ("route", "connect", "tls", "auth", "rcpt", "dot", "admit"):
            for text in TEXTS:
                one = cases[position % len(cases)]
                position += 1
                status = ("", "5.7.1", "4.999.999", "not a status")[position % 4]
                outcome = Outcome(disposition, code, status, text, stage, text or "none")
                # Who was not reached may have had no route, and no source.
                route, source = (one.route, one.source) if code else (None, None)
                yield Attempt(one, one.recipients[0], route, source, outcome)


def events(now: float) -> Iterator[Event]:
    """Events of every type, of unknown ones, and with nothing in them."""
    types = (
        *("accepted", "delivered", "deferred", "bounced", "expired", "discarded", "held"),
        *("released", "dropped", "suppressed", "suspected", "opened", "clicked", "converted"),
        *("unsubscribed", "complained", "replied", "source_suspended", "source_resumed"),
        *("", "of-another-plugin", "日本"),
    )
    for kind in types:
        yield Event(kind, now, "")
        yield Event(kind, 0.0, "HOSTILE", "", "ada@example.net")
        yield Event(kind, now, "HOSTILE", "news@example.com", "ada@example.net", "default")
        for number, text in enumerate(TEXTS):
            address = ADDRESSES[number % len(ADDRESSES)]
            notes = {"campaign": text, "class": text, "url": text, "variant": text, text: text}
            yield Event(
                kind, now, text, address, address, text, text, text, text, text, 599, text, notes
            )
