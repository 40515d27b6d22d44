"""The example packages, as their users have them: built, installed and running."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import smtplib
import sqlite3
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import NextHop
from tests.conftest import ROOT, DebianProgram, MakeOnce
from tests.e2e.conftest import free_port, until
from tests.plugins.personalization_databases import mariadb, postgresql

PACKAGES = ROOT / "examples/packages"
NAMES = ("legal-footer", "event-database")
SECONDS = 300.0
"""For what takes seconds, on a machine that has other things to do."""

pytestmark = pytest.mark.timeout(2 * SECONDS)

_YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (gateway event-database .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the gateway and both packages, installed from wheels.

    Attributes:
        folder: of the environment.
        packages: the sources of the packages, each in a folder by its name.
    """

    folder: Path
    packages: Path

    def run(
        self,
        *command: str,
        folder: Path,
        status: int = 0,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs one of its programs to its end."""
        done = subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            cwd=folder,
            env={**self.variables(), **(variables or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == status, done.stdout[-8000:] + done.stderr[-8000:]
        return done

    def package(self, name: str) -> Path:
        """The sources of a package."""
        return self.packages / f"mail-gateway-{name}"

    @staticmethod
    def variables() -> dict[str, str]:
        """The environment of its processes: nothing of this one's Python is found by accident."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return kept | {"PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="session")
def environment(make_once: MakeOnce, gateway_wheel: Path) -> Environment:
    """Built and installed without any network: dependencies are those of this environment."""

    def build(folder: Path) -> None:
        sources, wheels = folder / "sources", folder / "wheels"
        ignored = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis", "dist", "build")
        shutil.copytree(PACKAGES, sources, ignore=ignored)
        for name in NAMES:
            source = sources / f"mail-gateway-{name}"
            _pip("wheel", "--no-build-isolation", f"--wheel-dir={wheels}", str(source))
        built = [gateway_wheel, *wheels.glob("*.whl")]
        assert len(built) == 3
        venv.create(folder / "venv", symlinks=True)
        site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder / "venv")}))
        (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        _pip(f"--python={folder}/venv/bin/python", "install", *map(str, built))

    folder = make_once("packages", build)
    return Environment(folder / "venv", folder / "sources")


def _pip(*arguments: str) -> None:
    options = [one for one in arguments if one.startswith("--python=")]
    command, *rest = [one for one in arguments if one not in options]
    offline = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *options, command, *offline, *rest],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_installed_gateway_is_the_one_that_is_tested(environment: Environment) -> None:
    code = "import gateway, mail_gateway_legal_footer as f; print(gateway.__file__, f.__file__)"
    printed = environment.run("python", "-c", code, folder=environment.folder).stdout
    assert printed.count(str(environment.folder)) == 2


def test_the_wheels_have_what_belongs_into_them(environment: Environment) -> None:
    for name in NAMES:
        module = f"mail_gateway_{name.replace('-', '_')}"
        (info,) = environment.folder.rglob(f"{module}-*.dist-info")
        assert (info / "licenses/LICENSE").exists()
        assert f"gateway.plugins]\n{name} = {module}:" in (info / "entry_points.txt").read_text()
        files = {path.name for path in (info.parent / module).iterdir()}
        sources = {path.name for path in (environment.package(name) / "src" / module).iterdir()}
        assert files - {"__pycache__"} == sources
        assert "py.typed" in files


# Their own tests, and what their authors run.


def test_the_tests_of_the_footer_pass(environment: Environment) -> None:
    printed = _test(environment, "legal-footer")
    assert "skipped" not in printed


def test_the_tests_of_the_database_pass(
    environment: Environment, debian_program: DebianProgram
) -> None:
    with postgresql(debian_program) as one, mariadb(debian_program) as other:
        printed = _test(
            environment,
            "event-database",
            TEST_POSTGRESQL_URL=one.admin.render_as_string(hide_password=False),
            TEST_MARIADB_URL=other.admin.render_as_string(hide_password=False),
        )
    assert "skipped" not in printed


def test_the_tests_of_the_database_pass_without_servers(environment: Environment) -> None:
    assert "skipped" in _test(environment, "event-database")


