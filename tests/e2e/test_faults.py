"""Plugins that do wrong in a real gateway: what they cost, and that no mail is lost for it."""

from __future__ import annotations

import asyncio
import http.client
import smtplib
import threading
import time
from typing import Any

import pytest

from gateway.testing import NextHop
from tests.assembly import write_plugin
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, free_port, until

TEMPFAIL = (451, b"4.3.0 The mail cannot be checked now, please try again later")

SPINS = """
@hookimpl
def message(self, message):
    if message.sender == "spin@example.com":
        (Path(__file__).parent / "spinning").touch()
        while True:
            pass
"""


def _send(client: smtplib.SMTP, sender: str, recipient: str) -> tuple[int, bytes]:
    client.mail(sender)
    client.rcpt(recipient)
    return client.data("Subject: x\r\n\r\nHello\r\n")


async def test_a_hook_that_spins_stops_no_other_worker(make_gateway: MakeGateway) -> None:
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, workers=2)
        path = write_plugin(gateway.folder, "site", SPINS)
        gateway.configure(f"plugins: [{path}: {{timeout: 3s}}]")
        await asyncio.to_thread(gateway.start)
        meanwhile = await asyncio.to_thread(_spin_and_send, gateway)
        # Some connections were with the worker that went on.
        assert meanwhile > 0
        messages = await hop.wait(40, DEADLINE)
        assert {one.sender for one in messages} == {"a@example.com"}
        assert len({one.recipients[0][0] for one in messages}) == 40
        (line,) = gateway.logged("plugin site failed in message: ran longer than 3 s")
        assert "(on_error: tempfail)" in line


def _spin_and_send(gateway: Gateway) -> int:
    """How many of forty messages are accepted while a hook spins; all of them are in the end."""
    clients = [gateway.client() for _ in range(40)]
    for client in clients:
        client.ehlo()
    replies: list[Any] = []
    ended = threading.Event()

    def spin() -> None:
        with gateway.client() as client:
            client.ehlo()
            replies.append(_send(client, "spin@example.com", "b@example.net"))
        ended.set()

    accepted_meanwhile = []

    def send(number: int) -> None:
        code, _ = _send(clients[number], "a@example.com", f"r{number}@example.net")
        assert code == 250
        if not ended.is_set():
            accepted_meanwhile.append(number)

    threads = [threading.Thread(target=spin)]
    threads[0].start()
    until((gateway.folder / "spinning").exists, "the hook to spin")
    threads += [threading.Thread(target=send, args=(number,)) for number in range(40)]
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    for client in clients:
        client.close()
    assert replies == [TEMPFAIL]
    return len(accepted_meanwhile)


OBSERVES = """
@hookimpl
async def observe(self, events):
    {0}
    with open(Path(__file__).parent / "seen", "a") as seen:
        for event in events:
            seen.write(f"{{event.type}} {{event.recipient}}\\n")
"""


async def test_an_observer_that_hangs_holds_up_nobody(make_gateway: MakeGateway) -> None:
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, workers=1)
        wait = "if not (Path(__file__).parent / 'go').exists(): await asyncio.sleep(60)"
        slow = write_plugin(
            gateway.folder, "slow", OBSERVES.format(wait).replace('"seen"', '"late"')
        )
        good = write_plugin(gateway.folder, "good", OBSERVES.format("pass"))
        gateway.configure(f"plugins:\n  - {slow}: {{timeout: 300ms}}\n  - {good}")
        await asyncio.to_thread(gateway.start)
        for number in range(5):
            await asyncio.to_thread(gateway.submit, "x", f"r{number}@example.net")
        await hop.wait(5, DEADLINE)
        wanted = {f"delivered r{number}@example.net" for number in range(5)}
        seen, late = gateway.folder / "seen", gateway.folder / "late"

        def has_all(path: Any) -> bool:
            return path.exists() and wanted <= set(path.read_text().splitlines())

        await asyncio.to_thread(until, lambda: has_all(seen), "the other observer")
        await asyncio.to_thread(gateway.logged, "plugin slow failed in observe: ran longer than")
        assert not late.exists()
        # What it could not take comes again.
        (gateway.folder / "go").touch()
        await asyncio.to_thread(until, lambda: has_all(late), "the observer that hung")
        assert await asyncio.to_thread(gateway.stop) == 0


