from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.suppression.entry import REASONS, Entry
from plugins.suppression.exchange import (
    BadRow,
    Defaults,
    TextFile,
    read_list,
    write_csv,
    write_json,
)
from plugins.suppression.inventory import Inventory
from plugins.suppression.writer import Writer
from tests.plugins.suppression_site import NOW, entry
from tests.plugins.test_suppression_address import entries as addresses

DEFAULTS = Defaults("", "manual", None, "import", "", NOW)

Write = Callable[[list[Entry], TextFile], int]


def read(
    text: str | bytes, encoding: str = "utf-8", defaults: Defaults = DEFAULTS
) -> tuple[list[Entry], list[str]]:
    """The entries in a file, and what is wrong with the others."""
    octets = text.encode() if isinstance(text, str) else text
    bad: list[BadRow] = []
    found = list(read_list(io.BytesIO(octets), encoding, defaults, bad.append))
    return found, [str(row) for row in bad]


NOTES = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12)
TIMES = st.integers(0, 253402300799)
ENTRIES = st.builds(
    Entry,
    addresses(),
    st.sampled_from(["", "sender:shop.example.com", "stream:bulk", "stream:お知らせ"]),
    st.sampled_from(REASONS),
    st.none() | TIMES,
    TIMES,
    st.sampled_from(["command", "import", "event", "連携"]),
    NOTES,
)


@given(st.lists(ENTRIES, max_size=5, unique_by=lambda one: one[:3]))
@pytest.mark.parametrize("write", [write_csv, write_json])
def test_what_is_written_is_read_again_exactly(write: Write, rows: list[Entry]) -> None:
    file = io.StringIO()
    assert write(rows, file) == len(rows)
    assert read(file.getvalue()) == (rows, [])


@settings(max_examples=20)
@given(st.lists(ENTRIES, max_size=5, unique_by=lambda one: one[:3]))
def test_an_export_makes_the_same_list_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Entry]
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    text = io.StringIO()
    with Writer(folder / "one.db") as writer:
        writer.add(rows)
    with Inventory(folder / "one.db") as one:
        write_csv(one.entries(), text)
    with Writer(folder / "two.db") as writer:
        writer.stage(read(text.getvalue())[0])
        list(writer.merge())
    with Inventory(folder / "two.db") as two:
        assert list(two.entries()) == sorted(rows)


def test_a_plain_list() -> None:
    text = (
        "\ufeff  # asked by telephone\r\n\r\nTaro@Example.com\r\n@例え.jp   # closed\r\n"
        "info@*\n@.example.org\na#b@example.com"
    )
    found, bad = read(text, defaults=Defaults("stream:bulk", "bounce", 9, "import", "old", NOW))
    assert bad == []
    assert [one.address for one in found] == [
        *("taro@example.com", "@xn--r8jz45g.jp", "info@*", "@.example.org", "a#b@example.com"),
    ]
    assert {one[1:] for one in found} == {("stream:bulk", "bounce", 9, int(NOW), "import", "old")}


def test_csv_with_some_columns_in_any_order() -> None:
    text = (
        "# from the shop\n"
        " Reason ,note,ADDRESS,expires,scope\n"
        'unsubscribe,"by phone, ""now""",Taro@example.com,never,sender:Shop.example.com\r\n'
        ",,jiro@example.com,,\n"
        "\n"
        'bounce,,"hanako@example.com",2031-12-31T00:00Z,everywhere\n'
    )
    found, bad = read(text, defaults=Defaults("stream:bulk", "manual", 9, "import", "old", NOW))
    assert bad == []
    assert found == [
        entry(
            "taro@example.com",
            "sender:shop.example.com",
            "unsubscribe",
            source="import",
            note='by phone, "now"',
        ),
        entry("jiro@example.com", "stream:bulk", expires=9, source="import", note="old"),
        entry("hanako@example.com", "", "bounce", expires=1956441600, source="import", note="old"),
    ]


def test_a_length_of_time_counts_from_now() -> None:
    found, _ = read("address,expires\ntaro@example.com,90d\n")
    assert found[0].expires == int(NOW) + 90 * 86400


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp", "iso2022_jp", "utf-16"])
def test_other_encodings(encoding: str) -> None:
    text = "address,note\ntaro@例え.jp,電話で申込\nジロー@example.com,\n"
    found, bad = read(text.encode(encoding), encoding)
    assert bad == []
    assert [(one.address, one.note) for one in found] == [
        ("taro@xn--r8jz45g.jp", "電話で申込"),
        ("ジロー@example.com", ""),
    ]


