"""Content on its way in: the same in one block and in many, small and large; and what it takes."""

from __future__ import annotations

import gc
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.large_content import LARGE, Pieces
from gateway.smtp.allowance import Allowance
from gateway.smtp.arrival import NO_MEMORY, TOO_LARGE, Arrival
from gateway.smtp.buffer import LEAST, Buffer
from gateway.smtp.content import LineCheck, flaw, flaw_of, unstuff

MIB = 1 << 20
LINE = b"x" * 78 + b"\r\n"
PIECES = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\r\n", b".", b"\0", b"a" * 7, b"b" * 499, b"c" * 998]
)


def _arrival(allowance: Allowance, most: int = 50 * MIB, dots: bool = False) -> Arrival:
    return Arrival(allowance, most=most, line_length=998, dots=dots)


@given(st.lists(st.lists(PIECES, max_size=3).map(b"".join)))
def test_the_flaw_of_blocks_is_one_of_the_whole(blocks: list[bytes]) -> None:
    check = LineCheck(998)
    for block in blocks:
        check.feed(block)
    check.end()
    whole = b"".join(blocks)
    assert (check.flaw is None) is (flaw(whole, 998) is None)
    assert flaw_of(Pieces(whole), 998) == check.flaw or len(blocks) > 1


@pytest.mark.parametrize("tail", [b"", b"\r\n", b"\r", b"\n"])
@pytest.mark.parametrize("length", [997, 998, 999, 1000])
@pytest.mark.parametrize("cut", [1, 500, 997, 998, 999, 1000])
def test_a_line_over_blocks_may_be_as_long_as_in_one(tail: bytes, length: int, cut: int) -> None:
    whole = b"first\r\n" + b"x" * length + tail
    check = LineCheck(998)
    check.feed(whole[: 7 + cut])
    check.feed(whole[7 + cut :])
    check.end()
    assert (check.flaw is None) is (flaw(whole, 998) is None)


@pytest.mark.parametrize("dots", [False, True])
@pytest.mark.parametrize("size", [1000, LARGE, LARGE + 1, 3 * MIB])
@pytest.mark.parametrize("block", [65_536, 65_537, 100_003])
def test_what_comes_in_blocks_is_what_was_sent(size: int, block: int, dots: bool) -> None:
    content = (LINE + b"..\r\n.\r\n" * 50)[: size % 83] + LINE * (size // 80) + b".\r\n"
    sent = b"\r\n" + content if dots else content
    allowance = Allowance(50 * MIB)
    arrival = _arrival(allowance, dots=dots)
    for start in range(0, len(sent), block):
        arrival.add(sent[start : start + block])
    came = arrival.end()
    expected = unstuff(sent) if dots else content
    assert isinstance(came, memoryview) is (arrival.size > LARGE or allowance.taken > 0)
    assert bytes(came) == expected
    assert arrival.size == len(expected)
    assert arrival.refusal == ""
    del came
    arrival.close()
    assert allowance.taken == 0


def test_what_is_over_the_limit_is_refused_and_dropped() -> None:
    allowance = Allowance(50 * MIB)
    arrival = _arrival(allowance, most=2 * MIB)
    for _ in range(2 * MIB // len(LINE)):
        arrival.add(LINE)
    assert not arrival.refusal
    assert allowance.taken
    arrival.add(LINE)
    assert arrival.refusal == TOO_LARGE
    assert allowance.taken == 0
    for _ in range(1000):
        arrival.add(LINE)
    assert allowance.taken == 0


def test_a_declared_size_is_kept_free_from_the_beginning() -> None:
    allowance = Allowance(10 * MIB)
    first, second = _arrival(allowance), _arrival(allowance)
    assert first.expect(6 * MIB)
    assert allowance.taken == 6 * MIB
    assert not second.expect(6 * MIB)
    assert second.expect(4 * MIB)
    first.close()
    second.close()
    assert allowance.taken == 0


def test_a_small_message_that_was_declared_large_is_taken_all_the_same() -> None:
    allowance = Allowance(10 * MIB)
    arrival = _arrival(allowance)
    assert arrival.expect(6 * MIB)
    arrival.add(LINE)
    assert arrival.end() == LINE
    arrival.close()
    assert allowance.taken == 0


def test_more_than_was_declared_needs_more_room() -> None:
    allowance = Allowance(10 * MIB)
    other = _arrival(allowance)
    assert other.expect(5 * MIB)
    arrival = _arrival(allowance)
    assert arrival.expect(2 * MIB)
    block = LINE * (MIB // len(LINE))
    while not arrival.refusal:
        assert arrival.size < 6 * MIB
        assert allowance.taken <= 10 * MIB
        arrival.add(block)
    assert arrival.refusal == NO_MEMORY
    assert allowance.taken == 5 * MIB
    other.close()
    assert allowance.taken == 0


def test_what_a_message_takes_is_its_size_in_the_end() -> None:
    allowance = Allowance(50 * MIB)
    arrival = _arrival(allowance)
    block = LINE * (MIB // len(LINE))
    for _ in range(5):
        arrival.add(block)
    assert allowance.taken == 2 * LEAST
    content = arrival.end()
    assert allowance.taken == len(content) == 5 * len(block)
    arrival.close()
    # Somebody looks at it yet.
    assert allowance.taken == 5 * len(block)
    assert bytes(content[:80]) == LINE
    part = content[100:200]
    del content
    assert allowance.taken == 5 * len(block)
    del part
    assert allowance.taken == 0


def test_a_thread_that_looks_last_gives_it_back() -> None:
    allowance = Allowance(50 * MIB)
    buffer = Buffer(allowance, 50 * MIB)
    assert buffer.append(LINE)
    views = [buffer.end()]
    buffer.close()
    assert allowance.taken
    thread = threading.Thread(target=views.clear)
    thread.start()
    thread.join()
    assert allowance.taken == 0


def test_circles_of_what_was_refused_are_found() -> None:
    allowance = Allowance(50 * MIB)
    buffer = Buffer(allowance, 50 * MIB)
    assert buffer.append(LINE)
    gc.disable()
    try:
        circle: list[object] = [buffer.end()]
        circle.append(circle)
        del circle
        buffer.close()
        assert allowance.taken == 0
    finally:
        gc.enable()


def test_memory_that_the_system_does_not_give_is_no_room() -> None:
    allowance = Allowance(1 << 62)
    buffer = Buffer(allowance, 1 << 61)
    assert not buffer.reserve(1 << 61)
    assert allowance.taken == 0
    assert buffer.append(LINE)
    taken = allowance.taken
    assert not buffer.reserve(1 << 61)
    assert allowance.taken == taken
    buffer.close()
    assert allowance.taken == 0
