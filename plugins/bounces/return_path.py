"""Return paths: where bounces of a message come back to, one for each recipient."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.hooks import Recipient
from plugins.bounces import token
from plugins.bounces.config import BouncesConfig
from plugins.bounces.keys import Keyring
from plugins.bounces.token import FIXED, LONGEST_LOCAL_PART, Token, normal

_MOST_SOUGHT = 50


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """A return path that was made here: all of it, and the token in it."""

    address: str
    token: Token

    @property
    def domain(self) -> str:
        """Its domain, in lower case."""
        return self.address.rpartition("@")[2].lower()


class ReturnPaths:
    """Makes return paths and reads them again.

    Args:
        config: which domains they have.
        keyring: signs them.
    """

    def __init__(self, config: BouncesConfig, keyring: Keyring) -> None:
        self._keyring = keyring
        self._domains = config.bounce_domains
        self._begin = f"{config.prefix}+"
        self._verp = config.style == "verp"
        self._sought = _sought(config.prefix, self._domains)

    def give(
        self, message_id: str, recipients: Iterable[Recipient], domain: str, origin: str
    ) -> None:
        """Gives each recipient a return path, unless it has one.

        Args:
            message_id: the queue id of their message.
            recipients: who gets one.
            domain: a domain of return paths.
            origin: what `token.origin` gave.
        """
        signer = self._keyring.signer()
        secret = signer.secret
        begin, end = self._begin, f"@{domain}"
        head = f"{message_id}{signer.mark}{origin}"
        room = LONGEST_LOCAL_PART - len(begin) - len(message_id) - FIXED
        for recipient in recipients:
            if recipient.return_path is not None:
                continue
            name = token.verp(recipient.address) if self._verp else None
            if name is None or len(name) > room:
                name = token.recipient_hash(recipient.address, secret)
            recipient.return_path = begin + token.write(head, secret, name) + end

    def read(self, address: str) -> ReturnPath | None:
        """What an address says if it is a return path that was made here, however long ago."""
        local, _, domain = address.rpartition("@")
        if domain.lower() not in self._domains or not local.lower().startswith(self._begin):
            return None
        found = token.read(local[len(self._begin) :])
        if found is None or not self._keyring.verify(found):
            return None
        return ReturnPath(address, found)

    def find(self, texts: Iterable[str]) -> ReturnPath | None:
        """The first return path that was made here in some texts, such as a returned header."""
        if self._sought is None:
            return None
        for text in texts:
            for number, match in enumerate(self._sought.finditer(text)):
                if number == _MOST_SOUGHT:
                    break
                path = self.read(match[0])
                if path is not None:
                    return path
        return None

    def names(self, path: ReturnPath, address: str) -> bool:
        """Whether a return path is for mail to an address."""
        if not path.token.recipient:
            return self._keyring.names(path.token, address)
        return normal(path.token.recipient) == normal(address)


def _sought(prefix: str, domains: frozenset[str]) -> re.Pattern[str] | None:
    """What return paths in a text look like."""
    if not domains:
        return None
    names = "|".join(map(re.escape, sorted(domains)))
    return re.compile(
        rf"(?<![\w.+-]){re.escape(prefix)}\+[A-Za-z0-9_+=~'.-]{{1,64}}@(?:{names})(?![\w-]|\.\w)",
        re.IGNORECASE,
    )
