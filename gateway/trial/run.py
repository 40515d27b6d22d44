"""Runs one message through a chain of plugins: the real session, ingress and chain, no queue."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gateway.configuration.config import Config
from gateway.configuration.network import NetworkSet, parse_network
from gateway.events import Event
from gateway.hooks.chain import Chain, Copy
from gateway.hooks.condition import Streams
from gateway.hooks.lifecycle import resolver_of, start_plugins, stop_plugins
from gateway.hooks.load import LoadedPlugin
from gateway.hooks.watchdog import Watchdog
from gateway.limits import Limits
from gateway.log import AcceptLog
from gateway.mail.message import Message
from gateway.queue.dispatch import Dispatcher
from gateway.smtp.ingress import Ingress
from gateway.smtp.listener import Listener
from gateway.spool.shard_file import SpoolError
from gateway.spool.spool import Spool
from gateway.trial.dialogue import Dialogue, Submission
from gateway.trial.forwarding import Forwarding
from gateway.trial.observation import observed
from gateway.trial.record import Call, ResultingCopy, Trial, Way
from gateway.trial.scratch import in_scratch

_EVERYBODY = ("0.0.0.0/0", "::/0")


class _Intake(Dispatcher):
    """Stands where the queue is: keeps what ingress hands over, and writes nothing."""

    def __init__(self) -> None:
        self.copies: list[Copy] = []
        self.events: list[Event] = []

    def accept(
        self,
        copies: Sequence[Copy],
        received: float,
        events: Sequence[Event],
        done: Callable[[SpoolError | None], None],
    ) -> None:
        """Takes a message's copies."""
        self.copies += copies
        self.events += events
        done(None)


class _OneStream(Streams):
    """Sorts all mail into one stream."""

    def __init__(self, config: Config, name: str) -> None:
        super().__init__(config.streams)
        self._name = name

    def classify(self, message: Message, headers_known: bool) -> str:
        """The stream, whatever the message."""
        return self._name


class _Lines(logging.Handler):
    """Keeps what the gateway and its plugins log, as text."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Takes one record. What is logged of calls, and of the message, the trial says itself."""
        of_plugin = record.name.startswith("gateway.plugin.")
        if record.name == "gateway.chain" or not (of_plugin or record.levelno >= logging.WARNING):
            return
        who = record.name.removeprefix("gateway.")
        self.lines.append(f"{record.levelname.lower()}: {who}: {record.getMessage()}")


async def run(
    config: Config,
    plugins: Sequence[LoadedPlugin],
    submission: Submission,
    *,
    stream: str | None = None,
    deliver: bool = False,
) -> Trial:
    """Hands a message to a gateway with these plugins.

    Plugins start as in a worker. They find copies of the site's files and limits, and what they
    emit is caught; all of that is gone afterwards.

    Args:
        config: the site's; nothing of it is written.
        plugins: those of the chain, in their order.
        submission: the message.
        stream: the stream that it belongs to; None: as the configuration sorts it.
        deliver: whether it is asked which way the message would go.

    Raises:
        ScratchError: the site's files cannot be copied.
        PluginStartError: a plugin cannot start.
        SpoolError: the folder of temporary files cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="gateway-try-") as name:
        names = [plugin.entry.name for plugin in plugins]
        scratch, notes = in_scratch(config, Path(name), names)
        with _logged() as lines:
            return await _run(
                scratch, plugins, submission, stream=stream, deliver=deliver, notes=notes, log=lines
            )


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Collects what is logged meanwhile."""
    handler = _Lines()
    logger = logging.getLogger("gateway")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


async def _run(
    config: Config,
    plugins: Sequence[LoadedPlugin],
    submission: Submission,
    *,
    stream: str | None,
    deliver: bool,
    notes: list[str],
    log: list[str],
) -> Trial:
    calls: list[Call] = []
    events: list[Event] = []

    def emit(event: Event) -> asyncio.Future[None]:
        events.append(event)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    watchdog = Watchdog()
    chain = Chain(observed(plugins, calls), watchdog)
    resolver = resolver_of(config)
    limits = Limits(config.spool.limits)
    intake = _Intake()
    spool = Spool(config.spool.path, "", config.spool.reserve)
    spool.open()
    watchdog.start()
    try:
        await start_plugins(plugins, config, "worker", resolver, limits, emit)
        try:
            ingress = Ingress(
                hostname=config.hostname,
                limits=config.limits,
                campaign_header=config.campaign_header,
                release_header=config.release_header,
                streams=config.compiled_streams if stream is None else _OneStream(config, stream),
                chain=chain,
                spool=spool,
                dispatcher=intake,
                accept_log=AcceptLog(),
                clock=time.time,
            )
            allow = NetworkSet([parse_network(network) for network in _EVERYBODY])
            dialogue = Dialogue(Listener(name="try", ingress=ingress, allow=allow), submission)
            await dialogue.hold()
            now = time.time()
            ways: list[tuple[Way, ...]] = [() for _ in intake.copies]
            if deliver:
                forwarding = Forwarding(config, chain, resolver)
                ways = [
                    () if copy.claimed_by else await forwarding.ways(copy, now)
                    for copy in intake.copies
                ]
        finally:
            await stop_plugins(plugins)
    finally:
        watchdog.stop()
        await resolver.close()
        limits.close()
        spool.close()
    discarded = [event for event in intake.events if event.type == "discarded"]
    return Trial(
        replies=tuple(dialogue.replies),
        calls=tuple(calls),
        copies=tuple(
            [_resulting(copy, way) for copy, way in zip(intake.copies, ways, strict=True)]
        ),
        discarded=tuple([(event.recipient, event.reason) for event in discarded]),
        events=(*intake.events, *events),
        log=tuple(log),
        notes=tuple(notes),
    )


def _resulting(copy: Copy, ways: tuple[Way, ...]) -> ResultingCopy:
    message = copy.message
    return ResultingCopy(
        sender=message.sender,
        recipients=tuple([recipient.address for recipient in message.recipients]),
        stream=message.stream,
        content=message.content,
        held=copy.held,
        delay=max(copy.delay, message.release - time.time() if message.release else 0.0),
        claimed_by=copy.claimed_by,
        ways=ways,
    )
