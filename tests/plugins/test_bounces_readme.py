"""The README: its configurations load, its commands print what it shows, its tables are whole."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway.configuration.config import load_config
from gateway.hooks.load import load_plugins
from plugins.bounces import BouncesConfig
from plugins.bounces.classification import Classifier, FailureClass
from tests.plugins.bounces_site import Site, path_of, report

README = (Path(__file__).parents[2] / "plugins/bounces/README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHOWN = [text for language, text in BLOCKS if language == "text" and text.startswith("$ ")]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def group(site: Site) -> click.Group:
    return site.plugin("command", domain="bounce.shop.example.com").commands(
        site.context("command")
    )


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language == "yaml"])
def test_a_configuration_loads(tmp_path: Path, text: str) -> None:
    (tmp_path / "gateway.yaml").write_text(text)
    plugins = load_plugins(load_config(tmp_path / "gateway.yaml"))
    assert plugins[0].entry.name == "bounces"


@pytest.mark.parametrize("shown", SHOWN, ids=lambda text: text.split("\n")[0])
def test_a_command_prints_what_is_shown(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    line, _, output = shown.partition("\n")
    path = path_of(site.plugin(domain="bounce.shop.example.com"), stream="bulk")
    monkeypatch.chdir(tmp_path)
    Path("bounce.eml").write_bytes(report("postfix", path))
    arguments = [
        path if word.startswith("b+") else word for word in shlex.split(line.removeprefix("$ "))
    ]
    assert arguments[:2] == ["gateway", "bounces"]
    result = CliRunner().invoke(group(site), arguments[2:])
    assert (result.output, result.exit_code) == (output, 0)


def test_return_paths_look_like_that(site: Site) -> None:
    path = path_of(site.plugin(domain="bounce.shop.example.com"))
    example = re.search(r"MAIL FROM:<(b\+06\S+-hanako=\S+)>", README)
    assert example is not None
    assert len(example[1]) == len(path)
    assert path[:15] == example[1][:15]


def test_the_rules_that_are_shown_work(tmp_path: Path) -> None:
    (rules,) = [text for language, text in BLOCKS if text.startswith("- class")]
    file = tmp_path / "rules.yaml"
    file.write_text(rules)
    classifier = Classifier(file)
    assert classifier.verdict(550, "5.1.1", "宛先は移転しました").failure is FailureClass.INACTIVE


def test_every_command_and_option_is_described(site: Site) -> None:
    for name, command in group(site).commands.items():
        assert f"`gateway bounces {name}" in README
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or f"`{option}" in README, option


def test_every_key_and_every_class_is_explained() -> None:
    whole = next(text for language, text in BLOCKS if language == "yaml" and "prefix" in text)
    config = BouncesConfig()
    for name in BouncesConfig.model_fields:
        assert f"| `{name}` |" in README
        assert re.search(rf"^      {name}: ", whole, re.MULTILINE), name
        if name != "domain":
            assert name in whole
    for failure in FailureClass:
        assert f"| `{failure}` | {failure.kind} |" in README
    assert (config.prefix, config.style, config.lifetime) == ("b", "verp", 30 * 86_400.0)
    assert config.roles == {"postmaster", "abuse"}


def test_every_file_is_named() -> None:
    folder = Path(__file__).parents[2] / "plugins/bounces"
    named = set(re.findall(r"`(\w+\.(?:py|yaml))`", README[README.index("## How it works") :]))
    files = {file.name for file in folder.iterdir() if file.suffix in (".py", ".yaml")}
    assert named == files - {"__init__.py", "config.py"}
