"""Every hook in a real gateway, and observers that miss nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from pathlib import Path

import apsw

from gateway.hooks.spec import STAGES
from gateway.testing import NextHop
from tests.assembly import write_plugin
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, until

# Notes each hook with the process that it ran in.
RECORDER = """
def note(self, hook, what=""):
    import json, os
    with open(Path(__file__).parent / "notes", "a") as notes:
        notes.write(json.dumps([hook, self.role, what]) + "\\n")
role = "command"
@hookimpl
async def start(self, context):
    self.role = context.role
    (context.data_folder() / "opened").touch()
    self.note("start", context.name)
@hookimpl
def stop(self):
    self.note("stop")
@hookimpl
def connect(self, client):
    self.note("connect", client.address)
@hookimpl
async def helo(self, client):
    self.note("helo", client.helo)
@hookimpl
def auth(self, login):
    self.note("auth", login.username)
    login.user = "known"
    return Accept()
@hookimpl
def mail(self, message):
    self.note("mail", message.sender)
@hookimpl
def claim(self, recipient):
    if recipient.address.startswith("bounce@"):
        self.note("claim", recipient.address)
        return Accept()
@hookimpl
async def receive(self, message):
    self.note("receive", message.headers.get("Subject"))
@hookimpl
async def rcpt(self, recipient):
    self.note("rcpt", recipient.address)
@hookimpl
async def message(self, message):
    self.note("message", message.headers.get("Subject"))
    message.notes["campaign"] = "spring"
@hookimpl
def seal(self, message):
    self.note("seal", message.headers.get("Subject"))
    message.headers.prepend("X-Seal", "yes")
@hookimpl
async def route(self, delivery):
    self.note("route", delivery.domain)
@hookimpl
def admit(self, delivery):
    self.note("admit", delivery.domain)
@hookimpl
def source(self, delivery):
    self.note("source", delivery.domain)
@hookimpl
def reply(self, attempt):
    self.note("reply", attempt.outcome.status)
@hookimpl
async def observe(self, events):
    for event in events:
        self.note("observe", f"{event.type} {event.user} {event.notes.get('campaign')}")
@hookimpl
def commands(self, context):
    import click
    return click.Command("recorder", callback=lambda: click.echo("recorder speaks"))
"""


def _notes(gateway: Gateway) -> list[list[str]]:
    return [json.loads(line) for line in (gateway.folder / "notes").read_text().splitlines()]


async def test_every_hook_fires(make_gateway: MakeGateway) -> None:
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, "", "allow: [127.0.0.0/8], plaintext_auth: true", 1)
        gateway.configure(f"plugins: [{write_plugin(gateway.folder, 'recorder', RECORDER)}]")
        await asyncio.to_thread(gateway.start)

        def send() -> None:
            with gateway.client() as client:
                client.ehlo()
                login = base64.b64encode(b"\0shop\0x").decode()
                assert client.docmd("AUTH", f"PLAIN {login}")[0] == 235
                client.sendmail("", ["bounce@b.example.com"], "Subject: back\r\n\r\n")
                client.sendmail("a@example.com", ["b@example.net"], "Subject: one\r\n\r\n")

        await asyncio.to_thread(send)
        (message,) = await hop.wait(1, DEADLINE)
        assert message.content.startswith(b"X-Seal: yes\r\nReceived: ")
        until(lambda: sum(note[0] == "observe" for note in _notes(gateway)) >= 2, "two events")
        command = await asyncio.to_thread(gateway.command, "recorder")
        assert command == "recorder speaks\n"
        assert await asyncio.to_thread(gateway.stop) == 0
        notes = _notes(gateway)
        assert {note[0] for note in notes} == set(STAGES) - {"http", "commands"}
        worker = [(hook, what) for hook, role, what in notes if role == "worker"]
        assert worker == [
            ("start", "recorder"),
            ("connect", "127.0.0.1"),
            ("helo", "client.example.org"),
            ("auth", "shop"),
            ("mail", ""),
            ("claim", "bounce@b.example.com"),
            ("receive", "back"),
            ("mail", "a@example.com"),
            ("rcpt", "b@example.net"),
            ("message", "one"),
            ("seal", "one"),
            ("route", "example.net"),
            ("source", "example.net"),
            ("admit", "example.net"),
            ("reply", "2.0.0"),
            ("stop", ""),
        ]
        service = [(hook, what) for hook, role, what in notes if role == "service"]
        assert service == [
            ("start", "recorder"),
            ("observe", "accepted known spring"),
            ("observe", "delivered known spring"),
            ("stop", ""),
        ]
        assert (gateway.spool / "plugins" / "recorder" / "opened").exists()


def test_a_plugin_that_cannot_start_stops_the_start(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    body = "@hookimpl\ndef start(self, context):\n    raise RuntimeError('no database')"
    gateway.configure(f"plugins: [{write_plugin(gateway.folder, 'site', body)}]")
    said = gateway.command("run", "-c", str(gateway.config), status=1)
    assert "plugin site cannot start: RuntimeError: no database" in said


def test_a_hook_that_hangs_delays_mail_and_loses_none(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(workers=1)
    body = """
