"""What `gateway why` reads in logs: lines in both formats, and files of any size and age."""

from __future__ import annotations

import gzip
import io
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.history.happening import Happening
from gateway.history.log_record import happening_of
from gateway.history.log_search import BLOCK, LogSearchError, lines_in, lines_of, rotated, size_of
from gateway.log_line import INGRESS, AcceptRecord, AttemptRecord, JsonLines, TextLines

ID = "0MQPR8F3E3801"
OTHER = "0MQPR8F4TN801"
TIME = 1_776_211_964.195

Lines = TextLines | JsonLines
LINES: list[Lines] = [TextLines("gw.example.com", "worker"), JsonLines("gw.example.com", "worker")]

ATTEMPT = AttemptRecord(
    ID,
    "ada@example.net",
    "mx.example.net[192.0.2.25]:25",
    0.1,
    (0.01, 0.0, 0.06, 0.03),
    "2.0.0",
    "sent",
    "250 2.0.0 Ok: queued as (4VJ)",
)


@pytest.fixture(params=LINES, ids=["text", "json"])
def lines(request: pytest.FixtureRequest) -> Lines:
    found: Lines = request.param
    return found


def _line(lines: Lines, message: str, name: str = INGRESS, level: int = logging.INFO) -> str:
    record = logging.LogRecord(name, level, "", 0, message, (), None)
    record.created = TIME
    return lines(record).rstrip("\n")


def _read(line: str) -> Happening:
    happening = happening_of(line.rstrip("\n"), ID)
    assert happening is not None, line
    assert happening.time == pytest.approx(TIME, abs=0.001)
    return happening


def test_an_attempt(lines: Lines) -> None:
    read = _read(lines.attempt(ATTEMPT, TIME))
    assert (read.kind, read.recipient, read.text) == ("delivered", ATTEMPT.to, ATTEMPT.reply)
    assert read.details == {
        "relay": ATTEMPT.relay,
        "delay": 0.1,
        "delays": [0.01, 0.0, 0.06, 0.03],
        "dsn": "2.0.0",
    }


_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<>"), max_size=20)


@given(
    to=_WORDS,
    reply=_WORDS,
    status=st.sampled_from(["deferred", "bounced", "expired", "held"]),
    format_=st.sampled_from(LINES),
)
def test_any_attempt(to: str, reply: str, status: str, format_: Lines) -> None:
    attempt = ATTEMPT._replace(to=to, reply=reply, status=status)
    read = _read(format_.attempt(attempt, TIME))
    assert read.kind == status
    if to.isprintable() and reply.isprintable():
        assert (read.recipient, read.text) == (to, reply)


def test_an_accepted_message(lines: Lines) -> None:
    plugins = 'suppression:0.11ms footer:0.40ms[headers,body,quarantine="a, b (c)"]'
    record = AcceptRecord(ID, "[10.0.0.7]", "10.0.0.7", "shop", "", 2210, 2, "bulk", plugins)
    read = _read(lines.accepted(record, TIME))
    assert read.kind == "accepted"
    assert read.details == {
        "helo": "[10.0.0.7]",
        "client": "10.0.0.7",
        "user": "shop",
        "sender": "",
        "size": 2210,
        "recipients": 2,
        "stream": "bulk",
    }
    assert [step.plugin for step in read.plugins] == ["suppression", "footer"]
    assert read.plugins[1].changed == ("headers", "body")
    assert read.plugins[1].results[0].reason == "a, b (c)"


def test_a_sender_cannot_invent_what_plugins_did(lines: Lines) -> None:
    sender = '"x>, size=1, nrcpt=1, stream=a, plugins=evil:1.00ms"@example.com'
    record = AcceptRecord(ID, "mx", "10.0.0.7", "", sender, 5, 1, "bulk", "good:1.00ms")
    read = _read(lines.accepted(record, TIME))
    assert [step.plugin for step in read.plugins] == ["good"]
    assert read.details["size"] == 5


@pytest.mark.parametrize(
    ("message", "kind", "recipient", "text"),
    [
        ("held: looks odd", "held", "", "looks odd"),
        (
            "to=<b@example.net>, status=discarded (suppressed: (x))",
            "discarded",
            "b@example.net",
            "suppressed: (x)",
        ),
        ("to=<b@example.net>, held by hand", "held", "b@example.net", "by hand"),
        ("to=<b@example.net>, released by hand", "released", "b@example.net", "by hand"),
        ("to=<b@example.net>, rerouted by hand", "note", "b@example.net", "rerouted by hand"),
        (
            "to=<b@example.net>, received by plugin x",
            "note",
            "b@example.net",
            "received by plugin x",
        ),
        ("message refused: 550 no", "refused", "", "550 no"),
        (
            "message refused: 550 no, client=192.0.2.1, from=<a@b.example>, plugins=p:1.00ms",
            "refused",
            "",
            "550 no",
        ),
        ("anything else", "note", "", "anything else"),
        ("two\nlines", "note", "", "two\\x0alines"),
    ],
)
def test_other_lines(lines: Lines, message: str, kind: str, recipient: str, text: str) -> None:
    read = _read(_line(lines, f"{ID}: {message}", level=logging.WARNING))
    if isinstance(lines, JsonLines):
        text = text.replace("\\x0a", "\n")
    assert (read.kind, read.recipient, read.text) == (kind, recipient, text)


