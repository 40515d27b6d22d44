"""`/metrics` and `/health` of a real `gateway run`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import smtplib
from pathlib import Path
from typing import Any

from gateway.metrics.catalogue import METRICS
from gateway.testing import NextHop
from tests.assembly import write_plugin
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, free_port, until
from tests.e2e.conftest import make_gateway as make_gateway
from tests.metrics.text import Told

# Fails while there is a file `broken` beside it.
PLUGIN = """
broken = Path(__file__).parent / "broken"
@hookimpl
def message(self, message):
    if self.broken.exists():
        raise ValueError("secret")
@hookimpl
def observe(self, events):
    pass
"""


class Watched:
    """A gateway with a plugin, which is looked at over HTTP."""

    def __init__(
        self, make_gateway: MakeGateway, via: str = "127.0.0.1:1", entry: str = ""
    ) -> None:
        self.gateway: Gateway = make_gateway(via)
        self.port = free_port()
        plugin = write_plugin(self.gateway.folder, "site", PLUGIN)
        self.broken = self.gateway.folder / "broken"
        self.gateway.configure(
            f"http: {{address: '127.0.0.1:{self.port}'}}\nplugins:\n  - {plugin}: {{{entry}}}\n"
        )
        self.gateway.start()

    def ask(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def metrics(self) -> Told:
        status, text = self.ask("/metrics")
        assert status == 200
        return Told(text)

    def health(self) -> tuple[int, dict[str, Any]]:
        status, text = self.ask("/health")
        return status, json.loads(text)

    def until_health(self, status: str) -> dict[str, Any]:
        """Waits until the gateway says that it is so, and returns what it says."""

        def said() -> dict[str, Any] | None:
            code, told = self.health()
            assert code == (503 if told["status"] == "failing" else 200)
            return told if told["status"] == status else None

        return until(said, f"the health {status}")


async def test_all_metrics_are_told_by_all_processes(make_gateway: MakeGateway) -> None:
    async with NextHop() as hop:
        watched = Watched(make_gateway, hop.address)
        for _ in range(4):
            watched.gateway.submit("hello")
        await hop.wait(4)
    watched.gateway.wait_empty()
    told = watched.metrics()
    assert told.kinds == {metric.name: metric.kind for metric in METRICS.values()}
    assert told.sum("gateway_messages_total", reply="2xx") == 4
    assert told.sum("gateway_deliveries_total", outcome="delivered") == 4
    assert told.sum("gateway_plugin_call_seconds_count", plugin="site", hook="message") == 4
    assert told.sum("gateway_queue_recipients", process="service") >= 0
    pids = watched.gateway.pids()
    for process in ("worker-0", "worker-1", "service"):
        assert told.sum("gateway_up", process=process) == 1
        assert told.sum("gateway_scrape_failures_total", process=process) == 0
        pid = pids[process.replace("-", " ")]
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        assert abs(told.sum("process_open_fds", process=process) - files) < 10
        assert told.sum("gateway_plugin_breaker", process=process, state="closed") == 1
    assert {key for name in told.samples.values() for labels in name for key, _ in labels} == {
        *(label for metric in METRICS.values() for label in metric.labels),
        *("process", "le"),
    }
    assert watched.health() == (200, {"status": "ok"})

    # A reload: new processes count from the beginning.
    watched.gateway.signal(signal.SIGHUP)
    watched.gateway.logged("ready: ", 2)

    def replaced() -> bool:
        told = watched.metrics()
        processes = {dict(labels)["process"] for labels in told.samples["gateway_up"]}
        return processes == {"worker-0", "worker-1", "service"} and not told.sum(
            "gateway_messages_total"
        )

    until(replaced, "the new workers, and no others")
    watched.until_health("ok")
    assert watched.gateway.stop() == 0
    for complaint in ("cannot be told", "cannot be read: ", "nobody can be asked"):
        assert complaint not in watched.gateway.log


def test_a_worker_that_does_not_answer(make_gateway: MakeGateway) -> None:
    watched = Watched(make_gateway)
    until(lambda: watched.metrics().sum("gateway_up") == 3, "all processes")
    pid = watched.gateway.pids()["worker 1"]
    os.kill(pid, signal.SIGSTOP)
    try:

        def missed() -> Told | None:
            told = watched.metrics()
            return None if told.sum("gateway_up", process="worker-1") else told

        told = until(missed, "that it is missed")
        assert told.sum("gateway_scrape_failures_total", process="worker-1") >= 1
        assert told.sum("gateway_up", process="worker-0") == 1
        assert list(watched.until_health("failing")["problems"]) == ["worker-1"]
    finally:
        os.kill(pid, signal.SIGCONT)
    watched.until_health("ok")
    until(lambda: watched.metrics().sum("gateway_up") == 3, "all processes")


def _send(watched: Watched, code: int) -> None:
    """Sends a message that is answered with this code."""
    with watched.gateway.client() as client:
        client.ehlo()
        client.mail("a@example.com")
        client.rcpt("b@example.net")
        assert client.data("Subject: x\r\n\r\nHello\r\n")[0] == code


def _sending_until(watched: Watched, status: str, code: int) -> dict[str, Any]:
    """Sends mail that is answered with this code until the gateway says that it is so."""

    def said() -> dict[str, Any] | None:
        _send(watched, code)
        _, told = watched.health()
        return told if told["status"] == status else None

    return until(said, f"the health {status}")


def test_a_plugin_that_mail_waits_for(make_gateway: MakeGateway) -> None:
    watched = Watched(make_gateway)
    watched.broken.touch()
    problems = _sending_until(watched, "failing", 451)["problems"]
    assert list(problems) == ["plugin site"]
    text = problems["plugin site"]
    assert text.startswith("message raised ValueError; mail is refused or delayed; asked again in ")
    assert "secret" not in text
    # Nobody sends anything: there is a trial as soon as somebody does.
    watched.until_health("degraded")
    told = watched.metrics()
    assert told.sum("gateway_plugin_faults_total", plugin="site", hook="message") >= 5
    assert told.sum("gateway_messages_total", reply="4xx") >= 5
    half_open = told.sum("gateway_plugin_breaker", plugin="site", state="half-open")
    assert half_open >= 1

    def skipped() -> bool:
        _send(watched, 451)
        return bool(watched.metrics().sum("gateway_plugin_skipped_total", hook="message"))

    until(skipped, "a call that was not made")
    watched.broken.unlink()

    def well() -> bool:
        with contextlib.suppress(smtplib.SMTPDataError), watched.gateway.client() as client:
            client.sendmail("a@example.com", ["b@example.net"], "Subject: x\r\n\r\nHello\r\n")
        return bool(watched.health()[1]["status"] == "ok")

    until(well, "that it is well again")


def test_a_plugin_that_mail_passes_without(make_gateway: MakeGateway) -> None:
    watched = Watched(make_gateway, entry="on_error: skip")
    watched.broken.touch()
    told = _sending_until(watched, "degraded", 250)
    assert list(told["problems"]) == ["plugin site"]
    assert "; mail passes without it; " in told["problems"]["plugin site"]


def test_a_disk_without_room(make_gateway: MakeGateway) -> None:
    watched = Watched(make_gateway)
    text = watched.gateway.config.read_text().replace("reserve: 1}", "reserve: 1000000GiB}")
    watched.gateway.config.write_text(text)
    watched.gateway.signal(signal.SIGHUP)
    watched.gateway.logged("ready: ", 2)
    told = watched.until_health("failing")
    assert list(told["problems"]) == ["spool"]
    with watched.gateway.client() as client:
        client.ehlo()
        assert client.mail("a@example.com")[0] == 452
