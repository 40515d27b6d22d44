"""Sites to examine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.configuration.config import load_config
from gateway.doctor.examination import AREAS
from gateway.doctor.finding import Finding, Severity
from gateway.doctor.running import Running
from gateway.doctor.site import Site
from gateway.hooks.load import load_plugins
from gateway.resolver import Resolver
from gateway.testing import FakeDns
from gateway.testing.dns import Failure, Records

BASE = """
hostname: gw.example.com
spool: {path: spool, reserve: 1}
listen: [{address: '127.0.0.1:0', allow: [127.0.0.0/8]}]
"""


def site_of(folder: Path, text: str = "", base: str = BASE, **more: Any) -> Site:
    """A site with this in its gateway.yaml; nothing runs."""
    path = folder / "gateway.yaml"
    path.write_text(base + text)
    config = load_config(path)
    resolver = more.pop("resolver", None) or Resolver(["127.0.0.1:9"], 0.5)
    running = more.pop("running", Running())
    return Site(config, load_plugins(config), resolver, resolver, running, **more)


async def found(area: str, site: Site) -> list[Finding]:
    """What an examination finds."""
    result = AREAS[area].examine(site)
    if isinstance(result, Iterator):
        return await asyncio.to_thread(list, result)
    return [finding async for finding in result]


async def texts(area: str, site: Site, severity: Severity) -> list[str]:
    """The sentences of one severity."""
    return [one.text for one in await found(area, site) if one.severity == severity]


@asynccontextmanager
async def resolving(zones: Mapping[str, Records | Failure]) -> AsyncIterator[Resolver]:
    """A resolver that knows these names."""
    async with FakeDns(zones) as server:
        resolver = Resolver([server.address], 2.0, hosts=Path("/nowhere"), loopback=True)
        try:
            yield resolver
        finally:
            await resolver.close()
