"""`gateway try`: what it shows, what it writes, and what it leaves alone."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import apsw
import pytest
from click.testing import CliRunner, Result

from gateway.cli.command import gateway
from gateway.cli.plugins import add_plugin_commands
from gateway.cli.try_message import try_message
from gateway.limits import Limits
from gateway.trial import scratch
from tests.assembly import below_trace, configure, write_plugin

MESSAGE = (
    b"From: Ada <ada@example.com>\r\nTo: b@example.net\r\nCc: c@example.org\r\n"
    b"Subject: test\r\n\r\nHello\r\nworld\r\n"
)

FOOTER = """
from pydantic import BaseModel, ConfigDict
from gateway.hooks import *


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = "Regards"


class Footer(Plugin[Config]):
    @hookimpl
    def message(self, message):
        message.headers.add("X-Footer", "yes")
        for part in message.text_parts("text/plain"):
            part.text += f"{self.config.text}\\n"


class Other(Plugin[Config]):
    @hookimpl
    async def message(self, message):
        message.headers.add("X-Other", self.config.text)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a message and a file of two plugins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "message.eml").write_bytes(MESSAGE)
    (tmp_path / "footer.py").write_text(FOOTER)
    return tmp_path


def _try(
    *words: str,
    status: int = 0,
    message: str | None = "message.eml",
    stdin: bytes = b"",
    color: bool = False,
) -> Result:
    arguments = [*words, *([] if message is None else [message])]
    result = CliRunner().invoke(try_message, arguments, input=stdin, color=color)
    assert result.exit_code == status, result.output
    return result


