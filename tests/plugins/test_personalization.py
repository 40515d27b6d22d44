"""The hook: which messages it fills, where, and with which values."""

from __future__ import annotations

import asyncio
import base64
import logging
import quopri
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import getaddresses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.hooks import Message, Recipient, Reject, Tempfail
from plugins.personalization import Personalization
from plugins.personalization.sources import HeaderConfig, SourceError, Sources, Values
from plugins.personalization.sources.header import HeaderSource
from tests.plugins.personalization_messages import filled, message, plugin, refused, text
from tests.plugins.personalization_site import context

# Where templates are filled.


async def test_subject_text_and_html_are_filled_and_nothing_else_changes() -> None:
    content = (
        b"From:  odd   spacing <shop@example.com>\r\n"
        b"Subject: Order {{ order.number }}\r\n"
        b"X-Other: {{ name }}\r\n"
        b"MIME-Version: 1.0\r\n"
        b'Content-Type: multipart/alternative; boundary="b"\r\n\r\n'
        b"preamble {{ name }}\r\n--b\r\n\r\n"
        b"Dear {{ name }}, {{ order.total | currency('USD') }}\r\n--b\r\n"
        b"Content-Type: text/html; charset=utf-8\r\n\r\n"
        b"<p>Dear {{ name }} \xe6\x97\xa5</p>\r\n--b\r\n"
        b"Content-Type: text/plain; name=x.txt\r\n\r\n{{ name }}\r\n--b\r\n"
        b"Content-Type: message/rfc822\r\n\r\nSubject: {{ name }}\r\n\r\n{{ name }}\r\n--b--\r\n"
    )
    expected = content.replace(b"Order {{ order.number }}", b"Order A-1")
    expected = expected.replace(b"Dear {{ name }}", b"Dear Taro")
    expected = expected.replace(b"{{ order.total | currency('USD') }}", b"$1,234.50")
    assert await filled(content) == expected


async def test_other_headers_are_filled_where_they_are_named() -> None:
    content = (
        b"Subject: {{ name }}\r\nx-greeting: 1 {{ name }}\r\nX-Greeting: 2 {{ name }}\r\n"
        b'To: "{{ name }}" <taro@example.net>\r\n\r\nHi\r\n'
    )
    values = {"name": 'Taro, "A" <eve@example.org>'}
    made = message(await filled(content, values, headers=["X-Greeting", "To"]), None)
    assert made.headers.get("Subject") == "{{ name }}"
    assert made.headers.get_all("X-Greeting") == [f"1 {values['name']}", f"2 {values['name']}"]
    ((name, address),) = getaddresses(made.headers.get_all("To"))
    assert (name, address) == (values["name"], "taro@example.net")


async def test_a_template_cannot_change_an_address() -> None:
    content = b"To: Taro <{{ name }}@example.net>\r\n\r\nHello\r\n"
    assert (await refused(content, headers=["To"])).startswith("550 5.6.0 To: ")


@pytest.mark.parametrize("name", ["Content-Type", "MIME-Version", "Received", "No Name", "X:"])
def test_fields_that_are_no_place_for_values_cannot_be_named(name: str) -> None:
    with pytest.raises(ValidationError):
        plugin(headers=[name])


CHARSETS = {
    "us-ascii": "abc -&",
    "iso-8859-1": "aé -&",
    "utf-8": "aé日😀 -&",
    "iso-2022-jp": "a日本 -&",
    "shift_jis": "a日本ｱ -&",
    "euc-jp": "a日本 -&",
}


@st.composite
def parts(draw: st.DrawFn) -> tuple[str, str, list[bytes]]:
    """A charset, an encoding, and octets of literal text between templates."""
    charset = draw(st.sampled_from(sorted(CHARSETS)))
    letters = st.text(st.sampled_from(CHARSETS[charset] + "\n.}%"), max_size=40)
    pieces = draw(st.lists(letters, min_size=2, max_size=5))
    octets = [piece.replace("\n", "\r\n").encode(charset) for piece in pieces]
    encodings = ["quoted-printable", "base64"]
    encodings += ["8bit"] if any(not piece.isascii() for piece in octets) else ["7bit", "8bit"]
    return charset, draw(st.sampled_from(encodings)), octets


