"""All examinations, and how they are run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from gateway.doctor import (
    access,
    backlog,
    certificates,
    clock,
    descriptors,
    listeners,
    log_file,
    names,
    next_hops,
    plugin_checks,
    processes,
    sender_domains,
    shards,
    spool_folder,
)
from gateway.doctor.finding import Finding, problem
from gateway.doctor.site import Site

Examination = Callable[[Site], Iterator[Finding] | AsyncIterator[Finding]]


@dataclass(frozen=True, slots=True)
class Area:
    """Something that is examined.

    Attributes:
        examine: says what it finds.
        dns: whether it asks the DNS.
    """

    examine: Examination
    dns: bool = False


AREAS: Mapping[str, Area] = {
    "configuration": Area(access.examine),
    "spool": Area(spool_folder.examine),
    "shards": Area(shards.examine),
    "log": Area(log_file.examine),
    "clock": Area(clock.examine),
    "files": Area(descriptors.examine),
    "listen": Area(listeners.examine),
    "certificates": Area(certificates.examine),
    "processes": Area(processes.examine),
    "queue": Area(backlog.examine),
    "relay": Area(next_hops.examine, dns=True),
    "names": Area(names.examine, dns=True),
    "plugins": Area(plugin_checks.examine, dns=True),
    "senders": Area(sender_domains.examine, dns=True),
}
"""What is examined, in the order in which it is told."""


def chosen(only: Collection[str], *, dns: bool) -> list[str]:
    """The areas that are wanted; all of them if none is named."""
    return [
        name
        for name, area in AREAS.items()
        if (name in only if only else True) and (dns or not area.dns)
    ]


async def examine(
    site: Site, areas: Collection[str], advance: Callable[[str], object]
) -> dict[str, list[Finding]]:
    """Examines these areas, one after the other; `advance` is told the name of each that ended.

    What an examination cannot do is a problem that it found.
    """
    found: dict[str, list[Finding]] = {}
    for name in areas:
        try:
            found[name] = await _findings(AREAS[name].examine, site)
        except Exception as error:
            told = f"it could not be examined: {type(error).__name__}: {error}"
            found[name] = [problem(told, "run doctor as the gateway's user")]
        advance(name)
    return found


async def _findings(examination: Examination, site: Site) -> list[Finding]:
    result = await asyncio.to_thread(_begun, examination, site)
    if isinstance(result, list):
        return result
    return [finding async for finding in result]


def _begun(examination: Examination, site: Site) -> list[Finding] | AsyncIterator[Finding]:
    """What a plain examination finds, in a thread: it may wait for a disk."""
    result = examination(site)
    return list(result) if isinstance(result, Iterator) else result
