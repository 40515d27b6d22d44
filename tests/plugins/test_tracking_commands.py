from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from plugins.tracking import Tracking, TrackingConfig
from plugins.tracking.keys import Keyring
from plugins.tracking.token import Kind, Token
from tests.plugins.tracking_mail import NOW, Clock, make_context

TOKEN = Token(
    Kind.CLICK,
    "0H3K5M7P9R1T3",
    "taro@example.net",
    "bounces@example.com",
    campaign="春",
    day=20_000,
    url="https://www.example.com/",
)


class Commands:
    """The commands of a plugin that is not started."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.path = folder / "data" / "keys.json"
        plugin = Tracking(TrackingConfig.model_validate({"base_url": "https://t.example.com"}))
        command = plugin.commands(make_context(folder, self.clock))
        assert isinstance(command, click.Group)
        self.group = command

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(self.group, arguments)

    def json(self, *arguments: str) -> object:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def test_asking_for_the_commands_makes_no_files(commands: Commands, tmp_path: Path) -> None:
    for arguments in ((), ("--help",), ("keys",), ("open", "x")):
        commands.run(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_without_keys_it_says_so(commands: Commands) -> None:
    for arguments in (["keys"], ["open", "x"], ["keys", "--json"]):
        result = commands.run(*arguments)
        assert result.exit_code == 1
        assert "there are no keys in" in result.stderr
        assert result.stdout == ""


def test_keys_are_listed_and_never_shown(commands: Commands) -> None:
    Keyring(commands.path, Clock(NOW - 3 * 86_400))
    Keyring(commands.path, commands.clock)
    assert commands.run("rotate").stdout.startswith("key 2 signs from now on")
    commands.clock.now += 30

    result = commands.run("keys")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        str(commands.path),
        " id  made               age        use",
        "  1  2026-09-18 14:13Z  3 days     opens",
        "  2  2026-09-21 14:13Z  30 s       signs and opens",
    ]
    listed = commands.json("keys")
    assert listed == [
        {"id": 1, "created": "2026-09-18T14:13:20+00:00", "age_seconds": 259_230, "signs": False},
        {"id": 2, "created": "2026-09-21T14:13:20+00:00", "age_seconds": 30, "signs": True},
    ]
    for entry in json.loads(commands.path.read_text())["keys"]:
        assert entry["secret"] not in result.output + json.dumps(listed)


def test_rotating_adds_a_key_that_seals(commands: Commands) -> None:
    first = commands.json("rotate")
    assert isinstance(first, dict)
    assert (first["id"], first["signs"]) == (1, True)
    before = Keyring(commands.path).seal(TOKEN)
    assert commands.json("rotate") == first | {
        "id": 2,
        "created": "2026-09-21T14:13:21+00:00",
        "age_seconds": 0,
    }
    keyring = Keyring(commands.path)
    assert keyring.seal(TOKEN) != before
    assert keyring.open(before) == TOKEN


def test_rotating_a_damaged_file_changes_nothing(commands: Commands) -> None:
    commands.run("rotate")
    commands.path.write_text("damaged")
    result = commands.run("rotate")
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: \S+: is no file of tracking keys, or is damaged\n", result.stderr)
    assert commands.path.read_text() == "damaged"


@pytest.mark.parametrize("form", ["{}", "https://t.example.com/c/{}", " https://x/t/c/{}/ \n"])
def test_a_token_says_what_is_in_it(commands: Commands, form: str) -> None:
    text = form.format(Keyring(commands.path, commands.clock).seal(TOKEN))

    result = commands.run("open", text)
    assert result.exit_code == 0
    assert result.stdout == (
        "kind:       click\n"
        "message_id: 0H3K5M7P9R1T3\n"
        "recipient:  taro@example.net\n"
        "sender:     bounces@example.com\n"
        "campaign:   春\n"
        "day:        2024-10-04\n"
        "url:        https://www.example.com/\n"
    )
    assert commands.json("open", text) == {
        "kind": "click",
        "message_id": "0H3K5M7P9R1T3",
        "recipient": "taro@example.net",
        "sender": "bounces@example.com",
        "stream": "",
        "campaign": "春",
        "variant": "",
        "day": "2024-10-04",
        "url": "https://www.example.com/",
        "link": "",
    }


def test_what_is_no_token_is_an_error(commands: Commands) -> None:
    text = Keyring(commands.path).seal(TOKEN)
    for wrong in (text[:-1], text + "A", "x", "https://t.example.com/", ""):
        result = commands.run("open", "--json", wrong)
        assert result.exit_code == 1
        assert "no token of this gateway" in result.stderr
        assert result.stdout == ""
