"""Edits under a transfer encoding: what they keep, and that many of them are no danger."""

from __future__ import annotations

import base64
import binascii
import quopri
import re
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any, SupportsIndex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mail import charset, quoted_printable, transfer_encoding
from gateway.mail.charset import Splice
from gateway.mail.encoded_text import EncodedText

TOKENS = [b"=3D", b"=e3=81=82", b"=\r\n", b"=\t\r\n", b"\r\n", b" \r\n", b"=20", b"=0D=0A", b" "]
TOKENS += [b"a", b"b" * 30, b"c d ", b"\t"]


@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from([b"x" * 30, b" ", b"\r\n", b"=", b".", b"\xe3", b"\t", b"y" * 74])
    ).map(b"".join)
)
@example(b"x" * 70 + b"\xe3 \r\n")
@example(b"x" * 75 + b" \r\n")
def test_transfer_encodings_round_trip(data: bytes) -> None:
    for encoding in ("quoted-printable", "base64"):
        encoded = transfer_encoding.encode(data, encoding)
        assert transfer_encoding.decode(encoded, encoding) == (data, True)
        assert all(len(line) <= 76 for line in encoded.split(b"\r\n"))
        assert not re.search(rb"[^\t\r\n -~]|[ \t](\r|\Z)", encoded)
    assert quopri.decodestring(transfer_encoding.encode(data, "quoted-printable")) == data


