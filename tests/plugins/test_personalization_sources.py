from __future__ import annotations

import copy
import json
import re
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.configuration.config import ConfigError
from gateway.configuration.schema import schema
from gateway.configuration.validation import check as check_settings
from gateway.configuration.yaml_document import parse
from plugins.personalization.sources import (
    CsvConfig,
    HeaderConfig,
    HttpConfig,
    SourceConfig,
    SourceError,
    Sources,
    SqlConfig,
    build,
)
from plugins.personalization.sources.address import ByAddress, exact, folded
from plugins.personalization.sources.csv_index import IndexingError
from plugins.personalization.sources.values import MAX_DEPTH, MAX_SIZE, check, merge
from tests.plugins.personalization_site import configs, context, copies, message, started, values_of


class Settings(BaseModel):
    """A plugin's settings with the list of sources."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[SourceConfig, ...] = ()


def complaint(folder: Path, text: str) -> str:
    """What `gateway check` would say about the settings."""
    path = folder / "gateway.yaml"
    path.write_text(text)
    document = parse(path, text)
    with pytest.raises(ConfigError) as refused:
        check_settings(Settings, document, document.data, (), {"base": folder})
    (problem,) = refused.value.problems
    return f"{problem.line}: {problem.message}"


def settings(folder: Path, text: str) -> Settings:
    path = folder / "gateway.yaml"
    document = parse(path, text)
    return check_settings(Settings, document, document.data, (), {"base": folder})


# Configuration.


def test_a_source_is_a_mapping_with_one_key(tmp_path: Path) -> None:
    read = settings(
        tmp_path,
        """
sources:
  - header: {}
  - header:
  - csv: {file: lists/customers.csv, delimiter: tab}
  - http: {url: "https://api.example.com/values", wait: 10ms, fallback: {offers: []}}
  - sql: {url: "postgresql://u:p@h/db", query: "SELECT name FROM c WHERE email = :address"}
""",
    )
    header, again, table, http, sql = read.sources
    assert header == again
    assert header.header is not None
    assert header.header.name == "X-Merge-Data"
    assert table.csv is not None
    assert table.csv.file == tmp_path / "lists" / "customers.csv"
    assert table.csv.delimiter == "\t"
    assert http.http is not None
    assert http.http.wait == 0.01
    assert sql.sql is not None
    assert sql.sql.database.drivername == "postgresql+psycopg"
    assert len(build(read.sources)) == 5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{}", "expected one source after each dash"),
        ("{header: {}, csv: {file: c.csv}}", "expected one source after each dash"),
        ("hedder: {}", 'did you mean "header"?'),
        ("header: {name: 'two words'}", "is not the name of a header field"),
        ("header: {name: Subject}", "Subject would be removed from all mail"),
        ("header: {name: Content-Type}", "Content-Type would be removed from all mail"),
        ("csv: {}", "missing; The file"),
        ("csv: {file: c.csv, delimiter: ';;'}", 'one character such as "," or ";", or the word'),
        ("csv: {file: c.csv, encoding: utf-7}", 'did you mean "utf-8"?'),
        ("sql: {query: 'SELECT :address'}", "expected either url or url_file"),
        ("sql: {url: 'x://u:geheim@h/d', query: 'SELECT :address'}", "no such kind of database"),
        ("sql: {url: 'mysql://u:geheim@h:x/', query: 'SELECT :address'}", "is no database URL"),
        ("sql: {url: 'mssql://u:geheim@h/d', query: 'SELECT :address'}", "driver pyodbc is not"),
        ("sql: {url: 'sqlite://', query: 'SELECT :address'}", "expected the file of the database"),
        ("sql: {url: 'sqlite:///c.db', query: 'SELECT 1'}", "the query asks for nobody"),
        ("sql: {url: 'sqlite:///c.db', query: 'SELECT :adress'}", "unknown parameter :adress"),
        (
            "sql: {url: 'sqlite:///c.db', query: 'SELECT 1 WHERE :domain IN :addresses'}",
            "cannot ask by :domain",
        ),
        ("sql: {url_file: none.txt, query: 'SELECT :address'}", "no such file"),
        ("http: {url: 'ftp://h/'}", "expected the URL of an HTTP server"),
        ("http: {url: 'https://u:geheim@h/'}", "does not belong into a URL"),
        ("http: {url: 'https://h/', headers: {'A:': x}}", "not the name of a header field"),
        ('http: {url: "https://h/", headers: {A: "geheim\\n"}}', "that HTTP cannot carry"),
        ("http: {url: 'https://h/', timeout: 0s}", "greater than 0"),
        ("http: {url: 'https://h/', fallback: {a: {1: b}}}", "expected text as a key"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_without_secrets(
    tmp_path: Path, source: str, message: str
) -> None:
    said = complaint(tmp_path, f"sources:\n  - {source}\n")
    assert said.startswith("2: ")
    assert message in said
    assert "geheim" not in said


def test_a_password_is_in_no_repr(tmp_path: Path) -> None:
    (tmp_path / "url.txt").write_text("mysql://user:geheim@localhost/db\n")
    read = settings(
        tmp_path,
        """
