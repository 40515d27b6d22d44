from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.configuration.yaml_document import (
    ConfigError,
    Mark,
    Problem,
    YamlDocument,
    dotted,
    parse,
    read,
)

FILE = Path("site.yaml")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(FILE, text)
    return [str(problem) for problem in caught.value.problems]


def test_values_have_places() -> None:
    document = parse(FILE, "a: 1\nlist:\n  - x\n  - key: value\n    other: [y, z]\n")
    assert document.data == {"a": 1, "list": ["x", {"key": "value", "other": ["y", "z"]}]}
    assert document.mark(("a",)) == Mark(1, 4)
    assert document.mark(("a",), key=True) == Mark(1, 1)
    assert document.mark(("list",)) == Mark(2, 1)
    assert document.mark(("list", 0)).line == 3
    assert document.mark(("list", 1, "key")) == Mark(4, 10)
    assert document.mark(("list", 1, "other", 1)) == Mark(5, 16)


def test_what_is_not_there_is_placed_at_what_would_hold_it() -> None:
    document = parse(FILE, "a: 1\nouter:\n  inner: {x: 1}\n")
    assert document.mark(("outer", "inner", "missing")) == Mark(3, 3)
    assert document.mark(("outer", "missing")) == Mark(2, 1)
    assert document.mark(("missing",)) == Mark(1, 1)
    assert YamlDocument(FILE, {}).mark(("a",)) == Mark(0, 0)


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "bracket is not closed, or a comma is missing"),
        ("a: 1\n b: 2\n", 2, "a colon where none may be"),
        ("a:\n\tb: 1\n", 2, "a tab; YAML wants spaces"),
        ("a: 1\nb: *.example.com\n", 2, "starts with * must be in quotes"),
        ("a: 1\nb: &&\n", 2, "starts with & must be in quotes"),
        ("a: &x 1\nb: &x 2\n", 2, "the same &anchor twice"),
        ("a: 1\n---\nb: 2\n", 2, "only one is allowed"),
        ("a: 1\nb: @home\n", 2, "starts with @, ` or % must be in quotes"),
        ("a: 'x\nb: 1\n", 3, "a quotation mark is not closed"),
        ("a: 1\nb: [::1]:25\n", 2, "starts with a colon"),
        ("a: 1\nb: [x]:25\n", 2, "must be in quotes as a whole"),
        ("a: 1\njust words\n", 3, "a key without a colon"),
        ("a: 1\nb: !secret x\n", 2, "starts with ! must be in quotes"),
        ('a: 1\nb: "\\ud83d\\ude00"\n', 2, "half of a character"),
        ('a: 1\n"\\0": 2\n', 2, "NUL"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, "!tag is not allowed"),
        ("a: 2026-13-45\n", 1, "looks like a YAML timestamp, but is none; put it in quotes"),
        ("a: !!int x\n", 1, "looks like a YAML int, but is none"),
        ("a: 1\nb: 2\na: 3\n", 3, "a: duplicate key; first on line 1"),
        ("a:\n  x: 1\n  x: 2\n", 3, "a.x: duplicate key; first on line 2"),
        ("[a, b]: 1\n", 1, "a key must be plain text"),
        ("- a\n- b\n", 1, "the top level must be a mapping"),
        ("just text\n", 1, "the top level must be a mapping"),
        ("", 1, "the file is empty"),
        ("# nothing but this\n", 1, "the file is empty"),
        ("a: 1\nb: \x07\n", 2, "character U+0007 is not allowed"),
        ("a: &a\n  b: *a\n", 1, "an alias inside of what it stands for"),
        ("a: 1\nb: &b {<<: *b}\n", 2, "`<<` takes a mapping"),
        ("a: 1\n<<: 3\n", 2, "`<<` takes a mapping"),
    ],
)
def test_wrong_yaml_is_said_with_its_line(text: str, line: int, hint: str) -> None:
    (first, *_) = problems(text)
    assert first.startswith(f"site.yaml:{line}: "), first
    assert hint in first


def test_several_problems_come_at_once_in_the_order_of_the_file() -> None:
    found = problems("b: 1\na: !x 1\nb: 2\na: 3\n")
    assert [text.split(":")[1] for text in found] == ["2", "3", "4"]


@pytest.mark.parametrize(
    "text", ["p: *hunter2\n", "p: !hunter2 x\n", "p: 'hunter2\n", "p: hunter2: x"]
)
def test_problems_do_not_repeat_what_may_be_a_secret(text: str) -> None:
    assert not any("hunter2" in problem for problem in problems(text))


def test_aliases_and_merge_keys_mean_what_they_do_in_yaml() -> None:
    text = """
base: &base {x: 1, y: [1, 2]}
again: *base
merged: {y: 3, <<: *base}
both:
  <<: [{x: 7}, *base]
  z: 0
deep: {<<: {<<: *base, x: 5}}
"""
    document = parse(FILE, text)
    assert document.data == yaml.safe_load(text)
    assert document.mark(("again", "x")).line == 2
    assert document.mark(("merged", "x")).line == 2
    assert document.mark(("merged", "y")).line == 4


@pytest.mark.parametrize(
    "step", ["&{now} [{many}]", "&{now} {{<<: [{many}]}}"], ids=["aliases", "merge keys"]
)
def test_aliases_cannot_make_billions(step: str) -> None:
    lines = ["a0: &a0 {x: 1}"]
    for number in range(1, 12):
        many = ", ".join([f"*a{number - 1}"] * 10)
        lines.append(f"a{number}: " + step.format(now=f"a{number}", many=many))
    # Without a bound this would take days.
    assert any(
        "aliases repeat more than 10000 values" in text for text in problems("\n".join(lines))
    )


def test_deep_nesting_is_refused() -> None:
    assert "nested" in problems("a: " + "[" * 60 + "]" * 60)[0]
    assert "nested" in problems("a: " + "[" * 20_000 + "]" * 20_000)[0]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def reading(file: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            read(file)
        return str(caught.value)

    assert reading(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: no such file"
    assert "cannot be read: Is a directory" in reading(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: caf\xe9\n")
    assert reading(latin) == f"{latin}:2: not UTF-8: octet 0xe9 in column 7; save the file as UTF-8"
    marked = tmp_path / "bom.yaml"
    marked.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert parse(marked, read(marked)).data == {"a": 1}


def test_paths_as_people_read_them() -> None:
    assert dotted(("plugins", 2, "footer", "text")) == "plugins[2].footer.text"
    assert dotted(("plugins", 0, "./site/x.py", "a-b")) == 'plugins[0]["./site/x.py"].a-b'
    assert dotted(("a\nb",)) == '["a\N{REPLACEMENT CHARACTER}b"]'
    assert str(Problem(FILE, 3, "a.b", "wrong")) == "site.yaml:3: a.b: wrong"
    assert str(Problem(FILE, 0, "", "gone")) == "site.yaml: gone"


PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PLAIN, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(PLAIN, TREES, min_size=1, max_size=4))
def test_values_are_those_of_the_safe_loader(tree: dict[str, object]) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True)
    document = parse(FILE, text)
    assert document.data == yaml.safe_load(text) == tree
    lines = len(text.splitlines())
    assert all(1 <= mark.line <= lines for mark in document.marks.values())
