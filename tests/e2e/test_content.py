"""Mail of four kinds of systems through every plugin that changes content, checked by others' code:
dkimpy and OpenDKIM for signatures, the standard library for MIME and HTML, a browser for people.
"""

from __future__ import annotations

import asyncio
import email
import http.client
import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dkim
import pytest

from gateway.testing import NextHop
from tests.conftest import DebianProgram
from tests.e2e import producers
from tests.e2e.browser import Browser
from tests.e2e.conftest import Gateway, MakeGateway, free_port, until
from tests.e2e.producers import Produced
from tests.plugins.dkim_keys import ed25519_key, rsa_key
from tests.plugins.test_dkim_opendkim import OpenDkim

SITE = "https://shop.example"
DOMAINS = ("python.example", "newsletter.example", "outlook.example", "jp.example")
PERSON = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/150.0.0.0 Safari/537.36"
)
UNSUBSCRIBE = "%%unsubscribe_url%%"


def plugins(folder: Path, web: int) -> str:
    """gateway.yaml with all plugins that change content, and keys for the producers' domains."""
    rsa = rsa_key().write(folder / "rsa.pem")
    ed25519 = ed25519_key().write(folder / "ed25519.pem")
    keys = [
        f"        - {{domain: {domain}, selector: {selector}, file: {path}}}"
        for domain in DOMAINS
        for selector, path in (("rsa", rsa), ("ed25519", ed25519))
    ]
    return "\n".join(
        [
            f"http: {{address: '127.0.0.1:{web}'}}",
            "plugins:",
            "  - suppression: {}",
            "  - personalization: {sources: [{header: {}}]}",
            f"  - tracking: {{base_url: 'http://127.0.0.1:{web}/tracking'}}",
            "  - dkim:",
            "      keys:",
            *keys,
            "  - report: {}",
        ]
    )


class Links(HTMLParser):
    """What a browser would follow and load, and the text that it shows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.images: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        if tag in ("a", "area", "v:roundrect") and "href" in found:
            self.targets.append(found["href"])
        if tag == "img":
            self.images.append(found.get("src", ""))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        # What Outlook reads as HTML.
        inner = re.fullmatch(r"\[if [^\]]*\]>(.*)<!\[endif\]", data, re.DOTALL)
        if inner is not None:
            self.targets += Links(inner[1]).targets


def get(url: str, method: str = "GET", body: str = "", **headers: str) -> tuple[int, Message]:
    """One request, redirects not followed: the status and the header of the response."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    path = url.partition(parts.netloc)[2]
    try:
        connection.request(method, path, body or None, {"User-Agent": PERSON, **headers})
        response = connection.getresponse()
        response.read()
        return response.status, response.headers
    finally:
        connection.close()


def parts_of(content: bytes) -> list[tuple[str, Message]]:
    """The leaves of a message, with their types."""
    message = email.message_from_bytes(content)
    return [(part.get_content_type(), part) for part in message.walk() if not part.is_multipart()]


def decoded(part: Message) -> str:
    """The text of a part."""
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    charset = part.get_content_charset() or "us-ascii"
    # The standard library's variant that knows ① and ㈱ best is Microsoft's own double-byte set.
    if charset == "iso-2022-jp":
        return _from_iso_2022_jp(payload)
    return payload.decode(charset)


def _from_iso_2022_jp(octets: bytes) -> str:
    """Octet by octet: the two bytes of JIS as those of Shift_JIS, which Python's cp932 reads."""
    text, double, place = "", False, 0
    while place < len(octets):
        if octets.startswith((b"\x1b$B", b"\x1b(B"), place):
            double = octets.startswith(b"\x1b$B", place)
            place += 3
        elif double:
            row, column = octets[place] - 0x21, octets[place + 1] - 0x21
            lead = 0x81 + row // 2 + (0x40 if row >= 62 else 0)
            trail = column + (0x9F if row % 2 else 0x40 + (column >= 63))
            text += bytes((lead, trail)).decode("cp932")
            place += 2
        else:
            text += chr(octets[place])
            place += 1
    return text


def header_lines(content: bytes) -> list[bytes]:
    """The fields of a message, each with its folds."""
    header = content.partition(b"\r\n\r\n")[0] + b"\r\n"
    return re.findall(rb"[!-9;-~]+:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", header)


