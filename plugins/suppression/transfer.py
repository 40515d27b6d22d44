"""`gateway suppression import` and `export`."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import click

from plugins.suppression.entry import EVERYWHERE, Entry, parse_expiry, parse_note
from plugins.suppression.exchange import (
    BadRow,
    Defaults,
    TextFile,
    read_list,
    write_csv,
    write_json,
)
from plugins.suppression.inventory import Inventory
from plugins.suppression.options import (
    Site,
    counted,
    explained,
    failing,
    json_option,
    parsed,
    pass_site,
    reason_option,
    scope_options,
)
from plugins.suppression.writer import Merged, Writer

_ROWS_PER_UPDATE = 5000
SHOWN = 20

# What people say, and what Windows writes.
_ENCODINGS = {"shift_jis": "cp932"}


def _encoding(text: str) -> str:
    try:
        "".encode(text)  # some codecs are none of text
        name = codecs.lookup(text).name
    except LookupError:
        raise ValueError(f"there is no encoding {text!r}; for example utf-8 or shift_jis") from None
    return _ENCODINGS.get(name, name)


class _BadRows:
    """Rows that are wrong: shown at once if they are skipped, otherwise kept to be shown."""

    def __init__(self, skipping: bool) -> None:
        self.count = 0
        self.first: list[BadRow] = []
        self._skipping = skipping

    def report(self, row: BadRow) -> None:
        """Takes a bad row."""
        self.count += 1
        if self._skipping:
            click.echo(row, err=True)
        elif self.count <= SHOWN:
            self.first.append(row)


@click.command("import")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option(
    "--encoding",
    default="utf-8",
    show_default=True,
    callback=parsed(_encoding),
    help="Of the file; shift_jis is what Excel writes in Japan.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out rows that are wrong, and show them.")
@reason_option("For rows that name none.", "manual")
@scope_options
@click.option("--expires", metavar="WHEN", help="For rows that name no end, as in `add`.")
@click.option("--note", default="", callback=parsed(parse_note), help="For rows that have none.")
@json_option
@pass_site
def import_(
    site: Site,
    file: str,
    encoding: str,
    skip_bad: bool,
    reason: str,
    scope: str | None,
    expires: str | None,
    note: str,
    as_json: bool,
) -> None:
    """Add the addresses in a file, or - for standard input.

    That is a list with an address, @domain or pattern on each line (# begins a comment), CSV with
    the columns address, scope, reason, expires, added, source and note, of which only address must
    be there, or what `export` wrote. Nothing is imported if a row is wrong, unless --skip-bad.
    """
    now = site.context.clock()
    bad = _BadRows(skip_bad)
    with failing():
        defaults = Defaults(
            scope or EVERYWHERE, reason, parse_expiry(expires or "", now), "import", note, now
        )
        with Writer(site.path) as writer:
            with _opened(file) as (octets, size):
                entries = read_list(octets, encoding, defaults, bad.report)
                writer.stage(_watched(entries, octets, size))
            if bad.count and not skip_bad:
                _refuse(bad)
            merged = _merge(writer)
    if as_json:
        click.echo(json.dumps({**asdict(merged), "bad": bad.count}))
        return
    click.echo(
        explained(merged) + (f", {counted(bad.count, 'bad row', 'bad rows')}" if bad.count else "")
    )


def _refuse(bad: _BadRows) -> None:
    for row in bad.first:
        click.echo(row, err=True)
    if bad.count > SHOWN:
        click.echo(f"and {bad.count - SHOWN:,} more", err=True)
    raise ValueError(
        f"nothing was imported: {counted(bad.count, 'row is', 'rows are')} wrong; "
        "mend the file, or say --skip-bad"
    )


@contextmanager
def _opened(file: str) -> Iterator[tuple[BinaryIO, int]]:
    """A file and its size; 0 for standard input, which has none."""
    if file == "-":
        yield sys.stdin.buffer, 0
        return
    path = Path(file)
    with path.open("rb") as octets:
        yield octets, path.stat().st_size


@contextmanager
def _bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """A progress bar, which is told how far the work has come; a terminal shows it."""
    if not sys.stderr.isatty():
        yield lambda position: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield lambda position: bar.update(position - bar.pos)


def _watched(entries: Iterator[Entry], octets: BinaryIO, size: int) -> Iterator[Entry]:
    """The same entries, with a bar that shows how much of their file is read."""
    with _bar("reading", size) as show:
        for number, entry in enumerate(entries):
            if size and number % _ROWS_PER_UPDATE == 0:
                show(octets.tell())
            yield entry
        show(size)


def _merge(writer: Writer) -> Merged:
    merged = Merged()
    with _bar("writing", writer.staged()) as show:
        for merged in writer.merge():
            show(merged.rows)
    return merged


@click.command()
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, writable=True), help="Write to this file."
)
@reason_option("Only entries with this reason.")
@scope_options
@json_option
@pass_site
def export(
    site: Site, output: str | None, reason: str | None, scope: str | None, as_json: bool
) -> None:
    """Print the list as CSV, which `import` reads again exactly.

    With --json, one object a line. What is in gateway.yaml and in its file is not in it.
    """
    with failing(), Inventory(site.path) as inventory:
        entries = inventory.entries(scope, reason)
        if output is None:
            with click.open_file("-", "w", "utf-8") as stdout:
                _write(entries, stdout, as_json)
            return
        size = inventory.size(scope, reason) if sys.stderr.isatty() else 0
        with (
            click.open_file(output, "w", "utf-8", atomic=True) as file,
            _bar("writing", size) as show,
        ):
            count = _write(_counted(entries, show), file, as_json)
    click.echo(f"{counted(count)} written", err=True)


def _write(entries: Iterable[Entry], file: TextFile, as_json: bool) -> int:
    return write_json(entries, file) if as_json else write_csv(entries, file)


def _counted(entries: Iterable[Entry], show: Callable[[int], None]) -> Iterator[Entry]:
    number = 0
    for number, entry in enumerate(entries, 1):
        if number % _ROWS_PER_UPDATE == 0:
            show(number)
        yield entry
    show(number)
