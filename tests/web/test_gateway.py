"""The HTTP service of a real `gateway run`."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
from http import HTTPStatus
from pathlib import Path

from tests.assembly import write_plugin
from tests.certificate import make_certificate
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, free_port, until

# Answers with the process that it runs in; under /slow, after a second.
SITE = """
started = False
@hookimpl
def start(self, context):
    self.started = True
@hookimpl
def http(self):
    import os
    assert self.started
    async def app(scope, receive, send):
        if scope["path"].endswith("/slow"):
            await asyncio.sleep(1)
        body = (await receive())["body"]
        host = scope["client"][0]
        text = f"{os.getpid()} {scope['root_path']} {scope['path']} {host} {len(body)}".encode()
        length = (b"content-length", str(len(text)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": text})
    return app
"""


class Site:
    """A gateway that serves `SITE` as the plugin `site`."""

    def __init__(self, make_gateway: MakeGateway, *more: str, tls: ssl.SSLContext | None = None):
        self.gateway: Gateway = make_gateway(workers=1)
        self.port = free_port()
        self._tls = tls
        self._http = "".join(f", {text}" for text in more)
        self.configure()

    def configure(self, more: str = "") -> None:
        plugin = write_plugin(self.gateway.folder, "site", SITE)
        self.gateway.configure(
            f"http: {{address: '127.0.0.1:{self.port}'{self._http}}}\nplugins: [{plugin}]\n{more}"
        )

    def connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        return http.client.HTTPSConnection(
            "localhost", self.port, timeout=DEADLINE, context=self._tls
        )

    def ask(self, path: str = "/site/") -> list[str]:
        """The words of an answer, over a connection of its own."""
        connection = self.connection()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
            return answer.read().decode().split()
        finally:
            connection.close()

    def pid(self) -> int:
        return self.gateway.pids()["service"]


class Asking:
    """Asks again and again, from threads with new connections and with one that is kept."""

    def __init__(self, site: Site) -> None:
        self.answered: dict[bool, list[int]] = {False: [], True: []}
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(site, kept))
            for kept in (False, False, True, True)
        ]

    def _ask(self, site: Site, kept: bool) -> None:
        connection = site.connection()
        while not self._stop.is_set():
            try:
                connection.request("GET", "/site/")
                self.answered[kept].append(int(connection.getresponse().read().split()[0]))
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(f"{kept}: {error!r}")
                connection.close()
            if not kept:
                connection.close()
        connection.close()

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_plugin_is_served(make_gateway: MakeGateway) -> None:
    site = Site(make_gateway, "max_body: 1KiB")
    site.gateway.start()
    assert site.gateway.logged("ready: ")[0].endswith(f", HTTP on 127.0.0.1:{site.port}")
    site.gateway.logged(f"HTTP on 127.0.0.1:{site.port}: /health, /metrics, /site/")
    connection = site.connection()

    connection.request("GET", "/site/page?x=1", headers={"X-Forwarded-For": "192.0.2.7"})
    answer = connection.getresponse()
    assert answer.read().decode() == f"{site.pid()} /site /site/page 192.0.2.7 0"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Date"]
    assert answer.headers["Server"] is None

    connection.request("GET", "/health")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (200, {"status": "ok"})

    for path in ("/", "/other/", "/health/"):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (404, b"Not Found\n")

    connection.request("POST", "/site/", body=b"x" * 1024)
    assert connection.getresponse().read().endswith(b" 1024")
    connection.request("POST", "/site/", body=b"x" * 1025)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (413, f"{HTTPStatus(413).phrase}\n".encode())
    connection.close()
    assert site.gateway.stop() == 0
    assert "error: " not in site.gateway.log


def test_a_reload_refuses_and_loses_no_request(make_gateway: MakeGateway) -> None:
    site = Site(make_gateway)
    site.gateway.start()
    slow: list[int] = []
    with Asking(site) as asking:
        for reload in (1, 2, 3):
            old = site.pid()
            until(
                lambda old=old: all(old in pids for pids in asking.answered.values()),  # type: ignore[misc]
                "both ways are answered by the old process",
            )
            begun = threading.Thread(target=lambda: slow.append(int(site.ask("/site/slow")[0])))
            begun.start()
            site.configure(f"# {reload}")
            site.gateway.signal(signal.SIGHUP)
            site.gateway.logged("ready: ", reload + 1)
            until(lambda old=old: not Path(f"/proc/{old}").exists(), "the old one is gone")  # type: ignore[misc]
            begun.join()
        new = site.pid()
        until(lambda: all(new in pids for pids in asking.answered.values()), "the last answers")
    assert asking.failures == []
    assert len(slow) == 3
    assert site.gateway.stop() == 0
    assert "error: " not in site.gateway.log


def test_a_request_that_is_under_way_at_the_end_is_finished(make_gateway: MakeGateway) -> None:
    site = Site(make_gateway)
    site.gateway.start()
    old = site.pid()
    connection = site.connection()
    connection.request("GET", "/site/")
    connection.getresponse().read()
    connection.request("GET", "/site/slow")
    site.gateway.signal(signal.SIGTERM)
    answer = connection.getresponse()
    assert answer.read().decode().startswith(f"{old} ")
    assert answer.headers["Connection"] == "close"
    assert site.gateway.stop() == 0


def test_a_service_that_is_killed_leaves_nobody_waiting(make_gateway: MakeGateway) -> None:
    site = Site(make_gateway)
    site.gateway.start()
    old = site.pid()
    # Held still, so that the requests wait on the socket when it is killed.
    os.kill(old, signal.SIGSTOP)
    waiting = [site.connection() for _ in range(20)]
    for connection in waiting:
        connection.request("GET", "/site/")
    os.kill(old, signal.SIGKILL)
    for connection in waiting:
        answer = connection.getresponse()
        assert (answer.status, answer.read().startswith(f"{old} ".encode())) == (200, False)
        connection.close()
    site.gateway.logged("service runs again")
    assert int(site.ask()[0]) == site.pid() != old


def test_tls(make_gateway: MakeGateway, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "localhost")
    context = ssl.create_default_context(cafile=str(certificate))
    site = Site(make_gateway, f"tls: {{certificate: {certificate}, key: {key}}}", tls=context)
    site.gateway.start()
    assert site.ask("/site/x")[1:3] == ["/site", "/site/x"]
    with Asking(site) as asking:
        old = site.pid()
        until(lambda: all(old in pids for pids in asking.answered.values()), "the old one answers")
        site.configure("# 1")
        site.gateway.signal(signal.SIGHUP)
        site.gateway.logged("ready: ", 2)
        until(lambda: not Path(f"/proc/{old}").exists(), "the old one is gone")
        new = site.pid()
        until(lambda: all(new in pids for pids in asking.answered.values()), "the new one answers")
    assert asking.failures == []
    # What is no TLS is let go.
    with socket.create_connection(("127.0.0.1", site.port), DEADLINE) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in client.makefile("rb").read()
    assert site.ask()
    assert site.gateway.stop() == 0
    assert "error: " not in site.gateway.log


def test_an_address_that_is_taken_stops_the_start(make_gateway: MakeGateway) -> None:
    site = Site(make_gateway)
    with socket.create_server(("127.0.0.1", site.port)):
        said = site.gateway.command("run", "-c", str(site.gateway.config), status=1)
    assert f"cannot listen on 127.0.0.1:{site.port}: Address already in use" in said


def test_a_slow_client_is_cut(make_gateway: MakeGateway) -> None:
    site = Site(make_gateway, "timeout: 1s")
    site.gateway.start()
    with socket.create_connection(("127.0.0.1", site.port), DEADLINE) as client:
        started = time.monotonic()
        client.sendall(b"GET /site/ HTTP/1.1\r\n")
        client.settimeout(0.1)
        received = b""
        while True:
            try:
                client.sendall(b"x")
                if not (data := client.recv(1000)):
                    break
                received += data
            except TimeoutError:
                assert time.monotonic() - started < DEADLINE
            except ConnectionError:
                break
    assert received.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_a_plugin_that_cannot_be_served_stops_the_start(make_gateway: MakeGateway) -> None:
    site = Site(make_gateway)
    write_plugin(site.gateway.folder, "site", "@hookimpl\ndef http(self):\n    return 1 / 0")
    said = site.gateway.command("run", "-c", str(site.gateway.config), status=1)
    assert "plugin site cannot start: http raised ZeroDivisionError: division by zero" in said


def test_without_a_section_nothing_listens(make_gateway: MakeGateway) -> None:
    site = Site(make_gateway)
    site.gateway.configure(f"plugins: [{write_plugin(site.gateway.folder, 'site', SITE)}]")
    site.gateway.start()
    site.gateway.logged("warning: plugin site is not served: gateway.yaml has no section http")
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", site.port)) != 0
    # A reload is enough to serve it, and to stop that again.
    site.configure()
    site.gateway.signal(signal.SIGHUP)
    site.gateway.logged("HTTP on", 2)
    assert site.ask()[1] == "/site"
    site.gateway.configure()
    site.gateway.signal(signal.SIGHUP)
    site.gateway.logged("ready: ", 3)

    def refused() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", site.port)) != 0

    until(refused, "nobody listens any more")
