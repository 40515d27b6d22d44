"""Faults come in two forms: a short one at every run of the tests, a long one by `-m long`.

A test that asks for `scale` has both forms; one marked `long` has the long one only. With
GATEWAY_TEST_LONG=1 in the environment all tests run, those with two forms in the long one.
"""

from __future__ import annotations

import os
from typing import TypeVar

import pytest

from tests.e2e.conftest import make_gateway, sink
from tests.faults.figures import Figures

__all__ = ["make_gateway", "sink"]

LONGEST = 4 * 3600.0
"""Seconds after which a test in its long form is ended."""

T = TypeVar("T")


class Scale:
    """Gives the first of two values in the short form of a test, the second in its long form."""

    def __init__(self, is_long: bool) -> None:
        self._is_long = is_long

    def __call__(self, short: T, long: T) -> T:
        """One of the two."""
        return long if self._is_long else short


def _runs_long(config: pytest.Config) -> bool:
    by_environment = os.environ.get("GATEWAY_TEST_LONG") == "1"
    return by_environment or config.getoption("markexpr") == "long"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what has a long form as `long` where that is asked for, before others are left out."""
    if not _runs_long(config):
        return
    if config.option.markexpr == "not long":
        config.option.markexpr = ""
    for item in items:
        if "scale" in getattr(item, "fixturenames", ()):
            item.add_marker("long")
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONGEST))


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> Scale:
    """Sizes by the form that runs: `scale(10, 200)`."""
    return Scale(_runs_long(request.config))


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Keeps what the test measured for docs/reliability.md: `figures(7, failures=24, lost=0)`."""
    return Figures(request.node.name, _runs_long(request.config))
