"""`gateway doctor` on a site, and on a gateway that runs."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.doctor import doctor
from gateway.doctor.examination import AREAS
from gateway.spool.shard_file import VERSION
from gateway.spool.spool import shard_numbers
from gateway.testing import NextHop
from gateway.testing.certificate import Certificate
from tests.assembly import configure, write_plugin
from tests.e2e.conftest import Gateway, free_port, is_running, until
from tests.queue.served import Left, leave, shard_database


def _doctor(folder: Path, *words: str, status: int = 0) -> Result:
    result = CliRunner().invoke(doctor, [*words, "-c", str(folder / "gateway.yaml")])
    assert result.exit_code == status, result.output
    return result


def _told(folder: Path, *words: str, status: int = 0) -> list[dict[str, str]]:
    data: dict[str, Any] = json.loads(_doctor(folder, "--json", *words, status=status).stdout)
    found: list[dict[str, str]] = data["findings"]
    assert data["status"] in ("ok", "note", "warning", "problem")
    assert (data["status"] == "problem") is (status == 1)
    return found


def _severities(found: list[dict[str, str]], area: str) -> set[str]:
    return {one["severity"] for one in found if one["area"] == area}


def test_a_site_that_does_not_run_yet(tmp_path: Path) -> None:
    configure(tmp_path)
    found = _told(tmp_path, "--no-dns")
    assert [area for area in AREAS if area in {one["area"] for one in found}] == [
        name for name, area in AREAS.items() if not area.dns
    ]
    assert not (tmp_path / "spool").exists()


def test_lines_with_remedies(tmp_path: Path) -> None:
    configure(tmp_path)
    leave(tmp_path / "spool", [Left(columns={"due": 1.0})])
    output = _doctor(tmp_path, "--only", "queue", "--only", "log", status=1).stdout
    assert output.splitlines() == [
        "log",
        "  ok       the log goes to standard error: to the journal, under systemd",
        "queue",
        "  problem  1 recipient wait, and nobody delivers: the gateway is not running",
        "           → start it: gateway run, or systemctl start mail-gateway",
        "",
        "1 ok, 1 problem",
    ]


def test_a_configuration_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("hostnam: x\nlisten: []\n")
    found = _told(tmp_path, status=1)
    assert {one["area"] for one in found} == {"configuration"}
    assert any("hostnam" in one["text"] for one in found)


def test_a_plugin_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("raise RuntimeError('broken')")
    path = tmp_path / "gateway.yaml"
    path.write_text("listen: [{address: '127.0.0.1:0'}]\nplugins: [./bad.py]\n")
    (one,) = _told(tmp_path, status=1)
    assert "broken" in one["text"]


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    configure(tmp_path)
    assert "--no-dns" in _doctor(tmp_path, "--only", "names", "--no-dns", status=2).stderr
    assert "no IP" not in _doctor(tmp_path, "--address", "x", status=2).stdout
    _doctor(tmp_path, "--domain", "no domain", status=2)
    _doctor(tmp_path, "--only", "nothing", status=2)


CHECK = """
@hookimpl
def commands(self, context):
    import json, sys, click

    @click.group()
    def group(): ...

    @group.command()
    @click.option("--json", "as_json", is_flag=True)
    def check(as_json):
        click.echo(json.dumps([{"name": "the oven", "errors": ["is cold"], "warnings": []}]))
        sys.exit(1)

    return group
"""

ASKS = CHECK.replace(
    '    @click.option("--json"', '    @click.argument("x")\n    @click.option("--json"'
)


def test_the_checks_of_plugins(tmp_path: Path) -> None:
    cold = write_plugin(tmp_path, "cold", CHECK)
    # A check that needs to be told something cannot be asked.
    asks = write_plugin(tmp_path, "asks", ASKS)
    configure(tmp_path, f"plugins: [{cold}, {asks}]\n")
    (one,) = _told(tmp_path, "--only", "plugins", status=1)
    assert (one["text"], one["remedy"]) == ("cold: the oven: is cold", "gateway cold check")


FAILS = """
@hookimpl
def mail(self, message):
    if message.sender.startswith("fail"):
        raise KeyError
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    running = Gateway(tmp_path, "127.0.0.1:1")
    yield running
    running.clean()


def _served(gateway: Gateway, more: str = "", listen: str = "allow: [127.0.0.0/8]") -> None:
    gateway._listen = listen
    gateway.configure(more)
    gateway.spool.mkdir(mode=0o700)
    gateway.start()