def _test(environment: Environment, name: str, **variables: str) -> str:
    # Other plugins of pytest are here by accident: authors need not have them.
    others = ("asyncio", "xdist", "timeout", "anyio")
    without = [word for other in others for word in ("-p", f"no:{other}")]
    printed = environment.run(
        *("python", "-m", "pytest", "-q", *without),
        folder=environment.package(name),
        variables=variables,
    ).stdout
    assert re.search(r"^\d\d+ passed", printed, re.MULTILINE), printed
    return printed


@pytest.mark.parametrize("name", NAMES)
def test_the_code_is_as_it_should_be(environment: Environment, name: str) -> None:
    folder = environment.package(name)
    environment.run("python", "-m", "ruff", "check", "--no-cache", ".", folder=folder)
    environment.run("python", "-m", "ruff", "format", "--no-cache", "--check", ".", folder=folder)
    environment.run("python", "-m", "mypy", folder=folder)


@pytest.mark.parametrize("name", NAMES)
def test_what_authors_run_is_what_their_continuous_integration_runs(name: str) -> None:
    folder = PACKAGES / f"mail-gateway-{name}"
    steps = re.findall(r"- run: (.*)", (folder / ".github/workflows/ci.yml").read_text())
    readme = (folder / "README.md").read_text()
    development = readme[readme.index("## Development") :]
    shown = [part for line in development.splitlines() for part in line.split(" && ")]
    assert len(steps) == 6
    assert set(steps) <= set(shown)


