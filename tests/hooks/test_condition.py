from __future__ import annotations

import fnmatch
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.attempt import Delivery
from gateway.hooks.condition import Condition, Stream, Streams, When, glob
from gateway.mail.message import Client, Message, Recipient

CONTENT = (
    b"From: Shop <shop@example.com>\r\nSubject: =?utf-8?b?5rOo5paH?= 4711\r\n"
    b"X-Kind: first\r\nX-Kind: Second\r\nPrecedence: bulk\r\n\r\nHello\r\n"
)


def make_message(*recipients: str, content: bytes = CONTENT) -> Message:
    client = Client("192.0.2.7", helo="shop", user="shop-1")
    message = Message("4fJx", "News+7@Mail.Example.COM", client)
    message.content = content
    for address in recipients or ("Ann@Example.org",):
        message.add_recipient(address)
    return message


def make_delivery(message: Message) -> Delivery:
    return Delivery(
        message_id=message.id,
        sender=message.sender,
        recipients=message.recipients,
        client=message.client,
        stream=message.stream,
        received=0.0,
        attempts=0,
        content=CONTENT,
    )


def condition(**keys: Any) -> Condition:
    return Condition(When.model_validate(keys))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"stream": "default"}, True),
        ({"stream": "bulk"}, False),
        ({"stream": ["bulk", "def*"]}, True),
        ({"client": "192.0.2.0/24"}, True),
        ({"client": ["10.0.0.0/8", "192.0.2.7"]}, True),
        ({"client": "192.0.2.8"}, False),
        ({"user": "shop-?"}, True),
        ({"user": "*"}, True),
        ({"user": "SHOP-1"}, True),
        ({"user": "shop"}, False),
        ({"sender": "news+7@mail.example.com"}, True),
        ({"sender": "news*@*"}, True),
        ({"sender": "*@mail.example.com"}, True),
        ({"sender": "*@example.com"}, False),
        ({"sender": "<>"}, False),
        ({"sender_domain": "mail.example.com"}, True),
        ({"sender_domain": "MAIL.Example.com."}, True),
        ({"sender_domain": "*.example.com"}, True),
        ({"sender_domain": "example.com"}, False),
        ({"sender_domain": ["example.com", "mail.*.com"]}, True),
        ({"recipient": "ann@example.org"}, True),
        ({"recipient": "*@example.com"}, False),
        ({"recipient_domain": "example.org"}, True),
        ({"recipient_domain": "*.org"}, True),
        ({"recipient_domain": "example.com"}, False),
        ({"header": {"precedence": "BULK"}}, True),
        ({"header": {"Precedence": ["list", "bulk"]}}, True),
        ({"header": {"Precedence": "list"}}, False),
        ({"header": {"X-Kind": "second"}}, True),
        ({"header": {"X-Kind": "*"}}, True),
        ({"header": {"X-Other": "*"}}, False),
        ({"header": {"Subject": "注文 *"}}, True),
        ({"header": {"Subject": "=?*"}}, False),
        ({"header": {"X-Kind": "first", "Precedence": "list"}}, False),
        ({"sender_domain": "mail.example.com", "recipient_domain": "example.org"}, True),
        ({"sender_domain": "mail.example.com", "recipient_domain": "example.com"}, False),
        ({"sender_domain": "mail.example.com", "user": "nobody"}, False),
    ],
)
def test_a_message_its_recipient_and_its_delivery_match_alike(
    keys: dict[str, Any], expected: bool
) -> None:
    tested = condition(**keys)
    message = make_message()
    assert tested.matches(message) is expected
    assert tested.matches(message.recipients[0]) is expected
    assert tested.matches_recipient(message, message.recipients[0]) is expected
    delivery = make_delivery(message)
    assert tested.matches(delivery) is expected
    assert tested.matches_recipient(delivery, message.recipients[0]) is expected


def test_the_empty_sender_and_no_login() -> None:
    message = Message("4fJx", "", Client("192.0.2.7"))
    message.add_recipient("postmaster")
    assert condition(sender="<>").matches(message)
    assert condition(sender="").matches(message)
    assert not condition(sender="*@*").matches(message)
    assert not condition(user="*").matches(message)
    assert condition(recipient="postmaster").matches(message)
    assert not condition(sender_domain="?*").matches(message)


def test_recipients_that_differ() -> None:
    message = make_message("a@example.com", "b@example.org")
    tested = condition(recipient_domain="example.org", sender_domain="*.example.com")
    assert tested.by_recipient
    assert tested.matches(message)
    assert [tested.matches_recipient(message, one) for one in message.recipients] == [False, True]
    assert [tested.matches(one) for one in message.recipients] == [False, True]
    assert not condition(recipient="c@*").matches(message)
    assert not condition(sender_domain="*").by_recipient


