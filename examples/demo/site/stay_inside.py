"""A site's own plugin: a safety against mail that was sent by mistake."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from gateway.hooks import Plugin, Recipient, Reject, hookimpl


class StayInsideConfig(BaseModel):
    """Which mail must not leave."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domains: frozenset[str] = Field(description="Domains, in lower case.")


class StayInside(Plugin[StayInsideConfig]):
    """Refuses recipients in domains that exist for tests only.

    Staging systems fill their databases with such addresses, so that a rehearsal reaches nobody.
    """

    @hookimpl
    def rcpt(self, recipient: Recipient) -> Reject | None:
        """Answers for a recipient in one of the domains."""
        if recipient.domain in self.config.domains:
            return Reject(f"Mail to {recipient.domain} must not leave")
        return None