def test_what_plugins_did_to_a_refused_message(lines: Lines) -> None:
    message = f'{ID}: message refused: 550 no, client=::1, from=<>, plugins=p:1.00ms[reject="550"]'
    read = _read(_line(lines, message))
    assert read.details == {"client": "::1", "sender": ""}
    assert read.plugins[0].results[0].name == "reject"


def test_the_line_of_a_plugin(lines: Lines) -> None:
    message = f"{ID}: to=<b@example.net>, suppressed (manual)"
    read = _read(_line(lines, message, "gateway.plugin.suppression#2"))
    assert (read.kind, read.recipient, read.text) == (
        "note",
        "b@example.net",
        "suppressed (manual)",
    )
    assert read.details == {"plugin": "suppression#2"}


def test_a_report_is_seen_from_both_sides(lines: Lines) -> None:
    line = _line(lines, f"{ID}: report to <a@example.com>: {OTHER}", "gateway.dispatch")
    assert _read(line).details == {"report": OTHER}
    other = happening_of(line, OTHER)
    assert other is not None
    assert (other.kind, other.details) == ("note", {"about": ID})


def test_what_is_about_another_message(lines: Lines) -> None:
    reply = f"250 2.0.0 Ok: queued as {ID}"
    assert (
        happening_of(lines.attempt(ATTEMPT._replace(message_id=OTHER, reply=reply), TIME), ID)
        is None
    )
    assert happening_of(_line(lines, f"{OTHER}: not {ID}"), ID) is None
    assert happening_of(_line(lines, f"no id, but {ID}: in it"), ID) is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "{}",
        '{"time": 3, "id": 4}',
        f'{{"time": "2026-04-15T09:12:44.195+09:00", "id": "{ID}", "status": "accepted"}}',
        f"9999-99-99T99:99:99.999+99:99 gw gateway/worker[1]: {ID}",
        f"{ID}: without a beginning",
        "[" * 10000,
        '{"time":' * 100_000,
    ],
)
def test_lines_that_cannot_be_understood(line: str) -> None:
    assert happening_of(line, ID) is None


def test_the_journal_may_put_something_before_a_line() -> None:
    line = f"Apr 15 09:12:44 gw gateway[1]: {_line(LINES[0], f'{ID}: held: odd')}"
    assert _read(line).kind == "held"


# Files.


def _found(path: Path, word: str = ID) -> list[str]:
    return list(lines_in(path, word, lambda octets: None))


@pytest.mark.parametrize("packed", [False, True])
def test_lines_are_found_wherever_blocks_are_cut(tmp_path: Path, packed: bool) -> None:
    filler = "x" * 99 + "\n"
    wanted = [f"{ID}: {number} {'y' * 50}" for number in range(4)]
    text = f"{wanted[0]}\n" + filler * (BLOCK // 100) + f"{wanted[1]}\n{filler}{wanted[2]}\n"
    text += filler * (BLOCK // 100) + wanted[3]
    # The second and third line are cut by the end of the first block, at every place in turn.
    for shift in range(0, 200, 7):
        content = ("z" * shift + "\n" + text).encode()
        path = tmp_path / "log"
        path.write_bytes(gzip.compress(content, 1) if packed else content)
        assert _found(path) == wanted
        if packed:
            break  # it takes long, and the cut is in the same code


def test_a_line_with_the_word_twice_is_found_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(f"{ID} and {ID}\n{ID}\n")
    assert _found(path) == [f"{ID} and {ID}", ID]


def test_the_search_tells_how_far_it_has_come(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x\n" * BLOCK)
    told: list[int] = []
    assert list(lines_in(path, ID, told.append)) == []
    assert sum(told) == size_of([path, tmp_path / "none"]) == 2 * BLOCK
    assert len(told) > 1


def test_a_stream_is_read_to_its_end() -> None:
    assert list(lines_of(io.BytesIO(f"a\n{ID} 1\nb\n{ID} 2".encode()), ID)) == [
        f"{ID} 1",
        f"{ID} 2",
    ]


def test_an_endless_line_does_not_fill_the_memory() -> None:
    class Endless(io.RawIOBase):
        left = 8

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            return b"x" * size if self.left > 0 else b""

    assert list(lines_of(Endless(), ID)) == []  # type: ignore[arg-type]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(LogSearchError, match=r"none: No such file"):
        _found(tmp_path / "none")
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(b"x" * 100_000)[:-20])
    with pytest.raises(LogSearchError, match=r"broken\.gz: "):
        _found(broken)


def test_rotated_files_the_newest_first(tmp_path: Path) -> None:
    names = ["log", "log.1", "log.2.gz", "log-20260415", "log-20260414.gz", "log.bak", "other.1"]
    for age, name in enumerate(names):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (TIME - age, TIME - age))
    (tmp_path / "log.3").mkdir()
    path = tmp_path / "log"
    assert [one.name for one in rotated(path, 0.0)] == names[:5]
    assert [one.name for one in rotated(path, TIME - 1.5)] == names[:2]
    assert rotated(tmp_path / "none" / "log", 0.0) == [tmp_path / "none" / "log"]
