"""What the tests of the hook share: a plugin, messages, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.hooks import Client, Message, Reject
from plugins.personalization import Personalization, PersonalizationConfig

TARO = {"name": "Taro", "order": {"number": "A-1", "total": "1234.50"}}


def plugin(base: Path | None = None, **config: Any) -> Personalization:
    config = {"sources": [{"header": {}}]} | config
    return Personalization(PersonalizationConfig.model_validate(config, context={"base": base}))


def message(content: bytes, values: Any = TARO, address: str = "taro@example.net") -> Message:
    """A message with values for its only recipient."""
    made = Message("ID1", "shop@example.com", Client("127.0.0.1"), "bulk")
    head = b"" if values is None else b"X-Merge-Data: " + json.dumps(values).encode() + b"\r\n"
    made.content = head + content
    made.add_recipient(address)
    return made


async def filled(content: bytes, values: Any = TARO, **config: Any) -> bytes:
    """What becomes of a message."""
    made = message(content, values)
    assert await plugin(**config).message(made) is None
    return made.content


async def refused(content: bytes, values: Any = TARO, **config: Any) -> str:
    """The reply to a message that is refused for good."""
    answer = await plugin(**config).message(message(content, values))
    assert isinstance(answer, Reject)
    return f"{answer.code} {answer.status} {answer.text}"


def text(body: str, subject: str = "Hello") -> bytes:
    return f"Subject: {subject}\n\n{body}\n".replace("\n", "\r\n").encode()
