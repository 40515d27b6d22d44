"""The base class of plugins, and what they are given."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel

from gateway.events import Event
from gateway.limits import Limits
from gateway.mail.guard import Guard
from gateway.mail.message import Client
from gateway.resolver import Resolver

ConfigT = TypeVar("ConfigT", bound=BaseModel)


class Plugin(Generic[ConfigT]):
    """A plugin: a class with a pydantic model for its configuration and some hooks.

    One instance is made for each entry in `gateway.yaml`, in each process.

    Attributes:
        api: the version of this interface that the plugin is made for, such as `1.0`; '' is the
            one that is there.
        per_recipient: the `message` hook wants one recipient at a time; the core makes a copy of
            the message for each. Copies share what they do not change.
        blocking: the hooks wait for something, as for a database, without `await`: they are plain
            functions and run in threads of the plugin's own, so that other mail does not wait.
        threads: how many of its hooks run at a time in a process, if it is `blocking`.
        changes: what the hooks may change in a message; None if it does not say. Any of `sender`,
            `recipients`, `stream`, `body` (as a whole), `parts` (any text part), a type of text
            part such as `text/html`, `header:NAME`, and `header:*` for any field.
        config: this entry's configuration, checked.
        unused: names of hooks in which this entry, as it is configured, has nothing to do. They are
            left out of the chain, and cost nothing.
        observes: types of events that `observe` wants; None for all. What the gateway itself
            would tell and nobody wants is not written.
    """

    api: ClassVar[str] = ""
    per_recipient: ClassVar[bool] = False
    blocking: ClassVar[bool] = False
    threads: ClassVar[int] = 4
    changes: Collection[str] | None = None
    unused: Collection[str] = ()
    observes: Collection[str] | None = None

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @classmethod
    def config_model(cls) -> type[BaseModel]:
        """The model named in `class Name(Plugin[Model])`.

        Raises:
            TypeError: the class names none.
        """
        for base in cls.__mro__:
            for parent in getattr(base, "__orig_bases__", ()):
                if get_origin(parent) is Plugin:
                    (model,) = get_args(parent)
                    if isinstance(model, type) and issubclass(model, BaseModel):
                        return model
        raise TypeError(
            f"{cls.__name__} must name its configuration: class {cls.__name__}(Plugin[Config])"
        )


@dataclass(frozen=True, slots=True)
class Context:
    """What a plugin gets at its start, and its commands get when they are asked for.

    Attributes:
        name: the entry's name in `gateway.yaml`, unique in it.
        hostname: the gateway's name.
        role: the process that this is: a `worker`, the `service` process, or a `command`.
        folder: for the plugin's own files; made when first asked for by `data_folder()`.
        base: the folder of `gateway.yaml`, that relative paths in it start from.
        clock: seconds since the epoch.
        log: a logger of the plugin's own.
        resolver: asks the DNS as `dns` in `gateway.yaml` says.
        limits: rates, counters and leases that all processes of the gateway share.
        emit: puts an event into the outbox, for observers. What it returns is done when the event
            is on disk; only who has to be sure awaits it. It raises RuntimeError before the process
            is ready, and in a command.
    """

    name: str
    hostname: str
    role: Literal["worker", "service", "command"]
    folder: Path
    base: Path
    clock: Callable[[], float]
    log: logging.Logger
    resolver: Resolver
    limits: Limits
    emit: Callable[[Event], asyncio.Future[None]]

    def data_folder(self) -> Path:
        """The plugin's folder, made if need be, for its owner only."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.folder


@dataclass(slots=True)
class Login:
    """An attempt to log in. `user` is the identity that the client gets if it is let in.

    That is all that can be changed.
    """

    client: Client
    mechanism: str
    username: str
    password: str = field(repr=False)
    user: str = ""
    guard: Guard = field(default_factory=Guard, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "user", self.user or self.username)

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(self, "guard"):
            self.guard.check(f"login.{name}")
            if name == "user" and (type(value) is not str or not value.isprintable() or not value):
                raise ValueError(f"{value!r} is no name of a user")
        object.__setattr__(self, name, value)

    def forget(self) -> None:
        """Forgets who a plugin that did not know the client said that he is."""
        object.__setattr__(self, "user", self.username)

    def checkpoint(self) -> tuple[str, dict[str, str]]:
        """What `restore` goes back to."""
        return self.user, self.client.checkpoint()

    def restore(self, checkpoint: tuple[str, dict[str, str]]) -> None:
        """Goes back to what there was before."""
        user, notes = checkpoint
        object.__setattr__(self, "user", user)
        self.client.restore(notes)
