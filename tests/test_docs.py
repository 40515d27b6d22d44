"""The documents: every example runs, every command exists, every link leads somewhere.

A block that cannot be run says so in the line before it, for the reader too: *Not tested here: …*
"""

from __future__ import annotations

import ast
import asyncio
import configparser
import importlib
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from examples.demo.installation import Gateway
from gateway import __version__, hooks
from gateway.cli.command import gateway as command
from gateway.cli.plugins import add_plugin_commands
from gateway.configuration.config import load_config
from gateway.configuration.schema import schema
from gateway.configuration.users import hash_password, save_user
from gateway.hooks.load import LoadedPlugin, load_plugins
from gateway.hooks.reference import GROUP
from gateway.testing import NextHop
from tests.docs.blocks import DOCUMENTS, PACKAGES, ROOT, TUTORIAL, Block, blocks

HERE = [path for path in DOCUMENTS if path != TUTORIAL and PACKAGES not in path.parents]
"""All but the tutorial (see tests/docs) and the packages (see tests/examples)."""

BLOCKS = [block for document in HERE for block in blocks(document)]

UNCHECKED_LANGUAGES = {"", "text", "mermaid"}
"""What is shown and not run: pictures, output, and what is typed into other programs."""


def _of(language: str) -> pytest.MarkDecorator:
    found = [block for block in BLOCKS if block.language == language and not block.excused]
    return pytest.mark.parametrize("block", found, ids=str)


def test_every_block_is_of_a_kind_that_is_tested_or_says_that_it_is_not() -> None:
    tested = {"yaml", "python", "sh", "ini", "cf", "toml"} | UNCHECKED_LANGUAGES
    odd = [f"{block}: {block.language}" for block in BLOCKS if block.language not in tested]
    excused = [str(block) for block in BLOCKS if block.excused]
    assert [text for text in odd if text.rpartition(":")[0] not in excused] == []


# Configurations.

LISTEN = "listen: [{address: '127.0.0.1:2525', allow: [127.0.0.0/8]}]\n"


def _named_files() -> dict[str, str]:
    """The Python blocks that say in their first line which file they are."""
    named = {}
    for block in BLOCKS:
        match = re.match(r"# (\S+\.py)\n", block.text)
        if block.language == "python" and match:
            named[match[1]] = block.text
    return named


def _private_key(path: Path) -> rsa.RSAPrivateKey:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return key


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that the configurations in the documents name."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("s1", "e1", "example.org", "example.com/202611a"):
        _private_key(folder / "keys" / f"{name}.pem")
    key = _private_key(folder / "tls" / "key.pem")
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gw.example.com")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "tls" / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    save_user(folder / "users.yaml", "shop", hash_password("secret"))
    (folder / "suppressed.txt").write_text("gone@example.net\n")
    (folder / "customers.db").touch()
    for path, text in _named_files().items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    return folder


def _load(folder: Path, text: str) -> list[LoadedPlugin]:
    """Loads a configuration, or a part of one, with its plugins."""
    if not re.search(r"^listen:", text, re.MULTILINE):
        text = LISTEN + text
    if not re.search(r"^streams:", text, re.MULTILINE):
        text += "streams:\n  bulk: {when: {header: {Precedence: bulk}}}\n"
        text += "  transactional: {when: {sender_domain: shop.example.com}}\n"
    file = folder / "gateway.yaml"
    file.write_text(text)
    return load_plugins(load_config(file))


@_of("yaml")
def test_a_configuration_loads_with_its_plugins(block: Block, site: Path) -> None:
    _load(site, block.text)


def test_the_configuration_that_make_run_takes_loads() -> None:
    load_plugins(load_config(ROOT / "gateway.yaml"))


# Python.


@_of("python")
def test_python_code_compiles_and_what_it_imports_is_there(block: Block, site: Path) -> None:
    tree = ast.parse(block.text, str(block))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if (site / "site" / f"{node.module}.py").exists():
                continue
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block}: {node.module}.{alias.name}"
    if not re.match(r"# \S+\.py\n", block.text) and "smtplib" not in block.text:
        exec(compile(tree, str(block), "exec"), {})


