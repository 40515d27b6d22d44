"""The MTA-STS policies of domains: found in the DNS, fetched, kept (RFC 8461)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.delivery.https import Fetch, HttpsError
from gateway.delivery.mta_sts import Mode, Policy, policy_id
from gateway.resolver import NoSuchDomainError, ResolutionError, Resolver

ASK_SECONDS = 300.0
"""How long it is not asked again in the DNS whether a domain has a policy, or a new one."""

RETRY_SECONDS = 600.0
"""How long a policy that could not be fetched is not fetched again."""

REFRESH_SECONDS = 86400.0
"""The age at which a policy is fetched again although its id is the same, or half of its life if
that is shorter, so that it does not run out, which somebody on the way could wait for."""

_DOMAINS = 100_000
# With `_mta-sts.` in front, a name has at most 253 octets.
_DOMAIN = re.compile(r"(?=.{1,243}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})+")

log = logging.getLogger("gateway.mta-sts")


@dataclass(slots=True, eq=False)
class _Known:
    """What is known of a domain; times are seconds since the epoch.

    `ask` is when to ask the DNS again, `fetched` and `expires` are the policy's.
    """

    policy: Policy | None = None
    id: str = ""
    fetched: float = 0.0
    expires: float = 0.0
    ask: float = 0.0

    def holds(self, now: float) -> bool:
        return self.policy is not None and now < self.expires

    def is_fresh(self, now: float) -> bool:
        life = self.expires - self.fetched
        return self.holds(now) and now < self.fetched + min(life / 2, REFRESH_SECONDS)


class Policies:
    """The policies of domains.

    A policy that is known holds until it runs out, whatever the DNS and the policy's host say
    meanwhile; it is renewed in the background. Files keep policies over restarts and show them to
    other workers; losing them is as if no mail had been sent before.

    Args:
        resolver: asks the DNS.
        fetch: fetches policies.
        folder: for the files, one for each domain with a policy; made when the first is written.
        clock: seconds since the epoch.
    """

    def __init__(
        self, resolver: Resolver, fetch: Fetch, folder: Path, clock: Callable[[], float]
    ) -> None:
        self._resolver = resolver
        self._fetch = fetch
        self._folder = folder
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def policy(self, domain: str) -> Policy | None:
        """The policy that holds for a domain in lower case and A-labels; None without one.

        It waits for the DNS and the policy's host only where no policy is known that holds.
        """
        now = self._clock()
        known = self._known.get(domain)
        if known is None:
            known = self._remember(domain)
        if now >= known.ask:
            looking = self._look(domain, known)
            if not known.holds(now):
                await asyncio.wait((looking,))
        policy = known.policy
        if policy is None or policy.mode is Mode.NONE or now >= known.expires:
            return None
        return policy

    async def close(self) -> None:
        """Gives up what is under way."""
        looking = list(self._looking.values())
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)

    def _remember(self, domain: str) -> _Known:
        while len(self._known) >= _DOMAINS:
            del self._known[next(iter(self._known))]
        known = self._known[domain] = _Known()
        if _DOMAIN.fullmatch(domain):
            self._read(domain, known)
        else:
            # An address literal, or nothing that the DNS could know.
            known.ask = float("inf")
        return known

    def _look(self, domain: str, known: _Known) -> asyncio.Task[None]:
        """Brings what is known up to date, once at a time."""
        task = self._looking.get(domain)
        if task is None:
            task = asyncio.create_task(self._update(domain, known))
            self._looking[domain] = task
            task.add_done_callback(lambda _: self._looking.pop(domain, None))
        return task

    async def _update(self, domain: str, known: _Known) -> None:
        try:
            announced = policy_id(await self._resolver.txt(f"_mta-sts.{domain}"))
        except (NoSuchDomainError, ResolutionError):
            announced = None
        now = self._clock()
        known.ask = now + ASK_SECONDS
        if announced is None:
            return
        if announced != known.id or not known.is_fresh(now):
            # Perhaps another worker was quicker.
            self._read(domain, known)
        if announced == known.id and known.is_fresh(now):
            return
        try:
            text = await self._fetch.text(f"mta-sts.{domain}", "/.well-known/mta-sts.txt")
            policy = Policy.parse(text)
        except (HttpsError, ValueError) as error:
            kept = "; the one from before holds" if known.holds(now) else ""
            log.warning("no MTA-STS policy of %s: %s%s", domain, error, kept)
            known.ask = self._clock() + RETRY_SECONDS
            return
        now = self._clock()
        known.policy, known.id = policy, announced
        known.fetched, known.expires = now, now + policy.max_age
        known.ask = now + ASK_SECONDS
        self._write(domain, known)

    def _read(self, domain: str, known: _Known) -> None:
        """Takes what is in a file, if that is newer."""
        try:
            data: dict[str, Any] = json.loads(self._file(domain).read_text())
            policy = Policy(Mode(data["mode"]), tuple(map(str, data["mx"])), int(data["max_age"]))
            fetched = float(data["fetched"])
            announced = str(data["id"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read: %s", self._file(domain), error)
            return
        # One from the future would hold too long.
        if known.fetched < fetched <= self._clock():
            known.policy, known.id = policy, announced
            known.fetched, known.expires = fetched, fetched + policy.max_age

    def _write(self, domain: str, known: _Known) -> None:
        policy = known.policy
        assert policy is not None
        data = {
            "id": known.id,
            "fetched": known.fetched,
            "mode": policy.mode,
            "mx": policy.mx,
            "max_age": policy.max_age,
        }
        path = self._file(domain)
        new = path.with_name(f"{domain}.{os.getpid()}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.write_text(json.dumps(data))
            new.replace(path)
        except OSError as error:
            log.warning("%s cannot be written: %s", path, error.strerror)

    def _file(self, domain: str) -> Path:
        return self._folder / f"{domain}.json"