@given(
    st.lists(st.sampled_from([b"=", b"=3D", b"=\r\n", b"\r\n", b" ", b"a", b"=e3", b"=Z", b"A=="]))
)
def test_decoding_never_raises(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    for encoding in ("quoted-printable", "base64", "7bit", "nonsense"):
        data, exact = transfer_encoding.decode(content, encoding)
        if exact and encoding == "base64":
            assert binascii.a2b_base64(content) == data
        if exact and encoding == "quoted-printable":
            # Every place in the decoded octets has one in the encoded: splicing nothing in there
            # keeps what it decodes to.
            for place in range(len(data) + 1):
                if data[place - 1 : place + 1] == b"\r\n":
                    continue
                spliced = transfer_encoding.splice(
                    content, data, encoding, [(place, place, b"\xff")]
                )
                wanted = data[:place] + b"\xff" + data[place:]
                assert transfer_encoding.decode(spliced, encoding) == (wanted, True)


@st.composite
def spliced(draw: st.DrawFn) -> tuple[bytes, list[Splice]]:
    """Valid quoted-printable, and splices that cut no CRLF in two."""
    content = b"".join(draw(st.lists(st.sampled_from(TOKENS), max_size=60)))
    data = quoted_printable.decode(content)[0]
    places = draw(st.sets(st.integers(0, len(data)), max_size=12))
    places = {place for place in places if data[place - 1 : place + 1] != b"\r\n"}
    pairs = sorted(places)
    new = st.lists(st.sampled_from([b"x", b" ", b"=", b"\r\n", b"y" * 80, b"\xe3"]), max_size=4)
    return content, [
        (start, end, b"".join(draw(new)))
        for start, end in zip(pairs[::2], pairs[1::2], strict=False)
    ]


@given(spliced())
@example((b"a =\r\n \r\nb", [(0, 1, b""), (2, 4, b"\r\n")]))
@example((b"x" * 75 + b"=\r\n=\r\n=3D" + b"y" * 70, [(74, 75, b"zz"), (76, 77, b"")]))
def test_splices_in_quoted_printable_are_those_of_what_it_encodes(
    case: tuple[bytes, list[Splice]],
) -> None:
    content, splices = case
    data, valid = quoted_printable.decode(content)
    assert valid
    new = quoted_printable.splice(content, splices)
    assert quoted_printable.decode(new) == (transfer_encoding.apply(data, splices), True)
    if all(len(line) <= 76 for line in content.split(b"\r\n")):
        assert all(len(line) <= 76 for line in new.split(b"\r\n"))


@example([b"=", b"\n"])
@example([b"=", b"\r", b"x"])
@given(st.lists(st.sampled_from([*TOKENS, b"=", b"=Z", b"=4", b"\r", b"\n", b"=C3"]), max_size=40))
def test_quoted_printable_is_valid_if_it_is_nothing_but_tokens(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    broken = re.search(rb"=(?![0-9A-Fa-f]{2}|[ \t]*(?:\r\n|\Z))", content)
    assert quoted_printable.decode(content)[1] is (broken is None)
    # Where escapes are many it is found out in another way.
    dense = b"=E3=81=82" * 100 + content
    assert quoted_printable.decode(dense)[1] is (broken is None)


def test_padding_stays_where_nothing_is_edited() -> None:
    content = b"one  \r\ntwo=  \r\n three \t\r\nfour\r\nfive \r\n"
    assert quoted_printable.decode(content)[0] == b"one\r\ntwo three\r\nfour\r\nfive\r\n"
    assert quoted_printable.splice(content, [(16, 18, b"FO")]) == content.replace(b"four", b"FOur")
    assert quoted_printable.splice(content, [(3, 3, b"!"), (14, 14, b"!")]) == content.replace(
        b"one", b"one!"
    ).replace(b"three", b"three!")


@pytest.mark.parametrize("content", [b"x \t", b"x=", b"x= ", b"x", b"\r\n  ", b"", b"x" * 76])
def test_a_soft_end_is_not_part_of_what_is_encoded(content: bytes) -> None:
    ended = quoted_printable.end_softly(content)
    assert ended.endswith(b"\r\n") or not ended
    assert quoted_printable.decode(ended) == quoted_printable.decode(content)


def test_a_soft_end_fits_its_line() -> None:
    end_softly = quoted_printable.end_softly
    assert end_softly(b"x" * 75) == b"x" * 75 + b"=\r\n"
    assert end_softly(b"x" * 76) == b"x" * 75 + b"=\r\nx=\r\n"
    assert end_softly(b"x" * 73 + b"=3D") == b"x" * 73 + b"=\r\n=3D=\r\n"


@given(
    st.text(st.sampled_from("aé日①髙\r\n~\\")),
    st.sampled_from(["utf-8", "cp932", "euc-jp", "iso-2022-jp", "gb18030", "big5", "cp1252"]),
)
def test_line_ends_may_be_replaced_before_or_after_decoding(text: str, name: str) -> None:
    assert charset.has_plain_lines(name)
    data = b"".join(
        charset.encode(character, name) for character in text if charset_has(character, name)
    )
    before = charset.decode(data.replace(b"\r\n", b"\n"), name)
    assert before == charset.decode(data, name).replace("\r\n", "\n")


def charset_has(character: str, name: str) -> bool:
    try:
        charset.encode(character, name)
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize("name", ["utf-16-le", "utf-16", "utf-7", "utf-8-sig", "cp037", "nothing"])
def test_charsets_whose_line_ends_are_not_plain(name: str) -> None:
    assert not charset.has_plain_lines(name)


@pytest.mark.parametrize("width", range(4, 20))
@pytest.mark.parametrize("place", range(0, 60, 3))
def test_splices_in_base64_with_lines_of_any_width(width: int, place: int) -> None:
    data = bytes(range(60))
    letters = base64.b64encode(data)
    lines = [letters[start : start + width] for start in range(0, len(letters), width)]
    content = b"\r\n".join(lines)
    assert transfer_encoding.decode(content, "base64") == (data, True)
    splices = [(place, place + 3, b"xyz")]
    new = transfer_encoding.splice(content, data, "base64", splices)
    assert transfer_encoding.decode(new, "base64") == (
        transfer_encoding.apply(data, splices),
        True,
    )
    assert all(0 < len(line) <= width for line in new.split(b"\r\n"))


# Hostile input.


class Measured(bytes):
    """Octets that note how many of them are looked at."""

    octets = 0

    def find(self, sub: Any, start: Any = None, end: Any = None, /) -> int:
        found = super().find(sub, start, end)
        stop = len(self) if end is None else min(end, len(self))
        self.octets += (found if found >= 0 else stop) - (start or 0)
        return found

    def rfind(self, sub: Any, start: Any = None, end: Any = None, /) -> int:
        found = super().rfind(sub, start, end)
        stop = len(self) if end is None else min(end, len(self))
        self.octets += stop - (found if found >= 0 else start or 0)
        return found

    def __getitem__(self, key: Any) -> Any:
        piece = super().__getitem__(key)
        self.octets += len(piece) if isinstance(key, slice) else 1
        return piece

    def count(
        self, sub: Any, start: SupportsIndex | None = None, end: SupportsIndex | None = None, /
    ) -> int:
        self.octets += (len(self) if end is None else int(end)) - int(start or 0)
        return super().count(sub, start, end)


@pytest.mark.parametrize(
    "line",
    [
        b"a" * 70 + b"\r\n",  # short lines
        b"a" * 70 + b"=\r\n",  # one long line in soft pieces
        b"a" * 72,  # one line that should not be
        b"=3D" * 24 + b"=\r\n",  # nothing but escapes
        b"a" + b"=\r\n" * 23,  # nothing but soft line breaks
    ],
)
def test_thousands_of_splices_look_at_each_octet_a_few_times(line: bytes) -> None:
    content = Measured(line * 14_000)
    data = quoted_printable.decode(content)[0]
    splices = [
        (place, place, b"x")
        for place in range(0, len(data), len(data) // 10_000)
        if data[place - 1 : place + 1] != b"\r\n"
    ]
    assert len(splices) > 9_000
    content.octets = 0
    new = quoted_printable.splice(content, splices)
    assert quoted_printable.decode(new) == (transfer_encoding.apply(data, splices), True)
    assert content.octets < 8 * len(content) + 200 * len(splices)


def calls(function: Callable[[], object]) -> Counter[str]:
    """How often functions of any kind are called, by their names."""
    seen: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            seen[frame.f_code.co_name] += 1
        elif event == "c_call":
            seen[argument.__name__] += 1

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return seen


@pytest.mark.parametrize("line_end", ["\r\n", ""])
@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
def test_work_grows_with_the_number_of_edits_and_no_faster(encoding: str, line_end: str) -> None:
    def work(lines: int) -> int:
        data = (("a" * 60 + "あ" + line_end) * lines).encode()
        text = EncodedText(transfer_encoding.encode(data, encoding), encoding, "utf-8")
        width = 61 + len(line_end) // 2
        edits = [(width * n, width * n + 1, "edited") for n in range(lines)]
        assert len(text.text) == width * lines
        return calls(lambda: text.spliced(text.splices(edits))).total()

    assert work(4000) < 4.2 * work(1000)


def test_a_long_line_is_measured_once() -> None:
    text = EncodedText(b"a" * 100_000 + b"\r\n", "8bit", "utf-8")
    assert text.text
    edits = [(n, n + 1, "b") for n in range(0, 100_000, 10)]
    assert calls(lambda: text.spliced(text.splices(edits)))["_longest_line"] <= 2


@pytest.mark.parametrize("content", [b"=", b"==\r\n", b"= ", b"=3", b"=\r\n", b"\t \t", b"=3D "])
def test_decoding_looks_at_each_octet_a_few_times(content: bytes) -> None:
    """Patterns that go back would take hours for this."""
    quoted_printable.decode(content * 1_000_000)
    quoted_printable.encode(content * 100_000)
