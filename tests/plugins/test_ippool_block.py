"""Which replies say that the source is blocked, and which only seem to."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Disposition, Outcome
from plugins.ippool.block import SHIPPED, BlockRule, Blocks

BLOCKS = Blocks(SHIPPED)


def _outcome(reply: str, stage: str = "rcpt") -> Outcome:
    match = re.fullmatch(r"(\d{3}) (?:(\d\.\d+\.\d+) )?(.*)", reply)
    assert match is not None, reply
    code = int(match[1])
    disposition = Disposition.FAILED if code // 100 == 5 else Disposition.DEFERRED
    return Outcome(disposition, code, match[2] or f"{code // 100}.0.0", match[3], stage)


@pytest.mark.parametrize(
    ("provider", "reply", "after"),
    [
        (
            "other",
            "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using "
            "zen.spamhaus.org; https://www.spamhaus.org/query/ip/192.0.2.1",
            1,
        ),
        (
            "microsoft",
            "550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using Spamhaus. To "
            "request removal from this list see https://www.spamhaus.org/query/ip/192.0.2.1",
            1,
        ),
        (
            "other",
            "554 5.7.1 Service unavailable; Client host [mta1.example.com] blocked using "
            "dnsbl.example",
            1,
        ),
        (
            "other",
            "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using Barracuda "
            "Reputation; http://www.barracudanetworks.com/reputation/?r=1&ip=192.0.2.1",
            1,
        ),
        (
            "apple",
            "550 5.7.1 Your email was rejected due to having a bad IP, see "
            "https://ipcheck.proofpoint.com/?ip=192.0.2.1",
            1,
        ),
        (
            "other",
            "554 Your access to this mail system has been rejected due to the sending MTA's poor "
            "reputation.",
            1,
        ),
        (
            "gmail",
            "421 4.7.28 [192.0.2.1] Our system has detected an unusual rate of unsolicited mail "
            "originating from your IP address. To protect our users from spam, mail sent from "
            "your IP address has been temporarily rate limited.",
            1,
        ),
        (
            "gmail",
            "550 5.7.1 [192.0.2.1 12] Our system has detected that this message is likely "
            "unsolicited mail. To reduce the amount of spam sent to Gmail, this message has been "
            "blocked.",
            5,
        ),
        (
            "microsoft",
            "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your "
            "Internet service provider since part of their network is on our block list (S3140).",
            1,
        ),
        ("microsoft", "550 5.7.1 Unfortunately, messages from [192.0.2.1] (AS3150).", 1),
        ("microsoft", "550 5.7.606 Access denied, banned sending IP [192.0.2.1]", 1),
        (
            "microsoft",
            "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP "
            "reputation.",
            1,
        ),
        (
            "yahoo",
            "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected "
            "volume or user complaints - 4.16.55.1",
            1,
        ),
        (
            "yahoo",
            "421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred; Retrying "
            "will NOT succeed.",
            1,
        ),
        (
            "yahoo",
            "553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1, because the ip is "
            "in Spamhaus's list",
            1,
        ),
        (
            "other",
            "554 IP=192.0.2.1 - None/bad reputation. Ask your postmaster for help or to contact "
            "tobr@rx.t-online.de for reset. (NOWL)",
            1,
        ),
        (
            "other",
            "554 5.7.1 For explanation visit "
            "https://postmaster.gmx.net/en/error-messages?ip=192.0.2.1&c=rblb",
            1,
        ),
        (
            "other",
            "450 4.7.25 Client host rejected: cannot find your reverse hostname, [192.0.2.1]",
            3,
        ),
        ("docomo", "550 5.7.1 Your IP address 192.0.2.1 is blocked", 3),
        ("au", "421 4.7.0 the sending server has been temporarily blocked", 3),
        ("softbank", "554 5.7.1 mail from your mail server has been blacklisted", 3),
        ("other", "550 5.7.1 mail not accepted from blacklisted IP address [192.0.2.1]", 3),
    ],
)
def test_receivers_are_understood(provider: str, reply: str, after: int) -> None:
    rule = BLOCKS.find(_outcome(reply), provider)
    assert rule is not None
    assert rule.after == after


@pytest.mark.parametrize(
    "reply",
    [
        "550 5.1.1 User unknown",
        "550 Unknown user taro@docomo.ne.jp",
        "550 <taro@ezweb.ne.jp>: User unknown",
        "550 Invalid recipient: <taro@i.softbank.jp>",
        "552 5.2.2 Mailbox full",
        "451 4.3.0 Try again later",
        "450 4.2.0 <mta1.example.com[192.0.2.1]>: Client host rejected: Greylisted",
        "451 4.7.1 Your server IP is temporarily blocked by grey listing, come again",
        "421 4.3.2 Too many connections",
        "550 5.7.26 [192.0.2.1] This mail has been blocked because the sender is unauthenticated.",
        "550 5.7.1 This message is blocked: it contains a virus",
        "554 5.7.1 Service unavailable; Sender address [a@spam.example] blocked using "
        "dbl.spamhaus.org; https://www.spamhaus.org/query/dbl?domain=spam.example",
        "554 5.7.1 Service unavailable; Helo command [spam.example] blocked using dbl.spamhaus.org",
        "550 5.7.1 A link in this message is listed in SURBL",
        "550 5.7.1 very low reputation of the sending domain",
        "554 5.7.1 <taro@example.net>: Relay access denied",
    ],
)
@pytest.mark.parametrize("provider", ["other", "gmail", "microsoft", "yahoo"])
def test_what_is_about_the_recipient_or_the_message_is_no_block(provider: str, reply: str) -> None:
    assert BLOCKS.find(_outcome(reply), provider) is None


def test_who_hangs_up_before_any_name_was_said_means_the_source() -> None:
    found = BLOCKS.find(_outcome("554 nexthop.test go away", "connect"), "other")
    assert found is not None
    assert found.after == 3
    assert BLOCKS.find(_outcome("554 nexthop.test go away", "rcpt"), "other") is None
    assert BLOCKS.find(_outcome("421 nexthop.test come again", "connect"), "other") is None


@pytest.mark.parametrize(
    "reply", ["554 No SMTP service here", "521 5.3.2 host does not accept mail", "521 nexthop.test"]
)
def test_a_host_that_takes_no_mail_at_all_blocks_nobody(reply: str) -> None:
    assert BLOCKS.find(_outcome(reply, "connect"), "other") is None


def test_what_no_server_said_is_no_block() -> None:
    outcome = Outcome(Disposition.DEFERRED, 0, "4.4.1", "blocked using Spamhaus", "connect")
    assert BLOCKS.find(outcome, "other") is None


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (BlockRule(), True),
        (BlockRule(text=re.compile("no.*you")), True),
        (BlockRule(text=re.compile("yes")), False),
        (BlockRule(code="550"), True),
        (BlockRule(code="5"), True),
        (BlockRule(code="4"), False),
        (BlockRule(status="5.7.1"), True),
        (BlockRule(status="5.7"), True),
        (BlockRule(status="5"), True),
        (BlockRule(status="5.7.10"), False),
        (BlockRule(status="5.71"), False),
        (BlockRule(stages=frozenset({"rcpt", "dot"})), True),
        (BlockRule(stages=frozenset({"dot"})), False),
        (BlockRule(providers=frozenset({"gmail"})), True),
        (BlockRule(providers=frozenset({"yahoo"})), False),
        (BlockRule(code="550", status="4.7.1"), False),
    ],
)
def test_all_that_a_rule_says_must_fit(rule: BlockRule, fits: bool) -> None:
    assert rule.fits(_outcome("550 5.7.1 no mail from you"), "gmail") is fits


def test_a_status_is_compared_part_by_part() -> None:
    assert not BlockRule(status="5.7.1").fits(_outcome("550 5.7.10 no"), "gmail")


def test_the_first_rule_that_fits_decides() -> None:
    never = BlockRule(text=re.compile("you"), seconds=0)
    always = BlockRule(code="5")
    outcome = _outcome("550 5.7.1 no mail from you")
    assert Blocks([never, always]).find(outcome, "gmail") is None
    assert Blocks([always, never]).find(outcome, "gmail") is always


def test_what_comes_late_in_a_reply_is_not_looked_at() -> None:
    reply = f"550 5.7.1 {'x' * 1000} blocked using Spamhaus"
    assert BLOCKS.find(_outcome(reply), "other") is None


_PIECES = st.sampled_from(
    [
        *("the", "your", "ip", "IP address", "server", "host", "client", "mail", "not accept"),
        *("blocked", "using", "helo command", "sender", "refused", "low reputation", "from"),
        *("[", "]", ".", ";", "192.0.2.1", "client host rejected", "unusual rate of"),
    ]
)


@given(st.lists(_PIECES, max_size=400), st.sampled_from(["connect", "rcpt", "dot"]))
def test_no_reply_takes_long_or_breaks_it(words: list[str], stage: str) -> None:
    BLOCKS.find(Outcome(Disposition.FAILED, 550, "5.7.1", " ".join(words), stage), "gmail")


@given(st.text(max_size=2000))
def test_any_text_can_be_read(text: str) -> None:
    BLOCKS.find(Outcome(Disposition.FAILED, 550, "5.7.1", text, "rcpt"), "other")
