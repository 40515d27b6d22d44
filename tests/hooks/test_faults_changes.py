"""What a hook may not change cannot be changed: each thing, at each hook, is a fault by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.attempt import Attempt, Delivery, Disposition, Hop, Outcome, Route, Source
from gateway.hooks.actions import Accept
from gateway.hooks.chain import Chain, Filtered
from gateway.hooks.load import load_plugins
from gateway.hooks.plugin import Login
from gateway.hooks.watchdog import Watchdog
from gateway.mail.message import Client, ForbiddenChangeError, Message, Recipient
from tests.assembly import configure, write_plugin

CONTENT = b"Subject: test\r\nFrom: a@example.com\r\n\r\nHello\r\n"

_CLIENT = [
    "client.address = '192.0.2.9'",
    "client.user = 'root'",
    "client.helo = 'x'",
    "client.tls = 'TLSv1.3'",
    "client.notes = {{}}",
    "client.notes['x'] = 5",
    "client.notes[5] = 'x'",
    "client.notes.update(x=None)",
    "client.notes.setdefault('x', 5)",
    "client.notes |= {{'x': b'y'}}",
    "client.notes['x'] = '\\udc80'",
    "client.unknown = 1",
    "del client.address",
]
_NOTES = [
    "{0}.notes['x'] = 5",
    "{0}.notes[None] = 'x'",
    "{0}.notes.update({{'x': 'y', 'z': 5}})",
    "{0}.notes.update(x='\\udc80')",
    "{0}.notes = None",
    "{0}.notes = {{'x': None}}",
]
_FIXED = [
    "{0}.id = 'x'",
    "{0}.client = None",
    "{0}.client.address = '192.0.2.9'",
    "{0}.headers = None",
    "{0}.headers = {0}.headers.copy()",
    "{0}.smtputf8 = True",
    "{0}.ret = 'FULL'",
    "{0}.envid = 'x'",
    "{0}.require_tls = True",
    "{0}.priority = 9",
    "{0}.guard = None",
    "{0}.whole = None",
    "{0}.unknown = 1",
    "del {0}.id",
]
_ENVELOPE = [
    "{0}.sender = 'evil@example.com'",
    "{0}.stream = 'evil'",
    "{0}.release = 4e9",
    "{0}.notes['x'] = 'y'",
    "{0}.notes.clear()",
    "{0}.notes = {{}}",
    "{0}.notes.pop('first')",
    "{0}.notes.popitem()",
    "del {0}.notes['first']",
]
_RECIPIENTS = [
    "{0}.recipients = []",
    "{0}.recipients = None",
    "{0}.recipients.append({0}.recipients[0])",
    "{0}.recipients.extend({0}.recipients)",
    "{0}.recipients.insert(0, None)",
    "{0}.recipients.clear()",
    "{0}.recipients.pop()",
    "{0}.recipients.remove({0}.recipients[0])",
    "{0}.recipients.reverse()",
    "{0}.recipients.sort(key=id)",
    "{0}.recipients[0] = None",
    "{0}.recipients += [None]",
    "{0}.recipients *= 2",
    "del {0}.recipients[0]",
    "{0}.add_recipient('evil@example.com')",
    "{0}.remove_recipient({0}.recipients[0])",
    "{0}.recipients[0].address = 'evil@example.com'",
    "{0}.recipients[0].return_path = 'evil@example.com'",
    "{0}.recipients[0].notify = frozenset(('NEVER',))",
    "{0}.recipients[0].orcpt = 'rfc822;x'",
    "{0}.recipients[0].notes['x'] = 'y'",
    "{0}.recipients[0].notes = {{}}",
    "{0}.recipients[0].message = None",
    "del {0}.recipients[0].address",
]
_CONTENT = [
    "{0}.headers.add('X', 'y')",
    "{0}.headers.change('Subject', 'y')",
    "{0}.headers.delete('Subject')",
    "{0}.headers.insert(0, 'X', 'y')",
    "{0}.headers.replace('Subject', [(0, 1, 'x')])",
    "{0}.headers.splice('Subject', 0, 0, b'x')",
    "{0}.body = b'x'",
    "{0}.content = b'x'",
    "{0}.receive(b'x')",
    "{0}.text_parts()[0].text = 'x'",
]
_BAD_RECIPIENT = [
    "{0}.address = 'b@example.net>\\r\\nRCPT TO:<evil@example.com'",
    "{0}.address = 'b@example.net> NOTIFY=NEVER'",
    "{0}.address = 'no domain'",
    "{0}.address = 'nodomain'",
    "{0}.address = ''",
    "{0}.address = None",
    "{0}.address = b'b@example.net'",
    "{0}.address = 'x' * 300 + '@example.net'",
]
_DELIVERY = [
    "delivery.message_id = 'x'",
    "delivery.sender = 'evil@example.com'",
    "delivery.content = b'x'",
    "delivery.recipients = []",
    "delivery.recipients.append(None)",
    "delivery.recipients[0] = None",
    "delivery.recipients[0].address = 'evil@example.com'",
    "delivery.recipients[0].return_path = None",
    "delivery.recipients[0].notes['x'] = 'y'",
    "delivery.notes['x'] = 'y'",
    "delivery.notes = {{}}",
    "delivery.return_path = 'evil@example.com'",
    "delivery.route = None",
    "delivery.source = None",
    "delivery.lane = 'x'",
    "delivery.attempts = 0",
    "delivery.require_tls = True",
    "delivery.in_seven_bits = None",
    "delivery.guard = None",
    "delivery.client.address = '192.0.2.9'",
    "delivery.headers.add('X', 'y')",
    "delivery.headers.prepend('X', 'y')",
    "delivery.unknown = 1",
    "del delivery.sender",
]
_OWN_NOTE = "delivery.recipients[0].notes['x'] = 'y'"
_BOUNDS = [
    "delivery.ceilings['x'] = 1",
    "delivery.ceilings = {{'x': 1}}",
    "delivery.messages_per_connection = 1",
    "delivery.recipients_per_message = 1",
]

FORBIDDEN = {
    "connect": _CLIENT,
    "helo": _CLIENT,
    "auth": [
        "login.username = 'evil'",
        "login.password = 'x'",
        "login.mechanism = 'x'",
        "login.client = None",
        "login.client.user = 'evil'",
        "login.client.notes['x'] = 5",
        "login.user = None",
        "login.user = ''",
        "login.user = 5",
        "login.user = 'a\\r\\nb'",
        "login.guard = None",
    ],
    "mail": [
        "{0}.sender = 'a@example.com>\\r\\nRCPT TO:<evil@example.com'",
        "{0}.sender = 'a@example.com> SIZE=1'",
        "{0}.sender = 'no address'",
        "{0}.sender = None",
        "{0}.sender = b''",
        "{0}.stream = 5",
        "{0}.stream = 'a\\nb'",
        "{0}.release = 4e9",
        *_NOTES,
        *_FIXED,
        *_RECIPIENTS,
        *_CONTENT,
        "{0}.headers.prepend('X', 'y')",
    ],
    "claim": [
        "recipient.address = 'evil@example.com'",
        "recipient.return_path = 'x@example.com'",
        "recipient.notify = None",
        "recipient.orcpt = None",
        "recipient.message = None",
        *[one.replace("{0}", "recipient") for one in _NOTES],
        *[one.replace("{0}", "recipient.message") for one in (*_ENVELOPE, *_RECIPIENTS)],
    ],
    "rcpt": [
        *[one.replace("{0}", "recipient") for one in (*_BAD_RECIPIENT, *_NOTES)],
        "recipient.return_path = 'x@example.com'",
        "recipient.notify = frozenset(('NEVER',))",
        "recipient.orcpt = 'rfc822;x'",
        "recipient.message = None",
        "recipient.guard = None",
        "recipient.unknown = 1",
        "del recipient.address",
        *[
            one.replace("{0}", "recipient.message")
            for one in (*_ENVELOPE, *_FIXED, *_RECIPIENTS, *_CONTENT)
        ],
    ],
    "message": [
        "{0}.sender = 'a@example.com>\\r\\nRCPT TO:<evil@example.com'",
        "{0}.sender = None",
        "{0}.stream = None",
        "{0}.release = -1",
        "{0}.release = float('nan')",
        "{0}.release = float('inf')",
        "{0}.release = 'soon'",
        *_NOTES,
        *_FIXED,
        "{0}.recipients = None",
        "{0}.recipients = [5]",
        "{0}.recipients = ['b@example.net']",
        "{0}.recipients = [*{0}.recipients, {0}.recipients[0]]",
        "{0}.recipients = {0}.copy().recipients",
        "{0}.recipients.append('x@example.com')",
        "{0}.recipients.append({0}.recipients[0])",
        "{0}.recipients.append(type({0}.recipients[0])('x@example.com'))",
        "{0}.recipients *= 2",
        "{0}.recipients[0] = {0}.recipients[1]",
        "{0}.recipients[0].message = None",
        "{0}.recipients[0].guard = None",
        *[one.replace("{0}", "{0}.recipients[0]") for one in (*_BAD_RECIPIENT, *_NOTES)],
        "{0}.recipients[0].return_path = 'a\\r\\nb@example.com'",
        "{0}.recipients[0].return_path = 5",
        "{0}.recipients[0].notify = frozenset(('SOMETIMES',))",
        "{0}.recipients[0].notify = 'NEVER'",
        "{0}.recipients[0].orcpt = 'rfc822;a b'",
        "{0}.recipients[0].orcpt = 'x'",
        "{0}.add_recipient('b@example.net>\\r\\nRCPT TO:<evil@example.com')",
        "{0}.add_recipient('nodomain')",
        "{0}.add_recipient('x@example.net', notes={{'x': 5}})",
        "{0}.add_recipient('x@example.net', orcpt=5)",
        "{0}.headers.add('X', 'a\\nb')",
        "{0}.headers.prepend('X', b'a\\nb')",
        "{0}.headers.prepend('X y', 'z')",
        "{0}.body = b'a\\nb'",
        "{0}.content = b'\\0'",
    ],
    "seal": [
        *_ENVELOPE,
        *_FIXED,
        *_RECIPIENTS,
        *_CONTENT,
        "{0}.headers.prepend('X', b'a\\nb')",
    ],
    "route": [*_DELIVERY, *_BOUNDS],
    "source": [*_DELIVERY, *_BOUNDS],
    "admit": [
        *_DELIVERY,
        "delivery.ceilings['x'] = '1'",
        "delivery.ceilings['x'] = True",
        "delivery.ceilings[5] = 1",
        "delivery.ceilings = None",
        "delivery.messages_per_connection = 0",
        "delivery.messages_per_connection = '1'",
        "delivery.recipients_per_message = -1",
        "delivery.recipients_per_message = 1.5",
    ],
    "reply": [
        "attempt.outcome = None",
        "attempt.recipient = None",
        "attempt.recipient.address = 'evil@example.com'",
        "attempt.recipient.orcpt = None",
        *[one.replace("{0}", "attempt.recipient") for one in _NOTES],
        "attempt.delivery.recipients[1].notes['x'] = 'y'",
        *[f"attempt.{one}" for one in _DELIVERY if one != _OWN_NOTE and "del " not in one],
        *[f"attempt.{one}" for one in _BOUNDS],
    ],
}

SUBJECTS = {"connect": "client", "helo": "client", "auth": "login", "claim": "recipient"}
SUBJECTS |= {"rcpt": "recipient", "reply": "attempt", "mail": "message", "message": "message"}
SUBJECTS |= {"seal": "message", "route": "delivery", "source": "delivery", "admit": "delivery"}

CELLS = [(hook, line) for hook, lines in FORBIDDEN.items() for line in dict.fromkeys(lines)]


def _chain(folder: Path, hook: str, line: str, on_error: str) -> Chain:
    subject = SUBJECTS[hook]
    body = f"@hookimpl\ndef {hook}(self, {subject}):\n    {line.format(subject)}"
    if hook == "claim":
        body += "\n    return Accept()\n@hookimpl\ndef receive(self, message):\n    pass"
    text = f"plugins: [{write_plugin(folder, 'site', body)}: {{on_error: {on_error}}}]"
    return Chain(load_plugins(configure(folder, text)), Watchdog())


def _message(*recipients: str) -> Message:
    message = Message("0", "a@example.com", Client("127.0.0.1"))
    message.content = CONTENT
    message.notes["first"] = "1"
    for address in recipients or ("b@example.net", "c@example.net"):
        message.add_recipient(address).notes["first"] = "1"
    return message


def _of_message(message: Message) -> Any:
    names = ("id", "sender", "stream", "release", "smtputf8", "ret", "envid", "require_tls")
    return (
        [getattr(message, name) for name in (*names, "priority", "client", "headers", "guard")],
        dict(message.notes),
        [_of_recipient(one) for one in message.recipients],
        message.content,
    )


def _of_recipient(one: Recipient) -> Any:
    fixed = one.address, one.notify, one.orcpt, one.return_path, one.message, one.guard
    return one, fixed, dict(one.notes)


def _of_delivery(one: Delivery) -> Any:
    names = "message_id sender content route source lane attempts client return_path require_tls"
    bounds = "messages_per_connection recipients_per_message in_seven_bits guard"
    return (
        [getattr(one, name) for name in (*names.split(), *bounds.split())],
        [_of_recipient(recipient) for recipient in one.recipients],
        dict(one.notes),
        dict(one.ceilings),
        one.headers.raw,
    )


def _delivery() -> Delivery:
    delivery = Delivery(
        message_id="0",
        sender="a@example.com",
        recipients=[Recipient("b@example.net"), Recipient("c@example.net")],
        client=Client("127.0.0.1"),
        stream="default",
        received=0.0,
        attempts=1,
        content=CONTENT,
        route=Route((Hop("192.0.2.1"),), "x"),
        source=Source(None, "gw.example.com"),
    )
    delivery.close()
    return delivery


@pytest.mark.parametrize(("hook", "line"), CELLS, ids=[f"{hook}: {line}" for hook, line in CELLS])
async def test_what_may_not_be_changed(tmp_path: Path, hook: str, line: str) -> None:
    for on_error in ("tempfail", "skip"):
        chain = _chain(tmp_path, hook, line, on_error)
        await _asked(chain, hook)
        (step,) = chain.steps[hook]
        assert step.faults == 1


async def _asked(chain: Chain, hook: str) -> None:
    """Asks the hooks; whatever they do, their subject is as it was."""
    message = _message()
    if hook in ("connect", "helo"):
        client = Client("127.0.0.1", helo="client.example.org")
        client.notes["first"] = "1"
        await getattr(chain, hook)(client)
        assert client == Client("127.0.0.1", helo="client.example.org", notes=client.notes)
        assert client.notes == {"first": "1"}
    elif hook == "auth":
        login = Login(Client("127.0.0.1"), "PLAIN", "shop", "secret")
        await chain.auth(login)
        assert (login.username, login.password, login.user) == ("shop", "secret", "shop")
        assert login.client == Client("127.0.0.1")
    elif hook in ("claim", "rcpt"):
        recipient = Recipient("d@example.net", notes={"first": "1"}, message=message)
        before = _of_message(message), _of_recipient(recipient)
        if hook == "claim":
            chain.claim(recipient)
        else:
            await chain.rcpt(recipient)
        assert (_of_message(message), _of_recipient(recipient)) == before
    elif hook in ("route", "source", "admit"):
        delivery = _delivery()
        of_delivery = _of_delivery(delivery)
        answer = getattr(chain, hook)(delivery)
        if hook == "route":
            await answer
        assert _of_delivery(delivery) == of_delivery
    elif hook == "reply":
        delivery = _delivery()
        of_delivery = _of_delivery(delivery)
        outcome = Outcome(Disposition.DEFERRED, 450, "4.2.0", "later", "rcpt")
        attempt = Attempt(
            delivery, delivery.recipients[0], delivery.route, delivery.source, outcome
        )
        assert chain.reply(attempt) == outcome
        assert _of_delivery(delivery) == of_delivery
    else:
        of_message = _of_message(message)
        answer = await getattr(chain, hook if hook == "mail" else "message")(message)
        step = chain.steps[hook][0]
        if step.on_error == "tempfail" and hook == "message":
            return  # the client keeps it; this one is thrown away
        assert _of_message(message) == of_message
        if step.on_error == "skip" and hook != "mail":
            assert isinstance(answer, Filtered)


async def test_a_plugin_that_catches_it_has_changed_nothing(tmp_path: Path) -> None:
    line = "try: message.add_recipient('evil@example.com')\n    except RuntimeError: pass"
    chain = _chain(tmp_path, "mail", line, "tempfail")
    message = _message()
    before = _of_message(message)
    assert await chain.mail(message) is None
    assert chain.steps["mail"][0].faults == 0
    assert _of_message(message) == before


async def test_nothing_can_be_changed_after_the_chain(tmp_path: Path) -> None:
    chain = _chain(tmp_path, "message", "message.notes['seen'] = 'yes'", "tempfail")
    message = _message()
    part = message.text_parts()[0]
    assert isinstance(await chain.message(message), Filtered)
    before = _of_message(message)
    lines = (*_ENVELOPE, *_FIXED, *_RECIPIENTS, *_CONTENT, "{0}.headers.prepend('X', 'y')")
    for line in lines:
        with pytest.raises((ForbiddenChangeError, AttributeError)):
            exec(line.format("message"), {"message": message})
    with pytest.raises(ForbiddenChangeError):
        part.text = "x"
    assert _of_message(message) == before


async def test_who_does_not_know_a_client_does_not_name_it(tmp_path: Path) -> None:
    bodies = ("login.user = 'root'", "return Accept()")
    lines = []
    for number, line in enumerate(bodies):
        body = f"@hookimpl\ndef auth(self, login):\n    {line}"
        lines.append(f"  - {write_plugin(tmp_path, f'p{number}', body)}")
    config = configure(tmp_path, "\n".join(["plugins:", *lines]))
    chain = Chain(load_plugins(config), Watchdog())
    login = Login(Client("127.0.0.1"), "PLAIN", "shop", "secret")
    assert await chain.auth(login) == Accept()
    assert login.user == "shop"
