"""Gives mail return paths, and learns from what comes back to them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.hooks import (
    Accept,
    Attempt,
    Condition,
    Context,
    Disposition,
    Message,
    Plugin,
    Quarantine,
    Recipient,
    Reject,
    Tempfail,
    domain_name,
    hookimpl,
)
from plugins.bounces import recent, report
from plugins.bounces.classification import Classifier, FailureClass
from plugins.bounces.config import BouncesConfig
from plugins.bounces.decision import Decider, Decision
from plugins.bounces.keys import Keyring
from plugins.bounces.origins import Origins
from plugins.bounces.recent import Recent
from plugins.bounces.return_path import ReturnPaths

if TYPE_CHECKING:
    import click

__all__ = ["Bounces", "BouncesConfig"]

_ACCEPT = Accept()
_UNKNOWN = Reject("There is no such address here", code=550, status="5.1.1")
_EXPIRED = Reject("This return path is not valid any more", code=550, status="5.1.1")
_LATER = Tempfail("The report cannot be noted now, please try again later", status="4.3.0")
_NOTES = ("source", "class", "kind")


class Bounces(Plugin[BouncesConfig]):
    """Gives each recipient of a message a return path, so that a bounce tells whom it is about.

    Takes what comes back: bounces, complaints and automatic replies, and tells observers of them.
    Nothing is ever sent in answer.

    Raises:
        ValueError: the file of rules cannot be read, or has a bad rule.
    """

    api = "1.0"
    changes = ("sender",)
    _context: Context
    _paths: ReturnPaths | None = None
    _origins: Origins
    _recent: Recent
    _decider: Decider

    def __init__(self, config: BouncesConfig) -> None:
        super().__init__(config)
        self._domains = config.bounce_domains
        self._claimed = self._domains | {one.rpartition("@")[2] for one in config.complaints}
        self._only = None if config.only is None else Condition(config.only)
        self._classifier = Classifier(config.rules)
        self._places = lru_cache(maxsize=4096)(self._find_place)
        if not self._domains:
            self.unused = ("message",) if config.complaints else ("message", "claim", "receive")

    @hookimpl
    def start(self, context: Context) -> None:
        """Reads the keys, and makes them at the very first start."""
        self._context = context
        if context.role != "worker":
            return
        config, clock, log = self.config, context.clock, context.log
        self._origins = Origins(context.limits, context.name, clock, log)
        self._recent = Recent(context.limits, context.name, clock, log)
        if self._domains:
            self._paths = ReturnPaths(config, Keyring(self._key_file(context), clock, log))
        self._decider = Decider(config, self._paths, self._origins.find, self._classifier)

    @hookimpl
    def message(self, message: Message) -> None:
        """Gives recipients their return paths. Mail without a sender is a report, and gets none."""
        sender = message.sender
        if not sender:
            return
        domain, place = self._places(sender.rpartition("@")[2])
        if not place:
            return
        recipients, only = message.recipients, self._only
        if only is not None:
            recipients = [one for one in recipients if only.matches_recipient(message, one)]
            if not recipients:
                return
        assert self._paths is not None
        origin = self._origins.mark(domain, message.stream)
        self._paths.give(message.id, recipients, place, origin)

    @hookimpl
    def claim(self, recipient: Recipient) -> Accept | Reject | None:
        """Takes what comes to return paths that were made here, and to the other addresses."""
        domain = recipient.domain
        if domain not in self._claimed:
            return None
        address = recipient.address
        local = address.rpartition("@")[0].lower()
        if f"{local}@{domain}" in self.config.complaints:
            return _ACCEPT
        if domain not in self._domains:
            return None
        if local in self.config.roles:
            return _ACCEPT
        assert self._paths is not None
        path = self._paths.read(address)
        if path is None:
            return _UNKNOWN
        if path.token.older_than(self.config.lifetime, self._context.clock()):
            return _EXPIRED
        return _ACCEPT

    @hookimpl
    async def receive(self, message: Message) -> Tempfail | Quarantine | None:
        """Tells observers what a message that came back says; what it cannot be told is held."""
        context = self._context
        recipients = [recipient.address for recipient in message.recipients]
        try:
            content = _beginning(message)
            digest = recent.digest(recipients, content)
            if self._recent.knows(digest):
                context.log.info("%s: came before, nothing is told twice", message.id)
                return None
            read = report.read(content, null_sender=not message.sender)
            decision = self._decider.decide(read, recipients, context.clock())
        except OSError:
            context.log.exception("%s: cannot be looked at now", message.id)
            return _LATER
        except Exception:
            # Whatever is wrong with it, it must neither be lost nor come again for ever.
            context.log.exception("%s: cannot be understood", message.id)
            return Quarantine("a report that cannot be understood")
        if decision.held:
            return Quarantine(decision.held)
        if not await self._told(message, decision):
            return _LATER
        self._recent.add(digest)
        return None

    @hookimpl
    def reply(self, attempt: Attempt) -> None:
        """Notes what a refusal means."""
        outcome = attempt.outcome
        notes = attempt.recipient.notes
        if outcome.disposition is Disposition.DELIVERED:
            if "class" in notes:
                for name in _NOTES:
                    notes.pop(name, None)
            return
        failure = self._classifier.verdict(outcome.code, outcome.status, outcome.text).failure
        if failure is FailureClass.OTHER and not outcome.code:
            failure = FailureClass.NETWORK  # no server has answered
        notes["source"] = "reply"
        notes["class"] = failure.value
        notes["kind"] = failure.kind

    @hookimpl
    def commands(self, context: Context) -> click.Group:
        """`classify`, `explain`, `address`, `keys` and `rotate`."""
        from plugins.bounces.commands import bounces_commands

        return bounces_commands(self.config, self._classifier, self._key_file(context), context)

    async def _told(self, message: Message, decision: Decision) -> bool:
        """Whether all events are on disk."""
        context = self._context
        if decision.dropped:
            context.log.info("%s: dropped: %s", message.id, decision.dropped)
        for event in decision.events:
            context.log.info(
                "%s: about %s: to=<%s>, %s, %s",
                message.id,
                event.message_id or "unknown mail",
                event.recipient,
                event.type,
                " ".join(f"{name}={value}" for name, value in sorted(event.notes.items())),
            )
        try:
            for written in [context.emit(event) for event in decision.events]:
                await written
        except Exception:
            context.log.exception("%s: its events cannot be written", message.id)
            return False
        return True

    def _find_place(self, sender_domain: str) -> tuple[str, str]:
        """A sender's domain as it is compared, and the domain of its return paths, '' if none."""
        try:
            domain = domain_name(sender_domain)
        except ValueError:
            domain = sender_domain.lower()
        if domain in self._domains:
            return domain, ""  # it has a return path already
        return domain, self.config.domain_of(domain) or ""

    def _key_file(self, context: Context) -> Path:
        return self.config.keys or context.folder / "keys.json"


def _beginning(message: Message) -> bytes:
    """As much of a message as is looked at; of a large one the rest is not copied."""
    if message.size <= report.LARGEST:
        return message.content
    body = message.body_view[: report.LARGEST]
    return b"".join((message.headers.raw, b"\r\n", body))[: report.LARGEST]
