"""Tasks that plugins leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from gateway.testing.faults import Fault

T = TypeVar("T")

_TURNS = 20
"""Turns of the event loop that a task gets to end by itself."""


async def leaked(
    work: Coroutine[Any, Any, T], *, last: bool = False
) -> tuple[T, tuple[Fault, ...]]:
    """Awaits something, and returns its result and a fault for each task that it left running.

    If it is the `last` work of all, no older task may be there either.
    """
    before = {asyncio.current_task()} if last else asyncio.all_tasks()
    result = await work
    left: set[asyncio.Task[Any]] = set()
    for _ in range(_TURNS):
        left = asyncio.all_tasks() - before
        if not left:
            break
        await asyncio.sleep(0)
    return result, tuple(Fault(_described(task)) for task in left if not task.done())


def _described(task: asyncio.Task[Any]) -> str:
    running = task.get_coro()
    code = getattr(running, "cr_code", None)
    name = getattr(running, "__qualname__", repr(running))
    place = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return (
        f"a task was left running: {name}{place}; "
        "a task is awaited by the hook that makes it, or made in start and ended in stop"
    )
