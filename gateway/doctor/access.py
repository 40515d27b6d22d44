"""Who may relay, log in, and change what the gateway runs: its configuration and secret files."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from gateway.attempt import TlsLevel
from gateway.configuration.config import Config, Listen
from gateway.configuration.network import AnyNetwork
from gateway.configuration.relay import Login
from gateway.doctor.finding import Finding, count, note, ok, problem, warning
from gateway.doctor.site import Site


def examine(site: Site) -> Iterator[Finding]:
    """What is to be said of the configuration, once it has loaded."""
    config = site.config
    told = count(len(site.plugins), "plugin")
    yield ok(f"{config.path} and {told} load")
    findings = [*_relaying(site), *_files(config)]
    yield from findings
    if not findings:
        yield ok("only clients that are named, or logged in, may relay")
    if config.relay.tls.level is TlsLevel.NONE:
        yield warning(
            "relay.tls.level is none: all mail goes out in the clear",
            "leave it out: opportunistic costs nothing",
        )


def _relaying(site: Site) -> Iterator[Finding]:
    logins = bool(site.plugins_with("auth"))
    listeners = site.config.listen
    if not logins and not any(listen.allow or listen.users for listen in listeners):
        yield note("nobody may relay: no listener has allow or users", "see docs/configuration.md")
    for listen in listeners:
        for network in listen.allow:
            yield from _allowed(listen, network)
        if listen.plaintext_auth and not ip_address(listen.address.host).is_loopback:
            yield warning(
                f"at {listen.address} passwords pass in the clear (plaintext_auth)",
                "tls for that listener, and no plaintext_auth",
            )


def _allowed(listen: Listen, network: AnyNetwork) -> Iterator[Finding]:
    if ip_address(listen.address.host).is_loopback:
        return
    if network.prefixlen == 0:
        yield problem(
            f"everybody on the Internet may relay through {listen.address}: allow has {network}",
            "name your own networks, or have clients log in (users)",
        )
    elif network.is_global and network.prefixlen < (16 if network.version == 4 else 32):
        yield warning(
            f"{listen.address} lets a large part of the Internet relay: allow has {network}",
            "name your own networks only",
        )


def _files(config: Config) -> Iterator[Finding]:
    """Files that others may write or read who should not."""
    for path in (config.path, *_plugin_files(config)):
        mode = path.stat().st_mode if path.exists() else 0
        if mode & stat.S_IWOTH:
            yield problem(
                f"everybody may write {path}: who does runs programs as the gateway",
                f"chmod o-w {path}",
            )
    for path in _secrets(config):
        if path.stat().st_mode & stat.S_IRWXO:
            yield problem(f"everybody may read {path}, which has secrets", f"chmod o= {path}")


def _plugin_files(config: Config) -> Iterator[Path]:
    for entry in config.plugins:
        file = entry.reference.partition(".py")[0]
        if file != entry.reference:
            yield config.base / f"{file}.py"


def _secrets(config: Config) -> Iterator[Path]:
    yield from {listen.users for listen in config.listen if listen.users is not None}
    logins: list[Login | None] = [config.relay.login]
    logins += [route.login for route in config.relay.routes.values()]
    for login in logins:
        if login is not None and login.password_file is not None:
            yield login.password_file
