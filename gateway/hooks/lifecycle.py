"""Starts and stops plugins in a process."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Sequence
from typing import Literal

from gateway.configuration.config import Config
from gateway.events import Event
from gateway.hooks.load import LoadedPlugin
from gateway.hooks.plugin import Context
from gateway.hooks.thread_context import for_threads
from gateway.hooks.watchdog import HookTimeoutError
from gateway.limits import Limits
from gateway.resolver import Resolver

log = logging.getLogger("gateway.plugins")


class PluginStartError(Exception):
    """A plugin could not start. The text names it and says why."""


def resolver_of(config: Config) -> Resolver:
    """A resolver as `dns` in gateway.yaml says."""
    dns = config.dns
    return Resolver(
        list(map(str, dns.nameservers)),
        dns.timeout,
        loopback=dns.loopback,
        authenticated=dns.authenticated,
    )


def context_of(
    name: str,
    config: Config,
    role: Literal["worker", "service", "command"],
    resolver: Resolver,
    limits: Limits,
    emit: Callable[[Event], asyncio.Future[None]],
) -> Context:
    """What the plugin of that name gets in a process of that role."""
    return Context(
        name=name,
        hostname=config.hostname,
        role=role,
        folder=config.spool.path / "plugins" / name.replace("/", "_"),
        base=config.base,
        clock=time.time,
        log=logging.getLogger(f"gateway.plugin.{name}"),
        resolver=resolver,
        limits=limits,
        emit=emit,
    )


async def start_plugins(
    plugins: Sequence[LoadedPlugin],
    config: Config,
    role: Literal["worker", "service"],
    resolver: Resolver,
    limits: Limits,
    emit: Callable[[Event], asyncio.Future[None]],
) -> None:
    """Runs the `start` hooks in the order of gateway.yaml; those of blocking plugins in a thread.

    Raises:
        PluginStartError: one failed; those that started before it have been stopped.
    """
    for position, plugin in enumerate(plugins):
        hook = plugin.hooks.get("start")
        if hook is None:
            continue
        name = plugin.entry.name
        try:
            context = context_of(name, config, role, resolver, limits, emit)
            if plugin.pool is not None:
                await plugin.pool.run(hook, for_threads(context), timeout=None)
                continue
            result = hook(context)
            if inspect.isawaitable(result):
                await result
        except (Exception, SystemExit) as error:
            log.debug("plugin %s cannot start", name, exc_info=True)
            if plugin.pool is not None:
                plugin.pool.close()
            await stop_plugins(plugins[:position])
            raise PluginStartError(
                f"plugin {name} cannot start: {type(error).__name__}: {error}"
            ) from error


async def stop_plugins(plugins: Sequence[LoadedPlugin]) -> None:
    """Runs the `stop` hooks, the last started first; failures are logged.

    That of a blocking plugin has the entry's `timeout`, and its threads end.
    """
    for plugin in reversed(plugins):
        name, hook = plugin.entry.name, plugin.hooks.get("stop")
        try:
            if hook is None:
                pass
            elif plugin.pool is not None:
                await plugin.pool.run(hook, timeout=plugin.entry.timeout)
            else:
                result = hook()
                if inspect.isawaitable(result):
                    await result
        except HookTimeoutError:
            log.error("plugin %s failed in stop: ran longer than %g s", name, plugin.entry.timeout)
        except (Exception, SystemExit):
            log.exception("plugin %s failed in stop", name)
        if plugin.pool is not None:
            plugin.pool.close()
