from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.personalization.variants import Experiment, Variant

A, B, C = Variant("a", {}), Variant("b", {}), Variant("c", {})
PEOPLE = [f"person{number}@example.{'com' if number % 3 else 'jp'}" for number in range(20_000)]

ADDRESSES = st.builds(
    "{}@{}.example".format,
    st.text(string.ascii_letters + string.digits + "._-+", min_size=1, max_size=20),
    st.text(string.ascii_letters, min_size=1, max_size=10),
)


@given(ADDRESSES, st.text(max_size=20))
def test_a_person_always_sees_the_same_variant(address: str, campaign: str) -> None:
    chosen = Experiment(campaign, {A: 1, B: 2, C: 3}).choose(address)
    again = Experiment(campaign, {A: 1, B: 2, C: 3})
    for spelling in (address, address.upper(), address.title()):
        assert again.choose(spelling) is chosen


def test_the_choice_is_the_same_in_every_process_and_version() -> None:
    experiment = Experiment("spring-*", {A: 1, B: 1, C: 1})
    chosen = [experiment.choose(address).name for address in PEOPLE[:24]]
    assert "".join(chosen) == "cacbcbbbbcabbcccbccabcac"
    assert experiment.choose("太郎@日本語.example") is experiment.choose(
        "太郎@XN--WGV71A119E.example"
    )


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any), st.text(max_size=9))
def test_weights_are_respected(weights: list[int], campaign: str) -> None:
    variants = {Variant(str(number), {}): weight for number, weight in enumerate(weights)}
    experiment = Experiment(campaign, variants)
    people = PEOPLE[:4_000]
    counts = dict.fromkeys(variants, 0)
    for address in people:
        counts[experiment.choose(address)] += 1
    for variant, weight in variants.items():
        share = weight / sum(weights)
        # Six standard deviations, and none at all for a weight of 0.
        margin = 6 * (share * (1 - share) * len(people)) ** 0.5
        assert abs(counts[variant] - share * len(people)) <= margin


def test_a_new_share_moves_few_people() -> None:
    before = Experiment("x", {A: 50, B: 50})
    after = Experiment("x", {A: 60, B: 40})
    moved = [(before.choose(one).name, after.choose(one).name) for one in PEOPLE]
    assert ("a", "b") not in moved
    assert 0.09 < moved.count(("b", "a")) / len(PEOPLE) < 0.11


def test_experiments_are_independent_of_each_other() -> None:
    one, other = Experiment("one", {A: 1, B: 1}), Experiment("other", {A: 1, B: 1})
    both = sum(one.choose(person) is other.choose(person) is A for person in PEOPLE)
    assert 0.23 < both / len(PEOPLE) < 0.27


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("spring-*", ["spring-", "Spring-1"], ["spring", "my-spring-1", ""]),
        ("*", ["", "any\nthing"], []),
        ("a?c", ["abc", "A.C"], ["ac", "abbc"]),
        ("a[b].c", ["a[b].c"], ["ab.c", "a[b]xc"]),
        ("", [""], ["x"]),
    ],
)
def test_an_experiment_concerns_the_campaigns_of_its_glob(
    glob: str, matching: list[str], others: list[str]
) -> None:
    experiment = Experiment(glob, {A: 1})
    assert all(map(experiment.concerns, matching))
    assert not any(map(experiment.concerns, others))
