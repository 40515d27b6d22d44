from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Context, Message
from plugins.personalization.sources import SourceError, Sources
from plugins.personalization.sources.batch import Answer, Batched, Question
from plugins.personalization.sources.cache import Cache
from plugins.personalization.sources.outage import Outage
from tests.assembly import until
from tests.plugins.personalization_site import context, copies, message

LATER = 60.0
"""Seconds that no test waits for an incomplete batch."""


class Directory:
    """A server that knows everyone but nobody@…, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.questions: list[Question] = []
        self.at_once = 0
        self.most_at_once = 0
        self.failure: Exception | None = None
        self.hold: asyncio.Event | None = None

    async def open(self, context: Context) -> None:
        """Nothing is to be done."""

    async def close(self) -> None:
        """Nothing is to be done."""

    async def ask(self, questions: Sequence[Question]) -> Mapping[str, Answer]:
        self.asked.append([question.address for question in questions])
        self.questions += questions
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.hold is not None:
                await self.hold.wait()
            await asyncio.sleep(0)
            if self.failure is not None:
                raise self.failure
            return {
                question.address: {"of": question.address, "campaign": question.campaign}
                for question in questions
                if not question.address.startswith("nobody@")
            }
        finally:
            self.at_once -= 1

    def together(self, question: Question) -> Hashable:
        return question.stream

    def identity(self, question: Question) -> Hashable:
        return question.address


def batched(server: Directory, **how: Any) -> Batched:
    return Batched(server, **({"size": 50, "wait": 0.002, "most": 4} | how))


def addresses(count: int) -> list[str]:
    return [f"customer{number}@example.com" for number in range(count)]


async def ask(source: Batched, address: str, **of_message: Any) -> Any:
    whole = message(address, **of_message)
    return await source.values(whole, whole.recipients[0])


async def ask_many(source: Batched, wanted: Sequence[str]) -> list[Any]:
    """As many messages at a time, each with an id of its own."""
    return await asyncio.gather(*[ask(source, one, id=f"ID-{one}") for one in wanted])


async def in_turn(source: Batched, whole: Message) -> list[Any]:
    """As the hook is called: for one recipient after another."""
    return [await source.values(*one) for one in copies(whole)]


async def test_questions_at_the_same_time_are_asked_together() -> None:
    server = Directory()
    answers = await ask_many(batched(server), addresses(120))
    assert [answer["of"] for answer in answers] == addresses(120)
    assert [len(asked) for asked in server.asked] == [50, 50, 20]


async def test_a_full_batch_does_not_wait() -> None:
    server = Directory()
    async with asyncio.timeout(LATER / 2):
        await ask_many(batched(server, size=10, wait=LATER), addresses(20))
    assert [len(asked) for asked in server.asked] == [10, 10]


async def test_so_many_requests_run_at_a_time_and_no_more() -> None:
    server = Directory()
    await ask_many(batched(server, size=2, most=3), addresses(40))
    assert server.most_at_once == 3
    assert len(server.asked) == 20


async def test_what_does_not_belong_together_is_asked_apart() -> None:
    server = Directory()
    source = batched(server)

    async def of_stream(stream: str, address: str) -> None:
        whole = message(address, id=f"{stream}{address}")
        whole.stream = stream
        await source.values(whole, whole.recipients[0])

    await asyncio.gather(*[of_stream(s, a) for a in addresses(3) for s in ("bulk", "urgent")])
    assert server.asked == [addresses(3), addresses(3)]


async def test_one_address_is_once_in_a_batch() -> None:
    """An answer is found by its address: it must not be that to another campaign's question."""
    server = Directory()
    source = batched(server)
    answers = await asyncio.gather(
        ask(source, "taro@x.jp", id="ID1", campaign="spring"),
        ask(source, "hanako@x.jp", id="ID2", campaign="spring"),
        ask(source, "taro@x.jp", id="ID3", campaign="summer"),
    )
    assert [answer["campaign"] for answer in answers] == ["spring", "spring", "summer"]
    assert server.asked == [["taro@x.jp", "hanako@x.jp"], ["taro@x.jp"]]


async def test_who_is_not_known_has_no_values_or_those_to_fall_back_on() -> None:
    assert await ask(batched(Directory()), "nobody@x.jp") is None
    assert await ask(batched(Directory(), fallback={"offers": []}), "nobody@x.jp") == {"offers": []}


