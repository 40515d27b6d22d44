"""The commands of the plugin: `keygen`, `dns` and `check`."""

from __future__ import annotations

import asyncio
import json
import math
import os
import pwd
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click
import yaml

from gateway.hooks import Context, domain_name
from plugins.dkim.config import DkimConfig
from plugins.dkim.examination import Examination, examine
from plugins.dkim.generation import NewKey, dated_keys, new_keys
from plugins.dkim.key import KeyType, read_private_key
from plugins.dkim.publication import Publication, publications
from plugins.dkim.validity import Validity, instant_text

_TYPES: dict[str, tuple[KeyType, ...]] = {
    "rsa": ("rsa",),
    "ed25519": ("ed25519",),
    "both": ("rsa", "ed25519"),
}


def _domain(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Brings a name into the form of the configuration."""
    try:
        return None if value is None else domain_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def group(context: Context, config: DkimConfig) -> click.Group:
    """The commands of one entry in `gateway.yaml`."""

    @click.group(help="Make DKIM keys, print their DNS records, check what is published.")
    def commands() -> None: ...

    @commands.command()
    @click.argument("domain", callback=_domain)
    @click.argument("selector", callback=_domain, required=False)
    @click.option(
        "--type",
        "types",
        type=click.Choice(list(_TYPES)),
        default="rsa",
        show_default=True,
        help="Not every receiver knows Ed25519: have it beside RSA.",
    )
    @click.option(
        "--bits",
        type=click.IntRange(2048, 4096),
        default=2048,
        show_default=True,
        help="The size of an RSA key.",
    )
    @click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="The folder for keys; the default is `keys` beside gateway.yaml.",
    )
    def keygen(domain: str, selector: str | None, types: str, bits: int, out: Path | None) -> None:
        """Make a key for DOMAIN, and say what to publish and what to write into gateway.yaml.

        SELECTOR is the key's name; without one it is made of year, month and a letter. The file is
        DOMAIN/SELECTOR.pem in the folder for keys; only its owner may read it, and nothing is ever
        overwritten.
        """
        folder = context.base / "keys" if out is None else out.absolute()
        taken = {key.selector for key in publications(config) if key.domain == domain}
        try:
            if selector is None:
                day = datetime.fromtimestamp(context.clock(), UTC)
                keys = dated_keys(folder, domain, day, _TYPES[types], taken)
            else:
                keys = new_keys(folder, domain, selector, _TYPES[types], taken)
        except ValueError as error:
            _fail(str(error))
        for key in keys:
            try:
                key.write(bits)
            except OSError as error:
                _fail(f"{key.file}: {error.strerror}")
        _explain(context, keys)

    @commands.command()
    @click.argument("domain", callback=_domain, required=False)
    @click.option("--zone", is_flag=True, help="Print lines for a zone file.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    def dns(domain: str | None, zone: bool, as_json: bool) -> None:
        """Print the DNS records of the keys in gateway.yaml, of all or of those for DOMAIN."""
        keys = _configured(config, domain)
        if as_json:
            click.echo(json.dumps([_described(key) for key in keys], indent=2))
        elif zone:
            click.echo("\n".join(key.zone for key in keys))
        else:
            click.echo("\n\n".join(map(_record, keys)))

    @commands.command()
    @click.argument("domain", callback=_domain, required=False)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    def check(domain: str | None, as_json: bool) -> None:
        """Compare what the DNS has with the keys in gateway.yaml, all or those for DOMAIN.

        The exit status is 1 if something is wrong.
        """
        keys = _configured(config, domain)
        found = asyncio.run(_examine(context, config, keys))
        if as_json:
            click.echo(json.dumps([_result(one) for one in found], indent=2))
        else:
            for one in found:
                _report(one)
        for key in keys:
            if key.domain is None:
                which = f"{key.selector} for {key.pattern}"
                how = f"name one of its domains: gateway {context.name} check DOMAIN"
                click.echo(f"{which}: not checked; {how}", err=True)
        if any(one.errors for one in found):
            sys.exit(1)

    return commands


def _configured(config: DkimConfig, domain: str | None) -> list[Publication]:
    keys = publications(config, domain)
    if not keys:
        what = "there are no keys" if domain is None else f"no key is for {domain}"
        _fail(f"{what} in gateway.yaml")
    return keys


def _fail(text: str) -> NoReturn:
    click.echo(f"gateway: {text}", err=True)
    sys.exit(1)


# keygen


def _explain(context: Context, keys: Sequence[NewKey]) -> None:
    made = [
        Publication(
            key.domain,
            key.domain,
            key.selector,
            read_private_key(key.file),
            identity=None,
            subdomains=False,
            validity=Validity(),
        )
        for key in keys
    ]
    for key, publication in zip(keys, made, strict=True):
        click.echo(f"Made {key.file} ({publication.description}).")
    click.echo("\n1. Publish in the DNS:\n")
    click.echo("\n\n".join(map(_record, made)))
    click.echo("\n   The same for a zone file:\n")
    click.echo("\n".join(publication.zone for publication in made))
    click.echo("\n2. Add to `keys` of the plugin in gateway.yaml:\n")
    for key in keys:
        entry = {"domain": key.domain, "selector": key.selector, "file": _path(context, key.file)}
        line = yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=math.inf)
        click.echo(f"        - {line.strip()}")
    check = f"gateway {context.name} check {keys[0].domain}"
    click.echo(f"\n3. When `{check}` says ok, reload the gateway.")
    _mention_owner(context, keys[0].file.parent)


def _path(context: Context, file: Path) -> str:
    """A path as it stands in gateway.yaml."""
    base = context.base.absolute()
    return str(file.relative_to(base) if file.is_relative_to(base) else file)


def _mention_owner(context: Context, folder: Path) -> None:
    """Says what root has to do for the gateway to be able to read the key."""
    spool = context.folder.parent.parent
    if os.geteuid() == 0 and spool.exists() and spool.stat().st_uid != 0:
        owner = pwd.getpwuid(spool.stat().st_uid).pw_name
        click.echo(f"\nThe files belong to root; before: chown -R {owner}: {folder}", err=True)


# dns


def _record(key: Publication) -> str:
    lines = [f"   name   {key.name}", "   type   TXT", f"   value  {key.text}"]
    if key.domain is None:
        lines.insert(0, f"   for each domain of {key.pattern}:")
    return "\n".join(lines)


def _described(key: Publication) -> dict[str, object]:
    public = key.private.public
    return {
        "domain": key.domain or key.pattern,
        "selector": key.selector,
        "type": public.type,
        "bits": public.bits,
        "not_before": _instant(key.validity.start),
        "not_after": _instant(key.validity.end),
        "name": key.name if key.domain else None,
        "value": key.text,
        "zone": key.zone if key.domain else None,
    }


def _instant(value: float) -> str | None:
    return datetime.fromtimestamp(value, UTC).isoformat() if math.isfinite(value) else None


# check


async def _examine(
    context: Context, config: DkimConfig, keys: Sequence[Publication]
) -> list[Examination]:
    known = [key for key in keys if key.domain is not None]
    resolver, now = context.resolver, context.clock()
    try:
        if not sys.stderr.isatty():
            return await examine(config, known, resolver, now, lambda: None)
        with click.progressbar(length=len(known), label="Looking up", file=sys.stderr) as bar:
            return await examine(config, known, resolver, now, lambda: bar.update(1))
    finally:
        await resolver.close()


def _report(one: Examination) -> None:
    times = [
        f"{word} {instant_text(instant)}"
        for word, instant in (
            ("from", one.key.validity.start),
            ("until", one.key.validity.end),
        )
        if math.isfinite(instant)
    ]
    sort = ", ".join([one.key.description, *times])
    click.echo(f"{one.status:<5}  {one.key.name}  ({sort})")
    for text in one.errors:
        click.echo(f"       error: {text}")
    for text in one.warnings:
        click.echo(f"       warning: {text}")


def _result(one: Examination) -> dict[str, object]:
    return {
        "domain": one.key.domain,
        "selector": one.key.selector,
        "name": one.key.name,
        "status": one.status,
        "errors": one.errors,
        "warnings": one.warnings,
    }
