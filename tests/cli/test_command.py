"""`gateway check`, `chain`, `schema`, `user` and the commands of plugins."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from gateway import __version__
from gateway.cli.command import gateway
from gateway.cli.plugins import add_plugin_commands
from gateway.configuration.users import load_users
from tests.assembly import configure, write_plugin


def _run(*arguments: str | Path, stdin: str = "", status: int = 0) -> Result:
    result = CliRunner().invoke(gateway, [str(word) for word in arguments], input=stdin)
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def config(tmp_path: Path) -> Path:
    hook = "@hookimpl\nasync def message(self, message):\n    pass"
    other = "@hookimpl\ndef message(self, message):\n    pass\n@hookimpl\ndef stop(self):\n    pass"
    paths = [write_plugin(tmp_path, f"p{n}", body) for n, body in enumerate((hook, other))]
    text = f"""
plugins:
  - {paths[1]}
  - {paths[0]}: {{timeout: 3s, on_error: skip, when: {{sender: 'a@*'}}}}
"""
    configure(tmp_path, text)
    return tmp_path / "gateway.yaml"


def test_help_names_every_command() -> None:
    text = _run("--help").output
    for name in ("chain", "check", "queue", "run", "schema", "user"):
        assert f"\n  {name} " in text
    assert _run("--version").output == f"gateway, version {__version__}\n"


def test_check(config: Path) -> None:
    result = _run("check", "-c", config)
    assert result.output == f"{config}: good: 2 plugins, relay to the MX of each domain\n"
    text = config.read_text().replace(", allow: [127.0.0.0/8]", "")
    config.write_text(text + "relay: {via: ['mx.example.com:25']}\n")
    result = _run("check", "-c", config)
    assert "relay to mx.example.com:25" in result.stdout
    assert "nobody may relay" in result.stderr


def test_check_names_file_and_line_of_every_problem(config: Path) -> None:
    config.write_text(config.read_text() + "limits: {hops: 0}\nqueues: 3\n")
    result = _run("check", "-c", config, status=2)
    lines = config.read_text().splitlines()
    number = {line.split(":")[0]: place for place, line in enumerate(lines, 1)}
    assert f"{config}:{number['limits']}: limits.hops: " in result.output
    assert f"{config}:{number['queues']}: queues: unknown key" in result.output
    assert "no such file" in _run("check", "-c", config.parent / "none.yaml", status=2).output


def test_check_reads_the_users(config: Path) -> None:
    users = config.parent / "users.yaml"
    text = config.read_text().replace("allow:", "plaintext_auth: true, users: users.yaml, allow:")
    config.write_text(text)
    users.write_text("users: {shop: {password: plain}}")
    users.chmod(0o600)
    assert f"{users}:1: users.shop.password" in _run("check", "-c", config, status=2).output


def test_chain(config: Path) -> None:
    lines = _run("chain", "-c", config).output.splitlines()
    assert lines == [
        "stop      p1  (timeout 10 s, on_error tempfail)",
        "message   p1  (timeout 10 s, on_error tempfail)",
        '          p0  (timeout 3 s, on_error skip, when {"sender": ["a@*"]})',
    ]
    stages = json.loads(_run("chain", "-c", config, "--json").output)
    assert [step["plugin"] for step in stages["message"]] == ["p1", "p0"]
    assert [step["async"] for step in stages["message"]] == [False, True]
    assert stages["seal"] == []
    configure(config.parent)
    assert "no plugins: mail passes as it is" in _run("chain", "-c", config).output


def test_schema(tmp_path: Path) -> None:
    schema = json.loads(_run("schema").output)
    assert "listen" in schema["properties"]
    _run("schema", "-o", tmp_path / "schema.json")
    assert json.loads((tmp_path / "schema.json").read_text()) == schema


def test_user_add(tmp_path: Path) -> None:
    path = tmp_path / "users.yaml"
    said = _run("user", "add", "shop", "-f", path, "--password-stdin", stdin="one\n").output
    assert said == f"{path}: shop added\n"
    assert path.stat().st_mode & 0o777 == 0o600
    _run("user", "add", "crm", "-f", path, stdin="two\ntwo\n")
    said = _run("user", "add", "shop", "-f", path, "--password-stdin", stdin="three\n").output
    assert said == f"{path}: shop changed\n"
    users = load_users(path)
    assert users.verify("shop", "three")
    assert users.verify("crm", "two")
    assert not users.verify("shop", "one")
    assert "three" not in path.read_text()
    assert list(yaml.safe_load(path.read_text())["users"]) == ["shop", "crm"]


def test_user_add_refuses(tmp_path: Path) -> None:
    path = tmp_path / "users.yaml"
    _run("user", "add", "shop", "-f", path, "--password-stdin", stdin="\n", status=1)
    assert not path.exists()
    _run("user", "add", "shop", "-f", path, stdin="one\ntwo\n", status=1)
    path.write_text("plugins: []\n")
    path.chmod(0o600)
    _run("user", "add", "shop", "-f", path, "--password-stdin", stdin="x\n", status=2)
    assert path.read_text() == "plugins: []\n"
    missing = tmp_path / "none" / "users.yaml"
    said = _run("user", "add", "shop", "-f", missing, "--password-stdin", stdin="x\n", status=1)
    assert f"{missing}: No such file" in said.output


COMMANDS = """
@hookimpl
def commands(self, context):
    import click
    return click.Command("any", callback=lambda: click.echo("spoken"))
