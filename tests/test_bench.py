"""The bench: what it makes of figures and of what other programs write."""

from __future__ import annotations

import email
import email.policy
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from email.message import EmailMessage
from pathlib import Path

import dkim
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import bench.daemon
from bench.__main__ import arguments
from bench.case import Case, Figure, Trial
from bench.cases import cases
from bench.chain import DIFFERENCE, PLAIN, PLUGINS, ChainCost, ChainTrial
from bench.daemon import Daemon
from bench.error import BenchError
from bench.hook import HookTime
from bench.load import Load, last_count
from bench.machine import Machine, filesystem, signing_rate
from bench.newsletter import (
    TRACKER,
    VALUES,
    Newsletter,
    check_links,
    check_unsubscribing,
    check_values,
)
from bench.processes import Process, Tree, running
from bench.report import Failure, Report, Result
from bench.run import measure
from bench.signature import DOMAIN, SELECTOR, SigningKey
from bench.systems.gateway import ContentGateway, Gateway, PlainGateway
from bench.systems.system import System
from bench.table import aligned
from bench.throughput import CPU, Throughput, messages_for
from gateway.configuration.config import load_config
from gateway.hooks.load import load_plugins

RATE = Figure("messages/s", 0, more_is_better=True)
COST = Figure("ms/message", 2, more_is_better=False)
MESSAGE = b"From: sender@bench.test\r\nTo: a@example.net\r\nSubject: hello\r\n\r\nbody\r\n"


class Turns(Case):
    """Gives prepared figures and writes down who was asked when."""

    figures = (RATE, COST)

    def __init__(self, answers: Mapping[str, list[float | BenchError]]) -> None:
        super().__init__("turns", "in turn")
        self.answers = answers
        self.diary: list[str] = []

    @contextmanager
    def trial(self, system: System, folder: Path) -> Iterator[Turn]:
        if not self.answers[system.name]:
            raise BenchError("does not start", "its log")
        self.diary.append(f"start {system.name}")
        yield Turn(self, system.name, list(self.answers[system.name]))
        self.diary.append(f"stop {system.name}")


class Turn:
    def __init__(self, case: Turns, name: str, answers: list[float | BenchError]) -> None:
        self.case = case
        self.name = name
        self.answers = answers

    def measure(self) -> Mapping[str, float]:
        self.case.diary.append(self.name)
        answer = self.answers.pop(0)
        if isinstance(answer, BenchError):
            raise answer
        return {RATE.name: answer, COST.name: 1000 / answer}


class Alone(Case):
    """Is about the gateway, and knows what it should reach."""

    figures = (
        Figure("cost ms", 2, more_is_better=False, bar=1.25),
        Figure("rate/s", 0, more_is_better=True),
    )
    alone = True

    def __init__(self) -> None:
        super().__init__("alone", "by itself")

    def trial(self, system: System, folder: Path) -> AbstractContextManager[Trial]:
        raise AssertionError("nothing is started here")


class Named(System):
    """A system that is only a name."""

    install = ""

    def __init__(self, name: str, key: SigningKey) -> None:
        super().__init__(key)
        self.name = name  # type: ignore[misc]

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return f"{self.name} 1.0"

    def launch(self, next_hop: int) -> None:
        raise AssertionError("nothing is started here")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.make(tmp_path_factory.mktemp("key") / "s1.pem")


def result(
    values: Mapping[str, list[float]], failures: Mapping[str, Failure] | None = None
) -> Result:
    measured: dict[str, list[Mapping[str, float]]] = {
        name: [{RATE.name: rate, COST.name: 1000 / rate} for rate in rates]
        for name, rates in values.items()
    }
    return Result(Turns({}), measured, dict(failures or {}))


def machine(
    load: float = 0.1, filesystem: str = "ext4", openssl: float | None = 14_100.0
) -> Machine:
    return Machine(
        cpu="Some CPU",
        cores=4,
        memory_gb=16.2,
        kernel="6.1",
        python="3.11.7",
        load=load,
        filesystem=filesystem,
        fsync_ms=0.254,
        openssl="OpenSSL 3.0.22",
        signatures_all_cores=openssl,
        cryptography="50.0.2",
        signatures_one_core=3_300.4,
    )


