"""What several commands share: the configuration they work with, and how they fail."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import click

from gateway.configuration.config import Config, load_config
from gateway.configuration.yaml_document import ConfigError

DEFAULT_CONFIG = Path("gateway.yaml")

config_option: Callable[[Any], Any] = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The configuration file.",
)

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for programs."
)


def load(path: Path) -> Config:
    """The configuration; ends the program with status 2 and every problem if it is wrong."""
    try:
        return load_config(path)
    except ConfigError as error:
        fail_config(error.problems)


def fail_config(problems: Iterable[object]) -> NoReturn:
    """Ends the program with status 2, the status for a wrong configuration."""
    for problem in problems:
        click.echo(str(problem), err=True)
    sys.exit(2)


def fail(text: object) -> NoReturn:
    """Ends the program with status 1."""
    click.echo(f"gateway: {text}", err=True)
    sys.exit(1)
