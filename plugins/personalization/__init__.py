"""Fills templates in mail with the values of each recipient."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from gateway.hooks import Context, Message, Plugin, Recipient, Reject, Tempfail, hookimpl

try:
    import babel  # noqa: F401
    import jinja2  # noqa: F401
except ModuleNotFoundError as missing:
    remedy = f"{missing.name} is not installed: pip install 'mail-gateway[personalization]'"
    raise ModuleNotFoundError(remedy, name=missing.name) from None

from plugins.personalization.config import DelimitersConfig, PersonalizationConfig, VariantConfig
from plugins.personalization.localization import Localization
from plugins.personalization.places import Place, in_headers, in_parts, new_subject
from plugins.personalization.rendering import Policy, Rendering, TemplateError
from plugins.personalization.sources import SourceError, Sources, build
from plugins.personalization.sources.values import merge
from plugins.personalization.syntax import Syntax
from plugins.personalization.template import Kind, Span, Template, line_and_column
from plugins.personalization.variants import Experiment, Variant

__all__ = ["DelimitersConfig", "Personalization", "PersonalizationConfig", "VariantConfig"]

_TEMPLATES_KEPT = 128
_LARGEST_KEPT = 256 << 10
_LOCALES_KEPT = 32
_LONGEST_HEADER = 16 << 10
_LONGEST_REPLY = 400


class Personalization(Plugin[PersonalizationConfig]):
    """Fills the templates in the Subject, other header fields and the texts of a message.

    Raises:
        ValueError: a library that a source needs is not installed.
    """

    api = "1.0"
    changes = ("header:*", "text/plain", "text/html")
    per_recipient = True

    def __init__(self, config: PersonalizationConfig) -> None:
        super().__init__(config)
        self._sources = Sources(build(config.sources))
        carriers = [source.header.name for source in config.sources if source.header is not None]
        switch = config.only_with_header
        self._switches = () if switch is None else (switch, *carriers)
        self._experiments = [
            _experiment(campaign, variants) for campaign, variants in config.variants.items()
        ]
        self._delimiters = config.delimiters.delimiters
        self._syntax = Syntax(self._delimiters)
        self._policy = Policy(config.missing, config.defaults)
        self._timezone = ZoneInfo(config.timezone)
        self._localization = Localization(config.locale, self._timezone, config.currency)
        # The messages of a campaign have the same templates; its recipients, few languages.
        self._kept_template = lru_cache(maxsize=_TEMPLATES_KEPT)(self._compiled)
        self._localization_of = lru_cache(maxsize=_LOCALES_KEPT)(self._localized)
        self._clock: Callable[[], float] = time.time
        self._log = logging.getLogger(__name__)
        self._last_message = self._last_locked = ""

    @hookimpl
    async def start(self, context: Context) -> None:
        """Opens the sources, where there is mail to be filled."""
        self._clock = context.clock
        self._log = context.log
        if context.role == "worker":
            await self._sources.start(context)

    @hookimpl
    async def stop(self) -> None:
        """Closes the sources."""
        await self._sources.stop()

    @hookimpl
    async def message(self, message: Message) -> Reject | Tempfail | None:
        """Fills the templates for the one recipient."""
        if self._switches and not any(map(message.headers.__contains__, self._switches)):
            return None
        if message.id == self._last_message:
            # One of many recipients: other mail must not wait for all of them.
            await asyncio.sleep(0)
        self._last_message = message.id
        (recipient,) = message.recipients
        variant = self._variant(message, recipient)
        places = self._places(message, variant)
        try:
            if places:
                values = await self._values(message, recipient, variant)
                self._fill(places, values)
        except SourceError as error:
            if error.temporary:
                return Tempfail(error.text, 451, "4.3.0")
            return Reject(error.text, 550, "5.6.0")
        except _PlaceError as error:
            return Reject(self._reply(message, str(error)), 550, "5.6.0")
        self._sources.remove_from(message)
        if self.config.only_with_header is not None:
            message.headers.delete(self.config.only_with_header)
        return None

    def _variant(self, message: Message, recipient: Recipient) -> Variant | None:
        campaign = message.notes.get("campaign", "")
        for experiment in self._experiments:
            if experiment.concerns(campaign):
                variant = experiment.choose(recipient.address)
                recipient.notes["variant"] = variant.name
                return variant
        return None

    def _places(self, message: Message, variant: Variant | None) -> list[Place]:
        names = self.config.headers
        places: list[Place] = []
        if variant is not None and variant.subject is not None:
            places.append(new_subject(message, variant.subject))
            names = tuple(name for name in names if name.lower() != "subject")
        places += in_headers(message, names, self._delimiters)
        parts, locked = in_parts(message, self._delimiters)
        if locked and self._last_locked != message.id:
            # Once for all recipients.
            self._last_locked = message.id
            self._log.info(
                "%s: left as it is, for it is signed, encrypted or cannot be read: %s",
                message.id,
                ", ".join(locked),
            )
        return places + parts

    async def _values(
        self, message: Message, recipient: Recipient, variant: Variant | None
    ) -> dict[str, Any]:
        values = await self._sources.values(message, recipient)
        if variant is not None:
            values = merge(values, variant.values)
        now = datetime.fromtimestamp(self._clock(), self._timezone)
        local_part = recipient.address.rpartition("@")[0] or recipient.address
        always = {
            "recipient": {
                "address": recipient.address,
                "local_part": local_part,
                "domain": recipient.domain,
            },
            "message": {"id": message.id, "sender": message.sender},
            "campaign": message.notes.get("campaign", ""),
            "stream": message.stream,
            "variant": "" if variant is None else variant.name,
            "now": now,
            "today": now.date(),
        }
        return merge(values, always)

    def _fill(self, places: list[Place], values: dict[str, Any]) -> None:
        """Fills all templates, or none if one of them cannot be.

        Raises:
            _PlaceError: one cannot.
        """
        localization = self._localization
        if isinstance(values.get("locale"), str):
            localization = self._localization_of(values["locale"])
        steps = self.config.max_steps
        filled = []
        for place in places:
            rendering = Rendering(
                values,
                localization,
                policy=self._policy,
                autoescape=place.kind == "html",
                steps=steps,
                size=_LONGEST_HEADER if place.kind == "header" else self.config.max_output,
            )
            filled.append((place, self._spans(place, rendering)))
            steps = rendering.steps
        for place, spans in filled:
            try:
                place.write(spans)
            except ValueError as error:
                raise _PlaceError(f"{place.name}: {error}") from None

    def _spans(self, place: Place, rendering: Rendering) -> list[Span]:
        try:
            make = self._kept_template if len(place.text) <= _LARGEST_KEPT else self._compiled
            return make(place.text, place.kind).fill(rendering)
        except TemplateError as error:
            line, column = line_and_column(place.text, error.offset)
            raise _PlaceError(f"{place.name}, line {line}, column {column}: {error}") from None

    def _compiled(self, text: str, kind: Kind) -> Template:
        return Template(text, kind, self._syntax, allow_html=self.config.allow_html)

    def _localized(self, locale: str) -> Localization:
        """That of a recipient's language, or ours where there is none of that name."""
        try:
            return Localization(locale, self._timezone, self.config.currency)
        except ValueError:
            return self._localization

    def _reply(self, message: Message, text: str) -> str:
        """A text that a reply may have: one short line, ASCII without SMTPUTF8 (RFC 6531)."""
        text = "".join(character if character.isprintable() else " " for character in text)
        if not text.isascii() and not message.smtputf8:
            self._log.info("%s: %s", message.id, text)
            text = text.encode("ascii", "backslashreplace").decode()
        return text[:_LONGEST_REPLY]


class _PlaceError(ValueError):
    """A template that cannot be filled. The text says where and why."""


def _experiment(campaign: str, variants: dict[str, VariantConfig]) -> Experiment:
    weights = {}
    for name, config in variants.items():
        values = {key: value for key, value in config.values.items() if key != "subject"}
        weights[Variant(name, values, config.values.get("subject"))] = config.weight
    return Experiment(campaign, weights)