"""


def test_commands_of_plugins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bodies = {
        "speaking": COMMANDS,
        "silent": COMMANDS.replace("return", "return None and"),
        "broken": COMMANDS.replace("import click", "raise RuntimeError('broken')"),
    }
    paths = [write_plugin(tmp_path, name, body) for name, body in bodies.items()]
    configure(tmp_path, f"plugins: [{', '.join(paths)}]")
    arguments = ["-c", str(tmp_path / "gateway.yaml")]
    group = click.Group("gateway", {"check": click.Command("check")})
    add_plugin_commands(group, [*arguments, "check"])
    assert set(group.commands) == {"check"}
    add_plugin_commands(group, [*arguments, "speaking"])
    assert set(group.commands) == {"check", "speaking"}
    assert CliRunner().invoke(group, ["speaking"]).output == "spoken\n"
    assert "plugin broken failed in commands" in caplog.text


def test_the_list_of_commands_has_those_of_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_plugin(tmp_path, name, COMMANDS) for name in ("speaking", "check")]
    configure(tmp_path, f"plugins: [{', '.join(paths)}]")
    group = click.Group("gateway")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    add_plugin_commands(group, ["--help"])
    assert not group.commands  # there is no gateway.yaml here, and that is fine
    add_plugin_commands(group, ["-c", str(tmp_path / "gateway.yaml"), "--help"])
    assert "speaking" in CliRunner().invoke(group, ["--help"]).output
    own = click.Command("check")
    group = click.Group("gateway", {"check": own})
    add_plugin_commands(group, ["-c", str(tmp_path / "gateway.yaml")])
    assert group.commands["check"] is own


def test_a_command_of_a_plugin_needs_a_good_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gateway.yaml"
    with pytest.raises(SystemExit) as end:
        add_plugin_commands(click.Group("gateway"), [f"--config={path}", "unknown"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert '"unknown" is none of its own commands' in said
    assert str(path) in said


HTTP = """
@hookimpl
def http(self):
    return None
"""


def test_check_tells_of_pages_that_nobody_reaches(tmp_path: Path) -> None:
    reference = write_plugin(tmp_path, "pages", HTTP)
    path = configure(tmp_path, f"plugins: [{reference}]").path
    assert "nobody reaches the pages of pages" in _run("check", "-c", path).stderr
    with path.open("a") as file:
        file.write("http: {address: '127.0.0.1:0'}\n")
    assert "nobody reaches" not in _run("check", "-c", path).stderr
