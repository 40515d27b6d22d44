"""What went wrong with one system, in a form that can be shown in its place in the table."""

from __future__ import annotations


class BenchError(Exception):
    """A system or a tool did not do what it should. `log` is the end of what it wrote."""

    def __init__(self, text: str, log: str = "") -> None:
        super().__init__(text)
        self.log = log
