"""What strangers and data bring in stays text: in headers, log lines, reports and pages."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import http.client
import json
import re
from email.header import decode_header
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import pytest

from gateway.testing import NextHop
from gateway.testing.nexthop import ReceivedMessage
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, free_port, until
from tests.faults.figures import Figures

FORGED = "forged-line status=sent (250 2.0.0 Ok)"
PAYLOADS = [
    "x\r\nX-Injected: 1",
    "x\nX-Injected: 1",
    "x\rX-Injected: 1",
    "x\r\n\r\n<script>zap()</script>",
    "x\r\n.\r\nMAIL FROM:<injected@example.com>\r\n",
    "x\n.\nMAIL FROM:<injected@example.com>\n",
    f"x\n2026-01-01T00:00:00.000+00:00 gw.example.com gateway/worker[1]: {FORGED}",
    f"x\u2028{FORGED}",
    f"x\x85{FORGED}",
    "x\0y",
    "x\x1b[2J\x1b]0;owned\x07",
    "x\x9b2Jy\x7f",
    "x\u202egpj.exe\u2066",
    "<script>zap()</script>",
    '"><img src=x onerror=zap()>',
    "' onmouseover='zap()",
    "</title></style><svg onload=zap()>",
    "<a href=javascript:zap()>x</a>",
    "&lt;script&gt;zap()&lt;/script&gt;",
    "{{ 7 * 7 }}{% for x in range(9) %}x{% endfor %}",
    "%s%n%(name)s{0.__class__}",
    "x, status=sent (250 ok), to=<nobody@example.org>",
    '","message":"forged","x":"',
    "=cmd|'/c calc'!A0",
    "x\ud83d y",
]
PART_FIELDS = {"content-type", "content-transfer-encoding", "mime-version"}
MERGED = [payload for payload in PAYLOADS if "\ud83d" not in payload]
"""Half a character is refused where values are read."""
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
TEXT_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d gw\.example\.com gateway/"
)


class Page(HTMLParser):
    """What a browser would run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "base", "form"):
            self.active.append(tag)
        if tag == "img" and ("src", "x") in attributes:
            self.active.append(tag)
        for name, value in attributes:
            leads = name in ("href", "src", "action", "style", "formaction", "xlink:href")
            if name.startswith("on") or (leads and "javascript:" in (value or "").lower()):
                self.active.append(f"{tag} {name}={value}")


def check_log(log: str, form: str) -> int:
    """Looks at each line of a log; returns how many there are."""
    lines = log.split("\n")
    assert lines.pop() == ""
    for line in lines:
        assert not UNSAFE.search(line), repr(line)
        if form == "json":
            record = json.loads(line)
            assert record.get("message") != "forged"
            assert record["host"] == "gw.example.com"
        else:
            assert TEXT_LINE.match(line), repr(line)
            assert "gateway/worker[1]: " not in line[:80]
    return len(lines)


def fields_of(content: bytes) -> list[str]:
    """The names of the fields on top, which are read without any library."""
    header = content.split(b"\r\n\r\n", 1)[0]
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", content)
    return [
        line.split(b":")[0].decode().lower()
        for line in header.split(b"\r\n")
        if line[:1] not in b" \t"
    ]


# Merge values.


def offer() -> tuple[bytes, list[str]]:
    """A message with a payload for each recipient, and a harmless value for the last one."""
    message = EmailMessage(email.policy.SMTP)
    message["From"] = "Shop <shop@example.com>"
    message["To"] = "{{ name }} <list@example.com>"
    message["Subject"] = "Hello {{ name }}, {{ name }}"
    recipients = [f"r{number}@example.net" for number in range(len(MERGED) + 1)]
    data = dict(zip(recipients, [*MERGED, "Taro"], strict=True))
    message["X-Merge-Data"] = json.dumps({key: {"name": value} for key, value in data.items()})
    message.set_content("Dear {{ name }},\nHello\n")
    message.add_alternative(
        '<p title="{{ name }}">Dear {{ name }}</p>'
        '<p><a href="https://www.example.com/?n={{ name | urlencode }}">{{ name }}</a></p>\n',
        subtype="html",
    )
    return message.as_bytes(), recipients


