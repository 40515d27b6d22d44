"""What is written to a message is checked; what may be written is what the guard says."""

from __future__ import annotations

import contextvars
import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.attempt import Delivery
from gateway.mail.guard import FINISHED, OPEN, ForbiddenChangeError, Guard, rights_of
from gateway.mail.message import Client, Message, MessageSealedError, Recipient
from gateway.mail.notes import Notes

CONTENT = b"Subject: Hi\r\n\r\nHello\r\n"
MAIL = rights_of("mail", "message.sender", "message.notes")
RCPT = rights_of("rcpt", "recipient.address", "recipient.notes")


def _message() -> Message:
    message = Message("4fJx", "alice@example.com", Client("192.0.2.1"))
    message.content = CONTENT
    message.add_recipient("bob@example.net")
    message.add_recipient("carol@example.org")
    return message


# By hand everything is open, and what mail cannot go out with is refused all the same.


def test_a_message_by_hand_is_open() -> None:
    message = _message()
    message.id, message.client, message.priority = "x", Client("192.0.2.2"), 3
    message.notes = {"a": "b"}
    message.notes["c"] = "d"
    message.recipients = [Recipient("dave@example.com"), message.recipients[0]]
    message.recipients.append(Recipient("erin@example.com"))
    message.recipients[0].notes["x"] = "y"
    assert [one.address for one in message.recipients] == [
        "dave@example.com",
        "bob@example.net",
        "erin@example.com",
    ]
    assert message.notes == {"a": "b", "c": "d"}
    assert isinstance(message, Message)
    assert type(message.recipients[0]) is Recipient


def test_a_recipient_by_hand_is_open() -> None:
    recipient = Recipient("bob@example.net")
    recipient.address = "carol@example.org"
    recipient.return_path = "bounce@example.com"
    recipient.notify, recipient.orcpt = frozenset({"NEVER"}), "rfc822;bob@example.net"
    recipient.notes = {"a": "b"}
    assert (recipient.address, recipient.domain) == ("carol@example.org", "example.org")
    assert recipient.notes == {"a": "b"}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda message: setattr(message, "sender", "a@x>\r\nRCPT TO:<b@x"),
        lambda message: setattr(message, "sender", None),
        lambda message: setattr(message, "stream", 5),
        lambda message: setattr(message, "recipients", ["bob@example.net"]),
        lambda message: setattr(message, "release", -1),
        lambda message: setattr(message, "unknown", 1),
        lambda message: message.notes.update(a=1),
        lambda message: message.recipients.append(message.recipients[0]),
        lambda message: setattr(message.recipients[0], "address", "a b@example.com"),
        lambda message: setattr(message.recipients[0], "notify", {"NEVER"}),
        lambda message: setattr(message.recipients[0], "unknown", 1),
        lambda message: delattr(message, "id"),
        lambda message: delattr(message.recipients[0], "address"),
    ],
)
def test_what_mail_cannot_go_out_with(wrong: Callable[[Message], object]) -> None:
    message = _message()
    with pytest.raises((TypeError, ValueError, AttributeError)):
        wrong(message)
    assert [one.address for one in message.recipients] == ["bob@example.net", "carol@example.org"]
    assert (message.sender, message.stream, message.notes) == ("alice@example.com", "default", {})


def test_only_the_notes_of_a_client_can_be_changed() -> None:
    client = Client("192.0.2.1")
    client.notes["a"] = "b"
    with pytest.raises(FrozenInstanceError):
        client.address = "192.0.2.9"  # type: ignore[misc]
    assert replace(client, helo="x").notes is client.notes


# Notes are a dict.


OPERATIONS = st.one_of(
    st.tuples(st.just("__setitem__"), st.tuples(st.text(max_size=2), st.text(max_size=2))),
    st.tuples(st.just("__setitem__"), st.tuples(st.text(max_size=2), st.none() | st.integers())),
    st.tuples(st.just("__delitem__"), st.tuples(st.text(max_size=2))),
    st.tuples(st.just("pop"), st.tuples(st.text(max_size=2), st.just("x"))),
    st.tuples(st.just("setdefault"), st.tuples(st.text(max_size=2), st.text(max_size=2))),
    st.tuples(
        st.just("update"), st.tuples(st.dictionaries(st.text(max_size=2), st.text(max_size=2)))
    ),
    st.tuples(st.just("clear"), st.just(())),
    st.tuples(st.just("popitem"), st.just(())),
)


@given(st.lists(OPERATIONS))
def test_notes_are_a_dict_of_text(operations: list[tuple[str, tuple[Any, ...]]]) -> None:
    notes, plain = Notes(), dict[str, str]()
    for name, arguments in operations:
        before = dict(plain)
        try:
            wanted = getattr(plain, name)(*arguments)
        except KeyError:
            with pytest.raises(KeyError):
                getattr(notes, name)(*arguments)
            continue
        if any(type(value) is not str for value in plain.values()):
            plain = before
            with pytest.raises(TypeError):
                getattr(notes, name)(*arguments)
        else:
            assert getattr(notes, name)(*arguments) == wanted
        assert notes == plain
        assert list(notes) == list(plain)
    assert json.loads(json.dumps(notes)) == plain
    for twin in (copy.copy(notes), copy.deepcopy(notes), pickle.loads(pickle.dumps(notes))):
        assert type(twin) is dict
        assert twin == plain


def test_notes_say_only_what_utf_8_can() -> None:
    notes = Notes()
    notes |= {"名": "前"}
    with pytest.raises(ValueError):
        notes["x"] = "\udc80"
    assert notes == {"名": "前"}


