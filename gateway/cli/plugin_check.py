"""`gateway plugin check`: whether a plugin keeps the rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.options import fail, json_option
from gateway.configuration.quantity import parse_duration

if TYPE_CHECKING:
    from gateway.testing.conformance import Finding, Report, Result
    from gateway.testing.conformance.check import Progress

_COLORS = {"passed": "green", "failed": "red", "skipped": "yellow"}


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if seconds <= 0:
        raise click.BadParameter("must be longer than nothing, for example 10ms")
    return seconds


@click.command()
@click.argument("reference")
@click.option(
    "--config",
    "settings",
    metavar="YAML|@FILE",
    help="The plugin's settings, such as 'text: Hello', or a file of them.",
)
@click.option(
    "-c",
    "--site",
    type=click.Path(path_type=Path),
    help="A gateway.yaml that has the plugin, whose settings are taken.",
)
@click.option(
    "--budget",
    metavar="TIME",
    callback=_seconds,
    default="10ms",
    show_default=True,
    help="How long one call of a hook may take.",
)
@click.option(
    "--corpus",
    type=click.Path(path_type=Path),
    help="A folder of further messages to try, *.eml.",
)
@click.option("--dns", is_flag=True, help="Ask the DNS; otherwise every name is unknown.")
@click.option(
    "--only",
    multiple=True,
    metavar="CHECK",
    help="Run this check alone, such as messages; may be given more than once.",
)
@click.option("--strict", is_flag=True, help="Warnings fail the check too.")
@click.option(
    "--deadline",
    metavar="TIME",
    callback=_seconds,
    default="2m",
    show_default=True,
    help="When the check is given up, for each plugin.",
)
@json_option
def check(
    reference: str,
    settings: str | None,
    site: Path | None,
    budget: float,
    corpus: Path | None,
    dns: bool,
    only: tuple[str, ...],
    strict: bool,
    deadline: float,
    as_json: bool,
) -> None:
    """Check whether a plugin keeps the rules, by running it on everything that may come.

    REFERENCE is the name of an installed plugin, a file such as ./site/footer.py (or
    ./site/footer.py:Footer), or the name of a package, of which all plugins are checked.

    It runs in a process and a folder of its own: no mail is sent, and no site is touched. Exit
    status 1 means that something is wrong.
    """
    # Whoever uses other commands need not wait for all that a check needs.
    from gateway.testing.conformance import check_plugin, plugins_of
    from gateway.testing.conformance.run import CHECKS, LOADS

    known = [LOADS, *(name for name, _ in CHECKS)]
    for name in only:
        if name not in known:
            raise click.UsageError(f"there is no check {name}; checks are {', '.join(known)}")
    if settings is not None and site is not None:
        raise click.UsageError("--config and -c both give settings; take one of them")
    if corpus is not None and not corpus.is_dir():
        fail(f"{corpus}: no such folder")
    file = ""
    if settings is not None and settings.startswith("@"):
        file = settings[1:]
        settings = _read(file)
    reports = []
    for name in plugins_of(reference):
        with _progress(name) as progress:
            reports.append(
                check_plugin(
                    name,
                    settings,
                    settings_file=file,
                    site=site or "",
                    budget=budget,
                    corpus=corpus or "",
                    dns=dns,
                    deadline=deadline,
                    only=only,
                    progress=progress,
                )
            )
        if not as_json:
            _show(reports[-1])
    good = all(one.good and not (strict and one.warnings) for one in reports)
    if as_json:
        data = {"good": good, "plugins": [report.to_data() for report in reports]}
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    sys.exit(0 if good else 1)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{file}: not UTF-8; save the file as UTF-8")


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """Takes how far a check is; shown on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda check, done: None
        return
    running = ""

    def current(_: object) -> str:
        return running

    with click.progressbar(
        length=1000, label=f"checking {name}", file=sys.stderr, item_show_func=current
    ) as bar:

        def progress(check: str, done: float) -> None:
            nonlocal running
            running = check
            bar.update(max(0, int(done * 1000) - bar.pos))

        yield progress


def _show(report: Report) -> None:
    title = f"{report.plugin} ({report.distribution})" if report.distribution else report.plugin
    click.secho(title, bold=True)
    width = max(len(result.check) for result in report.results)
    for result in report.results:
        status = click.style(f"{result.status:<7}", fg=_COLORS[result.status])
        click.echo(f"  {status}  {result.check:<{width}}  {_note(result)}".rstrip())
        for finding in result.findings:
            click.echo(_finding(finding))
    color = "green" if report.good else "red"
    click.secho(f"{report.plugin}: {_summary(report)}", fg=color, bold=True)


def _note(result: Result) -> str:
    return result.note if len(result.note) < 200 else f"{result.note[:199]}…"


def _finding(finding: Finding) -> str:
    color = "red" if finding.level == "error" else "yellow"
    return f"    {click.style(finding.level, fg=color)}: {finding}"


def _summary(report: Report) -> str:
    found = [
        f"{len(findings)} {noun}{'' if len(findings) == 1 else 's'}"
        for findings, noun in ((report.errors, "error"), (report.warnings, "warning"))
        if findings
    ]
    word = "good" if report.good else "not good"
    return ", ".join([word, *found, f"{report.seconds:.1f} s"])
