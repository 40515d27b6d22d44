# ruff: noqa: E501 - one case of a table is one line
from __future__ import annotations

import sys
from inspect import signature
from pathlib import Path
from textwrap import dedent

import pytest

from gateway.configuration.config import ConfigError, load_config
from gateway.hooks import spec
from gateway.hooks.load import LoadedPlugin, installed_models, load_plugins
from gateway.hooks.spec import STAGES
from tests.assembly import configure, write_plugin

HEAD = """
from pydantic import BaseModel, ConfigDict, SecretStr, field_validator
from gateway.hooks import Message, Plugin, hookimpl
from gateway.hooks.paths import SiteFile, SitePath

class Config(BaseModel):
    text: str = "x"
"""
GOOD = """
class Footer(Plugin[Config]):
    @hookimpl
    def message(self, message: Message) -> None: ...
"""


def load(folder: Path, plugins: str, streams: str = "{}") -> list[LoadedPlugin]:
    file = folder / "gateway.yaml"
    file.write_text(
        f"hostname: gw.example.com\nlisten: [{{address: 127.0.0.1:0}}]\nstreams: {streams}\n"
        f"plugins:\n{plugins}"
    )
    return load_plugins(load_config(file))


def problems(folder: Path, plugins: str, streams: str = "{}") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, plugins, streams)
    return [str(problem) for problem in caught.value.problems]


def problem(folder: Path, source: str, settings: str = "{}", reference: str = "./p.py") -> str:
    (folder / "p.py").write_text(HEAD + dedent(source))
    (found,) = problems(folder, f"  - {reference}: {settings}\n")
    return found


def hooks(text: str) -> str:
    return "\nclass Footer(Plugin[Config]):\n" + "".join(
        f"    {line}\n" for line in dedent(text).strip().splitlines()
    )


def test_a_plugin_by_path(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/footer.py").write_text(
        HEAD
        + hooks(
            """
            @hookimpl
            async def message(self, message: Message) -> None: ...
            @hookimpl
            def seal(self, message: Message) -> None: ...
            @hookimpl
            def stop(self) -> None: ...
            @staticmethod
            @hookimpl
            def connect(client: object) -> None: ...
            def add(self) -> None: ...
            """
        )
    )
    (first, second) = load(
        tmp_path,
        "  - ./site/footer.py: {text: a}\n  - ./site/footer.py: {when: {client: 192.0.2.1}}\n",
    )
    assert (first.entry.name, first.instance.config.text, first.condition) == ("footer", "a", None)
    assert (second.entry.name, second.instance.config.text) == ("footer#2", "x")
    assert second.condition is not None
    assert second.condition.needs == {"client"}
    assert type(first.instance) is type(second.instance)
    assert list(first.hooks) == ["stop", "connect", "message", "seal"]
    assert first.is_async == {"stop": False, "connect": False, "message": True, "seal": False}
    assert getattr(first.hooks["seal"], "__self__", None) is first.instance
    first.hooks["connect"]("a client")


