from __future__ import annotations

import email
import re
from collections.abc import Iterator
from email.message import EmailMessage, Message
from email.policy import SMTPUTF8
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.attempt import Delivery, Disposition, Outcome
from gateway.mail.message import Client, Recipient
from gateway.queue.bounce import Kind, Result, report, wants_report
from gateway.queue.explanation import duration, explain

RECEIVED = 1_795_219_200.0  # 2026-11-21 00:00:00 UTC
NOW = RECEIVED + 5 * 86_400
CONTENT = (
    b"Message-ID: <one@example.com>\r\n"
    b"From: Alice <alice@example.com>\r\n"
    b"To: bob@example.net\r\n"
    b"Subject: =?utf-8?B?44GT44KT44Gr44Gh44Gv?=\r\n"
    b"\r\n"
    b"Hello\r\n"
)
REFUSED = Outcome(
    Disposition.FAILED,
    550,
    "5.1.1",
    "<bob@example.net>: no such user here",
    "rcpt",
    "mx.example.net[192.0.2.7]:25",
)


def delivery(content: bytes = CONTENT, **changes: Any) -> Delivery:
    values: dict[str, Any] = {
        "message_id": "06Q2M3N4P5R6S",
        "sender": "alice@example.com",
        "recipients": [Recipient("bob@example.net")],
        "client": Client("192.0.2.1"),
        "stream": "default",
        "received": RECEIVED,
        "attempts": 1,
        "content": content,
    }
    return Delivery(**{**values, **changes})


def written(
    kind: Kind = Kind.FAILED,
    about: Delivery | None = None,
    results: list[Result] | None = None,
    **changes: Any,
) -> bytes:
    values: dict[str, Any] = {"hostname": "gw.example.com", "identifier": "06Q2", "now": NOW}
    return report(
        kind,
        about or delivery(),
        [Result(Recipient("bob@example.net"), REFUSED, NOW)] if results is None else results,
        **{**values, **changes},
    )


def parsed(content: bytes) -> EmailMessage:
    """Reads a report, and checks the form that every report has."""
    check_lines(content)
    message = email.message_from_bytes(content, policy=SMTPUTF8)
    assert isinstance(message, EmailMessage)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["MIME-Version"] == "1.0"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message.defects == []
    assert len(message.get_payload()) == 3
    return message


def check_lines(content: bytes) -> None:
    assert content.endswith(b"\r\n")
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", content)
    assert max(map(len, content.split(b"\r\n"))) <= 998


def letter(message: EmailMessage) -> str:
    part = message.get_payload(0)
    assert isinstance(part, EmailMessage)
    assert part.get_content_type() == "text/plain"
    text = part.get_content()
    assert isinstance(text, str)
    return text


def blocks(message: EmailMessage) -> list[dict[str, str]]:
    """The fields of the machine-readable part, by block, unfolded."""
    part = message.get_payload(1)
    assert isinstance(part, Message)
    assert part.get_content_type() == "message/delivery-status"
    return [
        {name: " ".join(value.split()) for name, value in block.items()}
        for block in part.get_payload()
        if isinstance(block, Message)
    ]


def returned(message: EmailMessage) -> EmailMessage:
    part = message.get_payload(2)
    assert isinstance(part, EmailMessage)
    return part


def returned_text(message: EmailMessage) -> str:
    """The third part as it stands, still encoded."""
    text = returned(message).get_payload()
    assert isinstance(text, str)
    return text


