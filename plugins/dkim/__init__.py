"""Signs mail with DKIM (RFC 6376), with RSA and Ed25519 keys (RFC 8301, 8463), and verifies it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING

from gateway.hooks import Context, Message, Plugin, Reject, Tempfail, domain_name, hookimpl
from plugins.dkim.author import author_domains
from plugins.dkim.canonicalization import (
    Canonicalization,
    body_digest,
    relaxed_header,
    simple_header,
)
from plugins.dkim.config import DkimConfig, KeyConfig, VerifyConfig
from plugins.dkim.inspection import Inspection
from plugins.dkim.key import PrivateKey
from plugins.dkim.keyring import Grant, Keyring
from plugins.dkim.pause import pause
from plugins.dkim.signature import Coverage, Signer
from plugins.dkim.validity import warning

if TYPE_CHECKING:
    import click

__all__ = ["Dkim", "DkimConfig", "KeyConfig", "VerifyConfig"]

# A list of more fields than that is not remembered.
_MOST_FIELDS = 100
_NO_KEY = "No DKIM key for the domain in the From field"


class Dkim(Plugin[DkimConfig]):
    """Signs each message for the domain of its author, the address in From.

    Several keys for that domain make several signatures. A message without exactly one From field
    that names a known domain is unsigned; if From names several domains, each must be known.
    """

    api = "1.0"
    changes = ("header:DKIM-Signature", "header:Authentication-Results")

    def __init__(self, config: DkimConfig) -> None:
        super().__init__(config)
        header, _, body = config.canonicalization.partition("/")
        self._header = Canonicalization(header)
        self._body = Canonicalization(body)
        self._clock: Callable[[], float] = time.time
        self._keyring = Keyring(
            Grant(domain, key.subdomains, key.validity, partial(self._signer, key, private))
            for key in config.keys
            for domain, private in key.private_keys.items()
        )
        self._period = self._keyring.period(self._clock())
        self._coverage = Coverage(config.sign)
        # Mail of one origin has the same fields in the same order.
        self._header_list = lru_cache(maxsize=64)(self._coverage.header_list)
        answers: dict[str, Reject | Tempfail] = {
            "reject": Reject(_NO_KEY),
            "tempfail": Tempfail(_NO_KEY),
        }
        self._unsigned = answers.get(config.unsigned)
        self._inspection: Inspection | None = None
        if config.verify is None:
            self.unused = ("message",)

    @hookimpl
    def start(self, context: Context) -> None:
        """Takes the clock that signatures are dated by, and says which keys end soon.

        Raises:
            ValueError: the hostname cannot stand in Authentication-Results.
        """
        self._clock = context.clock
        if context.role == "service":
            self._warn(context)
        verify = self.config.verify
        if verify is not None:
            self._inspection = Inspection(
                verify.authserv_id or domain_name(context.hostname),
                verify.signatures,
                context.resolver,
                context.clock,
            )

    @hookimpl
    async def message(self, message: Message) -> None:
        """Verifies the signatures that the message came with, if that is asked for."""
        if self._inspection is not None:
            await self._inspection.inspect(message)

    @hookimpl
    def seal(self, message: Message) -> Reject | Tempfail | None:
        """Puts the signatures on top, the first key's highest."""
        now = self._clock()
        names = self._coverage.names
        fields = [field for field in message.headers if field.lower in names]
        # Of fields with one name, the lowest is signed first (RFC 6376 5.4.2).
        fields.reverse()
        named = [(field.lower, field.body) for field in fields]
        authors = [body for name, body in named if name == b"from"]
        signers = self._signers_for(authors[0], now) if len(authors) == 1 else ()
        if not signers:
            return self._unsigned
        if self._header is Canonicalization.RELAXED:
            header = relaxed_header(named)
        else:
            header = simple_header([field.raw for field in fields])
        list_of = self._header_list if len(named) <= _MOST_FIELDS else self._coverage.header_list
        header_list = list_of(tuple([name for name, _ in named]))
        body = message.body_view
        body_hash = body_digest(body, self._body, pause(body))
        for signer in reversed(signers):
            value = signer.sign(header, header_list, body_hash, int(now))
            message.headers.prepend("DKIM-Signature", value)
        return None

    @hookimpl
    def commands(self, context: Context) -> click.Command:
        """Adds `keygen`, `dns` and `check`."""
        from plugins.dkim.commands import group

        return group(context, self.config)

    def _signer(self, key: KeyConfig, private: PrivateKey, domain: str) -> Signer:
        return Signer(
            domain=domain,
            selector=key.selector,
            key=private,
            header=self._header,
            body=self._body,
            identity=key.identity,
            expire=None if self.config.expire is None else int(self.config.expire),
        )

    def _signers_for(self, author: bytes, now: float) -> Sequence[Signer]:
        """The signers for every domain in a From field; the default ones if one has no key."""
        period = self._period
        if not period.start <= now < period.end:
            period = self._period = self._keyring.period(now)
        found = [period.signers(domain) for domain in author_domains(author)]
        if len(found) == 1 and found[0]:
            return found[0]
        if not found or not all(found):
            return () if self.config.default is None else period.signers(self.config.default)
        return list(dict.fromkeys(chain.from_iterable(found)))

    def _warn(self, context: Context) -> None:
        if not self.config.keys and self.config.verify is None:
            context.log.warning("no keys: nothing is signed")
        for use, validities in self.config.uses().items():
            text = warning(use, validities, context.clock())
            if text is not None:
                context.log.warning("%s", text)
