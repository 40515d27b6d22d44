from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.attempt import Disposition, Outcome, Times
from gateway.configuration.config import Log
from gateway.log import AcceptLog, AttemptLog, LineHandler, setup
from gateway.log_line import AcceptRecord, AttemptRecord, JsonLines, TextLines, escape
from gateway.mail.message import Recipient

ATTEMPT = AttemptRecord(
    "4G1XZ2ABCDEFG",
    "ann@example.org",
    "mx.example.org[192.0.2.1]:25",
    0.12,
    (0.05, 0.001, 0.04, 0.03),
    "2.0.0",
    "sent",
    "250 2.0.0 Ok: queued as X",
)
START = (
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d gw\.example\.com gateway/worker\[\d+\]: "
)
LOG = logging.getLogger("gateway.test_log")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, gateway = logging.getLogger(), logging.getLogger("gateway")
    handlers, levels = root.handlers[:], (root.level, gateway.level)
    flags = logging.logThreads, logging.logProcesses, logging.logMultiprocessing
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    gateway.setLevel(levels[1])
    logging.logThreads, logging.logProcesses, logging.logMultiprocessing = flags


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.log"


def start(file: Path, log_format: str = "text", level: str = "info") -> LineHandler:
    config = Log.model_validate({"format": log_format, "level": level, "file": str(file)})
    return setup(config, "gw.example.com", "worker")


def lines(file: Path) -> list[str]:
    """What was logged, without time and process."""
    found = file.read_text().splitlines(keepends=True)
    assert all(re.match(START, line) and line.endswith("\n") for line in found), found
    return [re.sub(START, "", line).removesuffix("\n") for line in found]


def test_lines_say_when_where_and_who(file: Path) -> None:
    start(file)
    LOG.info("started %d of %s", 1, "日本")
    LOG.warning("careful")
    LOG.error("bad")
    logging.getLogger("gateway.plugin.footer").info("hello")
    logging.getLogger("asyncio").warning("slow")
    assert lines(file) == [
        "started 1 of 日本",
        "warning: careful",
        "error: bad",
        "plugin.footer: hello",
        "warning: asyncio: slow",
    ]
    assert f"[{os.getpid()}]" in file.read_text()


def test_what_is_below_the_level_is_not_even_made(file: Path) -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError

    start(file, level="warning")
    LOG.info("%s", Costly())
    AttemptLog().write("delivered", None, None, None, None)  # type: ignore[arg-type]
    logging.getLogger("aiosmtpd").info("library chatter")
    assert lines(file) == []
    start(file, level="debug")
    LOG.debug("now")
    logging.getLogger("aiosmtpd").info("library chatter")
    assert lines(file) == ["debug: now"]


def test_lines_cannot_be_forged(file: Path) -> None:
    start(file)
    LOG.info("helo %s", "x\r\n2026-01-01 forged\x1b[2J\u2028\u202e\x85")
    try:
        raise ValueError("outside\n2026-01-01T00:00:00.000+00:00 gw gateway/worker[1]: forged")
    except ValueError:
        LOG.exception("failed")
    found = lines(file)
    assert found[0] == r"helo x\x0d\x0a2026-01-01 forged\x1b[2J\u2028\u202e\x85"
    assert found[1] == "error: failed"
    assert all(line.startswith("| ") for line in found[2:])
    assert found[-1] == "| 2026-01-01T00:00:00.000+00:00 gw gateway/worker[1]: forged"


@given(st.text(st.characters()))
def test_escaped_text_is_one_line_that_can_be_written(text: str) -> None:
    escaped = escape(text)
    assert len(f"{escaped}.".splitlines()) == 1
    escaped.encode()  # raises for what UTF-8 cannot say
    assert escape(escaped) == escaped


@given(st.text(st.characters()), st.text(st.characters()))
def test_json_is_one_line_and_tells_all(text: str, name: str) -> None:
    record = logging.LogRecord(name, logging.INFO, "", 0, text.replace("%", "%%"), (), None)
    line = JsonLines("gw.example.com", "worker")(record)
    assert len(line.splitlines()) == 1
    line.encode()
    data = json.loads(line)
    assert (data["message"], data["logger"]) == (record.getMessage(), name)


