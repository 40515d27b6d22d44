"""Where the time of the workers goes under load: `python -m bench.profile`."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import load
from bench.cases import cases
from bench.daemon import free_port, tail
from bench.error import BenchError
from bench.flame import svg
from bench.load import Sink
from bench.processes import Tree
from bench.signature import SigningKey
from bench.stacks import Stack, read, summary
from bench.systems.gateway import Gateway
from bench.throughput import DEADLINE_SECONDS, FIRST_MESSAGES, Throughput, messages_for

MISSING = "py-spy is needed: pip install py-spy (it is in the extra `dev`)"

MEMORY = Path("/dev/shm")
"""A file system in memory: py-spy cannot tell waiting for a disk from work."""

_RATE = 100
_WRITE_SECONDS = 30.0


def profiled() -> list[str]:
    """The cases that can be looked at."""
    return [name for name, case in cases(1.0).items() if isinstance(case, Throughput)]


def profiler() -> Path | None:
    """The program `py-spy`: beside this interpreter, or else on PATH."""
    beside = Path(sys.executable).with_name("py-spy")
    found = shutil.which(beside) or shutil.which("py-spy")
    return Path(found) if found else None


def record(name: str, program: Path, seconds: float, folder: Path) -> list[Stack]:
    """Runs the gateway of a case under `program` and its load for about `seconds`.

    The profiler starts the gateway, and so may look into it without being root.

    Raises:
        BenchError: the gateway or the profiler did not do what it should.
    """
    case = cases(seconds)[name]
    assert isinstance(case, Throughput)
    gateway = (case.gateway or Gateway)(SigningKey.make(folder / "s1.pem"))
    samples = folder / "samples"
    gateway.under = [
        *(program, "record", "--subprocesses", "--nolineno", "--rate", str(_RATE)),
        *("--format", "raw", "--output", samples, "--"),
    ]
    port, next_hop = free_port(), free_port()
    sent = case.load_from(folder)
    try:
        with Sink(next_hop, folder) as sink:
            gateway.start(folder / "instance", port, next_hop)
            first = FIRST_MESSAGES / sent.run(FIRST_MESSAGES, port, sink, DEADLINE_SECONDS)
            messages = messages_for(first, seconds)
            sent.run(messages, port, sink, seconds + DEADLINE_SECONDS)
        [daemon] = gateway.daemons
        for process in Tree([daemon.pid]).members():
            # The profiler writes down what it saw when the program that it has started ends.
            if process.parent == daemon.pid:
                os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _WRITE_SECONDS
        while any(not process.ended for process in Tree([daemon.pid]).members()):
            if time.monotonic() > deadline:
                raise BenchError("py-spy has not ended", tail(daemon.log))
            time.sleep(0.05)
    except BenchError as error:
        raise BenchError(str(error), error.log or gateway.log()) from error
    finally:
        gateway.stop()
    stacks = read(samples.read_text()) if samples.exists() else []
    if not stacks:
        raise BenchError("py-spy saw no worker", tail(daemon.log))
    return stacks


def main(words: Sequence[str] | None = None) -> int:
    """Records, writes the graph and prints the summary; the exit status is 2 without py-spy."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.profile", description="Shows where the time of the workers goes."
    )
    parser.add_argument("case", nargs="?", choices=profiled(), default="4k")
    parser.add_argument("--seconds", type=float, default=10.0, help="of load, about (10)")
    parser.add_argument(
        "--folder", type=Path, default=Path("bench/results"), help="for the graph (bench/results)"
    )
    parser.add_argument(
        "--spool",
        type=Path,
        default=MEMORY if os.access(MEMORY, os.W_OK) else None,
        help=f"where the queue is; on a disk, waiting for it counts as work ({MEMORY})",
    )
    options = parser.parse_args(words)
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    program = profiler()
    if program is None or load.missing() is not None:
        print(MISSING if program is None else load.missing(), file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="mail-gateway-profile-", dir=options.spool) as name:
        folder = Path(name)
        folder.chmod(0o755)  # smtp-sink runs as another user
        try:
            stacks = record(options.case, program, options.seconds, folder)
        except BenchError as error:
            print(f"{error}\n{error.log}".rstrip(), file=sys.stderr)
            return 1
    options.folder.mkdir(parents=True, exist_ok=True)
    graph = options.folder / f"profile-{options.case}.svg"
    title = f"{options.case}: {cases(1.0)[options.case].title}"
    graph.write_text(svg(stacks, title))
    text = f"{title}\n{summary(stacks)}\n"
    graph.with_suffix(".txt").write_text(text)
    print(f"{text}\n{sum(stack.samples for stack in stacks):,} samples; open {graph}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