def put_back(html: str, produced: Produced, base: str) -> str:
    """HTML that arrived, with what the plugins are known to write put back."""
    written = iter(produced.written)
    html = re.sub(re.escape(base) + r"/c/[A-Za-z0-9_-]+", lambda _: next(written), html)
    assert next(written, None) is None
    html = re.sub(re.escape(base) + r"/u/[A-Za-z0-9_-]+", UNSUBSCRIBE, html)
    html, images = re.subn(r"<img [^>]*" + re.escape(base) + r"/o/[A-Za-z0-9_-]+[^>]*>", "", html)
    assert images == 1
    return html.replace(produced.name, "{{ name }}", 1)


@pytest.fixture(scope="module")
def gateway_and_mail(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Gateway, str, dict[str, tuple[Produced, bytes]]]]:
    """A gateway, where its pages are, and what arrived of each producer's message."""
    folder = tmp_path_factory.mktemp("content")
    web = free_port()
    base = f"http://127.0.0.1:{web}/tracking"
    sent = {
        maker.__name__: maker(SITE)
        for maker in (
            producers.python_email,
            producers.newsletter,
            producers.outlook,
            producers.japanese_shop,
        )
    }
    arrived: dict[str, tuple[Produced, bytes]] = {}

    async def relay() -> Gateway:
        async with NextHop() as hop:
            gateway = Gateway(folder, hop.address, plugins(folder, web))
            gateway.start()
            with gateway.client() as client:
                for count, (name, produced) in enumerate(sent.items(), 1):
                    sender = f"bounces@{produced.domain}"
                    client.sendmail(sender, "ada@example.net", produced.content)
                    got = await hop.wait(count, 60)
                    arrived[name] = produced, got[-1].content
            await asyncio.to_thread(gateway.wait_empty)
            return gateway

    gateway = asyncio.run(relay())
    yield gateway, base, arrived
    gateway.clean()


Mail = tuple[Gateway, str, dict[str, tuple[Produced, bytes]]]
EACH = pytest.mark.parametrize("name", ["python_email", "newsletter", "outlook", "japanese_shop"])


@EACH
def test_signatures_are_valid(
    gateway_and_mail: Mail, debian_program: DebianProgram, tmp_path: Path, name: str
) -> None:
    produced, content = gateway_and_mail[2][name]
    records = {
        f"{selector}._domainkey.{produced.domain}": pair
        for selector, pair in (("rsa", rsa_key()), ("ed25519", ed25519_key()))
    }
    texts = {f"{host}.".encode(): pair.record.encode() for host, pair in records.items()}
    verifier = dkim.DKIM(content)  # of the RSA key, which is on top
    assert verifier.verify(dnsfunc=lambda host, timeout=5: texts.get(host, b""))
    signed = {field.lower() for field in verifier.include_headers}
    assert {b"list-unsubscribe", b"list-unsubscribe-post"} <= signed
    assert content.count(b"DKIM-Signature: ") == 2
    assert OpenDkim(debian_program("opendkim"), tmp_path, records).verifies(content)


@EACH
def test_every_link_leads_where_it_did(gateway_and_mail: Mail, name: str) -> None:
    _, base, mail = gateway_and_mail
    produced, content = mail[name]
    (html,) = [decoded(part) for kind, part in parts_of(content) if kind == "text/html"]
    links = Links(html)
    tracked = [target for target in links.targets if target.startswith(f"{base}/c/")]
    locations = []
    for target in tracked:
        status, header = get(target)
        assert status == 302
        locations.append(header["Location"])
    assert locations == list(produced.links)
    others = {target for target in links.targets if not target.startswith(base)} | {*links.images}
    assert set(produced.untouched) <= others
    for words in produced.words:
        assert words in links.text
    (image,) = [source for source in links.images if source.startswith(base)]
    assert get(image)[1]["Content-Type"] == "image/gif"


