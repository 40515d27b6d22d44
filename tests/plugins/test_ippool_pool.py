"""Which source of a pool is taken: shares of chance, and pairs that keep their source."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Source
from plugins.ippool.pool import ANY, V4, V6, Member, Pool

WEIGHTS = {"a": 1, "b": 2, "c": 5}


def _members(weights: dict[str, int]) -> list[Member]:
    return [
        Member(name, Source(f"127.0.0.{number}", f"{name}.example.com"), weight)
        for number, (name, weight) in enumerate(weights.items(), 2)
    ]


def _chi_square(counts: Counter[str], weights: dict[str, int]) -> float:
    total, sum_ = sum(counts.values()), sum(weights.values())
    expected = {name: total * weight / sum_ for name, weight in weights.items()}
    return sum((counts[name] - one) ** 2 / one for name, one in expected.items())


def test_chance_goes_by_weight() -> None:
    chance = random.Random(1).random
    pool = Pool("pool", _members(WEIGHTS))
    counts = Counter(pool.one(chance()).name for _ in range(20_000))
    # Of two degrees of freedom, 13.8 is exceeded once in a thousand times.
    assert _chi_square(counts, WEIGHTS) < 13.8


def test_the_first_of_those_that_are_drawn_goes_by_weight_too() -> None:
    chance = random.Random(2).random
    pool = Pool("pool", _members(WEIGHTS))
    counts = Counter(next(pool.drawn(pool.members, chance)).name for _ in range(20_000))
    assert _chi_square(counts, WEIGHTS) < 13.8


def test_the_second_goes_by_the_weights_of_those_that_are_left() -> None:
    chance = random.Random(3).random
    pool = Pool("pool", _members(WEIGHTS))
    after_c: Counter[str] = Counter()
    while after_c.total() < 10_000:
        first, second, _ = pool.drawn(pool.members, chance)
        if first.name == "c":
            after_c[second.name] += 1
    assert _chi_square(after_c, {"a": 1, "b": 2}) < 10.8  # one degree of freedom


@given(weights=st.lists(st.integers(1, 1000), min_size=1, max_size=8), seed=st.integers(0, 1 << 30))
def test_drawing_gives_each_once(weights: list[int], seed: int) -> None:
    pool = Pool("pool", _members({f"s{number}": one for number, one in enumerate(weights)}))
    drawn = list(pool.drawn(pool.members, random.Random(seed).random))
    assert Counter(drawn) == Counter(pool.members)


@given(
    chance=st.floats(0, 1, exclude_max=True), weights=st.lists(st.integers(1, 10**6), min_size=1)
)
def test_every_chance_is_a_member(chance: float, weights: list[int]) -> None:
    pool = Pool("pool", _members({f"s{number}": one for number, one in enumerate(weights)}))
    assert pool.one(chance) in pool.members


PAIRS = [
    (f"shop{one}.example.com", f"domain{two}.example") for one in range(40) for two in range(100)
]


def test_pairs_are_spread_by_weight() -> None:
    pool = Pool("pool", _members(WEIGHTS), sticky=True)
    counts = Counter(pool.order(*pair)[0].name for pair in PAIRS)
    assert _chi_square(counts, WEIGHTS) < 13.8


def test_a_pair_keeps_its_source_in_every_process() -> None:
    """What a process works out must not depend on it, as `hash` of a text does."""
    pool = Pool("pool", _members(WEIGHTS), sticky=True)
    assert [one.name for one in pool.order("shop.example.com", "example.net")] == ["b", "a", "c"]
    assert [one.name for one in pool.order("bank.example.com", "example.net")] == ["c", "b", "a"]


def test_a_source_more_moves_only_what_it_takes() -> None:
    before = Pool("pool", _members(WEIGHTS), sticky=True)
    after = Pool("pool", _members({**WEIGHTS, "d": 2}), sticky=True)
    moved = Counter(
        after.order(*pair)[0].name
        for pair in PAIRS
        if after.order(*pair)[0].name != before.order(*pair)[0].name
    )
    assert set(moved) == {"d"}
    assert abs(moved["d"] - len(PAIRS) * 2 / 10) < 100


def test_a_source_less_moves_only_what_it_had() -> None:
    before = Pool("pool", _members(WEIGHTS), sticky=True)
    after = Pool("pool", _members({"a": 1, "b": 2}), sticky=True)
    for pair in PAIRS:
        order = [one.name for one in before.order(*pair) if one.name != "c"]
        assert [one.name for one in after.order(*pair)] == order


def test_many_pairs_take_no_more_memory_and_are_still_right() -> None:
    pool = Pool("pool", _members(WEIGHTS), sticky=True)
    first = pool.order("shop.example.com", "example.net")
    for number in range(10_000):
        pool.order("shop.example.com", f"d{number}.example")
    assert pool.order("shop.example.com", "example.net") == first


def test_a_pool_has_the_families_of_all_that_it_falls_back_to() -> None:
    six = Member("six", Source("::1", "six.example.com"))
    (four,) = _members({"four": 1})
    last = Pool("last", [four])
    first = Pool("first", [six], fallback=last)
    assert (last.families, first.families) == (V4, ANY)
    assert Pool("alone", [six]).families == V6
    assert [pool.name for pool in first.chain] == ["first", "last"]
