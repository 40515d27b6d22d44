"""Replies of servers that follow the rules, and of those that do not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.reply import (
    MAX_LINES,
    MAX_OCTETS,
    MAX_TEXT,
    Reply,
    ReplyReader,
    code_of,
    one_line,
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"250 2.1.5 Ok", Reply(250, "2.1.5", "Ok")),
        (b"250 2.0.0 Ok: queued as 4F\r", Reply(250, "2.0.0", "Ok: queued as 4F")),
        (b"550 5.1.1 <a@b>: unknown", Reply(550, "5.1.1", "<a@b>: unknown")),
        (b"550 5.1.1", Reply(550, "5.1.1", "")),
        (b"250", Reply(250, "2.0.0", "")),
        (b"250 ", Reply(250, "2.0.0", "")),
        (b"250 Ok", Reply(250, "2.0.0", "Ok")),
        (b"451 later", Reply(451, "4.0.0", "later")),
        (b"554 no", Reply(554, "5.0.0", "no")),
        (b"354 go on", Reply(354, "3.0.0", "go on")),
        # The code is believed, not the status.
        (b"550 4.2.2 full", Reply(550, "5.2.2", "full")),
        (b"450 5.1.1 unknown", Reply(450, "4.1.1", "unknown")),
        (b"250 5.0.0 Ok", Reply(250, "2.0.0", "Ok")),
        # What only looks like a status is text.
        (b"550 5.1.1.2 x", Reply(550, "5.0.0", "5.1.1.2 x")),
        (b"550 10.0.0.1 is listed", Reply(550, "5.0.0", "10.0.0.1 is listed")),
        (b"550 5.1.1234 x", Reply(550, "5.0.0", "5.1.1234 x")),
        # Several lines.
        (
            b"550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three\r",
            Reply(550, "5.7.1", "one two three"),
        ),
        (b"550-5.7.1 one\n550 5.7.10 two", Reply(550, "5.7.1", "one 5.7.10 two")),
        (b"250-one\r\n550 two\r", Reply(550, "5.0.0", "one two")),
        # Bytes that are no text, and control characters.
        (b"250 caf\xe9", Reply(250, "2.0.0", r"caf\xe9")),
        ("550 5.1.1 宛先不明".encode(), Reply(550, "5.1.1", "宛先不明")),
        (b"250 a\x1b[31m\x00\x7f", Reply(250, "2.0.0", r"a\x1b[31m\x00\x7f")),
        (b"250 a\rb", Reply(250, "2.0.0", r"a\rb")),
        ("250 a\u2028b\x85c".encode(), Reply(250, "2.0.0", r"a\u2028b\x85c")),
        # No replies.
        (b"", Reply(0, "4.5.0", "")),
        (b"hello", Reply(0, "4.5.0", "hello")),
        (b"25", Reply(0, "4.5.0", "25")),
        (b"2500 Ok", Reply(0, "4.5.0", "2500 Ok")),
        (b"250x", Reply(0, "4.5.0", "250x")),
        (b"150 hm", Reply(0, "4.5.0", "150 hm")),
        (b"600 hm", Reply(0, "4.5.0", "600 hm")),
        ("２５０ Ok".encode(), Reply(0, "4.5.0", "２５０ Ok")),
    ],
)
def test_reading_one_reply(raw: bytes, expected: Reply) -> None:
    assert Reply.parse(raw) == expected
    assert code_of(raw) == expected.code


@given(st.binary(max_size=300) | st.from_regex(rb"[0-9]{3}[- ]?[ -~\r\n\xff]{0,60}"))
def test_anything_can_be_read_and_is_one_line(raw: bytes) -> None:
    reply = Reply.parse(raw)
    assert reply.code == 0 or 200 <= reply.code <= 599
    if reply.code:
        assert reply.status.startswith(f"{reply.code // 100}.")
    else:
        assert reply.status == "4.5.0"
    assert reply.text.splitlines() in ([], [reply.text])
    assert not any(character < " " or character == "\x7f" for character in reply.text)


def test_a_long_text_is_cut() -> None:
    assert len(one_line(b"x" * 5000)) == MAX_TEXT
    assert one_line(b"x" * 5000).endswith("x…")


_LINES = st.from_regex(rb"[2-5][0-5][0-9]([ -][ -~\x80-\xff]{0,20})?", fullmatch=True)


@given(
    st.lists(st.tuples(_LINES, st.sampled_from([b"\r\n", b"\n"])), max_size=12),
    st.binary(max_size=3).filter(lambda data: b"\n" not in data),
    st.lists(st.integers(0, 300), max_size=12),
)
def test_the_pieces_do_not_matter(
    lines: list[tuple[bytes, bytes]], rest: bytes, cuts: list[int]
) -> None:
    stream = b"".join(line + end for line, end in lines) + rest
    whole = ReplyReader()
    expected = whole.feed(stream)
    reader = ReplyReader()
    found: list[bytes] = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in pairwise(edges):
        found += reader.feed(stream[start:end])
    assert found == expected
    assert reader.pending == whole.pending
    # Nothing is lost: the complete lines are all there.
    complete = sum(1 for line, _ in lines if line[3:4] != b"-")
    assert len(found) == complete


def test_a_reply_is_there_at_its_last_line_and_not_before() -> None:
    reader = ReplyReader()
    assert reader.feed(b"250-one\r\n") == []
    assert reader.pending
    assert reader.feed(b"250 two\r\n354 go\r") == [b"250-one\r\n250 two\r"]
    assert reader.pending
    assert reader.feed(b"\n") == [b"354 go\r"]
    assert not reader.pending


@pytest.mark.parametrize(
    "endless",
    [
        b"250-and one more\r\n" * (MAX_LINES + 2),
        b"250-" + b"x" * 1000 + b"\r\n",
        b"x" * 4096,
    ],
)
def test_a_reply_without_end_is_cut_off(endless: bytes) -> None:
    reader = ReplyReader()
    fed = 0
    while not reader.too_long:
        assert reader.feed(endless) == []
        fed += len(endless)
        assert fed <= MAX_OCTETS + 2 * len(endless) + 1000 * MAX_LINES
    assert reader.feed(b"250 Ok\r\n") == []


@given(st.sampled_from([b"250-x\r\n", b"250-" + b"y" * 500 + b"\r\n", b"z" * 700]))
def test_what_came_before_a_reply_without_end_is_kept(endless: bytes) -> None:
    count = max(MAX_LINES, MAX_OCTETS // len(endless)) + 2
    reader = ReplyReader()
    assert reader.feed(b"250 Ok\r\n" + endless * count) == [b"250 Ok\r"]
    assert reader.too_long


def test_the_longest_reply_that_is_taken() -> None:
    reader = ReplyReader()
    lines = b"250-x\r\n" * (MAX_LINES - 1) + b"250 y\r\n"
    (raw,) = reader.feed(lines)
    assert code_of(raw) == 250
    assert not reader.too_long
