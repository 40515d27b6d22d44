"""Adds the sender's details that Japanese law asks for below the text of each message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from gateway.hooks import Message, Plugin, TextPart, hookimpl

from mail_gateway_legal_footer import markup, plain
from mail_gateway_legal_footer.author import author_domain
from mail_gateway_legal_footer.config import (
    EVERYONE_ELSE,
    LANGUAGES,
    Details,
    Language,
    LegalFooterConfig,
    Sender,
)
from mail_gateway_legal_footer.footer import Footer, footer_of

__all__ = ["Details", "LegalFooter", "LegalFooterConfig", "Sender"]

_KANA = re.compile("[\u3041-\u30ff\uff66-\uff9f]")


class LegalFooter(Plugin[LegalFooterConfig]):
    """Adds a company's name, address, contact and where to unsubscribe to text and HTML."""

    api = "1.0"
    changes = ("text/plain", "text/html")

    def __init__(self, config: LegalFooterConfig) -> None:
        super().__init__(config)
        self._footers = {
            domain: _footers(sender, config.language) for domain, sender in config.senders.items()
        }

    @hookimpl
    def message(self, message: Message) -> None:
        """Adds the footer to the last text and the last HTML that readers see."""
        footers = self._of(author_domain(message))
        if footers is None:
            return
        parts = message.text_parts()
        footer = footers[_language(parts)]
        last = {part.content_type: part for part in parts}
        for part in last.values():
            # What is signed or encrypted stays as it is: a footer would break it.
            if part.editable:
                _add(part, footer)

    def _of(self, domain: str) -> Mapping[Language, Footer] | None:
        """The footers of a domain: its own, those of a parent's subdomains, those of all."""
        names = [domain]
        while "." in domain:
            domain = domain.partition(".")[2]
            names.append(f".{domain}")
        for name in (*names, EVERYONE_ELSE):
            if name in self._footers:
                return self._footers[name]
        return None


def _footers(sender: Sender, wanted: str) -> Mapping[Language, Footer]:
    """The footer for messages in each language; a language that is not there is replaced."""
    given: list[tuple[Language, Details]] = [
        (language, details)
        for language in LANGUAGES
        if (details := getattr(sender, language)) is not None
    ]
    footers: dict[Language, Footer] = {}
    for language in LANGUAGES:
        chosen = language if wanted == "auto" else wanted
        footers[language] = footer_of([pair for pair in given if pair[0] == chosen] or given)
    return footers


def _language(parts: Iterable[TextPart]) -> Language:
    return "ja" if any(_KANA.search(part.text) for part in parts) else "en"


def _add(part: TextPart, footer: Footer) -> None:
    text = part.text
    if part.content_type == "text/html":
        if not markup.has_footer(text, footer):
            part.replace([markup.insertion(text, footer, part.charset)])
    elif not plain.has_footer(text, footer):
        part.replace([plain.insertion(text, footer)])