def test_every_field_of_a_failure() -> None:
    about = delivery(envid="QQ+2B314", ret="HDRS")
    recipient = Recipient("bob@example.net", orcpt="rfc822;bob+2Blist@example.org")
    content = written(about=about, results=[Result(recipient, REFUSED, NOW - 1)])
    assert content.isascii()
    message = parsed(content)

    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@gw.example.com>"
    assert message["To"] == "alice@example.com"
    assert message["Subject"] == "Your message was not delivered / メールをお届けできませんでした"
    assert parsedate_to_datetime(message["Date"]).timestamp() == NOW
    assert message["Message-ID"] == "<06Q2@gw.example.com>"
    assert message["References"] == "<one@example.com>"
    assert message["Content-Transfer-Encoding"] == "7bit"

    assert blocks(message) == [
        {
            "Reporting-MTA": "dns; gw.example.com",
            "Original-Envelope-Id": "QQ+314",
            "Arrival-Date": "Sat, 21 Nov 2026 00:00:00 +0000",
        },
        {
            "Original-Recipient": "rfc822; bob+list@example.org",
            "Final-Recipient": "rfc822; bob@example.net",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.example.net",
            "Diagnostic-Code": "smtp; 550 5.1.1 <bob@example.net>: no such user here",
            "Last-Attempt-Date": "Wed, 25 Nov 2026 23:59:59 +0000",
        },
    ]
    assert returned(message).get_content_type() == "text/rfc822-headers"
    assert returned_text(message).encode() == CONTENT[: -len(b"\r\nHello\r\n")]


def test_the_letter_tells_what_happened_in_two_languages() -> None:
    text = letter(parsed(written()))
    english, japanese = text.split("-" * 60)
    for line in (
        "could not be delivered",
        "Subject: こんにちは",
        "To: bob@example.net",
        "There is no such address.",
        "Please check the address",
        "The server mx.example.net said: 550 5.1.1 <bob@example.net>: no such user here",
        "Reference: 06Q2M3N4P5R6S",
    ):
        assert line in english
    for line in (
        "届けることができませんでした",
        "件名: こんにちは",
        "宛先: bob@example.net",
        "この宛先は存在しません。",
        "宛先に間違いがないか",
        "サーバー mx.example.net の応答: 550 5.1.1 <bob@example.net>: no such user here",
        "受付番号: 06Q2M3N4P5R6S",
    ):
        assert line in japanese
    assert "{" not in text


def test_expired() -> None:
    outcome = Outcome(Disposition.DEFERRED, 0, "4.4.1", "connection refused", "connect")
    message = parsed(
        written(Kind.EXPIRED, results=[Result(Recipient("bob@example.net"), outcome, NOW)])
    )
    block = blocks(message)[1]
    assert block["Action"] == "failed"
    assert block["Status"] == "4.4.1"
    assert "Remote-MTA" not in block
    assert block["Diagnostic-Code"] == "x-mail-gateway; connection refused"
    text = letter(message)
    assert "tried for 5 days and now given up" in text
    assert "5日の間" in text
    assert "The reason in detail: connection refused" in text


def test_delayed() -> None:
    outcome = Outcome(Disposition.DEFERRED, 451, "4.2.2", "full", "rcpt", "10.0.0.1[10.0.0.1]:25")
    about = delivery(received=NOW - 4 * 3600)
    results = [Result(Recipient("bob@example.net"), outcome, NOW)]
    message = parsed(written(Kind.DELAYED, about, results, until=NOW + 3 * 86_400))
    block = blocks(message)[1]
    assert block["Action"] == "delayed"
    assert block["Status"] == "4.2.2"
    assert parsedate_to_datetime(block["Will-Retry-Until"]).timestamp() == NOW + 3 * 86_400
    text = letter(message)
    assert "We have tried for 4 hours" in text
    assert "for another 3 days" in text
    assert "あと3日の間" in text
    assert "mailbox is full" in text
    assert "send the message again later" not in text


def test_relayed() -> None:
    outcome = Outcome(Disposition.DELIVERED, 250, "2.0.0", "ok", "dot", "mx.b[192.0.2.9]:25")
    about = delivery(ret="FULL")
    results = [Result(Recipient("bob@example.net"), outcome, NOW)]
    message = parsed(written(Kind.RELAYED, about, results))
    assert blocks(message)[1]["Action"] == "relayed"
    assert blocks(message)[1]["Status"] == "2.0.0"
    assert "was passed on" in letter(message)
    assert returned(message).get_content_type() == "text/rfc822-headers"