@pytest.mark.parametrize("name", NAMES)
def test_the_package_says_its_version_everywhere(name: str) -> None:
    folder = PACKAGES / f"mail-gateway-{name}"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == f"mail-gateway-{name}"
    versions = re.findall(r"^## (\S+)$", (folder / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == project["version"]


# What the gateway says of them.


def test_the_gateway_lists_them(environment: Environment) -> None:
    folder = environment.package("legal-footer")
    listed = environment.run("gateway", "plugin", "list", folder=folder).stdout
    for name in NAMES:
        assert re.search(rf"\b{name}\b.*\b1\.0\.0\b", listed), listed


@pytest.mark.parametrize("name", NAMES)
def test_they_keep_to_the_rules_for_plugins(environment: Environment, name: str) -> None:
    folder = environment.package(name)
    workflow = (folder / ".github/workflows/ci.yml").read_text()
    (command,) = re.findall(r"- run: (gateway plugin check .*)", workflow)
    printed = environment.run(*command.split(), folder=folder).stdout
    assert f"{name}: good" in printed
    assert "skipped" not in printed


CONFIGURATIONS = [
    pytest.param(block, id=f"{name}-{number}")
    for name in NAMES
    for number, block in enumerate(
        _YAML.findall((PACKAGES / f"mail-gateway-{name}/README.md").read_text())
    )
]


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_the_configuration_in_a_readme_is_right(
    environment: Environment, text: str, tmp_path: Path
) -> None:
    (tmp_path / "gateway.yaml").write_text(text)
    environment.run("gateway", "check", folder=tmp_path)


def test_there_is_a_configuration_in_each_readme() -> None:
    assert len(CONFIGURATIONS) == 3


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_in_the_readme(environment: Environment, name: str) -> None:
    module = f"mail_gateway_{name.replace('-', '_')}"
    code = (
        f"import json, {module} as m; from gateway.hooks import Plugin\n"
        "plugin = next(v for v in vars(m).values() if isinstance(v, type) and v is not Plugin "
        "and issubclass(v, Plugin))\n"
        "print(json.dumps(plugin.config_model().model_json_schema()))"
    )
    schema = json.loads(environment.run("python", "-c", code, folder=environment.folder).stdout)
    readme = (environment.package(name) / "README.md").read_text()
    rows = set(re.findall(r"^\| `(?:\w+\.|\*\.)*(\w+)` \|", readme, re.MULTILINE))
    keys = {key for one in (schema, *schema["$defs"].values()) for key in one["properties"]}
    assert keys <= rows


# Both of them in a gateway that runs.


CONFIGURATION = """
hostname: gw.example.com
workers: 1
spool: {{path: spool, reserve: 1}}
listen: [{{address: '127.0.0.1:{port}', allow: [127.0.0.0/8]}}]
relay: {{via: ['{hop}']}}
plugins:
  - legal-footer:
      senders:
        shop.example.com:
          ja:
            name: 例示商店株式会社
            address: 東京都千代田区千代田1-1
            contact: [03-0000-0000]
            unsubscribe: https://shop.example.com/unsubscribe
  - event-database: {{}}
"""


async def test_a_gateway_adds_the_footer_and_writes_the_rows(
    environment: Environment, tmp_path: Path
) -> None:
    port = free_port()
    content = (
        "From: news@shop.example.com\r\nX-Campaign: 春\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=iso-2022-jp\r\n\r\nこんにちは\r\n"
    )
    async with NextHop() as hop:
        text = CONFIGURATION.format(port=port, hop=hop.address)
        (tmp_path / "gateway.yaml").write_text(text)
        with _running(environment, tmp_path):
            octets = content.replace("春", "spring").encode("iso-2022-jp")
            await asyncio.to_thread(_submit, port, octets)
            (message,) = await hop.wait(1, timeout=60)
            await asyncio.to_thread(
                until, lambda: "delivered" in _types(tmp_path) or None, "the row"
            )
    before, _, footer = message.content.decode("iso-2022-jp").partition("-" * 40)
    assert before.endswith("\r\n\r\nこんにちは\r\n\r\n")
    assert "送信者: 例示商店株式会社\r\n" in footer
    assert sorted(_types(tmp_path)) == ["accepted", "delivered"]
    shown = environment.run("gateway", "event-database", "last", "--json", folder=tmp_path)
    newest: dict[str, Any] = json.loads(shown.stdout.splitlines()[0])
    assert (newest["type"], newest["recipient"]) == ("delivered", "hanako@example.net")
    assert newest["campaign"] == "spring"
    shown = environment.run("gateway", "event-database", "count", folder=tmp_path)
    assert shown.stdout == "1  accepted\n1  delivered\n"


async def test_events_wait_while_the_database_is_away(
    environment: Environment, debian_program: DebianProgram, tmp_path: Path
) -> None:
    port = free_port()

    def campaigns() -> set[str]:
        rows = server.execute("SELECT campaign FROM mail_gateway_events WHERE type = 'delivered'")
        return {str(campaign) for (campaign,) in rows}

    with postgresql(debian_program) as server:
        async with NextHop() as hop:
            url = server.admin.render_as_string(hide_password=False)
            text = CONFIGURATION.format(port=port, hop=hop.address)
            text = text.replace("event-database: {}", f"event-database: {{database: '{url}'}}")
            (tmp_path / "gateway.yaml").write_text(text)
            with _running(environment, tmp_path):
                await asyncio.to_thread(_submit, port, b"X-Campaign: before\r\n\r\nHello\r\n")
                await asyncio.to_thread(
                    until, lambda: campaigns() == {"before"} or None, "the first row"
                )
                server.stop()
                await asyncio.to_thread(_submit, port, b"X-Campaign: meanwhile\r\n\r\nHello\r\n")
                await hop.wait(2, timeout=60)
                log = tmp_path / "log"
                await asyncio.to_thread(
                    until,
                    lambda: "event-database failed in observe" in log.read_text() or None,
                    "a failure",
                )
                server.restart()
                await asyncio.to_thread(
                    until, lambda: campaigns() == {"before", "meanwhile"} or None, "both rows"
                )
        assert len(hop.messages) == 2


def test_the_commands_in_the_readme_are_there(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIGURATION.format(port=25, hop="127.0.0.1:25"))
    readme = (environment.package("event-database") / "README.md").read_text()
    commands = _COMMAND.findall(readme)
    assert len(commands) == 2
    for command in commands:
        refused = environment.run(*command.split(), folder=tmp_path, status=1)
        assert refused.stderr == (
            "Error: there is no database yet; it is made when the gateway runs\n"
        )


@contextmanager
def _running(environment: Environment, folder: Path) -> Iterator[None]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(environment.folder / "bin/gateway"), "run"],
            cwd=folder,
            env=environment.variables(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        until(lambda: "ready: " in log.read_text() or process.poll(), "the gateway")
        assert process.poll() is None, log.read_text()
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _submit(port: int, content: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", port, "client.example.org", timeout=60) as client:
        client.sendmail("bounce@shop.example.com", ["hanako@example.net"], content)


def _types(folder: Path) -> list[str]:
    file = folder / "spool/plugins/event-database/events.db"
    if not file.exists():
        return []
    database = sqlite3.connect(file, timeout=10)
    try:
        return [kind for (kind,) in database.execute("SELECT type FROM mail_gateway_events")]
    except sqlite3.OperationalError:
        return []  # the table is not there yet
    finally:
        database.close()
