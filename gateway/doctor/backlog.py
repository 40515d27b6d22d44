"""What waits: mail in the queue, and events for observers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.doctor.finding import Finding, count, listed, note, ok, problem, warning
from gateway.doctor.site import Site
from gateway.queue.explanation import duration
from gateway.queue.listing import GroupStats, count_held, read_stats
from gateway.spool.held_reason import DAMAGED
from gateway.spool.outbox import count_waiting
from gateway.spool.shard_file import SpoolError, UnreadableShard

EVENTS = 10_000
"""Events from which on an observer is behind."""

MANY = 1000
"""Recipients that are tried again, from which on that is worth a warning."""


def examine(site: Site) -> Iterator[Finding]:
    """What is to be said of the queue and the outbox."""
    folder = site.config.spool.path
    # What is said of them is said with the shards.
    skipped: list[UnreadableShard] = []
    try:
        groups = read_stats(folder, skipped=skipped) if folder.is_dir() else []
        yield from _queue(site, groups)
        yield from _held(folder, sum(group.held for group in groups), skipped)
        yield from _outbox(site, {shard.number for shard in skipped})
        if skipped:
            names = [f"{shard.number:04d}" for shard in skipped]
            yield problem(
                f"the mail in {count(len(names), 'shard')} is not counted: {listed(names)} "
                "cannot be read",
                "see what is said of the shards",
            )
    except SpoolError as error:
        yield problem(str(error), "see what is said of the shards")


def _queue(site: Site, groups: list[GroupStats]) -> Iterator[Finding]:
    active = sum(group.active for group in groups)
    deferred = sum(group.deferred for group in groups)
    scheduled = sum(group.scheduled for group in groups)
    waiting = active + deferred + scheduled
    told = f"{active:,} on their way, {deferred:,} to be tried again, {scheduled:,} for later"
    if waiting and not site.running:
        yield problem(
            f"{count(waiting, 'recipient')} wait, and nobody delivers: the gateway is not running",
            "start it: gateway run, or systemctl start mail-gateway",
        )
    elif deferred > max(MANY, active):
        lanes = [group.name for group in groups if group.deferred]
        yield warning(
            f"{told}; the longest lanes: {listed(lanes, 3)}",
            "gateway queue list --state deferred says why",
        )
    else:
        yield ok(told if waiting else "nothing waits in the queue")
    # What is held may be of any age.
    ages = [site.started - group.oldest for group in groups if group.oldest and not group.held]
    lifetime = site.config.retry.lifetime
    if max(ages, default=0.0) > lifetime / 2:
        yield note(
            f"the oldest mail is {duration(max(ages)).english} old; after "
            f"{duration(lifetime).english} it is given up, and its sender told",
            "gateway queue list --state deferred",
        )


def _held(folder: Path, held: int, skipped: list[UnreadableShard]) -> Iterator[Finding]:
    damaged = sum(count_held(folder, f"{DAMAGED}*", skipped).values()) if held else 0
    if damaged:
        yield problem(
            f"{count(damaged, 'recipient')} wait for mail that is damaged on the disk",
            "gateway queue list --state held; drop it, or send it anew; look at the disk: dmesg",
        )
    if held > damaged:
        yield note(
            f"{count(held - damaged, 'recipient')} held, until a person decides",
            "gateway queue list --state held",
        )


def _outbox(site: Site, unreadable: set[int]) -> Iterator[Finding]:
    observers = site.plugins_with("observe")
    if not observers:
        return
    waiting = count_waiting(site.config.spool.path, observers, unreadable)
    behind = {name: number for name, number in waiting.items() if number > EVENTS}
    for name, number in behind.items():
        yield warning(
            f"{count(number, 'event')} wait for {name}",
            f'search the log for "plugin {name} failed in observe"',
        )
    if not behind:
        most = max(waiting.values())
        yield ok(f"{count(len(observers), 'observer')}, at most {count(most, 'event')} behind")
