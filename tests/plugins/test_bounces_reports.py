"""What the bounces, complaints and replies in the folder say: one of each kind of server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from plugins.bounces import Bounces
from plugins.bounces.delivery_status import Action
from plugins.bounces.report import Kind, read
from tests.plugins.bounces_site import (
    DOMAIN,
    FOLDER,
    HANAKO,
    ID,
    NOW,
    Site,
    come,
    path_of,
    report,
)

FBL = f"fbl@{DOMAIN}"
HARD = {"no-such-user", "no-such-domain", "inactive"}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
def plugin(site: Site) -> Bounces:
    return site.plugin(domain=DOMAIN, complaints=[FBL])


@dataclass(frozen=True)
class Bounce:
    """What the only event of a file says."""

    name: str
    failure: str
    relay: str
    reason: str
    code: int = 0
    status: str = ""
    type: str = "bounced"
    recipient: str = HANAKO
    returned: bool = True
    """Whether the file returns the header of the message."""
    notes: dict[str, str] = field(default_factory=dict)


BOUNCES = [
    Bounce("postfix", "no-such-user", "mx1.example.net", "User unknown in virtual", 550, "5.1.1"),
    Bounce("postfix-delayed", "network", "mx1.example.net", "timed out", 0, "4.4.1", "deferred"),
    Bounce("sendmail", "mailbox-full", "relay.example.net", "Mailbox full", 552, "5.2.2"),
    Bounce("sendmail-old", "no-such-user", "old.example.net", "550 <hanako@example.net>", 550),
    Bounce("qmail", "no-such-user", "q.example.net", "Sorry, no mailbox here", 0, "5.1.1"),
    Bounce("qmail-remote", "blocked", "q.example.net", "Remote host said: 554", 554, "5.7.1"),
    Bounce("exim", "no-such-user", "exim.example.net", "550 5.1.1", 550, "5.1.1"),
    Bounce(
        *("exim-warning", "network", "exim.example.net", "SMTP timeout after initial connection"),
        type="deferred",
        returned=False,
    ),
    Bounce(
        *("exchange-online", "no-such-user", "TYZPR01MB0001.apcprd01.prod.example"),
        *("RESOLVER.ADR.RecipientNotFound", 550, "5.1.10"),
    ),
    Bounce("smtpsvc", "no-such-user", "iis.example.net", "Delivery to the following", 0, "5.1.1"),
    Bounce("exchange-ims", "no-such-user", "example.net", "is not recognized", returned=False),
    Bounce("gmail", "no-such-user", "googlemail.com", "does not exist", 550, "5.1.1"),
    Bounce("gmail-old", "mailbox-full", "googlemail.com", "over quota", 452, "4.2.2"),
    Bounce("yahoo-japan", "no-such-user", "yahoo.example.jp", "This user doesn't have a"),
    Bounce("docomo", "no-such-user", "docomo.example.jp", "550 Unknown user", 550, "5.0.0"),
    Bounce("au", "no-such-user", "ezweb.example.jp", "<hanako@example.net>: User unknown"),
    Bounce("au-full", "mailbox-full", "app.auone.example.jp", "As their mailbox is full."),
    Bounce("softbank", "no-such-user", "softbank.example.jp", "宛先のメールアドレスが存在しま"),
    Bounce("domino", "no-such-user", "domino.example.net", "not listed in Domino", 0, "5.0.0"),
    Bounce("notes", "no-such-user", "notes.example.net", "ディレクトリに見つかりません"),
    Bounce("courier", "inactive", "courier.example.net", "has been disabled", 550, "5.2.1"),
    Bounce("opensmtpd", "spam", "bsd.example.net", "554 5.7.1 Message refused", 554, "5.7.1"),
    Bounce("james", "relay-denied", "james.example.net", "550 5.7.1 Unable", 550, "5.7.1"),
    Bounce("text-quoted", "no-such-user", "tiny.example.net", "no such user here"),
    Bounce(
        *("html-only", "authentication", "html.example.net", "DMARC policy", 550, "5.7.26"),
        returned=False,
    ),
    Bounce(
        *("international", "no-such-user", "mx1.example.net", "ユーザが見つかりません"),
        *(550, "5.1.1"),
        recipient="花子@例え.jp",
    ),
    Bounce(
        *("several", "mailbox-full", "mx1.example.net", "Over quota", 552, "5.2.2"),
        notes={"final": "hanako@new.example.org"},
    ),
]


@pytest.mark.parametrize("style", ["verp", "token"])
@pytest.mark.parametrize("bounce", BOUNCES, ids=lambda bounce: bounce.name)
async def test_a_bounce_is_understood_whoever_wrote_it(
    site: Site, bounce: Bounce, style: str
) -> None:
    """Also where the return path has only a hash: then the report has to name the recipient."""
    plugin = site.plugin(domain=DOMAIN, style=style)
    path = path_of(plugin, bounce.recipient, stream="bulk")

    assert await come(plugin, report(bounce.name, path), path) is None

    (event,) = site.events
    notes = dict(event.notes)
    assert (event.type, event.message_id, event.recipient) == (bounce.type, ID, bounce.recipient)
    assert (event.time, event.stream, event.relay) == (NOW, "bulk", bounce.relay)
    assert bounce.reason in event.reason
    assert (event.code, event.status) == (bounce.code, bounce.status)
    kind = "hard" if bounce.failure in HARD else "soft"
    expected = {"source": "dsn", "class": bounce.failure, "kind": kind, **bounce.notes}
    if bounce.returned:
        assert event.sender == "news@shop.example.com"
        expected["campaign"] = "week-47"
    else:
        assert event.sender == "@shop.example.com"
    assert notes == expected


async def test_success_is_told_too(site: Site, plugin: Bounces) -> None:
    path = path_of(plugin)
    await come(plugin, report("relayed", path), path)
    (event,) = site.events
    assert (event.type, event.recipient, event.status) == ("delivered", HANAKO, "2.0.0")
    assert event.notes == {"source": "dsn", "action": "relayed", "campaign": "week-47"}


async def test_each_recipient_of_a_report_counts_for_itself() -> None:
    found = read(report("several", "x@example.com"), null_sender=True).findings
    assert [(one.recipient, one.action, one.status) for one in found] == [
        ("jiro@example.net", Action.DELIVERED, "2.1.5"),
        ("hanako@new.example.org", Action.FAILED, "5.2.2"),
        ("saburo@example.net", Action.DELAYED, "4.4.1"),
    ]
    assert found[1].original == HANAKO


async def test_mail_that_was_forwarded_to_others_has_an_event_for_each_outcome(
    site: Site, plugin: Bounces
) -> None:
    """None of the three is the one that we wrote to."""
    path = path_of(plugin, "list@example.org")
    await come(plugin, report("several", path), path)
    told = {event.type: event.notes.get("final") for event in site.events}
    assert told == {
        "delivered": "jiro@example.net",
        "bounced": "hanako@new.example.org",
        "deferred": "saburo@example.net",
    }
    assert {event.recipient for event in site.events} == {"list@example.org"}


# Complaints.


@pytest.mark.parametrize(
    ("name", "relay"),
    [
        ("arf", "ExampleFBL/2.1"),
        ("arf-redacted", "RedactFBL/1.0"),
        ("jmrp", "staff@hotmail.example.com"),
    ],
)
@pytest.mark.parametrize("style", ["verp", "token"])
async def test_a_complaint_finds_its_message_by_the_return_path_in_it(
    site: Site, name: str, relay: str, style: str
) -> None:
    plugin = site.plugin(domain=DOMAIN, complaints=[FBL], style=style)
    path = path_of(plugin, stream="bulk")
    assert await come(plugin, report(name, path), FBL) is None
    (event,) = site.events
    # A hash finds nobody where the provider has taken the recipient out.
    recipient = "" if (name, style) == ("arf-redacted", "token") else HANAKO
    assert (event.type, event.message_id, event.recipient) == ("complained", ID, recipient)
    assert (event.sender, event.stream) == ("news@shop.example.com", "bulk")
    assert (event.reason, event.relay) == ("abuse", relay)
    assert event.notes == {"source": "arf", "feedback": "abuse", "campaign": "week-47"}


async def test_a_return_path_that_is_too_old_for_bounces_is_good_for_complaints(
    site: Site, plugin: Bounces
) -> None:
    content = report("arf", path_of(plugin))
    site.now += 200 * 86_400
    await come(plugin, content, FBL)
    assert [event.type for event in site.events] == ["complained"]


async def test_what_is_no_spam_after_all_is_no_complaint(site: Site, plugin: Bounces) -> None:
    await come(plugin, report("arf-not-spam", path_of(plugin)), FBL)
    (event,) = site.events
    assert (event.type, event.recipient) == ("replied", HANAKO)
    assert event.notes["auto"] == "not-spam"


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        ("fraud", "complained"),
        ("Virus", "complained"),
        ("opt-out", "complained"),
        ("auth-failure", "replied"),
        ("dmarc", "replied"),
    ],
)
async def test_only_some_feedback_is_a_complaint(
    site: Site, plugin: Bounces, kind: str, type_: str
) -> None:
    content = report("arf", path_of(plugin))
    content = content.replace(b"Feedback-Type: abuse", f"Feedback-Type: {kind}".encode())
    await come(plugin, content, FBL)
    assert [(event.type, event.reason) for event in site.events] == [(type_, kind.lower())]


async def test_a_complaint_without_a_return_path_of_ours_is_held(
    site: Site, plugin: Bounces
) -> None:
    """Anybody could write it, and suppress anybody by it."""
    answer = await come(plugin, report("arf-unsigned", ""), FBL)
    assert answer is not None
    assert "names no return path of ours" in str(answer)
    assert site.events == []


@pytest.mark.parametrize(
    ("name", "recipient"), [("arf-unsigned", HANAKO), ("jmrp", HANAKO), ("arf-redacted", None)]
)
async def test_such_complaints_can_be_accepted(
    site: Site, name: str, recipient: str | None
) -> None:
    plugin = site.plugin(domain=DOMAIN, complaints=[FBL], unsigned_complaints="accept")
    answer = await come(plugin, report(name, "news@shop.example.com"), FBL)
    assert [event.recipient for event in site.events] == ([recipient] if recipient else [])
    assert (answer is None) is (recipient is not None)
    for event in site.events:
        assert (event.message_id, event.sender) == ("", "news@shop.example.com")


# Answers of programs and people.


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("vacation", "reply"),
        ("vacation-ja", "reply"),
        ("out-of-office", "reply"),
        ("receipt", "receipt"),
    ],
)
async def test_automatic_replies_are_told_apart(
    site: Site, plugin: Bounces, name: str, note: str
) -> None:
    path = path_of(plugin)
    assert await come(plugin, report(name, path), path) is None
    (event,) = site.events
    assert (event.type, event.message_id, event.recipient) == ("replied", ID, HANAKO)
    assert event.notes == {"auto": note}


@pytest.mark.parametrize(
    "field",
    [
        b"Auto-Submitted: auto-generated",
        b"Precedence: bulk",
        b"Precedence: auto_reply",
        b"X-Autoreply: yes",
        b"X-Autorespond: this week",
        b"X-Auto-Response-Suppress: OOF",
        b"Subject: Out of office: this week",
        b"Subject: Automatische Antwort: hallo",
        "Subject: 自動応答: 今週のお知らせ".encode(),
    ],
)
async def test_programs_say_so_in_many_ways(field: bytes) -> None:
    human = report("human", "x@example.com")
    assert read(human, null_sender=False).kind is Kind.OTHER
    content = human.replace(b"Subject: Re: This week at the shop", field)
    assert read(content, null_sender=False).kind is Kind.AUTOMATIC


async def test_what_a_person_writes_is_held(site: Site, plugin: Bounces) -> None:
    """Even if it speaks of mail that was not delivered, and quotes the report."""
    path = path_of(plugin)
    answer = await come(plugin, report("human", path), path)
    assert answer is not None
    assert "a person has to read it" in str(answer)
    assert site.events == []


async def test_the_bounce_of_a_bounce_is_dropped(
    site: Site, plugin: Bounces, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    content = report("bounce-of-bounce", "")
    assert await come(plugin, content, f"postmaster@{DOMAIN}") is None
    assert site.events == []
    assert "06F8K2N4QXW7B: dropped: it is the bounce of a bounce" in caplog.text


async def test_a_bounce_to_the_postmaster_finds_its_message_too(
    site: Site, plugin: Bounces
) -> None:
    await come(plugin, report("postfix", path_of(plugin)), f"postmaster@{DOMAIN}")
    assert [(event.type, event.recipient) for event in site.events] == [("bounced", HANAKO)]


async def test_a_bounce_of_somebody_else_s_mail_is_held(site: Site, plugin: Bounces) -> None:
    """Spam with a forged sender comes back to its postmaster."""
    answer = await come(plugin, report("postfix", "x@example.com"), f"postmaster@{DOMAIN}")
    assert answer is not None
    assert site.events == []


def test_every_file_is_tested() -> None:
    text = Path(__file__).read_text()
    for file in FOLDER.glob("*.eml"):
        assert f'"{file.stem}"' in text, file
