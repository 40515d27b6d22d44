"""When a hook of the plugin fails, its entry's `on_error` applies, and nothing else happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gateway.attempt import Attempt, Delivery
from gateway.events import Event
from gateway.hooks.actions import Delay, Quarantine, Tempfail
from gateway.hooks.chain import Filtered
from gateway.hooks.division import Copy
from gateway.hooks.load import LoadedPlugin
from gateway.hooks.plugin import Login
from gateway.mail.message import Client, Message, Recipient
from gateway.testing.conformance.examination import Examination
from gateway.testing.conformance.journey import deliveries, outcomes
from gateway.testing.conformance.site import Instance

POLICIES = ("tempfail", "skip", "quarantine")
WAYS = ("raises", "hangs")
TIMEOUT = 0.1
"""Seconds that a hook has that is made to hang."""
CONTENT = b"From: Aiko <news@example.com>\r\nTo: ada@example.net\r\nSubject: Hi\r\n\r\nHello\r\n"


async def check(examination: Examination) -> str:
    """Has each hook do its work and then raise, or hang, under each policy."""
    hooks = [name for name in _TRIALS if examination.worker.has(name)]
    hooks += ["observe"] if examination.service.has("observe") else []
    total = len(hooks) * len(WAYS) * len(POLICIES)
    done = 0
    for hook in hooks:
        for way in WAYS:
            for policy in POLICIES:
                problem = await _try(examination, hook, way, policy)
                if problem:
                    examination.error(f"{hook} {way}, with on_error {policy}: {problem}")
                done += 1
                examination.advance(done / total)
    names = ", ".join(hooks) or "no hook"
    return f"{names} made to raise and to hang, under each on_error"


async def _try(examination: Examination, hook: str, way: str, policy: str) -> str:
    base = examination.service if hook == "observe" else examination.worker
    entry = base.loaded.entry.model_copy(update={"timeout": TIMEOUT, "on_error": policy})
    kept = {"receive", hook} if hook == "claim" else {hook}
    hooks = {name: one for name, one in base.loaded.hooks.items() if name in kept}
    instance = base.rewired(_failing(hook, way)(replace(base.loaded, entry=entry, hooks=hooks)))
    try:
        if hook == "observe":
            return await _observe(instance, policy)
        return await _TRIALS[hook](instance, policy, examination.site.now)
    finally:
        instance.close()


def _failing(hook: str, way: str) -> Callable[[LoadedPlugin], LoadedPlugin]:
    """Has a hook fail, after it has done whatever it does."""

    def around(loaded: LoadedPlugin) -> LoadedPlugin:
        real = loaded.hooks[hook]

        def fail(*subjects: Any) -> None:
            real(*subjects)
            if way == "raises":
                raise RuntimeError("made to fail by the check")
            while True:
                time.sleep(0.01)

        async def fail_async(*subjects: Any) -> None:
            await real(*subjects)
            if way == "raises":
                raise RuntimeError("made to fail by the check")
            await asyncio.sleep(3600)

        failing = fail_async if loaded.is_async[hook] else fail
        return replace(loaded, hooks={**loaded.hooks, hook: failing})

    return around


def _client() -> Client:
    return Client("192.0.2.10", 40000, "test", "client.example.com", True)


def _message() -> Message:
    message = Message("FAILURE", "news@example.com", _client())
    message.receive(CONTENT)
    message.add_recipient("ada@example.net")
    message.add_recipient("eve@example.org")
    return message


def _expect(answer: object, policy: str, expected: Sequence[type | None]) -> str:
    """What is wrong with an answer; '' if it is the one of its policy."""
    wanted = dict(zip(POLICIES, expected, strict=True))[policy]
    if wanted is None:
        return "" if answer is None else f"answers {answer!r}, and nobody should have been asked"
    if isinstance(answer, wanted):
        return ""
    return f"ends in {answer!r}, and should in {wanted.__name__}"


async def _connect(instance: Instance, policy: str, now: float) -> str:
    return _expect(await instance.chain.connect(_client()), policy, (Tempfail, None, Tempfail))


async def _helo(instance: Instance, policy: str, now: float) -> str:
    return _expect(await instance.chain.helo(_client()), policy, (Tempfail, None, Tempfail))


async def _auth(instance: Instance, policy: str, now: float) -> str:
    login = Login(_client(), "PLAIN", "ada", "secret")
    return _expect(await instance.chain.auth(login), policy, (Tempfail, None, Tempfail))


async def _mail(instance: Instance, policy: str, now: float) -> str:
    message = Message("FAILURE", "news@example.com", _client())
    return _expect(await instance.chain.mail(message), policy, (Tempfail, None, Quarantine))


async def _rcpt(instance: Instance, policy: str, now: float) -> str:
    message = Message("FAILURE", "news@example.com", _client())
    answer = await instance.chain.rcpt(Recipient("ada@example.net", message=message))
    return _expect(answer, policy, (Tempfail, None, Quarantine))


async def _claim(instance: Instance, policy: str, now: float) -> str:
    message = Message("FAILURE", "", _client())
    recipient = Recipient("ada@example.net", message=message)
    answer = instance.chain.claim(recipient)
    if recipient.address != "ada@example.net":
        return f"the recipient stays changed: {recipient.address}"
    return _expect(answer, policy, (Tempfail, None, Tempfail))


async def _receive(instance: Instance, policy: str, now: float) -> str:
    answer = await instance.chain.receive(instance.loaded.entry.name, _message())
    return _expect(answer, policy, (Tempfail, Quarantine, Quarantine))


async def _filter(instance: Instance, policy: str, now: float) -> str:
    """`message` and `seal`."""
    message = _message()
    found = await instance.chain.message(message)
    if policy == "tempfail":
        if isinstance(found, Filtered):
            return "the message is let out"
        return _expect(found, policy, (Tempfail, None, None))
    if not isinstance(found, Filtered):
        return f"ends in {found!r}, and the message should be kept"
    addresses: list[str] = []
    for copy in found.copies:
        if policy == "quarantine" and copy.held is None:
            return "the message is let out, and should be held"
        if policy == "skip" and copy.held is not None:
            return "the message is held, and should go on"
        if copy.message.content != CONTENT:
            return "the message stays changed"
        if (copy.message.sender, copy.message.stream) != ("news@example.com", "default"):
            return "the sender or the stream stays changed"
        addresses += [recipient.address for recipient in copy.message.recipients]
    if sorted(addresses) != ["ada@example.net", "eve@example.org"]:
        return f"the recipients stay changed: {', '.join(addresses) or 'none is left'}"
    return ""


def _delivery(now: float) -> Delivery:
    first = deliveries(Copy(_message()), now)[0]
    first.close()
    return first


async def _route(instance: Instance, policy: str, now: float) -> str:
    answer = await instance.chain.route(_delivery(now))
    return _expect(answer, policy, (Delay, None, Quarantine))


async def _source(instance: Instance, policy: str, now: float) -> str:
    answer = instance.chain.source(_delivery(now))
    return _expect(answer, policy, (Delay, None, Quarantine))


async def _admit(instance: Instance, policy: str, now: float) -> str:
    answer = instance.chain.admit(_delivery(now))
    return _expect(answer, policy, (Delay, None, Quarantine))


async def _reply(instance: Instance, policy: str, now: float) -> str:
    delivery = _delivery(now)
    outcome = outcomes()[1]
    answer = instance.chain.reply(Attempt(delivery, delivery.recipients[0], None, None, outcome))
    if policy == "quarantine":
        return _expect(answer, policy, (None, None, Quarantine))
    return "" if answer == outcome else f"the outcome becomes {answer!r}"


async def _observe(instance: Instance, policy: str) -> str:
    (step,) = instance.chain.steps["observe"]
    kind = next(iter(sorted(step.interest.types or ("delivered",))), "delivered")
    seen = await instance.chain.observe(step, [Event(kind, 0.0, "FAILURE")])
    if seen != (policy == "skip"):
        return "the events are given up" if seen else "the events come again for ever"
    return ""


_TRIALS = {
    "connect": _connect,
    "helo": _helo,
    "auth": _auth,
    "mail": _mail,
    "claim": _claim,
    "receive": _receive,
    "rcpt": _rcpt,
    "message": _filter,
    "seal": _filter,
    "route": _route,
    "source": _source,
    "admit": _admit,
    "reply": _reply,
}
