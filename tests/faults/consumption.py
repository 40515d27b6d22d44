"""What a process uses, as Linux tells it in /proc."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Self


@dataclass(frozen=True)
class Consumption:
    """What a process used at one time.

    Attributes:
        memory: octets that are its own: RSS without what is mapped from files, which the kernel
            takes back when it likes.
        descriptors: open files and sockets.
        threads: threads.
    """

    memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """What a running process uses now."""
        folder = Path(f"/proc/{pid}")
        lines = (folder / "status").read_text().splitlines()
        status = {name: value for name, _, value in (line.partition(":") for line in lines)}

        def octets(name: str) -> int:
            return int(status[name].split()[0]) * 1024

        return cls(
            memory=octets("RssAnon") + octets("RssShmem"),
            descriptors=len(list((folder / "fd").iterdir())),
            threads=int(status["Threads"]),
        )

    @classmethod
    def typical(cls, several: list[Self]) -> Self:
        """The median of each."""
        return cls(
            memory=int(median(one.memory for one in several)),
            descriptors=int(median(one.descriptors for one in several)),
            threads=int(median(one.threads for one in several)),
        )
