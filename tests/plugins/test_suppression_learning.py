from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.hooks import Event
from plugins.suppression import Suppression
from plugins.suppression.config import LearningConfig
from plugins.suppression.database import DatabaseError
from plugins.suppression.entry import Entry
from plugins.suppression.incidents import KEEP_SECONDS
from plugins.suppression.inventory import Inventory
from plugins.suppression.learning import LONGEST_NOTE, Rules
from plugins.suppression.writer import Writer
from tests.plugins.suppression_site import NOW, Site, ask, entry, mail

DAY = 86400.0
TARO = "taro@example.com"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def event(kind: str, number: int = 1, **fields: Any) -> Event:
    """The event `number`, which happens `number` seconds after now."""
    values = {
        "sender": "news@shop.example.com",
        "recipient": TARO,
        "stream": "bulk",
        **({"code": 550, "status": "5.1.1", "reason": "User unknown"} if kind == "bounced" else {}),
        **fields,
    }
    return Event(kind, NOW + number, f"ID{number}", **values)


def content(site: Site) -> list[Entry]:
    with Inventory(site.path) as inventory:
        return list(inventory.entries())


async def learned(site: Site, *events: Event, **learn: Any) -> list[tuple[str, str, str]]:
    """The entries that a new service process makes of events."""
    await site.plugin("service", learn=learn).observe(events)
    return [one[:3] for one in content(site)]


# Which events.


async def test_an_address_that_does_not_exist_is_suppressed_at_once(site: Site) -> None:
    worker = site.plugin()
    assert ask(worker, TARO) is None

    assert await learned(site, event("bounced", recipient="Taro@Example.com")) == [
        (TARO, "", "bounce")
    ]

    assert ask(worker, TARO) is not None
    assert site.events[-1].reason == "bounce: everywhere"


async def test_an_entry_says_where_it_came_from(site: Site) -> None:
    await learned(site, event("bounced", 3, reason="No such\tuser\x1b[0m " + "x" * 500))

    (one,) = content(site)
    assert (one.source, one.added, one.expires) == ("event", int(NOW) + 3, None)
    assert one.note.startswith("message ID3 from <news@shop.example.com>: No such user [0m xxx")
    assert len(one.note) == LONGEST_NOTE
    assert one.note.isprintable()


@pytest.mark.parametrize(
    ("status", "code", "reason", "hard"),
    [
        ("5.1.1", 550, "User unknown", True),
        ("5.1.10", 556, "Null MX", True),
        ("5.1.2", 0, "no such domain", True),
        ("5.2.1", 550, "Mailbox disabled", True),
        ("5.1.11", 550, "", False),
        ("5.2.2", 552, "Mailbox full, user unknown", False),
        ("5.7.1", 550, "Blocked, User unknown", False),
        ("5.7.26", 550, "Unauthenticated", False),
        ("5.4.4", 550, "Unable to route", False),
        ("5.3.4", 552, "Too large", False),
        ("5.0.0", 550, "Unknown user taro@docomo.ne.jp", True),
        ("5.0.0", 550, "<taro@ezweb.ne.jp>: User unknown", True),
        ("5.0.0", 550, "Invalid recipient: <taro@softbank.ne.jp>", True),
        ("5.0.0", 554, "delivery error: dd This user doesn't have a yahoo.co.jp account", True),
        ("5.5.0", 550, "No such user here", True),
        ("", 550, "no such USER", True),
        ("5.0.0", 550, "Refused", False),
        ("5.0.0", 554, "Message refused: it looks like spam", False),
        ("4.0.0", 450, "User unknown", False),
    ],
)
async def test_only_lasting_refusals_of_the_address_count(
    site: Site, status: str, code: int, reason: str, hard: bool
) -> None:
    found = await learned(site, event("bounced", status=status, code=code, reason=reason))
    assert bool(found) is hard


# What the plugin bounces has found.

SOFT = {"after": 1}


@pytest.mark.parametrize("failure", ["no-such-user", "no-such-domain", "inactive"])
@pytest.mark.parametrize("status", ["5.1.1", "5.7.1", "5.0.0", ""])
async def test_a_class_that_is_the_address_s_own_suppresses_it(
    site: Site, failure: str, status: str
) -> None:
    bounce = event("bounced", status=status, reason="Refused", notes={"class": failure})
    assert await learned(site, bounce) == [(TARO, "", "bounce")]