def check_merged(message: ReceivedMessage, usual: list[str]) -> None:
    """A copy has the fields that it should have, and nothing in it can run."""
    assert fields_of(message.content) == usual
    parsed = email.message_from_bytes(message.content, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    assert [part.get_content_type() for part in parsed.walk()] == [
        "multipart/alternative",
        "text/plain",
        "text/html",
    ]
    for part in parsed.iter_parts():
        assert {name.lower() for name in part} <= PART_FIELDS
    html = parsed.get_body(("html",))
    plain = parsed.get_body(("plain",))
    assert html is not None
    assert plain is not None
    text: str = html.get_content()
    assert Page(text).active == []
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text.replace("\r\n", "\n"))
    assert "Dear 49" not in text
    (subject,) = [value for name, value in parsed.raw_items() if name.lower() == "subject"]
    decoded = "".join(
        piece.decode(charset or "ascii") if isinstance(piece, bytes) else piece
        for piece, charset in decode_header(str(subject))
    )
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028]", decoded.replace("\r\n ", " ")), decoded


# The rest of what strangers say.


def encoded(text: str) -> str:
    """An encoded word, whatever is in it (RFC 2047)."""
    octets = text.encode("utf-8", "surrogatepass")
    return f"=?utf-8?B?{base64.b64encode(octets).decode()}?="


def one_line(text: str) -> str:
    """As much of a payload as a command can carry."""
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "", text)


def talk(gateway: Gateway) -> None:
    """Says every payload at each place of the dialogue, and in mail."""
    with gateway.client() as client:
        for payload in PAYLOADS:
            octets = payload.encode("utf-8", "surrogatepass")
            safe = one_line(payload)
            client.send(b"EHLO " + (safe.replace(" ", "_") or "x").encode() + b"\r\n")
            client.getreply()
            login = base64.b64encode(b"\0" + octets.replace(b"\0", b"") + b"\0x").decode()
            client.docmd("AUTH", f"PLAIN {login}")
            client.ehlo()
            for command in ("MAIL FROM:<{}@example.com>", 'MAIL FROM:<"{}"@example.com>', "{}"):
                line = command.format(safe.replace('"', '\\"'))
                client.send(line.encode() + b"\r\n")
                client.getreply()
            client.docmd("RSET")
            word = encoded(payload)
            for field, expected in ((f"X-Campaign: {word}", 250), (f"X-Deliver-At: {word}", 550)):
                assert client.docmd("MAIL", "FROM:<a@example.com>")[0] == 250
                assert client.docmd("RCPT", "TO:<campaign@example.net>")[0] == 250
                code, text = client.data(
                    f"Subject: {word}\r\n{field}\r\nFrom: {word} <a@example.com>\r\n"
                    f"Message-ID: <{word}>\r\n\r\nHello\r\n"
                )
                assert code == expected, text


def browse(web: int) -> None:
    """Follows links with odd user agents and queries; looks at each page."""
    connection = http.client.HTTPConnection("127.0.0.1", web, timeout=DEADLINE)
    for payload in PAYLOADS:
        octets = payload.encode("utf-8", "surrogatepass")
        agent = re.sub(rb"[\r\n\0]", b"", octets)
        for path in ("/tracking/u/", "/tracking/c/", "/tracking/", "/", "/health/"):
            connection.putrequest("GET", path + quote(octets) + "?language=" + quote(octets))
            connection.putheader("User-Agent", agent)
            connection.putheader("Referer", agent)
            connection.putheader("Accept-Language", agent)
            connection.putheader("X-Forwarded-For", agent)
            connection.endheaders()
            response = connection.getresponse()
            body = response.read()
            assert response.status in (200, 400, 404, 410), (path, payload, response.status)
            assert response.getheader("X-Injected") is None
            if "html" in (response.getheader("Content-Type") or ""):
                assert Page(body.decode()).active == []
    connection.close()