def test_every_hook_can_be_written_as_its_specification_says(tmp_path: Path) -> None:
    body = "\n".join(
        "@hookimpl\ndef {}({}): ...".format(
            name, ", ".join(["self", *signature(getattr(spec, name)).parameters])
        )
        for name in STAGES
    )
    (tmp_path / "p.py").write_text(HEAD + hooks(body))
    (plugin,) = load(tmp_path, "  - ./p.py\n")
    assert list(plugin.hooks) == list(STAGES)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (
            "@hookimpl\ndef mesage(self, message): ...",
            '/p.py:10: there is no hook "mesage"; did you mean "message"?',
        ),
        (
            "@hookimpl\ndef zzz(self): ...",
            'there is no hook "zzz"; hooks are start, stop, connect, helo, auth, mail,',
        ),
        (
            "@hookimpl\ndef message(self, session, envelope): ...",
            "wrong arguments (self, session, envelope); expected: def message(self, message)",
        ),
        (
            "@hookimpl\ndef message(self): ...",
            "wrong arguments (self); expected: def message(self, message)",
        ),
        (
            "@hookimpl\ndef message(self, message, more=None): ...",
            "wrong arguments (self, message, more); expected: def message(self, message)",
        ),
        (
            "@hookimpl\ndef message(self, *message): ...",
            "wrong arguments (self, message); expected: def message(self, message)",
        ),
        (
            "@hookimpl\ndef message(self, *, message): ...",
            "wrong arguments (self, message); expected: def message(self, message)",
        ),
        (
            "@hookimpl\ndef stop(self, context): ...",
            "wrong arguments (self, context); expected: def stop(self)",
        ),
        (
            "@hookimpl\nasync def seal(self, message): ...",
            "seal must not be async; expected: def seal(self, message)",
        ),
        ("@hookimpl\ndef message(self, message): yield", "message must not yield"),
        ("@hookimpl\nasync def message(self, message): yield", "message must not yield"),
        (
            "@hookimpl(tryfirst=True)\ndef message(self, message): ...",
            "@hookimpl(tryfirst=...) of message: hooks take no options, and the order is",
        ),
        ("@hookimpl(trylast=True)\ndef message(self, message): ...", "@hookimpl(trylast=...)"),
        (
            "@hookimpl(specname='message')\ndef seal(self, message): ...",
            "@hookimpl(specname=...) of seal: hooks take no options",
        ),
        (
            "@hookimpl\ndef message(self, message): ...\ndef rcpt(self, recipient): ...",
            "/p.py:12: rcpt is named like a hook, but has no @hookimpl",
        ),
        (
            "@hookimpl\ndef message(self, message): ...\nrcpt = 3",
            "rcpt is named like a hook, but has no @hookimpl",
        ),
        ("def other(self): ...", "Footer has no hooks; mark its methods with @hookimpl: start,"),
        (
            "@hookimpl\ndef claim(self, recipient): ...",
            "Footer claims mail, and has no hook receive that takes it",
        ),
        (
            "@hookimpl\ndef message(self, message): ...\n"
            "def __init__(self, config):\n    self.message = 'hi'",
            "the attribute self.message is named like a hook; rename it",
        ),
        (
            "@hookimpl\ndef message(self, message): ...\n"
            "def __init__(self, config):\n    self.rcpt = print",
            "the attribute self.rcpt is named like a hook; rename it",
        ),
        (
            "@hookimpl\ndef message(self, message): ...\n"
            "def __init__(self, config):\n    config.nothing",
            "cannot be made: {folder}/p.py:13: AttributeError: 'Config' object has no attribute",
        ),
    ],
)
def test_hooks_that_would_not_be_called_are_refused(tmp_path: Path, body: str, hint: str) -> None:
    found = problem(tmp_path, hooks(body))
    assert found.startswith(f'{tmp_path}/gateway.yaml:5: plugins[0]["./p.py"]: ')
    assert hint.format(folder=tmp_path) in found


def test_wrappers_are_refused(tmp_path: Path) -> None:
    for option in ("wrapper", "hookwrapper"):
        (tmp_path / "p.py").write_text(
            HEAD + hooks(f"@hookimpl({option}=True)\ndef message(self, message):\n    yield")
        )
        found = problems(tmp_path, "  - ./p.py\n")
        assert any(f"@hookimpl({option}=...)" in text for text in found), found