@pytest.mark.parametrize(
    "failure",
    [
        *("spam", "blocked", "policy", "rate-limited", "network", "too-large", "authentication"),
        *("content", "relay-denied", "server", "protocol"),
    ],
)
async def test_a_class_that_is_not_never_does_whatever_the_digits_say(
    site: Site, failure: str
) -> None:
    notes = {"class": failure}
    found = await learned(
        site,
        event("bounced", 1, status="5.1.1", reason="User unknown", notes=notes),
        event("bounced", 2, status="5.4.4", reason="No route", notes=notes),
        event("expired", 3, status="4.4.1", reason="Timed out", notes=notes),
        soft_bounces=SOFT,
    )
    assert found == []


async def test_a_full_mailbox_is_a_soft_bounce(site: Site) -> None:
    full = {"status": "5.1.1", "notes": {"class": "mailbox-full"}}
    assert await learned(site, event("bounced", 1, **full)) == []
    assert await learned(site, event("bounced", 2, **full), soft_bounces=SOFT) == [
        (TARO, "", "bounce")
    ]


async def test_mail_that_was_given_up_was_not_refused_for_good(site: Site) -> None:
    notes = {"class": "no-such-user"}
    gone = event("expired", status="4.1.1", reason="User unknown", notes=notes)
    assert await learned(site, gone, soft_bounces=SOFT) == []
    full = event("expired", status="4.2.2", notes={"class": "mailbox-full"})
    assert len(await learned(site, full, soft_bounces=SOFT)) == 1


async def test_a_class_that_says_nothing_leaves_it_to_codes_and_texts(site: Site) -> None:
    other = {"class": "other"}
    assert await learned(site, event("bounced", status="5.7.1", notes=other)) == []
    assert len(await learned(site, event("bounced", status="5.1.1", notes=other))) == 1


async def test_which_classes_count_can_be_configured(site: Site) -> None:
    rule = {"classes": ["inactive"]}
    gone = event("bounced", 1, notes={"class": "no-such-user"})
    off = event("bounced", 2, recipient="jiro@example.com", notes={"class": "inactive"})
    assert await learned(site, gone, off, bounces=rule) == [("jiro@example.com", "", "bounce")]
    network = event("expired", 3, status="4.4.1", notes={"class": "network"})
    assert len(await learned(site, network, soft_bounces={**SOFT, "classes": ["network"]})) == 2


@pytest.mark.parametrize("kind", ["accepted", "deferred", "delivered", "discarded", "suppressed"])
async def test_other_events_teach_nothing(site: Site, kind: str) -> None:
    assert await learned(site, event(kind, status="5.1.1", code=550)) == []


async def test_events_about_no_address_teach_nothing(site: Site) -> None:
    broken = [event("bounced", recipient=address) for address in ("", "taro", "a@b@c", "a@")]
    assert await learned(site, *broken, event("unsubscribed")) == [
        (TARO, "sender:shop.example.com", "unsubscribe")
    ]


async def test_what_counts_can_be_configured(site: Site) -> None:
    rule = {"status": ["5.7.*", "5.2.2"], "text": ["go away*"], "expire": "90d"}
    found = await learned(
        site,
        event("bounced", 1),
        event("bounced", 2, recipient="a@example.com", status="5.7.26"),
        event("bounced", 3, recipient="b@example.com", status="5.2.2"),
        event("bounced", 4, recipient="c@example.com", status="5.0.0", reason="Go away!"),
        event("bounced", 5, recipient="d@example.com", status="5.0.0", reason="Do go away!"),
        bounces=rule,
    )
    assert [address for address, _, _ in found] == [
        "a@example.com",
        "b@example.com",
        "c@example.com",
    ]
    assert content(site)[0].expires == int(NOW) + 2 + 90 * 86400


async def test_nothing_is_learned_where_nothing_is_asked_for(site: Site) -> None:
    events = [event("bounced"), event("complained"), event("unsubscribed")]
    assert await learned(site, *events, bounces=None, complaints=False, unsubscribes=False) == []


