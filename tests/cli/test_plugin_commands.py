"""Plugins that are named like a command of the gateway."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway.cli.command import gateway
from gateway.cli.plugins import add_plugin_commands
from tests.assembly import configure, write_plugin


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["plugin", "queue", "check"])
def test_a_plugin_named_like_a_command_of_the_gateway_adds_none(folder: Path, name: str) -> None:
    body = "@hookimpl\ndef commands(self, context):\n    raise AssertionError"
    reference = write_plugin(folder, name, body)
    configure(folder, f"plugins: [{reference}]")
    result = CliRunner().invoke(gateway, ["check"])
    assert result.exit_code == 0
    assert result.stderr.endswith(
        f"note: nobody reaches the commands of {name}: `gateway {name}` is another command; "
        "the plugin needs another name\n"
    )
    group = click.Group("gateway", dict(gateway.commands))
    add_plugin_commands(group, ["-c", str(folder / "gateway.yaml"), name])
    assert group.commands[name] is gateway.commands[name]


def test_a_plugin_with_a_name_of_its_own_adds_its_commands(folder: Path) -> None:
    body = "@hookimpl\ndef commands(self, context):\n    raise AssertionError"
    configure(folder, f"plugins: [{write_plugin(folder, 'mine', body)}]")
    result = CliRunner().invoke(gateway, ["check"])
    assert (result.exit_code, "note" in result.stderr) == (0, False)