class TestTable:
    def test_columns_after_the_first_are_flush_right(self) -> None:
        assert aligned([["", "a", "long"], ["rate", "1,000", "2"]]) == (
            "          a  long\nrate  1,000     2"
        )

    def test_left_where_asked_and_without_trailing_blanks(self) -> None:
        assert aligned([["a", "first"], ["long", "x"]], right=False) == "a     first\nlong  x"

    def test_rows_of_different_length_are_refused(self) -> None:
        with pytest.raises(ValueError):
            aligned([["a", "b"], ["c"]])


class TestResult:
    def test_median_of_all_measurements(self) -> None:
        assert result({"ours": [100, 500, 200]}).median("ours", RATE) == 200

    def test_no_median_without_measurements(self) -> None:
        assert result({}).median("ours", RATE) is None

    def test_advantage_is_above_one_for_the_better_in_both_directions(self) -> None:
        measured = result({"ours": [600], "theirs": [100]})
        assert measured.advantage("ours", "theirs", RATE) == pytest.approx(6)
        assert measured.advantage("ours", "theirs", COST) == pytest.approx(6)

    @given(st.floats(0.1, 1e6), st.floats(0.1, 1e6))
    def test_advantage_of_one_is_the_inverse_of_the_others(
        self, ours: float, theirs: float
    ) -> None:
        measured = result({"ours": [ours], "theirs": [theirs]})
        for figure in (RATE, COST):
            there = measured.advantage("ours", "theirs", figure)
            back = measured.advantage("theirs", "ours", figure)
            assert there is not None
            assert back is not None
            assert there * back == pytest.approx(1)

    def test_no_advantage_over_a_system_without_figures(self) -> None:
        assert result({"ours": [600]}).advantage("ours", "theirs", RATE) is None

    def test_cell_shows_median_and_range(self) -> None:
        measured = result({"ours": [4400, 4612, 4390], "once": [12.3456]})
        assert measured.cell("ours", RATE) == "4,400 (4,390–4,612)"
        assert measured.cell("once", COST) == "81.00"

    def test_cell_of_a_system_that_failed_later_shows_no_figure(self) -> None:
        assert result({"ours": [4400]}, {"ours": Failure("ended")}).cell("ours", RATE) == "failed"


