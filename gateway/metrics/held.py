"""What holds mail, as `/metrics` tells it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from gateway.spool.held_reason import BY_HAND, DAMAGED, DIED, PAUSED, SALVAGED

BEGINNINGS = {
    "damaged": DAMAGED,
    "crash": DIED,
    "salvaged": SALVAGED,
    "paused": PAUSED,
    "hand": BY_HAND,
}
"""How the reasons begin that the gateway itself gives, by what holds mail for them."""

QUARANTINED = "quarantined"
"""What holds mail for any other reason: a plugin."""


def by_holder(reasons: Mapping[str, int]) -> Counter[str]:
    """How many recipients each of them holds; 0 too. `reasons`: how many are held for each."""
    counts = Counter(dict.fromkeys((*BEGINNINGS, QUARANTINED), 0))
    for reason, count in reasons.items():
        counts[_holder(reason)] += count
    return counts


def _holder(reason: str) -> str:
    for holder, beginning in BEGINNINGS.items():
        if reason.startswith(beginning):
            return holder
    return QUARANTINED
