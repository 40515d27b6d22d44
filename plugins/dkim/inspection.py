"""Mail that comes in: its signatures verified, and what came of it written on top."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from gateway.hooks import Message, NoSuchDomainError, ResolutionError, Resolver
from plugins.dkim.authentication_results import FIELD, claims, results_field
from plugins.dkim.pause import LARGE, pause
from plugins.dkim.verification import Result, Signature, Verdict, Verifier, parse_signature

_DNS_SECONDS = 5.0
"""How long a message waits for public keys: a domain with slow name servers holds up no mail."""

_FEW = 50
"""Forged fields that are taken away one by one; with more of them, so are all others."""


class Inspection:
    """Verifies messages.

    Args:
        authserv_id: the name in the Authentication-Results fields that are ours.
        limit: how many signatures of a message are verified.
        resolver: asks the DNS for public keys.
        clock: seconds since the epoch.
    """

    def __init__(
        self, authserv_id: str, limit: int, resolver: Resolver, clock: Callable[[], float]
    ) -> None:
        self._authserv_id = authserv_id
        self._limit = limit
        self._resolver = resolver
        self._clock = clock
        self._verifier = Verifier()

    async def inspect(self, message: Message) -> None:
        """Puts an Authentication-Results field on top, and takes away those that others forged."""
        fields = message.headers.fields("DKIM-Signature")
        signatures = [_signature(field.raw) for field in fields[: self._limit]]
        names = {one.record_name for one in signatures if isinstance(one, Signature)}
        published = dict(zip(names, await asyncio.gather(*map(self._records, names)), strict=True))
        body = message.body_view
        verdicts = partial(
            self._verifier.verdicts,
            # A thread that is late must not touch the message's own, which goes on.
            message.headers.copy(),
            body,
            signatures,
            published,
            self._clock(),
            pause(body),
        )
        large = len(body) + len(message.headers.raw) > LARGE
        found = await asyncio.to_thread(verdicts) if large else verdicts()
        self._disown(message)
        message.headers.prepend(FIELD, results_field(self._authserv_id, found))

    async def _records(self, name: str) -> list[bytes] | None:
        try:
            async with asyncio.timeout(_DNS_SECONDS):
                return await self._resolver.txt(name)
        except NoSuchDomainError:
            return []
        except (ResolutionError, TimeoutError):
            return None

    def _disown(self, message: Message) -> None:
        """Deletes fields that say they were written by us (RFC 8601 5)."""
        forged = [
            occurrence
            for occurrence, field in enumerate(message.headers.fields(FIELD))
            if claims(field.body, self._authserv_id)
        ]
        if len(forged) > _FEW:
            message.headers.delete(FIELD)
            return
        for occurrence in reversed(forged):
            message.headers.delete(FIELD, occurrence)


def _signature(raw: bytes) -> Signature | Verdict:
    try:
        return parse_signature(raw)
    except ValueError as error:
        return Verdict(Result.NEUTRAL, str(error))
