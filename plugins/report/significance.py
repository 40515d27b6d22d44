"""Whether two rates differ by more than chance. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb, erfc, sqrt
from typing import Literal

LEVEL = 0.05
"""How often variants that are alike may be taken for different."""
FEWEST = 5
"""Expected people on either side below which the normal distribution is no good approximation."""

Verdict = Literal["unlikely chance", "likely chance", "too few"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two variants.

    Attributes:
        better, other: their names, that with the higher rate first.
        better_rate, other_rate: people who clicked, of those to whom mail was delivered.
        probability: how likely such a difference, or a greater one, would be if there was none;
            None where there are too few people to tell.
        verdict: `unlikely chance` at the level of 95 %, for all pairs of a campaign together.
    """

    better: str
    other: str
    better_rate: float
    other_rate: float
    probability: float | None
    verdict: Verdict


def compare(variants: Mapping[str, tuple[int, int]]) -> list[Comparison]:
    """Compares every variant with every other.

    Of many pairs one differs by chance sooner or later, so the more pairs there are, the less
    likely a difference has to be (Bonferroni's correction).

    Args:
        variants: for each name, how many people clicked, of how many.
    """
    known = {
        name: (min(part, whole), whole) for name, (part, whole) in variants.items() if whole > 0
    }
    ordered = sorted(known, key=lambda name: (-known[name][0] / known[name][1], name))
    level = LEVEL / max(1, comb(len(ordered), 2))
    comparisons = []
    for better, other in combinations(ordered, 2):
        probability = two_proportions(*known[better], *known[other])
        verdict: Verdict = "too few"
        if probability is not None:
            verdict = "unlikely chance" if probability < level else "likely chance"
        rate, other_rate = (part / whole for part, whole in (known[better], known[other]))
        comparisons.append(Comparison(better, other, rate, other_rate, probability, verdict))
    return comparisons


def two_proportions(part: int, whole: int, other_part: int, other_whole: int) -> float | None:
    """The two-sided p-value of the two-proportion z-test with a pooled rate.

    None where fewer than `FEWEST` are expected on either side.
    """
    pooled = (part + other_part) / (whole + other_whole)
    if min(whole, other_whole) * min(pooled, 1 - pooled) < FEWEST:
        return None
    error = sqrt(pooled * (1 - pooled) * (1 / whole + 1 / other_whole))
    return erfc(abs(part / whole - other_part / other_whole) / error / sqrt(2))