@EACH
def test_nothing_else_has_changed(gateway_and_mail: Mail, name: str) -> None:
    _, base, mail = gateway_and_mail
    produced, content = mail[name]
    before, after = produced.content, content
    added = [b"Received", b"DKIM-Signature", b"List-Unsubscribe", b"List-Unsubscribe-Post"]
    kept = [line for line in header_lines(after) if line.partition(b":")[0].rstrip() not in added]
    assert kept == [line for line in header_lines(before) if not line.startswith(b"X-Merge")]
    old, new = parts_of(before), parts_of(after)
    assert [kind for kind, _ in old] == [kind for kind, _ in new]
    for (kind, one), (_, other) in zip(old, new, strict=True):
        if kind == "text/html":
            assert put_back(decoded(other), produced, base) == decoded(one)
        elif kind == "text/plain":
            text = re.sub(re.escape(base) + r"/u/[A-Za-z0-9_-]+", UNSUBSCRIBE, decoded(other))
            assert text == decoded(one)
        else:
            assert one.get_payload() == other.get_payload()
    boundary = b"--" + (email.message_from_bytes(before).get_boundary() or "").encode()
    pieces = list(zip(before.split(boundary)[2:], after.split(boundary)[2:], strict=True))
    assert len(pieces) > 1
    for piece, other_piece in pieces:
        assert piece.partition(b"\r\n\r\n")[0] == other_piece.partition(b"\r\n\r\n")[0]


def test_one_click_unsubscribing_suppresses_within_a_second(gateway_and_mail: Mail) -> None:
    gateway, _, mail = gateway_and_mail
    message = email.message_from_bytes(mail["newsletter"][1])
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    url = re.sub(r"\s", "", message["List-Unsubscribe"]).strip("<>").partition(">")[0]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with gateway.client() as client:
        client.ehlo()
        client.mail("bounces@newsletter.example")
        assert client.rcpt("ada@example.net")[0] == 250
        assert get(url, "POST", "List-Unsubscribe=One-Click", **form)[0] == 200
        answered = time.monotonic()
        until(lambda: client.rcpt("ada@example.net")[0] == 550, "the address to be suppressed")
        assert time.monotonic() - answered < 1.0
        client.rset()
        client.mail("bounces@python.example")
        assert client.rcpt("ada@example.net")[0] == 250, "another sender is not meant"


class Shop(http.server.ThreadingHTTPServer):
    """The site that links lead to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.seen: list[str] = []


class _Page(http.server.BaseHTTPRequestHandler):
    server: Shop

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>shop</title><p>Welcome</p>")

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Says nothing."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_a_person_with_a_browser_is_counted_exactly(
    debian_program: Callable[[str], Path],
    make_gateway: MakeGateway,
    tmp_path: Path,
    shop: Shop,
) -> None:
    web = free_port()
    produced = producers.newsletter(f"http://127.0.0.1:{shop.server_port}")
    debian_program("chromium")
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, plugins(tmp_path, web))
        gateway.start()
        with gateway.client() as client:
            client.sendmail("b@newsletter.example", "ada@example.net", produced.content)
            client.sendmail("b@newsletter.example", "bob@example.net", produced.content)
        messages = {message.recipients[0][0]: message for message in await hop.wait(2, 60)}
    content = messages["ada@example.net"].content
    (html,) = [decoded(part) for kind, part in parts_of(content) if kind == "text/html"]
    page = tmp_path / "mail.html"
    page.write_text(html)
    driver = debian_program("chromedriver")
    with Browser(str(driver), tmp_path, agent=PERSON) as browser:
        browser.open(page.as_uri())
        assert browser.run("return document.images[0].naturalWidth") == 1
        time.sleep(1.1)  # a person does not follow two links within a second
        browser.run("document.querySelector('a').removeAttribute('target')")
        browser.click("a")
        until(lambda: browser.text == "Welcome", "the shop's page")
        assert browser.url == produced.links[0]
        browser.open(page.as_uri())
        time.sleep(1.1)
        browser.click("a[href*='/u/']")
        until(lambda: browser.url.startswith(f"http://127.0.0.1:{web}"), "the page with a button")
        counted = _campaign(gateway, "week-47")
        assert counted["unsubscribed"] == 0, "looking at the page does nothing"
        browser.click("form button")
        until(lambda: _campaign(gateway, "week-47")["unsubscribed"] == 1, "the unsubscription")
    counted = _campaign(gateway, "week-47")
    expected = {"accepted": 2, "delivered": 2, "bounced": 0, "opened": 1, "clicked": 1}
    assert {name: counted[name] for name in expected} == expected
    assert shop.seen[0] == produced.links[0].partition(str(shop.server_port))[2]


def _campaign(gateway: Gateway, name: str) -> dict[str, Any]:
    printed = json.loads(gateway.command("report", "--json"))
    (found,) = [one for one in printed["campaigns"] if one["campaign"] == name]
    counts: dict[str, Any] = found["counts"]
    return counts
