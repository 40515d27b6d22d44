"""The listening sockets: one for each address and slot, held as long as the supervisor runs.

A slot's socket outlives its process, so connections that wait on it survive the process's death and
every reload. The kernel spreads new connections over the slots (SO_REUSEPORT), and `handover.py`
evens that out.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import TypeAlias

from gateway.configuration.endpoint import Endpoint
from gateway.process.assignment import BACKLOG

Slots: TypeAlias = Sequence[tuple[Endpoint, int]]
"""Endpoints to listen on, each with the number of processes that share it."""


class BindError(Exception):
    """An address that cannot be listened on; the text names it and gives the reason."""


class ListenSockets:
    """The bound sockets by address and slot."""

    def __init__(self) -> None:
        self._sockets: dict[str, list[socket.socket]] = {}

    def open(self, wanted: Slots) -> None:
        """Binds what is missing so that each endpoint has at least as many sockets as slots.

        Nobody can connect to a new one before a process listens on it. Where an endpoint has port
        0, all its slots share the port that the system chose.

        Raises:
            BindError: an address is taken, not ours or not allowed. What was bound before it stays
                until `trim`.
        """
        if len(dict(wanted)) < len(wanted):
            raise BindError("an address to listen on is given twice")
        for endpoint, slots in wanted:
            bound = self._sockets.setdefault(str(endpoint), [])
            try:
                while len(bound) < slots:
                    bound.append(self._bind(endpoint, bound))
            except OSError as error:
                raise BindError(f"cannot listen on {endpoint}: {_reason(error)}") from error

    def _bind(self, endpoint: Endpoint, bound: Sequence[socket.socket]) -> socket.socket:
        if bound:
            return _bound_socket(bound[0].family, bound[0].getsockname(), shared=True)
        family, _, _, _, address = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        ours = {held[0].getsockname()[1] for held in self._sockets.values() if held}
        if endpoint.port and endpoint.port not in ours:
            # Shared sockets would join those of another gateway without a word.
            _bound_socket(family, address, shared=False).close()
        return _bound_socket(family, address, shared=True)

    def slot(self, index: int, endpoints: Sequence[Endpoint]) -> dict[str, socket.socket]:
        """The sockets of one process, by the endpoint's text."""
        return {str(endpoint): self._sockets[str(endpoint)][index] for endpoint in endpoints}

    def listen(self) -> None:
        """Makes every socket hold `BACKLOG` waiting connections, whatever its process asked for."""
        for bound in self._sockets.values():
            for listener in bound:
                listener.listen(BACKLOG)

    def trim(self, wanted: Slots = ()) -> None:
        """Closes what is in no slot of these endpoints.

        A process that still holds such a socket goes on with it until it closes its own.
        """
        kept = {str(endpoint): slots for endpoint, slots in wanted}
        for name in list(self._sockets):
            first = kept.get(name, 0)
            for listener in self._sockets[name][first:]:
                listener.close()
            del self._sockets[name][first:]
            if not self._sockets[name]:
                del self._sockets[name]

    def address(self, endpoint: Endpoint) -> str:
        """Where clients connect to, with the port that was chosen."""
        return str(Endpoint(*self._sockets[str(endpoint)][0].getsockname()[:2]))


def _bound_socket(family: int, address: object, *, shared: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)  # type: ignore[arg-type]
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _reason(error: OSError) -> str:
    hints = {
        errno.EADDRINUSE: "another program listens there",
        errno.EADDRNOTAVAIL: "this machine does not have the address",
        errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE",
    }
    text = error.strerror or str(error)
    hint = hints.get(error.errno or 0)
    return f"{text} ({hint})" if hint else text
