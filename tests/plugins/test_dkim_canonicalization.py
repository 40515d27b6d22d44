from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import dkim.canonicalization
import pytest
from dkim import MessageFormatError, rfc822_parse
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from plugins.dkim.canonicalization import (
    Canonicalization,
    body_digest,
    canonical_body,
    relaxed_header,
)

SIMPLE, RELAXED = Canonicalization.SIMPLE, Canonicalization.RELAXED
BOTH = pytest.mark.parametrize("canonicalization", list(Canonicalization))
ORACLES = {
    SIMPLE: dkim.canonicalization.Simple.canonicalize_body,
    RELAXED: dkim.canonicalization.Relaxed.canonicalize_body,
}

pieces = st.sampled_from(
    [b" ", b"  ", b"\t", b"\r\n", b"\r\n\r\n", b" \r\n", b"a", b"bc", b"\xe3\x81\x82", b".", b"\0"]
)
bodies = st.lists(pieces).map(b"".join)
# dkimpy takes a bare CR and LF, a vertical tab and a form feed for white space that it strips and
# unfolds. RFC 6376 does not, and the first two never get into the gateway.
values = (
    st.lists(st.sampled_from([b" ", b"\t", b"  ", b"\r\n ", b"\r\n\t", b"a", b":", b"\xe9"]))
    .map(b"".join)
    .filter(lambda value: b"\r\n" not in value or value.replace(b"\r\n", b"").strip() != b"")
)
names = st.sampled_from([b"from", b"subject", b"x-long-name", b"to"])


def canonical(body: bytes, canonicalization: Canonicalization) -> bytes:
    """The same for a body that is only looked at, as one that is large is."""
    whole = b"".join(canonical_body(body, canonicalization))
    view = memoryview(b"header" + body)[6:]
    assert b"".join(canonical_body(view, canonicalization)) == whole
    return whole


def oracle(body: bytes, canonicalization: Canonicalization) -> bytes:
    """dkimpy's form of the body as it arrives: with a line end at its end."""
    if body and not body.endswith(b"\r\n"):
        body += b"\r\n"
    result: bytes = ORACLES[canonicalization](body)
    return result


@given(body=bodies, canonicalization=st.sampled_from(list(Canonicalization)))
@example(body=b"", canonicalization=SIMPLE)
@example(body=b"", canonicalization=RELAXED)
@example(body=b"text", canonicalization=RELAXED)
@example(body=b" \t\r\n\r\n", canonicalization=RELAXED)
@example(body=b"a\n\r\n\r\n", canonicalization=SIMPLE)
@example(body=b"a\r\r\n\r\n", canonicalization=RELAXED)
def test_bodies_are_as_dkimpy_makes_them(body: bytes, canonicalization: Canonicalization) -> None:
    assert canonical(body, canonicalization) == oracle(body, canonicalization)


@BOTH
@pytest.mark.parametrize(
    "tail",
    [b"", b"\r\n", b"\r\n" * 3, b"\r\n" * 70_000, b" \t\r\n" * 40_000, b"\r\n" * 70_000 + b"end"],
)
@pytest.mark.parametrize("line", [b"text  and\ttext \r\n", b"x" * 200_000 + b"\r\n", b"\r\n"])
def test_large_bodies_are_as_dkimpy_makes_them(
    canonicalization: Canonicalization, line: bytes, tail: bytes
) -> None:
    body = line * (300_000 // len(line)) + tail

    assert canonical(body, canonicalization) == oracle(body, canonicalization)


@BOTH
@pytest.mark.parametrize("shift", [-3, -2, -1, 0, 1, 2, 3])
def test_white_space_across_the_blocks_of_a_large_body(
    canonicalization: Canonicalization, shift: int
) -> None:
    body = b"x" * (65_536 + shift) + b" \t \r\n \r\n\r\n  y\r\n\r\n"

    assert canonical(body, canonicalization) == oracle(body, canonicalization)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies, size=st.integers(2, 12), canonicalization=st.sampled_from(Canonicalization))
