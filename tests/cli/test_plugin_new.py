"""`gateway plugin new`: what it writes can be installed, tested and published as it is."""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from gateway import __version__, hooks
from gateway.cli.command import gateway
from gateway.configuration.config import load_config
from gateway.hooks import API_VERSION
from gateway.hooks.load import load_plugins
from gateway.hooks.spec import STAGES
from gateway.scaffold.files import Draft, one_line, package, site_file
from gateway.scaffold.name import PluginName
from tests.cli.new_package import succeeds, write_package

SHORTEST, LONGEST = "a", "a-name-as-long-as-it-can-be"


def _new(*arguments: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(gateway, ["plugin", "new", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, str(tmp_path / "gitconfig"))
    return tmp_path


# Names.


def test_the_names_that_follow_from_a_name() -> None:
    name = PluginName("legal-footer")
    assert name.distribution == "mail-gateway-legal-footer"
    assert name.module == "mail_gateway_legal_footer"
    assert name.file == "legal_footer.py"
    assert name.header == "Legal-Footer"
    assert name.class_name(()) == "LegalFooter"


@pytest.mark.parametrize(
    "name", [SHORTEST, LONGEST, "s3", "s-3", "none", "plugin2", "mail-gateway"]
)
def test_good_names(name: str) -> None:
    assert PluginName(name).class_name(()).isidentifier()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Legal_Footer", 'did you mean "legal-footer"?'),
        ("LegalFooter", 'did you mean "legal-footer"?'),
        ("legal footer", 'did you mean "legal-footer"?'),
        ("-legal-", 'did you mean "legal"?'),
        ("legal--footer", 'did you mean "legal-footer"?'),
        ("法的表示", "small letters, digits and hyphens, such as legal-footer"),
        ("2fa", "small letters, digits and hyphens"),
        ("", "small letters, digits and hyphens"),
        ("../x", "small letters, digits and hyphens"),
        ("a/b", "small letters, digits and hyphens"),
        ("footer\n", 'did you mean "footer"?'),
        ("mail-gateway-footer", 'write "footer"'),
        (f"{LONGEST}r", "28 characters are too many; at most 27"),
    ],
)
def test_bad_names_are_refused_with_a_better_one(folder: Path, name: str, hint: str) -> None:
    result = _new("--", name, status=1)
    assert result.stderr.startswith(f'gateway: no plugin can be named "{name}": ')
    assert hint in result.stderr
    assert _files(folder) == []


@given(st.text(max_size=30))
def test_a_name_is_good_or_refused(text: str) -> None:
    try:
        name = PluginName(text)
    except ValueError:
        return
    assert name.module.isidentifier()
    assert name.module.isascii()
    assert name.class_name(()).isidentifier()


def test_names_that_stand_for_something_else_are_refused(folder: Path) -> None:
    assert 'a plugin "dkim" is installed already (mail-gateway)' in _new("dkim", status=1).stderr
    assert '"queue" is a command of gateway itself' in _new("queue", status=1).stderr
    assert '"plugin" is a command of gateway itself' in _new("plugin", "--file", status=1).stderr
    assert _files(folder) == []
    _new("--file", "dkim")  # a path is not taken for a name


@pytest.mark.parametrize(
    ("name", "class_name"),
    [("message", "MessagePlugin"), ("none", "NonePlugin"), ("field", "FieldPlugin"), ("x", "X")],
)
def test_a_class_is_not_named_like_what_it_imports(name: str, class_name: str) -> None:
    assert Draft(PluginName(name)).class_name == class_name


def test_public_names_are_not_taken_for_classes() -> None:
    for public in hooks.__all__:
        if public.isalpha() and public[0].isupper():
            assert Draft(PluginName(public.lower())).class_name != public


# What is written.


