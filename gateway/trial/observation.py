"""Watches hooks: what each is given, what it answers and changes, and how it fails."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from gateway.attempt import Delivery
from gateway.hooks.load import LoadedPlugin
from gateway.hooks.plugin import Login
from gateway.hooks.spec import STAGES
from gateway.hooks.watchdog import HookTimeoutError
from gateway.mail.message import Client, Message, Recipient
from gateway.testing.changes import changes
from gateway.trial.record import Call, Fact

WATCHED = frozenset(
    {
        *("connect", "helo", "auth", "mail", "claim", "receive", "rcpt", "message", "seal"),
        *("route", "source", "admit"),
    }
)
"""The hooks that mail passes before an attempt."""

FRAMES = 4
"""Frames of a traceback that are kept."""


def observed(plugins: Sequence[LoadedPlugin], calls: list[Call]) -> list[LoadedPlugin]:
    """The same plugins; each call of their hooks is added to a list."""
    return [
        replace(
            plugin,
            hooks={
                name: _watched(plugin, name, hook, calls) if name in WATCHED else hook
                for name, hook in plugin.hooks.items()
            },
        )
        for plugin in plugins
    ]


def _watched(
    plugin: LoadedPlugin, hook: str, call: Callable[[Any], Any], calls: list[Call]
) -> Callable[[Any], Any]:
    def plain(subject: Any) -> Any:
        picture = _Picture(plugin, hook, subject)
        try:
            answer = call(subject)
        except BaseException as error:
            calls.append(picture.failed(error))
            raise
        calls.append(picture.answered(answer))
        return answer

    async def awaited(subject: Any) -> Any:
        picture = _Picture(plugin, hook, subject)
        try:
            answer = await call(subject)
        except BaseException as error:
            calls.append(picture.failed(error))
            raise
        calls.append(picture.answered(answer))
        return answer

    return awaited if plugin.is_async[hook] else plain


class _Picture:
    """A hook's subject before the call, to compare with."""

    def __init__(self, plugin: LoadedPlugin, hook: str, subject: Any) -> None:
        self._plugin = plugin
        self._hook = hook
        self._subject = subject
        self._message = subject.copy() if isinstance(subject, Message) else None
        self._facts = _facts(subject)
        self._about = _about(subject)
        self._started = perf_counter()

    def answered(self, answer: Any) -> Call:
        """The call, which has just ended."""
        call = self._call(perf_counter() - self._started)
        allowed = STAGES[self._hook].answers
        if answer is None or isinstance(answer, allowed):
            return replace(call, answer=answer)
        names = ", ".join(["None", *(kind.__name__ for kind in allowed)])
        fault = f"answered {type(answer).__name__}, and may answer {names}"
        return replace(call, answer=answer, fault=fault)

    def failed(self, error: BaseException) -> Call:
        """The call, which has just raised."""
        call = self._call(perf_counter() - self._started)
        if isinstance(error, HookTimeoutError):
            fault = f"ran longer than {self._plugin.entry.timeout:g} s"
        else:
            text = " ".join(str(error).split())
            fault = f"raised {type(error).__name__}" + (f": {text}" if text else "")
        return replace(call, fault=fault, traceback=_frames(error, self._plugin))

    def _call(self, seconds: float) -> Call:
        subject = self._subject
        before, after = self._facts, _facts(subject)
        return Call(
            plugin=self._plugin.entry.name,
            hook=self._hook,
            about=self._about,
            on_error=self._plugin.entry.on_error,
            seconds=seconds,
            changes=None if self._message is None else changes(self._message, subject.copy()),
            facts=tuple(
                [
                    Fact(name, before.get(name), after.get(name))
                    for name in {**before, **after}
                    if before.get(name) != after.get(name)
                ]
            ),
        )


def _about(subject: Any) -> str:
    match subject:
        case Message() | Delivery():
            return ", ".join([f"<{one.address}>" for one in subject.recipients])
        case Recipient():
            return f"<{subject.address}>"
        case Client():
            return subject.address
        case Login():
            return subject.username
    return ""


def _facts(subject: Any) -> dict[str, str]:
    """What a hook may change besides a message's content, by name."""
    match subject:
        case Message():
            facts = {f"note {name}": str(note) for name, note in subject.notes.items()}
            for one in subject.recipients:
                facts |= _facts_of_recipient(one, f" of <{one.address}>")
            return facts
        case Recipient():
            return {"address": subject.address, **_facts_of_recipient(subject, "")}
        case Client():
            return {f"note {name}": str(note) for name, note in subject.notes.items()}
        case Login():
            return {"user": subject.user}
        case Delivery():
            facts = {f"ceiling {name}": str(most) for name, most in subject.ceilings.items()}
            for name in ("messages_per_connection", "recipients_per_message"):
                if getattr(subject, name) is not None:
                    facts[name.replace("_", " ")] = str(getattr(subject, name))
            return facts
    return {}


def _facts_of_recipient(recipient: Recipient, whose: str) -> dict[str, str]:
    facts = {f"note {name}{whose}": str(note) for name, note in recipient.notes.items()}
    if recipient.return_path is not None:
        facts[f"return path{whose}"] = recipient.return_path
    return facts


def _frames(error: BaseException, plugin: LoadedPlugin) -> tuple[str, ...]:
    """The last lines of a traceback, from the plugin on."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__
    ]
    folder = _folder_of(plugin)
    for place, frame in enumerate(frames):
        if folder is not None and Path(frame.filename).is_relative_to(folder):
            frames = frames[place:]
            break
    # Of a deep one, where the plugin began is as good to know as where it ended.
    if len(frames) > FRAMES:
        frames = [frames[0], *frames[-FRAMES + 1 :]]
    return tuple(
        [f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" for frame in frames]
    )


def _folder_of(plugin: LoadedPlugin) -> Path | None:
    """Where a plugin's code is: its package's folder, or its file."""
    name = type(plugin.instance).__module__
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    path = Path(file)
    return path.parent if name.count(".") or path.name == "__init__.py" else path