def test_a_call_that_cannot_be_formatted_is_still_a_line(file: Path) -> None:
    handler = start(file)

    class Broken:
        def __repr__(self) -> str:
            raise ValueError

    for message, argument in (("%d items", "many\n"), ("%s", Broken())):
        record = logging.LogRecord("gateway", logging.INFO, "", 0, message, (argument,), None)
        handler.handle(record)
    assert lines(file) == [
        r"%d items ('many\n',) (cannot be formatted)",
        "a str that cannot be shown",
    ]


def test_an_attempt_reads_as_with_postfix(file: Path) -> None:
    handler = start(file)
    handler.attempt(ATTEMPT)
    LOG.info(ATTEMPT)
    expected = (
        "4G1XZ2ABCDEFG: to=<ann@example.org>, relay=mx.example.org[192.0.2.1]:25, delay=0.12, "
        "delays=0.05/0/0.04/0.03, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as X)"
    )
    assert lines(file) == [expected, expected]


def test_an_attempt_as_json(file: Path) -> None:
    handler = start(file, "json")
    handler.attempt(ATTEMPT._replace(reply='no "x"\n'))
    LOG.info(ATTEMPT._replace(reply='no "x"\n'))
    for line in file.read_text().splitlines():
        data = json.loads(line)
        del data["time"], data["pid"]
        assert data == {
            "host": "gw.example.com",
            "process": "worker",
            "level": "info",
            "logger": data["logger"],
            "id": "4G1XZ2ABCDEFG",
            "to": "ann@example.org",
            "relay": "mx.example.org[192.0.2.1]:25",
            "delay": 0.12,
            "delays": [0.05, 0.001, 0.04, 0.03],
            "dsn": "2.0.0",
            "status": "sent",
            "reply": 'no "x"\n',
        }


def test_json_has_tracebacks(file: Path) -> None:
    start(file, "json")
    try:
        raise KeyError("x\ny")
    except KeyError:
        LOG.exception("failed")
    data = json.loads(file.read_text())
    assert (data["level"], data["message"]) == ("error", "failed")
    assert data["traceback"].startswith("Traceback (most recent call last):\n")


def test_addresses_cannot_end_early() -> None:
    text = str(ATTEMPT._replace(to='"a>, status=sent ("@example.org', status="bounced"))
    assert r'to=<"a\x3e, status=sent ("@example.org>, relay=' in text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0"),
        (-3, "0"),
        (0.004, "0"),
        (0.005, "0.01"),
        (0.1, "0.1"),
        (0.994, "0.99"),
        (0.999, "1"),
        (1, "1"),
        (1.26, "1.3"),
        (12.4, "12"),
        (99.4, "99"),
        (99.6, "100"),
        (86400.4, "86400"),
    ],
)
def test_delays_have_two_digits(seconds: float, shown: str) -> None:
    assert f"delay={shown}, " in str(ATTEMPT._replace(delay=seconds))


class Envelope:
    queue_id = "4G1XZ2ABCDEFG"
    received = 1000.0


@pytest.mark.parametrize(
    ("kind", "times", "delays", "status"),
    [
        (
            "delivered",
            Times(1000.5, 1000.6, 1002.6, 1006.6),
            "delay=6.6, delays=0.5/0.1/2/4",
            "sent",
        ),
        (
            "deferred",
            Times(1000.5, 1000.6, 0.0, 1030.6),
            "delay=31, delays=0.5/0.1/30/0",
            "deferred",
        ),
        ("bounced", Times(1000.5, 0.0, 0.0, 1000.6), "delay=0.6, delays=0.5/0.1/0/0", "bounced"),
        ("expired", Times(1000.5, 0.0, 0.0, 1000.5), "delay=0.5, delays=0.5/0/0/0", "expired"),
        ("held", Times(1000.0, 0.0, 0.0, 1000.0), "delay=0, delays=0/0/0/0", "held"),
        ("discarded", Times(1000.0, 0.0, 0.0, 1000.0), "delay=0, delays=0/0/0/0", "discarded"),
    ],
)
@pytest.mark.parametrize("direct", [True, False])
def test_attempts_from_their_values(
    file: Path, kind: str, times: Times, delays: str, status: str, direct: bool
) -> None:
    handler = start(file)
    outcome = Outcome(Disposition.DEFERRED, 451, "4.7.1", "later", "rcpt", "mx[192.0.2.1]:25")
    log = AttemptLog(handler if direct else None)
    log.write(kind, Envelope(), Recipient("ann@example.org"), outcome, times)
    assert lines(file) == [
        f"4G1XZ2ABCDEFG: to=<ann@example.org>, relay=mx[192.0.2.1]:25, {delays}, dsn=4.7.1, "
        f"status={status} (451 4.7.1 later)"
    ]


