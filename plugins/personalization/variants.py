"""Experiments: which of several variants of a campaign a person gets. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from typing import Any

from plugins.personalization.sources.address import folded


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """One of the variants of an experiment.

    Attributes:
        values: what templates know in this variant besides.
        subject: what takes the place of the Subject, itself perhaps a template; None: nothing.
    """

    name: str
    values: Mapping[str, Any]
    subject: str | None = None


class Experiment:
    """The variants of all campaigns whose names match one glob.

    Args:
        campaign: the glob: `*` is any text, also none, and `?` one character; case is ignored.
        weights: the variants, each with its share.
    """

    def __init__(self, campaign: str, weights: Mapping[Variant, int]) -> None:
        steps = {"*": ".*", "?": "."}
        pattern = "".join(steps.get(letter) or re.escape(letter) for letter in campaign.lower())
        self._matches = re.compile(pattern, re.DOTALL).fullmatch
        self._salt = campaign.encode()
        self._variants = tuple(weights)
        self._ends = tuple(accumulate(weights.values()))

    def concerns(self, campaign: str) -> bool:
        """Whether a campaign is part of the experiment."""
        return self._matches(campaign.lower()) is not None

    def choose(self, address: str) -> Variant:
        """The variant of a person: always the same for the same address.

        The shares are those of the weights. If they change, as few people as possible do.
        """
        person = folded(address).encode(errors="replace")
        digest = blake2b(self._salt + b"\0" + person, digest_size=8).digest()
        place = int.from_bytes(digest) * self._ends[-1] >> 64
        return next(
            variant for variant, end in zip(self._variants, self._ends, strict=True) if place < end
        )
