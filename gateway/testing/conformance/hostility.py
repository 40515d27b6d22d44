"""Every hook gets hostile subjects, and must not raise."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Iterator
from time import monotonic
from typing import Any

from gateway.hooks.watchdog import HookTimeoutError
from gateway.mail.message import Message
from gateway.testing.conformance import hostile, pages
from gateway.testing.conformance.candidate import TIMEOUT
from gateway.testing.conformance.examination import MOST_LATE, Examination
from gateway.testing.conformance.journey import send
from gateway.testing.conformance.probe import LATE, Failure, raised
from gateway.testing.conformance.site import Instance

BATCH = 50
"""Events that an observer gets at once."""


async def check(examination: Examination) -> str:
    """Calls the hooks; what they raise was noted by the probe."""
    probe = examination.probe
    first, called = len(probe.failures), len(probe.calls)
    parts = (_sessions, _messages, _attempts, _events, _pages, _commands)
    for number, part in enumerate(parts):
        await part(examination)
        examination.advance((number + 1) / len(parts))
    probe.label = ""
    examination.blame(probe.failures[first:])
    return f"{len(probe.calls) - called} calls of hooks"


def _goes_on(examination: Examination, instance: Instance, failures: int) -> bool:
    """Whether there is a point in more calls; a failure is forgotten by the chain."""
    found = examination.probe.failures[failures:]
    if found:
        instance.renew()
    return sum(failure.late for failure in found) < MOST_LATE


async def _sessions(examination: Examination) -> None:
    instance, probe = examination.worker, examination.probe
    first = len(probe.failures)
    for client in hostile.clients():
        probe.label = f"{client.address or 'no address'} {client.helo[:20]!r}"
        if examination.has("connect", "helo") and _goes_on(examination, instance, first):
            await instance.chain.connect(client)
            await instance.chain.helo(client)
    for login in hostile.logins():
        probe.label = f"login {login.username[:20]!r} with {login.password[:20]!r}"
        if examination.has("auth") and _goes_on(examination, instance, first):
            await instance.chain.auth(login)


async def _messages(examination: Examination) -> None:
    instance, probe, now = examination.worker, examination.probe, examination.site.now
    if not examination.has("mail", "rcpt", "claim", "message", "seal", "receive"):
        return
    first = len(probe.failures)
    for number, sample in enumerate(hostile.messages()):
        probe.label = sample.name
        if _goes_on(examination, instance, first):
            await send(instance, sample, f"HOSTILE{number}", now)
    for message in hostile.noted():
        probe.label = f"notes {message.notes.get('campaign', '')[:20]!r}"
        if _goes_on(examination, instance, first):
            await _filter(instance, message)


async def _filter(instance: Instance, message: Message) -> None:
    if instance.has("receive"):
        await instance.chain.receive(instance.loaded.entry.name, message.copy())
    await instance.chain.message(message)


async def _attempts(examination: Examination) -> None:
    instance, probe = examination.worker, examination.probe
    first, now = len(probe.failures), examination.site.now
    if examination.has("route", "source", "admit"):
        for delivery in hostile.deliveries(now):
            probe.label = f"a delivery to {delivery.recipients[0].address[:40]}"
            if _goes_on(examination, instance, first):
                # As the courier does: what is found later is not known to the hook before.
                route, source = delivery.route, delivery.source
                delivery.close()
                delivery.proceed(route=None, source=None)
                await instance.chain.route(delivery)
                delivery.proceed(route=route)
                instance.chain.source(delivery)
                delivery.proceed(source=source)
                instance.chain.admit(delivery)
    if examination.has("reply"):
        for attempt in hostile.attempts(now):
            outcome = attempt.outcome
            probe.label = f"{outcome.stage}: {outcome.code} {outcome.status} {outcome.text[:20]!r}"
            if _goes_on(examination, instance, first):
                instance.chain.reply(attempt)


async def _events(examination: Examination) -> None:
    instance, probe = examination.service, examination.probe
    first = len(probe.failures)
    for step in instance.chain.steps["observe"]:
        wanted = [one for one in hostile.events(examination.site.now) if one.type in step.interest]
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            probe.label = f"events such as {batch[0].type!r}"
            # Each comes at least once; after a crash, again.
            for _ in range(2):
                if _goes_on(examination, instance, first):
                    (again,) = instance.chain.steps["observe"]
                    await instance.chain.observe(again, batch)


async def _pages(examination: Examination) -> None:
    instance, probe = examination.service, examination.probe
    hook = instance.loaded.hooks.get("http")
    if hook is None:
        return
    source, watchdog = examination.candidate.source, instance.watchdog
    late = 0
    try:
        application = hook()
    except Exception as error:
        examination.error(f"http raises {type(error).__name__}: {error}", source.of_error(error))
        return
    task = asyncio.current_task()
    assert task is not None
    for scope, body in pages.scopes(instance.loaded.entry.name):
        if late >= MOST_LATE:
            break
        probe.label = pages.shown(scope)
        watchdog.tasks[task] = monotonic() + TIMEOUT
        try:
            async with asyncio.timeout(TIMEOUT):
                await probe.watched("http", pages.ask(application, scope, body))
        except (Exception, HookTimeoutError) as error:
            place = source.of_error(error)
            if isinstance(error, HookTimeoutError | TimeoutError):
                late += 1
                probe.note(Failure("http", probe.label, LATE, "", place))
            else:
                probe.note(raised("http", probe.label, error, place))
        finally:
            del watchdog.tasks[task]


async def _commands(examination: Examination) -> None:
    # Where commands are asked for, start does not run.
    instance = examination.site.instance()
    hook = instance.loaded.hooks.get("commands")
    if hook is None:
        return
    source = examination.candidate.source
    try:
        command = hook(examination.site.context(instance, "command"))
        if command is not None and not hasattr(command, "make_context"):
            examination.error(f"commands answers {type(command).__name__}, and no click.Command")
        elif command is not None:
            for words in _help(command):
                with contextlib.redirect_stdout(io.StringIO()):
                    command.main([*words, "--help"], standalone_mode=False)
    except (Exception, SystemExit) as error:
        text = f"commands raises {type(error).__name__}: {error}"
        examination.error(f"{text}; it runs without start", source.of_error(error))


def _help(command: Any) -> Iterator[list[str]]:
    yield []
    for name, inner in getattr(command, "commands", {}).items():
        yield from ([name, *words] for words in _help(inner))
