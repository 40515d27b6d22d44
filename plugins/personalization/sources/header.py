"""Values in a header field of the message itself, as JSON."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from gateway.hooks import Context, Headers, Message, Recipient
from plugins.personalization.sources.address import ByAddress
from plugins.personalization.sources.config import HeaderConfig
from plugins.personalization.sources.source import SourceError, Values
from plugins.personalization.sources.values import check, merge, read_json

_WORTH_KEEPING = 1024
"""Octets from which on a field that was read is kept for the next recipient."""
_MOST_KEPT = 4 << 20
"""Octets of all headers that are kept."""


class MergeData(NamedTuple):
    """What the fields of one message say: `common` for everyone, `own` for one recipient each."""

    common: Values
    own: ByAddress[dict[str, Any]]

    def of(self, address: str) -> Values | None:
        """The values of a recipient, None if nothing is said of it."""
        own = self.own.get(address)
        if own is None:
            return self.common or None
        return merge(self.common, own) if self.common else own


@dataclass(frozen=True, slots=True)
class _Kept:
    """The fields of one message, its whole header, and what they say."""

    header: bytes
    fields: list[bytes]
    data: MergeData

    @property
    def size(self) -> int:
        return len(self.header)


class HeaderSource:
    """Reads one header field, which the hook then removes from each copy of the message.

    Attributes:
        headers_to_remove: the fields that must not go out.
    """

    def __init__(self, config: HeaderConfig) -> None:
        self._name = config.name
        self._size = config.size
        self.headers_to_remove: tuple[str, ...] = (config.name,)
        # A message of many recipients comes once for each of them, with the same header.
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_size = 0

    async def start(self, context: Context) -> None:
        """Nothing is to be opened."""

    async def stop(self) -> None:
        """Forgets what it has read."""
        self._kept.clear()
        self._kept_size = 0

    async def values(self, message: Message, recipient: Recipient) -> Values | None:
        """What the message's fields say about a recipient.

        Raises:
            SourceError: they are not what they should be; permanent.
        """
        kept = self._kept.get(message.id)
        if kept is not None and kept.header is message.headers.raw:
            return kept.data.of(recipient.address)
        fields = [field.body for field in message.headers.fields(self._name)]
        if not fields:
            return None
        if kept is not None and kept.fields == fields:
            return kept.data.of(recipient.address)
        size = sum(map(len, fields))
        if size > self._size:
            self._refuse(f"is larger than {self._size} octets")
        data = self._read(fields)
        if size >= _WORTH_KEEPING:
            self._keep(message.id, _Kept(message.headers.raw, fields, data))
        return data.of(recipient.address)

    def _keep(self, message_id: str, kept: _Kept) -> None:
        before = self._kept.pop(message_id, None)
        self._kept[message_id] = kept
        self._kept_size += kept.size - (0 if before is None else before.size)
        while self._kept_size > _MOST_KEPT and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._kept_size -= oldest.size

    def _read(self, fields: list[bytes]) -> MergeData:
        common: dict[str, Any] = {}
        own: list[tuple[str, dict[str, Any]]] = []
        for field in fields:
            data = self._parse(field)
            if "*" not in data and "@" not in "".join(data):
                common = merge(common, self._checked(data))
                continue
            for key, values in data.items():
                if key == "*":
                    common = merge(common, self._checked(values))
                elif "@" in key:
                    own.append((key, self._checked(values)))
                else:
                    self._refuse(
                        "mixes recipients with values: expected only addresses and * as keys"
                    )
        return MergeData(common, ByAddress(own, merge))

    def _parse(self, field: bytes) -> dict[str, Any]:
        """The JSON object in a field, whether its text is encoded as RFC 2047 says or not."""
        try:
            # What is JSON as it stands is read so: else a customer whose name is an encoded word
            # with quotes inside could write into the object around it.
            data = _load(field.replace(b"\r\n\t", b" ").replace(b"\r\n", b"").decode().strip())
        except ValueError as error:
            complaint = error
            try:
                data = _load(_decoded(field))
            except ValueError as other:
                if b"=?" in field or isinstance(error, UnicodeDecodeError):
                    complaint = other
                place = ""
                if isinstance(complaint, json.JSONDecodeError):
                    place = f" at character {complaint.pos + 1}"
                    complaint = ValueError(complaint.msg)
                self._refuse(f"is not JSON: {complaint}{place}")
        if not isinstance(data, dict):
            self._refuse("is not a JSON object: expected {...}")
        return data

    def _checked(self, values: Any) -> dict[str, Any]:
        try:
            return check(values, self._size)
        except ValueError as error:
            self._refuse(str(error))

    def _refuse(self, what: str) -> NoReturn:
        raise SourceError(f"{self._name} {what}", temporary=False) from None


def _decoded(text: bytes) -> str:
    """The text of a header field's body."""
    return Headers(b"X:" + text + b"\r\n").get("X", "")


def _load(text: str) -> Any:
    """Reads JSON (RFC 8259), and the encoded words that a mailer made of words in its texts.

    Raises:
        ValueError: it is none.
    """
    data = read_json(text)
    try:
        return _decode_words(data) if "=?" in text else data
    except RecursionError:
        raise ValueError("too many lists and mappings inside of each other") from None


def _decode_words(value: Any) -> Any:
    if isinstance(value, str):
        # No mailer encodes a text with line ends in it, and here they would end the field.
        if "=?" not in value or not value.isprintable():
            return value
        return _decoded(value.encode(errors="replace"))
    if isinstance(value, list):
        return [_decode_words(inner) for inner in value]
    if isinstance(value, dict):
        return {_decode_words(key): _decode_words(inner) for key, inner in value.items()}
    return value
