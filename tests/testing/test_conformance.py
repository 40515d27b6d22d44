"""Good plugins pass every check; what hangs is ended, and what cannot be seen is skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.testing.conformance import Report, check_plugin
from tests.testing.flaw import GOOD, HEAD, write

GOOD_PLUGINS = {
    "changes what it declares": """
            changes = ("header:X-Site", "text/plain")
            @hookimpl
            def message(self, message: Message) -> None:
                for part in message.text_parts("text/plain"):
                    if part.editable:
                        part.text += "-- \\n"
                message.headers.change("X-Site", "1")
        """,
    "blocks in threads of its own": """
            blocking = True
            @hookimpl
            def start(self, context: Context) -> None:
                self.path = context.data_folder() / "seen.db"
            @hookimpl
            def mail(self, message: Message) -> Reject | None:
                database = sqlite3.connect(self.path)
                try:
                    database.execute("SELECT 1").fetchone()
                finally:
                    database.close()
                return None
            @hookimpl
            def observe(self, events: Any) -> None:
                time.sleep(0.001)
        """,
    "has every hook": """
            per_recipient = True
            observes = ("bounced", "delivered")
            changes = ("header:X-Seal", "stream")
            @hookimpl
            async def start(self, context: Context) -> None:
                self.context = context
                self.task = asyncio.create_task(asyncio.sleep(3600))
            @hookimpl
            async def stop(self) -> None:
                self.task.cancel()
                await asyncio.gather(self.task, return_exceptions=True)
            @hookimpl
            async def connect(self, client: Client) -> None:
                client.notes["seen"] = "1"
            @hookimpl
            def helo(self, client: Client) -> None:
                client.notes["helo"] = client.helo
            @hookimpl
            async def auth(self, login: Login) -> Reject | None:
                await asyncio.to_thread(time.sleep, 0.0001)
                return Reject("No") if login.password == "" else None
            @hookimpl
            def mail(self, message: Message) -> None:
                message.stream = "bulk"
            @hookimpl
            def claim(self, recipient: Recipient) -> Accept | None:
                return Accept() if recipient.address.startswith("news@") else None
            @hookimpl
            def receive(self, message: Message) -> Quarantine | None:
                return None if message.content else Quarantine("empty")
            @hookimpl
            def rcpt(self, recipient: Recipient) -> Discard | None:
                return Discard("no") if recipient.address == "x@A.b" else None
            @hookimpl
            async def message(self, message: Message) -> Delay | None:
                await asyncio.sleep(0)
                return Delay(60.0, "later") if not message.sender else None
            @hookimpl
            def seal(self, message: Message) -> None:
                message.headers.prepend("X-Seal", str(len(message.body)))
            @hookimpl
            async def route(self, delivery: Delivery) -> Route | None:
                try:
                    await self.context.resolver.addresses("mx.example.net")
                except NoSuchDomainError:
                    return None
                return None
            @hookimpl
            def source(self, delivery: Delivery) -> Source | None:
                return Source(None, "mta1.example.com")
            @hookimpl
            def admit(self, delivery: Delivery) -> Delay | None:
                delivery.ceilings["all"] = 5
                return None
            @hookimpl
            def reply(self, attempt: Attempt) -> None:
                attempt.recipient.notes["seen"] = "1"
            @hookimpl
            async def observe(self, events: Any) -> None:
                await asyncio.sleep(0)
            @hookimpl
            def http(self) -> Any:
                async def page(scope: Any, receive: Any, send: Any) -> None:
                    await receive()
                    await send({"type": "http.response.start", "status": 404, "headers": []})
                    await send({"type": "http.response.body", "body": b"no"})
                return page
            @hookimpl
            def commands(self, context: Context) -> Any:
                import click
                return click.Group("site", {"one": click.Command("one")})
        """,
}


@pytest.mark.parametrize("name", GOOD_PLUGINS)
def test_a_good_plugin_passes(name: str, tmp_path: Path) -> None:
    body = GOOD_PLUGINS[name]
    head = HEAD + (GOOD if "changes =" not in body else GOOD.replace("    changes = ()\n", ""))
    report = check_plugin(write(tmp_path, body, head))
    assert report.good, str(report)
    assert [str(one) for one in report.warnings] == []
    assert {result.status for result in report.results} == {"passed"}, str(report)


def test_a_hang_is_ended_and_its_place_is_told(tmp_path: Path) -> None:
    reference = write(
        tmp_path,
        """
            @hookimpl
            def start(self, context: Context) -> None:
                while True: pass
            @hookimpl
            def mail(self, message: Message) -> None:
                pass
        """,
    )
    report = check_plugin(reference, deadline=3.0)
    (finding,) = report.errors
    assert finding.check == "start-and-stop"
    assert "is not done after 3 s: it hangs here" in finding.text
    name, _, line = finding.place.rpartition(":")
    assert "while True" in Path(name).read_text().splitlines()[int(line) - 1]
    assert report.seconds < 30


def test_what_cannot_be_seen_is_skipped(tmp_path: Path) -> None:
    reference = write(
        tmp_path,
        """
            @hookimpl
            def start(self, context: Context) -> None:
                raise ValueError("no")
            @hookimpl
            def mail(self, message: Message) -> None:
                pass
        """,
    )
    report = check_plugin(reference)
    statuses = {result.check: result.status for result in report.results}
    assert statuses.pop("start-and-stop") == "failed"
    assert [name for name, status in statuses.items() if status == "passed"] == [
        *("loads", "configuration", "declarations")
    ]
    assert statuses["messages"] == statuses["leaks"] == "skipped"


def test_a_report_goes_through_json(tmp_path: Path) -> None:
    report = check_plugin(write(tmp_path, "    def message(self): pass\n"))
    assert not report.good
    assert Report.from_data(json.loads(json.dumps(report.to_data()))) == report
