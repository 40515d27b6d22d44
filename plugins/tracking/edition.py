"""One recipient's edition of a message: all URLs that are made for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from plugins.tracking.keys import Sealer
from plugins.tracking.token import Kind


class Edition:
    """The URLs of one recipient's copy of a message.

    Args:
        base_url: where they lead, without a slash at the end.
        sealer: makes their tokens.
        fields: what stands for `{campaign}`, `{stream}` and `{variant}` in parameters.
        untracked: URLs that clicks must lead to directly.
    """

    def __init__(
        self,
        base_url: str,
        sealer: Sealer,
        fields: Mapping[str, str],
        untracked: frozenset[str] = frozenset(),
    ) -> None:
        self.base_url = base_url
        self.fields = fields
        self.untracked = untracked
        self._sealer = sealer
        self._clicks: dict[tuple[str, str], str | None] = {}

    def click(self, url: str, link: str) -> str | None:
        """The URL that notes a click and leads on; None if it would be too long."""
        key = url, link
        try:
            return self._clicks[key]
        except KeyError:
            pass
        try:
            clicked = f"{self.base_url}/c/{self._sealer.seal(Kind.CLICK, url, link)}"
        except ValueError:
            clicked = None
        self._clicks[key] = clicked
        return clicked

    @property
    def opened(self) -> str:
        """The URL of the image that notes that the message is opened."""
        return f"{self.base_url}/o/{self._sealer.seal(Kind.OPEN)}"

    @cached_property
    def unsubscribe_token(self) -> str:
        """The token of `unsubscribe`."""
        return self._sealer.seal(Kind.UNSUBSCRIBE)

    @property
    def unsubscribe(self) -> str:
        """The URL to unsubscribe at."""
        return f"{self.base_url}/u/{self.unsubscribe_token}"
