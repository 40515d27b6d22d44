"""Sealing and opening tokens: AES-SIV (RFC 5297) under the keys of a file.

A token in a URL is the key's id and the sealed octets, in base64url (RFC 4648 5) without padding.
The seal hides what is in it, the recipient's address above all, and its tag of 128 bits proves
that it was made here. The id is authenticated too.
"""

from __future__ import annotations

import logging
import re
import time
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from gateway.hooks import KeyFile, SecretKey
from plugins.tracking.token import Kind, Token, day_of, decode, encode_common, encode_own

__all__ = ["LONGEST_TEXT", "Keyring", "Sealer", "key_file"]

LONGEST_TEXT = 1900
"""Characters of the longest token. A URL with it stays below the 2,000 that every browser and mail
program takes."""

_CHECK_EVERY = 1.0
# Mail of a campaign leads to few places.
_encode_known = lru_cache(maxsize=4096)(encode_own)
# At least an id, a tag of 16 octets and one octet more.
_TEXT = re.compile(rf"[A-Za-z0-9_-]{{24,{LONGEST_TEXT}}}")
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = str.maketrans("-_", "+/")


def key_file(path: Path) -> KeyFile:
    """The keys in a file. An id is the first octet of each token that its key sealed."""
    return KeyFile(path, purpose="tracking", most=255)


class Keyring:
    """The keys of a file, of which the newest seals and all open.

    Looks at the file at most once a second, so a key that was added by another process is used
    without a restart. If a new version of the file cannot be read, the keys stay as they were.

    Args:
        path: the file; it is made if there is none.
        clock: seconds since the epoch.
        log: where news of the file go.
        lifetime: after how many seconds tokens are not opened any more; None: never. Tokens to
            unsubscribe are opened for ever.

    Raises:
        ValueError: the file cannot be read or made; the text names it and says why.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        log: logging.Logger | None = None,
        lifetime: float | None = None,
    ) -> None:
        self.path = path
        self._clock = clock
        self._log = log or logging.getLogger(__name__)
        self._lifetime = lifetime
        self._version: tuple[int, int, int] | None = None
        self._ciphers: dict[int, AESSIV] = {}
        self._keys: tuple[SecretKey, ...] = ()
        self._file = key_file(path)
        if self._file.make(clock()):
            self._log.warning("made new keys in %s; all machines need the same ones", path)
        self._read()
        self._checked = clock()
        self._sought = float("-inf")

    @property
    def keys(self) -> tuple[SecretKey, ...]:
        """The keys, the newest last."""
        return self._keys

    def seal(self, token: Token) -> str:
        """A token as it stands in a URL. A token whose day is 0 gets today's.

        Raises:
            ValueError: its URL is not http or https, or a field is too long or contains a NUL.
        """
        sealer = self.sealer(
            token.message_id,
            token.recipient,
            token.sender,
            token.stream,
            token.campaign,
            token.variant,
            token.day,
        )
        return sealer.seal(token.kind, token.url, token.link)

    def sealer(
        self,
        message_id: str,
        recipient: str,
        sender: str = "",
        stream: str = "",
        campaign: str = "",
        variant: str = "",
        day: int = 0,
    ) -> Sealer:
        """Prepares all tokens for one recipient of a message.

        Raises:
            ValueError: a field contains a NUL.
        """
        now = self._clock()
        self._refresh(now)
        number = self._keys[-1].id
        common = encode_common(
            message_id, recipient, sender, stream, campaign, variant, day or day_of(now)
        )
        return Sealer(number, self._ciphers[number], common)

    def open(self, text: str, kind: Kind | None = None) -> Token | None:
        """What a text says, if it was sealed here and is not too old; else None. Never raises.

        Each token has exactly one text: any other spelling of it is refused.

        Args:
            text: as it stands in a URL.
            kind: the only kind to be taken; None takes all.
        """
        if not _TEXT.fullmatch(text):
            return None
        try:
            data = a2b_base64(text.translate(_FROM_URL) + "=" * (-len(text) % 4))
        except Base64Error:
            return None
        # Bits that stand for nothing must not be set.
        if _to_text(data) != text:
            return None
        now = self._clock()
        self._refresh(now)
        if data[0] not in self._ciphers and abs(now - self._sought) >= _CHECK_EVERY:
            # A worker may have sealed it with a key that it saw first.
            self._sought, self._checked = now, float("-inf")
            self._refresh(now)
        cipher = self._ciphers.get(data[0])
        if cipher is None:
            return None
        try:
            plain = cipher.decrypt(data[1:], [data[:1]])
        except InvalidTag:
            return None
        token = decode(plain)
        if token is None or (kind is not None and token.kind is not kind):
            return None
        if (
            self._lifetime is not None
            and token.kind is not Kind.UNSUBSCRIBE
            and token.older_than(self._lifetime, now)
        ):
            return None
        return token

    def _refresh(self, now: float) -> None:
        # The wall clock may be set back.
        if abs(now - self._checked) < _CHECK_EVERY:
            return
        self._checked = now
        known = self._version
        try:
            self._version = self._file.version()
            if self._version != known:
                self._read()
                self._log.info("the tracking keys were read again")
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                self._version = None
            if self._version != known:
                self._log.error("the tracking keys stay as they were: %s", error)

    def _read(self) -> None:
        self._version, self._keys = self._file.read()
        self._ciphers = {key.id: AESSIV(key.secret) for key in self._keys}

    def __repr__(self) -> str:
        return f"<Keyring {self.path}>"


class Sealer:
    """Seals the tokens for one recipient of a message; for one moment, not to be kept."""

    __slots__ = ("_cipher", "_common", "_id")

    def __init__(self, number: int, cipher: AESSIV, common: bytes) -> None:
        self._id = bytes([number])
        self._cipher = cipher
        self._common = common

    def seal(self, kind: Kind, url: str = "", link: str = "") -> str:
        """A token of this kind as it stands in a URL.

        Raises:
            ValueError: the URL is not http or https, or the token is longer than `LONGEST_TEXT`.
        """
        identity = self._id
        encode = _encode_known if len(url) + len(link) <= LONGEST_TEXT else encode_own
        plain = self._common + encode(kind, url, link)
        text = _to_text(identity + self._cipher.encrypt(plain, [identity]))
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"a token of {len(text)} characters is too long for a URL")
        return text


def _to_text(data: bytes) -> str:
    return b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode("ascii")
