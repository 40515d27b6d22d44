"""Questions about many recipients, asked at once.

Mail comes recipient by recipient: a message for a thousand asks for the values of each in turn,
and a thousand messages at a time ask for one each. Servers are quick only where they are asked
about many. So questions wait a few milliseconds for others while the server is busy with earlier
ones, and a question brings those of the message's next recipients with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol
from weakref import WeakKeyDictionary

from gateway.hooks import Context, Message, Recipient
from plugins.personalization.sources.cache import Cache
from plugins.personalization.sources.source import SourceError, Values


@dataclass(frozen=True, slots=True)
class Question:
    """What is known of a recipient when its values are asked for; names as in the envelope."""

    address: str
    sender: str
    stream: str
    campaign: str
    message_id: str

    @classmethod
    def about(cls, message: Message, address: str) -> Question:
        """The question about one address of a message."""
        campaign = message.notes.get("campaign", "")
        return cls(address, message.sender, message.stream, campaign, message.id)


Answer = Values | SourceError | None
"""None: not known. An error is an answer like any other, so that nobody has to fetch it."""


class Server(Protocol):
    """Somebody who can be asked about several recipients at once."""

    async def open(self, context: Context) -> None:
        """Gets ready.

        Raises:
            ValueError: it cannot be asked as it is configured.
        """

    async def close(self) -> None:
        """Lets go of all connections."""

    async def ask(self, questions: Sequence[Question]) -> Mapping[str, Answer]:
        """The answers by address; an address that is not there is not known.

        The addresses are different, and `together` is the same for all.

        Raises:
            SourceError: there is no answer.
        """

    def together(self, question: Question) -> Hashable:
        """Questions for which this is the same can be asked at once."""

    def identity(self, question: Question) -> Hashable:
        """Questions for which this is the same have the same answer for a while."""


@dataclass(slots=True, eq=False)
class _Batch:
    """Questions that wait for others."""

    questions: dict[str, Question] = field(default_factory=dict)
    futures: dict[str, asyncio.Future[Answer]] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None

    def give_up(self) -> None:
        """Answers all questions with an error."""
        if self.timer is not None:
            self.timer.cancel()
        for future in self.futures.values():
            if not future.done():
                future.set_result(SourceError("The gateway is stopping", temporary=True))


class Batcher:
    """Collects questions and asks them together.

    Args:
        server: who is asked.
        size: the most questions at once.
        wait: seconds that an incomplete batch waits for more, while others are being asked.
        most: the most batches that are asked at a time.
    """

    def __init__(self, server: Server, size: int, wait: float, most: int) -> None:
        self._server = server
        self._size = size
        self._wait = wait
        self._places = asyncio.Semaphore(most)
        self._batches: dict[Hashable, _Batch] = {}
        self._tasks: dict[asyncio.Task[None], _Batch] = {}

    def put(self, question: Question) -> asyncio.Future[Answer]:
        """Asks; what is returned is done when there is an answer."""
        kind = self._server.together(question)
        batch = self._batches.get(kind)
        if batch is not None and question.address in batch.questions:
            # An answer tells addresses apart, and no messages.
            self._send(kind)
            batch = None
        loop = asyncio.get_running_loop()
        if batch is None:
            batch = self._batches[kind] = _Batch()
            if self._size > 1:
                # While nothing is being asked, waiting would only take time.
                wait = self._wait if self._tasks else 0.0
                batch.timer = loop.call_later(wait, self._send, kind)
        batch.questions[question.address] = question
        future = batch.futures[question.address] = loop.create_future()
        if len(batch.questions) >= self._size:
            self._send(kind)
        return future

    def _send(self, kind: Hashable) -> None:
        batch = self._batches.pop(kind)
        if batch.timer is not None:
            batch.timer.cancel()
        task = asyncio.create_task(self._ask(batch))
        self._tasks[task] = batch
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not self._tasks:
            for kind in list(self._batches):
                self._send(kind)

    async def _ask(self, batch: _Batch) -> None:
        futures = batch.futures
        answers: Mapping[str, Answer]
        try:
            async with self._places:
                # Who has given up meanwhile needs no answer.
                questions = [
                    question
                    for address, question in batch.questions.items()
                    if not futures[address].done()
                ]
                answers = await self._server.ask(questions) if questions else {}
        except SourceError as error:
            answers = dict.fromkeys(futures, error)
        except Exception as error:
            for future in futures.values():
                if not future.done():
                    future.set_exception(error)
            return
        for address, future in futures.items():
            if not future.done():
                future.set_result(answers.get(address))

    async def stop(self) -> None:
        """Gives up all questions: there is no answer any more."""
        batches, tasks = list(self._batches.values()), list(self._tasks)
        self._batches.clear()
        for batch in [*batches, *self._tasks.values()]:
            batch.give_up()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@dataclass(slots=True, eq=False)
class _Expected:
    """A message for several recipients.

    Attributes:
        addresses: those of its recipients that nobody has asked about yet, in their order.
        answers: what was asked with other recipients' questions and not been taken yet.
    """

    addresses: dict[str, None]
    answers: dict[Question, asyncio.Future[Answer]] = field(default_factory=dict)


class Batched:
    """A source that asks a server about many recipients at once.

    Args:
        server: who is asked.
        size, wait, most: as `Batcher` takes them.
        cache: seconds that an answer is good for; None: it is not kept.
        fallback: the values where the server fails or does not know a recipient.
    """

    def __init__(
        self,
        server: Server,
        *,
        size: int,
        wait: float,
        most: int,
        cache: float | None = None,
        fallback: Values | None = None,
    ) -> None:
        self._server = server
        self._size = size
        self._batcher = Batcher(server, size, wait, most)
        self._cache: Cache[Values | None] = Cache(cache or 0.0, time.monotonic)
        self._fallback = fallback
        # Nothing here keeps a message in memory: what was asked for it goes when it goes.
        self._expected: WeakKeyDictionary[Message, _Expected] = WeakKeyDictionary()

    async def start(self, context: Context) -> None:
        """Gets ready to ask.

        Raises:
            ValueError: the server cannot be asked as it is configured.
        """
        await self._server.open(context)

    async def stop(self) -> None:
        """Gives up what is being asked, and lets go of all connections."""
        await self._batcher.stop()
        await self._server.close()

    async def values(self, message: Message, recipient: Recipient) -> Values | None:
        """The server's values of a recipient, or those that stand in for them.

        Raises:
            SourceError: the server cannot tell.
        """
        question = Question.about(message, recipient.address)
        identity = self._server.identity(question)
        kept = self._cache.get(identity)
        if kept is not None:
            answer: Answer = kept.answer
        else:
            answer = await self._ask(message, question)
            if not isinstance(answer, SourceError):
                self._cache.put(identity, answer)
        if answer is None:
            return self._fallback
        if isinstance(answer, SourceError):
            if self._fallback is not None:
                return self._fallback
            # A new one each time: one that is raised again collects tracebacks.
            raise SourceError(answer.text, temporary=answer.temporary)
        return answer

    async def _ask(self, message: Message, question: Question) -> Answer:
        whole = message.whole
        if self._size == 1 or len(whole.recipients) == 1:
            return await self._batcher.put(question)
        expected = self._expected.get(whole)
        if expected is None:
            addresses = dict.fromkeys([recipient.address for recipient in whole.recipients])
            expected = self._expected[whole] = _Expected(addresses)
        future = expected.answers.pop(question, None)
        if future is None:
            future = self._batcher.put(question)
            expected.addresses.pop(question.address, None)
            self._ask_ahead(message, expected)
        return await future

    def _ask_ahead(self, message: Message, expected: _Expected) -> None:
        """Fills the batch with the recipients that the message comes for next."""
        addresses = expected.addresses
        for address in list(islice(addresses, self._size - 1)):
            del addresses[address]
            question = Question.about(message, address)
            if self._cache.get(self._server.identity(question)) is None:
                expected.answers[question] = self._batcher.put(question)
