"""What is slowed, paused or bounced: cells that all processes share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.hooks import Cell, Limits
from plugins.throttle.plan import Scope, Slowing
from plugins.throttle.rule import CompiledRule
from plugins.throttle.terms import Slow, State, Stop

_VERSION_LASTS = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Listed:
    """The state of a scope, by its key."""

    key: str
    state: State


class States:
    """Reads and changes the state of scopes.

    Each change raises a version, so that who has read the state knows when to read it again.

    Args:
        limits: where the cells are.
        prefix: what the keys of this entry of gateway.yaml begin with.
    """

    def __init__(self, limits: Limits, prefix: str) -> None:
        self._limits = limits
        self._slow = f"{prefix}/slow/"
        self._stop = f"{prefix}/stop/"
        self._count = f"{prefix}/count/"
        self._version = f"{prefix}/version"

    def version(self, now: float) -> float:
        """Another number after each change."""
        cell = self._limits.read(self._version, now)
        return 0.0 if cell is None else cell.value

    def read(self, key: str, now: float) -> State:
        """What is in force in the scope of that key."""
        slow = self._limits.read(self._slow + key, now)
        stop = self._limits.read(self._stop + key, now)
        return State(
            None if slow is None else _slow_of(slow), None if stop is None else _stop_of(stop)
        )

    def slow(self, scope: Scope, slowing: Slowing, why: str, now: float) -> Slow | None:
        """Halves the pace of a scope; None: that has just been done."""
        is_new = True

        def change(cell: Cell | None) -> tuple[float, float, str]:
            nonlocal is_new
            old = None if cell is None else _slow_of(cell)
            is_new = old is None or not 0 <= now - old.since < slowing.every
            if cell is not None and not is_new:
                return cell.value, cell.expires, cell.text
            halvings = min(slowing.halvings, 1 + (0 if old is None else old.at(now)))
            new = Slow(halvings, now, slowing.recover, why)
            return float(halvings), new.end, f"{now:.3f} {slowing.recover:g} {why}"

        cell = self._limits.change(self._slow + scope.key, now, change)
        if not is_new:
            return None
        self._changed(now)
        return _slow_of(cell)

    def stop(self, scope: Scope, kind: str, until: float, why: str, now: float) -> bool:
        """Pauses or bounces a scope; of two ends the later one holds. False: it was stopped so."""
        is_new = True

        def change(cell: Cell | None) -> tuple[float, float, str]:
            nonlocal is_new
            is_new = cell is None or not cell.text.startswith(kind)
            if cell is not None and cell.expires > until and not is_new:
                return cell.value, cell.expires, cell.text
            return now, until, f"{kind} {why}"

        self._limits.change(self._stop + scope.key, now, change)
        # A later end is read when the earlier one has come.
        if is_new:
            self._changed(now)
        return is_new

    def reached(self, rule: CompiledRule, scope: Scope, now: float) -> bool:
        """Counts a reply; whether there have been as many as a rule wants."""
        if rule.after == 1:
            return True
        key = f"{self._count}{'.'.join(rule.path)}/{scope.key}"

        def change(cell: Cell | None) -> tuple[float, float, str]:
            if cell is None:
                return 1.0, now + rule.within, ""
            return cell.value + 1, cell.expires, ""

        if self._limits.change(key, now, change).value < rule.after:
            return False
        self._limits.remove(key)
        return True

    def listed(self, now: float) -> Iterator[Listed]:
        """All scopes in which something is in force."""
        states: dict[str, State] = {}
        for cell in self._limits.cells(self._slow, now):
            slow = _slow_of(cell)
            if slow is not None and slow.at(now):
                states[cell.key.removeprefix(self._slow)] = State(slow)
        for cell in self._limits.cells(self._stop, now):
            key = cell.key.removeprefix(self._stop)
            states[key] = State(states.get(key, State()).slow, _stop_of(cell))
        for key in sorted(states):
            yield Listed(key, states[key])

    def lift(self, key: str, now: float) -> None:
        """Ends what is in force in the scope of that key."""
        self._limits.remove(self._slow + key)
        self._limits.remove(self._stop + key)
        self._changed(now)

    def _changed(self, now: float) -> None:
        def change(cell: Cell | None) -> tuple[float, float, str]:
            # Never the same number twice, whatever the clock does.
            value = now if cell is None else max(now, cell.value + 0.001)
            return value, now + _VERSION_LASTS, ""

        self._limits.change(self._version, now, change)


def _slow_of(cell: Cell) -> Slow | None:
    since, _, rest = cell.text.partition(" ")
    recover, _, why = rest.partition(" ")
    try:
        slow = Slow(int(cell.value), float(since), float(recover), why)
    except ValueError:
        return None
    return slow if slow.recover > 0 else None


def _stop_of(cell: Cell) -> Stop | None:
    kind, _, why = cell.text.partition(" ")
    return Stop(kind, cell.expires, why) if kind in ("pause", "bounce") else None
