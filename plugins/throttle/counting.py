"""Holds messages against the quotas."""

from __future__ import annotations

from collections.abc import Callable

from gateway.hooks import Message, Quarantine, Reject, Tempfail
from plugins.throttle.config import ThrottleConfig
from plugins.throttle.ledger import Claim, Ledger, addresses_of
from plugins.throttle.quota import Excess, Quota
from plugins.throttle.window import PERIODS, Period, Window, end_text, window_of, zone_of


class Counting:
    """Asks the ledger for each message.

    Args:
        config: the quotas, and the time zone of their periods.
        ledger: what is used of them.
        clock: seconds since the epoch.
    """

    def __init__(self, config: ThrottleConfig, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._quotas = {name: Quota.of(name, quota) for name, quota in config.quotas.items()}
        self._zone = zone_of(config.time_zone)
        self._ledger = ledger
        self._clock = clock
        self._windows: dict[Period, Window] = {}

    def charge(self, message: Message) -> Reject | Tempfail | Quarantine | None:
        """Takes a message's part of all quotas that it counts for, or of none, and says why.

        Raises:
            LedgerError: the quotas cannot be looked at now.
        """
        now = self._clock()
        claims = [
            claim
            for quota in self._quotas.values()
            if (subject := quota.subject(message)) is not None
            for claim in self._claims(quota, subject, message, now)
        ]
        if not claims:
            return None
        exceeded = [self._excess(claim, unit) for claim, unit in self._ledger.charge(claims, now)]
        if not exceeded:
            return None
        # A refusal is the stronger one, and of refusals the one that is for good.
        worst = min(exceeded, key=lambda one: (one.quota.holds, not one.never))
        if worst.quota.holds:
            return Quarantine(f"quota {worst.quota.name}: {worst.text}")
        if worst.never:
            return Reject(worst.text, 550, "5.5.3")
        return Tempfail(worst.text, 452, "4.7.1")

    def close(self) -> None:
        """Closes the ledger."""
        self._ledger.close()

    def _claims(self, quota: Quota, subject: str, message: Message, now: float) -> list[Claim]:
        addresses = addresses_of(quota.counted(message)) if quota.recipients else ()
        return [
            Claim(
                quota=quota.name,
                subject=subject,
                window=self._window(period, now),
                messages=quota.messages.get(period),
                recipients=quota.recipients.get(period),
                addresses=addresses,
            )
            for period in PERIODS
            if period in quota.messages or period in quota.recipients
        ]

    def _window(self, period: Period, now: float) -> Window:
        window = self._windows.get(period)
        if window is None or not window.start <= now < window.end:
            window = self._windows[period] = window_of(period, now, self._zone)
        return window

    def _excess(self, claim: Claim, unit: str) -> Excess:
        limit = claim.messages if unit == "messages" else claim.recipients
        assert limit is not None
        return Excess(
            quota=self._quotas[claim.quota],
            subject=claim.subject,
            unit=unit,
            period=claim.window.period,
            limit=limit,
            never=unit == "recipients" and len(claim.addresses) > limit,
            end=end_text(claim.window, self._zone),
        )