def test_every_plugin_that_is_shown_is_used_in_a_configuration() -> None:
    configurations = "".join(block.text for block in BLOCKS if block.language == "yaml")
    plugins = [name for name in _named_files() if "/test_" not in name]
    assert plugins
    for name in plugins:
        assert f"./{name}:" in configurations


def test_the_test_that_is_shown_passes_and_can_fail(site: Path, tmp_path: Path) -> None:
    def run(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_footer.py"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    result = run(site / "site")
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout
    broken = (site / "site/footer.py").read_text().replace("+= f", "= f")
    (tmp_path / "footer.py").write_text(broken)
    (tmp_path / "test_footer.py").write_text((site / "site/test_footer.py").read_text())
    assert run(tmp_path).returncode == 1


def _shown(language: str, document: str, containing: str) -> str:
    (block,) = [
        block.text
        for block in BLOCKS
        if block.language == language
        and block.document == ROOT / document
        and containing in block.text
    ]
    return block


async def test_the_first_plugin_works_in_a_gateway_and_so_does_the_client(site: Path) -> None:
    """The YAML and the plugin that are shown first, and the client of the README, as they stand."""
    configuration = _shown("yaml", "docs/plugins/README.md", "footer.py")
    client = _shown("python", "README.md", "smtplib")
    async with NextHop() as receiver:
        file = site / "footer.yaml"
        file.write_text(
            configuration.replace("127.0.0.1:2600", receiver.address).replace(":2525", ":0")
            + f"spool: {{path: {site / 'spool'}}}\nworkers: 1\n"
        )
        async with Gateway(file) as running:
            code = client.replace("2525", str(running.port))
            await asyncio.to_thread(exec, compile(code, "README.md", "exec"), {})
            (message,) = await receiver.wait(1)
    assert message.sender == "shop@example.com"
    assert message.recipients[0][0] == "ada@example.net"
    assert message.content.endswith(
        b"\r\n\r\nThank you!\r\n\r\n-- \r\nExample Inc., 1 Example Street\r\n"
    )


def test_the_plugin_that_asks_a_database_holds_mail(site: Path, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "customers.db") as database:
        database.execute("CREATE TABLE watch (address TEXT)")
        database.execute("INSERT INTO watch VALUES ('eve@example.net')")
    database.close()
    (tmp_path / "site").mkdir()
    (tmp_path / "site/contact.py").write_text(_named_files()["site/contact.py"])
    (plugin,) = _load(tmp_path, _shown("yaml", "docs/plugins/README.md", "contact.py"))
    assert plugin.entry.on_error == "quarantine"
    assert plugin.entry.timeout == 5.0
    for address, answer in (
        ("ada@example.net", None),
        ("eve@example.net", hooks.Quarantine("a recipient is on the watch list")),
    ):
        message = hooks.Message("ID1", "shop@example.com", hooks.Client("127.0.0.1"))
        message.add_recipient(address)
        assert plugin.hooks["message"](message) == answer


@_of("toml")
def test_the_entry_point_of_a_package_is_in_our_group(block: Block) -> None:
    assert list(tomllib.loads(block.text)["project"]["entry-points"]) == [GROUP]


# Commands.


def _commands() -> Iterator[tuple[str, str]]:
    """Every `gateway …` and `make …` in a shell block or in running text, and where it stands."""
    for block in BLOCKS:
        if block.language in ("sh", "text", ""):
            for offset, line in enumerate(block.text.splitlines(), 1):
                for part in line.partition(" #")[0].split(" && "):
                    place = f"{block.document.relative_to(ROOT)}:{block.line + offset}"
                    yield place, part.partition(" > ")[0].strip()
        elif block.language == "ini":
            start = re.search(r"^ExecStart=\S*/(gateway .*)$", block.text, re.MULTILINE)
            if start:
                yield str(block), start[1]
    for document in (*HERE, TUTORIAL):
        for number, line in enumerate(document.read_text().splitlines(), 1):
            for code in re.findall(r"`([^`]+)`", line):
                yield f"{document.relative_to(ROOT)}:{number}", code


GATEWAY_COMMANDS = [
    pytest.param(line, id=f"{place} {line}")
    for place, line in _commands()
    if line.startswith("gateway ") and not line.endswith("…")
]
MAKE_TARGETS = [
    pytest.param(line.split()[1], id=f"{place} {line}")
    for place, line in _commands()
    if re.fullmatch(r"make [a-z-]+( .*)?", line)
]


EVERY_PLUGIN = """
plugins:
  - suppression: {}
  - personalization: {}
  - tracking: {base_url: "https://t.example.com"}
  - report: {}
  - bounces: {domain: bounce.example.com}
  - dkim: {keys: [{domain: example.com, selector: s1, file: keys/s1.pem}]}
  - throttle: {}
  - ippool:
      sources:
        mta1: {address: 127.0.0.2, helo: mta1.example.com}
        mta2: {address: 127.0.0.3, helo: mta2.example.com}
      pools: {main: {sources: [mta1, mta2]}}
      default: main
"""


@pytest.fixture(scope="module")
def commands(site: Path) -> click.Group:
    """All commands, those of the bundled plugins among them."""
    file = site / "every.yaml"
    file.write_text(LISTEN + EVERY_PLUGIN)
    group = click.Group("gateway", dict(command.commands), params=list(command.params))
    add_plugin_commands(group, ["-c", str(file)])
    return group


@pytest.mark.parametrize("line", GATEWAY_COMMANDS)
def test_a_command_exists_with_its_options(line: str, commands: click.Group) -> None:
    words = shlex.split(line)[1:]
    found: click.Command = commands
    context = click.Context(commands, info_name="gateway")
    while isinstance(found, click.Group) and words:
        name = words.pop(0)
        inner = found.get_command(context, name)
        assert inner is not None, f"there is no command {name}"
        found = inner
        context = click.Context(found, context, info_name=name)
    if words:
        found.make_context(found.name, words, parent=context.parent)


@pytest.mark.parametrize("target", MAKE_TARGETS)
def test_a_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_command_is_described_somewhere() -> None:
    text = "".join(document.read_text() for document in (*HERE, TUTORIAL))
    for name, found in command.commands.items():
        inner = found.commands if isinstance(found, click.Group) else ()
        for words in (name, *(f"{name} {one}" for one in inner)):
            assert re.search(rf"gateway {words}\b", text), f"gateway {words}"


@_of("ini")
def test_a_unit_file_starts_and_stops_the_gateway_in_its_time(block: Block) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(block.text)
    service = parser["Service"]
    assert service["Type"] == "notify"
    assert "HUP" in service["ExecReload"]
    config = schema({})["properties"]
    assert config["shutdown_timeout"]["default"] == "30s"
    assert int(service["TimeoutStopSec"]) > 35


@_of("ini")
def test_systemd_understands_a_unit_file(
    block: Block, tmp_path: Path, debian_program: Callable[[str], Path]
) -> None:
    analyze = debian_program("systemd-analyze")
    unit = tmp_path / "mail-gateway.service"
    program = shlex.quote(str(Path(sys.executable).with_name("gateway")))
    unit.write_text(block.text.replace("/opt/mail-gateway/.venv/bin/gateway", program))
    result = subprocess.run(
        [analyze, "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    complaints = [line for line in result.stderr.splitlines() if unit.name in line]
    assert (result.returncode, complaints) == (0, [])


@_of("cf")
def test_postfix_knows_the_settings(
    block: Block, tmp_path: Path, debian_program: Callable[[str], Path]
) -> None:
    postconf = debian_program("postfix").with_name("postconf")
    services = re.search(r"^\S+\s+inet\s", block.text, re.MULTILINE)
    (tmp_path / "main.cf").write_text("" if services else block.text)
    (tmp_path / "master.cf").write_text(block.text if services else "")
    result = subprocess.run(
        [postconf, "-c", tmp_path, "-Mf" if services else "-n"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert result.stderr == ""
    for value in re.findall(r"= ?(\S.*)$", block.text, re.MULTILINE):
        assert value in result.stdout


def test_the_changes_begin_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    first = re.search(r"^## \[(.*?)\]", text, re.MULTILINE)
    assert first is not None
    assert first[1] == re.sub(r"\.dev\d*$", "", __version__)


def test_there_is_something_to_test() -> None:
    for kind in ("yaml", "python", "sh", "ini", "cf", "toml"):
        assert any(block.language == kind and not block.excused for block in BLOCKS), kind
    assert len(GATEWAY_COMMANDS) > 30
    assert len(MAKE_TARGETS) > 5
