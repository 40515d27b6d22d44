"""Selections: what they mean, in SQL and in Python, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mail.message import Client, Recipient
from gateway.queue.listing import read
from gateway.queue.selection import Selection
from gateway.spool.queue_entry import Envelope
from tests.queue.served import Left, leave


@pytest.mark.parametrize(
    "wrong",
    [
        {"ids": ("x",)},
        {"ids": ("0000000000000", "0" * 12 + "U")},
        {"client": "10.0.0.0/33"},
        {"client": "10.0.0.1/8"},
        {"client": "10.0.0.256"},
        {"client": "2001:db8:::1"},
        {"client": "a/b"},
        {"sender": "\udcff@example.com"},
        {"campaign": "\ud800"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Selection(**wrong)


def test_what_means_the_same_is_equal() -> None:
    assert Selection(sender="A@Example.com", lane="X") == Selection(
        sender="a@example.COM", lane="x"
    )
    assert Selection(domain="Bücher.example") == Selection(domain="xn--bcher-kva.example")
    assert Selection(lane="bücher.example") == Selection(lane="xn--bcher-kva.example")
    assert Selection(client="10.0.0.7") == Selection(client="10.0.0.7/32")
    assert Selection(client="[2001:DB8::1]") == Selection(client="2001:db8::1")
    # These are names that a site has given.
    assert Selection(campaign="Spring") != Selection(campaign="spring")
    assert Selection(client="Shop") != Selection(client="shop")
    assert Selection(client="1234").client == "1234"


ADDRESSES = [
    "b@example.net",
    "B@EXAMPLE.NET",
    "b@sub.example.net",
    "ü@example.net",
    "Ü@example.net",
    "x@bücher.example",
    "X@xn--bcher-kva.example",
    '"a@b"@example.org',
    "b@[192.0.2.1]",
    "postmaster",
    "%@example.net",
    "",
]
DOMAINS = ["example.net", "EXAMPLE.net", "bücher.example", "[192.0.2.1]", ""]
NAMES = ["default", "bulk", "Bulk", "Größe", "GRÖSSE", "größe", "100%", "'", "", "a_b"]
CAMPAIGNS = ["spring", "Spring", "{}", "春"]
USERS = ["shop", "Shop", "shop@example.com", "10"]
CLIENTS = ["10.0.0.7", "10.1.2.3", "::ffff:10.0.0.7", "2001:db8::1", "192.0.2.1", "", "unknown"]
NETWORKS = ["10.0.0.0/8", "10.0.0.7", "2001:db8::/32", "::/0", "0.0.0.0/0"]


def _any_message(chance: Random) -> Left:
    envelope: dict[str, Any] = {"address": chance.choice(CLIENTS)}
    if chance.random() < 0.5:
        envelope["user"] = chance.choice(USERS)
    if chance.random() < 0.5:
        envelope["notes"] = {"campaign": chance.choice(CAMPAIGNS)}
    recipient, sender = chance.choices(ADDRESSES, k=2)
    stream, lane = chance.choices(NAMES, k=2)
    return Left([recipient], sender, stream, lane, envelope)


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Left]]:
    """A queue of all kinds of mail, and the messages in it by id."""
    spool = tmp_path_factory.mktemp("spool")
    chance = Random(1)
    messages = [_any_message(chance) for _ in range(500)]
    return spool, dict(zip(leave(spool, messages), messages, strict=True))


def _seldom(values: list[str]) -> st.SearchStrategy[str | None]:
    return st.none() | st.none() | st.none() | st.sampled_from(values)


@given(
    selection=st.builds(
        Selection,
        sender=_seldom(ADDRESSES),
        recipient=_seldom(ADDRESSES),
        domain=_seldom(DOMAINS),
        stream=_seldom(NAMES),
        lane=_seldom(NAMES),
        campaign=_seldom(CAMPAIGNS),
        client=_seldom(USERS + NETWORKS),
    )
)
@settings(max_examples=300, deadline=None)
def test_sql_and_python_agree(mail: tuple[Path, dict[str, Left]], selection: Selection) -> None:
    spool, messages = mail
    expected = [
        id_
        for id_, message in messages.items()
        if selection.matches(_envelope(message), message.lane, Recipient(message.recipients[0]))
    ]
    assert [row.id for row in read(spool, selection)] == expected


def _envelope(message: Left) -> Envelope:
    client = Client(message.envelope["address"], user=message.envelope.get("user"))
    notes = message.envelope.get("notes", {})
    return Envelope(1, 1, 0.0, message.sender, message.stream, 0, client, notes)


def test_each_condition_selects_something(tmp_path: Path) -> None:
    """So that the law above is not about empty sets."""
    leave(
        tmp_path,
        [
            Left(["x@bücher.example"], "s@example.com", "bulk", "lane", {"user": "shop"}),
            Left(envelope={"address": "2001:db8::1", "notes": {"campaign": "spring"}}),
        ],
    )
    for selection, found in (
        (Selection(recipient="X@bücher.example"), 1),
        (Selection(domain="XN--BCHER-KVA.example"), 1),
        (Selection(sender="S@example.com"), 1),
        (Selection(stream="BULK"), 1),
        (Selection(lane="Lane"), 1),
        (Selection(client="shop"), 1),
        (Selection(client="127.0.0.0/8"), 1),
        (Selection(client="2001:db8::/64", campaign="spring"), 1),
        (Selection(campaign="spring", stream="bulk"), 0),
        (Selection(), 2),
    ):
        assert len(list(read(tmp_path, selection))) == found, selection