def test_an_override_without_the_marker_is_no_silent_change(tmp_path: Path) -> None:
    source = GOOD + "\nclass Mine(Footer):\n    def message(self, message): ...\n"
    assert "named like a hook" in problem(tmp_path, source, reference="./p.py:Mine")


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("", "{folder}/p.py has no plugin; expected: class Name(Plugin[Config])"),
        (
            GOOD + "\nclass Header(Footer): ...\n",
            "has several plugins; name one: p.py:Footer or p.py:Header",
        ),
        (
            "class Footer:\n    @hookimpl\n    def message(self, message): ...",
            "is no plugin; expected: class Footer(Plugin[Config]), with Plugin from gateway.hooks",
        ),
        (
            "class Footer(Plugin):\n    @hookimpl\n    def message(self, message): ...",
            "Footer must name its configuration: class Footer(Plugin[Config])",
        ),
        (
            "class Config(BaseModel):\n    timeout: int = 3\n" + GOOD,
            'Config has a field "timeout", which the gateway keeps for itself (when, timeout, on_error)',
        ),
        ("import not_there_at_all", "cannot be imported: {folder}/p.py:8: ModuleNotFoundError: No module"),
        ("\n\nx = 1 +", "cannot be imported: {folder}/p.py:10: SyntaxError: invalid syntax"),
        ("def f():\n    return 1 / 0\nf()", "{folder}/p.py:9: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "{folder}/p.py:8: SystemExit: 3"),
    ],
)  # fmt: skip
def test_files_that_hold_no_usable_plugin(tmp_path: Path, source: str, hint: str) -> None:
    before = set(sys.modules)
    found = problem(tmp_path, source)
    assert hint.format(folder=tmp_path) in found, found
    if "cannot be imported" in found:
        assert set(sys.modules) - before == set()


def test_classes_by_name_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(HEAD + GOOD + "\nclass Header(Footer): ...\nx = 1\n")
    (one, two) = load(tmp_path, "  - ./p.py:Header\n  - ./p.py:Footer: {}\n")
    assert (type(one.instance).__name__, type(two.instance).__name__) == ("Header", "Footer")
    (found,) = problems(tmp_path, "  - ./p.py:Foter\n")
    assert 'has no class Foter; did you mean "Footer"?' in found
    (found,) = problems(tmp_path, "  - ./p.py:x\n")
    assert "p.py:x is no class" in found
    (found,) = problems(tmp_path, "  - ./p.py:Plugin\n")
    assert "p.py:Plugin is no plugin" in found
    (found,) = problems(tmp_path, "  - ./q.py\n")
    assert f"no such file: {tmp_path}/q.py" in found


@pytest.mark.parametrize(
    ("model", "settings", "line", "hint"),
    [
        ("text: str", "{}", 5, '["./p.py"].text: missing'),
        ("text: str", "{txt: a, text: b}", 5, 'txt: unknown key; did you mean "text"?'),
        ("text: str", "\n      text:\n        - a\n", 6, "text: expected text, not a list"),
        ("text: str", "\n      text: 3\n", 6, "text: expected text, not a number; put it in quotes"),
        ("inner: dict[str, int]", "\n      inner:\n        a: 1\n        b: x\n", 8, "inner.b: expected a whole number"),
        ("file: SiteFile", "\n      file: none.pem\n", 6, "file: no such file: {folder}/none.pem"),
        ("file: SiteFile", "\n      file: .\n", 6, "is a folder; expected a file"),
        ("n: int | list[str]", "\n      n: {a: 1}\n", 6, "n: expected a"),
    ],
)  # fmt: skip
def test_wrong_settings_have_their_lines(
    tmp_path: Path, model: str, settings: str, line: int, hint: str
) -> None:
    (tmp_path / "p.py").write_text(f"{HEAD}\nclass Config(BaseModel):\n    {model}\n{GOOD}")
    found = problems(tmp_path, f"  - ./p.py: {settings}\n")
    assert found[0].startswith(f"{tmp_path}/gateway.yaml:{line}: plugins[0]")
    assert hint.format(folder=tmp_path) in found[0]


def test_unknown_keys_are_refused_at_every_depth_unless_the_model_says_otherwise(
    tmp_path: Path,
) -> None:
    models = """
class Key(BaseModel):
    domain: str
class Free(BaseModel):
    model_config = ConfigDict(extra="ignore")
class Config(BaseModel):
    keys: list[Key]
    free: Free | None = None
"""
    (tmp_path / "p.py").write_text(HEAD + models + GOOD)
    settings = "      keys:\n        - {domain: a}\n        - domain: b\n          doman: c\n"
    (found,) = problems(tmp_path, f"  - ./p.py:\n{settings}")
    assert found.startswith(f"{tmp_path}/gateway.yaml:9: ")
    assert 'keys[1].doman: unknown key; did you mean "domain"?' in found
    load(tmp_path, "  - ./p.py: {keys: [], free: {x: 1}}\n")