class TestReport:
    def report(self, *results: Result) -> Report:
        versions = {"gateway": "0.1", "postfix": "Postfix 3.7"}
        return Report(machine(), versions, {"haraka": "no haraka; install it"}, results)

    def test_text(self) -> None:
        measured = result({"gateway": [4400, 4412, 4390], "postfix": [700, 690, 710]})
        lines = self.report(measured).text().splitlines()
        assert lines == [
            "machine   Some CPU, 4 cores, 16 GB",
            "system    Linux 6.1, Python 3.11.7, load 0.1",
            "disk      ext4, fsync 0.25 ms median",
            "RSA-2048  14,100/s on 4 cores (OpenSSL 3.0.22), 3,300/s on one (cryptography 50.0.2)",
            "gateway   0.1",
            "postfix   Postfix 3.7",
            "haraka    not installed: no haraka; install it",
            "",
            "turns: in turn              gateway           postfix  gateway : postfix",
            "  messages/s    4,400 (4,390–4,412)     700 (690–710)               6.3×",
            "  ms/message       0.23 (0.23–0.23)  1.43 (1.41–1.45)               6.3×",
            "",
            "×: how many times better gateway is: more messages, less CPU and memory",
        ]

    def test_text_says_which_system_failed_and_shows_its_log(self) -> None:
        measured = result({"postfix": [700]}, {"gateway": Failure("ended", "one\ntwo")})
        report = self.report(measured)
        assert report.failed
        assert report.text().endswith("gateway failed at turns: ended\n  | one\n  | two\n")
        assert "failed" in report.text().splitlines()[9]

    def test_json_has_measurements_medians_and_ratios(self) -> None:
        measured = result({"gateway": [4000, 5000, 4500], "postfix": [500]})
        read = json.loads(self.report(measured).json())
        case = read["cases"]["turns"]
        assert [one["messages/s"] for one in case["measurements"]["gateway"]] == [4000, 5000, 4500]
        assert case["medians"]["gateway"]["messages/s"] == 4500
        assert case["advantage"] == {
            "postfix": {"messages/s": pytest.approx(9), "ms/message": pytest.approx(9)}
        }
        assert read["machine"]["cores"] == 4
        assert read["missing"] == {"haraka": "no haraka; install it"}

    def test_a_case_of_the_gateway_alone_has_no_peers_and_shows_the_bar(self) -> None:
        measured = Result(Alone(), {"gateway": [{"cost ms": 0.5, "rate/s": 2e3}]})
        both = result({"gateway": [4000], "postfix": [500]})
        report = self.report(measured, both)
        lines = report.text().splitlines()
        at = next(index for index, line in enumerate(lines) if line.startswith("alone"))
        assert lines[at : at + 3] == [
            "alone: by itself  gateway     bar",
            "  cost ms            0.50  ≤ 1.25",
            "  rate/s            2,000       -",
        ]
        read = json.loads(report.json())
        assert read["cases"]["alone"]["bars"] == {"cost ms": 1.25}
        assert read["cases"]["alone"]["advantage"] == {}
        assert read["cases"]["turns"]["bars"] == {}
        assert "times better" in report.text()
        assert "times better" not in self.report(measured).text()

    def test_a_case_of_the_gateway_alone_that_failed(self) -> None:
        lines = self.report(Result(Alone(), {}, {"gateway": Failure("no")})).text().splitlines()
        assert ["cost", "ms", "failed", "≤", "1.25"] in [line.split() for line in lines]
        assert lines[-1] == "gateway failed at alone: no"

    def test_without_any_system_there_is_only_the_machine(self) -> None:
        report = Report(machine(), {}, {"haraka": "no haraka"}, [])
        assert report.text().splitlines()[-1] == "haraka    not installed: no haraka"
        assert json.loads(report.json())["cases"] == {}
        assert not report.failed


class TestMachine:
    def test_says_what_makes_the_figures_worth_less(self) -> None:
        busy = dict(machine(load=3.0, filesystem="tmpfs").lines())
        assert "noisy" in busy["system"]
        assert "in memory" in busy["disk"]
        quiet = dict(machine().lines())
        assert "noisy" not in quiet["system"]
        assert "in memory" not in quiet["disk"]

    def test_without_openssl(self) -> None:
        lines = dict(machine(openssl=None).lines())
        assert lines["RSA-2048"] == "3,300/s on one (cryptography 50.0.2)"

    def test_signing_rate_of_two_columns(self) -> None:
        output = (
            "version: 3.0.22\n"
            "                  sign    verify    sign/s verify/s\n"
            "rsa 2048 bits 0.000071s 0.000003s  14046.0 389842.0\n"
        )
        assert signing_rate(output) == 14046.0

    def test_signing_rate_of_four_columns(self) -> None:
        output = (
            "                   sign    verify    encrypt   decrypt   sign/s verify/s  encr./s\n"
            "rsa  2048 bits 0.000280s 0.000008s 0.000009s 0.000287s   3571.4 125000.0 111111.1\n"
        )
        assert signing_rate(output) == 3571.4

    @pytest.mark.parametrize(
        "output", ["", "rsa 4096 bits 0.1s 0.1s 10.0 10.0\n", "rsa 2048 bits\n"]
    )
    def test_no_signing_rate(self, output: str) -> None:
        assert signing_rate(output) is None

    def test_filesystem_is_that_of_the_nearest_mount(self, tmp_path: Path) -> None:
        mounts = (
            "none / overlay rw 0 0\n"
            f"/dev/a {tmp_path} ext4 rw 0 0\n"
            f"tmpfs {tmp_path}/with\\040blank tmpfs rw 0 0\n"
            f"/dev/b {tmp_path}x xfs rw 0 0\n"
        )
        assert filesystem(tmp_path / "queue", mounts) == "ext4"
        assert filesystem(tmp_path / "with blank" / "queue", mounts) == "tmpfs"
        assert filesystem(Path("/elsewhere"), mounts) == "overlay"

    def test_the_later_mount_on_the_same_point_counts(self) -> None:
        assert filesystem(Path("/"), "rootfs / rootfs rw 0 0\n/dev/a / ext4 rw 0 0\n") == "ext4"


