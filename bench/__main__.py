"""The command line: `python -m bench`."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bench import load
from bench.case import Case
from bench.cases import cases
from bench.machine import Machine
from bench.report import Report
from bench.run import measure
from bench.signature import SigningKey
from bench.systems.gateway import Gateway
from bench.systems.haraka import Haraka
from bench.systems.postfix import Postfix
from bench.systems.system import System


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with 2 if it is wrong."""
    known = list(cases(1.0))
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measures the gateway beside other mail systems."
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"of {', '.join(known)}; all if left out"
    )
    parser.add_argument(
        "--system",
        action="append",
        choices=[kind.name for kind in (Gateway, Postfix, Haraka)],
        help="measure only this one; may be given several times",
    )
    parser.add_argument("--repeat", type=_positive, default=3, help="measurements of each (3)")
    parser.add_argument(
        "--seconds", type=_seconds, default=4.0, help="about how long one measurement takes (4)"
    )
    parser.add_argument(
        "--haraka", default=os.environ.get("HARAKA"), help="Haraka's command, if not on PATH"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument(
        "--folder", type=Path, help="make the queues in here, on the disk to be measured (/tmp)"
    )
    parser.add_argument("--keep", action="store_true", help="leave queues and logs to look at")
    options = parser.parse_args(words)
    for name in options.cases:
        if name not in known:
            parser.error(f"there is no case {name!r}; there are {', '.join(known)}")
    return options


def main() -> int:
    """Measures and prints; the exit status is 1 if a system failed."""
    options = arguments()
    # Debian keeps mail servers where only root looks for programs.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    mail = any(case.sends_mail for case in _chosen(options))
    if mail and (needed := load.missing()) is not None:
        print(needed, file=sys.stderr)
        return 2
    # What plugins say that are measured in this process is no part of the report.
    logging.getLogger("gateway").addHandler(logging.NullHandler())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with _workplace(options.folder, options.keep) as folder:
            report = _bench(options, folder)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(report.text(), end="")
    if options.json:
        options.json.write_text(report.json())
    return 1 if report.failed else 0


def _bench(options: argparse.Namespace, folder: Path) -> Report:
    progress = _progress_line if sys.stderr.isatty() else _no_progress
    key = SigningKey.make(folder / "s1.pem")
    systems: list[System] = []
    missing: dict[str, str] = {}
    for system in (Gateway(key), Postfix(key), Haraka(key, options.haraka)):
        if options.system and system.name not in options.system:
            continue
        if (reason := system.missing()) is None:
            systems.append(system)
        else:
            missing[system.name] = f"{reason}; {system.install}"
    progress("looking at the machine")
    machine = Machine.look(folder)
    results = []
    for case in _chosen(options):
        contestants = [one for one in systems if isinstance(one, Gateway) or not case.alone]
        if contestants:
            results.append(measure(case, contestants, options.repeat, folder, progress))
    progress("")
    versions = {system.name: system.version() for system in systems}
    return Report(machine, versions, missing, results)


def _chosen(options: argparse.Namespace) -> list[Case]:
    known = cases(options.seconds)
    return [case for name, case in known.items() if name in options.cases or not options.cases]


@contextmanager
def _workplace(parent: Path | None, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mail-gateway-bench-", dir=parent)).resolve()
    folder.chmod(0o755)  # Postfix's daemons and smtp-sink run as other users
    try:
        yield folder
    finally:
        if keep:
            print(f"queues and logs are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Once is enough: what was started is now stopped, in order, undisturbed.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _progress_line(text: str) -> None:
    print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _no_progress(text: str) -> None:
    pass


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.5 <= number <= 20:
        raise argparse.ArgumentTypeError("must be from 0.5 to 20")
    return number


if __name__ == "__main__":
    sys.exit(main())
