"""Every hook, in the order in which a message meets them.

Each function is a pluggy specification: its docstring says when it runs, what it may change, what
it may return and what a failure does. `STAGES` holds what the chain enforces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from gateway.attempt import Attempt, Delivery, Outcome, Route, Source
from gateway.events import Event
from gateway.hooks.actions import Accept, Delay, Discard, Quarantine, Reject, Tempfail
from gateway.mail.guard import CLOSED, SEALED, Rights, rights_of
from gateway.mail.message import Client, Message, Recipient

if TYPE_CHECKING:
    import click

    from gateway.hooks.plugin import Context, Login

PROJECT = "gateway"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def start(context: Context) -> None:
    """Opens what the plugin needs: files, databases, connections.

    Runs: once in each process, before any mail. May be async.
    Returns: nothing.
    Failure: the process does not start; a reload leaves the old processes running.
    """


@hookspec
def stop() -> None:
    """Closes what `start` opened.

    Runs: once in each process, after the last message. May be async.
    Returns: nothing.
    Failure: logged.
    """


@hookspec
def connect(client: Client) -> Accept | Reject | Tempfail | None:
    """Answers a new connection, before the banner.

    Runs: once a connection; `client.address` is known. May be async.
    May change: `client.notes`, as every hook may that a client's mail meets.
    Returns: None or Accept (go on), Reject (554 and close), Tempfail (421 and close).
    Failure: 421 and close; with `on_error: skip`, the connection goes on.
    """


@hookspec
def helo(client: Client) -> Accept | Reject | Tempfail | None:
    """Answers EHLO or HELO.

    Runs: at each EHLO or HELO; `client.helo` is known. May be async.
    May change: `client.notes`.
    Returns: None or Accept (go on), Reject, Tempfail.
    Failure: 451; with `on_error: skip`, the session goes on.
    """


@hookspec
def auth(login: Login) -> Accept | Reject | Tempfail | None:
    """Decides who the client is.

    Runs: when a client has given its user name and password. May be async.
    May change: `login.user`, the identity that the client gets; it is the user name to begin with,
    and again where a plugin answers None.
    Returns: Accept (the client is `login.user`), Reject (535), Tempfail (454), None (not mine: the
    next plugin decides, and after the last the listener's `users` file).
    Failure: 454; with `on_error: skip`, as None.
    """


@hookspec
def mail(message: Message) -> Accept | Reject | Tempfail | Discard | Quarantine | None:
    """Answers MAIL: a client names a sender.

    Runs: once a message; client and sender are known, headers and body are not. May be async.
    May change: `message.sender`, `message.stream`, `message.notes`.
    Returns: None or Accept (go on), Reject, Tempfail, Discard (say yes, deliver nothing),
    Quarantine (accept and hold).
    Failure: 451; with `on_error: skip`, the message goes on; `quarantine` holds it.
    """


@hookspec
def claim(recipient: Recipient) -> Accept | Reject | Tempfail | None:
    """Claims an address as the gateway's own, such as one that bounces come back to.

    Runs: at each RCPT, before it is looked at whether the client may relay: anybody may send to
    what is claimed. `recipient.message` has client and sender. A plain function.
    May change: `recipient.notes`.
    Returns: Accept (mail to it is this plugin's: it gets it in `receive`, and it is relayed
    nowhere), Reject or Tempfail (it is the gateway's own address, and takes no mail), None (not
    mine).
    Failure: 451; with `on_error: skip`, as None.
    """


@hookspec
def receive(message: Message) -> Reject | Tempfail | Quarantine | None:
    """Takes a message for addresses that this plugin has claimed.

    Runs: after the final dot. The message has only those recipients, and no other hook sees it. It
    is a copy: changing it changes nothing. The same message may come again: after a failure, where
    the client goes away early, and where another plugin has it wait. May be async.
    Returns: None (it is dealt with), Reject or Tempfail (the client keeps it), Quarantine (a
    person has to look at it: it is held in the queue, and never relayed).
    Failure: 451; with `on_error: quarantine` it is held; `skip` is as `quarantine`.
    """


@hookspec
def rcpt(recipient: Recipient) -> Accept | Reject | Tempfail | Discard | None:
    """Answers RCPT: a client names a recipient.

    Runs: once a recipient; `recipient.message` has client and sender, and the recipients accepted
    so far. Only after the client was found to be allowed to relay. May be async.
    May change: `recipient.address`, `recipient.notes`.
    Returns: None or Accept (take it), Reject, Tempfail, Discard (say yes, never deliver to it).
    Failure: 451; with `on_error: skip`, the recipient is taken.
    """


@hookspec
def message(message: Message) -> Reject | Tempfail | Discard | Quarantine | Delay | None:
    """Sees the whole message, and may change it.

    Runs: after the final dot, in the order of `gateway.yaml`; once for each recipient if the
    plugin says `per_recipient = True`. May be async.
    May change: headers, body, text parts, sender, recipients, stream, release, notes.
    Returns: None (go on; the next plugin sees it), Reject or Tempfail (the client keeps the whole
    message), Discard (say yes, deliver nothing), Quarantine (hold it), Delay (deliver it later).
    Failure: 451, the client keeps the message; with `on_error: skip`, the message goes on as it
    was before this plugin; `quarantine` holds it as it was before this plugin.
    """


@hookspec
def seal(message: Message) -> Reject | Tempfail | Quarantine | None:
    """Puts headers on top of the finished message: the place for signatures.

    Runs: after every `message` hook, for each copy, also for reports that the gateway writes.
    A plain function; for bodies of more than 1 MiB it runs in a thread.
    May change: only `message.headers.prepend(...)`; all else raises.
    Returns: None (go on), Reject or Tempfail (the client keeps the whole message), Quarantine.
    Failure: 451; with `on_error: skip`, the message goes on without it; `quarantine` holds it.
    """


@hookspec
def route(delivery: Delivery) -> Route | Delay | Reject | None:
    """Names the next hops.

    Runs: before each attempt. May be async.
    May change: nothing.
    Returns: a Route, Delay (try later), Reject (fail for good, the sender gets a report), or None
    (the next plugin, and after the last `relay` in `gateway.yaml`).
    Failure: tried again later; with `on_error: skip`, as None; `quarantine` holds it.
    """


@hookspec
def source(delivery: Delivery) -> Source | Delay | None:
    """Chooses the address that an attempt comes from, and its EHLO name.

    Runs: before each attempt, after `route`; `delivery.route` is known. A plain function.
    May change: nothing.
    Returns: a Source, Delay (no source is free), or None (the next plugin, and after the last the
    system's choice and `hostname`).
    Failure: tried again later; with `on_error: skip`, as None; `quarantine` holds it.
    """


@hookspec
def admit(delivery: Delivery) -> Delay | Quarantine | Reject | None:
    """Says whether an attempt may start now: rates, concurrency, back-off, warm-up.

    Runs: before each attempt, after `source`; `delivery.route` and `delivery.source` are known. A
    plain function.
    May change: `delivery.ceilings`, `delivery.messages_per_connection` and
    `delivery.recipients_per_message`, the bounds that the attempt is made within.
    Returns: None (go), Delay (not before), Quarantine (hold), Reject (fail for good).
    Failure: tried again later; with `on_error: skip`, as None; `quarantine` holds it.
    """


@hookspec
def reply(attempt: Attempt) -> Outcome | None:
    """Reclassifies what the next hop said to one recipient.

    Runs: after each attempt that ended in DEFERRED or FAILED, and for DELIVERED too, where only
    None is taken: what was delivered stays delivered. A plain function.
    May change: `attempt.recipient.notes`.
    Returns: None (as it is) or another Outcome (such as FAILED for a 4xx that never ends; never
    DELIVERED), which is what the plugins after this one see.
    Failure: logged, and the outcome stays as it is; `quarantine` holds what was not delivered.
    """


@hookspec
def observe(events: Sequence[Event]) -> None:
    """Learns what happened.

    Runs: in the service process, in batches in the order of each worker, each event at least
    once: after a crash some come again. May be async.
    Returns: nothing; it cannot affect mail.
    Failure: logged, and the same events come again later; with `on_error: skip` they do not.
    """


@hookspec
def http() -> Any:
    """Gives an ASGI application to the HTTP service.

    Runs: once in the service process, after `start`, if `gateway.yaml` has a section `http`.
    Returns: an ASGI application, served under `/<name of the entry>/`. It gets HTTP requests with
    their whole body, and neither lifespan events (use `start`, `stop`) nor WebSockets.
    Failure: the process does not start. A request that raises is answered with 500, one that runs
    longer than the entry's `timeout` with 503.
    """


@hookspec
def commands(context: Context) -> click.Command | None:
    """Adds a command to `gateway`.

    Runs: when the command line names it; `start` does not run there.
    Returns: a click command or group, shown under the plugin's name.
    Failure: logged; the other commands work.
    """


@dataclass(frozen=True, slots=True)
class Stage:
    """What the chain enforces of one hook.

    `answers` are the types that it may return besides None; `may_be_async` whether an
    implementation may be a coroutine function; `early` whether it runs before the header is known;
    `rights` what it may change in a message or a delivery.
    """

    name: str
    answers: tuple[type, ...]
    may_be_async: bool = True
    early: bool = False
    rights: Rights = CLOSED


_AUTH = rights_of("auth", "login.user")
_MAIL = rights_of("mail", "message.sender", "message.stream", "message.notes")
_CLAIM = rights_of("claim", "recipient.notes")
_RCPT = rights_of("rcpt", "recipient.address", "recipient.notes")
_MESSAGE = rights_of(
    "message",
    "message.sender",
    "message.recipients",
    "message.stream",
    "message.release",
    "message.notes",
    "message.content",
    "message.body",
    "headers.change",
    "headers.prepend",
    "recipient.address",
    "recipient.return_path",
    "recipient.notify",
    "recipient.orcpt",
    "recipient.notes",
)
_ROUTE = rights_of("route")
_SOURCE = rights_of("source")
_ADMIT = rights_of(
    "admit",
    "delivery.ceilings",
    "delivery.messages_per_connection",
    "delivery.recipients_per_message",
)
_REPLY = rights_of("reply", "recipient.notes")


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("start", ()),
        Stage("stop", ()),
        Stage("connect", (Accept, Reject, Tempfail), early=True),
        Stage("helo", (Accept, Reject, Tempfail), early=True),
        Stage("auth", (Accept, Reject, Tempfail), early=True, rights=_AUTH),
        Stage("mail", (Accept, Reject, Tempfail, Discard, Quarantine), early=True, rights=_MAIL),
        Stage("claim", (Accept, Reject, Tempfail), may_be_async=False, early=True, rights=_CLAIM),
        Stage("receive", (Reject, Tempfail, Quarantine)),
        Stage("rcpt", (Accept, Reject, Tempfail, Discard), early=True, rights=_RCPT),
        Stage("message", (Reject, Tempfail, Discard, Quarantine, Delay), rights=_MESSAGE),
        Stage("seal", (Reject, Tempfail, Quarantine), may_be_async=False, rights=SEALED),
        Stage("route", (Route, Delay, Reject), rights=_ROUTE),
        Stage("source", (Source, Delay), may_be_async=False, rights=_SOURCE),
        Stage("admit", (Delay, Quarantine, Reject), may_be_async=False, rights=_ADMIT),
        Stage("reply", (Outcome,), may_be_async=False, rights=_REPLY),
        Stage("observe", ()),
        Stage("http", (object,), may_be_async=False),
        Stage("commands", (object,), may_be_async=False),
    )
}
