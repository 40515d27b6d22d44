"""A plugin that does wrong at one hook, between two that do right; and what has to come of it.

`FAULTS` is what it does, `HOOKS` where, `OUTCOMES` what `on_error` makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.assembly import write_plugin

NAME = "wrong"

SENDER = "a@example.com"
CONTENT = b"Subject: test\r\nX-Odd:   spaces \r\n\r\nHello\r\n"
FILTERED = b"Subject: test\r\nX-Odd:   spaces \r\nX-Before: yes\r\nX-After: yes\r\n\r\nHello\r\n"
"""What the plugins before and after make of it, below the trace field."""

TIMEOUT = "200ms"

FAULTS = ("raises", "exits", "hangs", "spins", "junk", "forbidden", "leaks")
ON_ERROR = ("tempfail", "skip", "quarantine")


@dataclass(frozen=True)
class Hook:
    """A hook, as the plugin has it.

    Attributes:
        subject: its argument.
        normal: what it answers when it does right.
        change: what it may change, and does before it fails: nothing of it may be left.
        forbidden: what it may not change.
        late: what a task that it leaves behind tries to change, on `it`; must be refused.
        variants: how it may be written.
    """

    subject: str
    change: str
    forbidden: str
    late: Sequence[str]
    normal: str = "None"
    variants: Sequence[str] = ("plain", "async", "blocking")


_MESSAGE = (
    "setattr(it, 'sender', 'evil@example.com')",
    "setattr(it, 'stream', 'evil')",
    "setattr(it, 'release', 4e9)",
    "it.notes.update(bad='x')",
    "it.headers.add('X-Bad', 'x')",
    "it.headers.prepend('X-Bad', 'x')",
    "it.headers.delete('Subject')",
    "setattr(it, 'body', b'bad')",
    "setattr(it, 'content', b'bad')",
    "it.add_recipient('evil@example.com')",
    "it.recipients.clear()",
    "setattr(it, 'recipients', [])",
)
_RECIPIENTS = (
    "setattr(it.recipients[0], 'address', 'evil@example.com')",
    "setattr(it.recipients[0], 'return_path', 'evil@example.com')",
    "it.recipients[0].notes.update(bad='x')",
)
_RECIPIENT = (
    "setattr(it, 'address', 'evil@example.com')",
    "setattr(it, 'return_path', 'evil@example.com')",
    "it.notes.update(bad='x')",
)
_CLIENT = ("setattr(it, 'address', '192.0.2.9')", "setattr(it, 'user', 'evil')")
_DELIVERY = (
    "setattr(it, 'sender', 'evil@example.com')",
    "setattr(it, 'content', b'bad')",
    "setattr(it, 'recipients', [])",
    "setattr(it, 'route', None)",
    "setattr(it, 'recipients_per_message', 1)",
    "it.ceilings.update(x=0)",
    "it.notes.update(bad='x')",
    *_RECIPIENTS,
)

HOOKS = {
    "connect": Hook("client", "client.notes['bad'] = 'x'", "client.user = 'evil'", _CLIENT),
    "helo": Hook("client", "client.notes['bad'] = 'x'", "client.address = '192.0.2.9'", _CLIENT),
    "auth": Hook(
        "login",
        "login.user = 'evil'; login.client.notes['bad'] = 'x'",
        "login.username = 'evil'",
        ("setattr(it, 'user', 'evil')", "setattr(it, 'username', 'evil')"),
        normal="Accept()",
    ),
    "mail": Hook(
        "message",
        "message.sender = 'evil@example.com'; message.stream = 'evil'; message.notes['bad'] = 'x'",
        "message.add_recipient('evil@example.com')",
        _MESSAGE,
    ),
    "claim": Hook(
        "recipient",
        "recipient.notes['bad'] = 'x'",
        "recipient.address = 'evil@example.com'",
        _RECIPIENT,
        variants=("plain",),
    ),
    "receive": Hook(
        "message",
        "message.headers.add('X-Bad', 'x'); message.recipients.clear()",
        "message.recipients = [5]",
        (),
        variants=("plain", "async"),  # `claim`, which goes with it, may not block
    ),
    "rcpt": Hook(
        "recipient",
        "recipient.address = 'evil@example.com'; recipient.notes['bad'] = 'x'",
        "recipient.message.sender = 'evil@example.com'",
        _RECIPIENT,
    ),
    "message": Hook(
        "message",
        "message.sender = 'evil@example.com'; message.stream = 'evil'; message.notes['bad'] = 'x'; "
        "message.headers.add('X-Bad', 'x'); message.text_parts()[0].text = 'bad'; "
        "message.recipients[0].address = 'evil@example.com'; message.release = 4e9; "
        "message.recipients[0].return_path = 'evil@example.com'; "
        "message.add_recipient('evil@example.com').notes['bad'] = 'x'",
        "message.recipients[0].address = 'b@example.net>\\r\\nRCPT TO:<evil@example.com'",
        (*_MESSAGE, *_RECIPIENTS, "setattr(it.text_parts()[0], 'text', 'bad')"),
    ),
    "seal": Hook(
        "message",
        "message.headers.prepend('X-Bad', 'x')",
        "message.recipients[0].address = 'evil@example.com'",
        (*_MESSAGE, *_RECIPIENTS),
        variants=("plain", "blocking"),
    ),
    "route": Hook("delivery", "pass", "delivery.content = b'bad'", _DELIVERY),
    "source": Hook(
        "delivery",
        "pass",
        "delivery.recipients[0].address = 'evil@example.com'",
        _DELIVERY,
        variants=("plain",),
    ),
    "admit": Hook(
        "delivery",
        "delivery.ceilings['x'] = 0; delivery.recipients_per_message = 1",
        "delivery.notes['bad'] = 'x'",
        _DELIVERY,
        variants=("plain",),
    ),
    "reply": Hook(
        "attempt",
        "attempt.recipient.notes['bad'] = 'x'",
        "attempt.recipient.address = 'evil@example.com'",
        (
            "setattr(it.recipient, 'address', 'evil@example.com')",
            "it.recipient.notes.update(bad='x')",
            "setattr(it.delivery, 'content', b'bad')",
        ),
        variants=("plain",),
    ),
}

OUTCOMES = {
    "connect": {"tempfail": "connect 421", "skip": "delivered", "quarantine": "connect 421"},
    "helo": {"tempfail": "helo 451", "skip": "delivered", "quarantine": "helo 451"},
    "auth": {"tempfail": "auth 454", "skip": "auth 535", "quarantine": "auth 454"},
    "mail": {"tempfail": "mail 451", "skip": "delivered", "quarantine": "held"},
    "claim": {"tempfail": "rcpt 451", "skip": "delivered", "quarantine": "rcpt 451"},
    "receive": {"tempfail": "dot 451", "skip": "one held", "quarantine": "one held"},
    "rcpt": {"tempfail": "rcpt 451", "skip": "delivered", "quarantine": "held"},
    "message": {"tempfail": "dot 451", "skip": "delivered", "quarantine": "held"},
    "seal": {"tempfail": "dot 451", "skip": "delivered", "quarantine": "held"},
    "route": {"tempfail": "delayed", "skip": "delivered", "quarantine": "held"},
    "source": {"tempfail": "delayed", "skip": "delivered", "quarantine": "held"},
    "admit": {"tempfail": "delayed", "skip": "delivered", "quarantine": "held"},
    "reply": {"tempfail": "one deferred", "skip": "one deferred", "quarantine": "one held"},
}
"""What becomes of a message to `b` and `c`; the wrong one fails for `b`, where one is named."""

BEFORE = """
@hookimpl
async def message(self, message):
    await asyncio.sleep(0)
    message.headers.add("X-Before", "yes")
