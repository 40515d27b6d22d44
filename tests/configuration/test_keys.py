"""The keys of a configuration in plain words, and an example of an entry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr, create_model

from gateway.configuration.keys import Key, example, keys, written
from gateway.configuration.quantity import parse_duration, parse_size
from gateway.hooks import Duration, SiteFile, SitePath, Size, When
from gateway.hooks.load import installed_models


def key(annotation: Any, default: Any = ...) -> Key:
    (found,) = keys(create_model("Config", value=(annotation, default)))
    return found


class Inner(BaseModel):
    """What is inside.

    More about it.
    """

    name: str
    weight: int = 1


class Tree(BaseModel):
    """A tree."""

    branches: list[Tree] = []


class Opaque:
    """Nothing that JSON Schema knows."""


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (str, "text"),
        (int, "whole number"),
        (float, "number"),
        (bool, "true or false"),
        (Annotated[int, Field(ge=1, le=9)], "whole number (1 to 9)"),
        (Annotated[int, Field(ge=1)], "whole number (at least 1)"),
        (Annotated[int, Field(le=9)], "whole number (at most 9)"),
        (Annotated[float, Field(gt=0)], "number (more than 0)"),
        (Annotated[float, Field(lt=1)], "number (less than 1)"),
        (Duration, "time (such as 30s)"),
        (Duration | None, "time (such as 30s) or null"),
        (Size, "size (such as 64KiB)"),
        (SiteFile, "path"),
        (SitePath | None, "path or null"),
        (Path, "path"),
        (SecretStr, "secret text"),
        (date, "date (such as 2026-01-31)"),
        (Literal["a", "b"], "one of a, b"),
        (Literal["a"], "a"),
        (list[str], "list of text"),
        (tuple[int, ...], "list of whole numbers"),
        (list[float], "list of numbers"),
        (list[Literal["a", "b"]], "list of a, b"),
        (list[Inner], "list of mappings"),
        (dict[str, str], "mapping of names to text"),
        (dict[str, Inner | None], "mapping of names to mappings"),
        (dict[str, Any], "mapping"),
        (Mapping[str, Literal["a", "b"]], "mapping of names to one of a, b"),
        (str | list[str], "text or list of text"),
        (Inner | bool, "mapping or true or false"),
        (Inner, "mapping"),
        (When | None, "conditions, as in when or null"),
        (Any, "anything"),
        (tuple[str, str], "list"),
    ],
)
def test_a_type_in_words(annotation: Any, words: str) -> None:
    assert key(annotation).type == words


def test_a_type_that_json_schema_does_not_know() -> None:
    model = create_model(
        "Config", __config__={"arbitrary_types_allowed": True}, value=(Opaque, ...)
    )
    assert [found.type for found in keys(model)] == ["anything"]


@pytest.mark.parametrize(
    ("annotation", "default", "shown"),
    [
        (str, "a", "a"),
        (int, 3, 3),
        (bool, False, False),
        (Duration, 2592000.0, "30d"),
        (Duration, 90.0, "90s"),
        (Duration, 1209600, "2w"),
        (Duration, 0.5, "0.5s"),
        (Duration, 0, "0s"),
        (Duration | None, 3600.0, "1h"),
        (Size, 65536, "64KiB"),
        (Size, 1000, 1000),
        (Size, 3 << 20, "3MiB"),
        (str | None, None, None),
        (list[str], ["a"], ["a"]),
        (Inner, Inner(name="x"), None),
    ],
)
def test_a_default_as_people_write_it(annotation: Any, default: Any, shown: Any) -> None:
    found = key(annotation, default)
    assert not found.required
    assert found.default == shown
    assert type(found.default) is type(shown)


@given(st.integers(0, 10**9))
def test_a_default_reads_as_what_it_is(amount: int) -> None:
    assert parse_duration(key(Duration, float(amount)).default) == amount
    assert parse_size(key(Size, amount).default) == amount


def test_what_is_required_has_no_default() -> None:
    found = key(str)
    assert (found.required, found.default) == (True, None)


def test_descriptions() -> None:
    class Config(BaseModel):
        plain: str = Field(description="In\n  one line.")
        inner: Inner
        own: Inner = Field(description="Its own.")
        none: int = 0

    assert [found.description for found in keys(Config)] == [
        "In one line.",
        "What is inside.",
        "Its own.",
        "",
    ]


@pytest.mark.parametrize(
    "annotation",
    [Inner, list[Inner], dict[str, Inner], Inner | bool | None, dict[str, list[Inner]]],
)
def test_the_keys_inside(annotation: Any) -> None:
    inner = key(annotation).keys
    assert [(one.name, one.type, one.required) for one in inner] == [
        ("name", "text", True),
        ("weight", "whole number", False),
    ]


def test_alternatives_have_the_keys_of_all() -> None:
    class Other(BaseModel):
        name: str
        size: int

    assert [one.name for one in key(Inner | Other).keys] == ["name", "weight", "size"]


def test_a_model_that_holds_itself_ends() -> None:
    (branches,) = keys(Tree)
    assert branches.type == "list of mappings"
    assert branches.keys == ()
    (inner,) = key(Tree).keys
    assert (inner.name, inner.keys) == ("branches", ())


def test_no_keys() -> None:
    assert keys(create_model("Config")) == ()


# The example.


def entry(model: type[BaseModel], reference: str = "footer") -> Any:
    text = example(reference, keys(model))
    (found,) = yaml.safe_load(text)["plugins"]
    return found


def test_an_example_has_what_is_required_and_names_the_rest() -> None:
    class Config(BaseModel):
        text: str = Field(examples=["Example Inc."])
        secret: SecretStr
        inner: Inner
        all: list[Inner]
        by_name: dict[str, Inner]
        position: Literal["top", "end"] = "end"
        every: Duration = 86400.0
        limit: int | None = None
        known: int | None = Field(None, examples=[7])

    text = example("footer", keys(Config))
    assert text == (
        "plugins:\n"
        "  - footer:\n"
        "      text: Example Inc.\n"
        "      secret: secret\n"
        "      inner:\n"
        "        name: text\n"
        "      all:\n"
        "        - name: text\n"
        "      by_name:\n"
        "        name:\n"
        "          name: text\n"
        "      # position: end\n"
        "      # every: 1d\n"
        "      # known: 7\n"
    )
    Config.model_validate(entry(Config)["footer"])


def test_an_example_without_required_keys_is_an_entry_as_it_stands() -> None:
    class Config(BaseModel):
        text: str = "x"

    assert example("./site/a.py", keys(Config)) == ("plugins:\n  - ./site/a.py:\n      # text: x\n")
    assert entry(Config) == {"footer": None}
    assert example("footer", ()) == "plugins:\n  - footer\n"


def test_an_example_of_a_field_that_is_written_as_yaml() -> None:
    class Config(BaseModel):
        networks: list[str] = Field(examples=["[192.0.2.1, 10.0.0.0/8]"])
        number: int = Field(examples=["12"])

    assert entry(Config) == {"footer": {"networks": ["192.0.2.1", "10.0.0.0/8"], "number": 12}}


@pytest.mark.parametrize("name", installed_models())
def test_the_examples_of_the_installed_plugins_are_yaml(name: str) -> None:
    found = entry(installed_models()[name], name)
    assert found == name or list(found) == [name]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_written_reads_as_the_same(value: Any) -> None:
    assert yaml.safe_load(f"key: {written(value)}\n") == {"key": value}


@given(st.text(alphabet="0123456789abcdefx_:.-+ yesnotru~#/", max_size=8))
def test_texts_that_look_like_something_else_stay_texts(text: str) -> None:
    assert yaml.safe_load(f"key: {written(text)}\n") == {"key": text}