def _data(*words: str, status: int = 0, **how: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(_try(*words, "--json", status=status, **how).stdout)
    return data


def _lines(*words: str, status: int = 0, **how: Any) -> list[str]:
    return [line.strip() for line in _try(*words, status=status, **how).stdout.splitlines()]


def _plugin(folder: Path, body: str, name: str = "site") -> str:
    return write_plugin(folder, name, body)


# What is shown.


def test_what_a_plugin_did(site: Path) -> None:
    output = _try("-p", "./footer.py:Footer").stdout
    assert output.startswith(
        "from <ada@example.com> to <b@example.net>, <c@example.org>, 98 octets, client 127.0.0.1\n"
    )
    assert "\nmessage\n  footer  " in output
    assert (
        "    header field X-Footer added:\n    + X-Footer: yes\n"
        "    text/plain, text part 0, changed:\n      Hello\n      world\n    + Regards\n"
    ) in output
    assert "\noutcome\n  (the message): 250 2.0.0 Ok: queued as " in output
    assert "queued: from <ada@example.com> to <b@example.net>, <c@example.org>, " in output


def test_the_same_in_json(site: Path) -> None:
    data = _data("-p", "./footer.py:Footer={text: Hi}")
    assert data["accepted"]
    assert [one["command"] for one in data["dialogue"]] == [
        "",
        "EHLO localhost",
        "MAIL FROM:<ada@example.com>",
        "RCPT TO:<b@example.net>",
        "RCPT TO:<c@example.org>",
        "DATA",
        "(the message)",
    ]
    (call,) = data["calls"]
    assert (call["plugin"], call["hook"], call["answer"]) == ("footer", "message", None)
    assert call["changed"] == ["header:X-Footer", "text/plain"]
    assert "+ Hi" in call["diff"]
    assert 0 < call["seconds"] < 10
    (copy,) = data["copies"]
    assert copy["recipients"] == ["b@example.net", "c@example.org"]
    assert copy["content"].endswith("Hello\r\nworld\r\nHi\r\n")
    assert copy["size"] == len(copy["content"])
    assert (data["discarded"], data["events"], data["log"]) == ([], [], [])


def test_a_message_that_no_plugin_touches_stays_as_it_is(site: Path, tmp_path: Path) -> None:
    quiet = _plugin(site, "@hookimpl\ndef message(self, message): message.text_parts()")
    lines = _lines("-p", quiet, "--output", "out.eml")
    assert any(line.startswith("site  ") and line.endswith("nothing to do") for line in lines)
    assert below_trace((tmp_path / "out.eml").read_bytes()) == MESSAGE


@pytest.mark.parametrize(
    "content",
    [
        b".Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n",
        b"\r\n",
        b"no header",
        b"Subject: =?utf-8?b?xx\r\n\r\n\xff\xfe\r\n",
    ],
)
def test_odd_messages_pass(site: Path, content: bytes) -> None:
    quiet = _plugin(site, "@hookimpl\ndef message(self, message): pass")
    words = ("-p", quiet, "--sender", "", "--to", "b@example.net", "--output", "out.eml")
    _try(*words, message=None, stdin=content)
    passed = below_trace((site / "out.eml").read_bytes())
    assert passed == (content if content.endswith(b"\r\n") else content + b"\r\n")


def test_real_messages_pass(site: Path, mail_corpus: Path) -> None:
    quiet = _plugin(site, "@hookimpl\ndef message(self, message): message.text_parts()")
    tried = 0
    for path in sorted(mail_corpus.rglob("*.eml"))[::400][:10]:
        content = path.read_bytes()
        words = ("-p", quiet, "--sender", "a@b.example", "--to", "b@example.net", "-o", "out.eml")
        (site / "out.eml").unlink(missing_ok=True)
        data = _data(*words, message=str(path))
        if data["accepted"]:  # what has a bare CR, or a line too long, is refused
            tried += 1
            with_crlf = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            assert below_trace((site / "out.eml").read_bytes()).rstrip() == with_crlf.rstrip()
    assert tried


def test_every_stage_in_its_order(site: Path) -> None:
    reference = _plugin(
        site,
        """
@hookimpl
def connect(self, client): client.notes["a"] = "b"
@hookimpl
async def helo(self, client): pass
@hookimpl
def mail(self, message): message.stream = message.stream
@hookimpl
async def rcpt(self, recipient):
    await asyncio.sleep(0)
    recipient.notes["kind"] = "new"
    if recipient.address[0] == "c":
        return Discard("no c")
@hookimpl
def message(self, message):
    message.sender = "new@example.com"
    message.notes["x"] = "y"
    message.recipients[0].return_path = "vp@example.com"
@hookimpl
def seal(self, message): message.headers.prepend("X-Seal", "z")
""",
    )
    data = _data("-p", reference)
    hooks = ["connect", "helo", "mail", "rcpt", "rcpt", "message", "seal"]
    assert [call["hook"] for call in data["calls"]] == hooks
    assert data["calls"][0]["facts"] == [{"name": "note a", "before": None, "after": "b"}]
    assert data["calls"][4]["answer"] == {"type": "Discard", "reason": "no c"}
    assert data["discarded"] == [{"recipient": "c@example.org", "reason": "no c"}]
    assert data["calls"][5]["changed"] == ["sender"]
    assert {fact["name"] for fact in data["calls"][5]["facts"]} == {
        "note x",
        "return path of <b@example.net>",
    }
    lines = _lines("-p", reference)
    assert any(line.endswith("<c@example.org>  discards: no c") for line in lines)
    assert "+ note kind: new" in lines
    assert "discarded: <c@example.org>: no c" in lines
    assert "- ada@example.com" in lines
    assert "+ new@example.com" in lines


@pytest.mark.parametrize(
    ("answer", "said", "outcome"),
    [
        ("Reject('no')", "refuses: 550 5.7.1 no", "(the message): 550 5.7.1 no"),
        ("Tempfail('later')", "refuses: 451 4.7.1 later", "(the message): 451 4.7.1 later"),
        ("Quarantine('odd')", "has it held: odd", "held until a person decides: odd"),
        ("Delay(300, 'night')", "delays by 300 s: night", "goes out in 300 s"),
        ("Discard('no')", "discards: no", "discarded: <b@example.net>: no"),
    ],
)
def test_answers(site: Path, answer: str, said: str, outcome: str) -> None:
    reference = _plugin(site, f"@hookimpl\ndef message(self, message): return {answer}")
    lines = _lines("-p", reference)
    assert any(line.startswith("site  ") and line.endswith(said) for line in lines)
    assert outcome in lines


@pytest.mark.parametrize(
    ("body", "fault", "line"),
    [
        (
            "raise ValueError('no good')",
            "raised ValueError: no good",
            "raise ValueError('no good')",
        ),
        ("return 3", "answered int, and may answer None, Reject, Tempfail", ""),
        ("while True: pass", "ran longer than 0.3 s", "while True: pass"),
        ("return Accept()", "answered Accept, and may answer None, Reject, Tempfail", ""),
        ("raise SystemExit(3)", "raised SystemExit: 3", "raise SystemExit(3)"),
        ("json = __import__('json'); json.loads('{')", "raised JSONDecodeError", "json.loads('{')"),
    ],
)
def test_faults(site: Path, body: str, fault: str, line: str) -> None:
    reference = _plugin(site, f"@hookimpl\ndef message(self, message):\n    {body}")
    words = ("-p", f"{reference}={{timeout: 300ms, on_error: quarantine}}")
    lines = _lines(*words, status=1)
    (said,) = [one for one in lines if one.startswith("FAILED: ")]
    assert said.startswith(f"FAILED: {fault}")
    assert said.endswith("(on_error: quarantine)")
    assert any(one.startswith("held until a person decides: plugin site failed") for one in lines)
    if line:
        place = f"{site / 'site.py'}:"
        assert any(one.startswith(place) and one.endswith(line) for one in lines)
    assert not any("gateway/trial" in one for one in lines)


def test_a_fault_in_json(site: Path) -> None:
    reference = _plugin(site, "@hookimpl\nasync def message(self, message): raise KeyError('x')")
    data = _data("-p", reference, status=1)
    assert not data["accepted"]
    (call,) = data["calls"]
    assert (call["fault"], call["on_error"]) == ("raised KeyError: 'x'", "tempfail")
    assert len(call["traceback"]) == 1


def test_a_copy_for_each_recipient(site: Path) -> None:
    body = (
        "per_recipient = True\n@hookimpl\ndef message(self, message):\n"
        "    message.headers.add('X-To', message.recipients[0].address)"
    )
    lines = _lines("-p", _plugin(site, body), "--output", "out.eml")
    assert any(line.startswith("copy 1 of 2: ") for line in lines)
    assert any(line.startswith("site  ") and line.endswith("<c@example.org>") for line in lines)
    assert b"X-To: b@example.net" in (site / "out.eml").read_bytes()
    assert b"X-To: c@example.org" in (site / "out.2.eml").read_bytes()
    result = _try("-p", "./site.py", "--output", "-", status=2)
    assert "there are 2 copies of the message" in result.stderr


def test_a_blocking_plugin(site: Path) -> None:
    body = (
        "blocking = True\n@hookimpl\ndef message(self, message):\n"
        "    time.sleep(0.01)\n    message.headers.add('X-A', 'b')"
    )
    (call,) = _data("-p", _plugin(site, body))["calls"]
    assert call["changed"] == ["header:X-A"]
    assert call["seconds"] >= 0.01


def test_the_message_on_standard_output_and_the_story_on_standard_error(site: Path) -> None:
    result = _try("-p", "./footer.py:Footer", "-o", "-", message=None, stdin=MESSAGE)
    assert below_trace(result.stdout_bytes).endswith(b"Hello\r\nworld\r\nRegards\r\n")
    assert result.stderr.startswith("from <ada@example.com>")


def test_timings(site: Path) -> None:
    lines = _lines("-p", "./footer.py:Footer", "-p", "./footer.py:Other", "--timings")
    table = [line.split() for line in lines[lines.index("timings") + 1 :]]
    assert [row[:2] for row in table[:2]] == [["footer", "message"], ["footer#2", "message"]]
    assert table[0][3:] == ["ms", "1", "call"]
    assert table[2][0] == "all"


def test_colour_is_for_terminals_and_can_be_turned_off(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b[32m+ X-Footer: yes\x1b[0m" in _try("-p", "./footer.py:Footer", color=True).stdout
    assert "\x1b" not in _try("-p", "./footer.py:Footer").stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in _try("-p", "./footer.py:Footer", color=True).stdout


def test_what_a_plugin_says_cannot_disturb_the_terminal(site: Path) -> None:
    body = "@hookimpl\ndef message(self, message): return Quarantine('\\x1b[2J odd')"
    assert "\x1b" not in _try("-p", _plugin(site, body), "--to", "b@example.net").stdout


# Which plugins.


def test_several_plugins_in_their_order(site: Path) -> None:
    (site / "settings.yaml").write_text("# of Other\ntext: first\n")
    words = ("-p", "./footer.py:Other=@settings.yaml", "-p", "./footer.py:Footer={text: 'a: b'}")
    data = _data(*words)
    assert [call["plugin"] for call in data["calls"]] == ["footer", "footer#2"]
    content = data["copies"][0]["content"]
    assert "X-Other: first" in content
    assert content.endswith("a: b\r\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["-p", "./footer.py:Footer={txt: x}"],
            '-p ./footer.py:Footer:1: txt: unknown key; did you mean "text"?\n',
        ),
        (
            ["-p", "./footer.py:Footer=@bad.yaml"],
            'bad.yaml:2: txt: unknown key; did you mean "text"?\n',
        ),
        (["-p", "./footer.py:Footer={"], "-p ./footer.py:Footer:1: YAML syntax"),
        (["-p", "./footer.py:Footer="], "-p ./footer.py:Footer: expected settings"),
        (["-p", "./footer.py:Footer=@none.yaml"], "none.yaml: no such file\n"),
        (["-p", "./footer.py"], "-p ./footer.py: "),
        (["-p", "./none.py"], "-p ./none.py: no such file: "),
        (["-p", "suppresion"], '-p suppresion: no such plugin; did you mean "suppression"?'),
        (["-p", "=x"], "expected PLUGIN or PLUGIN=CONFIG"),
        (["-p", "./footer.py:Footer={on_error: never}"], "-p ./footer.py:Footer:1: on_error: "),
        ([], "gateway.yaml: no such file\n"),
        (["-p", "./footer.py:Footer", "--stream", "bulk"], "there is no stream 'bulk'"),
        (["-p", "./footer.py:Footer", "--client", "x"], '--client: "x" is no IP network'),
        (["-p", "./footer.py:Footer", "--client", "10.0.0.0/8"], "expected one IP address"),
        (["-p", "./footer.py:Footer", "--to", "a b"], "--to: 'a b' is no address"),
        (["-p", "./footer.py:Footer", "--sender", "x>"], "--sender: 'x>' is no address"),
        (["-p", "./footer.py:Footer", "--helo", "a b"], "--helo: expected a name"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(site: Path, words: list[str], problem: str) -> None:
    (site / "bad.yaml").write_text("\ntxt: x\n")
    assert problem in _try(*words, status=2).stderr


def test_a_plugin_that_cannot_start(site: Path) -> None:
    reference = _plugin(site, "@hookimpl\ndef start(self, context): raise OSError('no database')")
    assert _try("-p", reference, status=1).stderr == (
        "gateway: plugin site cannot start: OSError: no database\n"
    )


def test_the_chain_of_a_configuration(site: Path) -> None:
    configure(
        site,
        "streams:\n  bulk: {when: {header: {X-Bulk: '*'}}}\n"
        "plugins:\n  - ./footer.py:Footer: {text: Yours}\n"
        "  - ./footer.py:Other: {when: {stream: bulk}}\n"
        "  - ./footer.py:Other: {when: {user: shop}}\n",
    )
    assert [call["plugin"] for call in _data()["calls"]] == ["footer"]
    assert len(_data("--stream", "bulk")["calls"]) == 2
    assert _data("--stream", "bulk")["copies"][0]["stream"] == "bulk"
    assert [call["plugin"] for call in _data("--user", "shop")["calls"]] == ["footer", "footer#3"]
    own = ("-c", str(site / "gateway.yaml"))
    (call,) = _data(*own, "-p", "./footer.py:Footer")["calls"]
    assert "+ Yours" in call["diff"], "an entry of the configuration has its settings"
    (call,) = _data(*own, "-p", "./footer.py:Footer={text: Mine}")["calls"]
    assert "+ Mine" in call["diff"]
    calls = _data(*own, "--user", "shop", "-p", "footer#3", "-p", "./footer.py:Footer")["calls"]
    assert [call["plugin"] for call in calls] == ["footer#3", "footer"]


# The envelope.


def test_the_message_says_who_sends_it_to_whom(site: Path) -> None:
    content = (
        b"From: =?utf-8?q?J=C3=B6rg?= <j@example.com>\nTo: x: a@example.net, a@example.net;\n"
        b"Cc: not an address, B <b@example.net>\n\nHi\n"
    )
    data = _data("-p", "./footer.py:Footer", message=None, stdin=content)
    copy = data["copies"][0]
    assert (copy["sender"], copy["recipients"]) == (
        "j@example.com",
        ["a@example.net", "b@example.net"],
    )
    assert data["notes"] == [
        "line ends are LF there; here they are CRLF, as SMTP has them",
        "the sender <j@example.com> is that of From",
        "the recipients are those of To and Cc",
    ]


def test_a_message_to_nobody(site: Path) -> None:
    result = _try("-p", "./footer.py:Footer", message=None, stdin=b"From: a@b\n\nHi\n", status=2)
    assert "the message names no recipient in To or Cc: say --to ADDRESS" in result.stderr


def test_the_envelope_that_is_asked_for(site: Path) -> None:
    reference = _plugin(
        site,
        "@hookimpl\ndef message(self, message):\n    c = message.client\n"
        "    message.headers.add('X-Client', f'{c.address} {c.helo} {c.user}')",
    )
    words = ("--sender", "", "--to", "ü@example.net", "--client", "2001:db8::1", "--user", "shop")
    data = _data("-p", reference, *words, "--helo", "mx.example")
    copy = data["copies"][0]
    assert (copy["sender"], copy["recipients"]) == ("", ["ü@example.net"])
    assert "X-Client: 2001:db8::1 mx.example shop\r\n" in copy["content"]


def test_the_first_line_of_an_mbox_file(site: Path) -> None:
    data = _data("-p", "./footer.py:Footer", message=None, stdin=b"From x Mon Jan 1\r\n" + MESSAGE)
    assert "From x" not in data["copies"][0]["content"]
    assert "mbox" in data["notes"][0]


def test_what_smtp_does_not_carry_is_refused(site: Path) -> None:
    data = _data("-p", "./footer.py:Footer", message=None, stdin=MESSAGE + b"a\rb\r\n")
    assert data["reply"].startswith("550 5.6.0 bare CR in the message")
    assert (data["calls"], data["copies"]) == ([], [])


def test_a_file_that_is_not_there(site: Path) -> None:
    stderr = _try("-p", "./footer.py:Footer", status=1, message="none.eml").stderr
    assert stderr == "gateway: none.eml: No such file or directory\n"


def test_mail_that_a_plugin_claims(site: Path) -> None:
    reference = _plugin(
        site,
        "@hookimpl\ndef start(self, context): self.emit = context.emit\n"
        "@hookimpl\ndef claim(self, recipient):\n"
        "    return Accept() if recipient.address[0] == 'b' else None\n"
        "@hookimpl\nasync def receive(self, message):\n"
        "    await self.emit(Event('taken', 1.0, message.id, recipient='x@example.net'))",
    )
    data = _data("-p", reference, "--to", "b@example.net")
    assert [call["hook"] for call in data["calls"]] == ["claim", "receive"]
    assert [(event["type"], event["recipient"]) for event in data["events"]] == [
        ("taken", "x@example.net")
    ]
    lines = _lines("-p", reference, "--to", "b@example.net")
    assert "taken <x@example.net>" in lines
    assert any(line.startswith("no copy goes out") for line in lines)


# Which way it would go.


def test_the_way_out(site: Path) -> None:
    reference = _plugin(
        site,
        "@hookimpl\ndef route(self, delivery):\n"
        "    if delivery.domain == 'example.org': return Reject('no way')\n"
        "@hookimpl\ndef source(self, delivery): return Source('192.0.2.1', 'out.example')\n"
        "@hookimpl\ndef admit(self, delivery):\n"
        "    delivery.ceilings['x'] = 5\n    return Delay(60, 'slowly', lane=True)",
    )
    configure(
        site,
        "relay: {routes: {example.net: {via: ['10.0.0.5:25', '10.0.0.6:26']},"
        f" example.org: {{via: ['10.0.0.7:25']}}}}}}\nplugins: [{reference}]",
    )
    ways = _data("--deliver")["copies"][0]["ways"]
    assert [way["lane"] for way in ways] == ["example.net", "example.org"]
    assert ways[0]["hops"] == ["10.0.0.5:25", "10.0.0.6:26"]
    assert ways[0]["source"] == {"address": "192.0.2.1", "helo": "out.example"}
    assert ways[0]["ceilings"] == {"x": 5}
    assert ways[0]["answer"]["type"] == "Delay"
    assert ways[1]["answer"]["text"] == "no way"
    lines = _lines("--deliver")
    assert "by 10.0.0.5:25, then 10.0.0.6:26" in lines
    assert "from 192.0.2.1 as out.example" in lines
    assert "at most 5 connections at a time (x)" in lines
    assert "delays the whole lane by 60 s: slowly" in lines
    assert "refuses: 550 5.7.1 no way" in lines
    assert _data()["copies"][0]["ways"] == []


# What is left alone.


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"a folder"
        for path in sorted(folder.rglob("*"))
    }


GREEDY = """
@hookimpl
def start(self, context):
    self.context = context
    folder = context.data_folder()
    self.seen = (folder / "state").read_text() if (folder / "state").exists() else "nothing"
    (folder / "state").write_text("changed")
    (folder / "new").write_text("new")

@hookimpl
def message(self, message):
    context = self.context
    def one_more(cell): return (cell.value + 1 if cell else 1, 2e9, "")
    context.limits.change("k", context.clock(), one_more)
    message.headers.add("X-Seen", self.seen)
    message.headers.add("X-Count", f"{context.limits.read('k', context.clock()).value:.0f}")
    message.headers.add("X-Role", context.role)
    context.emit(Event("seen", context.clock(), message.id))
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_nothing_of_the_site_is_changed(site: Path, temporary: Path) -> None:
    config = configure(site, f"plugins: [{_plugin(site, GREEDY, 'greedy')}]")
    own = config.spool.path / "plugins" / "greedy"
    own.mkdir(parents=True)
    (own / "state").write_text("as it was")
    limits = Limits(config.spool.limits)
    limits.change("k", 1_700_000_000.0, lambda cell: (41.0, 2e9, ""))
    limits.close()
    before = _tree(config.spool.path)
    content = _data()["copies"][0]["content"]
    for line in ("X-Seen: as it was\r\n", "X-Count: 42\r\n", "X-Role: worker\r\n"):
        assert line in content
    assert _tree(config.spool.path) == before
    assert list(temporary.iterdir()) == []


def test_nothing_is_made_where_there_is_no_site_yet(site: Path, temporary: Path) -> None:
    config = configure(site, f"plugins: [{_plugin(site, GREEDY, 'greedy')}]")
    assert "X-Seen: nothing\r\n" in _data()["copies"][0]["content"]
    assert not config.spool.path.exists()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("is_open", [True, False])
def test_a_database_is_read_as_it_is(site: Path, is_open: bool) -> None:
    reference = _plugin(
        site,
        "@hookimpl\ndef start(self, context):\n"
        "    import sqlite3\n"
        "    self.db = sqlite3.connect(context.data_folder() / 'a.db')\n"
        "@hookimpl\ndef stop(self): self.db.close()\n"
        "@hookimpl\ndef message(self, message):\n"
        "    found = self.db.execute('SELECT max(x) FROM t').fetchone()[0]\n"
        "    self.db.execute('INSERT INTO t VALUES (99)')\n"
        "    self.db.commit()\n"
        "    message.headers.add('X-Found', str(found))",
    )
    config = configure(site, f"plugins: [{reference}]")
    folder = config.spool.path / "plugins" / "site"
    folder.mkdir(parents=True)
    db = apsw.Connection(str(folder / "a.db"))
    db.pragma("journal_mode", "wal")
    db.execute("CREATE TABLE t (x); INSERT INTO t VALUES (7)")
    if not is_open:
        db.close()
    names = sorted(path.name for path in folder.iterdir())
    assert ("a.db-wal" in names) is is_open
    assert "X-Found: 7\r\n" in _data()["copies"][0]["content"]
    assert sorted(path.name for path in folder.iterdir()) == names
    if is_open:
        assert db.execute("SELECT max(x) FROM t").get == 7
        db.close()


def test_what_is_too_large_is_not_copied_and_said(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "MOST", 5)
    config = configure(site, f"plugins: [{_plugin(site, GREEDY, 'greedy')}]")
    own = config.spool.path / "plugins" / "greedy"
    own.mkdir(parents=True)
    (own / "state").write_text("as it was")
    data = _data()
    assert "X-Seen: nothing\r\n" in data["copies"][0]["content"]
    assert "greedy has 0.0 GiB of files, which are not copied" in data["notes"][-1]


def test_the_suppression_list_of_the_site_is_asked(site: Path) -> None:
    config = configure(site, "plugins: [suppression]")
    words = ["-c", str(site / "gateway.yaml"), "suppression", "add", "b@example.net"]
    add_plugin_commands(gateway, words)
    try:
        assert CliRunner().invoke(gateway, words).exit_code == 0
    finally:
        del gateway.commands["suppression"]
    before = _tree(config.spool.path)
    data = _data()
    assert data["dialogue"][3]["reply"].startswith("550 5.7.1")
    assert [event["type"] for event in data["events"]] == ["suppressed"]
    assert _tree(config.spool.path) == before
    assert any("suppressed" in line for line in data["log"])
