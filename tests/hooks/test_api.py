"""The plugin API: its version, what belongs to it, and plugins that were made for another one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import hooks
from gateway.configuration.yaml_document import ConfigError
from gateway.hooks import API_VERSION
from gateway.hooks.api import api_complaint
from gateway.hooks.load import load_plugins
from gateway.hooks.reference import PluginClasses, PluginError
from tests.assembly import configure
from tests.hooks import api_listing

NEWER = "upgrade the gateway, or use an older version of the plugin"
OLDER = "upgrade the plugin, or use an older version of the gateway"

SOURCE = """
from pydantic import BaseModel
from gateway.hooks import Plugin, hookimpl

class Config(BaseModel):
    pass

class Footer(Plugin[Config]):
    api = {api}

    @hookimpl
    def {hook}(self, message): ...
"""


# The version.


def test_the_version_is_one_that_a_plugin_can_declare() -> None:
    assert re.fullmatch(r"\d+\.\d+", API_VERSION)
    assert api_complaint(API_VERSION) == ""


@pytest.mark.parametrize(
    ("declared", "offered", "end"),
    [
        ("", "1.2", ""),
        ("1.0", "1.0", ""),
        ("1.0", "1.2", ""),
        ("1.2", "1.2", ""),
        ("1.9", "1.10", ""),
        ("1.10", "1.9", NEWER),
        ("1.3", "1.0", NEWER),
        ("2.0", "1.9", NEWER),
        ("0.9", "1.0", OLDER),
        ("1.9", "2.0", OLDER),
        ("2.0", "11.0", OLDER),
    ],
)
def test_a_plugin_for_another_version(declared: str, offered: str, end: str) -> None:
    start = f"is made for plugin API {declared}, and this gateway has {offered}: "
    assert api_complaint(declared, offered) == (start + end if end else "")


versions = st.tuples(st.integers(0, 50), st.integers(0, 50))


@given(versions, versions)
def test_only_older_minor_versions_of_the_same_major_version_are_taken(
    asked: tuple[int, int], offered: tuple[int, int]
) -> None:
    complaint = api_complaint("{}.{}".format(*asked), "{}.{}".format(*offered))
    assert (complaint == "") == (asked[0] == offered[0] and asked[1] <= offered[1])
    assert complaint.endswith(NEWER) == (asked > offered)


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        ("latest", "'latest'"),
        ("1", "'1'"),
        ("1.0.0", "'1.0.0'"),
        ("v1.0", "'v1.0'"),
        ("01.0", "'01.0'"),
        (" 1.0", "' 1.0'"),
        ("１.０", "'１.０'"),
        (1.0, "1.0"),
        (1, "1"),
        (None, "<class 'NoneType'>"),
        ((1, 0), "<class 'tuple'>"),
        (b"1.0", "<class 'bytes'>"),
    ],
)
def test_what_is_no_version(declared: Any, shown: str) -> None:
    assert api_complaint(declared, "1.0") == (
        f"api = {shown} is no version of the plugin API; it is text with two numbers, as in "
        'api = "1.0"'
    )


# Plugins.


def problem(folder: Path, source: str, reference: str = "./footer.py") -> str:
    (folder / "footer.py").write_text(source)
    with pytest.raises(PluginError) as caught:
        PluginClasses(folder).find(reference)
    return str(caught.value)


@pytest.mark.parametrize("reference", ["./footer.py", "./footer.py:Footer"])
def test_a_plugin_for_a_newer_version_is_refused_and_not_blamed_for_its_hooks(
    tmp_path: Path, reference: str
) -> None:
    source = SOURCE.format(api='"1.3"', hook="archive")
    assert problem(tmp_path, source, reference) == (
        f"is made for plugin API 1.3, and this gateway has {API_VERSION}: {NEWER}"
    )


def test_the_line_names_the_place_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "footer.py").write_text(SOURCE.format(api="1.0", hook="message"))
    config = configure(tmp_path, "plugins: [./footer.py]")
    with pytest.raises(ConfigError) as caught:
        load_plugins(config)
    (found,) = caught.value.problems
    assert re.fullmatch(
        r".*gateway\.yaml:\d+: plugins\[0\]: api = 1\.0 is no version of the plugin API; .*",
        str(found),
    )


@pytest.mark.parametrize("api", ['""', f'"{API_VERSION}"'])
def test_a_plugin_for_this_version_or_for_none_is_taken(tmp_path: Path, api: str) -> None:
    (tmp_path / "footer.py").write_text(SOURCE.format(api=api, hook="message"))
    assert PluginClasses(tmp_path).find("./footer.py").__name__ == "Footer"


def test_the_bundled_plugins_are_made_for_this_version() -> None:
    classes = PluginClasses(Path())
    bundled = [
        classes.find(name)
        for name, point in classes.installed.items()
        if point.value.startswith("plugins.")
    ]
    assert len(bundled) == 8
    assert {plugin.api for plugin in bundled} == {API_VERSION}


OLD = f"this gateway has plugin API {API_VERSION}, and may be too old for the plugin"


@pytest.mark.parametrize(
    ("line", "end"),
    [
        ("from gateway.hooks import Archive", f"; {OLD}"),
        ("from gateway.hooks import Mesage", f'; did you mean "Message"? Or else {OLD}'),
        ("import gateway.hooks\ngateway.hooks.Archive", f"; {OLD}"),
        ("from gateway import hooks\nhooks.Rejct('x')", f'; did you mean "Reject"? Or else {OLD}'),
        ("from gateway.hooks.archive import Archive", f"; {OLD}"),
        ("from gateway.testing import Archive", f"; {OLD}"),
    ],
)
def test_a_name_that_the_api_lacks_may_be_one_of_a_newer_version(
    tmp_path: Path, line: str, end: str
) -> None:
    text = problem(tmp_path, f"{line}\n")
    assert text.startswith("cannot be imported: ")
    assert text.endswith(end), text


def test_so_may_one_that_is_missed_when_the_plugin_is_made(tmp_path: Path) -> None:
    source = SOURCE.format(api='""', hook="message")
    (tmp_path / "footer.py").write_text(
        f"{source}\n    def __init__(self, config):\n        from gateway.hooks import Archive\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_plugins(configure(tmp_path, "plugins: [./footer.py]"))
    (found,) = caught.value.problems
    assert "cannot be made: " in str(found)
    assert str(found).endswith(OLD)


@pytest.mark.parametrize(
    "line",
    [
        "import archive_of_nobody",
        "from json import Archive",
        "import json\njson.Archive",
        "None.archive",
        "from gateway import Archive",
        "raise ImportError",
        "raise AttributeError('x')",
    ],
)
def test_other_errors_say_nothing_of_the_api(tmp_path: Path, line: str) -> None:
    assert "plugin API" not in problem(tmp_path, f"{line}\n")


# What is public.


def test_the_public_api_is_the_recorded_one() -> None:
    found = api_listing.difference(api_listing.FILE.read_text(), api_listing.listing())
    assert not found, (
        f"the public plugin API has changed:\n{found}\n\n"
        "If something is gone or means something else, API_VERSION in gateway/hooks/api.py gets "
        "the next MAJOR version; if something is new, the next MINOR version. "
        "Then record it: python -m tests.hooks.api_listing"
    )


def test_every_public_name_is_there_once() -> None:
    assert [name for name in hooks.__all__ if not hasattr(hooks, name)] == []
    assert len(set(hooks.__all__)) == len(hooks.__all__)


def test_the_listing_sees_what_authors_depend_on() -> None:
    text = api_listing.listing()
    for line in (
        f"API {API_VERSION}",
        "    text: str",
        "    code: int = 550",
        "    api: ClassVar[str] = ''",
        "    sender: str, property (can be set)",
        "    add(self, name: str, value: str | bytes) -> None",
        "    DELIVERED = 'delivered'",
        "gateway.hooks.Accept: class()",
        "gateway.hooks.TextPartError: class(ValueError)",
    ):
        assert f"\n{line}\n" in f"\n{text}", line
    assert "    message(message: Message) -> Reject | " in text
    assert " at 0x" not in text


def test_a_difference_is_shown_by_its_lines() -> None:
    assert api_listing.difference("a\nb\n", "a\nb\n") == ""
    assert api_listing.difference("a\nb\nc\n", "a\nx\nc\n") == "-b\n+x"
