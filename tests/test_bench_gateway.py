"""The cases of the bench about one system: what is pure, and each in small with a real gateway."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import clicks, connections, daemon, large, latency, scaling
from bench.case import Case, Figure, Trial
from bench.cases import cases
from bench.clicks import Clicks
from bench.connections import ManyConnections
from bench.daemon import free_port
from bench.error import BenchError
from bench.large import LargeMessages
from bench.latency import Latency
from bench.load import Load, Sink, missing
from bench.machine import Machine
from bench.newsletter import Newsletter
from bench.processes import PeakMemory, Tree
from bench.report import Report, Result
from bench.scaling import Scaling, corrected, idle_seconds
from bench.signature import DOMAIN, SELECTOR, SigningKey
from bench.systems.gateway import AllPluginsGateway, ClicksGateway, Gateway, WorkersGateway
from bench.systems.system import System
from bench.throughput import RATE, Throughput
from gateway.configuration.config import load_config
from gateway.hooks.load import load_plugins

needs_load = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.make(tmp_path_factory.mktemp("key") / "s1.pem")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that smtp-sink may write in below, as another user: `tmp_path` is for one only."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def gateway(key: SigningKey) -> Gateway:
    gateway = Gateway(key)
    if (reason := gateway.missing()) is not None:
        pytest.skip(reason)
    return gateway


def measured(case: Case, gateway: Gateway, folder: Path) -> Mapping[str, float]:
    with case.trial(gateway, folder) as trial:
        found = trial.measure()
    assert list(found) == [figure.name for figure in case.figures]
    return found


class Signing(Case):
    """Gives no figures of its own; they are put in."""

    figures = (Figure("messages/s", 0, more_is_better=True), Figure("CPU", 1, False, bar=2.0))
    ahead: Mapping[str, float] = {"postfix": 6}
    signs = True

    def __init__(self) -> None:
        super().__init__("signing", "signed")

    def trial(self, system: System, folder: Path) -> AbstractContextManager[Trial]:
        raise AssertionError("nothing is started here")


class TestReport:
    def report(self, openssl: float | None) -> Report:
        machine = Machine(
            cpu="Some CPU",
            cores=4,
            memory_gb=16.0,
            kernel="6.1",
            python="3.11.2",
            load=0.0,
            filesystem="ext4",
            fsync_ms=0.2,
            openssl="OpenSSL 3.0",
            signatures_all_cores=openssl,
            cryptography="50.0",
            signatures_one_core=3000.0,
        )
        values = {"gateway": 4000.0, "postfix": 500.0}
        result = Result(
            Signing(),
            {name: [{"messages/s": rate, "CPU": 1e3 / rate}] for name, rate in values.items()},
        )
        return Report(machine, {"gateway": "1", "postfix": "3"}, {}, [result])

    def test_how_far_ahead_it_has_to_be_and_its_share_of_the_signatures(self) -> None:
        report = self.report(10_000.0)
        lines = [" ".join(line.split()) for line in report.text().splitlines()]
        assert "messages/s 4,000 500 8.0× (≥ 6) -" in lines
        assert "CPU 0.2 2.0 8.0× ≤ 2.0" in lines
        assert "% of the RSA-2048 rate 40 ≥ 30" in lines
        case = json.loads(report.json())["cases"]["signing"]
        assert case["ahead"] == {"postfix": 6}
        assert case["share_of_signatures"] == pytest.approx(40.0)

    def test_no_share_where_the_rate_of_the_machine_is_not_known(self) -> None:
        report = self.report(None)
        assert "RSA-2048 rate" not in report.text()
        assert json.loads(report.json())["cases"]["signing"]["share_of_signatures"] is None


class TestCases:
    def test_bars_are_those_that_were_set(self) -> None:
        known = cases(4.0)
        bars = {
            name: {figure.name: figure.bar for figure in known[name].figures if figure.bar}
            for name in ("4k", "50k", "all", "latency", "scaling", "connections", "large", "clicks")
        }
        assert bars == {
            "4k": {"CPU ms/message": 0.9},
            "50k": {},
            "all": {},
            "latency": {latency.ABOVE.name: 1.0},
            "scaling": {scaling.CORRECTED.name: 3.2},
            "connections": {
                connections.SHARE.name: 90,
                connections.IDLE.name: 15,
                connections.SLOWEST.name: 100,
            },
            "large": {large.ONE.name: 75, large.TWENTY.name: 512},
            "clicks": {clicks.PER_CORE.name: 3000},
        }
        assert large.OTHERWISE.bar == 0
        assert {name: dict(case.ahead) for name, case in known.items() if case.ahead} == {
            "4k": {"postfix": 6, "haraka": 4},
            "50k": {"postfix": 2.5, "haraka": 2.5},
            "all": {"postfix": 3, "haraka": 3},
        }
        assert {name for name, case in known.items() if case.signs} == {"4k", "50k", "all"}

    def test_messages_have_the_sizes_that_their_titles_say(self) -> None:
        for name, size in (("50k", 50_000), ("all", 4096)):
            case = cases(4.0)[name]
            assert isinstance(case, Throughput)
            assert case.content is not None
            assert abs(len(case.content) - size) < size / 30
        many = cases(4.0)["connections"]
        assert isinstance(many, ManyConnections)
        assert many.idle == 10_000
        big = cases(4.0)["large"]
        assert isinstance(big, LargeMessages)
        assert big.size == 50_000_000

    def test_what_all_has_to_do_is_checked(self) -> None:
        case = cases(4.0)["all"]
        assert isinstance(case, Throughput)
        assert case.check is not None
        assert case.content is not None
        with pytest.raises(BenchError, match="not filled in"):
            case.check(case.content)
        assert AllPluginsGateway.suppressed == 1_000_000

    @pytest.mark.parametrize(
        ("gateway", "plugins"),
        [
            (
                AllPluginsGateway,
                ["suppression", "personalization", "tracking", "dkim", "throttle", "ippool"],
            ),
            (ClicksGateway, ["tracking", "./count.py"]),
            (WorkersGateway, ["dkim"]),
        ],
    )
    def test_configurations_can_be_used(
        self, gateway: type[Gateway], plugins: list[str], key: SigningKey, tmp_path: Path
    ) -> None:
        if gateway is ClicksGateway:
            one: Gateway = ClicksGateway(key, 8025)
        elif gateway is WorkersGateway:
            one = WorkersGateway(key, 3)
        else:
            one = gateway(key)
        file = tmp_path / "gateway.yaml"
        (tmp_path / "s1.pem").write_bytes(key.file.read_bytes())
        values = {"port": 2525, "next_hop": 2600, "domain": DOMAIN, "selector": SELECTOR}
        one.write(one.template, file, {**values, "key": key.file, **one.values})
        one.folder = tmp_path
        if isinstance(one, ClicksGateway):
            one.prepare(file)
        config = load_config(file)
        assert [plugin.entry.name for plugin in load_plugins(config)] == [
            name.removeprefix("./").removesuffix(".py") for name in plugins
        ]
        if isinstance(one, WorkersGateway):
            assert config.workers == 3


class TestScaling:
    STAT = (
        "cpu  100 0 100 5000 70 0 0 0 0 0\n"
        "cpu0 10 0 10 1000 20 0 0 0 0 0\n"
        "cpu1 10 0 10 2000 50 0 0 0 0 0\n"
        "cpu12 10 0 10 4000 0 0 0 0 0 0\n"
        "intr 12345 0 0\n"
    )

    def test_idle_time_is_that_of_the_cores_that_may_be_used(self) -> None:
        tick = 1 / os.sysconf("SC_CLK_TCK")
        assert idle_seconds(self.STAT, {1, 12}) == pytest.approx(6050 * tick)
        assert idle_seconds(self.STAT, {0}) == pytest.approx(1020 * tick)

    def test_this_machine_has_idled(self) -> None:
        every = set(range(os.cpu_count() or 1))
        assert idle_seconds(scaling.STAT.read_text(), every) > 0

    def test_what_the_others_used_is_given_to_the_workers(self) -> None:
        assert corrected(3.0, 4, 0.8, 0.0) == pytest.approx(3.0 * 4 / 3.2)

    def test_cores_that_idled_could_have_been_used_already(self) -> None:
        assert corrected(3.0, 4, 0.8, 0.8) == pytest.approx(3.0)
        assert corrected(3.0, 4, 0.8, 2.0) == pytest.approx(3.0)

    @given(st.floats(1, 4), st.integers(4, 64), st.floats(0, 1.5), st.floats(0, 1.5))
    def test_it_is_never_less_and_never_more_than_all_cores_would_give(
        self, times: float, cores: int, others: float, idle: float
    ) -> None:
        found = corrected(times, cores, others, idle)
        assert times * (1 - 1e-9) <= found <= times * cores / (cores - others - idle) * (1 + 1e-9)
        assert corrected(times, cores, others, idle + 0.1) <= found * (1 + 1e-9)

    def test_four_cores_are_needed(
        self, key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
        case = Scaling("scaling", "", Load(500), 0.5)
        with (
            pytest.raises(BenchError, match="4 cores are needed, and there are 2"),
            case.trial(Gateway(key), tmp_path),
        ):
            pass

    @needs_load
    @pytest.mark.timeout(180)
    def test_in_small(self, gateway: Gateway, place: Path) -> None:
        if len(os.sched_getaffinity(0)) < scaling.WORKERS:
            pytest.skip(f"{scaling.WORKERS} cores are needed")
        found = measured(Scaling("scaling", "", Load(500, sessions=8), 0.5), gateway, place)
        one, four = found[scaling.ONE.name], found[scaling.FOUR.name]
        assert one > 0
        assert found[scaling.TIMES.name] == pytest.approx(four / one)
        assert found[scaling.CORRECTED.name] >= found[scaling.TIMES.name]
        assert 0 < found[scaling.OTHERS.name] < 4
        for part, workers in (("0", 1), ("1", 4)):
            assert load_config(place / part / "instance/gateway.yaml").workers == workers


@needs_load
@pytest.mark.timeout(180)
class TestInSmall:
    def test_latency(self, gateway: Gateway, place: Path) -> None:
        found = measured(Latency("latency", "", 500, 0.5), gateway, place)
        median, fsync = found[latency.MEDIAN.name], found[latency.FSYNC.name]
        assert 0 < median <= found[latency.P99.name] < 60_000
        assert found[latency.ABOVE.name] == pytest.approx(median - 1.5 * fsync)
        assert not (place / "fsync").exists()

    def test_latency_of_a_system_that_loses_mail(self, gateway: Gateway, place: Path) -> None:
        case = Latency("latency", "", 500, 0.5)
        with case.trial(gateway, place) as trial:
            assert isinstance(trial, latency.LatencyTrial)
            trial._client.sent += 1
            trial._deadline = 0.2
            with pytest.raises(BenchError, match=r"\d+ of \d+ messages arrived"):
                trial.measure()

    def test_connections(self, gateway: Gateway, place: Path) -> None:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        case = ManyConnections("connections", "", Load(500, sessions=4), 0.5, 200)
        found = measured(case, gateway, place)
        assert found[connections.FEW.name] > 0
        assert found[connections.SHARE.name] == pytest.approx(
            100 * found[connections.MANY.name] / found[connections.FEW.name]
        )
        assert found[connections.BANNER.name] <= found[connections.SLOWEST.name]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before

    def test_more_connections_than_files(self, gateway: Gateway, place: Path) -> None:
        case = ManyConnections("connections", "", Load(500), 0.5, 1 << 40)
        if resource.getrlimit(resource.RLIMIT_NOFILE)[1] == resource.RLIM_INFINITY:
            pytest.skip("any number of files can be open")
        with pytest.raises(BenchError, match="ulimit -Hn"), case.trial(gateway, place):
            pass

    def test_large(self, gateway: Gateway, place: Path) -> None:
        found = measured(LargeMessages("large", "", 2_000_000), gateway, place)
        assert found[large.ONE.name] > 2
        assert found[large.TWENTY.name] > found[large.ONE.name]
        answered = (large.TAKEN, large.LATER, large.OTHERWISE)
        assert sum(found[figure.name] for figure in answered) == 20

    def test_clicks(self, gateway: Gateway, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clicks, "_MESSAGES", 40)
        found = measured(Clicks("clicks", "", 200), gateway, place)
        assert found[clicks.PER_CORE.name] > 0
        assert found[clicks.RATE.name] > 0
        assert (place / "instance/clicks").read_text() == "240"

    def test_all_plugins(
        self, gateway: Gateway, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(AllPluginsGateway, "suppressed", 1000)
        case = cases(0.5)["all"]
        found = measured(case, gateway, place)
        assert found[RATE.name] > 0

    def test_a_plugin_that_does_nothing_is_found_out(
        self, gateway: Gateway, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        case = cases(0.5)["all"]
        assert isinstance(case, Throughput)
        monkeypatch.setattr(case, "gateway", Gateway)
        with pytest.raises(BenchError, match="not filled in"), case.trial(gateway, place):
            pass


@needs_load
def test_the_sink_says_what_it_has_used(place: Path) -> None:
    place.chmod(0o755)
    with Sink(free_port(), place) as sink:
        assert 0 <= sink.cpu() < 60


@needs_load
def test_a_sink_listens_from_the_beginning_or_says_why_not(place: Path) -> None:
    port = free_port()
    with Sink(port, place) as sink:
        assert daemon.greets(port)
        assert sink.count() == 0
    nowhere = Sink(port, place, host="192.0.2.1")
    with pytest.raises(BenchError, match="smtp-sink ended with status"), nowhere:
        pass


def test_the_peak_of_memory_is_seen_though_it_has_passed() -> None:
    program = (
        "input()\nblock = bytearray(50_000_000)\ndel block\nprint('done', flush=True)\ninput()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        tree = Tree([child.pid])
        peak = PeakMemory(tree)
        assert peak.above() < 20_000_000
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "done\n"
        assert 45_000_000 < peak.above() < 70_000_000
        again = PeakMemory(tree)
        assert again.above() < 20_000_000
        child.communicate("\n")


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (Newsletter(html=0, links=1).message("8bit"), None),
        (
            b"MIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n"
            b'<a href="https://t.bench.test/c/abc-_9">x</a> https://t.bench.test/c/second\r\n',
            "/c/abc-_9",
        ),
    ],
)
def test_the_link_that_is_clicked(message: bytes, found: str | None) -> None:
    if found is None:
        with pytest.raises(BenchError, match="without a tracked link"):
            clicks._path(message)
    else:
        assert clicks._path(message) == found