# Scopes.


@pytest.mark.parametrize(
    ("scope", "fields", "expected"),
    [
        ("sender_domain", {}, "sender:shop.example.com"),
        ("sender_domain", {"sender": "A@例え.JP"}, "sender:xn--r8jz45g.jp"),
        ("sender_domain", {"sender": ""}, ""),
        ("stream", {}, "stream:bulk"),
        ("stream", {"stream": ""}, "sender:shop.example.com"),
        ("stream", {"stream": "", "sender": ""}, ""),
        ("everywhere", {}, ""),
    ],
)
@pytest.mark.parametrize("kind", ["unsubscribed", "complained"])
async def test_objections_hold_where_the_configuration_says(
    site: Site, kind: str, scope: str, fields: dict[str, Any], expected: str
) -> None:
    reason = {"unsubscribed": "unsubscribe", "complained": "complaint"}[kind]
    found = await learned(site, event(kind, **fields), **{f"{reason}_scope": scope})
    assert found == [(TARO, expected, reason)]


async def test_an_unsubscription_is_for_the_sender_unless_told_otherwise(site: Site) -> None:
    worker = site.plugin()
    await learned(site, event("unsubscribed"))

    assert ask(worker, TARO, mail("x@shop.example.com")) is not None
    assert ask(worker, TARO, mail("x@bank.example.com")) is None


# Counting.


def bounces(*numbers: int, **fields: Any) -> list[Event]:
    return [event("bounced", number, **fields) for number in numbers]


async def test_so_many_bounces_are_needed(site: Site) -> None:
    service = site.plugin("service", learn={"bounces": {"after": 3}})
    await service.observe(bounces(1, 2))
    assert content(site) == []
    await service.observe(bounces(3))
    assert [one[:3] for one in content(site)] == [(TARO, "", "bounce")]


async def test_an_event_that_comes_again_counts_once(site: Site) -> None:
    for _ in range(3):
        assert await learned(site, *bounces(1, 2), bounces={"after": 3}) == []
    # After a crash the gateway may try once more what has bounced already.
    again = Event("bounced", NOW + 9, "ID2", recipient=TARO, status="5.1.1")
    assert await learned(site, again, bounces={"after": 3}) == []
    assert len(await learned(site, *bounces(3), bounces={"after": 3})) == 1


async def test_one_message_that_comes_back_from_two_people_counts_for_each(site: Site) -> None:
    both = [*bounces(1), *bounces(1, recipient="jiro@example.com")]
    assert len(await learned(site, *both)) == 2


async def test_only_bounces_in_the_time_count(site: Site) -> None:
    rule = {"after": 2, "within": "1d"}
    assert await learned(site, *bounces(1, 1 + int(DAY)), bounces=rule) == []
    assert len(await learned(site, *bounces(int(DAY)), bounces=rule)) == 1


async def test_a_delivery_sets_the_count_back(site: Site) -> None:
    rule = {"after": 2}
    await learned(site, *bounces(1), event("delivered", 2), *bounces(3), bounces=rule)
    assert content(site) == []
    # The same events again, as after a crash.
    await learned(site, *bounces(1), event("delivered", 2), *bounces(3), bounces=rule)
    assert content(site) == []
    assert len(await learned(site, *bounces(4), bounces=rule)) == 1


async def test_a_delivery_does_not_set_back_what_came_after_it(site: Site) -> None:
    events = [*bounces(5), event("delivered", 2), *bounces(6)]
    assert len(await learned(site, *events, bounces={"after": 2})) == 1


async def test_soft_bounces_count_for_themselves_if_asked_for(site: Site) -> None:
    soft = {"after": 2, "expire": "30d"}
    full = {"status": "5.2.2", "reason": "Mailbox full"}
    gone = {"status": "4.4.1", "reason": "Connection timed out"}
    assert await learned(site, *bounces(1, 2, 3, **full), event("expired", 4, **gone)) == []

    rules = {"bounces": {"after": 2}, "soft_bounces": soft}
    await learned(site, *bounces(5), *bounces(6, **full), **rules)
    assert content(site) == []
    found = await learned(site, event("expired", 7, **gone), **rules)
    assert found == [(TARO, "", "bounce")]
    assert content(site)[0].expires == int(NOW) + 7 + 30 * 86400