def test_a_package(folder: Path) -> None:
    (folder / "gitconfig").write_text('[user]\n name = "Ada \\"A\\" L"\n email = ada@example.com\n')
    result = _new("legal-footer", "--description", "Adds what the law asks for")
    root = folder / "mail-gateway-legal-footer"
    assert _files(root) == [
        ".github/workflows/test.yaml",
        ".gitignore",
        "CHANGELOG.md",
        "README.md",
        "pyproject.toml",
        "src/mail_gateway_legal_footer/__init__.py",
        "src/mail_gateway_legal_footer/py.typed",
        "tests/test_legal_footer.py",
    ]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert project["project"]["name"] == "mail-gateway-legal-footer"
    assert project["project"]["description"] == "Adds what the law asks for."
    assert project["project"]["authors"] == [{"name": 'Ada "A" L', "email": "ada@example.com"}]
    assert f"mail-gateway>={__version__}" in project["project"]["dependencies"]
    assert project["project"]["entry-points"]["gateway.plugins"] == {
        "legal-footer": "mail_gateway_legal_footer:LegalFooter"
    }
    source = (root / "src/mail_gateway_legal_footer/__init__.py").read_text()
    assert '    """Adds what the law asks for."""\n' in source
    assert f'    api = "{API_VERSION}"\n    changes = ("header:X-Legal-Footer",)\n' in source
    assert "gateway plugin check legal-footer" in (root / ".github/workflows/test.yaml").read_text()
    assert result.output.endswith(
        "\nNext:\n"
        "  cd mail-gateway-legal-footer\n"
        "  pip install -e '.[dev]'\n"
        "  pytest\n"
        "  gateway plugin check legal-footer\n"
        "\nIn gateway.yaml:\n"
        "  plugins:\n"
        "    - legal-footer\n"
    )


def test_without_git_there_is_no_author(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    _new("legal-footer")
    text = (folder / "mail-gateway-legal-footer/pyproject.toml").read_text()
    assert "authors" not in tomllib.loads(text)["project"]


def test_nothing_of_the_template_is_left() -> None:
    texts = package(Draft(PluginName("zoo"), list(STAGES), "Feeds them."))
    for path, text in texts.items():
        assert not re.search(r"new.?plugin|scaffold|A plugin for mail-gateway", text, re.I), path
        assert not re.search(r"new.?plugin", path)


def test_a_file(folder: Path) -> None:
    result = _new("--file", "legal-footer")
    assert _files(folder) == ["site/legal_footer.py"]
    assert result.output == (
        "wrote site/legal_footer.py\n"
        "\nNext:\n"
        "  gateway plugin check ./site/legal_footer.py\n"
        "\nIn gateway.yaml:\n"
        "  plugins:\n"
        "    - ./site/legal_footer.py\n"
    )
    (folder / "gateway.yaml").write_text(
        "listen: [{address: '127.0.0.1:2525'}]\nplugins:\n  - ./site/legal_footer.py\n"
    )
    (plugin,) = load_plugins(load_config(folder / "gateway.yaml"))
    assert list(plugin.hooks) == ["message"]


def test_another_folder(folder: Path) -> None:
    _new("--file", "footer", "--folder", folder / "etc")
    (folder / "empty").mkdir()
    result = _new("footer", "--folder", "empty")
    assert "\n  cd empty\n" in result.output
    assert _files(folder / "etc") == ["footer.py"]
    assert "pyproject.toml" in _files(folder / "empty")


def test_nothing_is_overwritten(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine/README.md").write_text("mine")
    result = _new("footer", "--folder", "mine", status=1)
    assert result.stderr == "gateway: mine is not empty; give another with --folder\n"
    (folder / "site").mkdir()
    (folder / "site/footer.py").write_text("mine")
    result = _new("--file", "footer", status=1)
    assert result.stderr == "gateway: site/footer.py is there already\n"
    (folder / "taken").write_text("mine")
    assert "taken" in _new("footer", "--folder", "taken", status=1).stderr
    assert _files(folder) == ["mine/README.md", "site/footer.py", "taken"]
    assert {path.read_text() for path in folder.rglob("*") if path.is_file()} == {"mine"}


def test_a_dangling_link_is_not_written_through(folder: Path) -> None:
    (folder / "site").mkdir()
    (folder / "site/footer.py").symlink_to(folder / "elsewhere")
    assert "is there already" in _new("--file", "footer", status=1).stderr
    assert not (folder / "elsewhere").exists()


# Hooks and descriptions.


def test_hooks(folder: Path) -> None:
    _new("--file", "footer", "--hooks", " observe,claim ,observe")
    tree = ast.parse((folder / "site/footer.py").read_text())
    methods = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert methods == ["claim", "receive", "observe"]


@pytest.mark.parametrize(
    ("hooks_given", "hint"),
    [
        ("mesage", 'there is no hook "mesage"; did you mean "message"?'),
        ("zzz", 'there is no hook "zzz"; hooks are start, stop, connect'),
        ("", "a plugin needs a hook: start, stop"),
    ],
)
def test_bad_hooks(folder: Path, hooks_given: str, hint: str) -> None:
    assert hint in _new("footer", "--hooks", hooks_given, status=2).stderr
    assert _files(folder) == []


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Adds a footer", "Adds a footer."),
        ("  Adds a footer. ", "Adds a footer."),
        ("Why not?", "Why not?"),
        ("本文に署名を足す", "本文に署名を足す。"),
        ("本文に署名を足します。", "本文に署名を足します。"),
        ("x" * 87, "x" * 87 + "."),
    ],
)
def test_descriptions(text: str, written: str) -> None:
    assert one_line(text) == written


