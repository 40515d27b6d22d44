"""Keeps mail from going to addresses and domains on a list."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.hooks import Context, Discard, Plugin, Recipient, Reject, SitePath, hookimpl
from plugins.suppression.entries import Entries, address, domain, local_part
from plugins.suppression.listfile import ListFile

__all__ = ["Suppression", "SuppressionConfig"]


class SuppressionConfig(BaseModel):
    """What is suppressed, and what is answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    addresses: frozenset[str] = Field(default=frozenset(), description="Addresses: user@domain.")
    domains: frozenset[str] = Field(
        default=frozenset(), description="Domains, without their subdomains."
    )
    file: SitePath | None = Field(
        default=None,
        description="A list with an address or @domain on each line, read again when it changes.",
    )
    action: Literal["reject", "discard"] = Field(
        default="reject",
        description="Refuse the recipient (reject), or accept and never deliver (discard).",
    )

    @field_validator("addresses")
    @classmethod
    def _normalise_addresses(cls, addresses: frozenset[str]) -> frozenset[str]:
        return frozenset(address(entry) for entry in addresses)

    @field_validator("domains")
    @classmethod
    def _normalise_domains(cls, domains: frozenset[str]) -> frozenset[str]:
        return frozenset(domain(entry) for entry in domains)


class Suppression(Plugin[SuppressionConfig]):
    """Refuses recipients on a list, or takes and drops them.

    Raises:
        ValueError: the list file cannot be read or has a bad line.
    """

    def __init__(self, config: SuppressionConfig) -> None:
        super().__init__(config)
        self._fixed = Entries(config.addresses, config.domains)
        self._file = None if config.file is None else ListFile(config.file)
        self._entries = self._fixed
        if self._file is not None:
            self._entries |= self._file.read()
        # Says that the recipient is refused, not that the site keeps a list and why.
        self._answer: Reject | Discard = (
            Reject("Recipient refused") if config.action == "reject" else Discard("suppressed")
        )
        self._clock: Callable[[], float] = time.time
        self._log = logging.getLogger(__name__)

    @hookimpl
    def start(self, context: Context) -> None:
        """Takes the clock that the file is watched by, and the log."""
        self._clock = context.clock
        self._log = context.log

    @hookimpl
    def rcpt(self, recipient: Recipient) -> Reject | Discard | None:
        """Answers for a recipient that is on the list."""
        if self._file is not None:
            self._refresh(self._file)
        if recipient.domain in self._entries.domains:
            return self._answer
        local = local_part(recipient.address.rpartition("@")[0])
        if f"{local}@{recipient.domain}" in self._entries.addresses:
            return self._answer
        return None

    def _refresh(self, file: ListFile) -> None:
        try:
            entries = file.changes(self._clock())
        except ValueError as error:
            self._log.error("the suppression list stays as it was: %s", error)
            return
        if entries is not None:
            self._entries = self._fixed | entries
            self._log.info("the suppression list was read again")
