"""What stays behind after some hundred messages: tasks, threads, open files, memory, warnings."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import threading
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gateway.events import Event
from gateway.testing.conformance.examination import Examination
from gateway.testing.conformance.journey import attempt, deliveries, outcomes, send
from gateway.testing.conformance.site import Instance
from gateway.testing.conformance.source import shown
from gateway.testing.corpus import Sample

ROUNDS = 7
SETTLED = 3
"""Rounds after which caches are full, and what still grows does not stop."""
MESSAGES = 40
TOLERATED = 100
"""Octets of memory a message that are nothing yet."""
LEAK = 1000
"""Octets of memory a message, from which on it is an error."""

_Cache = functools._lru_cache_wrapper
_SMALL = 16
"""Entries of a cache that are not worth emptying it."""
_DESCRIPTORS = Path("/proc/self/fd")
_FRAMES = 12
_POOLS = ("asyncio_", "ThreadPoolExecutor")
"""How the threads of the interpreter's own pools are called, which stay on purpose."""


@dataclass(frozen=True, slots=True)
class _State:
    tasks: Counter[str]
    threads: Counter[str]
    descriptors: int
    memory: int


async def check(examination: Examination) -> str:
    """Sends the same messages in rounds, an hour of the clock apart, and counts what is left."""
    examination.require_start()
    site = examination.site
    instance, service = site.instance(), site.instance("service")
    around = _tasks(), threading.enumerate(), _descriptors()
    await site.start(instance)
    await site.start(service)
    running = _tasks()
    messages = [
        sample
        for sample in examination.samples
        if len(sample.content) < 10_000 and len(sample.recipients) < 10
    ]
    messages = messages[:: max(1, len(messages) // MESSAGES)][:MESSAGES]
    states: list[_State] = []
    gc.collect()
    caches = _caches()
    # What is there already is not looked at again and again.
    gc.freeze()
    tracemalloc.start(_FRAMES)
    try:
        for number in range(ROUNDS):
            await _round(examination, instance, service, messages, number)
            if number == SETTLED:
                settled = _snapshot(caches)
            states.append(await _state(running, caches))
            examination.advance((number + 1) / ROUNDS)
        _check_memory(examination, states, settled, caches, len(messages))
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    _check_growth(examination, states)
    for one in (instance, service):
        try:
            await site.stop(one)
        except Exception as error:
            place = examination.candidate.source.of_error(error)
            examination.error(f"stop raises {type(error).__name__}: {error}", place)
    await _check_rest(examination, *around)
    for text, place in examination.warned:
        examination.error(text, place)
    return f"{ROUNDS * len(messages)} messages"


async def _round(
    examination: Examination,
    instance: Instance,
    service: Instance,
    messages: list[Sample],
    number: int,
) -> None:
    site = examination.site
    site.now += 3600.0
    ends = outcomes()
    for position, sample in enumerate(messages):
        queue_id = f"LEAK{number}{position:04}"
        journey = await send(instance, sample, queue_id, site.now)
        outcome = ends[position % len(ends)]
        for copy in journey.copies:
            for delivery in deliveries(copy, site.now):
                await attempt(instance, delivery, outcome)
        event = Event("delivered", site.now, queue_id, sample.sender, sample.recipients[0])
        for step in service.chain.steps["observe"]:
            if event.type in step.interest:
                await service.chain.observe(step, [event])
    site.events.clear()


def _tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks()


def _descriptors() -> dict[str, str]:
    """What is open, by number; nothing where the system does not say."""
    found = {}
    if _DESCRIPTORS.is_dir():
        for descriptor in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - links that lead to no path
            try:
                found[descriptor] = os.readlink(_DESCRIPTORS / descriptor)  # noqa: PTH115
            except OSError:
                continue  # that of the listing itself
    return found


async def _state(running: set[asyncio.Task[Any]], caches: Sequence[_Cache[Any]]) -> _State:
    await _settle()
    _forget(caches)
    return _State(
        Counter(map(_name, _tasks() - running)),
        Counter(
            thread.name.rstrip("0123456789")
            for thread in threading.enumerate()
            if not thread.name.startswith(_POOLS)
        ),
        len(_descriptors()),
        tracemalloc.get_traced_memory()[0],
    )


async def _settle() -> None:
    """Lets what is about to end do so."""
    for _ in range(10):
        await asyncio.sleep(0.002)


def _name(task: asyncio.Task[Any]) -> str:
    running = task.get_coro()
    code = getattr(running, "cr_code", None)
    name = getattr(running, "__qualname__", repr(running))
    return f"{name} ({shown(code.co_filename)}:{code.co_firstlineno})" if code else str(name)


# Memory.


def _snapshot(caches: Sequence[_Cache[Any]]) -> tracemalloc.Snapshot:
    _forget(caches)
    return tracemalloc.take_snapshot()


def _caches() -> list[_Cache[Any]]:
    """The caches of the gateway, which are bounded."""
    return [
        one
        for one in gc.get_objects()
        if isinstance(one, _Cache) and (one.__module__ or "").startswith("gateway.")
    ]


def _forget(caches: Sequence[_Cache[Any]]) -> None:
    """Empties these caches and those that were made since, and collects what is not used."""
    for one in (*caches, *_caches()):
        if one.cache_info().currsize > _SMALL:
            one.cache_clear()
    gc.collect()


def _check_memory(
    examination: Examination,
    states: list[_State],
    settled: tracemalloc.Snapshot,
    caches: Sequence[_Cache[Any]],
    messages: int,
) -> None:
    memory = [state.memory for state in states[SETTLED:]]
    least = min(after - before for before, after in pairwise(memory))
    grown = least // messages
    if grown < TOLERATED:
        return
    differences = [
        one
        for one in _snapshot(caches).compare_to(settled, "traceback")
        if not any(_is_apart(frame.filename) for frame in one.traceback)
    ]
    grown = min(grown, sum(one.size_diff for one in differences) // messages // (len(memory) - 1))
    place = ""
    for statistic in differences:
        frames = [(frame.filename, frame.lineno) for frame in reversed(statistic.traceback)]
        place = examination.candidate.source.first(frames)
        if place and statistic.size_diff > 0:
            break
    if grown < TOLERATED:
        return
    text = f"keeps {grown} octets of memory for each message, for ever; forget what is over"
    if grown >= LEAK:
        examination.error(text, place)
    else:
        examination.warn(f"{text}, or bound it, as functools.lru_cache(maxsize=...) does", place)


def _is_apart(file: str) -> bool:
    """Whether memory is that of measuring, or of where limits are, which is bounded."""
    return file == tracemalloc.__file__ or "/gateway/limits/" in file


# Tasks, threads and files.


def _check_growth(examination: Examination, states: list[_State]) -> None:
    first, last = states[1], states[-1]
    for name, count in last.tasks.items():
        grown = count - first.tasks[name]
        if grown >= ROUNDS - 2:
            examination.error(
                f"leaves tasks behind: {count} of {name} still run; await them, or cancel them"
            )
    for name, count in last.threads.items():
        if count - first.threads[name] >= ROUNDS - 2:
            examination.error(
                f"starts threads that do not end: {count} of {name}; use asyncio.to_thread(...), "
                "or a pool that start makes and stop closes"
            )
    if last.descriptors - first.descriptors >= ROUNDS - 2:
        grown = last.descriptors - first.descriptors
        examination.error(
            f"leaves {grown} files or connections open after {(ROUNDS - 2) * MESSAGES} messages; "
            "close them, best by `with`"
        )


async def _check_rest(
    examination: Examination,
    tasks: set[asyncio.Task[Any]],
    threads: list[threading.Thread],
    descriptors: dict[str, str],
) -> None:
    await _settle()
    gc.collect()
    for name in sorted(set(map(_name, _tasks() - tasks))):
        if not any(name in finding.text for finding in examination.findings):
            examination.error(f"the task {name} still runs after stop; cancel it there")
    for thread in threading.enumerate():
        if thread not in threads and not thread.name.startswith(_POOLS):
            text = f"the thread {thread.name} still runs after stop; end it there"
            if thread.daemon:
                examination.warn(text)
            else:
                examination.error(f"{text}, for it keeps the process from ending")
    left = {
        target
        for descriptor, target in _descriptors().items()
        if descriptors.get(descriptor) != target and not target.startswith("anon_inode:")
    }
    for target in sorted(left - set(descriptors.values())):
        examination.warn(f"{target} is still open after stop; close it there")
