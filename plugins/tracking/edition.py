"""One recipient's edition of a message: all URLs that are made for it."""

from __future__ import annotations

from collections.abc import Mapping

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
        self._unsubscribe_token: str | None = None

    def click(self, url: str, link: str) -> str | None:
        """The URL that notes a click and leads on; None if it would be too long."""
        key = url, link
        if key in self._clicks:
            return self._clicks[key]
        clicked: str | None
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

    @property
    def unsubscribe_token(self) -> str:
        """The token of `unsubscribe`."""
        token = self._unsubscribe_token
        if token is None:
            token = self._unsubscribe_token = self._sealer.seal(Kind.UNSUBSCRIBE)
        return token

    @property
    def unsubscribe(self) -> str:
        """The URL to unsubscribe at."""
        return f"{self.base_url}/u/{self.unsubscribe_token}"