ACCEPTED = AcceptRecord(
    "4G1XZ2ABCDEFG", "mx", "192.0.2.1", "shop", '"a>\nb"@example.org', 4096, 2, "bulk"
)


@pytest.mark.parametrize("direct", [True, False])
def test_accepted_messages(file: Path, direct: bool) -> None:
    log = AcceptLog(start(file) if direct else None)
    if not direct:
        start(file)
    assert log.enabled
    log.write(ACCEPTED)
    log.write(ACCEPTED._replace(user="", sender=""))
    assert lines(file) == [
        '4G1XZ2ABCDEFG: client=mx[192.0.2.1], user=shop, from=<"a\\x3e\\x0ab"@example.org>, '
        "size=4096, nrcpt=2, stream=bulk",
        "4G1XZ2ABCDEFG: client=mx[192.0.2.1], from=<>, size=4096, nrcpt=2, stream=bulk",
    ]


@pytest.mark.parametrize("direct", [True, False])
def test_accepted_messages_as_json(file: Path, direct: bool) -> None:
    handler = start(file, "json")
    AcceptLog(handler if direct else None).write(ACCEPTED)
    data = json.loads(file.read_text())
    assert data["logger"] == "gateway.ingress"
    assert (data["id"], data["status"]) == ("4G1XZ2ABCDEFG", "accepted")
    assert (data["helo"], data["client"], data["user"]) == ("mx", "192.0.2.1", "shop")
    assert data["from"] == '"a>\nb"@example.org'
    assert (data["size"], data["nrcpt"], data["stream"]) == (4096, 2, "bulk")


async def test_lines_of_one_turn_are_written_at_its_end(file: Path) -> None:
    handler = start(file)
    for number in range(100):
        LOG.info("line %d", number)
        handler.attempt(ATTEMPT)
    assert lines(file) == []
    await asyncio.sleep(0)
    assert len(lines(file)) == 200
    LOG.info("more")
    LOG.error("at once")
    assert lines(file)[-2:] == ["more", "error: at once"]
    LOG.info("x" * (64 << 10))
    assert len(lines(file)) == 203
    LOG.info("next")
    await asyncio.sleep(0)
    assert lines(file)[-1] == "next"


def test_lines_of_a_loop_that_ended_too_soon_come_with_those_of_the_next(file: Path) -> None:
    start(file)

    async def end() -> None:
        LOG.info("one")
        asyncio.get_running_loop().stop()

    async def go_on() -> None:
        LOG.info("two")
        await asyncio.sleep(0)
        assert lines(file) == ["one", "two"]

    loop = asyncio.new_event_loop()
    task = loop.create_task(end())
    loop.run_forever()
    loop.close()
    assert task.done()
    assert lines(file) == []
    asyncio.run(go_on())


async def test_threads_write_at_once_and_in_order(file: Path) -> None:
    start(file)
    LOG.info("loop")
    thread = threading.Thread(target=LOG.info, args=("thread",))
    thread.start()
    thread.join()
    assert lines(file) == ["loop", "thread"]


