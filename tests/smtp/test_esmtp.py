"""The parameters of MAIL and RCPT (RFC 1870, 3461, 4865, 4954, 6152, 6531, 6710, 8689)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.address import decode_xtext, parse_parameters
from gateway.mail.message import Client, Message, Recipient
from gateway.smtp.esmtp import apply_mail_parameters, apply_rcpt_parameters, original_recipient

NOW = 1_900_000_000.0  # 2030-03-17T17:46:40Z
DAY = 86400.0


def _mail(
    text: str, tls: str | None = "TLSv1.3", hold: float = DAY
) -> tuple[Message, int, str | None]:
    message = Message("1", "a@example.com", Client("::1", tls=tls))
    parameters = parse_parameters(text)
    result = apply_mail_parameters(message, parameters, max_size=1000, now=NOW, longest_hold=hold)
    return message, *result


def test_everything_that_mail_may_say() -> None:
    text = "SIZE=999 BODY=8BITMIME SMTPUTF8 RET=full ENVID=q+2B AUTH=a+40b"
    message, size, refusal = _mail(f"{text} MT-PRIORITY=-4 REQUIRETLS HOLDFOR=60")
    assert refusal is None
    assert size == 999
    assert (message.smtputf8, message.ret, message.envid) == (True, "FULL", "q+2B")
    assert (message.priority, message.require_tls, message.release) == (-4, True, NOW + 60)


def test_nothing_is_needed() -> None:
    message, size, refusal = _mail("")
    assert (size, refusal) == (0, None)
    assert (message.smtputf8, message.ret, message.envid) == (False, None, None)
    assert (message.priority, message.require_tls, message.release) == (None, False, 0.0)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SIZE=1000", None),
        ("SIZE=1001", "552 5.3.4"),
        ("SIZE=-1", "501 5.5.4"),
        ("SIZE=٣", "501 5.5.4"),
        ("SIZE", "501 5.5.4"),
        ("BODY", "501 5.5.4"),
        ("BODY=BINARYMIME", "501 5.5.4"),
        ("SMTPUTF8=yes", "501 5.5.4"),
        ("RET", "501 5.5.4"),
        ("RET=BOTH", "501 5.5.4"),
        ("ENVID", "501 5.5.4"),
        (f"ENVID={'x' * 100}", None),
        (f"ENVID={'x' * 101}", "501 5.5.4"),
        ("ENVID=a+0D+0A", "501 5.5.4"),
        ("AUTH=+", "501 5.5.4"),
        ("MT-PRIORITY", "501 5.5.4"),
        ("MT-PRIORITY=10", "501 5.5.4"),
        ("MT-PRIORITY=+3", "501 5.5.4"),
        ("MT-PRIORITY=-0", "501 5.5.4"),
        ("MT-PRIORITY=3.5", "501 5.5.4"),
        ("REQUIRETLS=yes", "501 5.5.4"),
        ("HOLDFOR", "501 5.5.4"),
        ("HOLDFOR=0", "501 5.5.4"),
        ("HOLDFOR=-1", "501 5.5.4"),
        ("HOLDFOR=1.5", "501 5.5.4"),
        ("HOLDFOR=86400", None),
        ("HOLDFOR=86401", "501 5.5.4"),
        ("HOLDFOR=9999999999", "501 5.5.4"),
        ("HOLDUNTIL", "501 5.5.4"),
        ("HOLDUNTIL=2030-03-18T17:46:40Z", None),
        ("HOLDUNTIL=2030-03-18T17:46:41Z", "501 5.5.4"),
        ("HOLDUNTIL=2030-03-18T17:00:00", "501 5.5.4"),
        ("HOLDUNTIL=2030-03-18", "501 5.5.4"),
        ("HOLDUNTIL=tomorrow", "501 5.5.4"),
        ("HOLDFOR=60 HOLDUNTIL=2030-03-18T00:00:00Z", "501 5.5.4"),
        ("BY=120;R", "555 5.5.4"),
    ],
)
def test_what_mail_may_not_say(text: str, code: str | None) -> None:
    refusal = _mail(text)[2]
    assert refusal is None if code is None else (refusal or "").startswith(code)


@pytest.mark.parametrize("priority", range(-9, 10))
def test_every_priority(priority: int) -> None:
    assert _mail(f"MT-PRIORITY={priority}")[0].priority == priority


def test_what_needs_encryption() -> None:
    message, _, refusal = _mail("REQUIRETLS", tls=None)
    assert (refusal or "").startswith("530 5.7.10")
    assert not message.require_tls


@pytest.mark.parametrize("text", ["HOLDFOR=60", "HOLDUNTIL=2030-03-18T00:00:00Z", "HOLDFOR"])
def test_mail_is_not_kept_where_that_is_off(text: str) -> None:
    message, _, refusal = _mail(text, hold=0.0)
    assert (refusal or "").startswith("555 5.5.4")
    assert message.release == 0.0


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("HOLDFOR=1", NOW + 1),
        ("HOLDUNTIL=2030-03-17T17:46:41Z", NOW + 1),
        ("HOLDUNTIL=2030-03-18T02:46:41+09:00", NOW + 1),
        ("HOLDUNTIL=2030-03-17T17:46:40Z", 0.0),
        ("HOLDUNTIL=1999-12-31T23:59:60Z", 0.0),
    ],
)
def test_when_mail_is_to_go(text: str, release: float) -> None:
    message, _, refusal = _mail(text)
    assert refusal is None
    assert message.release == release


@pytest.mark.parametrize(
    ("text", "notify", "orcpt"),
    [
        ("", None, None),
        ("NOTIFY=never", {"NEVER"}, None),
        ("NOTIFY=SUCCESS,FAILURE,DELAY", {"SUCCESS", "FAILURE", "DELAY"}, None),
        ("ORCPT=rfc822;b+2Bc@example.net", None, "rfc822;b+2Bc@example.net"),
        ("ORCPT=utf-8;\u0646\u200cb@example.net", None, "utf-8;\u0646\u200cb@example.net"),
        ("ORCPT=utf-8;b\\x{FC}@example.net", None, "utf-8;b\\x{FC}@example.net"),
    ],
)
def test_what_rcpt_may_say(text: str, notify: set[str] | None, orcpt: str | None) -> None:
    recipient = Recipient("b@example.net")
    assert apply_rcpt_parameters(recipient, parse_parameters(text)) is None
    assert recipient.notify == notify
    assert recipient.orcpt == orcpt


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("NOTIFY", "501 5.5.4"),
        ("NOTIFY=NEVER,DELAY", "501 5.5.4"),
        ("NOTIFY=SUCCESS,", "501 5.5.4"),
        ("NOTIFY=always", "501 5.5.4"),
        ("ORCPT", "501 5.5.4"),
        ("ORCPT=;x", "501 5.5.4"),
        ("ORCPT=rfc822", "501 5.5.4"),
        ("ORCPT=rfc822;", "501 5.5.4"),
        ("ORCPT=\u65e5;x", "501 5.5.4"),
        ("ORCPT=rfc822;a+00", "501 5.5.4"),
        (f"ORCPT=rfc822;{'x' * 494}", "501 5.5.4"),
        ("SIZE=1", "555 5.5.4"),
    ],
)
def test_what_rcpt_may_not_say(text: str, code: str) -> None:
    recipient = Recipient("b@example.net")
    refusal = apply_rcpt_parameters(recipient, parse_parameters(text))
    assert refusal is not None
    assert refusal.startswith(code)


@pytest.mark.parametrize(
    ("address", "orcpt"),
    [
        ("b@example.net", "rfc822;b@example.net"),
        ("b+c=d@example.net", "rfc822;b+2Bc+3Dd@example.net"),
        ('"b c"@example.net', 'rfc822;"b+20c"@example.net'),
        ("ü@example.net", "utf-8;\\x{FC}@example.net"),
        ("ü+\\@例え.jp", "utf-8;\\x{FC}\\x{2B}\\x{5C}@\\x{4F8B}\\x{3048}.jp"),
    ],
)
def test_an_address_as_orcpt(address: str, orcpt: str) -> None:
    assert original_recipient(address) == orcpt


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=80))
def test_orcpt_keeps_every_address(address: str) -> None:
    orcpt = original_recipient(address)
    kind, _, text = orcpt.partition(";")
    assert kind == ("rfc822" if address.isascii() else "utf-8")
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert decode_xtext(text) == address
    # What stands in RCPT can be read again.
    assert parse_parameters(f"ORCPT={orcpt}") == {"ORCPT": orcpt}
