"""The plugin in a gateway: over SMTP, and with real messages."""

from __future__ import annotations

import email
import email.policy
import json
import re
from email.message import EmailMessage
from pathlib import Path

import pytest

from gateway.hooks import Client, Message
from gateway.testing import NextHop
from plugins.personalization import Personalization, PersonalizationConfig
from tests.assembly import Assembly, below_trace, configure

SITE = """
from plugins.personalization import Personalization

class Site(Personalization):
    pass
"""

DATA = {
    "*": {"offer": "spring"},
    "taro@example.net": {
        "name": "山田 太郎",
        "locale": "ja",
        "rows": [{"item": "鉛筆", "price": "120"}, {"item": "かばん", "price": "4980"}],
    },
    "ada@example.org": {"name": "Ada", "rows": [{"item": "Pen", "price": "1.50"}]},
}


def offer() -> bytes:
    """What a shop sends: one message for both."""
    message = EmailMessage(email.policy.SMTP)
    message["From"] = "Shop <shop@example.com>"
    message["Subject"] = "{{ name }}, your {{ offer }} invoice"
    message["X-Merge-Data"] = json.dumps(DATA)
    message["X-Campaign"] = "spring-1"
    message.set_content(
        "Dear {{ name }},\n{% for row in rows %}\n"
        "- {{ row.item }}: {{ row.price | currency('JPY' if locale == 'ja' else 'USD') }}\n"
        "{% endfor %}\nSum: {{ rows | sum(attribute='price') }}\n"
    )
    message.add_alternative(
        "<p>Dear {{ name }} &amp; friends</p>\n<table>{% for row in rows %}<tr><td>{{ row.item }}"
        "</td></tr>{% endfor %}</table>\n",
        subtype="html",
    )
    return message.as_bytes()


def gateway(folder: Path, via: str, rules: str) -> Assembly:
    (folder / "site.py").write_text(SITE)
    text = f"relay: {{via: ['{via}']}}\nplugins:\n  - ./site.py: {rules}"
    return Assembly(configure(folder, text))


RULES = "{sources: [{header: {}}], missing: default, defaults: {locale: en}}"


async def test_two_recipients_get_different_mail(tmp_path: Path) -> None:
    async with NextHop() as hop, gateway(tmp_path, hop.address, RULES) as running:
        reply = await running.submit("taro@example.net", "ada@example.org", content=offer())
        assert reply.startswith("250 ")
        messages = await hop.wait(2)
    read = {
        message.recipients[0][0]: email.message_from_bytes(
            below_trace(message.content), policy=email.policy.default
        )
        for message in messages
    }
    taro, ada = read["taro@example.net"], read["ada@example.org"]
    assert (taro["Subject"], ada["Subject"]) == (
        "山田 太郎, your spring invoice",
        "Ada, your spring invoice",
    )
    texts = {}
    for name, message in read.items():
        assert isinstance(message, EmailMessage)
        assert message.keys() == [
            "From", "Subject", "X-Campaign", "MIME-Version", "Content-Type"
        ]  # fmt: skip
        assert not message.defects
        for part in message.iter_parts():
            assert isinstance(part, EmailMessage)
            assert not part.defects
            text = part.get_content().replace("\r\n", "\n")
            texts[name, part.get_content_subtype()] = text
    assert texts == {
        (
            "taro@example.net",
            "plain",
        ): "Dear 山田 太郎,\n- 鉛筆: ￥120\n- かばん: ￥4,980\nSum: 5100\n",
        ("ada@example.org", "plain"): "Dear Ada,\n- Pen: $1.50\nSum: 1.50\n",
        (
            "taro@example.net",
            "html",
        ): "<p>Dear 山田 太郎 &amp; friends</p>\n<table><tr><td>鉛筆</td></tr>"
        "<tr><td>かばん</td></tr></table>\n",
        ("ada@example.org", "html"): "<p>Dear Ada &amp; friends</p>\n<table><tr><td>Pen</td></tr>"
        "</table>\n",
    }


async def test_a_template_that_cannot_be_filled_is_refused_with_its_place(tmp_path: Path) -> None:
    async with NextHop() as hop, gateway(tmp_path, hop.address, "{}") as running:
        content = b"X-Merge: 1\r\nSubject: Hi\r\n\r\nDear\r\n  {{ customer.name }},\r\n"
        reply = await running.submit("taro@example.net", content=content)
        assert reply == '550 5.6.0 text/plain, line 2, column 6: no value for "customer.name"'
        content = b"X-Merge: 1\r\nSubject: Hi {{ x\r\n\r\nHello\r\n"
        reply = await running.submit("taro@example.net", content=content)
        assert reply == (
            "550 5.6.0 Subject, line 1, column 7: unexpected end of template, "
            "expected 'the end of print statement'"
        )
        assert running.rows() == []
        reply = await running.submit("taro@example.net", content=content.replace(b"X-Merge", b"X"))
        assert reply.startswith("250 ")
        (message,) = await hop.wait(1)
    assert below_trace(message.content) == content.replace(b"X-Merge", b"X")


