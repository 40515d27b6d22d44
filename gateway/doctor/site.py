"""What is examined: a configuration, and the processes that run with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.configuration.config import Config
from gateway.doctor.plugin_checks import PluginCheck
from gateway.doctor.running import Running
from gateway.hooks.load import LoadedPlugin
from gateway.resolver import Resolver


@dataclass(frozen=True, slots=True)
class Site:
    """One gateway.

    Attributes:
        plugins: those of the configuration, loaded and not started.
        resolver: asks the DNS as the gateway does.
        outside: asks as others do, without the hosts file of this machine.
        running: the processes that were found.
        checks: what plugins say of themselves; None for one that was not asked.
        domains: domains of senders that somebody asked about; none: those that mail comes from.
        addresses: the addresses that mail leaves from, where somebody named them.
        started: when the examination began, in seconds since the epoch.
    """

    config: Config
    plugins: Sequence[LoadedPlugin]
    resolver: Resolver
    outside: Resolver
    running: Running
    checks: Sequence[PluginCheck] = ()
    domains: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    started: float = field(default_factory=time.time)

    def plugins_with(self, hook: str) -> list[str]:
        """The names of the entries whose plugin has a hook."""
        return [plugin.entry.name for plugin in self.plugins if hook in plugin.hooks]
