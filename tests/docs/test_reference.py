"""docs/plugins/reference.md is what the code says, and says all of it."""

from __future__ import annotations

import inspect
import re
from typing import get_args

import pytest

from gateway import hooks
from gateway.hooks import actions, spec
from gateway.mail.headers import Field
from tests.docs import reference
from tests.docs.docstring import Docstring

TEXT = reference.FILE.read_text()


def _section(title: str) -> str:
    match = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None, title
    return match[1]


def test_the_reference_is_what_the_generator_writes() -> None:
    assert reference.page() == TEXT, "run: python -m tests.docs.reference"


@pytest.mark.parametrize("name", spec.STAGES)
def test_every_hook_has_its_entry(name: str) -> None:
    hook = getattr(spec, name)
    section = _section(f"`{reference.call(name)}`")
    (written,) = re.findall(
        r"^- \*\*Written\*\*: `def (\w+)\((.*?)\) -> (.*)`$", section, re.MULTILINE
    )
    parameters = {one.partition(":")[0] for one in written[1].split(", ")}
    assert (written[0], parameters) == (name, {"self", *inspect.signature(hook).parameters})
    # What it says that it returns is what the chain takes.
    returned = set(written[2].split(" | ")) - {"None", "Any", "click.Command"}
    assert returned == {one.__name__ for one in spec.STAGES[name].answers if one is not object}
    for part in ("Runs", "Returns", "Failure"):
        assert f"\n- **{part}**: " in section


@pytest.mark.parametrize("name", spec.STAGES)
def test_a_hook_says_whether_it_may_be_async(name: str) -> None:
    runs = " ".join((inspect.getdoc(getattr(spec, name)) or "").split())
    if "May be async." in runs:
        assert spec.STAGES[name].may_be_async
    elif "A plain function" in runs:
        assert not spec.STAGES[name].may_be_async
    else:
        assert name in ("http", "commands")


@pytest.mark.parametrize("name", spec.STAGES)
def test_what_a_hook_may_change_is_what_its_stage_allows(name: str) -> None:
    (said,) = re.findall(r"\*\*May change\*\*: (.*)", _section(f"`{reference.call(name)}`")) or [""]
    allowed = spec.STAGES[name].rights.changes or frozenset()
    for one in re.findall(r"`((?:message|recipient|delivery|login)\.[\w.]+)", said):
        assert one in allowed or one.removeprefix("message.") in allowed, one
    if allowed and "delivery" not in said and name != "reply":
        assert said, name


def test_every_public_name_has_its_place() -> None:
    chapters = {name for names in reference.CHAPTERS.values() for name in names}
    assert chapters - {Field.__name__} | set(reference.OTHERS) == set(hooks.__all__)
    assert not chapters & set(reference.OTHERS)
    for name in chapters:
        assert _section(name).strip()


def test_every_answer_is_among_the_answers() -> None:
    assert set(reference.CHAPTERS["Answers"]) == {one.__name__ for one in get_args(actions.Action)}


def test_what_is_left_out_is_there() -> None:
    """A name that has gone from the code has to go from the list, too."""
    for name, members in reference.FOR_THE_GATEWAY.items():
        one = getattr(hooks, name)
        described = Docstring.of(one).sections.get("Attributes", {})
        for member in members:
            annotated = any(member in inspect.get_annotations(owner) for owner in one.__mro__)
            assert hasattr(one, member) or annotated or member in described, f"{name}.{member}"


@pytest.mark.parametrize(
    "name", ["Message", "Recipient", "Headers", "TextPart", "Delivery", "Event"]
)
def test_what_plugins_use_most_is_described(name: str) -> None:
    one = getattr(hooks, name)
    hidden = reference.FOR_THE_GATEWAY.get(name, ())
    for member in dir(one):
        if not member.startswith("_") and member not in hidden:
            assert re.search(rf"`(?:await |{name}\.)?{member}\b", _section(name)), member


def test_a_docstring_is_taken_apart() -> None:
    found = Docstring.parse(
        "Does it.\n\nAnd\nmore.\n\nAttributes:\n    a, b: the\n        letters.\n    c: no.\n\n"
        "What else:\n    d: one.\n\nRaises:\n    ValueError, TypeError: it\n        cannot.\n"
    )
    assert found.paragraphs == ("Does it.", "And more.", "What else:", "- `d`: one.")
    assert found.sections["Attributes"] == {"a, b": "the letters.", "c": "no."}
    assert found.line.endswith("Raises `ValueError`, `TypeError`: it cannot.")
