"""`gateway plugin list` and `show`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from gateway.cli.command import gateway
from gateway.hooks import API_VERSION, catalogue
from gateway.hooks.load import installed_models
from tests.assembly import configure, write_plugin

BUNDLED = ["bounces", "dkim", "ippool", "personalization"]
BUNDLED += ["report", "suppression", "throttle", "tracking"]

FOOTER = '''
"""A module."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway.hooks import Context, Duration, Message, Plugin, hookimpl


class Place(BaseModel):
    """Where it stands."""

    side: Literal["top", "end"] = "end"


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(description="What is added.", examples=["Example Inc."])
    place: Place = Place()
    every: Duration = Field(3600.0, description="How often.")
    password: SecretStr | None = None


class Footer(Plugin[Config]):
    """Adds a footer
    to mail.

    And nothing else:

        indented
    """

    api = "1.0"
    blocking = True
    threads = 2
    per_recipient = True
    changes = ("text/plain", "body")

    @hookimpl
    def message(self, message: Message) -> None:
        """Adds it.

        Slowly.
        """

    @hookimpl
    def start(self, context: Context) -> None: ...

    @hookimpl
    def http(self) -> object:
        return None

    @hookimpl
    def commands(self, context: Context) -> None: ...
'''


def _run(*arguments: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(gateway, ["plugin", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str = "footer"
) -> None:
    """A package with a plugin, as pip leaves it, on the path."""
    site = folder / "packages"
    (site / f"mail_{name}").mkdir(parents=True)
    (site / f"mail_{name}/__init__.py").write_text(source)
    info = site / f"mail_{name}-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: mail-{name}\nVersion: 2.1\n"
        "Project-URL: Changelog, https://example.com/changes\n"
        "Project-URL: Homepage, https://example.com/footer\n"
    )
    (info / "entry_points.txt").write_text(f"[gateway.plugins]\n{name} = mail_{name}:Footer\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, f"mail_{name}", raising=False)


# List.


def test_the_bundled_plugins_are_listed(folder: Path) -> None:
    lines = _run("list").output.splitlines()
    names = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert [name for name in names if name in BUNDLED] == BUNDLED
    place = lines.index(next(line for line in lines if line.startswith("dkim ")))
    assert lines[place].split()[1] == "mail-gateway"
    assert lines[place + 1] == (
        "    Signs each message for the domain of its author, the address in From."
    )
    assert lines[place + 2] == "    hooks: start, message, seal, commands"
    assert "used" not in lines[place]


def test_what_the_configuration_uses_is_marked(folder: Path) -> None:
    (folder / "site").mkdir()
    write_plugin(folder / "site", "mine", "@hookimpl\ndef stop(self):\n    pass")
    configure(folder, "plugins: [report, ./site/mine.py, suppression, suppression]")
    for arguments in (["list"], ["list", "-c", str(folder / "gateway.yaml")]):
        text = _run(*arguments).output
        lines = [line for line in text.splitlines() if not line.startswith(" ")]
        used = [line.split()[0] for line in lines if ", used" in line]
        assert used == ["report", "suppression", "./site/mine.py"]
        assert "suppression      mail-gateway 0.1.0, used 2 times" in text
        assert "./site/mine.py   a file of the site, used" in text


def test_paths_start_from_the_folder_of_the_configuration(folder: Path) -> None:
    (folder / "etc").mkdir()
    write_plugin(folder / "etc", "mine", "@hookimpl\ndef stop(self):\n    pass")
    configure(folder / "etc", "plugins: [./mine.py]")
    assert "hooks: stop" in _run("list", "-c", "etc/gateway.yaml").output


def test_broken_plugins_are_listed_with_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(folder, monkeypatch, FOOTER.replace('"1.0"', '"1.9"'))
    _install(folder, monkeypatch, "import no_such_library\n", "library")
    write_plugin(folder, "hook", "@hookimpl\ndef mesage(self, message):\n    pass")
    configure(folder, "plugins: [./hook.py, ./gone.py, nothing]")
    facts = {one["reference"]: one for one in json.loads(_run("list", "--json").output)}
    reasons = {name: one["problem"] for name, one in facts.items() if one["problem"]}
    assert list(reasons) == ["footer", "library", "./hook.py", "./gone.py", "nothing"]
    assert reasons["footer"].startswith("is made for plugin API 1.9, and this gateway has 1.0: ")
    assert "No module named 'no_such_library'" in reasons["library"]
    assert reasons["./hook.py"].endswith('there is no hook "mesage"; did you mean "message"?')
    assert reasons["./gone.py"].startswith("no such file: ")
    assert reasons["nothing"].startswith("no such plugin")
    text = " ".join(_run("list").output.split())
    for reason in reasons.values():
        assert reason.partition(": ")[0] in text


def test_a_name_that_two_packages_offer_is_broken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(folder, monkeypatch, FOOTER)
    other = folder / "others/mail_other-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.4\nName: mail-other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[gateway.plugins]\nfooter = mail_other:Footer\n")
    monkeypatch.syspath_prepend(folder / "others")
    facts = {one["reference"]: one for one in json.loads(_run("list", "--json").output)}
    assert facts["footer"]["problem"] == (
        "several installed packages offer it (mail_footer:Footer, mail_other:Footer); "
        "remove all but one"
    )


def test_a_model_that_cannot_be_used_is_a_reason(folder: Path) -> None:
    (folder / "a.py").write_text(FOOTER.replace("text: str", "when: str"))
    configure(folder, "plugins: [./a.py]")
    assert 'Config has a field "when", which the gateway keeps' in _run("list").output


def test_the_list_as_json(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(folder, monkeypatch, FOOTER)
    facts = {one["reference"]: one for one in json.loads(_run("list", "--json").output)}
    assert facts["footer"] == {
        "reference": "footer",
        "place": "mail_footer:Footer",
        "distribution": "mail-footer",
        "version": "2.1",
        "home_page": "https://example.com/footer",
        "summary": "Adds a footer to mail.",
        "hooks": ["start", "message", "http", "commands"],
        "problem": None,
        "api": "1.0",
        "per_recipient": True,
        "blocking": True,
        "changes": ["body", "text/plain"],
        "used": None,
    }
    configure(folder, "plugins: [{footer: {text: a}}, {footer: {text: b}}]")
    facts = {one["reference"]: one for one in json.loads(_run("list", "--json").output)}
    assert facts["footer"]["used"] == ["footer", "footer#2"]
    assert facts["dkim"]["used"] == []


def test_a_configuration_that_was_named_has_to_be_good(folder: Path) -> None:
    assert "no such file" in _run("list", "-c", "gateway.yaml", status=2).output
    (folder / "gateway.yaml").write_text("listen: 3\n")
    assert "gateway.yaml:1: listen" in _run("list", "-c", "gateway.yaml", status=2).output


def test_a_bad_configuration_that_was_not_named_hides_nothing(folder: Path) -> None:
    (folder / "gateway.yaml").write_text("listen: 3\n")
    result = _run("list")
    assert "dkim" in result.stdout
    assert result.stderr == (
        "gateway.yaml cannot be read, and it is not known which plugins it uses: gateway check\n"
    )


# Show.


def test_show_explains_a_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(folder, monkeypatch, FOOTER)
    assert _run("show", "footer").output == (
        "footer: Adds a footer to mail.\n"
        "\n"
        "  And nothing else:\n"
        "\n"
        "      indented\n"
        "\n"
        "  package     mail-footer 2.1\n"
        "  home page   https://example.com/footer\n"
        "  class       mail_footer:Footer\n"
        "  plugin API  1.0\n"
        "  may change  body, text/plain\n"
        "  runs        in up to 2 threads of its own in each process\n"
        "  message     is seen once for each recipient\n"
        "  commands    gateway footer --help\n"
        "  pages       below /footer/ of the HTTP service\n"
        "\n"
        "Hooks, in the order in which a message meets them\n"
        "  start     Opens what the plugin needs: files, databases, connections.\n"
        "  message   Adds it.\n"
        "  http      Gives an ASGI application to the HTTP service.\n"
        "  commands  Adds a command to `gateway`.\n"
        "\n"
        "Configuration\n"
        "  text  text (required)\n"
        "      What is added.\n"
        "  place  mapping\n"
        "      Where it stands.\n"
        "      side  one of top, end (default: end)\n"
        "  every  time (such as 30s) (default: 1h)\n"
        "      How often.\n"
        "  password  secret text or null\n"
        "  Every entry also takes when, timeout, on_error.\n"
        "\n"
        "In gateway.yaml\n"
        "  plugins:\n"
        "    - footer:\n"
        "        text: Example Inc.\n"
        "        # every: 1h\n"
    )


@pytest.mark.parametrize("reference", ["./footer.py", "footer.py:Footer"])
def test_show_explains_a_file(folder: Path, reference: str) -> None:
    (folder / "footer.py").write_text(FOOTER.replace('    api = "1.0"\n', ""))
    text = _run("show", reference).output
    assert f"\n  class       {reference.removesuffix(':Footer')}:Footer\n" in text
    assert f"\n  plugin API  not said; taken as {API_VERSION}\n" in text
    assert "\n  commands    gateway footer --help\n" in text
    assert "package" not in text


@pytest.mark.parametrize("name", BUNDLED)
def test_show_explains_the_bundled_plugins(folder: Path, name: str) -> None:
    text = _run("show", name).output
    assert text.startswith(f"{name}: ")
    assert "  package     mail-gateway " in text
    shown = text.partition("\nConfiguration\n")[2]
    for key in installed_models()[name].model_fields:
        assert f"\n  {key}  " in f"\n{shown}", key
    entry = yaml.safe_load(text.partition("\nIn gateway.yaml\n")[2])
    assert len(entry["plugins"]) == 1


def test_show_as_json(folder: Path) -> None:
    (folder / "footer.py").write_text(FOOTER)
    facts: dict[str, Any] = json.loads(_run("show", "./footer.py", "--json").output)
    assert facts["description"] == "Adds a footer\nto mail.\n\nAnd nothing else:\n\n    indented"
    assert facts["hooks"]["message"] == "Adds it."
    assert facts["keys"][:2] == [
        {
            "name": "text",
            "type": "text",
            "required": True,
            "default": None,
            "description": "What is added.",
            "keys": [],
        },
        {
            "name": "place",
            "type": "mapping",
            "required": False,
            "default": None,
            "description": "Where it stands.",
            "keys": [
                {
                    "name": "side",
                    "type": "one of top, end",
                    "required": False,
                    "default": "end",
                    "description": "",
                    "keys": [],
                }
            ],
        },
    ]
    assert yaml.safe_load(facts["example"]) == {
        "plugins": [{"./footer.py": {"text": "Example Inc."}}]
    }
    assert (facts["distribution"], facts["version"]) == (None, None)


def test_show_of_what_cannot_be_used(folder: Path) -> None:
    result = _run("show", "dkimm", status=1)
    assert result.stderr.startswith('gateway: dkimm: no such plugin; did you mean "dkim"?')
    write_plugin(folder, "hook", "@hookimpl\ndef mesage(self, message):\n    pass")
    assert 'did you mean "message"?' in _run("show", "./hook.py", status=1).stderr


def test_show_of_a_model_that_cannot_be_described(folder: Path) -> None:
    broken = """
    @classmethod
    def __get_pydantic_json_schema__(cls, *_):
        raise ValueError("not me")

    text: str"""
    (folder / "a.py").write_text(FOOTER.replace("\n    text: str", broken))
    text = _run("show", "./a.py", status=1).stderr
    assert text.startswith("gateway: ./a.py: its configuration cannot be described: ")
    assert text.endswith("ValueError: not me\n")


def test_a_plugin_that_says_nothing_and_takes_nothing(folder: Path) -> None:
    write_plugin(folder, "bare", "changes = ()\n@hookimpl\ndef stop(self):\n    pass")
    assert _run("show", "./bare.py").output == (
        "./bare.py\n"
        "\n"
        "  class       ./bare.py:Site\n"
        f"  plugin API  not said; taken as {API_VERSION}\n"
        "  may change  nothing in a message\n"
        "\n"
        "Hooks, in the order in which a message meets them\n"
        "  stop  Closes what `start` opened.\n"
        "\n"
        "Configuration\n"
        "  Nothing can be set.\n"
        "  Every entry also takes when, timeout, on_error.\n"
        "\n"
        "In gateway.yaml\n"
        "  plugins:\n"
        "    - ./bare.py\n"
    )


@pytest.mark.parametrize(
    ("metadata", "page"),
    [
        ("", ""),
        (
            "Home-page: https://a.example\nProject-URL: Homepage, https://b.example\n",
            "https://a.example",
        ),
        ("Project-URL: Repository, https://a.example\n", "https://a.example"),
        (
            "Project-URL: Source, https://a.example\nProject-URL: Documentation, https://b.example\n",
            "https://b.example",
        ),
        ("Project-URL: nonsense\n", ""),
    ],
)
def test_the_home_page(
    folder: Path, monkeypatch: pytest.MonkeyPatch, metadata: str, page: str
) -> None:
    _install(folder, monkeypatch, FOOTER)
    file = folder / "packages/mail_footer-2.1.dist-info/METADATA"
    file.write_text(f"Metadata-Version: 2.4\nName: mail-footer\nVersion: 2.1\n{metadata}")
    found = {one.reference: one for one in catalogue.offers(folder)}["footer"]
    assert found.distribution == catalogue.Distribution("mail-footer", "2.1", page)
