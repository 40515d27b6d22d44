"""The parameters of MAIL and RCPT (RFC 1870, 3461, 4954, 6152, 6531)."""

from __future__ import annotations

import pytest

from gateway.mail.address import parse_parameters
from gateway.mail.message import Client, Message, Recipient
from gateway.smtp.esmtp import apply_mail_parameters, apply_rcpt_parameters


def _mail(text: str) -> tuple[Message, int, str | None]:
    message = Message("1", "a@example.com", Client("::1"))
    return message, *apply_mail_parameters(message, parse_parameters(text), 1000)


def test_everything_that_mail_may_say() -> None:
    text = "SIZE=999 BODY=8BITMIME SMTPUTF8 RET=full ENVID=q+2B AUTH=a+40b"
    message, size, refusal = _mail(text)
    assert refusal is None
    assert size == 999
    assert (message.smtputf8, message.ret, message.envid) == (True, "FULL", "q+2B")


def test_nothing_is_needed() -> None:
    message, size, refusal = _mail("")
    assert (size, refusal) == (0, None)
    assert (message.smtputf8, message.ret, message.envid) == (False, None, None)


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
        ("MT-PRIORITY=3", "555 5.5.4"),
    ],
)
def test_what_mail_may_not_say(text: str, code: str | None) -> None:
    refusal = _mail(text)[2]
    assert refusal is None if code is None else (refusal or "").startswith(code)


@pytest.mark.parametrize(
    ("text", "notify", "orcpt"),
    [
        ("", None, None),
        ("NOTIFY=never", {"NEVER"}, None),
        ("NOTIFY=SUCCESS,FAILURE,DELAY", {"SUCCESS", "FAILURE", "DELAY"}, None),
        ("ORCPT=rfc822;b+2Bc@example.net", None, "rfc822;b+2Bc@example.net"),
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