class TestLoad:
    @given(st.integers(0, 10**9), st.integers(1, 12))
    def test_count_is_that_of_the_newest_whole_line(self, first: int, lines: int) -> None:
        written = b"".join(
            b"sess=%d quit=%d mesg=%d\r" % (number, number, number)
            for number in range(first, first + lines)
        )
        assert last_count(written[-128:]) == first + lines - 1

    @pytest.mark.parametrize("cut", range(1, len(b"sess=7 quit=7 mesg=1234\r") + 1))
    def test_a_line_that_is_not_whole_does_not_count(self, cut: int) -> None:
        whole = b"sess=7 quit=7 mesg=1233\r"
        assert last_count(whole + b"sess=7 quit=7 mesg=1234\r"[:-cut]) == 1233

    def test_nothing_counted_yet(self) -> None:
        assert last_count(b"") == 0

    def test_a_message_of_ones_own(self) -> None:
        words = Load(4096, message=Path("/tmp/one")).command(7, 2525)
        assert words[words.index("-F") + 1] == "/tmp/one"
        assert "-l" not in words

    def test_no_more_sessions_than_messages(self) -> None:
        words = Load(4096, sessions=20).command(1, 2525)
        assert words[words.index("-s") + 1] == "1"
        assert words[words.index("-m") + 1] == "1"
        assert words[-1] == "127.0.0.1:2525"

    @pytest.mark.parametrize(
        ("rate", "seconds", "messages"),
        [(700, 4, 2800), (4500.4, 2, 9001), (10, 1, 200), (1e6, 4, 60_000)],
    )
    def test_messages_for(self, rate: float, seconds: float, messages: int) -> None:
        assert messages_for(rate, seconds) == messages


class TestSignature:
    def sign(self, key: SigningKey, message: bytes, selector: str = SELECTOR) -> bytes:
        signature: bytes = dkim.sign(
            message,
            selector.encode(),
            DOMAIN.encode(),
            key.file.read_bytes(),
            canonicalize=(b"relaxed", b"simple"),
        )
        return signature + message

    def test_a_signature_by_the_key(self, key: SigningKey) -> None:
        assert key.verify(self.sign(key, MESSAGE)) == "rsa-sha256 relaxed/simple"

    def test_line_ends_and_fields_on_top_as_a_sink_writes_them(self, key: SigningKey) -> None:
        recorded = b"X-Client-Proto: ESMTP\n" + self.sign(key, MESSAGE).replace(b"\r\n", b"\n")
        assert key.verify(recorded) == "rsa-sha256 relaxed/simple"

    def test_no_signature(self, key: SigningKey) -> None:
        with pytest.raises(BenchError, match="without a DKIM signature"):
            key.verify(MESSAGE)

    def test_a_changed_body(self, key: SigningKey) -> None:
        with pytest.raises(BenchError, match="DKIM"):
            key.verify(self.sign(key, MESSAGE).replace(b"body", b"bodx"))

    def test_a_changed_header_field(self, key: SigningKey) -> None:
        with pytest.raises(BenchError, match="does not verify"):
            key.verify(self.sign(key, MESSAGE).replace(b"hello", b"hullo"))

    def test_another_key(self, key: SigningKey, tmp_path: Path) -> None:
        other = SigningKey.make(tmp_path / "other.pem")
        with pytest.raises(BenchError, match="does not verify"):
            key.verify(self.sign(other, MESSAGE))

    def test_another_selector(self, key: SigningKey) -> None:
        with pytest.raises(BenchError, match="DKIM"):
            key.verify(self.sign(key, MESSAGE, selector="s2"))

    def test_the_key_is_for_its_owner_only(self, key: SigningKey) -> None:
        assert key.file.stat().st_mode & 0o777 == 0o600


