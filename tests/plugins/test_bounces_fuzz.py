"""No message is too odd: real ones, reports that were cut or damaged on their way, and noise."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.bounces import charset, letter, mime
from plugins.bounces.classification import Classifier, FailureClass
from plugins.bounces.delivery_status import addresses_in, code_in, one_line, status_in
from plugins.bounces.report import LARGEST, Kind, read
from tests.plugins.bounces_site import FOLDER

FILES = {
    file.stem: file.read_bytes().replace(b"\n", b"\r\n") for file in sorted(FOLDER.glob("*.eml"))
}
CLASSIFIER = Classifier()
PIECES = [
    *(b"\r\n", b"\r\n\r\n", b"--", b"\0", b"\x1b$B", b"\x1b(B", b"\xff\xfe", b"=?utf-8?b?", b"<"),
    *(b"@", b"550 5.1.1 ", b"Final-Recipient: rfc822; ", b"Content-Type: multipart/mixed;\r\n"),
    *(b" boundary=", b"Content-Transfer-Encoding: base64\r\n", b"Action: ", b"\\x{110000}", b">>>"),
    *(b"Content-Type: message/rfc822\r\n\r\n", b"x" * 1000, "宛先".encode(), b"&#x110000;"),
]


def check(content: bytes) -> None:
    """Reads a message, and looks at all that came of it."""
    for null_sender in (True, False):
        report = read(content, null_sender=null_sender)
        assert report.kind in Kind
        assert (report.kind is Kind.DELIVERY) == bool(report.findings)
        assert (report.kind is Kind.FEEDBACK) == (report.feedback is not None)
        for finding in report.findings:
            assert CLASSIFIER.verdict(finding.code, finding.status, finding.said).failure in (
                FailureClass
            )
            assert finding.said.isprintable()
            assert re.fullmatch(r"|[245]\.\d{1,3}\.\d{1,3}", finding.status)
            assert finding.code == 0 or 400 <= finding.code < 600
        assert report.said.isprintable()
        for address in report.candidates():
            assert "@" in address
        assert all(isinstance(text, str) for text in report.texts())


def test_every_real_message_is_read(mail_corpus: Path) -> None:
    count = 0
    for file in sorted(mail_corpus.rglob("*")):
        if file.is_file() and file.suffix != ".md":
            content = file.read_bytes()
            check(content)
            check(re.sub(rb"\r?\n", b"\r\n", content))
            count += 1
    assert count > 300


def test_real_delivery_reports_are_known(mail_corpus: Path) -> None:
    reports = {
        "mikel-mail/spec_fixtures_emails_multipart_report_emails_report_422.eml": "mailbox-full",
        "mikel-mail/spec_fixtures_emails_multipart_report_emails_report_530.eml": "no-such-user",
        "nodemailer-mailparser/test_fixtures_delivery-status.eml": "no-such-user",
    }
    for name, failure in reports.items():
        content = re.sub(rb"\r?\n", b"\r\n", (mail_corpus / name).read_bytes())
        found = read(content, null_sender=True)
        assert found.kind is Kind.DELIVERY, name
        (finding,) = found.findings
        verdict = CLASSIFIER.verdict(finding.code, finding.status, finding.said)
        assert verdict.failure.value == failure, name


@pytest.mark.parametrize("name", FILES)
def test_a_report_may_end_anywhere(name: str) -> None:
    content = FILES[name]
    for end in range(0, len(content), 37):
        check(content[:end])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 2**32), st.integers(1, 12))
def test_a_report_may_be_damaged_anywhere(name: str, seed: int, changes: int) -> None:
    chance = random.Random(seed)
    content = bytearray(FILES[name])
    for _ in range(changes):
        start = chance.randrange(len(content))
        end = start + chance.choice([0, 1, 10, 200])
        content[start:end] = chance.choice(
            [b"", chance.choice(PIECES), chance.randbytes(3), bytes(content[:end])[-300:]]
        )
    check(bytes(content))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=40))
def test_noise_is_read(pieces: list[bytes]) -> None:
    check(b"".join(pieces))


@settings(deadline=None)
@given(st.text(max_size=300))
def test_texts_are_searched_without_surprise(text: str) -> None:
    assert re.fullmatch(r"|[245]\.\d{1,3}\.\d{1,3}", status_in(text))
    assert code_in(text) == 0 or 400 <= code_in(text) < 600
    assert one_line(text).isprintable()
    assert all("@" in address for address in addresses_in(text))
    letter.findings(letter.read(text))


@given(st.binary(max_size=200), st.text(max_size=20))
def test_octets_are_text_in_some_charset(octets: bytes, label: str) -> None:
    assert isinstance(charset.decode(octets, label), str)


@pytest.mark.parametrize(
    ("encoding", "label"),
    [
        ("iso-2022-jp", "iso-2022-jp"),
        ("iso-2022-jp", "us-ascii"),
        ("iso-2022-jp", ""),
        ("euc-jp", "iso-2022-jp"),
        ("euc-jp", ""),
        ("cp932", "Shift_JIS"),
        ("cp932", "x-sjis"),
        ("utf-8", "utf-8"),
        ("utf-8", "us-ascii"),
        ("utf-8", "nonsense"),
        ("utf-8", "unicode_escape"),
    ],
)
def test_japanese_is_read_however_it_is_labelled(encoding: str, label: str) -> None:
    text = "宛先のメールアドレスが見つかりません。"
    assert charset.decode(text.encode(encoding), label) == text


def test_western_letters_are_read() -> None:
    assert charset.decode("Empfänger unbekannt".encode("latin-1"), "iso-8859-1") == (
        "Empfänger unbekannt"
    )
    assert charset.decode("почта".encode("koi8-r"), "koi8-r") == "почта"


# Bounds: what is large, deep or many takes time in proportion, and not more.


def test_parts_are_read_to_a_depth_and_a_number() -> None:
    deep = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (number, number)
        for number in range(500)
    )
    assert len(mime.parts(deep)) == 1
    many = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 5000
    assert len(mime.parts(many)) == mime.MOST_PARTS


@pytest.mark.parametrize(
    "piece",
    [
        b"<style",
        b"<",
        b"&lt;",
        b"-" * 79 + b"\r\n",
        b"- " * 39 + b"\r\n",
        b"a@",
        b"<a@b> ",
        b"recipient: ",
        b"550 ",
        b"could not be ",
        b"\r\n ",
        b"error ",
        b"deliver to the ",
        b"b+",
        b"\x1b$B",
        b"=?utf-8?q?=",
    ],
)
def test_hostile_repetition_does_not_hold_it_up(piece: bytes) -> None:
    """The test's own timeout is what fails where it does."""
    body = piece * (LARGEST // len(piece))
    for head in (
        b"From: MAILER-DAEMON\r\nSubject: Undeliverable\r\nContent-Type: text/html\r\n\r\n",
        b"From: MAILER-DAEMON\r\nSubject: Undeliverable\r\n\r\n",
        b"Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\n"
        b"Content-Type: message/delivery-status\r\n\r\n",
        b"X-Failed-Recipients: ",
        b"Content-Type: multipart/mixed; boundary=",
        b"",
    ):
        check(head + body)