@pytest.mark.parametrize("text", ["", " ", "a\nb", 'say "x"', "a\\b", "x" * 88, "あ" * 45, "a\x00"])
def test_bad_descriptions(folder: Path, text: str) -> None:
    with pytest.raises(ValueError):
        one_line(text)
    if "\x00" not in text:
        assert "--description" in _new("footer", "--description", text, status=2).stderr


# What is written is good.


def _drafts() -> Iterator[Draft]:
    for number, hook in enumerate(STAGES):
        needed = {"claim": ["claim", "receive"], "receive": ["claim", "receive"]}.get(hook, [hook])
        yield Draft(PluginName(f"only-{hook}-{number}"), needed)
    yield Draft(PluginName("message-and-more"), ["rcpt", "message", "observe", "http"])
    yield Draft(PluginName(SHORTEST), list(STAGES), "本文に署名を足す。")
    yield Draft(PluginName(LONGEST), list(STAGES), "x" * 88)
    yield Draft(PluginName("none"))


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packages of every kind."""
    folder = tmp_path_factory.mktemp("packages")
    for draft in _drafts():
        write_package(folder / draft.name.name, draft)
    return folder


def test_each_package_has_exactly_its_hooks(packages: Path) -> None:
    for draft in _drafts():
        name = draft.name
        tree = ast.parse((packages / f"{name.name}/src/{name.module}/__init__.py").read_text())
        marked = [
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
            if "hookimpl" in [ast.unparse(one) for one in node.decorator_list]
        ]
        assert marked == list(draft.hooks)


def test_ruff_likes_every_package(packages: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    succeeds(ruff, "check", "--no-cache", ".", cwd=packages)
    succeeds(ruff, "format", "--no-cache", "--check", ".", cwd=packages)


def test_mypy_likes_every_package(packages: Path) -> None:
    sources = [str(path) for path in sorted(packages.glob("*/src/*/__init__.py"))]
    tests = [str(path) for path in sorted(packages.glob("*/tests/*.py"))]
    settings = packages / SHORTEST / "pyproject.toml"
    path = os.pathsep.join(str(folder) for folder in packages.glob("*/src"))
    env = os.environ | {"MYPYPATH": path}
    output = succeeds(
        *(
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            settings,
            "--cache-dir",
            packages / "cache",
        ),
        *(sources + tests),
        cwd=packages,
        env=env,
    )
    assert "no issues found" in output


def test_the_workflow_and_the_readme_are_whole(packages: Path) -> None:
    for draft in _drafts():
        name = draft.name.name
        workflow = yaml.safe_load((packages / name / ".github/workflows/test.yaml").read_text())
        runs = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
        assert runs[-2:] == ["pytest", f"gateway plugin check {name}"]
        readme = (packages / name / "README.md").read_text()
        (block,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
        assert yaml.safe_load(block)["plugins"] == [name]
        has_keys = "Field" in (packages / f"{name}/src/{draft.name.module}/__init__.py").read_text()
        assert ("Nothing can be set." in readme) != has_keys
        assert ('| `value` | `"yes"` | ' in readme) == bool({"message", "seal"} & set(draft.hooks))
        assert (f"| `address` | `{name}@example.com` | " in readme) == ("claim" in draft.hooks)


def test_every_hook_of_the_template_is_as_its_specification_says(tmp_path: Path) -> None:
    (text,) = site_file(Draft(PluginName("all"), list(STAGES))).values()
    (tmp_path / "all.py").write_text(text)
    (tmp_path / "gateway.yaml").write_text(
        "listen: [{address: '127.0.0.1:2525'}]\nplugins: [./all.py]\n"
    )
    (plugin,) = load_plugins(load_config(tmp_path / "gateway.yaml"))
    assert list(plugin.hooks) == list(STAGES)