# What a stage allows.


def test_a_stage_allows_what_it_says() -> None:
    message = _message()
    message.guard.open("site", MAIL)
    message.sender = "dave@example.com"
    message.notes["a"] = "b"
    said = r"^mail may change message.sender, message.notes, and cannot change message.stream$"
    with pytest.raises(ForbiddenChangeError, match=said):
        message.stream = "bulk"
    with pytest.raises(ForbiddenChangeError, match=r"recipient\.notes"):
        message.recipients[0].notes["a"] = "b"
    with pytest.raises(ForbiddenChangeError, match=r"headers\.change"):
        message.headers.add("X", "y")
    message.guard.close()
    with pytest.raises(ForbiddenChangeError, match=r"^the hook has ended"):
        message.sender = "erin@example.com"
    assert message.sender == "dave@example.com"


def test_only_one_recipient_may_be_changed() -> None:
    message = _message()
    bob, carol = message.recipients
    message.guard.open("site", RCPT, bob)
    bob.address = "dave@example.com"
    bob.notes["a"] = "b"
    changes: list[Callable[[], object]] = [
        lambda: setattr(carol, "address", "evil@example.com"),
        lambda: carol.notes.update(a="b"),
        lambda: setattr(carol, "notes", {}),
    ]
    for change in changes:
        with pytest.raises(ForbiddenChangeError, match="another recipient"):
            change()
    assert (carol.address, carol.notes) == ("carol@example.org", {})


def test_what_another_plugin_left_behind_may_change_nothing() -> None:
    message = _message()
    context = contextvars.copy_context()
    context.run(message.guard.open, "first", MAIL)
    message.guard.open("second", MAIL)
    with pytest.raises(ForbiddenChangeError, match="the hook of first has ended"):
        context.run(setattr, message, "sender", "evil@example.com")
    # Who has no context of a hook, such as a thread of its own pool, is not told apart.
    contextvars.Context().run(setattr, message, "sender", "dave@example.com")
    assert message.sender == "dave@example.com"


def test_nothing_can_be_changed_in_the_end() -> None:
    message = _message()
    message.guard.finish()
    changes: list[Callable[[], object]] = [
        lambda: message.headers.prepend("X", "y"),
        lambda: message.notes.update(a="b"),
        lambda: message.recipients.clear(),
    ]
    for change in changes:
        with pytest.raises(MessageSealedError):
            change()
    # The gateway goes back and on all the same.
    checkpoint = message.checkpoint()
    message.restore(checkpoint)
    message.recipients[0].join(message.guard)
    assert message.recipients[0].message is None


def test_a_copy_has_a_guard_of_its_own() -> None:
    message = _message()
    message.guard.open("site", MAIL)
    twin = message.copy()
    message.guard.close()
    twin.sender = "dave@example.com"
    with pytest.raises(ForbiddenChangeError):
        twin.stream = "bulk"
    assert (message.sender, twin.guard.rights) == ("alice@example.com", MAIL)
    twin.guard.rights = OPEN
    twin.recipients[0].address = "erin@example.com"
    assert message.recipients[0].address == "bob@example.net"


def test_restore_brings_everything_back() -> None:
    message = _message()
    message.notes["a"] = "b"
    message.recipients[0].orcpt = "rfc822;x@example.com"
    checkpoint = message.checkpoint()
    message.notes = {"c": "d"}
    message.release = 4e9
    bob = message.recipients[0]
    bob.orcpt, bob.notify, bob.return_path = None, frozenset({"NEVER"}), "x@example.com"
    bob.notes = {"e": "f"}
    message.recipients = []
    message.guard.rights = FINISHED
    message.restore(checkpoint)
    assert message.recipients[0] is bob
    assert bob.checkpoint() == ("bob@example.net", None, "rfc822;x@example.com", {}, None)
    assert (message.notes, message.release, bob.notes) == ({"a": "b"}, 0.0, {})
    with pytest.raises(MessageSealedError):
        message.notes["x"] = "y"


# A delivery.


def _delivery() -> Delivery:
    return Delivery(
        message_id="4fJx",
        sender="alice@example.com",
        recipients=[Recipient("bob@example.net")],
        client=Client("192.0.2.1"),
        stream="default",
        received=0.0,
        attempts=0,
        content=CONTENT,
    )


def test_a_delivery_by_hand_is_open() -> None:
    delivery = _delivery()
    delivery.sender, delivery.ceilings["x"] = "dave@example.com", 5
    delivery.close()
    with pytest.raises(ForbiddenChangeError, match=r"delivery\.sender"):
        delivery.sender = "erin@example.com"
    with pytest.raises(ForbiddenChangeError, match=r"delivery\.ceilings"):
        delivery.ceilings["x"] = 6
    with pytest.raises(ForbiddenChangeError, match=r"recipient\.notes"):
        delivery.recipients[0].notes["x"] = "y"
    delivery.proceed(recipients=delivery.recipients[:0])
    assert (delivery.sender, delivery.ceilings, delivery.recipients) == (
        "dave@example.com",
        {"x": 5},
        (),
    )
    again = replace(delivery, sender="erin@example.com")
    again.sender = "frank@example.com"
    assert (type(again), delivery.sender) == (Delivery, "dave@example.com")


def test_a_guard_is_open_to_begin_with() -> None:
    guard = Guard()
    guard.check("message.anything")
    assert guard.rights is OPEN
