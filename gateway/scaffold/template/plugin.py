"""A plugin for mail-gateway."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.hooks import (
    Accept,
    Attempt,
    Client,
    Context,
    Delay,
    Delivery,
    Discard,
    Event,
    Login,
    Message,
    Outcome,
    Plugin,
    Quarantine,
    Recipient,
    Reject,
    Route,
    Source,
    Tempfail,
    hookimpl,
)

log = logging.getLogger(__name__)


class NewPluginConfig(BaseModel):
    """What an entry in gateway.yaml can set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: str = Field(
        default="yes",
        pattern="^[ -~]+$",
        max_length=200,
        description="What stands in the header field that is added, in ASCII.",
    )

    address: str = Field(
        default="new-plugin@example.com",
        description="The address whose mail this plugin takes.",
    )


class NewPlugin(Plugin[NewPluginConfig]):
    """A plugin for mail-gateway."""

    api = "1.0"
    changes = ("header:X-New-Plugin", "header:X-New-Plugin-Seal")

    @hookimpl
    def start(self, context: Context) -> None:
        """Opens what the plugin needs, once in each process."""
        context.log.info("%s is ready", context.name)

    @hookimpl
    def stop(self) -> None:
        """Closes what `start` opened."""

    @hookimpl
    def connect(self, client: Client) -> Reject | Tempfail | None:
        """Answers a connection; `client.address` is known."""
        # None: it may go on. Or, for example, Tempfail("Come again later").
        return None

    @hookimpl
    def helo(self, client: Client) -> Reject | Tempfail | None:
        """Answers EHLO; `client.helo` is known."""
        # None: it may go on. Or, for example, Reject("Not with that name").
        return None

    @hookimpl
    def auth(self, login: Login) -> Accept | Reject | Tempfail | None:
        """Decides who the client is, by `login.username` and `login.password`."""
        # None: another plugin or the listener's users decide. Or Accept(), Reject("No").
        return None

    @hookimpl
    def mail(self, message: Message) -> Reject | Tempfail | Discard | Quarantine | None:
        """Answers MAIL; `message.client` and `message.sender` are known."""
        # None: it may go on. Or, for example, Reject("Not from that address").
        return None

    @hookimpl
    def claim(self, recipient: Recipient) -> Accept | None:
        """Takes mail to the plugin's own address, from anybody."""
        return Accept() if recipient.address.lower() == self.config.address.lower() else None

    @hookimpl
    def receive(self, message: Message) -> Reject | Tempfail | Quarantine | None:
        """Deals with a message to an address that `claim` has accepted."""
        log.info("%s: received from <%s>", message.id, message.sender)
        return None

    @hookimpl
    def rcpt(self, recipient: Recipient) -> Reject | Tempfail | Discard | None:
        """Answers RCPT; `recipient.address` and `recipient.message` are known."""
        # None: it may go on. Or, for example, Reject("No such user", status="5.1.1").
        return None

    @hookimpl
    def message(self, message: Message) -> Reject | Tempfail | Quarantine | None:
        """Sees the whole message, and may change what `changes` names."""
        message.headers.change("X-New-Plugin", self.config.value)
        return None

    @hookimpl
    def seal(self, message: Message) -> None:
        """Puts a field on top of the finished message."""
        message.headers.prepend("X-New-Plugin-Seal", self.config.value)

    @hookimpl
    def route(self, delivery: Delivery) -> Route | Delay | Reject | None:
        """Names the next hops of a message to `delivery.domain`."""
        # None: as gateway.yaml says. Or, for example, Delay(600, "Not before noon").
        return None

    @hookimpl
    def source(self, delivery: Delivery) -> Source | Delay | None:
        """Chooses the address that an attempt comes from."""
        # None: as the system does. Or, for example, Source("192.0.2.1", "mta1.example.com").
        return None

    @hookimpl
    def admit(self, delivery: Delivery) -> Delay | Quarantine | Reject | None:
        """Says whether an attempt may start now."""
        # None: now. Or, for example, Delay(60, "Slowly").
        return None

    @hookimpl
    def reply(self, attempt: Attempt) -> Outcome | None:
        """Says what a next hop's reply to `attempt.recipient` means."""
        # None: what it says, in `attempt.outcome`.
        return None

    @hookimpl
    def observe(self, events: Sequence[Event]) -> None:
        """Learns what happened. The same events may come again."""
        for event in events:
            log.info("%s: %s <%s>", event.message_id, event.type, event.recipient)

    @hookimpl
    def http(self) -> Any:
        """Gives pages to the HTTP service, as an ASGI application."""
        return self.page

    async def page(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[Mapping[str, Any]]],
        send: Callable[[Mapping[str, Any]], Awaitable[None]],
    ) -> None:
        """The only page."""
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        text = b"new-plugin is here\n"
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    @hookimpl
    def commands(self, context: Context) -> Any:
        """Adds `gateway new-plugin`."""
        # Here, and not on top: the processes that relay mail start without it.
        import click

        @click.command(help="Say that the plugin is here.")
        def hello() -> None:
            click.echo(f"{context.name} is here")

        return hello
