"""Plugins that treat mail badly: each flaw is found, in the right words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.flaw import MESSAGE, Flaw, assert_found

FLAWS = {
    "changes more than it declares": Flaw(
        MESSAGE + '        message.headers.add("X-Site", "1")\n',
        "messages",
        ("changes header:X-Site", "does not declare it", 'add "header:X-Site" to `changes`'),
    ),
    "changes octets that it means to leave": Flaw(
        MESSAGE + "        message.body = message.body.rstrip() + b'\\r\\n'\n",
        "messages",
        ("changes ", "does not declare it"),
    ),
    "declares nothing": Flaw(
        "    changes = None\n" + MESSAGE + '        message.headers.add("X-Site", "1")\n',
        "messages",
        ("does not declare what it changes", 'changes = ("header:X-Site",)'),
        level="warning",
    ),
    "takes recipients away": Flaw(
        MESSAGE + "        message.remove_recipient(message.recipients[-1])\n",
        "messages",
        ("changes recipients", "is gone"),
    ),
    "draws by chance": Flaw(
        '    changes = ("header:X-Id",)\n'
        + MESSAGE
        + '        message.headers.change("X-Id", str(random.random()))\n',
        "messages",
        ("the same message at the same time gives header:X-Id anew",),
        level="warning",
    ),
    "cannot read every charset": Flaw(
        MESSAGE + "        message.body.decode()\n",
        "messages",
        ("message raises UnicodeDecodeError", "more)"),
        "message.body.decode()",
    ),
    "makes lines that are too long": Flaw(
        '    changes = ("body",)\n'
        + MESSAGE
        + '        message.body = b"x" * 2000 + message.body\n',
        "messages",
        ("makes a message that cannot go out", "longer than 998"),
    ),
    "breaks the structure": Flaw(
        '    changes = ("text/html",)\n'
        + MESSAGE
        + '        message.body = message.body.replace(b"multipart", b"x-part")\n',
        "messages",
        ("other parts of the message",),
    ),
    "takes its own output amiss": Flaw(
        '    changes = ("header:X-Site",)\n'
        + MESSAGE
        + '        assert "X-Site" not in message.headers\n'
        + '        message.headers.add("X-Site", "1")\n',
        "messages",
        ("message raises AssertionError",),
        "assert",
    ),
    "answers junk": Flaw(
        MESSAGE.replace("None", "Any") + '        return "no"\n',
        "messages",
        ("message answers str", "may answer None, Reject"),
    ),
    "changes what its stage may not": Flaw(
        """
            @hookimpl
            def rcpt(self, recipient: Recipient) -> None:
                recipient.message.sender = "eve@example.org"
        """,
        "messages",
        ("rcpt raises ForbiddenChangeError", "message.sender"),
        "recipient.message.sender =",
    ),
    "takes long": Flaw(
        MESSAGE
        + "        end = time.thread_time() + 0.03\n"
        + "        while not message.sender and time.thread_time() < end: pass\n",
        "time",
        ("message takes", "the budget is 10 ms"),
    ),
    "believes in every helo": Flaw(
        """
            @hookimpl
            def helo(self, client: Client) -> None:
                client.helo.encode("ascii")
        """,
        "hostile-input",
        ("helo raises UnicodeEncodeError",),
        "client.helo.encode",
    ),
    "believes in every password": Flaw(
        """
            @hookimpl
            def auth(self, login: Login) -> None:
                login.password[0]
        """,
        "hostile-input",
        ("auth raises IndexError",),
        "login.password[0]",
    ),
    "believes that there is a sender": Flaw(
        """
            @hookimpl
            def mail(self, message: Message) -> None:
                message.sender.split("@")[1]
        """,
        "hostile-input",
        ("mail raises IndexError",),
        "message.sender.split",
    ),
    "believes in notes": Flaw(
        MESSAGE + '        int(message.notes.get("campaign", "1") or 1)\n',
        "hostile-input",
        ("message raises ValueError",),
        "int(message.notes",
    ),
    "believes in replies": Flaw(
        """
            @hookimpl
            def reply(self, attempt: Attempt) -> None:
                attempt.route.site
        """,
        "hostile-input",
        ("reply raises AttributeError",),
        "attempt.route.site",
    ),
    "believes in events": Flaw(
        """
            @hookimpl
            def observe(self, events: Any) -> None:
                for event in events:
                    event.recipient.split("@")[1]
        """,
        "hostile-input",
        ("observe raises IndexError",),
        "event.recipient.split",
    ),
    "believes in requests": Flaw(
        """
            @hookimpl
            def http(self) -> Any:
                async def page(scope: Any, receive: Any, send: Any) -> None:
                    scope["client"][0]
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    await send({"type": "http.response.body", "body": b""})
                return page
        """,
        "hostile-input",
        ("http raises TypeError",),
        'scope["client"]',
    ),
    "does not answer requests": Flaw(
        """
            @hookimpl
            def http(self) -> Any:
                async def page(scope: Any, receive: Any, send: Any) -> None:
                    pass
                return page
        """,
        "hostile-input",
        ("http raises ValueError: gave no answer",),
    ),
    "has commands that need start": Flaw(
        """
            @hookimpl
            def start(self, context: Context) -> None:
                self.path = context.folder
            @hookimpl
            def commands(self, context: Context) -> Any:
                return self.path.name
        """,
        "hostile-input",
        ("commands raises AttributeError", "it runs without start"),
        "return self.path.name",
    ),
    "ends the process": Flaw(
        MESSAGE + "        import os; os._exit(3)\n",
        "messages",
        ("the plugin ended the process with status 3",),
    ),
    "never ends": Flaw(
        MESSAGE + "        while True: pass\n",
        "messages",
        ("message does not end",),
        "while True",
    ),
}


@pytest.mark.parametrize("name", FLAWS)
def test_a_flaw_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_found(FLAWS[name], tmp_path)
