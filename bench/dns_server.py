"""A name server for the domains that mail of a case goes to, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gateway.testing import FakeDns

_LONG = 86_400


@contextmanager
def name_server(hops: Mapping[str, str]) -> Iterator[str]:
    """Serves an MX for each domain, which has the given address; gives `address:port` of itself."""
    zones: dict[str, dict[str, list[str]]] = {}
    for domain, address in hops.items():
        zones[domain] = {"MX": [f"10 mx.{domain}."]}
        zones[f"mx.{domain}"] = {"A": [address]}
    loop = asyncio.new_event_loop()
    server = FakeDns(zones, ttl=_LONG)
    loop.run_until_complete(server.__aenter__())
    thread = threading.Thread(target=loop.run_forever, name="dns", daemon=True)
    thread.start()
    try:
        yield server.address
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(server.__aexit__(None, None, None))
        loop.close()