async def test_removing_an_entry_begins_the_count_anew(site: Site) -> None:
    rule = {"after": 2}
    assert len(await learned(site, *bounces(1, 2), bounces=rule)) == 1
    with Writer(site.path) as writer:
        writer.remove([TARO], None, None)

    # What is known already does not put it back on the list.
    assert await learned(site, *bounces(1, 2), bounces=rule) == []
    assert await learned(site, *bounces(3), bounces=rule) == []
    assert len(await learned(site, *bounces(4), bounces=rule)) == 1


async def test_removing_another_entry_leaves_the_count(site: Site) -> None:
    rule = {"after": 2}
    site.add(TARO, reason="manual")
    await learned(site, *bounces(1), bounces=rule)
    with Writer(site.path) as writer:
        assert writer.remove([TARO], None, "manual") == 1

    assert len(await learned(site, *bounces(2), bounces=rule)) == 1


async def test_who_unsubscribes_again_is_suppressed_again(site: Site) -> None:
    first = event("unsubscribed", 1)
    await learned(site, first)
    with Writer(site.path) as writer:
        writer.remove([TARO], None, None)

    assert await learned(site, first) == []
    # By the link of the same message.
    second = Event("unsubscribed", NOW + 60, "ID1", sender=first.sender, recipient=TARO)
    assert len(await learned(site, second)) == 1


async def test_what_is_on_the_list_is_not_made_weaker(site: Site) -> None:
    site.add_entries([entry(TARO, reason="bounce", note="asked the postmaster")])
    await learned(site, *bounces(1), bounces={"expire": "1d"})
    (one,) = content(site)
    assert (one.expires, one.source, one.added) == (None, "command", int(NOW))


async def test_events_are_remembered_for_a_while_and_not_for_ever(site: Site) -> None:
    service = site.plugin("service", learn={"bounces": {"after": 2}})
    await service.observe(bounces(1))
    site.now = NOW + KEEP_SECONDS
    await service.observe(bounces(2, recipient="jiro@example.com"))
    assert count_incidents(site) == 2

    # Thirty days: as long as bounces count.
    site.now = NOW + 30 * DAY + 1.5
    await service.observe(bounces(3, recipient="jiro@example.com"))
    assert count_incidents(site) == 2
    assert [one.address for one in content(site)] == ["jiro@example.com"]


def count_incidents(site: Site) -> int:
    import apsw

    db = apsw.Connection(str(site.path))
    try:
        return int(db.execute("SELECT count(*) FROM incidents").get)
    finally:
        db.close()


# Failures.


async def test_a_batch_that_cannot_be_written_comes_again(site: Site) -> None:
    service = site.plugin("service")
    hidden = site.path.with_suffix(".hidden")
    site.path.rename(hidden)
    with pytest.raises(DatabaseError, match="No such file"):
        await service.observe([event("unsubscribed")])
    assert not site.path.exists()  # an empty list would let mail through

    hidden.rename(site.path)
    await service.observe([event("unsubscribed")])
    assert len(content(site)) == 1


async def test_a_service_learns_into_the_database_that_is_there(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    service = site.plugin("service")
    other = Site(tmp_path_factory.mktemp("other"))
    other.add("jiro@example.com")
    for path in site.path.parent.iterdir():
        path.unlink()
    other.path.rename(site.path)

    await service.observe([event("unsubscribed")])

    assert [one.address for one in content(site)] == ["jiro@example.com", TARO]


def test_deliveries_are_of_no_interest_where_nothing_is_counted() -> None:
    delivered = [event("delivered")]
    assert Rules(LearningConfig()).incidents(delivered) == []
    counting = LearningConfig.model_validate({"bounces": {"after": 2}})
    assert len(Rules(counting).incidents(delivered)) == 1


async def test_who_learned_says_so_in_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    service: Suppression = site.plugin("service")
    await service.observe(bounces(1))
    assert f"<{TARO}> is suppressed: message ID1" in caplog.text
