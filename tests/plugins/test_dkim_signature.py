from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from plugins.dkim.signature import SEALED, SEALED_IF_PRESENT, SIGNED, UNSIGNABLE, Coverage, fold


@given(
    lengths=st.lists(st.integers(1, 100), min_size=1),
    space=st.sampled_from([b"", b" "]),
    used=st.integers(1, 40),
)
@example(lengths=[25, 25, 25], space=b"", used=1)
@example(lengths=[25, 25, 25], space=b" ", used=1)
@example(lengths=[60, 75], space=b"", used=16)
def test_lines_are_as_full_as_they_may_be(lengths: list[int], space: bytes, used: int) -> None:
    words = [b"w" * length for length in lengths]

    lines = fold(words, space, used).split(b"\r\n ")

    # A line begins with one space, the first with what is there already.
    widths = [(used if number == 0 else 1) + len(line) for number, line in enumerate(lines)]
    rest = list(words)
    for number, line in enumerate(lines):
        line_words = [rest.pop(0)]
        while space.join(line_words) != line:
            line_words.append(rest.pop(0))
        assert widths[number] <= 76 or len(line_words) == 1
        assert not rest or widths[number] + len(space) + len(rest[0]) > 76
    assert not rest


def test_the_header_list_names_what_is_there_and_what_must_not_come() -> None:
    assert Coverage().header_list([b"date", b"from"]).replace(b"\r\n ", b"") == (
        b"h=date:from:from:subject:to:cc:reply-to:in-reply-to:references:mime-version:"
        b"content-type:content-transfer-encoding:date;"
    )


def test_no_field_is_of_two_kinds() -> None:
    names = [name.lower() for name in (*SEALED, *SEALED_IF_PRESENT, *SIGNED, *UNSIGNABLE)]

    assert len(names) == len(set(names))


def test_the_names_of_the_site_are_covered_in_any_case() -> None:
    assert {b"x-campaign", b"from", b"list-id"} < Coverage(("X-Campaign",)).names
