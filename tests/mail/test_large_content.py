"""Large content: what is asked of it block by block is what is true of it as a whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.headers import split, split_beginning
from gateway.mail.large_content import BLOCK, LARGE, LargeContent, Octets, Pieces
from gateway.mail.message import Client, Message
from gateway.mail.transparency import Dots

OCTETS = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b" ", b"A: b\r\n", b"\xe9", b"\r\n."])
).map(b"".join)
TRACE = b"Received: from x\r\n\tby y\r\n"


class _Blocks(LargeContent):
    """Content whose blocks end wherever a test says."""

    def __init__(self, *blocks: bytes) -> None:
        super().__init__()
        self._all = blocks

    def __len__(self) -> int:
        return sum(map(len, self._all))

    def blocks(self) -> list[Octets]:  # type: ignore[override]
        return list(self._all)


def _message() -> Message:
    return Message("id", "a@example.com", Client("192.0.2.1"))


@given(st.lists(OCTETS))
def test_what_is_known_of_blocks_is_true_of_the_whole(blocks: list[bytes]) -> None:
    content = _Blocks(*blocks)
    whole = b"".join(blocks)
    ends = whole.count(b"\r\n")
    assert bytes(content) == whole
    assert len(content) == len(whole)
    assert content.is_ascii is whole.isascii()
    assert content.is_clean is (whole.count(b"\r") == ends == whole.count(b"\n"))
    assert content.header() == split(whole)[0]


@given(OCTETS, OCTETS)
def test_a_header_that_is_known_early_is_the_one_of_the_whole(first: bytes, rest: bytes) -> None:
    found = split_beginning(first)
    if found is not None:
        assert found == split(first + rest)[:2]


def test_a_header_that_may_go_on_is_not_known() -> None:
    assert split_beginning(b"Subject: x\r\nFrom") is None
    assert split_beginning(b"Subject: x\r\n") is None
    assert split_beginning(b"") is None
    assert split_beginning(b"Subject") is None
    assert split_beginning(b".") is None
    assert split_beginning(b"Subject: x\r\n\r\n") == (b"Subject: x\r\n", b"\r\n")
    assert split_beginning(b"Subject: x\r\nno field\r\nx") == (b"Subject: x\r\n", b"")


def test_pieces_are_given_in_blocks_that_share_them() -> None:
    body = bytes(range(256)) * 4096
    pieces = Pieces(b"header", b"", memoryview(body))
    blocks = list(pieces.blocks())
    assert [len(block) for block in blocks] == [6, *[BLOCK] * (len(body) // BLOCK)]
    assert b"".join(blocks) == b"header" + body == bytes(pieces)
    assert all(isinstance(one, memoryview) and one.obj is body for one in blocks[1:])


@given(st.lists(OCTETS))
def test_dots_are_put_in_and_taken_out_as_of_the_whole(blocks: list[bytes]) -> None:
    whole = b"".join([b"\r\n", *blocks])
    for dots, expected in (
        (Dots.added(), whole.replace(b"\r\n.", b"\r\n..")),
        (Dots.removed(), whole.replace(b"\r\n.", b"\r\n")),
    ):
        changed = [dots.feed(block) for block in (b"\r\n", *blocks)]
        assert b"".join([*changed, dots.end()]) == expected[2:]


@given(OCTETS)
def test_a_large_message_is_as_one_that_is_not(lines: bytes) -> None:
    content = lines + b"\r\n"
    plain, large = _message(), _message()
    plain.receive(TRACE + content)
    if large.receive_large(TRACE, memoryview(content)):
        assert large.headers.raw == plain.headers.raw
        assert bytes(large.body_view) == plain.body == large.body
        assert large.content == plain.content
        assert large.size == plain.size == len(plain.content)
        assert large.equals(plain)
    else:  # it ends within its header, which no message of that size may do
        assert plain.body == b""


def test_a_large_body_is_copied_only_for_who_asks() -> None:
    body = b"x" * 78 + b"\r\n"
    body = body * (LARGE // len(body) + 1)
    content = b"Subject: x\r\n\r\n" + body
    message = _message()
    assert message.receive_large(TRACE, memoryview(content).toreadonly())
    assert message.copy().body_view.obj is content
    octets = message.copy().octets
    assert isinstance(octets, Pieces)
    assert bytes(octets) == TRACE + content == message.content
    assert message.body == body
    assert message.body is message.body
    message.body = b"small\r\n"
    assert message.octets == TRACE + b"Subject: x\r\n\r\nsmall\r\n"
    assert message.size == len(message.content)


def test_a_large_message_can_be_changed_and_restored() -> None:
    line = b"x" * 78 + b"\r\n"
    content = b"Content-Type: text/plain\r\n\r\n" + line * (LARGE // 80 + 1)
    message = _message()
    assert message.receive_large(TRACE, memoryview(content).toreadonly())
    before = message.checkpoint()
    (part,) = message.text_parts()
    part.text += "more\r\n"
    assert message.content == TRACE + content + b"more\r\n"
    assert bytes(message.octets) == message.content
    assert message.size == len(message.content)
    message.restore(before)
    assert message.content == TRACE + content


@pytest.mark.parametrize("octets", [LARGE - 100, LARGE + 100])
def test_a_header_without_end_is_refused(octets: int) -> None:
    header = b"X: y\r\n" * (octets // 6)
    taken = _message().receive_large(TRACE, memoryview(header + b"\r\n" + b"x\r\n" * LARGE))
    assert taken is (octets < LARGE)