"""

AFTER = """
seen = ()
@hookimpl
async def message(self, message):
    await asyncio.sleep(0.02)  # so that what was left behind has its chance
    message.headers.add("X-After", "yes")
    client = message.client
    self.seen += (
        (
            message.sender, message.stream, message.release, dict(message.notes),
            client.address, client.user, dict(client.notes),
            [(one.address, one.orcpt, one.return_path, dict(one.notes))
             for one in message.recipients],
        ),
    )
@hookimpl
def seal(self, message):
    message.headers.prepend("X-Seal", "yes")
@hookimpl
def reply(self, attempt):
    assert "bad" not in attempt.recipient.notes
"""

_WRONG = """
{blocking}
broken = True
made = ()
refused = 0
{extra}
@hookimpl
{kind} {hook}(self, {subject}):
    it = {subject}
    if not self.broken or not ({applies}):
        return {normal}
    {statement}

def late(self, it):
    def attempt():
        for name, change in {{{late}}}.items():
            try:
                change()
            except Exception:
                self.refused += 1
            else:
                self.made += (name,)
    return attempt

async def later(self, it):
    attempt = self.late(it)
    for _ in range(30):
        await asyncio.sleep(0.004)
        attempt()

def in_thread(self, it):
    attempt = self.late(it)
    guard = getattr(it, "guard", None)  # a client has none: it can never be changed
    while guard is not None and "has ended" not in guard.rights.refusal:
        time.sleep(0.001)
    for _ in range(30):
        time.sleep(0.004)
        attempt()
