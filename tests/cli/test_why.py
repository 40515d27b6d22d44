"""`gateway why`: the story of one message, from the queue, the outbox and the log."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.why import why
from gateway.configuration.config import Config
from gateway.history.inquiry import made_at
from gateway.log import LineHandler, setup
from gateway.queue import listing
from gateway.queue.administration import change, pause
from gateway.queue.selection import Selection
from gateway.spool import queue_id
from gateway.testing import NextHop
from tests.assembly import Assembly, configure, until, write_plugin
from tests.queue.served import Left, leave, served, shard_database

SITE = """
@hookimpl
def rcpt(self, recipient):
    if recipient.address.startswith("gone"):
        return Discard("it is gone")

@hookimpl
def message(self, message):
    subject = message.headers.get("Subject")
    if subject == "bad":
        return Reject("not this one")
    if subject == "odd":
        return Quarantine("looks odd")
    if subject == "raise":
        raise ValueError("no good")
    message.headers.add("X-Site", "seen")
"""

Work = Callable[[Assembly], Awaitable[str]]


@pytest.fixture(autouse=True)
def _restored_log() -> Iterator[None]:
    """Takes out what `setup` puts into the root logger."""
    root, own = logging.getLogger(), logging.getLogger("gateway")
    levels = root.level, own.level
    flags = logging.logThreads, logging.logProcesses, logging.logMultiprocessing
    yield
    for handler in [one for one in root.handlers if isinstance(one, LineHandler)]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(levels[0])
    own.setLevel(levels[1])
    logging.logThreads, logging.logProcesses, logging.logMultiprocessing = flags


def _configured(folder: Path, log: str = "", via: str = "127.0.0.1:1", more: str = "") -> Config:
    reference = write_plugin(folder, "site", SITE)
    text = f"relay: {{via: ['{via}']}}\nlog: {{{log}}}\n"
    return configure(folder, f"{text}plugins:\n  - {reference}: {{on_error: skip}}\n{more}")


def _run(config: Config, work: Work) -> str:
    """What a gateway in this process did; its log is written as the configuration says."""

    async def run() -> str:
        async with Assembly(config) as assembly:
            return await work(assembly)

    if config.log.file is not None:
        setup(config.log, config.hostname, "worker")
    return asyncio.run(run())


def _why(folder: Path, *words: str, status: int = 0, stdin: bytes = b"") -> Result:
    arguments = [*words, "-c", str(folder / "gateway.yaml")]
    result = CliRunner().invoke(why, arguments, input=stdin)
    assert result.exit_code == status, result.output
    return result


def _told(folder: Path, *words: str, status: int = 0) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(_why(folder, *words, "--json", status=status).stdout)
    return data


def _id(reply: str) -> str:
    assert reply.startswith("250 2.0.0 Ok: queued as "), reply
    return reply.rpartition(" ")[2]


async def _defer(assembly: Assembly) -> str:
    reply = await assembly.submit("b@example.net", "gone@example.net")
    await until(lambda: assembly.rows(state="deferred"), "the deferral")
    return _id(reply)


@pytest.mark.parametrize("format_", ["text", "json"])
def test_mail_that_waits(tmp_path: Path, format_: str) -> None:
    config = _configured(tmp_path, f"file: gateway.log, format: {format_}")
    id_ = _run(config, _defer)
    output = _why(tmp_path, id_).stdout
    lines = [line.strip() for line in output.splitlines()]
    assert lines[0].startswith(f"{id_}  begun ")
    kinds = re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  (\w+)", output, re.MULTILINE)
    assert kinds == ["accepted", "discarded", "deferred"]
    assert "sender <a@example.com>, 1 recipient, " in output
    assert any(re.fullmatch(r"plugin site: \d+\.\d\d ms, changed headers", line) for line in lines)
    assert "it is gone" in lines
    assert any("deferred <b@example.net> by 127.0.0.1" in line for line in lines)
    assert "<b@example.net>  deferred, in the lane smarthost" in lines
    assert any(line.startswith("next attempt at 20") and "in 5 minutes" in line for line in lines)
    assert any(line.startswith("because: connect to 127.0.0.1") for line in lines)
    assert any(line.startswith("given up and reported to the sender after ") for line in lines)
    assert "The gateway is not running: nothing is tried before it is started." in lines
    assert f"{tmp_path / 'gateway.log'}: 3 found" in lines
    assert "Note:" not in output


def test_an_id_as_it_is_copied(tmp_path: Path) -> None:
    config = _configured(tmp_path, "file: gateway.log")
    id_ = _run(config, _defer)
    assert _told(tmp_path, f" {id_.lower()}: ")["id"] == id_


def test_the_same_in_json(tmp_path: Path) -> None:
    id_ = _run(_configured(tmp_path, "file: gateway.log"), _defer)
    told = _told(tmp_path, id_)
    assert [one["kind"] for one in told["happenings"]] == ["accepted", "discarded", "deferred"]
    accepted = told["happenings"][0]
    assert (accepted["sender"], accepted["recipients"]) == ("a@example.com", 1)
    assert [(step["plugin"], step["hook"]) for step in accepted["plugins"]][-1] == (
        "site",
        "message",
    )
    (waiting,) = told["waiting"]
    assert (waiting["state"], waiting["attempts"], waiting["held"]) == ("deferred", 1, None)
    assert waiting["due"] < waiting["ends"]
    assert told["running"] is False
    assert told["missing"] == []


def test_without_a_log_the_queue_tells_what_it_knows(tmp_path: Path) -> None:
    id_ = _run(_configured(tmp_path), _defer)
    output = _why(tmp_path, id_).stdout
    assert "accepted from client.example.org [127.0.0.1]" in output
    assert re.search(r"plugin site: \d+\.\d\d ms, changed headers", output)
    assert "Note: no log was read, as gateway.yaml names none in log.file" in output
    assert f"gateway why {id_} --log -" in output


def test_the_outbox_tells_what_no_observer_has_seen(tmp_path: Path) -> None:
    reference = write_plugin(tmp_path, "watch", "@hookimpl\ndef observe(self, events): pass")
    id_ = _run(_configured(tmp_path, more=f"  - {reference}"), _defer)
    happenings = _told(tmp_path, id_)["happenings"]
    assert [(one["kind"], one["source"]) for one in happenings] == [
        ("accepted", "queue"),
        ("discarded", "outbox"),
        ("deferred", "outbox"),
    ]
    assert happenings[1]["recipient"] == "gone@example.net"


def test_nothing_is_told_twice(tmp_path: Path) -> None:
    reference = write_plugin(tmp_path, "watch", "@hookimpl\ndef observe(self, events): pass")
    config = _configured(tmp_path, "file: gateway.log", more=f"  - {reference}")
    id_ = _run(config, _defer)
    assert {one["source"] for one in _told(tmp_path, id_)["happenings"]} == {"log"}


def test_mail_that_is_gone(tmp_path: Path) -> None:
    async def run() -> str:
        async with NextHop() as hop:
            config = _configured(tmp_path, "file: gateway.log", hop.address)
            setup(config.log, config.hostname, "worker")
            async with Assembly(config) as assembly:
                reply = await assembly.submit("b@example.net")
                await until(lambda: hop.messages and not assembly.rows(), "the delivery")
                return _id(reply)

    id_ = asyncio.run(run())
    output = _why(tmp_path, id_).stdout
    assert "delivered <b@example.net> by 127.0.0.1" in output
    assert "after it was accepted" in output
    assert "Now  nothing of it is in the queue" in output


def test_mail_that_a_plugin_holds(tmp_path: Path) -> None:
    async def hold(assembly: Assembly) -> str:
        return _id(await assembly.submit("b@example.net", content=b"Subject: odd\r\n\r\nHi\r\n"))

    id_ = _run(_configured(tmp_path, "file: gateway.log"), hold)
    output = _why(tmp_path, id_).stdout
    assert re.search(r"plugin site: \d+\.\d\d ms, had it held: looks odd", output)
    assert "<b@example.net>  held, in the lane smarthost\n    looks odd\n" in output
    assert f"until a person decides: gateway queue release {id_}, or drop {id_}" in output
    assert "given up" not in output


def test_mail_that_a_pause_holds(tmp_path: Path) -> None:
    config = _configured(tmp_path, "file: gateway.log")
    id_ = _run(config, _defer)
    asyncio.run(pause(config.spool.path, Selection(domain="example.net"), "wrong prices"))
    output = _why(tmp_path, id_).stdout
    assert "paused: 1 wrong prices\n    until the pause ends: gateway queue resume 1" in output


def test_mail_that_a_person_holds(tmp_path: Path) -> None:
    config = _configured(tmp_path, "file: gateway.log")
    id_ = _run(config, _defer)
    asyncio.run(change(config.spool.path, "hold", Selection(ids=(id_,))))
    told = _told(tmp_path, id_)
    assert told["happenings"][-1]["text"] == "by hand"
    assert (told["waiting"][0]["held"], told["waiting"][0]["ends"]) == ("held by hand", None)


def test_mail_that_was_refused_is_found_by_the_id_in_the_log(tmp_path: Path) -> None:
    async def refuse(assembly: Assembly) -> str:
        reply = await assembly.submit("b@example.net", content=b"Subject: bad\r\n\r\nHi\r\n")
        assert reply == "550 5.7.1 not this one"
        return ""

    _run(_configured(tmp_path, "file: gateway.log"), refuse)
    (line,) = [
        line
        for line in (tmp_path / "gateway.log").read_text().splitlines()
        if "message refused" in line
    ]
    id_ = re.search(r" ([0-9A-Z]{13}): message refused", line)
    assert id_ is not None
    output = _why(tmp_path, id_[1]).stdout
    assert "refused\n    550 not this one" in output
    assert re.search(r"plugin site: \d+\.\d\d ms, refused it: 550 5\.7\.1 not this one", output)


def test_a_plugin_that_failed_is_seen(tmp_path: Path) -> None:
    async def skip(assembly: Assembly) -> str:
        return _id(await assembly.submit("b@example.net", content=b"Subject: raise\r\n\r\nHi\r\n"))

    id_ = _run(_configured(tmp_path), skip)
    output = _why(tmp_path, id_).stdout
    assert re.search(r"plugin site: \d+\.\d\d ms, FAILED: raised ValueError: no good", output)


async def test_while_the_gateway_runs(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway:
        id_ = await _defer(gateway)
        told = await asyncio.to_thread(_told, tmp_path, id_)
        output = (await asyncio.to_thread(_why, tmp_path, id_)).stdout
    assert told["running"] is True
    assert "The gateway is not running" not in output
    assert [one["kind"] for one in told["happenings"]] == ["accepted"]


def test_mail_for_later_and_damaged_mail(tmp_path: Path) -> None:
    configure(tmp_path)
    later = Left(["b@example.net"], columns={"due": time.time() + 7200})
    rerouted = Left(
        ["c@example.net"], columns={"parameters": '{"via": ["10.0.0.5:25"]}', "due": 1.0}
    )
    damaged = Left(["d@example.net"], columns={"held": "damaged on disk: x"})
    leave(tmp_path / "spool", [later, rerouted, damaged])
    rows = {row.recipient: row for row in listing.read(tmp_path / "spool", Selection())}
    output = _why(tmp_path, rows["b@example.net"].id).stdout
    assert "scheduled, in the lane example.net" in output
    assert "first attempt at 20" in output
    assert "in 2 hours; 0 so far" in output or "in 120 minutes; 0 so far" in output
    output = _why(tmp_path, rows["c@example.net"].id).stdout
    assert "active, in the lane example.net\n    an attempt is due, or under way\n" in output
    assert "rerouted to 10.0.0.5:25" in output
    with shard_database(tmp_path / "spool") as db:
        db.execute("UPDATE messages SET envelope='{'")
    output = _why(tmp_path, rows["d@example.net"].id).stdout
    assert "damaged on disk: x" in output
    assert "accepted" not in output


def test_rotated_logs_and_others_and_standard_input(tmp_path: Path) -> None:
    id_ = _run(_configured(tmp_path, "file: gateway.log"), _defer)
    log = tmp_path / "gateway.log"
    accepted, *later = [line for line in log.read_text().splitlines() if id_ in line]
    (tmp_path / "gateway.log.2.gz").write_bytes(gzip.compress(f"{accepted}\n".encode()))
    log.write_text("")
    told = _told(tmp_path, id_)
    assert [one["kind"] for one in told["happenings"]] == ["accepted"]
    assert [one["name"] for one in told["consulted"]][2:] == [str(log), f"{log}.2.gz"]
    other = tmp_path / "other"
    other.write_text(later[0])
    words = [id_, "--log", str(other), "--log", "-"]
    output = _why(tmp_path, *words, stdin=later[1].encode()).stdout
    kinds = re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  (\w+)", output, re.MULTILINE)
    assert kinds == ["accepted", "discarded", "deferred"]
    assert "standard input: 1 found" in output


def test_files_that_are_older_than_the_id_are_not_read(tmp_path: Path) -> None:
    id_ = _run(_configured(tmp_path, "file: gateway.log"), _defer)
    old = tmp_path / "gateway.log.1"
    old.write_bytes((tmp_path / "gateway.log").read_bytes())
    week_ago = time.time() - 7 * 86400
    os.utime(old, (week_ago, week_ago))
    assert str(old) not in [one["name"] for one in _told(tmp_path, id_)["consulted"]]


def test_a_log_without_the_beginning_is_said(tmp_path: Path) -> None:
    id_ = _run(_configured(tmp_path, "file: gateway.log"), _defer)
    log = tmp_path / "gateway.log"
    log.write_text("\n".join(log.read_text().splitlines()[-1:]))
    assert "do not have the beginning" in _told(tmp_path, id_)["missing"][0]


def test_an_id_that_nobody_knows(tmp_path: Path) -> None:
    _run(_configured(tmp_path, "file: gateway.log"), _defer)
    unknown = queue_id.to_text(queue_id.make(time.time(), 1, 0))
    output = _why(tmp_path, unknown, status=1).stdout
    assert f"Nothing is known of {unknown}, an id that was given at 20" in output
    assert f"the queue in {tmp_path / 'spool'} (1 shard): 0 found" in output
    assert f"{tmp_path / 'gateway.log'}: 0 found" in output
    assert _told(tmp_path, unknown, status=1)["happenings"] == []


def test_a_queue_that_is_not_there(tmp_path: Path) -> None:
    configure(tmp_path)
    unknown = queue_id.to_text(queue_id.make(time.time(), 1, 0))
    assert "(0 shards): 0 found" in _why(tmp_path, unknown, status=1).stdout
    assert not (tmp_path / "spool").exists()


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    id_ = _run(_configured(tmp_path), _defer)
    (tmp_path / "spool" / "0002.db").write_bytes(b"no database" * 1000)
    output = _why(tmp_path, id_, "--log", str(tmp_path / "none")).stdout
    assert "0002.db cannot be read: file is not a database" in output
    assert "Note: not all that waits in the queue is known" in output
    assert f"{tmp_path / 'none'}: No such file or directory" in output
    assert "<b@example.net>  deferred" in output


@pytest.mark.parametrize("text", ["x", "0MQPR8F3E380U", "", "../../etc"])
def test_what_is_no_id(tmp_path: Path, text: str) -> None:
    configure(tmp_path)
    assert "is no queue id" in _why(tmp_path, text, status=2).stderr


def test_the_time_of_an_id() -> None:
    now = time.time()
    text = queue_id.to_text(queue_id.make(now, 5, 0))
    assert made_at(text) == pytest.approx(now, abs=0.00001)
