"""Messages to begin with: those of the kit, and real ones of the folder named by MAIL_CORPUS."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gateway.testing.corpus import samples

_LARGEST = 1 << 15


def messages() -> list[bytes]:
    """Messages of every shape, with CRLF; those over 32 KiB are cut."""
    return [sample.content[:_LARGEST] for sample in samples()] + real_messages()


def real_messages() -> list[bytes]:
    """Real messages, with CRLF and as they are in their files; none without MAIL_CORPUS."""
    folder = os.environ.get("MAIL_CORPUS")
    found: dict[bytes, None] = {}
    for path in sorted(Path(folder).rglob("*")) if folder else ():
        if path.is_file() and path.suffix != ".md":
            content = path.read_bytes()[:_LARGEST]
            found[content] = None
            found[re.sub(rb"\r?\n", b"\r\n", content)] = None
    return list(found)


def bodies(content_type: bytes) -> list[bytes]:
    """The texts of messages that have parts of a type, from where the type is named."""
    found = []
    for content in messages():
        place = content.lower().find(content_type)
        if place >= 0:
            found.append(content[place:])
    return found
