"""Trying inputs until the time is over: by mutations alone, or led by coverage where atheris is."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from random import Random

from fuzz.mutation import LARGEST, mutated, smaller
from fuzz.target import BrokenLawError, Check, Target

SLOWEST = 5.0
"""Seconds of CPU that 64 KiB of input may take, on a slow machine."""


@dataclass(frozen=True, slots=True)
class Crash:
    """An input that something went wrong with.

    Attributes:
        data: the input, without what is not needed for it.
        error: the exception, as Python shows it.
    """

    data: bytes
    error: str

    @property
    def name(self) -> str:
        """A name for its file."""
        return sha256(self.data).hexdigest()[:16]


def attempt(check: Check, data: bytes) -> BaseException | None:
    """What goes wrong with an input; None if nothing does."""
    begin = time.thread_time()
    try:
        check(data)
    except Exception as error:
        return error
    spent = time.thread_time() - begin
    if spent > SLOWEST:
        return BrokenLawError(f"{len(data)} octets took {spent:.1f} s of CPU")
    return None


def inputs(target: Target, seed: int) -> Iterator[bytes]:
    """The seeds as they are with mutations between them, and then mutations without end.

    They are equal for equal `seed`.
    """
    random = Random(seed)  # noqa: S311 - to be repeated, not to be secret
    for data in target.seeds:
        yield data[:LARGEST]
        yield mutated(random, target.seeds, target.tokens)
    while True:
        yield mutated(random, target.seeds, target.tokens)


def run(
    target: Target,
    *,
    seconds: float,
    most: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[int, list[Crash]]:
    """Tries inputs, and returns how many and one crash of each kind.

    Args:
        target: what to fuzz.
        seconds: when to stop.
        most: after how many inputs to stop; None: after any number.
        seed: which inputs.
        progress: told the number of inputs, now and then.
    """
    crashes: dict[str, Crash] = {}
    end = time.monotonic() + seconds
    count = 0
    for data in inputs(target, seed):
        if count == most or time.monotonic() > end:
            break
        count += 1
        if count % 256 == 0:
            progress(count)
        error = attempt(target.check, data)
        if error is not None and _kind(error) not in crashes:
            crashes[_kind(error)] = _smallest(target.check, data, error)
    return count, list(crashes.values())


def run_atheris(target_of: Callable[[], Target], seconds: int, folder: Path, seed: int) -> None:
    """Runs libFuzzer over what is imported by `target_of`; ends the process, non-zero at a crash.

    Raises:
        ImportError: atheris is not installed.
    """
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["gateway", "plugins"]):
        target = target_of()
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{target.name}-"))
    for data in target.seeds:
        (corpus / sha256(data).hexdigest()[:16]).write_bytes(data[:LARGEST])
    words = corpus.with_suffix(".dict")
    words.write_text("".join(f'"{_quoted(token)}"\n' for token in target.tokens if token))
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [
        *(sys.argv[0], str(corpus), f"-dict={words}", f"-max_total_time={seconds}"),
        *(f"-seed={seed + 1}", f"-max_len={LARGEST}", "-timeout=20", "-rss_limit_mb=2048"),
        *(f"-artifact_prefix={folder}/{target.name}-", "-print_final_stats=1", "-verbosity=0"),
    ]
    atheris.Setup(arguments, target.check)
    atheris.Fuzz()


def _quoted(token: bytes) -> str:
    return "".join(
        chr(octet) if 32 <= octet < 127 and octet not in b'"\\' else f"\\x{octet:02x}"
        for octet in token
    )


def _kind(error: BaseException) -> str:
    """Where and what: the same fault twice is one."""
    frames = traceback.extract_tb(error.__traceback__)
    place = [(frame.filename, frame.lineno) for frame in frames[-2:]]
    text = str(error) if isinstance(error, BrokenLawError) else ""
    return f"{type(error).__name__} {place} {text[:40]}"


def _smallest(check: Check, data: bytes, error: BaseException) -> Crash:
    """Leaves out of an input what is not needed for its error, within some seconds."""
    kind, end = _kind(error), time.monotonic() + 10
    found = True
    while found and time.monotonic() < end:
        found = False
        for less in smaller(data):
            other = attempt(check, less)
            if other is not None and _kind(other) == kind:
                data, error, found = less, other, True
                break
            if time.monotonic() > end:
                break
    return Crash(data, "".join(traceback.format_exception(error)))