def test_aliases_and_root_models_are_known_keys(tmp_path: Path) -> None:
    models = """
from pydantic import AliasChoices, AliasPath, Field, RootModel
class Key(BaseModel):
    domain: str
class Keys(RootModel[dict[str, Key]]): ...
class Config(BaseModel):
    keys: Keys
    old: int = Field(1, validation_alias="former")
    many: int = Field(1, validation_alias=AliasChoices("one", "two"))
    deep: int = Field(1, validation_alias=AliasPath("outer", "inner"))
"""
    (tmp_path / "p.py").write_text(HEAD + models + GOOD)
    (plugin,) = load(
        tmp_path, "  - ./p.py: {keys: {a: {domain: x}}, former: 2, two: 3, outer: {inner: 4}}\n"
    )
    config = plugin.instance.config
    assert (config.keys.root["a"].domain, config.old, config.many, config.deep) == ("x", 2, 3, 4)
    (found,) = problems(tmp_path, "  - ./p.py: {keys: {a: {domain: x, doman: y}}}\n")
    assert 'keys.a.doman: unknown key; did you mean "domain"?' in found
    (found,) = problems(tmp_path, "  - ./p.py: {keys: {}, old: 3}\n")
    assert "old: unknown key; known keys are keys, former, one, two, outer" in found


def test_a_site_folder_stays_clean_and_edits_are_seen(tmp_path: Path) -> None:
    for text in ("aaaa", "bbbb"):
        (tmp_path / "p.py").write_text(HEAD.replace('"x"', f'"{text}"') + GOOD)
        (plugin,) = load(tmp_path, "  - ./p.py\n")
        assert plugin.instance.config.text == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gateway.yaml", "p.py"]


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    models = """
class Config(BaseModel):
    password: SecretStr
    port: int = 1
"""
    broken = "    def __init__(self, config):\n        raise ValueError(f'x {config.password.get_secret_value()}')\n"
    (tmp_path / "p.py").write_text(HEAD + models + GOOD + broken)
    for settings in ("{password: [hunter2]}", "{pasword: hunter2}", "{password: a, port: hunter2}"):
        assert "hunter2" not in "".join(problems(tmp_path, f"  - ./p.py: {settings}\n"))
    (found,) = problems(tmp_path, "  - ./p.py: {password: hunter2}\n")
    assert "ValueError: x **********" in found


def test_validators_that_raise_something_else(tmp_path: Path) -> None:
    models = """
class Config(BaseModel):
    file: str
    @field_validator("file")
    @classmethod
    def check(cls, value: str) -> str:
        return open(value).read()
"""
    (tmp_path / "p.py").write_text(HEAD + models + GOOD)
    (found,) = problems(tmp_path, "  - ./p.py: {file: /not/there}\n")
    assert "its settings cannot be checked: " in found
    assert "p.py:14: FileNotFoundError" in found


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(HEAD + "\nclass Config(BaseModel):\n    file: SitePath\n" + GOOD)
    (plugin, absolute) = load(tmp_path, "  - ./p.py: {file: a/b}\n  - ./p.py: {file: /c}\n")
    assert plugin.instance.config.file == tmp_path / "a/b"
    assert absolute.instance.config.file == Path("/c")


def test_problems_of_all_plugins_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(HEAD + hooks("@hookimpl\ndef mesage(self): ..."))
    found = problems(tmp_path, "  - nowhere\n  - ./p.py: {text: 3}\n  - ./q.py\n")
    assert [text.split(":")[1] for text in found] == ["5", "6", "6", "7"]


def install(folder: Path, name: str, points: dict[str, str]) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[gateway.plugins]\n{lines}")


