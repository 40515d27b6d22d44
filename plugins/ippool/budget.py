"""What sources that are warming up have sent today; counted over all processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.hooks import Cell, Limits, Recipient
from plugins.ippool.day import Day

_REMEMBERED = 50_000
"""Charges that wait for the end of their attempts; those of attempts never made are few."""


@dataclass(frozen=True, slots=True)
class Account:
    """The budget of a source for a provider on a day: the key that it is kept under."""

    key: str
    budget: int
    day: Day


class Budgets:
    """The budgets of all sources.

    A recipient is charged when an attempt is about to be made. Should the attempt not be made, as
    where no connection is free, the charge stands for the next one.

    Args:
        limits: where they are kept.
        name: of the entry in gateway.yaml.
    """

    def __init__(self, limits: Limits, name: str) -> None:
        self._limits = limits
        self._prefix = f"{name}/sent/"
        self._paid: dict[tuple[str, str], str] = {}

    def __bool__(self) -> bool:
        """Whether anything is charged for an attempt that has not ended."""
        return bool(self._paid)

    def account(self, source: str, provider: str, budget: int, day: Day) -> Account:
        """The account of a source for a provider today."""
        return Account(f"{self._prefix}{source}/{provider}/{day.date}", budget, day)

    def used(self, account: Account, now: float) -> int:
        """How many recipients have been charged today."""
        cell = self._limits.read(account.key, now)
        return 0 if cell is None else int(cell.value)

    def has_room(self, account: Account, message_id: str, address: str, now: float) -> bool:
        """Whether a recipient of a message may be charged, or has been for an attempt not made."""
        return (
            self.used(account, now) < account.budget
            or self._paid.get((message_id, address)) == account.key
        )

    def charge(
        self, account: Account, message_id: str, recipients: Sequence[Recipient], now: float
    ) -> int:
        """Charges recipients of a message, as many from the first on as there is room for.

        Returns how many are charged now; those that had been for an attempt not made are free.
        """
        paid, key = self._paid, account.key
        marks = [(message_id, one.address) for one in recipients]
        unpaid = sum([paid.get(mark) != key for mark in marks])
        left = self._take(account, unpaid, now) if unpaid else 0
        charged = 0
        for mark in marks:
            before = paid.get(mark)
            if before != key:
                if not left:
                    break
                left -= 1
                if before is not None:
                    self._give_back(before, now)
                elif len(paid) >= _REMEMBERED:
                    del paid[next(iter(paid))]
                paid[mark] = key
            charged += 1
        return charged

    def release(self, message_id: str, recipients: Sequence[Recipient], now: float) -> None:
        """The attempt is made from another source: what was charged for it is given back."""
        for recipient in recipients if self._paid else ():
            self.settle(message_id, recipient.address, reached=False, now=now)

    def settle(self, message_id: str, address: str, *, reached: bool, now: float) -> None:
        """An attempt for a recipient has ended. One that reached no server is not charged."""
        key = self._paid.pop((message_id, address), None)
        if key is not None and not reached:
            self._give_back(key, now)

    def _take(self, account: Account, wanted: int, now: float) -> int:
        taken = 0

        def change(cell: Cell | None) -> tuple[float, float, str]:
            nonlocal taken
            used = 0.0 if cell is None else cell.value
            taken = max(0, min(wanted, account.budget - int(used)))
            return used + taken, account.day.end, ""

        self._limits.change(account.key, now, change)
        return taken

    def _give_back(self, key: str, now: float) -> None:
        self._limits.change(key, now, _one_less)


def _one_less(cell: Cell | None) -> tuple[float, float, str]:
    # What was charged yesterday is not there any more: a cell that ends at once is none.
    return (0.0, 0.0, "") if cell is None else (max(0.0, cell.value - 1), cell.expires, "")