@given(parts(), st.sampled_from(["plain", "html"]))
async def test_octets_outside_of_templates_stay(
    part: tuple[str, str, list[bytes]], subtype: str
) -> None:
    charset, encoding, pieces = part
    body = b"|{{ name }}|".join(pieces) + b"\r\n"
    if encoding == "base64":
        encoded = base64.encodebytes(body).replace(b"\n", b"\r\n")
    elif encoding == "quoted-printable":
        encoded = quopri.encodestring(body.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    else:
        encoded = body
    header = (
        f"Content-Type:  text/{subtype};  charset={charset}\r\n"
        f"Content-Transfer-Encoding:  {encoding}\r\n"
    ).encode()
    result = await filled(header + b"\r\n" + encoded, {"name": "Taro"})
    head, _, rest = result.partition(b"\r\n\r\n")
    assert head + b"\r\n" == header
    decoded = rest
    if encoding == "base64":
        decoded = base64.b64decode(rest)
    elif encoding == "quoted-printable":
        decoded = quopri.decodestring(rest).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert decoded == b"|Taro|".join(pieces) + b"\r\n"


async def test_japanese_text_keeps_its_charset_and_becomes_utf_8_only_for_what_it_lacks() -> None:
    content = (
        b"Subject: =?ISO-2022-JP?B?GyRCJCo1Uk1NGyhC?= {{ name }}\r\n"
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=ISO-2022-JP\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n\r\n"
        b"{{ name }} \x1b$BMM\x1b(B\r\n"
    )
    result = await filled(content, {"name": "山田"})
    assert result.endswith("山田".encode("iso-2022-jp") + b" \x1b$BMM\x1b(B\r\n")
    assert b"charset=ISO-2022-JP\r\nContent-Transfer-Encoding: 7bit\r\n" in result
    assert message(result, None).headers.get("Subject") == "お客様 山田"
    assert result.startswith(b"Subject: =?ISO-2022-JP?B?GyRCJCo1Uk1NGyhC?=")

    smile = message(await filled(content, {"name": "山田😀"}), None)
    assert smile.headers.get("Subject") == "お客様 山田😀"
    (part,) = smile.text_parts()
    assert (part.charset, part.text) == ("utf-8", "山田😀 様\n")
    assert smile.headers.get("Content-Type") == "text/plain; charset=utf-8"


async def test_a_value_adds_no_field_and_no_part() -> None:
    content = (
        b"Subject: {{ x }}\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n{{ x }}\r\n--b--\r\n"
    )
    evil = "a\r\nBcc: eve@example.net\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<b>\r\n--b--\0"
    made = message(content, {"x": evil})
    assert await plugin().message(made) is None
    assert [field.name for field in made.headers] == ["Subject", "MIME-Version", "Content-Type"]
    assert (
        made.headers.get("Subject")
        == "a Bcc: eve@example.net --b Content-Type: text/html <b> --b--"
    )
    (part,) = message(made.content, None).text_parts()
    assert part.content_type == "text/plain"
    assert part.text == evil.replace("\r\n", "\n").replace("\0", "")
    assert [recipient.address for recipient in made.recipients] == ["taro@example.net"]


async def test_a_long_value_breaks_no_line_length() -> None:
    result = await filled(text("{{ x }}", "{{ x }}"), {"x": "long " * 1000 + "x" * 3000})
    assert max(map(len, result.split(b"\r\n"))) <= 998
    assert message(result, None).text_parts()[0].text == "long " * 1000 + "x" * 3000 + "\n"


async def test_signed_and_unreadable_parts_stay_and_the_log_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = (
        b"X-Merge: yes\r\nSubject: {{ name }}\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n"
        b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n{{ name }}\r\n--b--\r\n"
        b"--o\r\nContent-Type: text/plain; charset=nonsense\r\n\r\n{{ name }} \xff\r\n"
        b"--o\r\n\r\n{{ name }}\r\n--o--\r\n"
    )
    made = plugin()
    await made.start(context(tmp_path))
    whole = message(content)
    whole.add_recipient("hanako@example.net")
    with caplog.at_level(logging.INFO):
        for recipient in whole.recipients:
            copy = whole.copy([recipient])
            assert await made.message(copy) is None
            assert copy.content == content.replace(b"X-Merge: yes\r\n", b"").replace(
                b"Subject: {{ name }}", b"Subject: Taro"
            ).replace(b"\r\n\r\n{{ name }}\r\n--o--", b"\r\n\r\nTaro\r\n--o--")
    assert [record.getMessage() for record in caplog.records] == [
        "ID1: left as it is, for it is signed, encrypted or cannot be read: "
        "text/plain, text/plain (2)"
    ]
    await made.stop()


# Which messages.


PLAIN = text("Hello {{ name }} {% if %}", "{{ name }}")


async def test_only_marked_messages_are_looked_at() -> None:
    assert await filled(PLAIN, None) == PLAIN
    assert await filled(b"X-Other: 1\r\n" + PLAIN, None, only_with_header="X-Mine") == (
        b"X-Other: 1\r\n" + PLAIN
    )
    result = await filled(b"x-merge: yes\r\n" + text("Hi {{ recipient.local_part }}"), None)
    assert result == text("Hi taro")
    result = await filled(b"X-Mine: \r\n" + text("Hi"), None, only_with_header="X-Mine")
    assert result == text("Hi")


async def test_the_field_with_the_values_marks_a_message_too_and_never_goes_out() -> None:
    assert await filled(text("Hi")) == text("Hi")
    assert await filled(b"X-Merge: 1\r\nx-merge-data: {}\r\n" + text("Hi")) == text("Hi")
    values = {"taro@example.net": {"name": "T"}, "hanako@example.net": {"name": "H"}}
    assert await filled(text("Hi {{ name }}"), values) == text("Hi T")
    assert await filled(text("Hi"), values, only_with_header=None) == text("Hi")


async def test_all_messages_can_be_looked_at() -> None:
    config: dict[str, Any] = {"only_with_header": None, "sources": []}
    domain = text("Hi {{ recipient.domain }}")
    assert await filled(domain, None, **config) == text("Hi example.net")
    assert await filled(b"X-Merge: 1\r\n" + text("Hi"), None, **config) == (
        b"X-Merge: 1\r\n" + text("Hi")
    )
    for encoded in (
        b"Content-Transfer-Encoding: BASE64\r\n\r\ne3sgc3RyZWFtIH19\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=7B=7B stream =7D}\r\n",
        b"Content-Type: text/plain; charset=utf-7\r\n\r\n+AHsAew- stream }}\r\n",
        b"\r\n{{ stream }}\r\n",
    ):
        result = message(await filled(encoded, None, **config), None)
        assert result.text_parts()[0].text.strip() == "bulk"
    subject = b"Subject: =?utf-8?q?=7B=7B_stream_=7D=7D?=\r\n\r\nHi\r\n"
    assert message(await filled(subject, None, **config), None).headers.get("Subject") == "bulk"


async def test_a_message_without_a_template_asks_no_source() -> None:
    made = message(b"X-Merge-Data: nonsense\r\n" + text("Hi"), None)
    assert await plugin().message(made) is None
    assert made.content == text("Hi")
    answer = await refused(b"X-Merge-Data: nonsense\r\n" + text("{{ x }}"), None)
    assert answer.startswith("550 5.6.0 X-Merge-Data is not JSON")


def test_every_recipient_gets_a_message_of_its_own() -> None:
    assert Personalization.per_recipient


async def test_other_mail_does_not_wait_for_all_recipients_of_one_message() -> None:
    made = plugin()
    whole = message(text("{{ name }}"))
    whole.add_recipient("hanako@example.net")
    one, two = (whole.copy([recipient]) for recipient in whole.recipients)
    turns: list[str] = []
    asyncio.get_running_loop().call_soon(turns.append, "other mail")
    await made.message(one)
    assert turns == []
    await made.message(two)
    assert turns == ["other mail"]


async def test_sources_are_opened_where_mail_is(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("email,name\ntaro@example.net,Taro\n")
    made = plugin(tmp_path, sources=[{"csv": {"file": "list.csv"}}])
    await made.start(replace(context(tmp_path), role="service"))
    await made.stop()
    assert not (tmp_path / "data").exists()
    await made.start(context(tmp_path))
    await made.stop()
    assert (tmp_path / "data").exists()


# Values.


async def test_some_values_are_always_known(tmp_path: Path) -> None:
    now = datetime(2026, 11, 21, 20, 30, tzinfo=UTC)
    made = plugin(timezone="Asia/Tokyo")
    await made.start(replace(context(tmp_path), clock=now.timestamp))
    content = text(
        "{{ recipient.address }} {{ recipient.local_part }} {{ recipient.domain }} "
        "{{ message.id }} {{ message.sender }} {{ campaign }} {{ stream }} [{{ variant }}] "
        "{{ today }} {{ now }} {{ recipient.name }}"
    )
    whole = message(
        content,
        {"recipient": {"name": "T", "address": "x"}, "campaign": "x"},
        "taro@日本語.example",
    )
    whole.notes["campaign"] = "spring"
    assert await made.message(whole) is None
    (part,) = whole.text_parts()
    assert part.text == (
        "taro@日本語.example taro xn--wgv71a119e.example ID1 shop@example.com spring bulk [] "
        "2026-11-22 2026-11-22 05:30+09:00 T\n"
    )


async def test_sources_win_over_each_other_in_order(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "email,name,city\ntaro@example.net,Table,Kyoto\n", encoding="utf-8"
    )
    made = plugin(tmp_path, sources=[{"csv": {"file": "list.csv"}}, {"header": {}}])
    await made.start(context(tmp_path))
    try:
        one = message(text("{{ name }} {{ city }}"), {"name": "Header"})
        assert await made.message(one) is None
        other = message(b"X-Merge: 1\r\n" + text("{{ name }} {{ city }}"), None)
        assert await made.message(other) is None
    finally:
        await made.stop()
    assert (one.body, other.body) == (b"Header Kyoto\r\n", b"Table Kyoto\r\n")


class Broken(HeaderSource):
    """A source that fails."""

    def __init__(self, error: SourceError) -> None:
        super().__init__(HeaderConfig())
        self._error = error

    async def values(self, message: Message, recipient: Recipient) -> Values | None:
        raise self._error


@pytest.mark.parametrize(
    ("temporary", "answer"),
    [
        (True, Tempfail("the database is gone", 451, "4.3.0")),
        (False, Reject("the database is gone", 550, "5.6.0")),
    ],
)
async def test_a_source_that_fails(temporary: bool, answer: Reject | Tempfail) -> None:
    made = plugin()
    made._sources = Sources([Broken(SourceError("the database is gone", temporary=temporary))])
    assert await made.message(message(text("{{ name }}"))) == answer
    assert await made.message(message(text("no template"))) is None


async def test_the_language_is_the_recipients() -> None:
    content = text("{{ '2026-11-21' | date('long') }} {{ 5 | currency }}")
    for values, expected in (
        ({}, "21. November 2026 5,00\xa0€"),
        ({"locale": "ja"}, "2026年11月21日 €5.00"),
        ({"locale": "en-US"}, "November 21, 2026 €5.00"),
        ({"locale": "nonsense"}, "21. November 2026 5,00\xa0€"),
        ({"locale": 5}, "21. November 2026 5,00\xa0€"),
    ):
        result = message(await filled(content, values, locale="de", currency="EUR"), None)
        assert result.text_parts()[0].text == f"{expected}\n"


async def test_missing_values() -> None:
    content = text("Dear\n{{ customer.name }}")
    reply = '550 5.6.0 text/plain, line 2, column 4: no value for "customer.name"'
    assert await refused(content) == reply
    assert await filled(content, missing="empty") == text("Dear\n")
    defaults = {"customer": {"name": "customer"}}
    assert await filled(content, missing="default", defaults=defaults) == text("Dear\ncustomer")
    assert await refused(content, missing="default", defaults={"name": "x"}) == reply
    optional = text(
        "Dear {{ customer.name | default('customer') }}{% if city %}, {{ city }}{% endif %}"
    )
    assert await filled(optional) == text("Dear customer")
