"""Keeps mail from going to those who must not get it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from gateway.hooks import Context, Discard, Event, Message, Plugin, Recipient, Reject, hookimpl
from plugins.suppression.address import Spelling, normal_domain, normal_local_part
from plugins.suppression.config import SuppressionConfig
from plugins.suppression.database import FILE_NAME, open_to_write
from plugins.suppression.entry import EVERYWHERE, REASONS, sender_scope, stream_scope
from plugins.suppression.hygiene import Flaw, Hygiene
from plugins.suppression.incidents import Incidents
from plugins.suppression.learning import Rules
from plugins.suppression.listfile import ListFile
from plugins.suppression.lookup import Lookup
from plugins.suppression.names import Names
from plugins.suppression.verdict import Match, decisive

__all__ = ["Suppression", "SuppressionConfig"]

# Says that the recipient is refused, not that the site keeps a list and why.
_REFUSED = Reject("Recipient refused")
_DROPPED = Discard("suppressed")


@dataclass(slots=True)
class _Checked:
    """What RCPT looked up: recipients, and what was known of their message then."""

    sender: str
    stream: str
    addresses: set[str] = field(default_factory=set)


class Suppression(Plugin[SuppressionConfig]):
    """Refuses recipients on a list, or takes and drops them; learns whom to put on it.

    Raises:
        ValueError: the list file cannot be read or has a bad line.
    """

    api = "1.0"
    changes = ("recipients",)
    _context: Context
    _lookup: Lookup | None = None
    _incidents: Incidents | None = None
    _hygiene: Hygiene | None = None

    def __new__(cls, config: SuppressionConfig) -> Suppression:
        """Waiting for the DNS takes a coroutine, which costs 4 µs at each recipient: only sites
        that ask the DNS pay for it.
        """
        asks = config.hygiene is not None and config.hygiene.asks_dns
        return super().__new__(SuppressionWithDns if asks else cls)

    def __init__(self, config: SuppressionConfig) -> None:
        super().__init__(config)
        self._spelling = Spelling(config.subaddresses, config.gmail_dots)
        self._fixed = Names.of({*config.addresses, *config.domains}, self._spelling)
        self._file = None if config.file is None else ListFile(config.file)
        self._names = self._fixed
        if self._file is not None:
            self._names |= Names.of(self._file.read(), self._spelling)
        actions = {reason: config.actions.get(reason, config.action) for reason in REASONS}
        self._answers: dict[str, Reject | Discard] = {
            reason: _REFUSED if action == "reject" else _DROPPED
            for reason, action in actions.items()
        }
        self._exempt = config.exemptions
        self._late = config.streams_known == "message"
        self._rules = Rules(config.learn)
        self.observes = self._rules.types
        self._scope_of = lru_cache(maxsize=1024)(_scope_of)
        self._checked: WeakKeyDictionary[Message, _Checked] = WeakKeyDictionary()

    @hookimpl
    def start(self, context: Context) -> None:
        """Opens the database; the process that comes first makes it."""
        self._context = context
        path = context.data_folder() / FILE_NAME
        if context.role == "service":
            self._incidents = Incidents(path, self._rules.longest)
            return
        open_to_write(path).close()
        self._lookup = Lookup(path, self._spelling, context.clock)
        if self.config.hygiene is not None:
            self._hygiene = Hygiene(self.config.hygiene, context.resolver)

    @hookimpl
    def stop(self) -> None:
        """Closes the database."""
        for part in (self._lookup, self._incidents):
            if part is not None:
                part.close()

    @hookimpl
    def rcpt(self, recipient: Recipient) -> Reject | Discard | None:
        """Answers for a recipient that is on the list."""
        message = recipient.message
        assert message is not None
        match = self._suppressed(recipient, message, None if self._late else message.stream)
        if match is not None:
            return self._answers[match.reason]
        checked = self._checked.get(message)
        if checked is None or (checked.sender, checked.stream) != (message.sender, message.stream):
            self._checked[message] = checked = _Checked(message.sender, message.stream)
        checked.addresses.add(recipient.address)
        if self._hygiene is None:
            return None
        return self._judge(self._hygiene.misspelled(recipient.domain), recipient, message)

    @hookimpl
    def message(self, message: Message) -> Discard | None:
        """Takes out recipients that RCPT could not know to be suppressed.

        That is those of a stream that was not known before the header, those that another plugin
        has added or changed, and all if it has changed the sender.
        """
        checked = self._checked.pop(message, None)
        recipients: Sequence[Recipient] = message.recipients
        if checked is not None and checked.sender == message.sender:
            same = checked.stream == message.stream and not self._late
            if same or not self._depends_on_stream():
                known = checked.addresses
                recipients = [one for one in recipients if one.address not in known]
        suppressed = [
            one for one in recipients if self._suppressed(one, message, message.stream) is not None
        ]
        if len(suppressed) == len(message.recipients):
            return _DROPPED
        for recipient in suppressed:
            message.remove_recipient(recipient)
        return None

    @hookimpl
    async def observe(self, events: Sequence[Event]) -> None:
        """Puts on the list whom nothing may be sent to any more."""
        incidents = self._rules.incidents(events)
        if not incidents:
            return
        assert self._incidents is not None
        now = self._context.clock()
        for entry in await asyncio.to_thread(self._incidents.learn, incidents, now):
            self._context.log.info("<%s> is suppressed: %s", entry.address, entry.note)

    @hookimpl
    def commands(self, context: Context) -> Any:
        """`gateway suppression`: the list, shown and changed."""
        from plugins.suppression.commands import group

        return group(self.config, context)

    # Looking up.

    def _suppressed(
        self, recipient: Recipient, message: Message, stream: str | None
    ) -> Match | None:
        """The entry that keeps mail from a recipient; an event tells of it. None: mail may go.

        Args:
            recipient: whom the message goes to.
            message: the message.
            stream: its stream; None if that is not known yet.
        """
        assert self._lookup is not None
        if self._file is not None:
            self._refresh(self._file)
        local = normal_local_part(recipient.address.rpartition("@")[0])
        target = self._spelling.target(local, recipient.domain)
        matches = self._lookup.find(
            target, self._scope_of(message.sender), stream_scope(stream or "")
        )
        name = self._names.find(target)
        if name is not None:
            matches.append(Match(name, EVERYWHERE, "manual"))
        if not matches:
            return None
        match = decisive(matches, stream, self._exempt)
        if match is not None:
            self._tell("suppressed", match.explained(target.address), recipient, message)
        return match

    def _depends_on_stream(self) -> bool:
        assert self._lookup is not None
        return bool(self._exempt) or self._lookup.has_stream_scopes()

    def _refresh(self, file: ListFile) -> None:
        log = self._context.log
        try:
            entries = file.changes(self._context.clock())
        except ValueError as error:
            log.error("the suppression list stays as it was: %s", error)
            return
        if entries is not None:
            self._names = self._fixed | Names.of(entries, self._spelling)
            log.info("the suppression list was read again")

    # Telling.

    def _judge(self, flaw: Flaw | None, recipient: Recipient, message: Message) -> Reject | None:
        """The answer to a flaw of a recipient's domain; None if it is only reported."""
        if flaw is None:
            return None
        if flaw.rejects:
            self._tell("suppressed", f"invalid: {flaw.text}", recipient, message)
            return flaw.answer
        self._tell("suspected", f"invalid: {flaw.text}", recipient, message)
        return None

    def _tell(self, kind: str, reason: str, recipient: Recipient, message: Message) -> None:
        context = self._context
        context.log.info("%s: to=<%s>, %s (%s)", message.id, recipient.address, kind, reason)
        context.emit(
            Event(
                type=kind,
                time=context.clock(),
                message_id=message.id,
                sender=message.sender,
                recipient=recipient.address,
                stream=message.stream,
                client=message.client.address,
                user=message.client.user or "",
                reason=reason,
                notes={**message.notes, **recipient.notes},
            )
        )


class SuppressionWithDns(Suppression):
    """The same for a site that asks the DNS about recipients."""

    @hookimpl
    async def rcpt(self, recipient: Recipient) -> Reject | Discard | None:  # type: ignore[override]  # the chain takes both
        """Answers for a recipient that is on the list, or whose domain takes no mail."""
        answer = super().rcpt(recipient)
        if answer is not None:
            return answer
        message, hygiene = recipient.message, self._hygiene
        assert message is not None
        assert hygiene is not None
        return self._judge(await hygiene.without_mail(recipient.domain), recipient, message)


def _scope_of(sender: str) -> str:
    try:
        return sender_scope(normal_domain(sender.rpartition("@")[2]))
    except ValueError:
        return EVERYWHERE
