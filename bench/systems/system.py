"""What the bench asks of a mail system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import ClassVar

from bench.daemon import Daemon, tail
from bench.processes import Tree
from bench.signature import SigningKey

_TEMPLATES = Path(__file__).with_name("templates")


class System(ABC):
    """A relay with a durable queue that signs with DKIM and hands everything to one next hop.

    Attributes:
        name: short, for the head of a column.
        install: how to get it, where it is missing.
        folder: everything that it writes is in here, known from `start` on.
        port: where it listens on loopback, likewise.
    """

    name: ClassVar[str]
    install: ClassVar[str]

    def __init__(self, key: SigningKey) -> None:
        self.key = key
        self.folder = Path()
        self.port = 0
        self.daemons: list[Daemon] = []

    @abstractmethod
    def missing(self) -> str | None:
        """What is not installed; None if it can run."""

    @abstractmethod
    def version(self) -> str:
        """The versions of what is measured, on one line."""

    def start(self, folder: Path, port: int, next_hop: int) -> None:
        """Starts it in a new `folder` on `port`, to relay to the port `next_hop`.

        Returns when it answers.

        Raises:
            BenchError: it did not start.
        """
        folder.mkdir(parents=True)
        self.folder, self.port = folder, port
        self.launch(next_hop)

    @abstractmethod
    def launch(self, next_hop: int) -> None:
        """Writes its configuration, starts its daemons and waits until they answer."""

    def stop(self) -> None:
        """Stops all that `start` started; also when that went wrong half-way."""
        while self.daemons:
            self.daemons.pop().stop()

    def tree(self) -> Tree:
        """All of its processes."""
        return Tree([daemon.pid for daemon in self.daemons])

    def log(self) -> str:
        """The end of its log."""
        return "\n".join(filter(None, (tail(daemon.log) for daemon in self.daemons)))

    def write(self, template: str, file: Path, values: Mapping[str, object]) -> None:
        """Fills a template of this package's folder `templates` into a new file."""
        text = (_TEMPLATES / template).read_text()
        file.write_text(Template(text).substitute({k: str(v) for k, v in values.items()}))
