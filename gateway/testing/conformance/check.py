"""Checks a plugin in a process of its own, which may hang, leak or end without harm."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from gateway.hooks.reference import GROUP
from gateway.testing.conformance.report import Finding, Report, Result
from gateway.testing.conformance.request import BUDGET, DEADLINE, Request
from gateway.testing.conformance.source import shown

Progress = Callable[[str, float], None]
"""Takes the name of the check that runs, and how much of all is done, from 0 to 1."""

_GRACE = 1.0
"""Seconds that a process which hangs has to say where."""


def plugins_of(reference: str) -> list[str]:
    """The plugins that a reference means: itself, or all of a distribution package.

    An installed plugin's name comes before a package's.
    """
    if reference.endswith(".py") or ".py:" in reference:
        return [reference]
    if any(point.name == reference for point in importlib.metadata.entry_points(group=GROUP)):
        return [reference]
    try:
        points = importlib.metadata.distribution(reference).entry_points
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return [reference]
    return sorted(point.name for point in points if point.group == GROUP) or [reference]


def check_plugin(
    reference: str,
    settings: Mapping[str, Any] | str | None = None,
    *,
    settings_file: str | Path = "",
    site: str | Path = "",
    budget: float = BUDGET,
    corpus: str | Path = "",
    dns: bool = False,
    deadline: float = DEADLINE,
    only: Collection[str] = (),
    progress: Progress = lambda check, done: None,
) -> Report:
    """Checks one plugin, as `gateway plugin check` does.

    Args:
        reference: an installed plugin's name, or a path such as `./site/footer.py:Footer`.
        settings: its settings, as values or as YAML; None: those that `site` or pyproject.toml has.
        settings_file: where `settings` come from; relative paths in them start from its folder.
        site: a gateway.yaml that has the plugin; its settings, hostname and streams are taken.
        budget: seconds that one call of a hook may take.
        corpus: a folder of further messages, `*.eml`.
        dns: whether the plugin asks the real DNS.
        deadline: seconds until the check is given up.
        only: the names of the checks to run, such as `messages`; none: all.
        progress: is told how far it is.
    """
    text = settings if isinstance(settings, str) or settings is None else json.dumps(settings)
    request = Request(
        reference,
        text,
        str(settings_file),
        str(site),
        budget,
        str(corpus),
        dns,
        deadline,
        tuple(only),
    )
    started = time.monotonic()
    log = _Log(progress)
    with tempfile.TemporaryDirectory(prefix="plugin-check-") as folder:
        _run(request, log, Path(folder))
    return Report(
        reference, log.distribution, log.hooks, tuple(log.results), time.monotonic() - started
    )


@dataclass
class _Log:
    """What the process has told so far."""

    progress: Progress
    check: str = "loads"
    distribution: str = ""
    hooks: tuple[str, ...] = ()
    results: list[Result] = field(default_factory=list)
    over: bool = False

    def take(self, line: bytes) -> None:
        """One line of what it tells."""
        what = json.loads(line)
        if "begins" in what:
            self.check = what["begins"]
            self.progress(self.check, what["done"])
        elif "plugin" in what:
            self.distribution = what["plugin"]["distribution"]
            self.hooks = tuple(what["plugin"]["hooks"])
        elif "ended" in what:
            one = what["ended"]
            findings = tuple(Finding(**finding) for finding in one["findings"])
            self.results.append(Result(one["check"], one["status"], one["note"], findings))
        self.over = self.over or "over" in what

    def fail(self, text: str, place: str = "") -> None:
        """The check that ran last has failed, and none came after it."""
        finding = Finding(self.check, "error", text, place)
        self.results.append(Result(self.check, "failed", "", (finding,)))


def _run(request: Request, log: _Log, folder: Path) -> None:
    reading, writing = os.pipe()
    traces = folder / "traces"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (folder / "output").open("w+b") as output, open(reading, "rb") as told:  # noqa: PTH123
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-P", "-m", f"{__package__}", str(writing), str(traces)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(writing,),
            env=environment,
        )
        os.close(writing)
        assert process.stdin is not None
        try:
            with process.stdin as requests:
                requests.write(request.to_json().encode() + b"\n")
            for line in _lines(told, time.monotonic() + request.deadline):
                log.take(line)
        except TimeoutError:
            _give_up(process, request, log, traces)
        except BrokenPipeError:
            pass  # it has ended before it began; that is told below
        else:
            # Its end of the pipe is closed: it is about to end.
            process.wait()
        finally:
            process.kill()
            status = process.wait()
        if not log.over and not (log.results and log.results[-1].check == log.check):
            output.seek(0)
            log.fail(_ended(status, output.read()))


def _lines(told: IO[bytes], deadline: float) -> Iterator[bytes]:
    """What the process tells, up to its end.

    Raises:
        TimeoutError: the deadline comes first.
    """
    os.set_blocking(told.fileno(), False)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(told, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            octets = os.read(told.fileno(), 1 << 16)
            if not octets:
                return
            complete, _, rest = (rest + octets).rpartition(b"\n")
            yield from complete.splitlines()
    raise TimeoutError


def _give_up(process: subprocess.Popen[bytes], request: Request, log: _Log, traces: Path) -> None:
    """Asks a process that hangs where it is, and notes that."""
    process.send_signal(signal.SIGUSR1)
    end = time.monotonic() + _GRACE
    frames: list[tuple[str, str]] = []
    while not frames and time.monotonic() < end:
        time.sleep(0.02)
        frames = re.findall(r'File "(.+?)", line (\d+)', traces.read_text())
    place = next((f"{shown(file)}:{line}" for file, line in frames if not _ours(file)), "")
    log.fail(f"is not done after {request.deadline:g} s: it hangs here, or raise --deadline", place)


def _ours(file: str) -> bool:
    """Whether a file is the interpreter's or the gateway's, and no plugin's."""
    package = str(Path(__file__).parents[2])
    return file.startswith((package, os.path.dirname(os.__file__), "<"))  # noqa: PTH120


def _ended(status: int, output: bytes) -> str:
    last = output.decode("utf-8", "replace").strip().splitlines()[-1:]
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    said = f"; its last words: {last[0]}" if last else ""
    return f"the plugin ended the process {how}{said}; the gateway's worker would be gone"
