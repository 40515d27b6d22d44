"""`gateway plugin new`: the beginning of a plugin."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click

from gateway.cli.options import fail
from gateway.configuration.validation import nearest
from gateway.hooks.reference import PluginClasses
from gateway.hooks.spec import STAGES
from gateway.scaffold.files import DESCRIPTION, Draft, one_line, package, site_file, with_needed
from gateway.scaffold.files import write as write_files
from gateway.scaffold.name import PluginName


def _hooks(_: click.Context, option: click.Parameter, value: str) -> list[str]:
    """The hooks that were asked for."""
    chosen = [word.strip() for word in value.split(",") if word.strip()]
    for name in chosen:
        if name not in STAGES:
            hint = nearest(name, STAGES) or f"hooks are {', '.join(STAGES)}"
            raise click.BadParameter(f'there is no hook "{name}"; {hint}')
    if not chosen:
        raise click.BadParameter(f"a plugin needs a hook: {', '.join(STAGES)}")
    return [name for name in STAGES if name in with_needed(chosen)]


def _description(_: click.Context, option: click.Parameter, value: str) -> str:
    try:
        return one_line(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("name")
@click.option("--file", "as_file", is_flag=True, help="One file for this site, and no package.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where to write.  [default: mail-gateway-NAME; with --file: site]",
)
@click.option(
    "--hooks",
    default="message",
    show_default=True,
    callback=_hooks,
    help="The hooks to begin with, such as rcpt,message,observe.",
)
@click.option(
    "--description",
    default=DESCRIPTION,
    callback=_description,
    help="What the plugin does for its users, in one line.",
)
@click.pass_context
def new(
    context: click.Context,
    name: str,
    as_file: bool,
    folder: Path | None,
    hooks: list[str],
    description: str,
) -> None:
    """Write a new plugin: a package with tests, or one file.

    NAME is what stands in gateway.yaml, such as legal-footer. The package can be installed, tested
    and published as it is. With --file it is one file for this site. Nothing that is there is
    overwritten.
    """
    try:
        parsed = PluginName(name)
    except ValueError as error:
        fail(f'no plugin can be named "{name}": {error}')
    _check_free(context, name, as_file)
    draft = Draft(parsed, hooks, description, ("", "") if as_file else _author())
    folder = folder or Path("site" if as_file else parsed.distribution)
    texts = site_file(draft) if as_file else package(draft)
    try:
        if not as_file and folder.is_dir() and any(folder.iterdir()):
            fail(f"{folder} is not empty; give another with --folder")
        write_files(folder, texts)
    except FileExistsError as error:
        fail(error)
    except OSError as error:
        fail(f"{error.filename or folder}: {error.strerror}")
    click.echo("\n".join(_next_steps(parsed, folder, texts, as_file)))


def _check_free(context: click.Context, name: str, as_file: bool) -> None:
    """Ends the program if the name would stand for something else."""
    group = context.find_root().command
    if isinstance(group, click.Group) and name in group.commands:
        fail(f'"{name}" is a command of gateway itself; choose another name')
    point = PluginClasses(Path()).installed.get(name)
    if point is not None and not as_file:
        owner = f" ({point.dist.name})" if point.dist is not None else ""
        fail(f'a plugin "{name}" is installed already{owner}; choose another name')


def _author() -> tuple[str, str]:
    """Name and address as git knows them; '' for what it does not know."""
    return _git("user.name"), _git("user.email")


def _git(key: str) -> str:
    try:
        result = subprocess.run(  # noqa: S603 - no shell, and no words of others
            ["git", "config", "--get", key],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            check=False,
            timeout=5,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""
    text = result.stdout.strip() if result.returncode == 0 else ""
    return text if text.isprintable() else ""


def _next_steps(
    name: PluginName, folder: Path, texts: dict[str, str], as_file: bool
) -> Iterator[str]:
    for path in texts:
        yield f"{click.style('wrote', fg='green')} {folder / path}"
    yield ""
    yield click.style("Next:", bold=True)
    if as_file:
        path = f"./{folder / name.file}" if not folder.is_absolute() else str(folder / name.file)
        yield f"  gateway plugin check {shlex.quote(path)}"
        reference = path
    else:
        yield f"  cd {shlex.quote(str(folder))}"
        yield "  pip install -e '.[dev]'"
        yield "  pytest"
        yield f"  gateway plugin check {name.name}"
        reference = name.name
    yield ""
    yield click.style("In gateway.yaml:", bold=True)
    yield "  plugins:"
    yield f"    - {reference}"
