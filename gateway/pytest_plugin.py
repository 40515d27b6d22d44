"""Fixtures for tests of plugins. pytest finds them where mail-gateway is installed.

All that they need is imported when a test asks for it: in every other run of pytest this module
costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gateway.testing import Clock, FakeDns, Gateway, MemoryGateway, NextHop


@pytest.fixture
def clock() -> Clock:
    """The wall clock of the gateways of this test; it stands still until it is moved."""
    from gateway.testing import Clock

    return Clock()


@pytest.fixture
def fake_dns() -> FakeDns:
    """What the DNS says to the gateways of this test: `fake_dns.zones["example.com"] = ...`."""
    from gateway.testing import FakeDns

    return FakeDns({})


@pytest.fixture
def next_hop() -> NextHop:
    """The server that the running gateway of this test delivers to."""
    from gateway.testing import NextHop

    return NextHop()


@pytest.fixture
def gateway(clock: Clock, fake_dns: FakeDns) -> Iterator[Callable[..., MemoryGateway]]:
    """Makes gateways in memory: `gateway(Footer(FooterConfig(text="x"))).send(mail())`.

    The arguments are those of `MemoryGateway`. They are closed in the end, and what plugins did
    wrong in `stop` fails the test.
    """
    from gateway.testing import MemoryGateway

    with ExitStack() as stack:

        def make(*plugins: Any, **options: Any) -> MemoryGateway:
            __tracebackhide__ = True
            defaults = {"clock": clock, "dns": fake_dns}
            made = MemoryGateway(*plugins, **{**defaults, **options})
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def running_gateway(clock: Clock, fake_dns: FakeDns, next_hop: NextHop) -> Callable[..., Gateway]:
    """Makes gateways on real sockets, with the arguments of `Gateway`.

    `async with running_gateway(Footer(FooterConfig(text="x"))) as gateway: ...`
    """
    from gateway.testing import Gateway

    def make(*plugins: Any, **options: Any) -> Gateway:
        defaults = {"clock": clock, "dns": fake_dns, "next_hop": next_hop}
        return Gateway(*plugins, **{**defaults, **options})

    return make