def test_several_recipients() -> None:
    full = Outcome(Disposition.FAILED, 552, "5.2.2", "over quota", "rcpt", "mx.b[192.0.2.9]:25")
    message = parsed(
        written(
            results=[
                Result(Recipient("bob@example.net"), REFUSED, NOW),
                Result(Recipient("carol@example.net"), full, NOW),
            ]
        )
    )
    first, second = blocks(message)[1:]
    assert first["Final-Recipient"] == "rfc822; bob@example.net"
    assert second["Final-Recipient"] == "rfc822; carol@example.net"
    assert second["Status"] == "5.2.2"
    assert "carol@example.net" in letter(message)


@pytest.mark.parametrize("status", ["", "550", "5.1", "9.1.1", "5.1.1 evil", "5.1.1\r\nX: y"])
def test_a_status_without_sense_is_made_up(status: str) -> None:
    outcome = Outcome(Disposition.FAILED, 550, status, "no", "rcpt", "mx.b[192.0.2.9]:25")
    message = parsed(written(results=[Result(Recipient("bob@example.net"), outcome, NOW)]))
    assert blocks(message)[1]["Status"] == "5.0.0"


def test_the_whole_message_is_returned_if_asked_for_and_small() -> None:
    message = parsed(written(about=delivery(ret="FULL")))
    part = returned(message)
    assert part.get_content_type() == "message/rfc822"
    assert b"\r\n\r\n" + CONTENT + b"\r\n--" in written(about=delivery(ret="FULL"))

    message = parsed(written(about=delivery(ret="FULL"), full_limit=len(CONTENT) - 1))
    assert returned(message).get_content_type() == "text/rfc822-headers"
    assert "Hello" not in returned_text(message)


def test_an_8_bit_body_is_returned_as_it_is_and_labelled() -> None:
    content = b"Subject: x\r\nContent-Type: text/plain; charset=shift_jis\r\n\r\n\x82\xb1\r\n"
    raw = written(about=delivery(content, ret="FULL"))
    assert content in raw
    message = parsed(raw)
    assert message["Content-Transfer-Encoding"] == "8bit"
    assert returned(message)["Content-Transfer-Encoding"] == "8bit"


@pytest.mark.parametrize(
    "content",
    [
        b"Subject: x\r\n\r\nbare\nline feed\r\n",
        b"Subject: x\r\n\r\nbare\rreturn\r\n",
        b"Subject: x\r\n\r\nnul\0\r\n",
        b"Subject: x\r\n\r\n" + b"x" * 999 + b"\r\n",
        b"Subject: \xe3\x81\x82\r\n\r\nraw header\r\n",
    ],
)
def test_a_message_that_would_do_harm_is_not_returned_whole(content: bytes) -> None:
    message = parsed(written(about=delivery(content, ret="FULL")))
    assert returned(message).get_content_type() == "text/rfc822-headers"
    assert returned(message).get_content_charset() in (None, "utf-8")


@pytest.mark.parametrize(
    ("header", "charset"),
    [
        (b"Subject: \xe3\x81\x82=\t\r\nX: y", "utf-8"),
        (b"Subject: \x82\xb1 \x82\xf1\r\nX: y", "unknown-8bit"),
        (b"Subject: bare\rreturn\nand\0nul\r\nX: y", "utf-8"),
        (b"Subject: " + b"\xff=x" * 5000 + b"\r\nX: y", "unknown-8bit"),
        (b"Subject: " + b"x" * 2000 + b"\r\nX: " + b"y" * 75, "utf-8"),
    ],
)
def test_a_header_with_odd_octets_keeps_each_of_them(header: bytes, charset: str) -> None:
    content = written(about=delivery(header + b"\r\n\r\nbody\r\n"))
    assert content.isascii()
    message = parsed(content)
    part = returned(message)
    assert part.get_content_type() == "text/rfc822-headers"
    assert part.get_content_charset() == charset
    assert part["Content-Transfer-Encoding"] == "quoted-printable"
    assert part.get_payload(decode=True) == header + b"\r\n"
    for line in returned_text(message).splitlines():
        assert len(line) <= 76
        assert not line.endswith((" ", "\t"))


def test_an_endless_header_is_cut_between_lines() -> None:
    content = b"".join(b"X-%05d: %b\r\n" % (number, b"x" * 100) for number in range(5000))
    lines = returned_text(parsed(written(about=delivery(content + b"\r\nbody\r\n")))).splitlines()
    assert 500 < len(lines) < 700
    assert all(re.fullmatch(r"X-\d{5}: x{100}", line) for line in lines if line)


