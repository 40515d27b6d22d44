"""The examinations that need neither a DNS nor processes."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.doctor.clock import synchronized
from gateway.doctor.descriptors import bound_of
from gateway.doctor.examination import AREAS, chosen, examine
from gateway.doctor.finding import count, listed, octets
from gateway.doctor.plugin_checks import PluginCheck, findings
from gateway.doctor.running import Running
from tests.assembly import write_plugin
from tests.doctor.sites import BASE, found, site_of, texts
from tests.queue.served import Left, leave, shard_database


def test_words() -> None:
    assert (count(1, "message"), count(1200, "message")) == ("1 message", "1,200 messages")
    assert (listed("abc"), listed("abcdefg")) == ("a, b, c", "a, b, c, d, e and 2 more")
    assert [octets(number) for number in (1, 1536, 64 << 20, 5 << 40)] == [
        "1 octets",
        "1.5 KiB",
        "64 MiB",
        "5.0 TiB",
    ]


# Who may relay, and read secrets.


@pytest.mark.parametrize(
    ("address", "network", "severity"),
    [
        ("0.0.0.0:0", "0.0.0.0/0", "problem"),
        ("[::]:0", "::/0", "problem"),
        ("0.0.0.0:0", "8.0.0.0/8", "warning"),
        ("0.0.0.0:0", "10.0.0.0/8", "ok"),
        ("127.0.0.1:0", "0.0.0.0/0", "ok"),
    ],
)
async def test_an_open_relay(tmp_path: Path, address: str, network: str, severity: Any) -> None:
    base = (
        "hostname: gw.example.com\nspool: {path: spool}\n"
        f"listen: [{{address: '{address}', allow: ['{network}']}}]\n"
    )
    site = site_of(tmp_path, base=base)
    assert any("relay" in text for text in await texts("configuration", site, severity)), (
        await found("configuration", site)
    )


async def test_passwords_in_the_clear_and_secrets_for_everybody(tmp_path: Path) -> None:
    users = tmp_path / "users.yaml"
    users.write_text("users: {}\n")
    users.chmod(0o644)
    plugin = write_plugin(tmp_path, "site", "@hookimpl\ndef mail(self, message): pass")
    (tmp_path / "site.py").chmod(0o666)
    base = (
        "hostname: gw.example.com\nspool: {path: spool}\n"
        "listen: [{address: '0.0.0.0:0', users: users.yaml, plaintext_auth: true}]\n"
        f"relay: {{tls: {{level: none}}}}\nplugins: [{plugin}]\n"
    )
    site = site_of(tmp_path, base=base)
    warnings = await texts("configuration", site, "warning")
    assert [text.split(" ")[0] for text in warnings] == ["at", "relay.tls.level"]
    assert await texts("configuration", site, "problem") == [
        f"everybody may write {tmp_path / 'site.py'}: who does runs programs as the gateway",
        f"everybody may read {users}, which has secrets",
    ]


# Files and time.


async def test_the_log(tmp_path: Path) -> None:
    assert "standard error" in (await texts("log", site_of(tmp_path), "ok"))[0]
    site = site_of(tmp_path, "log: {file: gateway.log}\n")
    assert "can be made" in (await texts("log", site, "ok"))[0]
    (tmp_path / "gateway.log").touch(mode=0o640)
    assert "can be written" in (await texts("log", site, "ok"))[0]
    (tmp_path / "gateway.log").chmod(0o644)
    assert "everybody may read" in (await texts("log", site, "warning"))[0]
    with (tmp_path / "gateway.log").open("wb") as file:
        file.truncate(2 << 30)
    assert any("nobody rotates" in text for text in await texts("log", site, "warning"))


async def test_the_clock(tmp_path: Path) -> None:
    (finding,) = await found("clock", site_of(tmp_path))
    assert finding.severity == {True: "ok", False: "warning", None: "note"}[synchronized()]
    (finding,) = await found("clock", site_of(tmp_path, started=1_600_000_000.0))
    assert finding.severity == "problem"


async def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    leave(tmp_path / "spool", [Left()])
    site = site_of(tmp_path, started=time.time() - 3600)
    assert "the clock was set back" in (await texts("clock", site, "problem"))[0]
    running = Running(workers=(os.getpid(),), since=1_704_067_201.0)
    told = await texts("clock", site_of(tmp_path, running=running), "warning")
    assert any("made a step" in text for text in told)


async def test_open_files(tmp_path: Path) -> None:
    (finding,) = await found("files", site_of(tmp_path))
    assert finding.severity == "note"
    bound = bound_of(os.getpid())
    assert bound > 0
    running = Running(workers=(os.getpid(),))
    many = site_of(tmp_path, f"limits: {{connections: {bound}}}\n", running=running)
    assert len(await texts("files", many, "warning")) == 1
    few = site_of(tmp_path, "limits: {connections: 1}\n", running=running)
    assert bound < 2000 or len(await texts("files", few, "ok")) == 1
    assert bound_of(1 << 30) == 0


async def test_ports_that_are_free_and_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        base = BASE.replace("127.0.0.1:0", f"127.0.0.1:{port}")
        (text,) = await texts("listen", site_of(tmp_path, base=base), "problem")
        assert "another program listens there" in text
    assert len(await texts("listen", site_of(tmp_path, base=base), "ok")) == 1
    elsewhere = BASE.replace("127.0.0.1:0", "192.0.2.1:2525")
    (text,) = await texts("listen", site_of(tmp_path, base=elsewhere), "problem")
    assert "does not have the address" in text
    assert "chooses the port" in (await texts("listen", site_of(tmp_path), "note"))[0]


# The queue.


async def test_mail_that_nobody_delivers(tmp_path: Path) -> None:
    leave(tmp_path / "spool", [Left(columns={"due": 1.0}) for _ in range(3)])
    (text,) = await texts("queue", site_of(tmp_path), "problem")
    assert text == "3 recipients wait, and nobody delivers: the gateway is not running"
    running = Running(workers=(os.getpid(),))
    assert await texts("queue", site_of(tmp_path, running=running), "problem") == []


async def test_held_damaged_and_old_mail(tmp_path: Path) -> None:
    damaged = Left(columns={"held": "damaged on disk: its checksum does not fit"})
    leave(tmp_path / "spool", [damaged, Left(columns={"held": "looks odd"})])
    running = Running(workers=(os.getpid(),))
    site = site_of(tmp_path, running=running)
    (text,) = await texts("queue", site, "problem")
    assert text == "1 recipient wait for mail that is damaged on the disk"
    assert await texts("queue", site, "note") == ["1 recipient held, until a person decides"]
    leave(tmp_path / "other", [Left(columns={"due": time.time() + 900, "attempts": 5})])
    with shard_database(tmp_path / "other") as db:
        db.execute("UPDATE messages SET received = received - 4 * 86400")
    base = BASE.replace("path: spool", "path: other")
    (text,) = await texts("queue", site_of(tmp_path, base=base, running=running), "note")
    assert "the oldest mail is 4 days old" in text


async def test_many_that_are_tried_again(tmp_path: Path) -> None:
    columns = {"due": time.time() + 900, "attempts": 2}
    leave(tmp_path / "spool", [Left([f"b{n}@example.net" for n in range(1100)], columns=columns)])
    site = site_of(tmp_path, running=Running(workers=(os.getpid(),)))
    (text,) = await texts("queue", site, "warning")
    assert "1,100 to be tried again" in text
    assert "example.net" in text


async def test_an_observer_that_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = write_plugin(tmp_path, "watch", "@hookimpl\ndef observe(self, events): pass")
    with shard_database(tmp_path / "spool") as db:
        db.executemany("INSERT INTO events VALUES (?, '{}')", [(n,) for n in range(1, 21)])
    site = site_of(tmp_path, f"plugins: [{reference}]\n")
    assert "1 observer, at most 20 events behind" in await texts("queue", site, "ok")
    monkeypatch.setattr("gateway.doctor.backlog.EVENTS", 19)
    assert await texts("queue", site, "warning") == ["20 events wait for watch"]


# What plugins say.


def test_the_answers_of_plugins() -> None:
    def said(check: PluginCheck) -> list[tuple[str, str]]:
        return [(one.severity, one.text) for one in findings(check)]

    assert said(PluginCheck("dkim", 0, [{"name": "x", "errors": [], "warnings": []}])) == [
        ("ok", "dkim finds itself well")
    ]
    told = [{"domain": "d", "name": "s._domainkey.d", "errors": ["no key"], "warnings": ["old"]}]
    assert said(PluginCheck("dkim", 1, told)) == [
        ("problem", "dkim: s._domainkey.d: no key"),
        ("warning", "dkim: s._domainkey.d: old"),
    ]
    pool = [{"source": "mta1", "problems": ["cannot be bound"]}, {"source": "m2", "problems": []}]
    assert said(PluginCheck("ippool", 1, pool)) == [("problem", "ippool: mta1: cannot be bound")]
    assert said(PluginCheck("x", None))[0][0] == "problem"
    assert said(PluginCheck("x", 1, None, "gateway: no key")) == [("problem", "x: gateway: no key")]
    assert said(PluginCheck("x", 3, {"y": [1]})) == [
        ("problem", "x: its check ended with status 3")
    ]
    assert said(PluginCheck("x", 0, [1, {"errors": "no list"}, {}]))[0][0] == "ok"


# The run.


def test_what_is_chosen() -> None:
    assert chosen((), dns=True) == list(AREAS)
    assert chosen(("shards", "spool"), dns=True) == ["spool", "shards"]
    assert chosen(("names",), dns=False) == []
    assert not {"names", "senders", "relay", "plugins"} & set(chosen((), dns=False))


async def test_an_examination_that_fails_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_of(tmp_path)
    site.config.spool.path.write_text("a file, now")
    done: list[str] = []
    results = await examine(site, ["spool", "shards", "clock"], done.append)
    assert done == ["spool", "shards", "clock"]
    assert all(results.values())

    def broken(_: object) -> Any:
        raise OSError("no disk")

    monkeypatch.setattr("gateway.doctor.spool_folder._not_there", broken)
    results = await examine(site, ["spool"], done.append)
    (finding,) = results["spool"]
    assert (finding.severity, finding.text) == (
        "problem",
        "it could not be examined: OSError: no disk",
    )


async def test_examinations_leave_the_loop_free(tmp_path: Path) -> None:
    """A disk that hangs must not stop what else is waited for."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    leave(tmp_path / "spool", [Left() for _ in range(500)])
    task = asyncio.create_task(turn())
    await examine(site_of(tmp_path), ["spool", "shards", "queue"], lambda name: None)
    task.cancel()
    assert turns > 10
