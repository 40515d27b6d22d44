"""Which of the entries that name an address decides. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from plugins.suppression.entry import REASONS, format_scope

_RANK: dict[str, int] = {reason: rank for rank, reason in enumerate(REASONS)}


class Match(NamedTuple):
    """An entry that names an address, in a scope that the mail is in."""

    address: str
    scope: str
    reason: str

    def explained(self, address: str) -> str:
        """Why that normal address gets no mail, such as `manual: everywhere, @example.org`."""
        text = f"{self.reason}: {format_scope(self.scope)}"
        return text if self.address == address else f"{text}, {self.address}"


def decisive(
    matches: Iterable[Match], stream: str | None, exempt: Mapping[str, Sequence[str]]
) -> Match | None:
    """The entry that decides, by the order of `REASONS`; None: mail may go.

    Args:
        matches: what names the address.
        stream: the stream of the mail; None if it is not known yet. Then reasons that it could be
            exempt from are left for later.
        exempt: the streams to which entries of a reason do not apply.
    """
    applying = [match for match in matches if _applies(match, stream, exempt)]
    return min(applying, key=lambda match: _RANK[match.reason], default=None)


def _applies(match: Match, stream: str | None, exempt: Mapping[str, Sequence[str]]) -> bool:
    if stream is None:
        return match.reason not in exempt
    return stream not in exempt.get(match.reason, ())