def test_a_message_without_a_header() -> None:
    message = parsed(written(about=delivery(b"just text\r\n")))
    assert returned_text(message) == ""
    assert message["References"] is None
    assert "Subject:" not in letter(message)


@pytest.mark.parametrize(
    "message_id",
    [b"no brackets", b"<a b@c>", b"<" + b"x" * 300 + b"@c>", b"<\xff@c>", b"<a@b> <c@d>"],
)
def test_an_odd_message_id_is_not_referred_to(message_id: bytes) -> None:
    content = b"Message-ID: " + message_id + b"\r\n\r\nHello\r\n"
    assert parsed(written(about=delivery(content)))["References"] is None


@pytest.mark.parametrize(
    ("address", "field"),
    [
        ("a..b@docomo.ne.jp", "<a..b@docomo.ne.jp>"),
        ("a.@ezweb.ne.jp", "<a.@ezweb.ne.jp>"),
        ('"a b"@example.com', '<"a b"@example.com>'),
        ("a b@example.com", '<"a b"@example.com>'),
        ("a>, <eve@example.org", '<"a>, <eve"@example.org>'),
        ('a"b\\c@example.com', '<"a\\"b\\\\c"@example.com>'),
        ("alice@[192.0.2.1]", "<alice@[192.0.2.1]>"),
        ("alice@example.com>,<eve", "<alice@example.com????eve>"),
        ("alice", "<alice>"),
        (
            "alice@example.com\r\nBcc: eve@example.org",
            '<"alice@example.com??Bcc: eve"@example.org>',
        ),
    ],
)
def test_the_address_of_the_sender_stays_one_address(address: str, field: str) -> None:
    content = written(about=delivery(sender=address))
    parsed(content)
    if address == "alice@example.com>,<eve":
        field = "<alice@example.com???eve>"
    assert f"\r\nTo: {field}\r\n".encode() in content


def test_a_sender_outside_ascii_gets_an_international_report() -> None:
    about = delivery(
        "Message-ID: <one@example.com>\r\nSubject: 挨拶\r\n\r\nHello\r\n".encode(),
        sender="送信者@例え.jp",
        smtputf8=True,
    )
    outcome = Outcome(Disposition.FAILED, 550, "5.1.1", "誰もいない", "rcpt", "mx.b[192.0.2.9]:25")
    recipient = Recipient("受信者+x@例え.jp", orcpt="utf-8;\\x{53D7}@example.jp")
    content = written(about=about, results=[Result(recipient, outcome, NOW)])
    message = parsed(content)
    assert "To: <送信者@例え.jp>\r\n".encode() in content
    assert message["Content-Transfer-Encoding"] == "8bit"
    for line in (
        "Content-Type: message/global-delivery-status",
        "Original-Recipient: utf-8; 受@example.jp",
        "Final-Recipient: utf-8; 受信者\\x{2B}x@例え.jp",
        "Diagnostic-Code: smtp; 550 5.1.1 誰もいない",
    ):
        assert f"\r\n{line}\r\n".encode() in content
    assert content.count(b"Content-Type: message/global-headers") == 1
    assert "Subject: 挨拶\r\n".encode() in content

    about.ret = "FULL"
    content = written(about=about, results=[Result(recipient, outcome, NOW)])
    parsed(content)
    assert content.count(b"Content-Type: message/global\r\n") == 1
    assert about.content in content


def test_a_recipient_outside_ascii_in_a_report_to_an_ascii_sender() -> None:
    outcome = Outcome(Disposition.FAILED, 550, "5.1.1", "誰もいない", "rcpt", "mx.b[192.0.2.9]:25")
    recipient = Recipient("受信者@例え.jp", orcpt="utf-8;\\x{53D7}@example.jp")
    content = written(results=[Result(recipient, outcome, NOW)])
    assert content.isascii()
    message = parsed(content)
    block = blocks(message)[1]
    assert block["Original-Recipient"] == "utf-8; \\x{53D7}@example.jp"
    assert block["Final-Recipient"] == ("utf-8; \\x{53D7}\\x{4FE1}\\x{8005}@\\x{4F8B}\\x{3048}.jp")
    assert (
        block["Diagnostic-Code"] == "smtp; 550 5.1.1 \\x{8AB0}\\x{3082}\\x{3044}\\x{306A}\\x{3044}"
    )
    assert "To: 受信者@例え.jp" in letter(message)
    assert "誰もいない" in letter(message)


