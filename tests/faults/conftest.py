"""Each test of a fault has a real gateway, and keeps its figures."""

from __future__ import annotations

import pytest

from tests.conftest import Scale, runs_long
from tests.e2e.conftest import make_gateway, sink
from tests.faults.figures import Figures

__all__ = ["Scale", "make_gateway", "sink"]


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Keeps what the test measured for docs/reliability.md: `figures(7, failures=24, lost=0)`."""
    return Figures(request.node.name, runs_long(request.config))
