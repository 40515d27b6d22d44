"""Signs the tokens in return paths, and says which ones were signed here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hmac import compare_digest
from pathlib import Path

from gateway.hooks import KeyFile, SecretKey
from plugins.bounces.token import DAY, Token, recipient_hash, sign, stamp

__all__ = ["Keyring", "Signer", "key_file"]

_CHECK_EVERY = 1.0


def key_file(path: Path) -> KeyFile:
    """The keys in a file. An id is one character of base 32 in each token that its key signed."""
    return KeyFile(path, purpose="return path", most=31, forget_oldest=True)


class Signer:
    """The newest key on a day; for one moment, not to be kept."""

    __slots__ = ("mark", "secret")

    def __init__(self, key: SecretKey, day: int) -> None:
        self.mark = stamp(key.id, day)
        self.secret = key.secret


class Keyring:
    """The keys of a file, of which the newest signs and all verify.

    Looks at the file at most once a second, so a key that was added by another process is used
    without a restart. If a new version of the file cannot be read, the keys stay as they were.

    Args:
        path: the file.
        clock: seconds since the epoch.
        log: where news of the file go.
        make: whether to make the file if there is none; otherwise nothing was signed here yet.

    Raises:
        ValueError: the file cannot be read or made; the text names it and says why.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float], log: logging.Logger, *, make: bool = True
    ) -> None:
        self.path = path
        self._clock = clock
        self._log = log
        self._file = key_file(path)
        self._version: tuple[int, int, int] | None = None
        self._secrets: dict[int, bytes] = {}
        self._newest: SecretKey | None = None
        self._signer: Signer
        if make and self._file.make(clock()):
            log.warning("made a new key in %s; all machines need the same one", path)
        if make or path.exists():
            self._read(clock())
        self._checked = clock()
        self._sought = float("-inf")

    def signer(self) -> Signer:
        """What signs now. There is none where the file was not to be made."""
        now = self._clock()
        if not -_CHECK_EVERY < now - self._checked < _CHECK_EVERY:
            self._refresh(now)
        return self._signer

    def verify(self, token: Token) -> bool:
        """Whether a token was signed by one of the keys."""
        secret = self._secret(token.key)
        return secret is not None and compare_digest(sign(token.signed, secret), token.signature)

    def names(self, token: Token, address: str) -> bool:
        """Whether the hash in a token that was verified is that of an address."""
        secret = self._secrets.get(token.key)
        return secret is not None and recipient_hash(address, secret) == token.recipient_hash

    def _secret(self, number: int) -> bytes | None:
        now = self._clock()
        if not -_CHECK_EVERY < now - self._checked < _CHECK_EVERY:
            self._refresh(now)
        if number not in self._secrets and abs(now - self._sought) >= _CHECK_EVERY:
            # Another process may have signed it with a key that it saw first.
            self._sought = now
            self._refresh(now)
        return self._secrets.get(number)

    def _refresh(self, now: float) -> None:
        self._checked = now
        known = self._version
        try:
            self._version = self._file.version()
            if self._version != known:
                self._read(now)
                self._log.info("the keys of return paths were read again")
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                self._version = None
            if self._version != known:
                self._log.error("the keys of return paths stay as they were: %s", error)
        if self._newest is not None:
            self._signer = Signer(self._newest, int(now // DAY))

    def _read(self, now: float) -> None:
        self._version, keys = self._file.read()
        self._secrets = {key.id: key.secret for key in keys}
        self._newest = keys[-1]
        self._signer = Signer(self._newest, int(now // DAY))

    def __repr__(self) -> str:
        return f"<Keyring {self.path}>"
