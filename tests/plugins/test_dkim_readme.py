"""The README: its configurations load, its commands exist, its tables are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from gateway.configuration.config import load_config
from gateway.hooks.load import load_plugins
from plugins.dkim import Dkim, DkimConfig, KeyConfig, VerifyConfig
from plugins.dkim.verification import Result
from tests.plugins.dkim_keys import context, rsa_key

README = (Path(__file__).parents[2] / "plugins/dkim/README.md").read_text()
CONFIGURATIONS = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = sorted({*re.findall(r"`gateway (dkim .*?)`", README)} | {"dkim keygen example.com"})


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_a_configuration_loads(tmp_path: Path, number: int) -> None:
    text = CONFIGURATIONS[number]
    for name in re.findall(r"file: ([\w./-]+\.pem)", text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        rsa_key().write(tmp_path / name)
    (tmp_path / "gateway.yaml").write_text(text)

    plugins = load_plugins(load_config(tmp_path / "gateway.yaml"))

    assert plugins[0].entry.name == "dkim"


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_exists(tmp_path: Path, line: str) -> None:
    group = Dkim(DkimConfig()).commands(context(tmp_path, role="command"))
    assert isinstance(group, click.Group)
    _, name, *words = shlex.split(line)

    group.commands[name].make_context(name, words)


def test_every_command_and_option_is_described() -> None:
    group = Dkim(DkimConfig()).commands(context(Path("/nowhere"), role="command"))
    assert isinstance(group, click.Group)
    for name, command in group.commands.items():
        assert f"`gateway dkim {name}" in README
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or f"`{option}`" in README, option


def test_the_tables_name_every_key_and_every_result() -> None:
    keys = [
        *DkimConfig.model_fields,
        *(f"keys.{info.validation_alias or name}" for name, info in KeyConfig.model_fields.items()),
        *(f"verify.{name}" for name in VerifyConfig.model_fields),
    ]
    rows = re.findall(r"^\| (`.*?) \|", README, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert named == {*keys, *Result, "none"}
    whole = max(CONFIGURATIONS, key=len)
    for key in keys:
        assert re.search(rf"\b{key.rpartition('.')[2]}:", whole), key