@hookimpl
def message(self, message):
    while (Path(__file__).parent / "hang").exists():
        pass
"""
    path = write_plugin(gateway.folder, "site", body)
    gateway.configure(f"plugins: [{path}: {{timeout: 300ms}}]")
    gateway.start()
    (gateway.folder / "hang").touch()
    with gateway.client() as client:
        client.ehlo()
        client.mail("a@example.com")
        client.rcpt("b@example.net")
        code, text = client.data("Subject: x\r\n\r\n")
        assert (code, text[:5]) == (451, b"4.3.0")
        (gateway.folder / "hang").unlink()
        client.sendmail("a@example.com", ["b@example.net"], "Subject: x\r\n\r\n")
    assert len(gateway.queue()) == 1
    assert (
        "plugin site failed in message: ran longer than 0.3 s (on_error: tempfail)" in gateway.log
    )


OBSERVER = """
@hookimpl
def observe(self, events):
    with open(Path(__file__).parent / "seen", "a") as seen:
        for event in events:
            seen.write(f"{event.type} {event.recipient}\\n")
"""


def _seen(gateway: Gateway) -> list[str]:
    path: Path = gateway.folder / "seen"
    return path.read_text().splitlines() if path.exists() else []


async def test_observers_miss_nothing_when_the_service_is_killed(
    make_gateway: MakeGateway,
) -> None:
    async with NextHop() as hop:
        gateway = make_gateway(hop.address)
        gateway.configure(f"plugins: [{write_plugin(gateway.folder, 'observer', OBSERVER)}]")
        await asyncio.to_thread(gateway.start)

        def send(first: int) -> None:
            with gateway.client() as client:
                for number in range(first, first + 50):
                    client.sendmail("a@example.com", [f"{number}@example.net"], "Subject: x\n\n")

        for part in range(4):
            await asyncio.to_thread(send, part * 50)
            if part < 2:
                os.kill(gateway.pids()["service"], signal.SIGKILL)
                await asyncio.to_thread(gateway.logged, "service runs again", part + 1)
            elif part == 2:
                await asyncio.to_thread(gateway.kill)
                await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(gateway.wait_empty)
        wanted = {f"{number}@example.net" for number in range(200)}

        def complete() -> bool:
            found = set(_seen(gateway))
            return all({f"accepted {one}", f"delivered {one}"} <= found for one in wanted)

        await asyncio.to_thread(until, complete, "every event")
        # In the order of its worker: nothing is delivered before it was accepted.
        seen = _seen(gateway)
        for one in wanted:
            assert seen.index(f"accepted {one}") < seen.index(f"delivered {one}")
        # What everybody has seen is deleted.
        await asyncio.to_thread(until, lambda: _events(gateway) == 0, "the outbox to be empty")


def _events(gateway: Gateway) -> int:
    count = 0
    for path in gateway.spool.glob("*.db"):
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        count += db.execute("SELECT count(*) FROM events").get
        db.close()
    return count
