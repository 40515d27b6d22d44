"""Where templates stand in a message: header fields and text parts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from gateway.hooks import Message
from plugins.personalization.syntax import Delimiters
from plugins.personalization.template import Kind, Span

# Text that is not in the message as it is read.
_ENCODED = (b"quoted-printable", b"base64", b"utf-7")


class Place(NamedTuple):
    """A text in the message with a template in it.

    Attributes:
        name: what a person calls it: `Subject`, or `text/html`.
        write: puts something else into stretches of it. Raises ValueError if that cannot be.
    """

    name: str
    kind: Kind
    text: str
    write: Callable[[list[Span]], None]


def in_headers(message: Message, names: Iterable[str], delimiters: Delimiters) -> list[Place]:
    """The header fields of these names that have templates in them."""
    found: list[Place] = []
    for name in names:
        for index, value in enumerate(message.headers.get_all(name)):
            if delimiters.are_in(value):
                write = partial(_replace_in_header, message, name, index)
                found.append(Place(name, "header", value, write))
    return found


def _replace_in_header(message: Message, name: str, index: int, spans: list[Span]) -> None:
    message.headers.replace(name, spans, index)


def new_subject(message: Message, new: str) -> Place:
    """The Subject as `new` will have it, which takes the place of the one that is there."""

    def write(spans: list[Span]) -> None:
        text = applied(new, spans)
        old = message.headers.get("Subject")
        if old is None:
            message.headers.add("Subject", text)
        else:
            message.headers.replace("Subject", [(0, len(old), text)])

    return Place("Subject", "header", new, write)


def applied(text: str, spans: list[Span]) -> str:
    """A text with stretches of it replaced; they are in order."""
    pieces: list[str] = []
    done = 0
    for start, end, new in spans:
        pieces += text[done:start], new
        done = end
    return "".join((*pieces, text[done:]))


def in_parts(message: Message, delimiters: Delimiters) -> tuple[list[Place], list[str]]:
    """The text parts that have templates in them, and the types of those that must stay as is."""
    found: list[Place] = []
    locked: list[str] = []
    if not _may_have(message.content, delimiters):
        return found, locked
    seen: dict[str, int] = {}
    for part in message.text_parts():
        number = seen[part.content_type] = seen.get(part.content_type, 0) + 1
        if not delimiters.are_in(part.text):
            continue
        name = part.content_type if number == 1 else f"{part.content_type} ({number})"
        if not part.editable:
            locked.append(name)
            continue
        kind: Kind = "html" if part.content_type == "text/html" else "text"
        found.append(Place(name, kind, part.text, part.replace))
    return found, locked


def _may_have(content: bytes, delimiters: Delimiters) -> bool:
    """Whether a part may have a template in it; a quick look without reading its structure."""
    for opening in delimiters.openings:
        if not opening.isascii() or opening.encode() in content:
            return True
    lowered = content.lower()
    return any(word in lowered for word in _ENCODED)