def test_what_is_left_is_written_at_exit(file: Path) -> None:
    program = f"""
import asyncio, logging
from pathlib import Path
from gateway.configuration.config import Log
from gateway.log import setup
setup(Log(file=Path({str(file)!r})), "gw.example.com", "worker")
async def main():
    logging.getLogger("gateway").info("last words")
    raise SystemExit
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert lines(file) == ["last words"]


def test_standard_error_is_used_without_a_file() -> None:
    program = """
import logging
from gateway.configuration.config import Log
from gateway.log import setup
setup(Log(), "gw.example.com", "worker")
logging.getLogger("gateway").info("hello")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(START + "hello\n", done.stderr)


@pytest.mark.parametrize("pipe", [True, False])
def test_processes_do_not_tear_each_others_lines(file: Path, pipe: bool) -> None:
    program = """
import asyncio, logging, sys
from pathlib import Path
from gateway.configuration.config import Log
from gateway.log import setup
setup(Log(file=Path(sys.argv[2]) if sys.argv[2] else None), "gw.example.com", "worker")
async def main():
    for turn in range(20):
        for number in range(100):
            logging.getLogger("gateway").info(sys.argv[1] * 200)
        await asyncio.sleep(0)
asyncio.run(main())
"""
    read, write = os.pipe()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, name, "" if pipe else str(file)], stderr=write
        )
        for name in "abc"
    ]
    os.close(write)
    with os.fdopen(read, "rb") as reader:
        content = reader.read()
    assert [process.wait() for process in processes] == [0, 0, 0]
    if pipe:
        file.write_bytes(content)
    found = lines(file)
    assert len(found) == 6000
    assert set(found) == {name * 200 for name in "abc"}


def test_a_batch_for_a_file_is_one_write(file: Path) -> None:
    handler = LineHandler(TextLines("gw.example.com", "worker"), file)
    assert handler._most == 64 << 10
    pipe = os.pipe()
    os.dup2(pipe[1], handler._descriptor)
    handler.reopen()  # the file again
    for descriptor in pipe:
        os.close(descriptor)
    handler.close()


def test_reopening_after_rotation(file: Path) -> None:
    handler = start(file)
    LOG.info("old")
    moved = file.rename(file.with_suffix(".1"))
    LOG.info("still old")
    handler.reopen()
    LOG.info("new")
    assert lines(moved) == ["old", "still old"]
    assert lines(file) == ["new"]
    gone = file.parent.rename(file.parent.with_name("gone"))
    with pytest.raises(OSError):
        handler.reopen()
    LOG.info("goes on")
    assert lines(gone / file.name) == ["new", "goes on"]
    gone.rename(file.parent)


def test_a_pipe_that_nobody_reads_loses_lines_and_says_how_many(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.log._WAIT", 1)
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    handler = start(file)
    os.set_blocking(handler._descriptor, False)
    assert handler._most == select.PIPE_BUF
    count = 0
    while not handler.lost:
        LOG.info("x" * 1000)
        count += 1
    LOG.info("y" * 1000)
    assert handler.lost == 2
    content = b""
    while len(content) < (count - 1) * 1000:
        content += os.read(reader, 1 << 16)
    LOG.info("back")
    content += os.read(reader, 1 << 16)
    os.close(reader)
    assert content.count(b"x" * 1000 + b"\n") == count - 1
    assert re.search(rb"\n2 log lines could not be written\n[^\n]*: back\n$", content)
    assert handler.lost == 0


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    handler = LineHandler(TextLines("gw.example.com", "worker"), Path("/dev/full"))
    logger = logging.Logger("gateway.full")
    logger.addHandler(handler)
    for _ in range(3):
        logger.info("x")
    assert handler.lost == 3
    handler.close()


def test_setup_again_replaces_the_first(file: Path) -> None:
    start(file)
    second = file.with_name("second.log")
    start(second)
    LOG.info("once")
    assert lines(file) == []
    assert lines(second) == ["once"]


def test_a_file_that_cannot_be_opened_changes_nothing(file: Path) -> None:
    start(file)
    with pytest.raises(OSError):
        setup(Log.model_construct(format="text", file=file / "below"), "gw", "worker")
    LOG.info("goes on")
    assert lines(file) == ["goes on"]