def _health(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_a_gateway_that_runs(gateway: Gateway, tmp_path: Path) -> None:
    certificate = Certificate.make("gw.example.com")
    certificate.write(tmp_path)
    tls = "tls: {certificate: cert.pem, key: key.pem}"
    port = free_port()
    plugin = write_plugin(tmp_path, "bad", FAILS)
    http = f"http: {{address: '127.0.0.1:{port}'}}\nplugins: [{plugin}]"
    _served(gateway, http, f"allow: [127.0.0.0/8], {tls}")
    until(lambda: _health(port) == 200, "the health")
    os.utime(gateway.config, (1, 1))
    with gateway.client() as client:
        client.sendmail("a@example.com", ["b@example.net"], b"Subject: x\r\n\r\nHi\r\n")

    files = sorted(path.name for path in gateway.spool.iterdir())
    found = _told(tmp_path, "--no-dns")
    told = [one["text"] for one in found]
    assert "/health is ok" in told
    assert f"127.0.0.1:{gateway.port} is served" in told
    assert any("2 workers answer" in text for text in told)
    assert _severities(found, "shards") == {"ok"}
    # Nothing is changed by looking.
    assert sorted(path.name for path in gateway.spool.iterdir()) == files
    assert len(gateway.queue()) == 1

    # The certificate on the disk is renewed, and nobody has reloaded; a plugin fails and fails.
    gateway.config.touch()
    Certificate.make("gw.example.com").write(tmp_path)
    with gateway.client() as client:
        client.ehlo()
        for _ in range(5):
            assert client.mail("fail@example.com")[0] == 451
    found = _told(tmp_path, "--only", "processes", "--only", "listen", status=1)
    told = [one["text"] for one in found]
    assert any("renewed, and not reloaded" in text for text in told)
    assert any("was changed after the workers began" in text for text in told)
    assert any(text.startswith("plugin bad: mail raised KeyError") for text in told)

    # By another name, it is another program.
    text = gateway.config.read_text()
    gateway.config.write_text(text.replace("gw.example.com", "mx.example.com"))
    found = _told(tmp_path, "--only", "listen", status=1)
    assert "speaks another program, or another hostname: gw.example.com" in found[0]["text"]
    gateway.config.write_text(text)

    pids = gateway.pids()
    # Without its supervisor nobody starts the service again.
    os.kill(pids["supervisor"], signal.SIGSTOP)
    os.kill(pids["worker 0"], signal.SIGSTOP)
    os.kill(pids["service"], signal.SIGKILL)
    until(lambda: not is_running(pids["service"]), "the end of the service process")
    try:
        found = _told(tmp_path, "--only", "processes", status=1)
    finally:
        os.kill(pids["worker 0"], signal.SIGCONT)
        os.kill(pids["supervisor"], signal.SIGCONT)
    told = [one["text"] for one in found if one["severity"] == "problem"]
    assert "worker-0 does not answer" in told
    assert any(text.startswith("there is no service process") for text in told)

    until(lambda: _health(port) == 200, "the service process, started again")
    gateway.kill()
    found = _told(tmp_path, "--only", "processes", "--only", "listen")
    assert _severities(found, "processes") == {"warning"}
    assert f"127.0.0.1:{gateway.port} is free" in [one["text"] for one in found]


def test_a_shard_that_was_left_for_a_person(gateway: Gateway, tmp_path: Path) -> None:
    gateway.spool.mkdir(mode=0o700)
    leave(gateway.spool, [Left()], number=7)
    with shard_database(gateway.spool, 7) as db:
        db.pragma("user_version", 99)
    gateway.start()
    found = _told(tmp_path, "--only", "shards", status=1)
    said = f"shard 0007 has format 99, and this version reads format {VERSION}"
    assert found[0]["text"] == said
    assert 7 in shard_numbers(gateway.spool)


async def test_mail_passes_while_it_is_examined(gateway: Gateway, tmp_path: Path) -> None:
    async with NextHop() as hop:
        gateway._via = hop.address
        _served(gateway)
        program = [sys.executable, "-m", "gateway", "doctor", "--no-dns"]
        with subprocess.Popen(
            [*program, "-c", str(gateway.config)], stdout=subprocess.DEVNULL
        ) as running:
            sent = 0
            while running.poll() is None or sent < 5:
                await _send(gateway)
                sent += 1
        await hop.wait(sent)
    assert running.returncode == 0


async def _send(gateway: Gateway) -> None:
    def send() -> None:
        with gateway.client() as client:
            client.sendmail("a@example.com", ["b@example.net"], b"Subject: x\r\n\r\nHi\r\n")

    await asyncio.to_thread(send)