sources:
  - sql: {url: "postgresql://u:geheim@h/db", query: "SELECT name FROM c WHERE a = :address"}
  - sql: {url_file: url.txt, query: "SELECT name FROM c WHERE a = :address"}
  - http: {url: "https://h/", headers: {Authorization: "Bearer geheim"}}
""",
    )
    assert read.sources[1].sql is not None
    assert read.sources[1].sql.database.drivername == "mysql+pymysql"
    texts = [repr(read), str(read), repr(build(read.sources)), repr(read.sources[1].sql.database)]
    assert [text for text in texts if "geheim" in text] == []


def test_editors_learn_the_keys_of_every_source() -> None:
    made = schema({"personalization": Settings})
    assert json.loads(json.dumps(made)) == made
    source = made["$defs"]["SourceConfig"]
    assert (source["minProperties"], source["maxProperties"]) == (1, 1)
    assert set(source["properties"]) == {"header", "csv", "sql", "http"}
    for name in ("HeaderConfig", "CsvConfig", "SqlConfig", "HttpConfig"):
        for key, value in made["$defs"][name]["properties"].items():
            assert value.get("description"), key
    http = made["$defs"]["HttpConfig"]["properties"]
    assert http["wait"]["default"] == "5ms"
    assert http["headers"]["additionalProperties"]["writeOnly"] is True


def test_the_readme_names_every_key_and_its_default() -> None:
    readme = (Path(__file__).parents[2] / "plugins/personalization/README.md").read_text()
    models: dict[str, type[BaseModel]] = {
        "header": HeaderConfig,
        "csv": CsvConfig,
        "sql": SqlConfig,
        "http": HttpConfig,
    }
    for name, model in models.items():
        section = readme.split(f"\n### `{name}`:")[1].partition("\n## ")[0].partition("\n### ")[0]
        rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE))
        assert set(rows) == set(model.model_fields)
        for key, field in model.model_fields.items():
            extra = field.json_schema_extra
            default = extra["default"] if isinstance(extra, dict) else field.get_default()
            if default is not None and not field.is_required() and key != "headers":
                assert rows[key] == f"`{default}`", key


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [("postgresql://h/d", "psycopg", "postgresql"), ("mariadb://h/d", "pymysql", "mysql")],
)
def test_a_missing_driver_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, driver: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(ValidationError) as refused:
        SqlConfig.model_validate({"url": url, "query": "SELECT :address"})
    message = f"the driver {driver} is not installed; pip install 'mail-gateway[{extra}]'"
    assert message in str(refused.value)


# Values.


@pytest.mark.parametrize(
    "value",
    [
        *("text", "太郎", "", 1, 1.5, True, None, Decimal("19.90")),
        *(date(2024, 2, 29), datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 2, 29)),  # noqa: DTZ001 - they are kept
        *([], {}, [1, [2, {"a": None}]], {"a": {"b": ["c"]}}, "a\0b\r\nc"),
    ],
)
def test_values_that_a_template_can_be_given(value: Any) -> None:
    values = {"key": value, "": value, "__class__": value}
    assert check(values) is values


def deep(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "expected a mapping, not a list"),
        ("text", "expected a mapping, not text"),
        ({"photo": b"x"}, "photo: a template cannot be given a value of type bytes"),
        ({"id": UUID(int=0)}, "id: a template cannot be given a value of type UUID"),
        ({"a": {"b": [{"c": {1, 2}}]}}, "a: b: c: a template cannot be given"),
        ({"a": {1: "b"}}, "a: expected text as a key, not a value of type int"),
        ({"a": "\ud800"}, "a: half of a surrogate pair"),
        ({"\ud800\n鍵": 1}, "??鍵: half of a surrogate pair"),
        ({"a": "b", "\ud83d": "\ude00"}, "?: half of a surrogate pair"),
        (deep(MAX_DEPTH + 1), "inside of each other"),
        ({"a": "x" * MAX_SIZE}, "more than 1048576 characters"),
        ({"a": [0] * MAX_SIZE}, "more than 1048576 characters"),
    ],
)
def test_values_that_are_refused(values: Any, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        check(values)
    assert reason in str(refused.value)


@given(st.dictionaries(st.text("ab*@ 鍵", max_size=9), st.text(max_size=9)))
def test_texts_count_the_same_with_and_without_other_values(texts: dict[str, str]) -> None:
    size = 1 + sum(len(key) + len(text) + 1 for key, text in texts.items())
    for values, length in ((texts, size), ({**texts, "number": 1, "list": []}, size + 12)):
        assert check(values, length) is values
        with pytest.raises(ValueError, match="more than"):
            check(values, length - 1)


VALUES = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), VALUES)


def leaves(values: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Each value that is no mapping with keys, by the path to it."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, (*path, key))
        else:
            found[*path, key] = value
    return found


@given(MAPPINGS, MAPPINGS)
def test_what_comes_later_counts_and_nothing_else_is_lost(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    before = copy.deepcopy((first, second))
    merged = merge(first, second)
    assert (first, second) == before
    assert merge(first, {}) == merge({}, first) == merge(first, first) == first
    earlier, later, both = leaves(first), leaves(second), leaves(merged)
    for path, value in later.items():
        assert value == {} or both[path] == value
    for path, value in both.items():
        assert value == (later if path in later else earlier)[path] or later[path] == {}
    touched = {path[:length] for path in later for length in range(1, len(path) + 1)}
    for path, value in earlier.items():
        if not any(path[:length] in touched for length in range(1, len(path) + 1)):
            assert both[path] == value


def test_mappings_merge_deeply_and_lists_do_not() -> None:
    first = {"name": "A", "shop": {"city": "東京", "tel": "03"}, "offers": [1, 2]}
    second = {"shop": {"tel": None}, "offers": [3]}
    assert merge(first, second) == {
        "name": "A",
        "shop": {"city": "東京", "tel": None},
        "offers": [3],
    }


# Addresses.


def test_the_domain_compares_in_any_case_and_the_local_part_where_it_must() -> None:
    by_address = ByAddress([("Taro@Example.COM", 1), ("taro@example.com", 2), ("HANAKO@x.jp", 3)])
    assert by_address.get("Taro@example.com") == 1
    assert by_address.get("taro@EXAMPLE.com") == 2
    assert by_address.get("TARO@example.com") == 2
    assert by_address.get("hanako@X.JP") == 3
    assert by_address.get("jiro@x.jp") is None


def test_an_address_has_one_form() -> None:
    assert exact("Taro@例え.JP") == "Taro@xn--r8jz45g.jp"
    assert exact('"Ta\\ro"@Example.com') == "Taro@example.com"
    assert folded('"TARO"@Example.com') == "taro@example.com"
    assert folded("ＴＡＲＯ@例え.jp") == "ｔａｒｏ@xn--r8jz45g.jp"
    assert folded("cafe\u0301@x.jp") == folded("CAF\u00c9@X.jp") == "caf\u00e9@x.jp"


@given(st.text(), st.sampled_from(["example.com", "例え.jp"]))
def test_forms_of_an_address_stay_as_they_are(local: str, domain: str) -> None:
    address = f"{local}@{domain}"
    if '"' not in address:
        assert exact(exact(address)) == exact(address)
        assert folded(exact(address)) == folded(address)
        assert folded(folded(address)) == folded(address)


# All together.


async def test_later_sources_count_and_unknown_recipients_have_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("email,name,rank\ntaro@example.com,Taro,gold\n")
    (tmp_path / "b.csv").write_text("email,rank\ntaro@example.com,silver\njiro@example.com,none\n")
    async with started(
        tmp_path, {"csv": {"file": "a.csv"}}, {"csv": {"file": "b.csv"}}, {"header": {}}
    ) as sources:
        header = b'X-Merge-Data: {"name": "T."}\r\n'
        assert await values_of(sources, "taro@example.com", header=header) == {
            "email": "taro@example.com",
            "name": "T.",
            "rank": "silver",
        }
        assert (await values_of(sources, "jiro@example.com"))["rank"] == "none"
        assert await values_of(sources, "saburo@example.com") == {}


async def test_without_sources_there_is_nothing_to_know(tmp_path: Path) -> None:
    async with started(tmp_path) as sources:
        whole = message("taro@example.com")
        sources.remove_from(whole)
        assert await sources.values(whole, whole.recipients[0]) == {}


async def test_what_was_started_is_stopped_if_a_later_source_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("email\ntaro@example.com\n")
    sources = Sources(
        build(configs(tmp_path, {"csv": {"file": "a.csv"}}, {"csv": {"file": "none.csv"}}))
    )
    with pytest.raises(IndexingError, match=r"none\.csv: cannot be read: No such file"):
        await sources.start(context(tmp_path))
    with pytest.raises(AssertionError, match="not started"):
        await values_of(sources, "taro@example.com")


async def test_the_headers_of_every_header_source_are_removed_from_each_copy(
    tmp_path: Path,
) -> None:
    async with started(
        tmp_path, {"header": {"name": "X-A"}}, {"header": {"name": "X-B"}}
    ) as sources:
        fields = b'x-a: {"a@x.jp": {"n": 1}}\r\nX-B: {"b@x.jp":\r\n {"n": 2}}\r\n'
        fields += b"X-a: {}\r\nX-C: 1\r\n"
        whole = message("a@x.jp", "b@x.jp", header=fields)
        for part, recipient in copies(whole):
            known = await sources.values(part, recipient)
            assert known == {"n": 1 if recipient.address == "a@x.jp" else 2}
            sources.remove_from(part)
            assert part.content == b"X-C: 1\r\nSubject: Hello\r\n\r\nHello\r\n"


def test_an_error_says_nothing_that_an_smtp_reply_cannot_carry() -> None:
    error = SourceError("名前\r\n250 ok " + "x" * 400, temporary=True)
    assert error.text.startswith("? 250 ok") or error.text.startswith("?250 ok")
    assert error.text.isascii()
    assert error.text.isprintable()
    assert len(error.text) == 300
