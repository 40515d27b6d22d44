"""What plugins did wrong, as the gateway noticed it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """Something that a plugin did wrong.

    Attributes:
        text: what, as the log says it.
        plugin: the name of its entry; '' where the gateway cannot tell.
        hook: where; '' where the gateway cannot tell.
        error: what was raised, with its traceback; None if nothing was.
    """

    text: str
    plugin: str = ""
    hook: str = ""
    error: BaseException | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.text


class FaultLog(logging.Handler):
    """Takes the errors that the gateway logs.

    Attributes:
        faults: those so far.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.faults: list[Fault] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Takes one; what plugins log themselves is theirs."""
        if record.name.startswith("gateway.plugin."):
            return
        plugin, hook = "", ""
        if record.name == "gateway.chain" and isinstance(record.args, tuple):
            plugin, hook = (*map(str, record.args[:2]), "", "")[:2]
        error = record.exc_info[1] if record.exc_info else None
        self.faults.append(Fault(record.getMessage(), plugin, hook, error))

    def take(self) -> tuple[Fault, ...]:
        """Those since the last time."""
        taken = tuple(self.faults)
        self.faults.clear()
        return taken

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listens as long as the block runs."""
        logger = logging.getLogger("gateway")
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)


def complain(faults: tuple[Fault, ...]) -> None:
    """Raises what plugins did wrong, the first as the cause.

    Raises:
        AssertionError: they did something wrong.
    """
    __tracebackhide__ = True
    if faults:
        text = "\n".join(map(str, faults))
        raise AssertionError(text) from next((f.error for f in faults if f.error), None)