async def test_a_failure_concerns_all_of_the_batch() -> None:
    server = Directory()
    server.failure = SourceError("closed", temporary=True)
    source = batched(server)
    answers = await asyncio.gather(
        *[ask(source, one, id=one) for one in addresses(3)], return_exceptions=True
    )
    assert [str(answer) for answer in answers] == ["closed"] * 3
    assert len({id(answer) for answer in answers}) == 3, "each has a traceback of its own"
    server.failure = None
    assert (await ask(source, "taro@x.jp"))["of"] == "taro@x.jp"


async def test_a_failure_with_values_to_fall_back_on() -> None:
    server = Directory()
    server.failure = SourceError("closed", temporary=True)
    source = batched(server, fallback={"offers": []}, cache=LATER)
    assert await ask(source, "taro@x.jp") == {"offers": []}
    server.failure = None
    assert (await ask(source, "taro@x.jp"))["of"] == "taro@x.jp", "a failure is not kept"


async def test_a_fault_of_ours_is_not_taken_for_an_answer() -> None:
    server = Directory()
    server.failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await ask(batched(server, fallback={"offers": []}), "taro@x.jp")


async def test_an_incomplete_batch_waits_only_while_the_server_is_busy() -> None:
    server = Directory()
    server.hold = asyncio.Event()
    source = batched(server, size=3, wait=LATER)
    first = asyncio.create_task(ask(source, "first@x.jp", id="ID0"))
    await until(lambda: server.asked == [["first@x.jp"]], "the first question to be asked at once")
    others = [asyncio.create_task(ask(source, one, id=one)) for one in addresses(3)]
    await until(lambda: len(server.asked) == 2, "the full batch")
    late = asyncio.create_task(ask(source, "late@x.jp", id="ID9"))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert server.asked == [["first@x.jp"], addresses(3)]
    server.hold.set()
    async with asyncio.timeout(LATER / 2):
        assert (await late)["of"] == "late@x.jp", "the server has nothing else to do"
    await asyncio.wait([first, *others])
    assert server.asked[2:] == [["late@x.jp"]]


async def test_who_gave_up_is_not_asked_about() -> None:
    server = Directory()
    server.hold = asyncio.Event()
    source = batched(server, size=3, wait=LATER)
    first = asyncio.create_task(ask(source, "first@x.jp", id="ID0"))
    await until(lambda: server.asked, "a question to be asked")
    tasks = [asyncio.create_task(ask(source, one, id=one)) for one in addresses(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    tasks.append(asyncio.create_task(ask(source, "taro@x.jp", id="ID1")))
    await until(lambda: len(server.asked) == 2, "the batch to be full")
    server.hold.set()
    await asyncio.wait([first, *tasks])
    assert server.asked[1:] == [["customer1@example.com", "taro@x.jp"]]
    assert tasks[1].result()["of"] == "customer1@example.com"


async def test_stopping_answers_everyone() -> None:
    server = Directory()
    server.hold = asyncio.Event()
    source = batched(server, size=2, wait=LATER)
    tasks = [asyncio.create_task(ask(source, one, id=one)) for one in addresses(3)]
    await until(lambda: server.asked, "the first batch to be asked")
    tasks += [asyncio.create_task(ask(source, f"late{n}@x.jp", id=f"L{n}")) for n in range(2)]
    await asyncio.sleep(0)  # now they are put, and the task that asks has not begun
    await source.stop()
    for task in tasks:
        with pytest.raises(SourceError, match="is stopping"):
            await task


# The recipients of one message.


async def test_a_message_for_a_thousand_is_asked_in_batches() -> None:
    server = Directory()
    source = batched(server, size=50, wait=LATER)
    whole = message(*addresses(1000))
    async with asyncio.timeout(LATER / 2):
        answers = await in_turn(source, whole)
    assert [answer["of"] for answer in answers] == addresses(1000)
    assert [len(asked) for asked in server.asked] == [50] * 20


async def test_a_query_for_one_recipient_is_not_asked_ahead() -> None:
    server = Directory()
    source = batched(server, size=1)
    whole = message(*addresses(5))
    await source.values(*copies(whole)[0])
    assert server.asked == [["customer0@example.com"]]


async def test_the_same_recipient_twice() -> None:
    server = Directory()
    source = batched(server)
    whole = message("taro@x.jp", "hanako@x.jp", "taro@x.jp")
    answers = await in_turn(source, whole)
    assert [answer["of"] for answer in answers] == ["taro@x.jp", "hanako@x.jp", "taro@x.jp"]


async def test_a_copy_that_became_another_message_is_asked_about_anew() -> None:
    server = Directory()
    source = batched(server)
    whole = message("taro@x.jp", "hanako@x.jp", campaign="spring")
    first, second = copies(whole)
    second[0].notes["campaign"] = "summer"
    answers: list[Any] = [await source.values(*one) for one in (first, second)]
    assert [answer["campaign"] for answer in answers] == ["spring", "summer"]


async def test_what_is_kept_already_is_not_asked_ahead() -> None:
    server = Directory()
    source = batched(server, cache=LATER)
    await ask(source, "hanako@x.jp", id="ID0")
    whole = message("taro@x.jp", "hanako@x.jp", "jiro@x.jp")
    await in_turn(source, whole)
    assert server.asked == [["hanako@x.jp"], ["taro@x.jp", "jiro@x.jp"]]


async def test_nothing_is_left_of_a_message_that_has_gone() -> None:
    server = Directory()
    source = batched(server)
    for number in range(3):
        whole = message(*addresses(100), id=f"ID{number}")
        await source.values(*copies(whole)[0])
        for recipient in whole.recipients:
            recipient.message = None  # as the gateway does where a message ends
    del whole, recipient
    gc.collect()
    assert len(source._expected) == 0


async def test_messages_are_kept_apart() -> None:
    server = Directory()
    source = batched(server, size=10)
    wholes = [message(*addresses(30), id=f"ID{n}", campaign=f"C{n}") for n in range(5)]
    answers = await asyncio.gather(*[in_turn(source, whole) for whole in wholes])
    for number, of_message in enumerate(answers):
        assert [answer["of"] for answer in of_message] == addresses(30)
        assert {answer["campaign"] for answer in of_message} == {f"C{number}"}
    assert all(len(asked) == len(set(asked)) <= 10 for asked in server.asked)


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=8), max_size=4),
    st.integers(1, 4),
    st.sampled_from([None, LATER]),
)
async def test_everyone_gets_its_own_answer(
    messages: list[list[int]], size: int, cache: float | None
) -> None:
    server = Directory()
    source = batched(server, size=size, wait=0.0, cache=cache)
    wholes = [
        message(*[f"c{n}@x.jp" for n in numbers], id=f"ID{index}")
        for index, numbers in enumerate(messages)
    ]
    answers = await asyncio.gather(*[in_turn(source, whole) for whole in wholes])
    assert [[answer["of"] for answer in of_message] for of_message in answers] == [
        [f"c{n}@x.jp" for n in numbers] for numbers in messages
    ]
    assert all(0 < len(asked) <= size for asked in server.asked)