class TestProcesses:
    @given(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=15))
    def test_any_name_of_a_program(self, name: str) -> None:
        tick = 1 / os.sysconf("SC_CLK_TCK")
        stat = f"42 ({name}) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 300 400 20 0 1 0 55 1000 9"
        process = Process.parse(stat)
        assert (process.pid, process.parent, process.started) == (42, 7, 55)
        assert process.own == pytest.approx(30 * tick)
        assert process.reaped == pytest.approx(700 * tick)
        assert not process.ended

    def test_the_dead_are_known(self) -> None:
        assert Process.parse("42 (x) Z 7 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 55 0 0").ended

    def test_a_tree_has_its_children_and_what_those_used_that_are_gone(self) -> None:
        burn = "import time\nwhile time.process_time() < 0.2: pass"
        program = (
            "import subprocess, sys\n"
            f"subprocess.run([sys.executable, '-c', {burn!r}])\n"
            "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
            "print(child.pid, flush=True)\n"
            "input()\n"
            "child.communicate(b'\\n')\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as parent:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            tree = Tree([parent.pid])
            assert [member.pid for member in tree.members()] == [parent.pid, child]
            assert tree.cpu() >= 0.19
            assert tree.memory() > 1_000_000
            parent.communicate("\n")
        assert tree.members() == []
        assert tree.cpu() == 0
        assert tree.memory() == 0


class TestDaemon:
    def test_stop_ends_descendants_that_left_the_session(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bench.daemon, "STOP_SECONDS", 0.3)
        marker = tmp_path / "pid"
        # The shell ends at SIGTERM; the other ignores it, in a session of its own.
        script = (
            "import os, signal, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            f"open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
        )
        daemon = Daemon(
            "family",
            ["sh", "-c", '"$0" -c "$1" & wait', sys.executable, script],
            tmp_path / "log",
            tmp_path,
        )
        deadline = time.monotonic() + 20
        while not (marker.exists() and marker.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        daemon.stop()
        alive = {process.pid for process in running() if not process.ended}
        assert not alive & {daemon.pid, int(marker.read_text())}

    def test_a_daemon_that_ends_is_an_error_with_its_log(self, tmp_path: Path) -> None:
        daemon = Daemon("short", ["sh", "-c", "echo no way; exit 3"], tmp_path / "log", tmp_path)
        with pytest.raises(BenchError, match="short ended with status 3") as caught:
            daemon.wait_for_socket(tmp_path / "never")
        assert caught.value.log == "no way"
        daemon.stop()


class TestRun:
    def test_systems_take_turns(self, key: SigningKey, tmp_path: Path) -> None:
        case = Turns({"a": [1, 2, 3], "b": [4, 5, 6]})
        measured = measure(case, [Named("a", key), Named("b", key)], 3, tmp_path, lambda _: None)
        assert case.diary == [
            *("start a", "start b"),
            *("a", "b", "a", "b", "a", "b"),
            *("stop b", "stop a"),
        ]
        assert [one[RATE.name] for one in measured.values["b"]] == [4, 5, 6]
        assert not measured.failures

    def test_one_that_fails_does_not_stop_the_others(self, key: SigningKey, tmp_path: Path) -> None:
        case = Turns({"a": [1, BenchError("broke", "end of log")], "b": [4, 5, 6], "c": []})
        systems = [Named(name, key) for name in "abc"]
        measured = measure(case, systems, 3, tmp_path, lambda _: None)
        assert measured.failures == {
            "a": Failure("broke", "end of log"),
            "c": Failure("does not start", "its log"),
        }
        assert [one[RATE.name] for one in measured.values["b"]] == [4, 5, 6]
        assert case.diary[-2:] == ["stop b", "stop a"]


class TestCommandLine:
    def test_defaults(self) -> None:
        options = arguments([])
        assert options.cases == []
        assert options.repeat == 3
        assert not options.keep

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (
                ["4k", "5k"],
                "no case '5k'; there are 4k, 50k, all, rewrite, personalize, chain, latency, "
                "scaling, connections, large, clicks, blackhole, backlog",
            ),
            (["--repeat", "0"], "--repeat: must be 1 or more"),
            (["--seconds", "0.1"], "--seconds: must be from 0.5 to 20"),
            (["--seconds", "100"], "--seconds: must be from 0.5 to 20"),
            (["--system", "sendmail"], "invalid choice: 'sendmail'"),
        ],
    )
    def test_what_is_wrong_is_refused(
        self, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            arguments(words)
        assert caught.value.code == 2
        assert said in capsys.readouterr().err

    def test_cases_have_the_sizes_that_their_names_say(self) -> None:
        for name in ("4k", "50k"):
            case = cases(4.0)[name]
            assert isinstance(case, Throughput)
            assert case.load.size == int(name[:-1]) * 1024
            assert case.load.sessions == 20


ENCODINGS = ["8bit", "quoted-printable", "base64"]
TRACKING = f'{{tracking: {{base_url: "{TRACKER}"}}}}'
MERGING = "{personalization: {sources: [{header: {}}]}}"


@pytest.mark.parametrize("encoding", ENCODINGS)
class TestNewsletter:
    def parts(self, newsletter: Newsletter, encoding: str) -> tuple[EmailMessage, str, str]:
        content = newsletter.message(encoding)
        assert content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r")
        assert max(map(len, content.split(b"\r\n"))) <= 998
        parsed = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        assert not parsed.defects
        text, html = parsed.iter_parts()
        assert html["Content-Transfer-Encoding"] == encoding
        return parsed, text.get_content(), html.get_content()

    def test_html_and_links(self, encoding: str) -> None:
        _, _, html = self.parts(Newsletter(html=30_000, links=30), encoding)
        assert 30_000 <= len(html.encode()) < 30_500
        assert html.count('<a href="https://www.shop.') == 30
        assert "{{" not in html
        assert html.count("<tr>") == html.count("</tr>")

    def test_values(self, encoding: str) -> None:
        parsed, text, html = self.parts(Newsletter(html=0, links=2, values=True), encoding)
        assert len(VALUES) == 10
        for name in VALUES:
            assert (text + html).count(f"{{{{ {name} }}}}") == 1
        assert "{{" in text
        assert "{{" in html
        assert "{{ name }}" in parsed["Subject"]
        assert json.loads(parsed["X-Merge-Data"]) == VALUES
        assert html.count("<a href=") == 2

    def test_checks_find_out_who_does_nothing(self, encoding: str) -> None:
        message = Newsletter(html=0, links=2, values=True).message(encoding)
        with pytest.raises(BenchError, match="0 of 2 links"):
            check_links(message, 2)
        with pytest.raises(BenchError, match="not filled in"):
            check_values(message)
        with pytest.raises(BenchError, match="List-Unsubscribe"):
            check_unsubscribing(message)


class TestHookTime:
    def case(self, entry: str) -> HookTime:
        newsletter = Newsletter(html=500, links=3, values=True)
        messages = {encoding: newsletter.message(encoding) for encoding in ENCODINGS}
        self.seen: list[bytes] = []
        return HookTime("hook", "one", entry, messages, self.seen.append, bar=0.5)

    @pytest.mark.parametrize("entry", [TRACKING, MERGING])
    def test_times_of_a_real_plugin(self, entry: str, key: SigningKey, tmp_path: Path) -> None:
        case = self.case(entry)
        with case.trial(Gateway(key), tmp_path) as trial:
            self.seen.clear()
            measured = trial.measure(20)
        assert list(measured) == [figure.name for figure in case.figures]
        assert [figure.bar for figure in case.figures] == [0.5, None] * 3
        for encoding in ENCODINGS:
            assert 0 < measured[f"{encoding}: median ms"] <= measured[f"{encoding}: p95 ms"] < 1000
        assert len(self.seen) == 3
        for message in self.seen:
            if entry is TRACKING:
                check_links(message, 3)
                check_unsubscribing(message)
            else:
                check_values(message)

    def test_a_check_that_fails(self, key: SigningKey, tmp_path: Path) -> None:
        case = self.case(MERGING)
        case.check = lambda message: check_links(message, 3)
        with pytest.raises(BenchError, match="0 of 3"), case.trial(Gateway(key), tmp_path):
            pass

    def test_a_plugin_that_refuses(self, key: SigningKey, tmp_path: Path) -> None:
        case = self.case("{personalization: {sources: [{header: {name: X-Other}}], "
                         "only_with_header: null}}")  # fmt: skip
        with pytest.raises(BenchError, match="answered Reject"), case.trial(Gateway(key), tmp_path):
            pass

    def test_a_plugin_that_cannot_be_used(self, key: SigningKey, tmp_path: Path) -> None:
        with (
            pytest.raises(BenchError, match="base_url"),
            self.case("{tracking: {}}").trial(Gateway(key), tmp_path),
        ):
            pass

    @pytest.mark.parametrize("name", ["rewrite", "personalize"])
    def test_cases(self, name: str, key: SigningKey, tmp_path: Path) -> None:
        case = cases(4.0)[name]
        assert isinstance(case, HookTime)
        assert case.alone
        assert not case.sends_mail
        with case.trial(Gateway(key), tmp_path) as trial:
            trial.measure(2)  # raises if the plugin does not do its work


class TestChainCost:
    def test_message_has_the_size_that_the_title_says(self) -> None:
        case = cases(4.0)["chain"]
        assert isinstance(case, ChainCost)
        assert case.alone
        assert case.sends_mail
        content = case.newsletter.message("quoted-printable")
        assert abs(len(content) - 4096) < 150
        assert case.newsletter.links == 10
        assert DIFFERENCE.bar == 1.2

    def test_difference(self) -> None:
        class Fixed:
            def __init__(self, cost: float) -> None:
                self.cost = cost

            def measure(self) -> Mapping[str, float]:
                return {CPU.name: self.cost}

        measured = ChainTrial(Fixed(0.5), Fixed(1.25)).measure()
        assert measured == {PLAIN.name: 0.5, PLUGINS.name: 1.25, DIFFERENCE.name: 0.75}

    @pytest.mark.parametrize(
        ("kind", "names"),
        [
            (Gateway, ["dkim"]),
            (PlainGateway, []),
            (ContentGateway, ["suppression", "personalization", "tracking", "dkim"]),
        ],
    )
    def test_configurations_can_be_used(
        self, kind: type[Gateway], names: list[str], key: SigningKey, tmp_path: Path
    ) -> None:
        file = tmp_path / "gateway.yaml"
        values = {"port": 2525, "next_hop": 2600, "domain": DOMAIN, "selector": SELECTOR}
        kind(key).write(kind.template, file, {**values, "key": key.file})
        plugins = load_plugins(load_config(file))
        assert [plugin.entry.name for plugin in plugins] == names

    def test_the_list_is_filled(
        self, key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gateway = ContentGateway(key)
        if (reason := gateway.missing()) is not None:
            pytest.skip(reason)
        monkeypatch.setattr(ContentGateway, "suppressed", 12)
        gateway.folder = tmp_path
        file = tmp_path / "gateway.yaml"
        values = {"port": 2525, "next_hop": 2600, "domain": DOMAIN, "selector": SELECTOR}
        gateway.write(gateway.template, file, {**values, "key": key.file})
        gateway.prepare(file)
        shown = subprocess.run(
            [gateway.program, "-c", file, "suppression", "export"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout.count("@suppressed.example") == 12
        (tmp_path / "gateway.yaml").write_text("plugins: []\n")
        with pytest.raises(BenchError, match="cannot be imported"):
            gateway.prepare(file)


def test_gateway_configuration_is_yaml_with_everything_filled_in(
    key: SigningKey, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.yaml"
    Gateway(key).write(
        "gateway.yaml",
        file,
        {"port": 1, "next_hop": 2, "domain": DOMAIN, "selector": SELECTOR, "key": key.file},
    )
    read = yaml.safe_load(file.read_text())
    assert read["listen"] == [{"address": "127.0.0.1:1", "allow": ["127.0.0.0/8"]}]
    assert read["relay"] == {"via": ["127.0.0.1:2"]}
    assert read["plugins"][0]["dkim"]["keys"][0]["file"] == str(key.file)
