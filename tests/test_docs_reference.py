"""The tables in the documents: complete, and as the code has them.

`rows` gives the text that has to stand in configuration.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from gateway import hooks
from gateway.configuration.entry import Rules
from gateway.configuration.schema import schema
from gateway.hooks import actions

ROOT = Path(__file__).parent.parent

# The configuration.

SECTIONS = (
    *("top", "spool", "listen", "limits", "relay", "retry", "dns", "http", "log", "streams"),
    *("rules", "when"),
)


def rows(section: str) -> list[str]:
    """The rows of a section's table in configuration.md, as the schema has them."""
    whole = schema({})
    definitions = whole["$defs"]
    if section == "rules":
        top = Rules.model_json_schema()
        definitions = top["$defs"]
    elif section == "when":
        top = definitions["When"]
    elif section == "top":
        top = whole
    else:
        top = _referenced(whole["properties"][section], definitions)
    return list(_rows(top, "", definitions, deep=section not in ("top", "rules", "streams")))


def _referenced(shape: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The section that a key has as its value, in a list or not; empty if it has none."""
    shapes = [shape, *shape.get("anyOf", [])]
    shapes += [
        inner
        for one in shapes
        for key in ("items", "additionalProperties")
        if isinstance(inner := one.get(key), dict)
    ]
    for one in shapes:
        if "$ref" in one:
            found: dict[str, Any] = definitions[one["$ref"].rpartition("/")[2]]
            return found
    return {}


def _rows(
    shape: dict[str, Any], prefix: str, definitions: dict[str, Any], deep: bool
) -> Iterator[str]:
    for key, value in shape["properties"].items():
        inner = _referenced(value, definitions)
        description = value.get("description") or inner["description"].split("\n\n")[0]
        required = key in shape.get("required", ())
        yield f"| `{prefix}{key}` | {_default(value, required)} | {' '.join(description.split())} |"
        if deep and "properties" in inner:
            yield from _rows(inner, f"{prefix}{key}.", definitions, deep)


def _default(value: dict[str, Any], required: bool) -> str:
    if required:
        return "**needed**"
    default = value.get("default")
    if default in (None, [], {}):
        return ""
    if isinstance(default, list):
        return f"`[{', '.join(default)}]`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


@pytest.mark.parametrize("section", SECTIONS)
def test_the_table_of_a_section_is_what_the_schema_says(section: str) -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    title = {"top": "All sections", "rules": "plugins"}.get(section, section)
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match is not None
    found = [line for line in match[1].splitlines() if line.startswith("| `")]
    assert found == rows(section)


def test_every_section_of_the_configuration_is_described() -> None:
    described = {
        *SECTIONS,
        *("hostname", "workers", "campaign_header", "release_header", "shutdown_timeout"),
        "plugins",
    }
    assert set(schema({})["properties"]) <= described


# The plugins' overview.

OVERVIEW = (ROOT / "docs/plugins/README.md").read_text()


def test_every_answer_is_described() -> None:
    for action in get_args(actions.Action):
        (shown,) = re.findall(rf"^\| `({action.__name__}\(.*?\))` \|", OVERVIEW, re.MULTILINE)
        seconds = 60.0
        assert isinstance(eval(shown, {**vars(actions), "seconds": seconds}), action), shown


def test_every_attribute_that_is_named_exists() -> None:
    message = hooks.Message("ID1", "shop@example.com", hooks.Client("127.0.0.1"))
    message.content = b"Subject: Hi\r\n\r\nHello\r\n"
    recipient = message.add_recipient("ada@example.net")
    delivery = hooks.Delivery(
        "ID1", message.sender, [recipient], message.client, "default", 0.0, 1, message.content
    )
    outcome = hooks.Outcome(hooks.Disposition.DELIVERED, 250, "2.0.0", "Ok", "dot")
    given = {
        "client": message.client,
        "message": message,
        "recipient": recipient,
        "delivery": delivery,
        "attempt": hooks.Attempt(delivery, recipient, None, None, outcome),
    }
    named = re.findall(rf"`({'|'.join(given)})\.([a-z_.]+)`", OVERVIEW)
    assert len(named) > 15
    for name, path in named:
        found: Any = given[name]
        for attribute in path.split("."):
            assert hasattr(found, attribute), f"{name}.{path}"
            found = getattr(found, attribute)
    (part,) = message.text_parts()
    (listed,) = re.findall(r"`message.text_parts` \|.*?each has (.*) \|", OVERVIEW)
    for attribute in re.findall(r"`(\w+)`", listed):
        assert hasattr(part, attribute)


# The replies.


def test_the_replies_that_are_explained_are_replies_of_the_gateway() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    files = [*sorted((ROOT / "gateway/smtp").glob("*.py")), ROOT / "gateway/hooks/policy.py"]
    sources = [path.read_text() for path in files]
    said = re.sub(r"\{self\.limits\.hops\}", "50", "\n".join(sources))
    replies = re.findall(r"^\| `([45]\d\d) ([45]\.\d\.\d) (.*?)` \|", text, re.MULTILINE)
    assert len(replies) > 15
    for code, status, words in replies:
        if f"{code} {status} {words}" not in said:
            # Put together from parts.
            assert words in said, words
            assert f'"{status}"' in said or f"{code} {status} {{" in said, f"{code} {status}"
