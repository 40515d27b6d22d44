"""The README: its configurations load, its commands run, and they print what it shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel

from gateway.configuration.config import load_config
from gateway.hooks.load import load_plugins
from plugins.ippool import IpPool, IpPoolConfig
from plugins.ippool.config import BlockConfig
from plugins.ippool.identity import Bindings
from plugins.ippool.provider import PROVIDERS
from plugins.ippool.warmup import CURVE
from tests.plugins.ippool_site import NOON, Site, blocked, mail, send, sent_from

README = (Path(__file__).parents[2] / "plugins/ippool/README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CONFIGURATIONS = [text for language, text in BLOCKS if language == "yaml"]
TRANSCRIPTS = [text for language, text in BLOCKS if language == "text"]
S3140 = "Unfortunately, messages from [192.0.2.2] weren't sent (S3140)"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def _settings(text: str) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(text)["plugins"][0]["ippool"]
    return settings


def _transcript(word: str) -> list[tuple[list[str], str]]:
    """The commands of a transcript, and what each prints."""
    (text,) = [one for one in TRANSCRIPTS if f"gateway ippool {word}" in one]
    parts = re.split(r"^\$ gateway ippool (.*)\n", text, flags=re.MULTILINE)[1:]
    return [
        (shlex.split(line), output) for line, output in zip(parts[::2], parts[1::2], strict=True)
    ]


def _printed(site: Site, words: list[str]) -> str:
    plugin = IpPool(IpPoolConfig.model_validate(_settings(CONFIGURATIONS[0])))
    command = plugin.commands(site.context("command"))
    assert isinstance(command, click.Group)
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_a_configuration_loads(tmp_path: Path, number: int) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIGURATIONS[number])
    (plugin,) = load_plugins(load_config(tmp_path / "gateway.yaml"))
    assert plugin.entry.name == "ippool"


@pytest.fixture
def everything_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses of documents belong to no machine."""
    monkeypatch.setattr(Bindings, "check", lambda self, only=None: None)


@pytest.mark.usefixtures("everything_is_bound")
async def test_what_is_shown_is_what_is_printed(site: Site) -> None:
    sources = _settings(CONFIGURATIONS[0])["sources"]
    async with site.plugin({"sources": {"mta2": sources["mta2"]}}) as plugin:
        for site.now in (NOON - 3600, NOON):
            delivery = mail("taro@outlook.com")
            send(plugin, delivery)
            blocked(plugin, delivery, S3140)
    async with site.plugin({"sources": {"mta3": sources["mta3"]}}) as plugin:
        for domain, count in (("gmail.com", 214), ("example.net", 12)):
            for number in range(count):
                sent_from(plugin, mail(f"taro@{domain}", number=number))
    ((words, output),) = _transcript("show")
    assert _printed(site, words) == output


def test_suspending_prints_what_is_shown(site: Site) -> None:
    for words, output in _transcript("suspend"):
        assert _printed(site, words) == output


def test_check_is_shown_with_the_sources_of_the_first_configuration() -> None:
    ((words, output),) = _transcript("check")
    assert words == ["check"]
    sources = _settings(CONFIGURATIONS[0])["sources"]
    begins = [f"{name}  {one['address']}  {one['helo']}: " for name, one in sources.items()]
    for line, begin in zip(output.splitlines(), begins, strict=True):
        assert line.startswith(begin)


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        annotation = str(field.annotation)
        star = ".*." if "Mapping" in annotation else "."
        for inner in _models(field.annotation):
            if inner.__name__ not in ("When", "BlockConfig"):
                yield from _keys(inner, f"{prefix}{name}{star}")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


def test_every_key_is_explained_and_in_the_whole_configuration() -> None:
    rows = re.findall(r"^\| `([\w.*]+)` \|", README, re.MULTILINE)
    whole = CONFIGURATIONS[-1]
    keys = set(_keys(IpPoolConfig)) - {"suspension"}
    assert keys - set(rows) == set()
    for key in keys - {"providers.*.domains", "providers.*.mx"}:
        assert re.search(rf"\b{key.rpartition('.')[2]}:", whole), key
    assert set(BlockConfig.model_fields) - set(rows) == set()


def test_every_command_is_explained(site: Site) -> None:
    command = IpPool(IpPoolConfig.model_validate(_settings(CONFIGURATIONS[0]))).commands(
        site.context("command")
    )
    assert isinstance(command, click.Group)
    for name, inner in command.commands.items():
        assert f"| `ippool {name}` |" in README
        for parameter in inner.params:
            for option in parameter.opts:
                assert not option.startswith("--") or option in README, option


def test_the_curve_that_is_shown_is_the_one_that_is_used() -> None:
    days, recipients = (
        [int(one.replace(",", "")) for one in re.findall(r"[\d,]+", line)]
        for line in re.findall(r"^\| (?:day|recipients) \|(.*)$", README, re.MULTILINE)
    )
    assert [CURVE[day - 1] for day in days] == recipients
    assert days[-1] == len(CURVE)


def test_every_provider_is_named() -> None:
    for name in PROVIDERS:
        assert f"`{name}`" in README


def test_the_whole_configuration_has_the_defaults() -> None:
    whole = IpPoolConfig.model_validate(_settings(CONFIGURATIONS[-1]))
    default = IpPoolConfig(sources=whole.sources)
    for name in ("timezone", "providers", "blocks", "shipped_blocks", "suspension"):
        assert getattr(whole, name) == getattr(default, name), name