def test_rows_that_are_not_in_the_encoding_are_named() -> None:
    text = "address,note\ntaro@example.com,電話\njiro@example.com,ok\n花子@example.com,ok\n"
    found, bad = read(text.encode("cp932"), "utf-8")
    assert [one.address for one in found] == ["jiro@example.com"]
    assert bad == ["line 2: is not utf-8", "line 4: is not utf-8"]


def test_each_bad_row_is_named_by_its_first_line_and_the_others_are_read() -> None:
    text = (
        "\n"
        "address,scope,reason,expires,added,note\n"
        "good@example.com,,,,,\n"
        "bad,,,,,\n"
        "a@example.com,nowhere,,,,\n"
        "a@example.com,,bored,,,\n"
        "a@example.com,,,soon,,\n"
        "a@example.com,,,,soon,\n"
        'a@example.com,,,,,"two\nlines"\n'
        "a@example.com\n"
        'a@example.com,,,,,"quote"s\n'
        "better@example.com,,,,,\n"
        'a@example.com,,,,,"open\n'
    )
    found, bad = read(text)
    assert [one.address for one in found] == ["good@example.com", "better@example.com"]
    assert [line.partition(": ")[0] for line in bad] == [
        *(
            "line 4",
            "line 5",
            "line 6",
            "line 7",
            "line 8",
            "line 9",
            "line 11",
            "line 12",
            "line 14",
        )
    ]
    for text, line in zip(
        ("no", "'nowhere' is no scope", "'bored' is no reason", "'soon' is no end", "'soon' is no"),
        bad,
        strict=False,
    ):
        assert text in line
    assert "has 1 fields where the first line has 6" in bad[6]


def test_bad_lines_of_a_plain_list_are_named() -> None:
    found, bad = read("a@example.com\nfoo\n\n@bar..\nb@example.com\n")
    assert [one.address for one in found] == ["a@example.com", "b@example.com"]
    assert bad == [
        "line 2: 'foo' is not an address; expected user@domain",
        "line 4: 'bar..' is not a domain name",
    ]


def test_json_lines() -> None:
    rows = [
        {"address": "Taro@example.com", "expires": None, "reason": "bounce"},
        {"address": "info@*", "scope": "stream:bulk"},
    ]
    text = "\n".join(["", *(json.dumps(row) for row in rows), ""])
    found, bad = read(text)
    assert bad == []
    assert found == [
        entry("taro@example.com", reason="bounce", source="import"),
        entry("info@*", "stream:bulk", source="import"),
    ]


def test_bad_json_lines_are_named() -> None:
    good = '{"address": "a@example.com"}\n'
    found, bad = read(f'{good}[1]\n{{"email": "a"}}\n{{"address": 7}}\n{{\n{{}}\n{good}')
    assert len(found) == 2
    assert [line[:20] for line in bad] == [
        "line 2: is no JSON o",
        "line 3: there is no ",
        "line 4: address is n",
        "line 5: is no JSON: ",
        "line 6: '' is not an",
    ]


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("email,reason", "there is no column 'email'; expected address, scope, reason, expires"),
        ("reason,note", "the columns are reason, note; expected address"),
        ("address,note,address", "the columns are address, note, address; expected"),
        ("taro", "there is no column 'taro'"),
    ],
)
def test_columns_that_cannot_be_are_refused(header: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(f"# a list\n{header}\ntaro@example.com,bounce\n")
    assert str(caught.value).startswith(f"line 2: {problem}")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n  # at all\n", "address\n", "\ufeff"])
def test_a_file_without_rows_has_none(text: str) -> None:
    assert read(text) == ([], [])


def test_the_file_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a@example.com\n")
    with path.open("rb") as file:
        assert len(list(read_list(file, "utf-8", DEFAULTS, print))) == 1
        assert not file.closed


def test_an_address_that_looks_like_json_is_an_address() -> None:
    assert [one.address for one in read("{a}@example.com\n")[0]] == ["{a}@example.com"]
