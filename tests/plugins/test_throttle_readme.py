"""The README: its configurations load, its commands exist, its tables are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from gateway.configuration.config import load_config
from gateway.hooks.load import load_plugins
from plugins.throttle import Throttle, ThrottleConfig
from plugins.throttle.config import QuotaConfig
from plugins.throttle.destination import Backoff, Bounds, Provider, ReceiversFile, Rule
from plugins.throttle.plan import Slowing
from plugins.throttle.receivers import read_layer, settle
from tests.plugins.throttle_site import Site

FOLDER = Path(__file__).parents[2] / "plugins/throttle"
README = (FOLDER / "README.md").read_text()
CONFIGURATIONS = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"`gateway (throttle [^`]+)`", README)


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_a_configuration_loads(tmp_path: Path, number: int) -> None:
    text = CONFIGURATIONS[number]
    if "stream: bulk" in text:
        text += "streams:\n  bulk: {when: {header: {Precedence: bulk}}}\n"
    (tmp_path / "gateway.yaml").write_text(text)
    (plugin,) = load_plugins(load_config(tmp_path / "gateway.yaml"))
    assert isinstance(plugin.instance, Throttle)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_exists(tmp_path: Path, line: str) -> None:
    site = Site(tmp_path)
    group = Throttle(site.config()).commands(site.context("command"))
    assert isinstance(group, click.Group)
    _, name, *words = shlex.split(line)
    group.commands[name].make_context(name, words)
    site.close()


def test_every_command_and_option_is_described(tmp_path: Path) -> None:
    site = Site(tmp_path)
    group = Throttle(site.config()).commands(site.context("command"))
    assert isinstance(group, click.Group)
    for name, command in group.commands.items():
        assert f"`gateway throttle {name}" in README
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or option in README, option
    site.close()


def test_the_tables_name_every_key() -> None:
    keys = {
        info.validation_alias or name
        for model in (ThrottleConfig, Provider, Bounds, Backoff, Rule, QuotaConfig, ReceiversFile)
        for name, info in model.model_fields.items()
    }
    rows = re.findall(r"^\| (`.*?) \|", README, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert keys - {"domains", "mx"} - named == set()
    for key in ("domains", "mx"):
        assert f"(`{key}`)" in README
    whole = CONFIGURATIONS[-1]
    for key in ThrottleConfig.model_fields:
        assert re.search(rf"^      {key}:", whole, re.MULTILINE), key


def test_the_defaults_of_slow_downs_are_as_written() -> None:
    defaults = Slowing()
    for key, value in (
        ("rate", str(defaults.rate)),
        ("halvings", str(defaults.halvings)),
        ("every", f"{defaults.every / 60:g}m"),
        ("recover", f"{defaults.recover / 60:g}m"),
    ):
        assert f"| `{key}` | `{value}` |" in README


def test_the_file_of_ones_own_that_is_shown_can_be_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```text\n(providers:.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "own.yaml").write_text(block)
    shown = settle([read_layer(tmp_path / "own.yaml", "own.yaml")])
    assert (list(shown.providers), list(shown.rules)) == (["corp"], ["quota"])


def test_the_lines_of_the_shipped_file_that_are_shown_are_those() -> None:
    lines = (FOLDER / "receivers.yaml").read_text().splitlines()
    shown = re.findall(r"^  (\S+).*\(shipped receivers.yaml:(\d+)\)$", README, re.MULTILINE)
    assert shown
    for what, number in shown:
        assert what.rstrip(":") in lines[int(number) - 1], (what, number)


def test_the_receivers_that_are_named_are_those_that_come_with_it() -> None:
    (named,) = re.findall(r"for large receivers come with it, for (.*?)\. To", README)
    found = re.split(r", | and ", named)
    # GMX and web.de are one provider.
    assert len(found) - 1 == len(ThrottleConfig().merged.providers)


def test_every_module_is_in_the_list_of_files() -> None:
    for path in FOLDER.glob("*.py"):
        assert path.name == "__init__.py" or f"`{path.name}`" in README, path.name
