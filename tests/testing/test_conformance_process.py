"""Plugins that are bad to the process they run in: each flaw is found, in the right words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.flaw import MESSAGE, Flaw, assert_found

FLAWS = {
    "sleeps": Flaw(
        MESSAGE + "        time.sleep(0.001)\n",
        "event-loop",
        ("time.sleep in message", "asyncio.to_thread"),
        "time.sleep",
    ),
    "opens a database in a coroutine": Flaw(
        """
            @hookimpl
            async def rcpt(self, recipient: Recipient) -> None:
                sqlite3.connect(":memory:").close()
        """,
        "event-loop",
        ("a database is opened in rcpt",),
        "sqlite3.connect",
    ),
    "asks the DNS by itself": Flaw(
        MESSAGE + '        socket.getaddrinfo("127.0.0.1", 25)\n',
        "event-loop",
        ("the DNS is asked (getaddrinfo) in message",),
        "getaddrinfo",
    ),
    "connects and waits": Flaw(
        """
            @hookimpl
            def connect(self, client: Client) -> None:
                with socket.socket() as one:
                    one.connect_ex(("127.0.0.1", 9))
        """,
        "event-loop",
        ("a connection is opened in connect",),
        "connect_ex",
    ),
    "runs a program": Flaw(
        MESSAGE + '        subprocess.run(["true"], check=True)\n',
        "event-loop",
        ("a program is started in message",),
        "subprocess.run",
    ),
    "waits for a lock": Flaw(
        MESSAGE + "        threading.Event().wait(0 if message.sender else 0.07)\n",
        "event-loop",
        ("message waits ", "on the event loop", "asyncio.to_thread"),
    ),
    "has a loop in a thread": Flaw(
        "    blocking = True\n" + MESSAGE + "        asyncio.run(asyncio.sleep(0))\n",
        "event-loop",
        ("message uses asyncio, and the plugin is blocking",),
        "asyncio.run",
    ),
    "leaves tasks behind": Flaw(
        """
            tasks: list[Any] = []
            @hookimpl
            async def message(self, message: Message) -> None:
                self.tasks.append(asyncio.create_task(asyncio.sleep(3600)))
        """,
        "leaks",
        ("leaves tasks behind", "sleep"),
    ),
    "leaves threads behind": Flaw(
        MESSAGE
        + "        if message.sender: return\n"
        + "        threading.Thread(\n"
        + "            target=threading.Event().wait, name='mine', daemon=True\n"
        + "        ).start()\n",
        "leaks",
        ("starts threads that do not end", "mine"),
    ),
    "leaves files open": Flaw(
        "    files: list[Any] = []\n" + MESSAGE + "        self.files.append(open(__file__))\n",
        "leaks",
        ("leaves", "files or connections open"),
    ),
    "keeps every message": Flaw(
        "    kept: list[Any] = []\n" + MESSAGE + "        self.kept.append(message)\n",
        "leaks",
        ("octets of memory for each message",),
    ),
    "forgets to await": Flaw(
        """
            @hookimpl
            async def message(self, message: Message) -> None:
                asyncio.sleep(0)
        """,
        "leaks",
        ("never awaited",),
    ),
    "keeps a task after stop": Flaw(
        """
            @hookimpl
            async def start(self, context: Context) -> None:
                self.task = asyncio.create_task(asyncio.sleep(3600))
            @hookimpl
            def mail(self, message: Message) -> None:
                pass
        """,
        "leaks",
        ("still runs after stop",),
    ),
    "waits in a page": Flaw(
        """
            @hookimpl
            def http(self) -> Any:
                async def page(scope: Any, receive: Any, send: Any) -> None:
                    sqlite3.connect(":memory:").close()
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    await send({"type": "http.response.body", "body": b""})
                return page
        """,
        "event-loop",
        ("a database is opened in http",),
        "sqlite3.connect",
    ),
    "tampers with the gateway": Flaw(
        """
            changes = ("header:X-Site",)
            @hookimpl
            def start(self, context: Context) -> None:
                Message.restore = lambda message, checkpoint: None
            @hookimpl
            def message(self, message: Message) -> None:
                message.headers.add("X-Site", "1")
        """,
        "failures",
        ("message raises, with on_error skip", "the message stays changed"),
    ),
    "does not start": Flaw(
        """
            @hookimpl
            def start(self, context: Context) -> None:
                (context.base / "missing").read_text()
            @hookimpl
            def mail(self, message: Message) -> None:
                pass
        """,
        "start-and-stop",
        ("start raises FileNotFoundError",),
        ".read_text()",
    ),
    "starts only once": Flaw(
        """
            @hookimpl
            def start(self, context: Context) -> None:
                (context.data_folder() / "pid").open("x").close()
            @hookimpl
            def mail(self, message: Message) -> None:
                pass
        """,
        "start-and-stop",
        ("start, in the folder of an earlier one, raises FileExistsError",),
        '.open("x")',
    ),
    "does not stop": Flaw(
        """
            @hookimpl
            def stop(self) -> None:
                self.file.close()
            @hookimpl
            def mail(self, message: Message) -> None:
                pass
        """,
        "start-and-stop",
        ("stop raises AttributeError",),
        "self.file.close",
    ),
    "writes where all write": Flaw(
        """
            @hookimpl
            def start(self, context: Context) -> None:
                self.state = (context.base / "state.db").open("a")
            @hookimpl
            def stop(self) -> None:
                self.state.close()
            @hookimpl
            def mail(self, message: Message) -> None:
                pass
        """,
        "files",
        ("writes ", "state.db", "context.data_folder()"),
        '"state.db"',
    ),
    "writes beside its folder": Flaw(
        """
            @hookimpl
            def mail(self, message: Message) -> None:
                with self.place.open("a") as file:
                    file.write("1")
            @hookimpl
            def start(self, context: Context) -> None:
                context.data_folder()
                self.place = context.folder.parent / "seen"
        """,
        "files",
        ("writes plugins/seen in the folder of the spool",),
        "self.place.open",
    ),
}


@pytest.mark.parametrize("name", FLAWS)
def test_a_flaw_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_found(FLAWS[name], tmp_path)
