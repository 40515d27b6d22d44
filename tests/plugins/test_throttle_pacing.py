from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.throttle.pacing import Pacing
from tests.plugins.throttle_site import NOW, Site, admitted, delayed, delivery, passed


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def test_lanes_that_wait_for_one_limit_ask_in_turn(site: Site) -> None:
    plugin = site.plugin(default={"site": {"rate": "10/s"}})
    for _ in range(2):
        passed(plugin, 1, hosts=["mx.example"])
    waits = [
        delayed(plugin, delivery(f"d{number}.example", hosts=["mx.example"])).seconds
        for number in range(50)
    ]
    steps = [later - sooner for sooner, later in pairwise(waits)]
    assert min(steps) > 0.09
    assert max(steps) < 0.11
    # Whoever comes when it is called finds a place.
    start = site.now
    for number, wait in enumerate(waits):
        site.now = start + wait
        assert admitted(plugin, delivery(f"d{number}.example", hosts=["mx.example"]))


@given(
    st.lists(
        st.tuples(st.floats(0, 10), st.floats(0.001, 100), st.floats(0, 60), st.floats(0, 5)),
        min_size=1,
    )
)
def test_nobody_is_called_too_early_or_never(asked: list[tuple[float, ...]]) -> None:
    pacing, now = Pacing(), NOW
    for wait, interval, longest, passes in asked:
        said = pacing.wait("a", wait, interval, longest, now)
        assert wait <= said <= max(wait, longest) + 0.01
        now += passes


def test_pacing_forgets_what_is_past() -> None:
    pacing = Pacing()
    for number in range(10_001):
        pacing.wait(str(number), 0.1, 0.1, 30, NOW + number)
    assert len(pacing._next) <= 10_000
