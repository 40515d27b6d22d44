"""Lists of `tag=value`, as in signatures and key records (RFC 6376 3.2). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
_WHITE_SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Tag:
    """The value of a tag, without the white space around it, and which octets it has with it."""

    value: bytes
    start: int
    end: int


def parse_tags(text: bytes) -> dict[str, Tag]:
    """Takes a list apart, in its order.

    Raises:
        ValueError: it is no such list, or names a tag twice. The text is made of ours alone.
    """
    tags: dict[str, Tag] = {}
    start = 0
    for spec in text.split(b";"):
        end = start + len(spec)
        name, equals, value = spec.partition(b"=")
        name = name.strip(_WHITE_SPACE)
        if not equals and not name and end == len(text) and tags:
            break  # the semicolon after the last
        if not equals or not _NAME.fullmatch(name):
            raise ValueError("no list of tag=value")
        if name.decode() in tags:
            raise ValueError(f"the tag {name.decode()}= is there twice")
        tags[name.decode()] = Tag(value.strip(_WHITE_SPACE), end - len(value), end)
        start = end + 1
    return tags


def words(value: bytes) -> list[bytes]:
    """The parts of a value that is a list with colons, without the white space around each."""
    return [word.strip(_WHITE_SPACE) for word in value.split(b":")]
