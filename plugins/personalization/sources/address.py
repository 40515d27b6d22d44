"""Addresses as keys: the domain compares in any case, and so does the local part where it must.

Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from gateway.hooks import Recipient

_ESCAPED = re.compile(r"\\(.)")

T = TypeVar("T")


def exact(address: str) -> str:
    """An address with its domain in lower case and A-labels, and its local part as it is.

    Quotes that change nothing are left out: `"taro"@example.com` is `taro@example.com`.
    """
    local, at, domain = address.rpartition("@")
    if not domain.isascii():
        domain = Recipient(address).domain
    if local.startswith('"') and local.endswith('"') and len(local) > 1:
        local = _ESCAPED.sub(r"\1", local[1:-1])
    return f"{local}{at}{domain.lower()}"


def folded(address: str) -> str:
    """As `exact`, and the local part caseless and with composed letters (NFC)."""
    if address.isascii():
        return (exact(address) if '"' in address else address).lower()
    plain = exact(address)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", plain).casefold())


class ByAddress(Generic[T]):
    """Things by address: one whose address has the same case is found before one that has not.

    Args:
        join: makes one of two with the same address; the last counts, if left out.
    """

    def __init__(
        self, items: Iterable[tuple[str, T]], join: Callable[[T, T], T] | None = None
    ) -> None:
        self._exact: dict[str, T] = {}
        for address, value in items:
            key = exact(address)
            if join is not None and key in self._exact:
                self._exact[key] = join(self._exact[key], value)
            else:
                self._exact[key] = value
        self._folded = {folded(key): value for key, value in self._exact.items()}

    def __len__(self) -> int:
        return len(self._exact)

    def get(self, address: str) -> T | None:
        """What belongs to an address, or None."""
        if not self._exact:
            return None
        found = self._exact.get(exact(address))
        return found if found is not None else self._folded.get(folded(address))