async def test_sources_ask_in_batches(tmp_path: Path) -> None:
    server = Directory()
    sources = Sources([batched(server)])
    await sources.start(context(tmp_path))
    whole = message(*addresses(3))
    for one in copies(whole):
        assert (await sources.values(*one))["of"] == one[1].address
    assert server.asked == [addresses(3)]
    await sources.stop()


# What answers are kept in, and what the log is told.


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_an_answer_is_good_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    server = Directory()
    source = batched(server, size=1, cache=60.0)
    monkeypatch.setattr(source._cache, "_clock", clock)
    for now, asked in [(0, 1), (59.9, 1), (60, 2), (61, 2)]:
        clock.now = 1000.0 + now
        assert await ask(source, "taro@x.jp")
        assert await ask(source, "nobody@x.jp") is None
        assert server.asked.count(["taro@x.jp"]) == asked
        assert server.asked.count(["nobody@x.jp"]) == asked


def test_the_newest_answers_are_kept() -> None:
    clock = Clock()
    cache: Cache[int] = Cache(60.0, clock)
    for number in range(12_000):
        cache.put(number % 11_000, number)
    assert len(cache._kept) == 10_000
    assert cache.get(999) is not None
    assert cache.get(1500) is None
    nothing: Cache[int] = Cache(0.0, clock)
    nothing.put(1, 1)
    assert nothing.get(1) is None


def test_the_log_is_told_of_a_failure_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    outage = Outage("sql db", clock)
    outage.start(logging.getLogger("test"))
    caplog.set_level("INFO")
    outage.worked()
    for second in range(25):
        clock.now = 1000.0 + second
        outage.failed(f"closed\r\nat {second} \ud800太郎")
        outage.worked()
    clock.now += 10
    outage.worked()
    outage.worked()
    assert [record.getMessage() for record in caplog.records] == [
        "source sql db: closed??at 0 ?太郎",
        "source sql db: closed??at 10 ?太郎 (9 more failures since the last such line)",
        "source sql db: closed??at 20 ?太郎 (9 more failures since the last such line)",
        "source sql db works again",
    ]
