"""`gateway ippool`: what the sources do, and what is wrong with them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from math import inf
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from gateway.hooks import Context, Duration
from plugins.ippool.config import IpPoolConfig
from plugins.ippool.day import zone_of
from plugins.ippool.identity import Bindings, Identities
from plugins.ippool.provider import OTHER, short_site
from plugins.ippool.standing import Standing, standings, suspended
from plugins.ippool.suspension import EVERYWHERE, Suspensions, until_text

_WRONG = 1
"""The exit status of `check` where something is wrong."""

json_option: Callable[..., Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for programs."
)


def group(config: IpPoolConfig, context: Context) -> click.Group:
    """The commands for one entry of `gateway.yaml`."""
    names = click.Choice(list(config.sources))
    source = click.argument("source", type=names, metavar="SOURCE")
    provider = click.option(
        "--provider",
        callback=lambda _, __, value: _judge(config, value),
        metavar="NAME",
        help="Only for this provider or site, as `show` names it; else for all.",
    )

    @click.command()
    @json_option
    def show(as_json: bool) -> None:
        """Show each source: its warm-up, and why it is not used."""
        with failing():
            found = list(standings(config, context))
        if as_json:
            data = [asdict(one) for one in found]
            click.echo(json.dumps(data, indent=2, ensure_ascii=False))
            return
        click.echo("\n\n".join("\n".join(_lines(one)) for one in found))

    @click.command()
    @source
    @provider
    @click.option(
        "--for",
        "seconds",
        callback=_duration,
        metavar="TIME",
        help="For how long, such as 30m or 2h; else until it is resumed.",
    )
    @click.option("--reason", default="by hand", show_default=True, help="What is to be known.")
    @json_option
    def suspend(
        source: str, provider: str, seconds: float | None, reason: str, as_json: bool
    ) -> None:
        """Use a source no more; its mail goes from others of its pool."""
        if not reason.isprintable():
            raise click.BadParameter("expected one line of text", param_hint="--reason")
        now = context.clock()
        until = inf if seconds is None else now + seconds
        with failing():
            suspensions = _suspensions(config, context)
            one = suspensions.suspend(source, provider, now, until, reason)
        if as_json:
            data = {"source": source, **asdict(suspended(one, config))}
            click.echo(json.dumps(data, ensure_ascii=False))
            return
        end = until_text(one.until, zone_of(config.timezone))
        click.echo(f"{source} is suspended for {_place(one.judge)} {end}")

    @click.command()
    @source
    @provider
    @json_option
    def resume(source: str, provider: str, as_json: bool) -> None:
        """Use a source again that was suspended, by hand or by what receivers said."""
        with failing():
            judge = None if provider == EVERYWHERE else provider
            ended = _suspensions(config, context).resume(source, judge, context.clock())
        if as_json:
            click.echo(json.dumps({"source": source, "resumed": [one.judge for one in ended]}))
            return
        for one in ended:
            click.echo(f"{source} is used for {_place(one.judge)} again")
        if not ended:
            click.echo(f"{source} was not suspended{'' if judge is None else f' for {judge}'}")

    @click.command()
    @json_option
    def check(as_json: bool) -> None:
        """Check the addresses and names of the sources, on this machine and in the DNS.

        Exit status 0: all is well; 1: something is wrong.
        """
        problems = asyncio.run(_problems(config, context))
        if as_json:
            data = [{"source": name, "problems": found} for name, found in problems.items()]
            click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        else:
            for name, found in problems.items():
                one = config.sources[name]
                click.echo(f"{name}  {one.address}  {one.helo}: {'; '.join(found) or 'ok'}")
        sys.exit(_WRONG if any(problems.values()) else 0)

    return click.Group(
        context.name,
        commands=[show, suspend, resume, check],
        help="The addresses that mail is sent from: how they stand, and what is wrong with them.",
    )


@contextmanager
def failing() -> Iterator[None]:
    """Ends the program with one line if the counters cannot be read or written."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever reads has read enough
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{where}{error.strerror or error}") from error


def _suspensions(config: IpPoolConfig, context: Context) -> Suspensions:
    return Suspensions(context.limits, context.name, config.suspension.policy)


def _judge(config: IpPoolConfig, name: str | None) -> str:
    """The receiver that a person names."""
    if name is None:
        return EVERYWHERE
    if name in config.all_providers:
        return name
    if name == OTHER or not ("." in name or "smarthost" in name):
        known = ", ".join(config.all_providers)
        raise click.BadParameter(
            f"{name!r} is no provider; known are {known}; for another receiver, the site as "
            "`show` and the log name it"
        )
    return short_site(name.lower())


def _duration(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds: float = TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        raise click.BadParameter(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    if seconds <= 0:
        raise click.BadParameter("must be longer than nothing, for example 2h")
    return seconds


def _place(judge: str) -> str:
    return "all receivers" if judge == EVERYWHERE else judge


def _lines(standing: Standing) -> Iterator[str]:
    pools = f"in {', '.join(standing.pools)}" if standing.pools else "in no pool"
    yield (
        f"{standing.source}  {standing.address}  {standing.helo}  {pools}, weight {standing.weight}"
    )
    warmup = standing.warmup
    if warmup is None or warmup.today is None:
        yield "  warm"
    elif warmup.day < 1:
        yield f"  warm-up begins on {warmup.since}"
    else:
        tomorrow = "no limit" if warmup.tomorrow is None else f"{warmup.tomorrow:,}"
        yield (
            f"  warm-up day {warmup.day} of {warmup.days}: {warmup.today:,} recipients of each "
            f"provider today, {tomorrow} tomorrow"
        )
        for provider, used in warmup.used.items():
            yield f"    {provider:<14} {used:>9,} of {warmup.today:,}"
    for one in standing.suspensions:
        end = "until it is resumed" if one.until is None else f"until {one.until}"
        again = f", {one.times} times in a row" if one.times > 1 else ""
        yield f"  suspended for {_place(one.provider)} {end}{again}: {one.reason}"
    if standing.unbound is not None:
        yield f"  not used: {standing.address} cannot be bound: {standing.unbound}"


async def _problems(config: IpPoolConfig, context: Context) -> dict[str, list[str]]:
    """What is wrong with each source."""
    bindings = Bindings(config.sources, None)
    bindings.check()
    identities = Identities(context.resolver)
    names = list(config.sources)
    try:
        found = await asyncio.gather(*(identities.problems(config.sources[one]) for one in names))
    finally:
        await context.resolver.close()
    unbound = {
        name: [f"{config.sources[name].address} cannot be bound: {error}"]
        for name, error in bindings.unbound.items()
    }
    return {name: [*unbound.get(name, ()), *each] for name, each in zip(names, found, strict=True)}
