"""Samples of where a worker was: which stage of a message's way each belongs to. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.table import aligned

LOOP = "event loop, sockets"
"""What runs while no Python code does: uvloop, and the system calls that it makes."""

SERVICE = "service process"

_STAGES = (
    (re.compile(r"\(plugins/(\w+)[/.]"), r"plugin \1"),
    (re.compile(r"\(gateway/spool/"), "spool"),
    (re.compile(r"\(gateway/delivery/"), "delivery"),
    (re.compile(r"\(gateway/queue/"), "queue"),
    (re.compile(r"\(gateway/hooks/"), "chain"),
    (re.compile(r"\(gateway/smtp/"), "reception"),
    (re.compile(r"\(gateway/log\w*\.py"), "log"),
)
"""Whose frame a stage is known by. What is in none of them, such as `gateway.mail`, works for the
one that called it."""

_BEGINNING = ("start_plugins (", "Worker.run (", "Worker._listen (", "Worker._finish (")


@dataclass(frozen=True, slots=True)
class Stack:
    """Functions from the outermost to the innermost, each as `name (file)`, and how often seen."""

    frames: tuple[str, ...]
    samples: int

    @property
    def stage(self) -> str:
        """The stage of the innermost frame that has one."""
        if self.frames[:1] == (SERVICE,):
            return SERVICE
        for frame in reversed(self.frames):
            for pattern, stage in _STAGES:
                if match := pattern.search(frame):
                    return match.expand(stage)
        return LOOP


def read(text: str) -> list[Stack]:
    """Reads what `py-spy record --format raw --subprocesses --nolineno` wrote of a gateway.

    Only workers that are at work and the service process are of interest: what they do to start and
    to end is left out, and so is the supervisor.
    """
    found: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        stack, _, samples = line.rpartition(" ")
        if (frames := _at_work(stack)) is not None:
            found[frames] += int(samples)
    return [Stack(frames, samples) for frames, samples in found.items()]


def _at_work(stack: str) -> tuple[str, ...] | None:
    kind = re.search(r"-m gateway\.process\.(worker|service)\b", stack)
    if kind is None:
        return None
    # What follows is written by py-spy alone: the command line may have any character in it.
    inside = re.search(r";(?:Runner\.)?run \(asyncio/runners\.py\)(;.*)?$", stack)
    if inside is None:
        inside = re.search(r";(?:Thread\.)?_bootstrap \(threading\.py\)(;.*)?$", stack)
    if inside is None:
        return None
    frames = tuple((inside[1] or "")[1:].split(";")) if inside[1] else ()
    if any(frame.startswith(_BEGINNING) for frame in frames):
        return None
    return (SERVICE, *frames) if kind[1] == "service" else frames


def summary(stacks: Sequence[Stack], functions: int = 5) -> str:
    """The share of each stage in percent, and the functions that most samples were in, for people.

    A function's samples are those in which it was the innermost of Python, so what it calls in C,
    such as a signature, is its own.
    """
    total = sum(stack.samples for stack in stacks)
    rows = [["", "%"]]
    for stage, samples in _most(_by_stage(stacks)):
        rows.append([stage, f"{100 * samples / total:.1f}"])
        inner: Counter[str] = Counter()
        for stack in stacks:
            if stack.stage == stage and stack.frames:
                inner[stack.frames[-1]] += stack.samples
        for frame, own in _most(inner)[:functions]:
            if own * 200 >= total:
                rows.append([f"  {frame}", f"{100 * own / total:.1f}"])
    return aligned(rows)


def _by_stage(stacks: Iterable[Stack]) -> Counter[str]:
    stages: Counter[str] = Counter()
    for stack in stacks:
        stages[stack.stage] += stack.samples
    return stages


def _most(counted: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counted.items(), key=lambda one: (-one[1], one[0]))
