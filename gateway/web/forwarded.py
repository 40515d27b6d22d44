"""Who the client is, by what proxies say of it (X-Forwarded-For). Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address


def client_address(values: Sequence[bytes], trusted: Callable[[str], bool]) -> str | None:
    """The last address in X-Forwarded-For fields that is no trusted proxy's.

    Each proxy adds on the right whom it got the request from, so what stands left of the first
    address that is not trusted may be invented. If all are trusted, the leftmost is the client.

    Args:
        values: the values of the fields, in their order.
        trusted: whether an address is that of a trusted proxy.

    Returns:
        None if no address was found: a value that is none ends the search.
    """
    found = None
    for text in reversed(b",".join(values).decode("latin-1").split(",")):
        address = _address(text.strip())
        if address is None:
            return found
        found = address
        if not trusted(address):
            return found
    return found


def _address(text: str) -> str | None:
    """An IP address that may have a port: `192.0.2.1:80`, `[2001:db8::1]:80`, `[2001:db8::1]`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        # Without a zone: it may be any text.
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
