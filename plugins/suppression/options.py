"""What the commands share: options, the list they work on, and how they fail."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from gateway.hooks import Context
from plugins.suppression.address import Spelling, normal_domain
from plugins.suppression.config import SuppressionConfig
from plugins.suppression.database import FILE_NAME, DatabaseError
from plugins.suppression.entry import REASONS, parse_scope, sender_scope, stream_scope
from plugins.suppression.writer import Merged


@dataclass(frozen=True, slots=True)
class Site:
    """The entry of `gateway.yaml` that a command works for."""

    config: SuppressionConfig
    context: Context

    @property
    def path(self) -> Path:
        """The database."""
        return self.context.data_folder() / FILE_NAME

    @property
    def spelling(self) -> Spelling:
        """What makes no difference between addresses."""
        return Spelling(self.config.subaddresses, self.config.gmail_dots)


pass_site = click.make_pass_decorator(Site)


class CheckFailure(click.ClickException):
    """A command that answers by its exit status could not."""

    exit_code = 2


def parsed(parse: Callable[[str], str]) -> Callable[..., Any]:
    """A callback for parameters that one of our functions reads: it says best what is wrong."""

    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(map(parse, value))
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from None

    return callback


def scope_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that name a scope; the function gets `scope`, None without any."""

    @click.option(
        "--scope",
        "scope",
        callback=parsed(parse_scope),
        metavar="SCOPE",
        help="everywhere, sender:DOMAIN or stream:NAME.",
    )
    @click.option(
        "--sender-domain",
        callback=parsed(lambda text: sender_scope(normal_domain(text))),
        metavar="DOMAIN",
        help="Mail from senders of this domain; the same as --scope sender:DOMAIN.",
    )
    @click.option(
        "--stream",
        callback=parsed(lambda text: parse_scope(stream_scope(text))),
        metavar="NAME",
        help="Mail of this stream; the same as --scope stream:NAME.",
    )
    @functools.wraps(function)
    def with_scope(
        *arguments: Any,
        scope: str | None,
        sender_domain: str | None,
        stream: str | None,
        **options: Any,
    ) -> Any:
        named = [one for one in (scope, sender_domain, stream) if one is not None]
        if len(named) > 1:
            raise click.UsageError("say one of --scope, --sender-domain and --stream")
        return function(*arguments, scope=named[0] if named else None, **options)

    return with_scope


def reason_option(text: str, default: str | None = None) -> Callable[..., Any]:
    """The option `--reason`."""
    return click.option(
        "--reason",
        type=click.Choice(REASONS),
        default=default,
        show_default=default is not None,
        help=text,
    )


json_option: Callable[..., Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for programs."
)


@contextmanager
def failing(failure: type[click.ClickException] = click.ClickException) -> Iterator[None]:
    """Ends the program with one line if the list, or a file, cannot be used."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever reads has read enough
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise failure(f"{where}{error.strerror}") from error
    except (DatabaseError, ValueError) as error:
        raise failure(str(error)) from error


def counted(count: int, noun: str = "entry", plural: str = "entries") -> str:
    """A number with its noun: `1 entry`, `1,204 entries`."""
    return f"{count:,} {noun if count == 1 else plural}"


def explained(merged: Merged) -> str:
    """What became of entries: `2 entries added, 1 changed, 3 there already`."""
    rest = merged.rows - merged.new - merged.changed
    text = f"{counted(merged.new)} added"
    if merged.changed:
        text += f", {merged.changed:,} changed"
    return f"{text}, {rest:,} there already" if rest else text