@pytest.mark.parametrize("form", ["text", "json"])
async def test_nothing_breaks_out_of_its_place(
    make_gateway: MakeGateway, form: str, figures: Figures
) -> None:
    raw = [re.sub("[\r\n]+", " ", payload) for payload in PAYLOADS]
    replies: dict[str, Any] = {
        f"bad{number}@*": f"550 5.1.1 {text}".encode("utf-8", "surrogatepass").decode("latin-1")
        for number, text in enumerate(raw)
    }
    async with NextHop(rcpt={**replies, "*": "250 2.1.5 Ok"}) as hop:
        web = free_port()
        gateway = make_gateway(
            hop.address, listen="allow: [127.0.0.0/8], plaintext_auth: true, users: users.yaml"
        )
        users = gateway.folder / "users.yaml"
        users.write_text("users: {}\n")
        users.chmod(0o600)
        gateway.configure(
            f"log: {{format: {form}, level: debug}}\nhttp: {{address: '127.0.0.1:{web}'}}\n"
            f"limits: {{errors: 100000, login_failures: 100000}}\n"
            f"relay: {{via: ['{hop.address}'], tls: {{level: none}}}}\n"
            "plugins:\n  - suppression: {}\n  - personalization: {sources: [{header: {}}]}\n"
            f"  - tracking: {{base_url: 'http://127.0.0.1:{web}/tracking'}}\n"
            "  - bounces: {domain: bounce.example.com}\n"
            "  - report: {}\n"
        )
        await asyncio.to_thread(gateway.start)
        content, recipients = offer()
        await asyncio.to_thread(_send, gateway, content, recipients)
        messages = list(await hop.wait(len(recipients), DEADLINE))
        usual = next(
            fields_of(one.content) for one in messages if one.recipients[0][0] == recipients[-1]
        )
        assert "x-merge-data" not in usual
        for message in messages:
            check_merged(message, usual)
        # Replies of the next hop, which come back in reports to the sender.
        await asyncio.to_thread(
            _send,
            gateway,
            b"Subject: x\r\n\r\nHello\r\n",
            [f"bad{number}@example.net" for number in range(len(raw))],
        )
        reports = [
            one for one in await hop.wait(len(recipients) + len(raw), DEADLINE) if one.sender == ""
        ]
        assert reports
        for report in reports:
            names = fields_of(report.content)
            assert "x-injected" not in names
            parsed = email.message_from_bytes(report.content, policy=email.policy.default)
            assert [part.get_content_type() for part in parsed.walk()][:2] == [
                "multipart/report",
                "text/plain",
            ]
            assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]", report.content)
        paths = [message.sender for message in messages]
        assert all(path.endswith("@bounce.example.com") for path in paths)
        await asyncio.to_thread(_bounce, gateway, paths)
        await asyncio.to_thread(talk, gateway)
        await asyncio.to_thread(browse, web)
        await asyncio.to_thread(_check_reports, gateway)
        await asyncio.to_thread(gateway.stop)
        lines = check_log(gateway.log, form)
        figures(13, payloads=len(PAYLOADS), log_lines=lines, broken=0)


def _send(gateway: Gateway, content: bytes, recipients: list[str]) -> None:
    with gateway.client() as client:
        assert client.sendmail("shop@example.com", recipients, content) == {}


def _bounce(gateway: Gateway, paths: list[str]) -> None:
    """What other servers say when mail comes back from them."""
    with gateway.client() as client:
        for path, payload in zip(paths, PAYLOADS, strict=True):
            said = re.sub("[\r\n\0]+", "\r\n ", payload).encode("utf-8", "surrogatepass")
            content = (
                b"From: %b <x@y>\r\nSubject: %b\r\nMIME-Version: 1.0\r\n"
                b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
                b"--b\r\n\r\n%b\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
                b"Reporting-MTA: dns; %b\r\n\r\nFinal-Recipient: rfc822; %b@example.net\r\n"
                b"Action: failed\r\nStatus: 5.1.1\r\n"
                b"Diagnostic-Code: smtp; 550 5.1.1 %b\r\n--b--\r\n"
            ) % ((said,) * 6)
            assert client.sendmail("", [path], content) == {}


def _check_reports(gateway: Gateway) -> None:
    """What people read: pages, tables and lists."""
    page = gateway.folder / "report.html"

    def shown() -> bool:
        gateway.command("report", "--html", str(page))
        return page.read_text().count("zap()") >= 5

    until(shown, "the campaigns on the page")
    assert Page(page.read_text()).active == []
    for command in (["report"], ["queue", "list"], ["suppression", "list"]):
        printed = gateway.command(*command)
        assert not UNSAFE.search(printed.replace("\u202e", "").replace("\u2066", "")), command
