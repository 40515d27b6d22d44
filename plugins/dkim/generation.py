"""New keys: names and files that are not taken yet."""

from __future__ import annotations

import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from plugins.dkim.key import KeyType, new_private_key, write_private_key


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be made.

    Attributes:
        type: RSA or Ed25519.
        domain, selector: what it signs for, and its name.
        file: where it is stored.
    """

    type: KeyType
    domain: str
    selector: str
    file: Path

    def write(self, bits: int) -> None:
        """Makes the key; `bits` is the size of an RSA key.

        Raises:
            FileExistsError: the file is there already.
            OSError: it cannot be written.
        """
        write_private_key(self.file, new_private_key(self.type, bits))


def new_keys(
    folder: Path, domain: str, selector: str, types: Sequence[KeyType], taken: Collection[str]
) -> list[NewKey]:
    """The keys to be made, one of each type; selectors name all types but the first.

    Args:
        folder: where keys are stored, each in a folder of its domain.
        domain: what they are for.
        selector: their name.
        types: at least one.
        taken: the selectors that the domain has.

    Raises:
        ValueError: a selector or a file is there already.
    """
    keys = []
    for number, kind in enumerate(types):
        name = f"{selector}-{kind}" if number else selector
        keys.append(NewKey(kind, domain, name, folder / domain / f"{name}.pem"))
    for key in keys:
        if key.selector in taken:
            raise ValueError(f"{domain} has a key {key.selector} already; choose another selector")
        if key.file.exists():
            raise ValueError(f"{key.file} is there already; choose another selector")
    return keys


def dated_keys(
    folder: Path, domain: str, day: datetime, types: Sequence[KeyType], taken: Collection[str]
) -> list[NewKey]:
    """As `new_keys`, under a selector of year, month and the first letter that is free.

    Raises:
        ValueError: there is none.
    """
    month = day.strftime("%Y%m")
    for letter in string.ascii_lowercase:
        try:
            return new_keys(folder, domain, month + letter, types, taken)
        except ValueError:
            continue
    raise ValueError(f"{domain} has keys {month}a to {month}z already; name a selector")