SERVES = """
@hookimpl
def http(self):
    async def application(scope, receive, send):
        if scope["path"].endswith("/raise"):
            raise RuntimeError("broken")
        if scope["path"].endswith("/exit"):
            import os
            os._exit(3)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})
    return application
"""


async def test_a_crash_in_http_touches_no_mail(make_gateway: MakeGateway) -> None:
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, workers=1)
        port = free_port()
        path = write_plugin(gateway.folder, "site", SERVES)
        gateway.configure(f"http: {{address: '127.0.0.1:{port}'}}\nplugins: [{path}]")
        await asyncio.to_thread(gateway.start)

        def get(path: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
            try:
                connection.request("GET", f"/site/{path}")
                return connection.getresponse().status
            finally:
                connection.close()

        assert await asyncio.to_thread(get, "fine") == 200
        worker = gateway.pids()["worker 0"]
        assert await asyncio.to_thread(get, "raise") == 500
        with pytest.raises((http.client.HTTPException, OSError)):
            await asyncio.to_thread(get, "exit")
        await asyncio.to_thread(gateway.submit, "x", "b@example.net")
        await hop.wait(1, DEADLINE)
        await asyncio.to_thread(gateway.logged, "service runs again")
        assert await asyncio.to_thread(get, "fine") == 200
        assert gateway.pids()["worker 0"] == worker


EXITS = """
@hookimpl
def message(self, message):
    if message.sender == "exit@example.com":
        import os
        os._exit(3)
"""


async def test_a_hook_that_ends_its_process_loses_nothing(make_gateway: MakeGateway) -> None:
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, workers=1)
        path = write_plugin(gateway.folder, "site", EXITS)
        gateway.configure(f"plugins: [{path}]")
        await asyncio.to_thread(gateway.start)

        def send() -> list[str]:
            accepted = []
            with gateway.client() as good:
                good.ehlo()
                for number in range(20):
                    code, _ = _send(good, "a@example.com", f"r{number}@example.net")
                    assert code == 250
                    accepted.append(f"r{number}@example.net")
                with gateway.client() as bad:
                    bad.ehlo()
                    with pytest.raises(smtplib.SMTPServerDisconnected):
                        _send(bad, "exit@example.com", "lost@example.net")
                    bad.close()
                good.close()
            return accepted

        accepted = await asyncio.to_thread(send)
        await asyncio.to_thread(gateway.logged, "worker 0 runs again")
        await asyncio.to_thread(gateway.submit, "after", "last@example.net")
        await asyncio.to_thread(gateway.wait_empty)
        # Each at least once: what was on its way when the process ended may come twice.
        received = {address for one in hop.messages for address, _ in one.recipients}
        assert received == {*accepted, "last@example.net"}
        assert "exit@example.com" not in {one.sender for one in hop.messages}


async def test_a_stop_that_hangs_ends_with_the_processes(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(workers=1)
    body = "@hookimpl\nasync def stop(self):\n    await asyncio.sleep(600)"
    gateway.configure(f"plugins: [{write_plugin(gateway.folder, 'site', body)}]")
    gateway.config.write_text(
        gateway.config.read_text().replace("shutdown_timeout: 20s", "shutdown_timeout: 2s")
    )
    await asyncio.to_thread(gateway.start)
    queued = await asyncio.to_thread(gateway.submit, "x", "b@example.net")
    started = time.monotonic()
    await asyncio.to_thread(gateway.stop)
    assert time.monotonic() - started < DEADLINE
    assert [row["id"] for row in gateway.queue()] == [queued]
