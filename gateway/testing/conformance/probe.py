"""Stands between the chain and the hooks of a plugin: measures calls, and notes what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, replace
from resource import RUSAGE_THREAD, getrusage
from time import perf_counter, thread_time
from types import coroutine
from typing import Any

from gateway.hooks.load import LoadedPlugin
from gateway.hooks.spec import STAGES
from gateway.hooks.watchdog import HookTimeoutError
from gateway.testing.conformance.source import Source
from gateway.testing.conformance.watch import Watch

NOT_CALLED = ("start", "stop", "http", "commands")
"""Hooks that the chain does not call."""

LATE = "does not end"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a hook.

    Attributes:
        hook: its name.
        label: what it was called for.
        round: how often the same was asked for before.
        cpu: seconds that it computed.
        idle: seconds of its longest wait that held the thread; that the machine had other work to
            do is no wait.
    """

    hook: str
    label: str
    round: int
    cpu: float
    idle: float

    @property
    def seconds(self) -> float:
        """How long nothing else could run in its thread."""
        return self.cpu + self.idle


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that raised, did not end, or answered what it may not.

    Attributes:
        hook, label: as those of a call.
        kind: what it did, such as `raises KeyError`; text: the rest of it.
        place: the plugin's line, '' if there is none.
    """

    hook: str
    label: str
    kind: str
    text: str = ""
    place: str = ""

    @property
    def late(self) -> bool:
        """Whether it did not end in time."""
        return self.kind == LATE


def raised(hook: str, label: str, error: BaseException, place: str) -> Failure:
    """The failure of a call that raised."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 200 else f"{text[:199]}…"
    return Failure(hook, label, f"raises {type(error).__name__}", text, place)


class Probe:
    """Wraps hooks.

    Attributes:
        label, round: what the calls that come now are for.
        calls, failures: what was seen.
    """

    def __init__(self, source: Source, watch: Watch) -> None:
        self.label = ""
        self.round = 0
        self.calls: list[Call] = []
        self.failures: list[Failure] = []
        self._source = source
        self._watch = watch
        self._lock = threading.Lock()

    def around(self, loaded: LoadedPlugin) -> LoadedPlugin:
        """The same plugin, with hooks that are looked at."""
        hooks = {
            name: hook if name in NOT_CALLED else self._wrapped(name, hook, loaded.is_async[name])
            for name, hook in loaded.hooks.items()
        }
        return replace(loaded, hooks=hooks)

    def _wrapped(self, name: str, hook: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
        async def look_async(*subjects: Any) -> Any:
            meter = _Meter(name, self._watch)
            try:
                answer = await _measured(hook(*subjects), meter)
            except BaseException as error:
                self._failed(name, error)
                raise
            finally:
                self._called(name, meter)
            self._look(name, answer)
            return answer

        def look(*subjects: Any) -> Any:
            meter = _Meter(name, self._watch)
            try:
                with meter:
                    answer = hook(*subjects)
            except BaseException as error:
                self._failed(name, error)
                raise
            finally:
                self._called(name, meter)
            self._look(name, answer)
            return answer

        return look_async if is_async else look

    async def watched(self, name: str, running: Coroutine[Any, Any, Any]) -> Any:
        """Awaits what a hook has given, as `http` gives an application."""
        meter = _Meter(name, self._watch)
        try:
            return await _measured(running, meter)
        finally:
            self._called(name, meter)

    def _called(self, name: str, meter: _Meter) -> None:
        call = Call(name, self.label, self.round, meter.cpu, meter.idle)
        with self._lock:
            self.calls.append(call)

    def _failed(self, name: str, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):
            return  # the chain has given it up, and says why
        late = isinstance(error, HookTimeoutError) or type(error).__name__ == "CancelledError"
        place = self._source.of_error(error)
        if late:
            self.note(Failure(name, self.label, LATE, "", place))
        else:
            self.note(raised(name, self.label, error, place))

    def _look(self, name: str, answer: Any) -> None:
        allowed = STAGES[name].answers
        if answer is not None and not isinstance(answer, allowed):
            names = ", ".join(["None", *(one.__name__ for one in allowed)])
            kind = f"answers {type(answer).__name__}, and may answer {names}"
            self.note(Failure(name, self.label, kind))

    def note(self, failure: Failure) -> None:
        """Takes a failure that was seen."""
        with self._lock:
            self.failures.append(failure)


class _Meter:
    """Measures what runs inside `with`, in one thread at a time."""

    def __init__(self, hook: str, watch: Watch) -> None:
        self.cpu = self.idle = 0.0
        self._hook = hook
        self._watch = watch
        self._begun = (0, 0.0, 0.0)

    def __enter__(self) -> None:
        self._watch.begin(self._hook)
        self._begun = _waits(), perf_counter(), thread_time()

    def __exit__(self, *_: object) -> None:
        waits, wall, cpu = self._begun
        cpu = thread_time() - cpu
        wall = perf_counter() - wall
        self._watch.end()
        self.cpu += cpu
        if _waits() > waits:
            self.idle = max(self.idle, wall - cpu)


def _waits() -> int:
    """How often this thread has given its processor away because it had to wait."""
    return getrusage(RUSAGE_THREAD).ru_nvcsw


@coroutine
def _measured(running: Coroutine[Any, Any, Any], meter: _Meter) -> Generator[Any, Any, Any]:
    """Awaits a coroutine; only the time that it holds the loop is measured."""
    error: BaseException | None = None
    while True:
        try:
            with meter:
                awaited = running.send(None) if error is None else running.throw(error)
        except StopIteration as end:
            return end.value
        error = None
        try:
            yield awaited
        except BaseException as thrown:
            error = thrown
