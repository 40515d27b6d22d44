"""Measures who opens and clicks, and lets recipients unsubscribe (RFC 8058)."""

from __future__ import annotations

import logging
from email.utils import parseaddr
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.hooks import Context, Message, Plugin, TextPart, domain_name, hookimpl
from plugins.tracking import list_unsubscribe
from plugins.tracking.config import TrackingConfig
from plugins.tracking.edition import Edition
from plugins.tracking.endpoints import Endpoints
from plugins.tracking.keys import Keyring
from plugins.tracking.rewriter import Rewriter

if TYPE_CHECKING:
    import click

__all__ = ["Tracking", "TrackingConfig"]

_LONGEST_NOTE = 100
_LONGEST_FROM = 2000


class Tracking(Plugin[TrackingConfig]):
    """Leads links through the gateway, adds an image and a way to unsubscribe.

    Each recipient gets a copy with URLs of its own. What cannot be edited, because it is signed,
    encrypted or broken, stays as it is; so do reports, which have no sender.
    """

    api = "1.0"
    changes = ("text/html", "text/plain", "header:List-Unsubscribe", "header:List-Unsubscribe-Post")
    per_recipient = True

    def __init__(self, config: TrackingConfig) -> None:
        super().__init__(config)
        self._rewriter = Rewriter(config)
        self._author_domain = lru_cache(maxsize=1024)(author_domain)
        self._endpoints: Endpoints | None = None
        self._log = logging.getLogger(__name__)
        self._context: Context
        self._keyring: Keyring

    @hookimpl
    def start(self, context: Context) -> None:
        """Reads the keys, and makes them at the very first start."""
        self._context = context
        self._log = context.log
        self._keyring = Keyring(
            self._key_file(context), context.clock, context.log, self.config.token_lifetime
        )

    @hookimpl
    async def stop(self) -> None:
        """Closes what the endpoints have opened."""
        if self._endpoints is not None:
            await self._endpoints.close()

    @hookimpl
    def message(self, message: Message) -> None:
        """Makes the edition of the only recipient."""
        if not message.sender or not message.recipients:
            return
        config, headers = self.config, message.headers
        base_url = config.base_url
        if config.domains:
            # No more of it, for it is remembered; what is longer has no domain.
            author = headers.get("From", "")[: _LONGEST_FROM + 1]
            base_url = config.base_url_of(self._author_domain(author))
        campaign, variant = _note(message, "campaign"), _note(message, "variant")
        sealer = self._keyring.sealer(
            message.id,
            message.recipients[0].address,
            message.sender,
            message.stream,
            campaign,
            variant,
        )
        fields = {"campaign": campaign, "stream": message.stream, "variant": variant}
        existing = headers.get("List-Unsubscribe")
        kept = existing is not None and config.unsubscribe.existing == "keep"
        untracked = list_unsubscribe.uris(existing or "") if kept else frozenset()
        edition = Edition(base_url, sealer, fields, untracked)
        self._rewrite(message, edition)
        if config.unsubscribe.headers and not kept:
            self._offer_unsubscribing(message, edition)

    @hookimpl
    def http(self) -> Endpoints:
        """The pages that the URLs lead to."""
        self._endpoints = Endpoints(
            self.config, self.config.base_urls, self._keyring, self._context
        )
        return self._endpoints

    @hookimpl
    def commands(self, context: Context) -> click.Group:
        """`keys`, `rotate` and `open`."""
        from plugins.tracking.commands import tracking_commands

        return tracking_commands(self._key_file(context), context.clock)

    def _key_file(self, context: Context) -> Path:
        return self.config.keys or context.folder / "keys.json"

    def _rewrite(self, message: Message, edition: Edition) -> None:
        opens = self.config.opens
        for part in message.text_parts():
            html = part.content_type == "text/html"
            if not part.editable:
                if html or self.config.text_links:
                    self._log.info("%s: its %s stays as it is", message.id, part.content_type)
            elif html:
                utf8 = part.charset in ("utf-8", "us-ascii")
                part.replace(self._rewriter.html(part.text, edition, utf8=utf8, opens=opens))
            else:
                spans = self._rewriter.plain(part.text, edition, delete_space=self._has_delsp(part))
                if spans:
                    part.replace(spans)
            # The image belongs to what is shown first; the rest are mostly pieces around files.
            opens = opens and not html

    def _has_delsp(self, part: TextPart) -> bool:
        """Whether spaces at the ends of lines are not part of the text (RFC 3676 4.1)."""
        if not self.config.text_links:
            return False
        return "delsp" in (part.headers.get("Content-Type") or "").lower()

    def _offer_unsubscribing(self, message: Message, edition: Edition) -> None:
        mailto = self.config.unsubscribe.mailto
        value = list_unsubscribe.value(edition.unsubscribe, mailto, edition.unsubscribe_token)
        if value is None:
            self._log.info("%s: no List-Unsubscribe, its URL is too long", message.id)
            return
        headers = message.headers
        for name in ("List-Unsubscribe", "List-Unsubscribe-Post"):
            if name in headers:
                headers.delete(name)
        headers.add("List-Unsubscribe", value)
        headers.add("List-Unsubscribe-Post", list_unsubscribe.ONE_CLICK)


def author_domain(value: str) -> str:
    """The domain of the address in a From field, in lower case and A-labels; '' without one."""
    if len(value) > _LONGEST_FROM:
        return ""
    try:
        return domain_name(parseaddr(value)[1].rpartition("@")[2])
    except (ValueError, RecursionError):  # the latter for many open brackets
        return ""


def _note(message: Message, name: str) -> str:
    """A note, without control characters and not too long for a URL."""
    text = message.notes.get(name, "")[:_LONGEST_NOTE]
    return text if text.isprintable() else "".join(filter(str.isprintable, text))
