"""The addresses that clients connect to: free or served, by whom, and with which certificate."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.configuration.config import Listen
from gateway.configuration.endpoint import Endpoint
from gateway.doctor.finding import Finding, note, ok, problem, warning
from gateway.doctor.site import Site

TIMEOUT = 10.0

LONGEST_REPLY = 16 << 10

_REASONS = {
    errno.EADDRINUSE: ("another program listens there", "stop it, or take another port"),
    errno.EADDRNOTAVAIL: ("this machine does not have the address", "correct listen.address"),
    errno.EACCES: (
        "this user may not listen on a port below 1024",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit",
    ),
}


async def examine(site: Site) -> AsyncIterator[Finding]:
    """What is to be said of each address."""
    for listen in site.config.listen:
        if not listen.address.port:
            yield note(f"{listen.address}: the system chooses the port")
        elif site.running:
            for finding in await asyncio.to_thread(_spoken, listen, site.config.hostname):
                yield finding
        else:
            yield _bindable(listen.address)
    http = site.config.http
    if http is not None and http.address.port and not site.running:
        yield _bindable(http.address)


def reachable(host: str) -> str:
    """Where a client on this machine connects to a socket that listens at an address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def _bindable(endpoint: Endpoint) -> Finding:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((endpoint.host, endpoint.port))
        except OSError as error:
            reason, remedy = _REASONS.get(error.errno or 0, (error.strerror, "see bind(2)"))
            if error.errno == errno.EACCES:
                return warning(f"{endpoint} cannot be tried as this user: {reason}", remedy)
            return problem(f"{endpoint} cannot be listened on: {reason}", remedy)
    return ok(f"{endpoint} is free")


def _spoken(listen: Listen, hostname: str) -> list[Finding]:
    """What a client hears there."""
    address = listen.address
    try:
        with socket.create_connection((reachable(address.host), address.port), TIMEOUT) as plain:
            return _heard(listen, hostname, plain)
    except (OSError, ValueError) as error:
        return [problem(f"{address} does not answer: {error}", "search the log for it; ss -ltnp")]


def _heard(listen: Listen, hostname: str, sock: socket.socket) -> list[Finding]:
    """What there is to say of an open connection.

    Raises:
        OSError: it breaks, or there is no TLS.
        ValueError: what comes is no SMTP.
    """
    address, tls = listen.address, listen.tls
    # The certificate is compared with the file, which says more than a chain would.
    context = ssl._create_unverified_context()  # noqa: S323
    if tls is not None and tls.mode == "implicit":
        sock = context.wrap_socket(sock)
    with sock:
        code, banner = _reply(sock)
        if code != 220:
            remedy = "a plugin's hook connect, or limits, refuse this machine"
            return [warning(f"{address} answers {code} {banner}", remedy)]
        if banner.partition(" ")[0].lower() != hostname.lower():
            told = f"at {address} speaks another program, or another hostname: {banner}"
            return [problem(told, f"expected {hostname}; see who it is: ss -ltnp")]
        found = [ok(f"{address} is served")]
        if tls is None:
            return found
        if not isinstance(sock, ssl.SSLSocket):
            for command in (b"EHLO doctor.invalid\r\n", b"STARTTLS\r\n"):
                sock.sendall(command)
                code, text = _reply(sock)
                if code not in (220, 250):
                    remedy = 'search the log for "STARTTLS"'
                    return [*found, problem(f"{address} does no TLS: {code} {text}", remedy)]
            with context.wrap_socket(sock) as secured:
                shown = secured.getpeercert(binary_form=True)
        else:
            shown = sock.getpeercert(binary_form=True)
        return [*found, *_presented(address, shown, tls.certificate)]


def _reply(sock: socket.socket) -> tuple[int, str]:
    """A reply: its code, and the text of its last line.

    Raises:
        ValueError: it is none.
    """
    octets = b""
    while not re.search(rb"^\d{3}(?: [^\n]*)?\r\n\Z", octets, re.MULTILINE):
        block = sock.recv(4096)
        octets += block
        if not block or len(octets) > LONGEST_REPLY:
            raise ValueError("what comes is no SMTP")
    last = octets.decode("utf-8", "replace").splitlines()[-1]
    return int(last[:3]), last[4:]


def _presented(address: Endpoint, shown: bytes | None, path: Path) -> list[Finding]:
    """Whether the certificate that clients see is the one in the file."""
    try:
        first = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError):
        return []  # the examination of the certificates says so
    if first.public_bytes(Encoding.DER) == shown:
        return []
    return [
        warning(
            f"{address} shows another certificate than {path}: it was renewed, and not reloaded",
            "systemctl reload mail-gateway",
        )
    ]
