"""`gateway plugin check`: what people and programs get to see."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.plugin_check import check
from gateway.hooks.reference import GROUP
from gateway.testing.conformance import plugins_of

FOOTER = '''
from pathlib import Path
from pydantic import BaseModel, ConfigDict, Field
from gateway.hooks import Message, Plugin, SiteFile, hookimpl

class FooterConfig(BaseModel):
    """What is added."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(description="The footer.")
    file: SiteFile | None = Field(None, description="Another footer.")

class Footer(Plugin[FooterConfig]):
    """Adds a footer to the plain text."""

    api = "1.0"
    changes = ("text/plain",)

    @hookimpl
    def message(self, message: Message) -> None:
        for part in message.text_parts("text/plain"):
            if part.editable:
                part.text += self.config.text
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/footer.py").write_text(FOOTER)
    return tmp_path


def run(*arguments: str, only: str = "declarations") -> Result:
    return CliRunner().invoke(check, [*arguments, *(("--only", only) if only else ())])


def test_a_good_plugin(folder: Path) -> None:
    result = run("./site/footer.py", "--config", "text: Hi", "--budget", "1s", only="")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "./site/footer.py"
    names = ["loads", "configuration", "declarations", "start-and-stop", "messages", "time"]
    names += ["hostile-input", "event-loop", "failures", "leaks", "files"]
    assert [line.split()[:2] for line in lines[1:-1]] == [["passed", name] for name in names]
    assert lines[-1].startswith("./site/footer.py: good, ")
    assert "\x1b" not in result.output


def test_a_bad_plugin(folder: Path) -> None:
    path = folder / "site/footer.py"
    path.write_text(path.read_text().replace('("text/plain",)', '("nonsense",)'))
    result = run("./site/footer.py:Footer", "--config", "text: Hi")
    assert result.exit_code == 1
    assert "  failed   declarations" in result.output
    assert "    error: changes has 'nonsense', and there are: sender, " in result.output
    assert result.output.splitlines()[-1].startswith("./site/footer.py:Footer: not good, 1 error, ")


def test_warnings_fail_it_only_if_that_is_asked_for(folder: Path) -> None:
    path = folder / "site/footer.py"
    path.write_text(path.read_text().replace('    api = "1.0"\n', ""))
    result = run("./site/footer.py", "--config", "text: Hi")
    assert result.exit_code == 0
    assert "    warning: Footer does not say which plugin API it is made for" in result.output
    assert ": good, 1 warning, " in result.output
    assert run("./site/footer.py", "--config", "text: Hi", "--strict").exit_code == 1


def test_json(folder: Path) -> None:
    result = run("./site/footer.py", "--config", "text: Hi", "--json", only="messages")
    data = json.loads(result.output)
    assert data["good"] is True
    (plugin,) = data["plugins"]
    assert plugin["hooks"] == ["message"]
    assert [one["check"] for one in plugin["results"]] == ["loads", "start-and-stop", "messages"]