"""

_CLAIM = """
@hookimpl
def claim(self, recipient):
    return Accept() if recipient.domain == "own.example" else None
"""
_RECEIVE = """
@hookimpl
def receive(self, message):
    raise AssertionError("nothing was claimed")
"""


def statement(hook: str, fault: str, variant: str) -> str:
    """What the plugin does that is wrong."""
    about = HOOKS[hook]
    if fault == "leaks":
        if variant == "blocking":
            start = "import threading; threading.Thread(target=self.in_thread, args=(it,)).start()"
        else:
            start = "self.task = asyncio.get_running_loop().create_task(self.later(it))"
        return f"{start}\n    return {about.normal}"
    sleep = {"plain": "time.sleep(60)", "async": "await asyncio.sleep(60)"}
    wrong = {
        "raises": "raise RuntimeError('broken')",
        "exits": "raise SystemExit(3)",
        # A thread that sleeps cannot be woken.
        "hangs": sleep.get(variant, "time.sleep(2)"),
        "spins": "while True: pass",
        "junk": "return 5",
        "forbidden": about.forbidden,
    }[fault]
    return f"{about.change}\n    {wrong}"


def write(folder: Path, hook: str, wrong: str, variant: str, on_error: str) -> str:
    """Writes the three plugins; returns the section of gateway.yaml."""
    about = HOOKS[hook]
    applies = {
        "claim": "it.address[0] == 'b'",
        "rcpt": "it.address[0] == 'b'",
        "reply": "it.recipient.address[0] == 'b'",
    }
    body = _WRONG.format(
        blocking="blocking = True" if variant == "blocking" else "",
        kind="async def" if variant == "async" else "def",
        hook=hook,
        subject=about.subject,
        normal=about.normal,
        applies=applies.get(hook, "True"),
        statement=wrong,
        late=", ".join(f"{one!r}: lambda: {one}" for one in about.late),
        extra={"receive": _CLAIM, "claim": _RECEIVE}.get(hook, ""),
    )
    rules = f"timeout: {TIMEOUT}, on_error: {on_error}"
    return "\n".join(
        [
            "plugins:",
            f"  - {write_plugin(folder, 'before', BEFORE)}",
            f"  - {write_plugin(folder, NAME, body)}: {{{rules}}}",
            f"  - {write_plugin(folder, 'after', AFTER)}",
        ]
    )