def test_blocks_of_any_size_are_put_together_right(
    monkeypatch: pytest.MonkeyPatch, body: bytes, size: int, canonicalization: Canonicalization
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("plugins.dkim.canonicalization._BLOCK", size)
        assert canonical(body, canonicalization) == oracle(body, canonicalization)


@BOTH
@pytest.mark.parametrize("line", [b"a" * 9_000, b"a  " * 3_000, b" " * 9_000 + b"a"])
def test_a_long_line_is_taken_in_pieces(
    monkeypatch: pytest.MonkeyPatch, canonicalization: Canonicalization, line: bytes
) -> None:
    monkeypatch.setattr("plugins.dkim.canonicalization._BLOCK", 1024)
    body = line + b" \r\n" + line

    blocks = list(canonical_body(body, canonicalization))

    assert b"".join(blocks) == oracle(body, canonicalization)
    # A run of white space is not parted.
    assert line.startswith(b" ") or max(map(len, blocks)) <= 2050


@BOTH
def test_the_digest_is_that_of_the_canonical_body(canonicalization: Canonicalization) -> None:
    body = b"One  two \r\n\r\n" * 20_000

    expected = hashlib.sha256(canonical(body, canonicalization)).digest()

    assert body_digest(body, canonicalization) == expected


def test_a_body_that_needs_no_change_is_not_copied() -> None:
    body = b"One line\r\nand another\r\n"

    assert [block is body for block in canonical_body(body, RELAXED)] == [True]
    assert [block is body for block in canonical_body(body, SIMPLE)] == [True]


@BOTH
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_a_large_body_is_hashed_in_little_memory(
    canonicalization: Canonicalization, kind: Callable[[bytes], bytes | memoryview]
) -> None:
    body = kind(b"Some  words \r\n" * 1_500_000)
    tracemalloc.start()
    try:
        body_digest(body, canonicalization)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < len(body) / 10


@given(fields=st.lists(st.tuples(names, values)))
@example(fields=[(b"subject", b"\r\n folded at once")])
@example(fields=[(b"subject", b" trailing \r\n\t")])
@example(fields=[(b"subject", b"")])
def test_headers_are_as_dkimpy_makes_them(fields: list[tuple[bytes, bytes]]) -> None:
    made = dkim.canonicalization.Relaxed.canonicalize_headers(
        [(name, body + b"\r\n") for name, body in fields]
    )

    assert relaxed_header(fields) == b"".join(name + b":" + value for name, value in made)


def test_the_example_of_the_rfc() -> None:
    # RFC 6376 3.4.5
    assert relaxed_header([(b"a", b" X"), (b"b", b" Y\t\r\n\tZ  ")]) == b"a:X\r\nb:Y Z\r\n"
    body = b" C \r\nD \t E\r\n\r\n\r\n"
    assert canonical(body, RELAXED) == b" C\r\nD E\r\n"
    assert canonical(body, SIMPLE) == b" C \r\nD \t E\r\n"


def test_vertical_tabs_and_form_feeds_are_no_white_space() -> None:
    assert relaxed_header([(b"subject", b" \x0b a\x0c")]) == b"subject:\x0b a\x0c\r\n"
    assert canonical(b"a \x0c\r\n", RELAXED) == b"a \x0c\r\n"


def test_real_messages_are_as_dkimpy_makes_them(mail_corpus: Path) -> None:
    compared = 0
    for file in sorted(mail_corpus.rglob("*")):
        if not file.is_file() or file.suffix == ".md":
            continue
        content = file.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        try:
            fields, body = rfc822_parse(content)
        except (MessageFormatError, IndexError):
            fields, body = [], content
        for canonicalization in Canonicalization:
            assert canonical(body, canonicalization) == oracle(body, canonicalization), file
        for name, value in fields:
            if b"\r" in value.replace(b"\r\n", b"") or value.strip() != value.strip(b" \t\r\n"):
                continue
            made = dkim.canonicalization.Relaxed.canonicalize_headers([(name, value)])
            expected = made[0][0] + b":" + made[0][1]
            assert relaxed_header([(name.lower(), value[:-2])]) == expected, file
            compared += 1
    assert compared > 1000
