"""The processes: whether they live, answer, and run what is configured."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import AsyncIterator, Iterator

from gateway.configuration.config import Http
from gateway.doctor.finding import Finding, count, note, ok, problem, warning
from gateway.doctor.listeners import reachable
from gateway.doctor.site import Site
from gateway.web.health import judge

TIMEOUT = 5.0


async def examine(site: Site) -> AsyncIterator[Finding]:
    """What is to be said of supervisor, workers and service."""
    running = site.running
    if not running:
        yield warning(
            f"no process of a gateway works on {site.config.spool.path}",
            "gateway run -c FILE, or systemctl start mail-gateway",
        )
        return
    silent = [name for name, report in running.reports.items() if report is None]
    answering = {name: report for name, report in running.reports.items() if report is not None}
    for name in silent:
        yield problem(f"{name} does not answer", "search the log for it; systemctl restart")
    if answering:
        told = f"{count(len(answering), 'worker')} answer"
        yield ok(f"{told}; the supervisor is process {running.supervisor}")
    if not running.service:
        yield problem(
            "there is no service process: observers learn nothing, and nobody answers HTTP",
            'search the log for "service"',
        )
    health = judge(answering, {}, spool="", workers="worker-")
    for name, text in health.problems.items():
        yield problem(f"{name}: {text}", "search the log for it")
    for name, text in health.flaws.items():
        yield warning(f"{name}: {text}", "search the log for it")
    for finding in _age(site):
        yield finding
    if site.config.http is not None and site.config.http.address.port:
        yield await asyncio.to_thread(_asked, site.config.http)


def _age(site: Site) -> Iterator[Finding]:
    try:
        changed = site.config.path.stat().st_mtime
    except OSError:
        return
    if changed > site.running.since:
        yield note(
            f"{site.config.path} was changed after the workers began",
            "systemctl reload mail-gateway, if it is to be in force",
        )


def _asked(http_section: Http) -> Finding:
    """What the HTTP service says at /health."""
    host, port = reachable(http_section.address.host), http_section.address.port
    connection: http.client.HTTPConnection
    if http_section.tls is None:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    else:
        # What is asked is how it is; who it is, is another examination's.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        told = json.loads(answer.read(1 << 20))
        status = str(told["status"])
        problems = "; ".join(f"{name}: {text}" for name, text in told.get("problems", {}).items())
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        return problem(
            f"/health at {http_section.address} does not answer: {error}",
            'search the log for "service"',
        )
    finally:
        connection.close()
    if answer.status != http.client.OK:
        return problem(f"/health is {status}: {problems}", "see docs/operations.md, Health")
    if status != "ok":
        return warning(f"/health is {status}: {problems}", "see docs/operations.md, Health")
    return ok("/health is ok")
