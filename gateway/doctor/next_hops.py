"""The smarthosts: whether they are found and answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gateway.attempt import Hop
from gateway.configuration.relay import credentials_of
from gateway.doctor.finding import Finding, note, ok, problem, warning
from gateway.doctor.site import Site
from gateway.resolver import NoSuchDomainError, ResolutionError

TIMEOUT = 10.0


async def examine(site: Site) -> AsyncIterator[Finding]:
    """What is to be said of `relay.via` and `relay.routes`."""
    relay = site.config.relay
    hops = dict.fromkeys([*relay.via, *(hop for one in relay.routes.values() for hop in one.via)])
    for login in (relay.login, *(route.login for route in relay.routes.values())):
        if login is not None:
            try:
                credentials_of(login)
            except ValueError as error:
                yield problem(str(error), "correct relay.login: mail waits without it")
    if not relay.via:
        yield note("mail goes to the MX of each domain: port 25 to the Internet has to be open")
    for finding in await asyncio.gather(*(_examined(site, hop) for hop in hops)):
        yield finding


async def _examined(site: Site, hop: Hop) -> Finding:
    try:
        addresses = await site.resolver.addresses(hop.host)
    except NoSuchDomainError:
        return problem(f"{hop.host} does not exist in the DNS", "correct relay.via")
    except ResolutionError as error:
        return problem(f"the DNS does not tell where {hop.host} is: {error}", "look at dns")
    errors = []
    for address in addresses:
        try:
            async with asyncio.timeout(TIMEOUT):
                _, writer = await asyncio.open_connection(address, hop.port)
        except (OSError, TimeoutError) as error:
            errors.append(str(error) or f"no answer within {TIMEOUT:g} s")
            continue
        writer.close()
        if errors:
            return warning(
                f"{hop} answers at {address}, and not at others: {errors[0]}", "look at that server"
            )
        return ok(f"{hop} answers")
    why = errors[0] if errors else "it has no address"
    return problem(
        f"{hop} cannot be reached: {why}: mail waits", "look at that server, or at relay"
    )
