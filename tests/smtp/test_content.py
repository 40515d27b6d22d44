"""What SMTP may carry, transparency, and the trace field."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mail.message import Client
from gateway.smtp.content import flaw, received_field, unstuff

_octets = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"\0", b"a", b"bb" * 3, b"\r\n."])
).map(b"".join)


@given(st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a", b"a."])))
def test_transparency_is_undone(lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    stuffed = b"".join((b"." if line[:1] == b"." else b"") + line + b"\r\n" for line in lines)
    assert unstuff(b"\r\n" + stuffed) == content


def _plain_flaw(content: bytes, line_length: int) -> str | None:
    """The same, the slow and obvious way."""
    lines = content.split(b"\r\n")
    if any(b"\n" in line for line in lines):
        return "bare LF"
    if any(b"\r" in line for line in lines):
        return "bare CR"
    if b"\0" in content:
        return "NUL"
    if any(len(line) > line_length for line in lines):
        return "longer"
    return None


@given(_octets, st.integers(1, 8))
@example(b"abcd\r\n", 4)
@example(b"abcde\r\n", 4)
@example(b"abcde", 4)
@example(b"abcd", 4)
@example(b"\r\n" * 10 + b"abcde\r\n", 4)
def test_flaws_are_found(content: bytes, line_length: int) -> None:
    expected = _plain_flaw(content, line_length)
    found = flaw(content, line_length)
    assert (found is None) == (expected is None)
    assert expected is None or expected in (found or "")


@pytest.mark.parametrize(
    ("client", "start"),
    [
        (Client("192.0.2.1", helo="mx.example.com"), "from mx.example.com ([192.0.2.1])"),
        (Client("2001:db8::1", helo="x"), "from x ([IPv6:2001:db8::1])"),
        (Client("192.0.2.1"), "from unknown ([192.0.2.1])"),
        (Client("192.0.2.1", helo="[192.0.2.1]"), "from [192.0.2.1] ([192.0.2.1])"),
        (Client("192.0.2.1", helo="a(b)\r\n c;ü"), "from a?b????c?? ([192.0.2.1])"),
    ],
)
def test_who_gave_us_the_message(client: Client, start: str) -> None:
    field = received_field(client, "gw.example.com", "ID", None, 0)
    assert field.decode().startswith(f"Received: {start}\r\n\tby gw.example.com with SMTP id ID;")


@pytest.mark.parametrize(
    ("esmtp", "tls", "user", "protocol"),
    [
        (False, None, None, "SMTP"),
        (True, None, None, "ESMTP"),
        (True, "TLSv1.3", None, "ESMTPS"),
        (True, None, "shop", "ESMTPA"),
        (True, "TLSv1.3", "shop", "ESMTPSA"),
    ],
)
def test_the_protocol_is_named_as_in_rfc_3848(
    esmtp: bool, tls: str | None, user: str | None, protocol: str
) -> None:
    client = Client("192.0.2.1", helo="x", esmtp=esmtp, tls=tls, user=user)
    field = received_field(client, "gw.example.com", "ID", "b@example.net", 1_700_000_000)
    assert f" with {protocol}\r\n\t(using" in field.decode() or f" with {protocol} id" in (
        field.decode()
    )
    assert ("(using TLSv1.3)" in field.decode()) == (tls is not None)
    assert b"shop" not in field  # a login is nobody else's business
    assert b"\r\n\tfor <b@example.net>;\r\n" in field
    date = field.decode().rpartition("\t")[2].rstrip("\r\n")
    assert parsedate_to_datetime(date).timestamp() == 1_700_000_000


@pytest.mark.parametrize("recipient", [None, "ü@example.net", f"{'b' * 250}@example.net"])
def test_a_recipient_that_cannot_be_named_is_not(recipient: str | None) -> None:
    field = received_field(Client("::1", helo="x"), "gw.example.com", "ID", recipient, 0)
    assert b"for <" not in field


@given(st.text(), st.text(max_size=60))
def test_the_field_is_one_field_of_short_lines(helo: str, recipient: str) -> None:
    safe = re.sub(r"[\r\n\0<>]", "", recipient)  # as a path may be
    client = Client("192.0.2.1", helo=helo, esmtp=True)
    field = received_field(client, "gw.example.com", "ID", safe, 0)
    assert field.isascii()
    assert field.count(b"Received:") <= 1 + safe.count("Received:") + helo.count("Received:")
    assert re.fullmatch(rb"Received: [^\r\n]*(?:\r\n\t[^\r\n]+)*\r\n", field)
    assert all(len(line) <= 998 for line in field.split(b"\r\n"))
    assert flaw(field, 998) is None
