"""Patterns of addresses, in which `*` stands for any text. Pure."""

from __future__ import annotations

from plugins.suppression.address import Target


class Pattern:
    """A normal pattern such as `info@*` or `*@*.example.com`, ready to be compared.

    The asterisk does not reach over the `@`. No pattern, however odd, takes long: pieces are
    looked for from left to right, and no step is ever taken back.
    """

    __slots__ = ("_domain", "_local", "text")

    def __init__(self, text: str) -> None:
        local, _, domain = text.rpartition("@")
        self.text = text
        self._local = local.split("*")
        self._domain = domain.split("*")

    def names(self, target: Target) -> bool:
        """Whether it names an address, as it is or without what makes no difference."""
        if not fits(self._domain, target.domain):
            return False
        if fits(self._local, target.local):
            return True
        reduced = target.reduced
        return reduced != target.address and fits(self._local, reduced.rpartition("@")[0])


def fits(pieces: list[str], text: str) -> bool:
    """Whether a text is these pieces, in this order, with any text between two of them."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return text == first
    end = len(text) - len(last)
    if end < len(first) or not text.startswith(first) or not text.endswith(last):
        return False
    position = len(first)
    for piece in pieces[1:-1]:
        position = text.find(piece, position, end)
        if position < 0:
            return False
        position += len(piece)
    return True
