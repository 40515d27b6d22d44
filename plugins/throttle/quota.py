"""Quotas of clients: whose they are, and what is said when they are used up. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.hooks import Condition, Message, Recipient
from plugins.throttle.config import QuotaConfig
from plugins.throttle.window import Period


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota, ready to be asked.

    Attributes:
        name: in `gateway.yaml`.
        messages, recipients: how many, by period.
        holds: what is beyond is accepted and held, not refused.
    """

    name: str
    messages: Mapping[Period, int]
    recipients: Mapping[Period, int]
    holds: bool
    _by: str | None
    _condition: Condition | None

    @classmethod
    def of(cls, name: str, config: QuotaConfig) -> Quota:
        """Compiles a quota."""
        return cls(
            name=name,
            messages=config.messages.by_period if config.messages is not None else {},
            recipients=config.recipients.by_period if config.recipients is not None else {},
            holds=config.at_limit == "hold",
            _by=config.by,
            _condition=Condition(config.when) if config.when is not None else None,
        )

    def subject(self, message: Message) -> str | None:
        """Whose part of the quota a message takes: `user shop`; '' if it is one for all.

        None: the message does not count, because the condition does not hold, or because nobody is
        there to count it for, such as the sender of a report.
        """
        if self._condition is not None and not self._condition.matches(message):
            return None
        match self._by:
            case None:
                return ""
            case "user":
                value = message.client.user or ""
            case "client":
                value = message.client.address
            case "stream":
                value = message.stream
            case "sender":
                value = message.sender.lower()
            case _:
                value = message.sender.rpartition("@")[2].lower()
        return f"{self._by.replace('_', ' ')} {value}" if value else None

    def counted(self, message: Message) -> list[Recipient]:
        """The recipients that count."""
        condition = self._condition
        if condition is None or not condition.by_recipient:
            return message.recipients
        return [one for one in message.recipients if condition.matches_recipient(message, one)]


@dataclass(frozen=True, slots=True)
class Excess:
    """A quota that a message would exceed.

    Attributes:
        quota, subject: which one, and whose part of it.
        unit: `messages` or `recipients`; limit: how many of them in the `period`.
        never: the message alone is more than that, so that waiting is in vain.
        end: when the period ends, as text.
    """

    quota: Quota
    subject: str
    unit: str
    period: Period
    limit: int
    never: bool
    end: str

    @property
    def text(self) -> str:
        """What the client is told."""
        whose = f" for {self.subject}" if self.subject else ""
        unit = self.unit if self.limit > 1 else self.unit.removesuffix("s")
        period = "an hour" if self.period == "hour" else f"a {self.period}"
        amount = f"quota of {self.limit} {unit} {period}{whose}"
        if self.never:
            return f"The message has more recipients than the {amount} allows"
        return f"The {amount} is used up until {self.end}; please try again then"