def test_settings_come_from_a_file_that_paths_start_from(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other/settings.yaml").write_text("text: Hi\nfile: footer.txt\n")
    result = run("./site/footer.py", "--config", "@other/settings.yaml")
    assert result.exit_code == 1
    assert "other/settings.yaml:2: file: no such file: " in result.output
    (folder / "other/footer.txt").write_text("Hi")
    assert run("./site/footer.py", "--config", "@other/settings.yaml").exit_code == 0


def test_settings_come_from_pyproject(folder: Path) -> None:
    result = run("./site/footer.py")
    assert result.exit_code == 1
    assert "text: missing" in result.output
    assert "pyproject.toml [tool.mail-gateway.check.footer]" in result.output
    (folder / "pyproject.toml").write_text('[tool.mail-gateway.check.footer]\ntext = "Hi"\n')
    assert run("./site/footer.py").exit_code == 0
    (folder / "pyproject.toml").write_text("[tool.mail-gateway.check.footer]\ntxt = 1\n")
    assert "txt: unknown key; did you mean" in run("./site/footer.py").output
    (folder / "pyproject.toml").write_text("[")
    assert "    error: pyproject.toml: " in run("./site/footer.py").output


def test_settings_come_from_a_site(folder: Path) -> None:
    (folder / "gateway.yaml").write_text(
        "hostname: gw.example.org\nlisten: [{address: '127.0.0.1:2525'}]\n"
        "plugins:\n  - report: {}\n  - ./site/footer.py:\n      text: Hi\n"
        "      when: {sender: nobody@example.net}\n"
    )
    assert run("./site/footer.py", "-c", "gateway.yaml").exit_code == 0
    result = run("footer", "-c", "gateway.yaml", only="messages")
    assert result.exit_code == 0
    assert "changes: text/plain" in result.output
    result = run("dkim", "-c", "gateway.yaml")
    assert result.exit_code == 1
    assert "has no entry for dkim; its plugins are: report, footer" in result.output
    assert "no such file" in run("dkim", "-c", "missing.yaml").output
    assert not (folder / "var").exists()


def test_a_mistake_in_the_command_is_one_line(folder: Path) -> None:
    for arguments, words in (
        (["x", "--budget", "0"], "must be longer than nothing, for example 10ms"),
        (["x", "--budget", "soon"], "expected a duration"),
        (
            ["x", "--only", "mesages"],
            "there is no check mesages; checks are loads, configuration, ",
        ),
        (["x", "--config", "a: 1", "-c", "gateway.yaml"], "--config and -c both give settings"),
    ):
        result = CliRunner().invoke(check, arguments)
        assert result.exit_code == 2
        assert words in result.output
    for arguments, words in (
        (["x", "--config", "@missing.yaml"], "missing.yaml: No such file"),
        (["x", "--corpus", "missing"], "missing: no such folder"),
        (["nothing-like-it"], "no such plugin; installed are "),
        (["./site/footer.py", "--config", "[1"], "a bracket is not closed"),
    ):
        result = CliRunner().invoke(check, arguments)
        assert result.exit_code == 1
        assert words in result.output


def test_further_messages_are_tried(folder: Path) -> None:
    (folder / "mail/inner").mkdir(parents=True)
    (folder / "mail/inner/one.eml").write_bytes(b"Subject: Hi\n\nHello\n")
    (folder / "mail/ignored.txt").write_bytes(b"")
    arguments = ("./site/footer.py", "--config", "text: Hi", "--json")
    notes = []
    for further in ((), ("--corpus", "mail")):
        data = json.loads(run(*arguments, *further, only="messages").output)
        notes.append(data["plugins"][0]["results"][-1]["note"])
    first, second = (int(note.split()[0]) for note in notes)
    assert second == first + 1


def test_a_package_means_all_its_plugins() -> None:
    installed = sorted(point.name for point in importlib.metadata.entry_points(group=GROUP))
    assert set(plugins_of("mail-gateway")) <= set(installed)
    assert {"dkim", "tracking"} <= set(plugins_of("mail-gateway"))
    assert plugins_of("dkim") == ["dkim"]
    assert plugins_of("./site/footer.py:Footer") == ["./site/footer.py:Footer"]
    # A package without plugins, and none at all: said by the check.
    assert plugins_of("click") == ["click"]
    assert plugins_of("no such package") == ["no such package"]


def test_a_terminal_gets_a_progress_bar(folder: Path) -> None:
    ours, theirs = pty.openpty()
    program = "from gateway.cli.plugin_check import check; check()"
    words = ["./site/footer.py", "--config", "text: Hi", "--only", "messages"]
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": path, "TERM": "xterm"},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                octets = os.read(ours, 4096)
            except OSError:  # it has closed its side
                break
            shown += octets
        assert process.stdout is not None
        output = process.stdout.read().decode()
    os.close(ours)
    assert process.returncode == 0, output
    assert b"checking ./site/footer.py" in shown
    assert b"messages" in shown
    assert "checking" not in output