def test_a_client_is_enough_for_conditions_on_clients() -> None:
    client = Client("192.0.2.7", user="shop")
    assert condition(client="192.0.2.7", user="shop").matches(client)
    assert not condition(client="192.0.2.8").matches(client)


@pytest.mark.parametrize("key", ["sender", "sender_domain", "recipient_domain", "stream"])
def test_what_cannot_be_known_is_an_error_and_not_a_no(key: str) -> None:
    with pytest.raises(TypeError):
        condition(**{key: "*"}).matches(Client("192.0.2.7"))
    with pytest.raises(TypeError):
        condition(**{key: "*"}).matches(Recipient("a@example.com"))


def test_international_domains_match_in_both_forms() -> None:
    client = Client("192.0.2.7")
    for sender in ("a@例え.jp", "a@xn--r8jz45g.jp", "a@XN--R8JZ45G.JP"):
        message = Message("4fJx", sender, client)
        assert condition(sender_domain="例え.jp").matches(message)
        assert condition(sender_domain="xn--r8jz45g.jp").matches(message)
        assert not condition(sender_domain="*.例え.jp").matches(message)
    message = Message("4fJx", "a@mail.例え.jp", client)
    assert condition(sender_domain="*.例え.jp").matches(message)


def test_brackets_and_backslashes_are_themselves() -> None:
    message = Message("4fJx", "a@[192.0.2.1]", Client("192.0.2.7"))
    assert condition(sender="*@[192.0.2.1]").matches(message)
    assert condition(sender="?@[*]").matches(message)
    assert not condition(sender="?@[a-z]").matches(message)


PIECES = st.text(st.sampled_from("ab.@\n\\+^$*?"), max_size=6)


@given(
    st.lists(PIECES, min_size=1, max_size=3), st.text(st.sampled_from("abAB.@\n\\+^$"), max_size=8)
)
def test_globs_mean_what_fnmatch_means(patterns: list[str], text: str) -> None:
    expected = any(
        re.fullmatch(fnmatch.translate(pattern.lower()), text.lower()) for pattern in patterns
    )
    assert glob(patterns)(text) is expected


@pytest.mark.parametrize(
    ("keys", "needs"),
    [
        ({"client": "192.0.2.7"}, {"client"}),
        ({"user": "a", "sender": "a@b"}, {"user", "sender"}),
        ({"sender_domain": "a"}, {"sender"}),
        ({"recipient_domain": "a"}, {"recipient"}),
        ({"header": {"A": "b"}}, {"header"}),
        ({"stream": "early"}, {"stream", "sender"}),
        ({"stream": "later"}, {"stream", "sender", "header"}),
        ({"stream": "last"}, {"stream", "sender", "header", "user"}),
        ({"stream": "default"}, {"stream", "sender", "header", "user"}),
        ({"stream": "e*"}, {"stream", "sender"}),
    ],
)
def test_needs(keys: dict[str, Any], needs: set[str]) -> None:
    streams = make_streams(
        early={"sender": "*@a"}, later={"header": {"A": "b"}}, last={"user": "x"}
    )
    assert Condition(When.model_validate(keys), streams).needs == needs


def test_a_stream_that_asks_for_recipients_is_known_as_late_as_the_header() -> None:
    streams = make_streams(far={"recipient_domain": "example.org"})
    assert Condition(When.model_validate({"stream": "far"}), streams).needs == {"stream", "header"}


def make_streams(**conditions: dict[str, Any]) -> Streams:
    return Streams(
        {name: Stream.model_validate({"when": when}) for name, when in conditions.items()}
    )


def test_the_first_stream_that_matches_is_taken() -> None:
    streams = make_streams(
        bulk={"header": {"Precedence": "bulk"}}, mail={"sender_domain": "mail.*"}, all={"user": "*"}
    )
    assert streams.names == ("bulk", "mail", "all", "default")
    message = make_message()
    assert streams.classify(message, headers_known=True) == "bulk"
    assert streams.classify(message, headers_known=False) == "mail"
    other = Message("4fJx", "a@example.net", Client("192.0.2.7", user="u"))
    assert streams.classify(other, headers_known=True) == "all"
    assert streams.classify(Message("4fJx", "", Client("192.0.2.7")), True) == "default"
    assert Streams({}).classify(message, True) == "default"


def test_priorities() -> None:
    streams = Streams(
        {
            "bulk": Stream.model_validate({"when": {"user": "a"}, "priority": "low"}),
            "mail": Stream.model_validate({"when": {"user": "b"}}),
            "default": Stream.model_validate({"priority": "high"}),
        }
    )
    assert [streams.priority(name) for name in ("bulk", "mail", "default", "other")] == [0, 1, 2, 1]
    assert streams.names == ("bulk", "mail", "default")
    assert Streams({}).priority("default") == 1
