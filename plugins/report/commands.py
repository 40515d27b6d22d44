"""`gateway report`: what became of mail, as a table, for programs, or as a page."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import Any

import apsw
import click

from plugins.report.config import ReportConfig
from plugins.report.database import open_to_read
from plugins.report.days import zone_of
from plugins.report.export import to_csv, to_json
from plugins.report.figures import Report
from plugins.report.page import page
from plugins.report.reading import Selection, read
from plugins.report.table import render
from plugins.report.texts import LANGUAGES, TEXTS, Language

DIMENSIONS = ("variant", "domain", "day", "link")
TOP = 20
"""Domains and links that a person is shown at most unless they ask for more."""

_PAGE = frozenset({"variant", "domain", "link", "sale", "detail"})
_STANDARD_OUTPUT = Path("-")


def report_command(path: Path, config: ReportConfig, clock: Callable[[], float]) -> click.Command:
    """The command for one entry of `gateway.yaml`.

    Args:
        path: the file that the plugin counts in.
        config: of the entry.
        clock: seconds since the epoch.
    """

    @click.command(context_settings={"show_default": False})
    @click.option(
        "--campaign",
        metavar="GLOB",
        help="Only these, such as 'spring-*'; '(none)' is mail without one.",
    )
    @click.option("--stream", metavar="NAME", help="Only mail of this stream.")
    @click.option("--since", callback=_day, metavar="DATE", help="Only mail from this day on.")
    @click.option("--until", callback=_day, metavar="DATE", help="Only mail up to this day.")
    @click.option(
        "--by",
        type=click.Choice(DIMENSIONS),
        multiple=True,
        help="Also show parts; can be given several times. Without it, a single campaign named by "
        "--campaign is shown by variant and domain.",
    )
    @click.option(
        "--top",
        type=click.IntRange(0),
        metavar="N",
        help=f"Show N domains and links and sum the others; 0: all. {TOP}, but all for programs.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    @click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
    @click.option(
        "--html",
        type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        is_flag=False,
        flag_value=_STANDARD_OUTPUT,
        metavar="[FILE]",
        help="Print a page, or write it to FILE.",
    )
    @click.option(
        "--language", type=click.Choice(LANGUAGES), default="en", help="Of table and page."
    )
    def report(
        campaign: str | None,
        stream: str | None,
        since: date | None,
        until: date | None,
        by: tuple[str, ...],
        top: int | None,
        as_json: bool,
        as_csv: bool,
        html: Path | None,
        language: Language,
    ) -> None:
        """Say what became of mail: how much was delivered, opened, clicked …

        People count once for each message. What programs did, such as scanners that follow links,
        is counted apart. Days are those on which mail was sent, not those of clicks.
        """
        if as_json + as_csv + (html is not None) > 1:
            raise click.UsageError("say one of --json, --csv and --html")
        if since is not None and until is not None and until < since:
            raise click.UsageError(f"--until {until} is before --since {since}")
        by = tuple(dict.fromkeys(by))
        programs = as_json or as_csv
        most = top if top is not None else 0 if programs else TOP
        selection = Selection(campaign, stream, since, until)
        wanted = set(by)
        if as_json or html is not None:
            wanted |= _PAGE
        if as_json:
            wanted.add("day")
        try:
            with closing(open_to_read(path)) as db:
                found = read(db, selection, config.timezone, wanted, most)
                if not (by or programs or html) and campaign and len(found.campaigns) == 1:
                    found = read(db, selection, config.timezone, {"variant", "domain"}, most)
                    by = _without_asking(found)
        except (ValueError, OSError, apsw.Error) as error:
            raise click.ClickException(str(error)) from error
        if as_json:
            click.echo(to_json(found))
        elif as_csv:
            click.echo(to_csv(found, by), nl=False)
        elif html is None:
            click.echo(render(found, by, TEXTS[language]))
        else:
            now = datetime.fromtimestamp(clock(), zone_of(config.timezone))
            _write(html, page(found, language, now))

    return report


def _without_asking(report: Report) -> tuple[str, ...]:
    """What is shown of a single campaign."""
    has_variants = any(group.name for group in report.campaigns[0].variants)
    return ("variant", "domain") if has_variants else ("domain",)


def _day(context: click.Context, parameter: click.Parameter, value: Any) -> date | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no day; expected one like 2031-12-31", context, parameter
        ) from None


def _write(path: Path, text: str) -> None:
    if path == _STANDARD_OUTPUT:
        click.echo(text, nl=False)
        return
    # Whoever looks at the file in the meantime sees the old one.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    click.echo(f"{path} written", err=True)