@pytest.mark.parametrize("orcpt", ["", "rfc822", "rfc822;", "rfc822;a+0Ab", "r f;a@b", "rfc822;+"])
def test_an_original_recipient_without_sense_is_left_out(orcpt: str) -> None:
    recipient = Recipient("bob@example.net", orcpt=orcpt)
    message = parsed(written(results=[Result(recipient, REFUSED, NOW)]))
    assert "Original-Recipient" not in blocks(message)[1]


def test_a_long_reply_is_folded_and_cut() -> None:
    outcome = Outcome(
        Disposition.FAILED, 550, "5.7.1", "why not " * 100 + "x" * 9000, "dot", "mx.b[192.0.2.9]:25"
    )
    content = written(results=[Result(Recipient("bob@example.net"), outcome, NOW)])
    code = blocks(parsed(content))[1]["Diagnostic-Code"]
    assert code.startswith("smtp; 550 5.7.1 why not why not")
    assert len(code) < 2100
    (field,) = re.findall(rb"^Diagnostic-Code:.*\r\n(?: .*\r\n)*", content, re.MULTILINE)
    assert max(len(line) for line in field.split(b"\r\n") if b"xx" not in line) <= 76


def test_the_boundary_is_not_what_the_content_guesses() -> None:
    guesses = "".join(f"X: --=_06Q2/{number}\r\n" for number in range(20))
    content = written(about=delivery(guesses.encode() + b"\r\nbody\r\n"))
    message = parsed(content)
    assert message.get_boundary() == "=_06Q2/20"
    assert returned_text(message).count("--=_06Q2/") == 20


def test_what_a_report_must_have() -> None:
    with pytest.raises(ValueError, match="recipient"):
        written(results=[])
    with pytest.raises(ValueError, match="sender"):
        written(about=delivery(sender=""))
    with pytest.raises(ValueError, match="Message-ID"):
        written(identifier="a b")


hostile_text = st.text(
    st.one_of(
        st.sampled_from('\r\n\0\t "<>;:,@\\=-?\u2028\u0085\u202e\ud800あ'),
        st.characters(),
    ),
    max_size=60,
)
hostile_bytes = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"\r\n",
                b"\r",
                b"\n",
                b"\0",
                b"--=_06Q2/0",
                b"--=_06Q2/0--\r\n",
                b"Subject: x\r\n",
                b"\r\n\r\n",
                b"Content-Type: multipart/mixed\r\n",
                b"x" * 999,
                "あ".encode(),
                b"\xff",
            ]
        ),
        st.binary(max_size=20),
    ),
    max_size=12,
).map(b"".join)


