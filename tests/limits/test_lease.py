"""Leases in one process and two."""

from __future__ import annotations

import gc

import pytest

from gateway.limits import Limits, LimitsFullError
from gateway.limits.layout import SLOT_COUNT
from tests.limits.conftest import Open


def test_a_ceiling_counts_over_all_processes(open_limits: Open) -> None:
    one, other = open_limits(), open_limits()
    leases = [one.lease({"site": 3}), other.lease({"site": 3}), one.lease({"site": 3})]
    assert all(leases)
    assert one.leased("site") == other.leased("site") == 3
    assert other.lease({"site": 3}) is None
    fourth = other.lease({"site": 4})
    assert fourth is not None
    for lease in (*leases, fourth):
        assert lease is not None
        lease.release()
        lease.release()
    assert one.leased("site") == 0
    assert one.leased("other") == 0


def test_all_ceilings_or_none(limits: Limits) -> None:
    held = limits.lease({"a": 1})
    assert held is not None
    for _ in range(5):
        assert limits.lease({"b": 1, "a": 1, "c": 1}) is None
    assert limits.leases("") == {"a": 1}
    held.release()
    both = limits.lease({"b": 1, "a": 1})
    assert both is not None
    assert limits.leases("") == {"a": 1, "b": 1}
    assert limits.leases("b") == {"b": 1}


@pytest.mark.parametrize("ceiling", [0, -1])
def test_a_ceiling_of_nothing_is_always_reached(limits: Limits, ceiling: int) -> None:
    assert limits.lease({"a": 5, "b": ceiling}) is None
    assert limits.lease({"b": ceiling}) is None
    assert limits.leases("") == {}


def test_without_ceilings_there_is_always_a_lease(limits: Limits) -> None:
    lease = limits.lease({})
    assert lease is not None
    lease.release()
    assert limits.leases("") == {}


def test_a_process_that_closes_gives_all_back(open_limits: Open) -> None:
    one, other = open_limits(), open_limits()
    leases = [one.lease({"a": 9, "b": 9}) for _ in range(9)]
    assert other.lease({"a": 9}) is None
    one.close()
    assert other.leased("a") == 0
    lease = other.lease({"a": 9, "b": 1})
    assert lease is not None
    assert other.leases("") == {"a": 1, "b": 1}
    for stale in leases:
        assert stale is not None
        stale.release()
    assert other.leases("") == {"a": 1, "b": 1}


def test_who_takes_over_a_slot_begins_with_nothing(open_limits: Open) -> None:
    one = open_limits()
    leases = [one.lease({"a": 5}), one.lease({"b": 5})]
    assert all(leases)
    one.close()
    other = open_limits()
    lease = other.lease({"c": 5})
    assert lease is not None
    assert other.leases("") == {"c": 1}
    assert open_limits().leases("") == {"c": 1}


def test_a_lease_that_is_forgotten_is_given_back(open_limits: Open) -> None:
    one, other = open_limits(), open_limits()
    assert one.lease({"a": 1, "b": 2}) is not None
    gc.collect()
    lease = one.lease({"a": 1})
    assert lease is not None
    assert other.leases("") == {"a": 1}


def test_leases_survive_what_others_need_place_for(open_limits: Open) -> None:
    one, other = open_limits(places=3), open_limits()
    first = one.lease({"a": 1, "b": 1})
    assert first is not None
    for name in "cdefg":
        lease = other.lease({name: 1})
        assert lease is not None
        assert other.lease({"a": 1}) is None
        lease.release()
    with pytest.raises(LimitsFullError):
        other.lease({"x": 1, "y": 1})
    assert other.leases("") == {"a": 1, "b": 1}


def test_there_are_slots_for_so_many_processes(open_limits: Open) -> None:
    processes = [open_limits() for _ in range(SLOT_COUNT + 1)]
    leases = [limits.lease({"a": 1000}) for limits in processes[:-1]]
    assert processes[-1].leased("a") == SLOT_COUNT
    with pytest.raises(LimitsFullError, match=f"{SLOT_COUNT} processes hold leases"):
        processes[-1].lease({"a": 1000})
    processes[7].close()
    assert processes[-1].lease({"a": SLOT_COUNT}) is not None
    assert leases[8] is not None
