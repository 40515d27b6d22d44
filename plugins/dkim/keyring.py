"""Which keys sign for a domain at a time. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from plugins.dkim.signature import Signer
from plugins.dkim.validity import Validity

ANY = "*"
"""The pattern that every domain matches; `*.example.com` is matched by each below that."""

_DOMAINS_IN_CACHE = 4096


@dataclass(frozen=True, slots=True)
class Grant:
    """A key, and what it signs for.

    Attributes:
        pattern: a domain, `*.` before one for all below it, or `*`.
        subdomains: the key of a domain signs for those below it too.
        validity: when it does.
        signer: makes the signer for a domain (the tag `d=`).
    """

    pattern: str
    subdomains: bool
    validity: Validity
    signer: Callable[[str], Signer]


class Period:
    """What holds from one change of keys to the next. Safe in several threads.

    Attributes:
        start, end: when it begins, and when the next one does, in seconds since the epoch.
    """

    def __init__(self, validity: Validity, grants: Iterable[Grant]) -> None:
        self.start, self.end = validity.start, validity.end
        self._exact: dict[str, list[Signer]] = {}
        self._below: dict[str, list[Callable[[str], Signer]]] = {}
        for grant in grants:
            if grant.pattern.startswith(ANY):
                parent = grant.pattern[2:]
                self._below.setdefault(parent, []).append(grant.signer)
                continue
            signer = grant.signer(grant.pattern)
            self._exact.setdefault(grant.pattern, []).append(signer)
            if grant.subdomains:
                self._below.setdefault(grant.pattern, []).append(partial(_same, signer))
        self._found = lru_cache(maxsize=_DOMAINS_IN_CACHE)(self._find)

    def signers(self, domain: str) -> Sequence[Signer]:
        """The signers for a domain; none if no key is for it.

        Its own keys; without any, those of the nearest parent that signs for what is below it.
        The same signer for the same question, unless there were thousands of others meanwhile.
        """
        return self._exact.get(domain) or self._found(domain)

    def _find(self, domain: str) -> list[Signer]:
        parent = domain
        while parent:
            parent = parent.partition(".")[2]
            if parent in self._below:
                return [signer(domain) for signer in self._below[parent]]
        return []


def _same(signer: Signer, _: str) -> Signer:
    return signer


class Keyring:
    """All keys, at all times."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = tuple(grants)
        self._changes = sorted(
            {
                instant
                for grant in self._grants
                for instant in (grant.validity.start, grant.validity.end)
                if math.isfinite(instant)
            }
        )

    def period(self, now: float) -> Period:
        """The keys that are valid now, and until when that stays so."""
        start = max((instant for instant in self._changes if instant <= now), default=-math.inf)
        end = min((instant for instant in self._changes if instant > now), default=math.inf)
        return Period(
            Validity(start, end), [grant for grant in self._grants if now in grant.validity]
        )
