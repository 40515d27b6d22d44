"""What is rewritten in the text of a message: spans to replace."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache
from html import unescape
from typing import NamedTuple

from plugins.tracking import attribute, parameters, pixel, text_links
from plugins.tracking.config import TrackingConfig, host_pattern
from plugins.tracking.edition import Edition
from plugins.tracking.links import Link, scan
from plugins.tracking.parameters import Parameters
from plugins.tracking.placeholder import Placeholder
from plugins.tracking.target import Target, resolve

Span = tuple[int, int, str]
"""Replace `text[start:end]` by new text."""

Place = tuple[int, int, Target, str]
"""A link that may be rewritten: where its URL is, where it leads, and its name."""

_LONGEST_LINK_TEXT = 2000
# What is longer is not remembered.
_LONGEST_KNOWN = 2000
_LONGEST_HOST = 255
_LINK_END = re.compile(r"</a", re.IGNORECASE)
_MARKUP = re.compile(r"<[^>]*+>")
_VISIBLE_URL = re.compile(
    r"(?:https?://)?([a-z0-9-]++(?:\.[a-z0-9-]++)+)(?::[0-9]++)?(?:[/?#]\S*+)?"
)


class Page(NamedTuple):
    """What there is to rewrite in HTML.

    Attributes:
        places: the links.
        placeholders: where the placeholder to unsubscribe stands; in no link.
        image: where the image may be added.
    """

    places: list[Place]
    placeholders: list[tuple[int, int]]
    image: int | None


class Policy(NamedTuple):
    """What is done with the links to a host."""

    tracked: bool
    parameters: bool


class Rewriter:
    """Finds what to replace, as a configuration says."""

    def __init__(self, config: TrackingConfig) -> None:
        self._config = config
        self._parameters = Parameters(config.parameters)
        self._rewrites = config.clicks or bool(self._parameters)
        self._own_urls = tuple([f"{url}/".lower() for url in config.base_urls])
        self._only = host_pattern(config.only_hosts)
        self._excluded = host_pattern(config.exclude_hosts)
        self._with_parameters = host_pattern(config.parameter_hosts)
        # Mail of a campaign leads to few places.
        self._policy = lru_cache(maxsize=4096)(self._decide)
        self._known_target = lru_cache(maxsize=4096)(self._target)
        self._placeholder = Placeholder(config.unsubscribe.placeholder)
        # The HTML that was read last. Copies for several recipients have the same, unless a
        # plugin before this one has made it different.
        self._last: tuple[str, Page] | None = None

    def html(self, text: str, edition: Edition, *, utf8: bool, opens: bool) -> list[Span]:
        """What to replace in HTML.

        Args:
            text: the HTML.
            edition: makes the URLs.
            utf8: whether it is in UTF-8 or ASCII.
            opens: whether to add the image.
        """
        if self._last is None or self._last[0] is not text:
            self._last = text, self._read(text, utf8)
        page = self._last[1]
        spans = [(start, end, edition.unsubscribe) for start, end in page.placeholders]
        spans += self._rewritten(page.places, edition, html=True)
        if opens and page.image is not None and f"{edition.base_url}/o/" not in text:
            spans.append((page.image, page.image, pixel.image(edition.opened)))
        return spans

    def plain(self, text: str, edition: Edition, *, delete_space: bool) -> list[Span]:
        """What to replace in plain text; `delete_space` as `text_links.find` has it."""
        placeholders = self._placeholder.find(text)
        spans = [(start, end, edition.unsubscribe) for start, end in placeholders]
        if self._config.text_links and self._rewrites:
            places: list[Place] = []
            for link in text_links.find(text, delete_space=delete_space):
                target = resolve(link.value)
                if target is not None and not self._is_own(target):
                    places.append((link.start, link.end, target, ""))
            spans += self._rewritten(_outside(places, placeholders), edition, html=False)
        return spans

    def _read(self, html: str, utf8: bool) -> Page:
        placeholders = self._placeholder.find(html)
        if not (self._rewrites or self._config.opens):
            return Page([], placeholders, None)
        found = scan(html)
        places = self._places(html, found.links, utf8) if self._rewrites else []
        return Page(_outside(places, placeholders), placeholders, pixel.place(html, found))

    def _places(self, html: str, links: Iterable[Link], utf8: bool) -> list[Place]:
        keep_visible = self._config.keep_visible_urls
        places: list[Place] = []
        for start, end, raw, name, tracked, text in links:
            if not tracked:
                continue
            read = self._known_target if len(raw) <= _LONGEST_KNOWN else self._target
            target = read(raw, utf8)
            if target is None or (keep_visible and _shows(html, text, target.host)):
                continue
            places.append((start, end, target, name))
        return places

    def _target(self, raw: str, utf8: bool) -> Target | None:
        """Where a link in HTML leads; None if it stays as it is, as do those to the gateway."""
        target = resolve(attribute.decode(raw), utf8=utf8)
        return None if target is None or self._is_own(target) else target

    def _is_own(self, target: Target) -> bool:
        return target.url.lower().startswith(self._own_urls)

    def _rewritten(self, places: Iterable[Place], edition: Edition, *, html: bool) -> list[Span]:
        spans = []
        extra = self._parameters
        pairs = extra.fill(edition.fields) if extra else ()
        for start, end, (url, host), name in places:
            policy = self._policy if len(host) <= _LONGEST_HOST else self._decide
            tracked, with_parameters = policy(host)
            if url in edition.untracked or not (tracked or with_parameters):
                continue
            new = url
            if with_parameters:
                if extra.by_link:
                    pairs = extra.fill({**edition.fields, "link": name})
                new = parameters.add(url, pairs)
            if tracked:
                clicked = edition.click(new, name)
                if clicked is not None:
                    spans.append((start, end, clicked))
            elif new != url:
                spans.append((start, end, attribute.encode(new) if html else new))
        return spans

    def _decide(self, host: str) -> Policy:
        config = self._config
        if self._excluded.fullmatch(host) is not None:
            return Policy(tracked=False, parameters=False)
        if config.only_hosts and self._only.fullmatch(host) is None:
            return Policy(tracked=False, parameters=False)
        everywhere = not config.parameter_hosts
        added = everywhere or self._with_parameters.fullmatch(host) is not None
        return Policy(config.clicks, bool(self._parameters) and added)


def _outside(places: list[Place], spans: Sequence[tuple[int, int]]) -> list[Place]:
    """The links that share no character with any span; both are in order."""
    if not spans:
        return places
    starts = [start for start, _ in spans]
    outside = []
    for place in places:
        before = bisect_left(starts, place[1]) - 1
        if before < 0 or spans[before][1] <= place[0]:
            outside.append(place)
    return outside


def _shows(html: str, start: int, host: str) -> bool:
    """Whether the text of a link is a URL of the host that it leads to."""
    end = _LINK_END.search(html, start, start + _LONGEST_LINK_TEXT)
    if end is None:
        return False
    text = unescape(_MARKUP.sub("", html[start : end.start()])).strip().lower()
    match = _VISIBLE_URL.fullmatch(text)
    return match is not None and match[1].removeprefix("www.") == host.removeprefix("www.")
