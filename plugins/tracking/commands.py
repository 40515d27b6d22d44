"""`gateway tracking …`: the keys, and what a token says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from gateway.hooks import SecretKey
from plugins.tracking.keys import Keyring, key_file

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def tracking_commands(path: Path, clock: Callable[[], float]) -> click.Group:
    """The commands for the keys in a file."""

    @click.group(help="Keys of tracked links, and what a link says.")
    def tracking() -> None:
        pass

    @tracking.command()
    @_json_option
    def keys(as_json: bool) -> None:
        """List the keys, the newest last. It signs; links of all of them work.

        Never shows the keys themselves.
        """
        found = _read(path)
        if as_json:
            click.echo(json.dumps([_described(key, clock(), found[-1]) for key in found], indent=2))
            return
        click.echo(f"{path}\n{'id':>3}  {'made':<17}  {'age':<9}  use")
        for key in found:
            made = datetime.fromtimestamp(key.created, UTC).strftime("%Y-%m-%d %H:%M")
            use = "signs and opens" if key is found[-1] else "opens"
            click.echo(f"{key.id:>3}  {made}Z  {_age(clock() - key.created):<9}  {use}")

    @tracking.command()
    @_json_option
    def rotate(as_json: bool) -> None:
        """Add a key, which all new links are sealed with from now on.

        Links in mail that was sent before go on working. Running processes see the new key within
        a second. With several machines, copy the file to all of them.
        """
        try:
            key = key_file(path).rotate(clock())
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        if as_json:
            click.echo(json.dumps(_described(key, clock(), key), indent=2))
        else:
            click.echo(
                f"key {key.id} signs from now on; older keys still open their links ({path})"
            )

    @tracking.command("open")
    @click.argument("token")
    @_json_option
    def open_(token: str, as_json: bool) -> None:
        """Print what TOKEN says: a token, or a whole URL of a tracked link."""
        _read(path)
        opened = Keyring(path, clock).open(token.strip().rstrip("/").rpartition("/")[2])
        if opened is None:
            raise click.ClickException("no token of this gateway, or it was changed on its way")
        data = {**asdict(opened), "day": (_EPOCH + timedelta(opened.day)).date().isoformat()}
        if as_json:
            click.echo(json.dumps(data, ensure_ascii=False, indent=2))
            return
        for name, value in data.items():
            if value:
                click.echo(f"{name + ':':<12}{value}")

    return tracking


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _read(path: Path) -> tuple[SecretKey, ...]:
    try:
        return key_file(path).read()[1]
    except FileNotFoundError:
        raise click.ClickException(
            f"there are no keys in {path} yet; the gateway makes them at its start"
        ) from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _described(key: SecretKey, now: float, newest: SecretKey) -> dict[str, object]:
    return {
        "id": key.id,
        "created": datetime.fromtimestamp(key.created, UTC).isoformat(),
        "age_seconds": max(0, int(now - key.created)),
        "signs": key is newest,
    }


def _age(seconds: float) -> str:
    """An age in the largest unit of which there are two."""
    for unit, width in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * width:
            return f"{int(seconds // width)} {unit}"
    return f"{max(0, int(seconds))} s"
