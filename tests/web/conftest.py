"""A real gateway for the tests of its HTTP service."""

from __future__ import annotations

from tests.e2e.conftest import make_gateway as make_gateway
