"""A tracking plugin that has started, messages for it, and what their readers' programs see."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from gateway.hooks import Client, Context, Event, Message, Resolver
from gateway.limits import Limits
from plugins.tracking import Tracking, TrackingConfig
from plugins.tracking.keys import Keyring
from plugins.tracking.token import Kind, Token

BASE = "https://t.example.com"
SENDER = "bounces@shop.example.com"
RECIPIENT = "taro@example.net"
NOW = 1_790_000_000.0


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def _emit(event: Event) -> asyncio.Future[None]:
    raise AssertionError(f"nothing emits events here: {event}")


def make_context(folder: Path, clock: Callable[[], float] = lambda: NOW) -> Context:
    return Context(
        name="tracking",
        hostname="gw.example.com",
        role="worker",
        folder=folder / "data",
        base=folder,
        clock=clock,
        log=logging.getLogger("gateway.plugin.tracking"),
        resolver=Resolver(["127.0.0.1:1"], 1.0),
        limits=Limits(folder / "limits"),
        emit=_emit,
    )


@dataclass
class Site:
    """A plugin with its keys.

    Attributes:
        folder: where its files are.
        config: what is set besides `base_url`.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = {"base_url": BASE, **self.config}
        self.plugin = Tracking(
            TrackingConfig.model_validate(settings, context={"base": self.folder})
        )
        self.plugin.start(make_context(self.folder))
        self.keyring = Keyring(
            self.plugin.config.keys or self.folder / "data" / "keys.json", lambda: NOW
        )

    def token(self, url: str, kind: Kind = Kind.CLICK, base: str = BASE) -> Token:
        """What a URL that the plugin made says."""
        letter = {Kind.CLICK: "c", Kind.OPEN: "o", Kind.UNSUBSCRIBE: "u"}[kind]
        start = f"{base}/{letter}/"
        assert url.startswith(start), url
        token = self.keyring.open(url.removeprefix(start), kind)
        assert token is not None, url
        return token

    def is_tracked(self, url: str) -> bool:
        return url.startswith(f"{BASE}/c/")

    def rewritten(self, html: str) -> str:
        """HTML as it is after the plugin."""
        message = html_message(html)
        self.plugin.message(message)
        return message.text_parts("text/html")[0].text

    def hrefs(self, html: str) -> list[str]:
        """Where the links of HTML lead after the plugin, tracked ones as `-> URL`."""
        return [
            f"-> {self.token(url).url}" if self.is_tracked(url) else url
            for url in hrefs(self.rewritten(html))
        ]


def make_message(
    content: bytes,
    recipient: str = RECIPIENT,
    sender: str = SENDER,
    notes: dict[str, str] | None = None,
) -> Message:
    message = Message("0H3K5M7P9R1T3", sender, Client("127.0.0.1"), "bulk")
    message.content = content
    message.add_recipient(recipient)
    message.notes.update(notes or {})
    return message


def html_message(html: str, charset: str = "utf-8", extra: str = "") -> Message:
    header = (
        f"From: Shop <news@shop.example.com>\r\nSubject: Sale\r\n{extra}MIME-Version: 1.0\r\n"
        f"Content-Type: text/html; charset={charset}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )
    body = html.replace("\r\n", "\n").replace("\n", "\r\n").encode(charset)
    return make_message(header.encode() + body)


def text_message(text: str, parameters: str = "") -> Message:
    header = (
        "From: Shop <news@shop.example.com>\r\nSubject: Sale\r\nMIME-Version: 1.0\r\n"
        f"Content-Type: text/plain; charset=utf-8{parameters}\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\n"
    )
    return make_message((header + text.replace("\n", "\r\n")).encode())


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes: dict[str, str] = {}
        for name, value in attrs:
            attributes.setdefault(name, value or "")
        self.tags.append((tag, attributes))


def tags(html: str) -> list[tuple[str, dict[str, str]]]:
    """The start tags of HTML with their attributes, as Python's own parser reads them."""
    parser = _Tags()
    parser.feed(html)
    parser.close()
    return parser.tags


def hrefs(html: str) -> list[str]:
    """Where the links of HTML lead."""
    return [found["href"] for tag, found in tags(html) if tag in ("a", "area") and "href" in found]


def images(html: str) -> list[dict[str, str]]:
    """The images of HTML that lead to the gateway."""
    return [
        a for tag, a in tags(html) if tag == "img" and a.get("src", "").startswith(f"{BASE}/o/")
    ]
