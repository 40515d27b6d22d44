"""A value that all processes share, and how a record holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gateway.limits.layout import BODY, CELL_BODY, TEXT_SIZE


@dataclass(frozen=True, slots=True)
class Cell:
    """A value that all processes share, until it expires.

    Attributes:
        key: the name of it. In a list, one longer than 190 octets is shown as it is kept.
        value: any number but NaN.
        expires: seconds since the epoch; infinity: never.
        text: up to 250 octets of UTF-8.
    """

    key: str
    value: float
    expires: float
    text: str = ""

    def pack(self) -> bytes:
        """The body of its record.

        Raises:
            ValueError: the value or the expiry is NaN.
        """
        if math.isnan(self.value) or math.isnan(self.expires):
            raise ValueError(f"{self.key}: {self.value} until {self.expires} cannot be kept")
        text = self.text.encode(errors="backslashreplace")
        return CELL_BODY.pack(self.value, self.expires, len(text)) + text

    @classmethod
    def unpack(cls, key: str, record: bytes) -> Cell:
        """Reads it from its record, the whole of it."""
        value, expires, size = CELL_BODY.unpack_from(record, BODY)
        begin = BODY + CELL_BODY.size
        return cls(key, value, expires, record[begin : begin + size].decode(errors="replace"))


def fitting(text: str) -> str:
    """As much of a text as a cell holds, cut between characters."""
    octets = text.encode(errors="backslashreplace")
    return octets[:TEXT_SIZE].decode(errors="ignore")
