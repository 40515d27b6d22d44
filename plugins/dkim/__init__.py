"""Signs mail with DKIM (RFC 6376), with RSA and Ed25519 keys (RFC 8301, 8463)."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from itertools import chain

from gateway.hooks import Context, Message, Plugin, Reject, Tempfail, hookimpl
from plugins.dkim.author import author_domains
from plugins.dkim.canonicalization import (
    Canonicalization,
    body_digest,
    relaxed_header,
    simple_header,
)
from plugins.dkim.config import DkimConfig, KeyConfig
from plugins.dkim.signature import Coverage, Signer

__all__ = ["Dkim", "DkimConfig", "KeyConfig"]

_NO_KEY = "No DKIM key for the domain in the From field"


class Dkim(Plugin[DkimConfig]):
    """Signs each message for the domain of its author, the address in From.

    Several keys for that domain make several signatures. A message without exactly one From field
    that names a known domain is unsigned; if From names several domains, each must be known.
    """

    def __init__(self, config: DkimConfig) -> None:
        super().__init__(config)
        header, _, body = config.canonicalization.partition("/")
        self._header = Canonicalization(header)
        self._body = Canonicalization(body)
        self._of_domain: dict[str, list[Signer]] = {}
        self._of_subdomains: dict[str, list[Signer]] = {}
        for key in config.keys:
            signer = self._signer(key)
            self._of_domain.setdefault(key.domain, []).append(signer)
            if key.subdomains:
                self._of_subdomains.setdefault(key.domain, []).append(signer)
        self._coverage = Coverage(config.sign)
        # Mail of one origin has the same fields in the same order.
        self._header_list = lru_cache(maxsize=64)(self._coverage.header_list)
        self._unsigned = {
            "pass": None,
            "reject": Reject(_NO_KEY),
            "tempfail": Tempfail(_NO_KEY),
        }[config.unsigned]
        self._clock: Callable[[], float] = time.time

    @hookimpl
    def start(self, context: Context) -> None:
        """Takes the clock that signatures are dated by."""
        self._clock = context.clock

    @hookimpl
    def seal(self, message: Message) -> Reject | Tempfail | None:
        """Puts the signatures on top, the first key's highest."""
        names = self._coverage.names
        fields = [field for field in message.headers if field.lower in names]
        # Of fields with one name, the lowest is signed first (RFC 6376 5.4.2).
        fields.reverse()
        authors = [field.body for field in fields if field.lower == b"from"]
        signers = self._signers_for(authors[0]) if len(authors) == 1 else []
        if not signers:
            return self._unsigned
        if self._header is Canonicalization.RELAXED:
            header = relaxed_header([(field.lower, field.body) for field in fields])
        else:
            header = simple_header([field.raw for field in fields])
        header_list = self._header_list(tuple([field.lower for field in fields]))
        body_hash = body_digest(message.body, self._body)
        now = int(self._clock())
        for signer in reversed(signers):
            value = signer.sign(header, header_list, body_hash, now)
            message.headers.prepend("DKIM-Signature", value)
        return None

    def _signer(self, key: KeyConfig) -> Signer:
        return Signer(
            domain=key.domain,
            selector=key.selector,
            key=key.private_key,
            header=self._header,
            body=self._body,
            identity=key.identity,
            expire=None if self.config.expire is None else int(self.config.expire),
        )

    def _signers_for(self, author: bytes) -> list[Signer]:
        """The signers for every domain in a From field; none if one of these has no key."""
        found = [self._signers_of(domain) for domain in author_domains(author)]
        if len(found) == 1:
            return found[0]
        if not all(found):
            return []
        return list(dict.fromkeys(chain.from_iterable(found)))

    def _signers_of(self, domain: str) -> list[Signer]:
        """Those of the domain itself, or of the nearest parent that signs for its subdomains."""
        signers = self._of_domain.get(domain)
        while signers is None:
            _, dot, domain = domain.partition(".")
            if not dot:
                return []
            signers = self._of_subdomains.get(domain)
        return signers
