"""What one process, or two, can do with limits."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.limits import Cell, Limits, Rate, Take
from tests.limits.conftest import Open

NOW = 1_900_000_000.0

in_one_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def count(cell: Cell | None) -> tuple[float, float, str]:
    return (cell.value if cell else 0) + 1, NOW + 60, "counted"


def available(limits: Limits, now: float) -> dict[str, float]:
    return {one.key: one.available for one in limits.rates("", now)}


def test_two_processes_share_a_rate(open_limits: Open) -> None:
    one, other = open_limits(), open_limits()
    take = [Take("site:example.com", Rate(10, 1, 2))]
    assert one.take(take, NOW) == 0
    assert other.take(take, NOW) == 0
    assert one.take(take, NOW) == pytest.approx(0.1, abs=1e-6)
    assert other.take(take, NOW) == pytest.approx(0.1, abs=1e-6)
    assert other.take(take, NOW + 0.1) == 0
    assert one.take(take, NOW + 0.1) == pytest.approx(0.1, abs=1e-6)


def test_a_rate_survives_a_restart(open_limits: Open) -> None:
    limits = open_limits()
    take = [Take("key", Rate(1, 3600))]
    assert limits.take(take, NOW) == 0
    limits.close()
    assert open_limits().take(take, NOW + 600) == pytest.approx(3000)
    assert limits.take(take, NOW + 600) == pytest.approx(3000), "it is opened again"


def test_nothing_is_taken_unless_all_is(limits: Limits) -> None:
    fast, slow = Take("fast", Rate(100, 1)), Take("slow", Rate(1, 60))
    assert limits.take([fast, slow], NOW) == 0
    for _ in range(20):
        assert limits.take([fast, slow], NOW + 1) == pytest.approx(59)
        assert limits.take([slow, fast], NOW + 1) == pytest.approx(59)
    assert limits.take([fast], NOW + 1) == 0


def test_the_longest_wait_counts(limits: Limits) -> None:
    takes = [Take("a", Rate(1, 10)), Take("b", Rate(1, 30)), Take("c", Rate(1, 20))]
    assert limits.take(takes, NOW) == 0
    assert limits.take(takes, NOW) == pytest.approx(30)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 3),
            st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 4)), max_size=5),
        ),
        max_size=30,
    )
)
@settings(deadline=None)
def test_any_takes_are_all_or_none(steps: list[tuple[float, list[tuple[str, float]]]]) -> None:
    """What is left in each rate is what the takes that were granted left."""
    rates = {"a": Rate(1, 1), "b": Rate(2, 1, 3), "c": Rate(5, 10, 2), "d": Rate(1, 2, 8)}
    free = {key: rate.burst for key, rate in rates.items()}
    now = NOW
    with TemporaryDirectory() as folder:
        both = Limits(Path(folder, "limits")), Limits(Path(folder, "limits"))
        for number, (passed, wanted) in enumerate(steps):
            now += passed
            for key, rate in rates.items():
                free[key] = min(rate.burst, free[key] + passed / rate.interval)
            sums: dict[str, float] = {}
            for key, amount in wanted:
                sums[key] = sums.get(key, 0) + amount
            waits = [
                (min(sums[key], rates[key].burst) - free[key]) * rates[key].interval for key in sums
            ]
            takes = [Take(key, rates[key], amount) for key, amount in wanted]
            wait = both[number % 2].take(takes, now)
            assert wait == pytest.approx(max([0.0, *waits]), abs=1e-5)
            if not wait:
                for key in sums:
                    free[key] -= sums[key]
            for one in both[0].rates("", now):
                assert one.available == pytest.approx(free[one.key], abs=1e-4)
        for limits in both:
            limits.close()


def test_takes_of_one_key_are_added_up(limits: Limits) -> None:
    rate = Rate(1, 1, 3)
    assert limits.take([Take("key", rate), Take("other", rate), Take("key", rate)], NOW) == 0
    assert available(limits, NOW) == pytest.approx({"key": 1, "other": 2})
    assert limits.take([Take("key", rate), Take("key", rate)], NOW) == pytest.approx(1)


def test_nothing_to_take_is_taken(limits: Limits) -> None:
    assert limits.take([], NOW) == 0
    assert limits.rates("", NOW) == []


def test_a_rate_may_change(open_limits: Open) -> None:
    one, other = open_limits(), open_limits()
    assert one.take([Take("key", Rate(1, 3600))], NOW) == 0
    assert other.take([Take("key", Rate(100, 1))], NOW) == pytest.approx(0.01, abs=1e-6)
    assert other.take([Take("key", Rate(100, 1))], NOW + 0.01) == 0
    assert other.rates("key", NOW + 0.02)[0].rate == Rate(100, 1)
    assert one.take([Take("key", Rate(100, 1, 9))], NOW + 1) == 0
    assert other.rates("key", NOW + 1)[0].rate == Rate(100, 1, 9)
    assert available(other, NOW + 1) == pytest.approx({"key": 8})


def test_a_rate_that_changes_back_and_forth_gains_nothing(open_limits: Open) -> None:
    """While old and new processes work side by side, and read the clock out of order."""
    both, passed = (open_limits(), open_limits()), 0
    rates = Rate(100, 1), Rate(100, 1, 2)
    for number in range(1000):
        now = NOW + number * 0.001 - (number % 2) * 0.0015
        passed += both[number % 2].take([Take("key", rates[number % 2])], now) == 0
    assert 95 <= passed <= 102


def test_a_slower_rate_owes_as_many(limits: Limits) -> None:
    assert limits.take([Take("key", Rate(100, 1))], NOW) == 0
    assert limits.take([Take("key", Rate(1, 3600))], NOW) == pytest.approx(3600)
    assert limits.take([Take("key", Rate(1, 3600))], NOW + 3590) == pytest.approx(10, abs=0.1)
    assert limits.take([Take("key", Rate(1, 3600, 2))], NOW + 3590) == 0


def test_a_clock_that_was_wrong_for_a_while_blocks_nobody(limits: Limits) -> None:
    rate = Rate(1, 10)
    assert limits.take([Take("key", rate)], NOW + 1e9) == 0
    assert limits.rates("", NOW)[0].available == pytest.approx(0, abs=1e-6)
    assert limits.take([Take("key", rate)], NOW) == pytest.approx(10)
    assert limits.take([Take("key", rate)], NOW + 4) == pytest.approx(6)
    assert limits.take([Take("key", rate)], NOW + 10) == 0


def test_how_rates_stand(limits: Limits) -> None:
    limits.take([Take("site:b", Rate(1, 1, 5), 2), Take("site:a", Rate(1, 60), 10)], NOW)
    limits.take([Take("other", Rate(1, 1))], NOW)
    assert [one.key for one in limits.rates("site:", NOW)] == ["site:a", "site:b"]
    assert [one.rate for one in limits.rates("site:", NOW)] == [Rate(1, 60), Rate(1, 1, 5)]
    assert available(limits, NOW + 1) == pytest.approx(
        {"other": 1, "site:a": 1 - 10 + 1 / 60, "site:b": 4}
    )
    assert available(limits, NOW + 10_000) == {"other": 1, "site:a": 1, "site:b": 5}


def test_a_cell_is_seen_by_all(open_limits: Open) -> None:
    one, other = open_limits(), open_limits()
    assert one.read("key", NOW) is None
    assert other.read("key", NOW) is None
    assert one.change("key", NOW, count) == Cell("key", 1, NOW + 60, "counted")
    assert other.read("key", NOW) == Cell("key", 1, NOW + 60, "counted")
    assert other.change("key", NOW, count).value == 2
    assert one.read("key", NOW) == Cell("key", 2, NOW + 60, "counted")
    one.remove("key")
    assert other.read("key", NOW) is None
    assert one.read("key", NOW) is None
    one.remove("key")
    assert other.change("key", NOW, count).value == 1


def test_a_cell_expires(limits: Limits) -> None:
    limits.change("key", NOW, count)
    assert limits.read("key", NOW + 59) is not None
    assert limits.read("key", NOW + 60) is None
    assert limits.cells("", NOW + 59) == [Cell("key", 1, NOW + 60, "counted")]
    assert limits.cells("", NOW + 60) == []
    assert limits.change("key", NOW + 60, lambda cell: (cell is None, math.inf, "")).value == 1
    assert limits.read("key", NOW + 1e12) == Cell("key", 1, math.inf)


def test_what_expires_at_once_is_forgotten(limits: Limits) -> None:
    limits.change("key", NOW, count)
    assert limits.change("key", NOW, lambda _: (0, NOW, "")) == Cell("key", 0, NOW)
    assert limits.read("key", NOW) is None
    assert limits.read("key", NOW - 1) is None or limits.cells("", NOW - 1) == []
    limits.change("new", NOW, lambda _: (0, 0, ""))
    assert limits.cells("", -math.inf) == []


def test_a_change_to_the_same_is_none(limits: Limits) -> None:
    limits.change("key", NOW, count)
    same = limits.change("key", NOW, lambda _: (1, NOW + 60, "counted"))
    assert same == limits.read("key", NOW) == Cell("key", 1, NOW + 60, "counted")


def test_a_change_that_fails_changes_nothing(limits: Limits) -> None:
    limits.change("key", NOW, count)

    def fail(_: Cell | None) -> tuple[float, float, str]:
        raise LookupError

    with pytest.raises(LookupError):
        limits.change("key", NOW, fail)
    for value, expires in ((math.nan, NOW + 1), (1, math.nan)):
        with pytest.raises(ValueError, match="key: "):
            limits.change("key", NOW, lambda _, new=(value, expires, ""): new)  # type: ignore[misc]
    assert limits.change("key", NOW, count).value == 2


def test_a_change_begins_again_if_another_was_quicker(open_limits: Open) -> None:
    one, other = open_limits(), open_limits()
    seen: list[float] = []

    def slowly(cell: Cell | None) -> tuple[float, float, str]:
        seen.append(cell.value if cell else 0)
        if len(seen) < 3:
            other.change("key", NOW, count)
            other.change("another", NOW, count)
        return count(cell)

    assert one.change("key", NOW, slowly).value == 3
    assert seen == [0, 1, 2]


def test_a_change_may_use_the_limits_itself(limits: Limits) -> None:
    def change(cell: Cell | None) -> tuple[float, float, str]:
        assert limits.take([Take("key", Rate(1, 1))], NOW) == 0
        limits.change("other", NOW, count)
        return count(cell)

    assert limits.change("key", NOW, change).value == 1
    assert [cell.key for cell in limits.cells("", NOW)] == ["key", "other"]


@given(
    st.text(st.characters(), max_size=300),
    st.text(st.characters(), max_size=300),
    st.floats(allow_nan=False),
)
@in_one_file
def test_any_key_and_text(open_limits: Open, key: str, text: str, value: float) -> None:
    one, other = open_limits(), open_limits()
    changed = one.change(key, NOW, lambda _: (value, NOW + 1, text))
    assert other.read(key, NOW) == changed
    assert (changed.key, changed.value) == (key, value)
    octets = changed.text.encode()
    whole = text.encode(errors="backslashreplace")
    assert whole.startswith(octets)
    assert octets == whole or 247 <= len(octets) <= 250
    listed = [cell for cell in other.cells("", NOW) if cell.value == value]
    assert [(cell.expires, cell.text) for cell in listed] == [(NOW + 1, changed.text)]
    one.remove(listed[0].key)
    assert other.read(key, NOW) is None
    one.close()
    other.close()


def test_long_keys_stay_apart(limits: Limits) -> None:
    keys = [f"{'長' * 100}:{number}" for number in range(20)]
    for number, key in enumerate(keys):
        limits.change(key, NOW, lambda _, value=number: (value, NOW + 1, ""))  # type: ignore[misc]
    for number, key in enumerate(keys):
        cell = limits.read(key, NOW)
        assert cell is not None
        assert (cell.key, cell.value) == (key, number)
    listed = limits.cells("長" * 50, NOW)
    assert sorted(cell.value for cell in listed) == list(range(20))
    assert all(len(cell.key.encode()) <= 190 for cell in listed)
    assert {limits.read(cell.key, NOW) for cell in listed} == set(listed)


def test_rates_cells_and_leases_of_one_name_are_apart(limits: Limits) -> None:
    assert limits.take([Take("key", Rate(1, 1))], NOW) == 0
    assert limits.read("key", NOW) is None
    limits.change("key", NOW, count)
    lease = limits.lease({"key": 1})
    assert lease is not None
    assert limits.leased("key") == 1
    limits.remove("key")
    assert len(limits.rates("key", NOW)) == 1
    lease.release()
    assert limits.leases("") == {}


def test_more_keys_than_a_process_remembers(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.limits.limits._REMEMBERED", 10)
    for _ in range(2):
        for number in range(25):
            limits.change(f"c{number}", NOW, count)
            limits.take([Take(f"r{number}", Rate(1, 1, 9))], NOW)
    assert [cell.value for cell in limits.cells("", NOW)] == [2] * 25
    assert {one.available for one in limits.rates("", NOW)} == {7}