async def test_what_is_delivered_was_filled_for_the_envelope_and_adds_nothing_to_it(
    tmp_path: Path,
) -> None:
    values = {"x": "a\r\nBcc: eve@example.org\r\n.\r\nRCPT TO:<eve@example.org>\r\n"}
    content = (
        b"X-Merge-Data: " + json.dumps(values).encode() + b"\r\nSubject: {{ x }}\r\n\r\n{{ x }}\r\n"
    )
    rules = "{sources: [{header: {}}]}"
    async with NextHop() as hop, gateway(tmp_path, hop.address, rules) as running:
        assert (await running.submit("taro@example.net", content=content)).startswith("250 ")
        (message,) = await hop.wait(1)
    assert [recipient for recipient, _ in message.recipients] == ["taro@example.net"]
    head, _, body = below_trace(message.content).partition(b"\r\n\r\n")
    assert re.findall(rb"(?m)^[^ \t][^:]*", head) == [b"Subject"]
    assert body == values["x"].encode() + b"\r\n"


async def test_a_variant_is_noted_for_reports(tmp_path: Path) -> None:
    rules = "{variants: {'spring*': {a: {}}}}\n  - ./observer.py: {}"
    (tmp_path / "observer.py").write_text(
        "from pydantic import BaseModel\nfrom gateway.hooks import *\n"
        "class Config(BaseModel):\n    pass\n"
        "class Observer(Plugin[Config]):\n"
        "    @hookimpl\n    def observe(self, events):\n        pass\n"
    )
    content = b"X-Merge: 1\r\nX-Campaign: spring-1\r\nSubject: Hi\r\n\r\n{{ variant }}\r\n"
    async with NextHop() as hop, gateway(tmp_path, hop.address, rules) as running:
        assert (await running.submit("taro@example.net", content=content)).startswith("250 ")
        (message,) = await hop.wait(1)
        notes = [event.notes for event in running.events() if event.type == "accepted"]
    assert message.content.endswith(b"\r\n\r\na\r\n")
    assert notes == [{"campaign": "spring-1", "variant": "a"}]


# Real messages.


def crlf(content: bytes) -> bytes:
    return re.sub(rb"(?<!\r)\n|\r(?!\n)", b"\r\n", content).replace(b"\0", b"")


@pytest.mark.parametrize("switch", ["X-Merge", None])
async def test_real_messages_without_templates_are_unchanged(
    mail_corpus: Path, switch: str | None
) -> None:
    plugin = Personalization(PersonalizationConfig(only_with_header=switch))
    count = 0
    for path in sorted(mail_corpus.rglob("*")):
        if not path.is_file() or path.suffix == ".md":
            continue
        content = crlf(path.read_bytes())
        if switch is None and re.search(rb"\{[{%#]", content):
            continue
        made = Message("ID1", "a@example.com", Client("127.0.0.1"))
        made.content = content
        made.add_recipient("taro@example.net")
        assert await plugin.message(made) is None, path
        assert made.content is content, path
        count += 1
    assert count > 300


async def test_real_messages_with_a_template_change_there_and_nowhere_else(
    mail_corpus: Path,
) -> None:
    plugin = Personalization(PersonalizationConfig(only_with_header=None))
    count = 0
    for path in sorted(mail_corpus.rglob("*")):
        content = crlf(path.read_bytes()) if path.is_file() else b""
        if not content or re.search(rb"\{[{%#]", content):
            continue
        template, plain = (Message("ID1", "a@example.com", Client("127.0.0.1")) for _ in range(2))
        for made, word in ((template, "{{ stream }}"), (plain, "default")):
            made.content = content
            made.add_recipient("taro@example.net")
            for part in made.text_parts():
                if part.editable:
                    part.text = f"{word} {part.text}\n"
        before = template.content
        assert await plugin.message(template) is None, path
        if before == content:
            continue
        # As if the value had been written there in the first place.
        texts = [[part.text for part in made.text_parts()] for made in (template, plain)]
        assert texts[0] == texts[1], path
        assert template.headers.raw == plain.headers.raw, path
        count += 1
    assert count > 200