@settings(deadline=None)
@given(
    kind=st.sampled_from(Kind),
    texts=st.lists(hostile_text, min_size=8, max_size=8),
    long=st.integers(1, 400),
    code=st.sampled_from([0, 250, 550]),
    content=hostile_bytes,
    ret=st.sampled_from([None, "FULL", "HDRS"]),
    until=st.none() | st.floats(NOW - 10, NOW + 1e6),
)
def test_nothing_from_outside_breaks_out(
    kind: Kind,
    texts: list[str],
    long: int,
    code: int,
    content: bytes,
    ret: str | None,
    until: float | None,
) -> None:
    sender, address, orcpt, envid, reply, status, relay, hostname = texts
    outcome = Outcome(Disposition.FAILED, code, status, reply * long, "rcpt", relay)
    recipient = Recipient(address * long, orcpt=f"rfc822;{orcpt}")
    about = delivery(content, sender="x" + sender, envid=envid, ret=ret)
    raw = written(
        kind, about, [Result(recipient, outcome, NOW)], hostname=f"gw{hostname}", until=until
    )
    check_lines(raw)
    head = raw.partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in b" \t"]
    expected = [b"From", b"To", b"Subject", b"Date", b"Message-ID", b"References"]
    expected += [b"Auto-Submitted", b"MIME-Version", b"Content-Type", b"Content-Transfer-Encoding"]
    assert [name for name in expected if name in names or name != b"References"] == names

    message = email.message_from_bytes(raw)
    boundary = message.get_boundary()
    assert boundary is not None
    delimiters = [line for line in raw.split(b"\r\n") if line.startswith(f"--{boundary}".encode())]
    assert len(delimiters) == 4
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert len(parts) == 3
    status_part = raw.split(f"--{boundary}\r\n".encode())[2].partition(b"\r\n\r\n")[2]
    allowed = {
        b"Reporting-MTA", b"Original-Envelope-Id", b"Arrival-Date", b"Original-Recipient",
        b"Final-Recipient", b"Action", b"Status", b"Remote-MTA", b"Diagnostic-Code",
        b"Last-Attempt-Date", b"Will-Retry-Until",
    }  # fmt: skip
    fields = [line for line in status_part.split(b"\r\n") if line[:1] not in b" \t"]
    assert {field.partition(b":")[0] for field in fields} <= allowed
    assert len([field for field in fields if field.startswith(b"Final-Recipient:")]) == 1
    if about.sender.isascii():
        assert b"".join(raw.split(f"--{boundary}\r\n".encode())[:3]).isascii()


def corpus(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.glob("*/*")):
        if path.is_file():
            yield re.sub(rb"\r?\n", b"\r\n", path.read_bytes())


@pytest.mark.parametrize("ret", [None, "FULL"])
def test_real_messages(mail_corpus: Path, ret: str | None) -> None:
    count = 0
    for content in corpus(mail_corpus):
        raw = written(about=delivery(content, ret=ret))
        check_lines(raw)
        assert len(blocks(parsed(raw))) == 2
        count += 1
    assert count > 300


@pytest.mark.parametrize(
    ("sender", "notify", "kinds"),
    [
        ("", None, set()),
        ("", {"SUCCESS", "FAILURE", "DELAY"}, set()),
        ("a@b", None, {Kind.FAILED, Kind.EXPIRED}),
        ("a@b", {"NEVER"}, set()),
        ("a@b", {"FAILURE"}, {Kind.FAILED, Kind.EXPIRED}),
        ("a@b", {"DELAY"}, {Kind.DELAYED}),
        ("a@b", {"SUCCESS"}, {Kind.RELAYED}),
        ("a@b", {"SUCCESS", "DELAY"}, {Kind.RELAYED, Kind.DELAYED}),
    ],
)
def test_who_wants_a_report(sender: str, notify: set[str] | None, kinds: set[Kind]) -> None:
    asked = None if notify is None else frozenset(notify)
    assert {kind for kind in Kind if wants_report(sender, asked, kind)} == kinds


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("5.1.1", "no such address"),
        ("4.1.2", "after the @ does not exist"),
        ("5.1.10", "after the @ does not exist"),
        ("5.2.1", "takes no mail at present"),
        ("4.2.2", "mailbox is full"),
        ("5.3.4", "too large"),
        ("4.4.99", "could not be reached"),
        ("5.6.7", "letters such as these"),
        ("5.7.26", "by its rules"),
        ("5.0.0", "did not take the message"),
        ("nonsense", "did not take the message"),
    ],
)
def test_explanations(status: str, text: str) -> None:
    assert text in explain(status).happened.english


@pytest.mark.parametrize(
    ("seconds", "english", "japanese"),
    [
        (0, "1 minute", "1分"),
        (-5, "1 minute", "1分"),
        (90 * 60, "90 minutes", "90分"),
        (4 * 3600, "4 hours", "4時間"),
        (47 * 3600, "47 hours", "47時間"),
        (5 * 86_400, "5 days", "5日"),
    ],
)
def test_durations(seconds: float, english: str, japanese: str) -> None:
    assert (duration(seconds).english, duration(seconds).japanese) == (english, japanese)
