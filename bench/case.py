"""What can be measured: a case says how, and which figures come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from bench.systems.system import System


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that a case gives: its name with the unit, and the decimals worth showing.

    `bar` is what the gateway has to reach, None where nobody set one.
    """

    name: str
    decimals: int
    more_is_better: bool
    bar: float | None = None

    def bar_cell(self) -> str:
        """The bar as text."""
        if self.bar is None:
            return "-"
        return f"{'≥' if self.more_is_better else '≤'} {self.bar:,.{self.decimals}f}"


class Trial(Protocol):
    """A system that runs, checked and warm."""

    def measure(self) -> Mapping[str, float]:
        """Measures once: the value of each figure by its name.

        Raises:
            BenchError: the system did not do what it should.
        """


class Case(ABC):
    """One kind of measurement, made alike for every system.

    Attributes:
        figures: what comes out.
        ahead: by the name of a peer, how many times better the gateway has to be in the first
            figure.
        signs: whether the first figure is of messages that are signed, each at least once.
        alone: whether it is about the gateway, and other systems have no part in it.
        sends_mail: whether it needs the load generator and its sink.
    """

    figures: tuple[Figure, ...]
    ahead: Mapping[str, float] = {}
    signs: ClassVar[bool] = False
    alone: ClassVar[bool] = False
    sends_mail: ClassVar[bool] = True

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self.title = title

    @abstractmethod
    def trial(self, system: System, folder: Path) -> AbstractContextManager[Trial]:
        """Starts `system` and what it needs, in `folder`; stops all of it at the end."""