def test_installed_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site_demo.py").write_text(HEAD + GOOD)
    (tmp_path / "site_broken.py").write_text("raise KeyError('gone')\n")
    install(
        tmp_path,
        "site-demo",
        {
            "demo_footer": "site_demo:Footer",
            "demo_config": "site_demo:Config",
            "demo_none": "site_demo:Missing",
            "demo_broken": "site_broken:Footer",
            "demo_twice": "site_demo:Footer",
        },
    )
    install(tmp_path, "site-other", {"demo_twice": "site_demo:Config"})
    monkeypatch.syspath_prepend(tmp_path)
    (plugin,) = load(tmp_path, "  - demo_footer: {text: a}\n")
    assert (plugin.entry.name, plugin.instance.config.text) == ("demo_footer", "a")
    for reference, hint in (
        ("demo_foter", 'no such plugin; did you mean "demo_footer"?; installed are '),
        ("zzzzz", "others come as Python packages, or as a file: ./name.py"),
        ("demo_config", "site_demo:Config is no plugin; expected: class Config(Plugin[Config])"),
        ("demo_none", "cannot be imported (site_demo:Missing): "),
        ("demo_broken", "site_broken.py:1: KeyError: 'gone'"),
        ("demo_twice", "several installed packages offer it (site_demo:Config, site_demo:Footer)"),
        ("./site_demo", "a path ends in .py, for example ./site_demo.py"),
        ("site_demo", "a path ends in .py, for example ./site_demo.py"),
    ):
        (found,) = problems(tmp_path, f"  - {reference}\n")
        assert found.startswith(f"{tmp_path}/gateway.yaml:5: plugins[0]")
        assert hint in found, found
    models = installed_models()
    assert "text" in models["demo_footer"].model_fields
    assert not {"demo_config", "demo_none", "demo_broken"} & set(models)


@pytest.mark.parametrize(
    ("hook", "when", "missing"),
    [
        ("connect", "{client: 192.0.2.1}", ""),
        ("connect", "{user: a}", "(user)"),
        ("helo", "{sender: a@b}", "(sender)"),
        ("auth", "{user: a}", "(user)"),
        ("auth", "{stream: mail}", "(sender, stream)"),
        ("mail", "{client: 192.0.2.1, user: a, sender_domain: b}", ""),
        ("mail", "{stream: mail}", ""),
        ("mail", "{recipient_domain: b}", "(recipient)"),
        ("mail", "{stream: bulk}", "(header)"),
        ("rcpt", "{recipient: a@b, sender: a@b}", ""),
        ("rcpt", "{header: {A: b}}", "(header)"),
        ("rcpt", "{stream: far}", "(header)"),
        ("rcpt", "{stream: default}", "(header)"),
        ("message", "{header: {A: b}, stream: default, recipient: a@b}", ""),
        ("admit", "{header: {A: b}}", ""),
    ],
)
def test_conditions_on_what_an_early_hook_cannot_know_are_refused(
    tmp_path: Path, hook: str, when: str, missing: str
) -> None:
    subject = {"connect": "client", "helo": "client", "auth": "login", "rcpt": "recipient"}
    argument = subject.get(hook, "delivery" if hook == "admit" else "message")
    (tmp_path / "p.py").write_text(HEAD + hooks(f"@hookimpl\ndef {hook}(self, {argument}): ..."))
    streams = (
        "{mail: {when: {sender: a@b}}, bulk: {when: {header: {Precedence: bulk}}}, "
        "far: {when: {recipient_domain: b}}}"
    )
    plugins = f"  - ./p.py:\n      when: {when}\n"
    if not missing:
        assert load(tmp_path, plugins, streams)[0].condition is not None
        return
    (found,) = problems(tmp_path, plugins, streams)
    assert found.startswith(f"{tmp_path}/gateway.yaml:6: ")
    assert f"the plugin has the hook {hook}, which runs before this is known {missing}" in found


def test_hooks_that_are_not_used_are_left_out(tmp_path: Path) -> None:
    body = """
unused = ("message",)

@hookimpl
def message(self, message):
    return None

@hookimpl
def mail(self, message):
    return None
"""
    (plugin,) = load_plugins(configure(tmp_path, f"plugins: [{write_plugin(tmp_path, 'p', body)}]"))
    assert set(plugin.hooks) == {"mail"}
    wrong = write_plugin(tmp_path, "q", body.replace('("message",)', '("seal",)'))
    with pytest.raises(ConfigError, match="unused names seal, and it has no such hook"):
        load_plugins(configure(tmp_path, f"plugins: [{wrong}]"))
