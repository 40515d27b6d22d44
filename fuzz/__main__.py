"""The command `python -m fuzz`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

import click

from fuzz.loop import attempt, run, run_atheris
from fuzz.targets import NAMES, load


@click.command()
@click.argument("target", type=click.Choice([*NAMES, "all"]))
@click.option("--seconds", type=click.IntRange(1), default=60, show_default=True, help="How long.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Which inputs; equal for equal.")
@click.option(
    "--engine",
    type=click.Choice(["atheris", "mutation"]),
    help="atheris (libFuzzer, led by coverage) or plain mutations; atheris where it is installed.",
)
@click.option(
    "--crashes",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/fuzz"),
    show_default=True,
    help="The folder for inputs that something went wrong with.",
)
@click.option(
    "--input",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Try this file and nothing else.",
)
def main(
    target: str, seconds: int, seed: int, engine: str | None, crashes: Path, file: Path | None
) -> None:
    """Tries odd inputs on TARGET. The exit status is 1 if something went wrong with one.

    Seeds are the messages of the test kit, and those in the folder that MAIL_CORPUS names.
    """
    if file is not None:
        with closing(load(target)) as loaded:
            error = attempt(loaded.check, file.read_bytes())
        if error is not None:
            raise error
        return
    names = NAMES if target == "all" else (target,)
    if engine is None:
        engine = "atheris" if find_spec("atheris") and len(names) == 1 else "mutation"
    if engine == "atheris":
        if find_spec("atheris") is None:
            raise click.UsageError("atheris is missing: pip install mail-gateway[fuzz]")
        if len(names) > 1:
            raise click.UsageError("atheris takes one target at a time")
        run_atheris(lambda: load(target), seconds, crashes, seed)
    crashed = [name for name in names if _mutate(name, seconds, seed, crashes)]
    sys.exit(bool(crashed))


@contextmanager
def _quiet() -> Iterator[None]:
    """What the gateway logs of odd inputs is no news."""
    logger = logging.getLogger("gateway")
    before, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.propagate = before


def _mutate(name: str, seconds: int, seed: int, folder: Path) -> bool:
    """Whether something went wrong."""

    def progress(count: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{name}: {count:,}", err=True, nl=False)

    with closing(load(name)) as loaded, _quiet():
        count, crashes = run(loaded, seconds=seconds, seed=seed, progress=progress)
    click.echo(f"\r{name}: {count:,} inputs, {len(crashes)} kinds of crashes")
    for crash in crashes:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}-{crash.name}"
        path.write_bytes(crash.data)
        click.echo(f"{path}: {len(crash.data)} octets: {crash.data[:200]!r}\n{crash.error}")
    return bool(crashes)


if __name__ == "__main__":
    main()
