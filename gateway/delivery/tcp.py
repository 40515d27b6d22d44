"""TCP connections from a chosen address."""

from __future__ import annotations

import asyncio
import socket

# Linux: the port is chosen at connect(2), so that all of them serve for each destination.
_IP_BIND_ADDRESS_NO_PORT = 24


async def connect(address: str, port: int, source: str | None, timeout: float) -> socket.socket:
    """Connects to an IP address, from the address `source` if it is not None.

    Raises:
        TimeoutError: that took longer than `timeout` seconds.
        OSError: it is not possible.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        if source is not None:
            if family == socket.AF_INET:
                connecting.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            connecting.bind((source, 0))
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(connecting, (address, port))
    except BaseException:
        connecting.close()
        raise
    return connecting
