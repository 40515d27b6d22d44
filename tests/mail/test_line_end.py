"""Line ends that are not a pair, compared with counting them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.line_end import bare_line_end

OCTETS = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\0", b"\x85", b"\xe2\x80\xa8", b"\xff"])
).map(b"".join)


@given(OCTETS)
def test_what_is_left_without_the_pairs_is_bare(octets: bytes) -> None:
    rest = octets.replace(b"\r\n", b"")
    expected = "LF" if b"\n" in rest else "CR" if b"\r" in rest else None
    assert bare_line_end(octets) == expected


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"", None),
        (b"no line end", None),
        (b"a\r\n\r\nb\r\n", None),
        (b"a\r", "CR"),
        (b"\ra", "CR"),
        (b"a\n", "LF"),
        (b"a\r\r\n", "CR"),
        (b"a\n\r", "LF"),
        (b"a\r\n\n", "LF"),
    ],
)
def test_each_kind(octets: bytes, expected: str | None) -> None:
    assert bare_line_end(octets) == expected


def test_far_into_a_message() -> None:
    line = b"x" * 76 + b"\r\n"
    assert bare_line_end(line * 10_000) is None
    assert bare_line_end(line * 10_000 + b"x\n" + line * 10) == "LF"
    assert bare_line_end(line * 10_000 + b"x\r" + line * 10) == "CR"
