"""The hook: what it answers, its bounds, its variants and its configuration."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.hooks import Reject
from plugins.personalization import PersonalizationConfig
from tests.plugins.personalization_messages import filled, message, plugin, refused, text

# Errors.


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (text("x", "Hi {{ nam }}"), '550 5.6.0 Subject, line 1, column 7: no value for "nam"'),
        (
            text("\n {% if x %}"),
            '550 5.6.0 text/plain, line 2, column 5: the block "if" has no end',
        ),
        (
            b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
            b"--b\r\n\r\nx\r\n--b\r\n\r\n{{ x y }}\r\n--b--\r\n",
            "550 5.6.0 text/plain (2), line 1, column 6: expected 'the end of print statement', "
            "got 'y'",
        ),
        (
            b"Content-Type: text/html\r\n\r\n<p>{{ '<' | safe }}</p>\r\n",
            "550 5.6.0 text/html, line 1, column 13: the filter safe is not allowed; "
            "it would be with allow_html: true",
        ),
        (
            text("{{ 顧客 }}"),
            '550 5.6.0 text/plain, line 1, column 4: no value for "\\u9867\\u5ba2"',
        ),
        (text("{{ x" + "x" * 900 + " }}"), None),
        (
            text("{{ 'a\nb' | foo\n }}"),
            '550 5.6.0 text/plain, line 2, column 6: there is no filter "foo"',
        ),
        (
            text("{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}"),
            "550 5.6.0 text/plain, line 1, column 31: the template takes more steps than "
            "max_steps allows",
        ),
    ],
)
async def test_errors_name_part_line_and_column(content: bytes, reply: str | None) -> None:
    answer = await refused(content)
    assert reply is None or answer == reply
    assert len(answer) < 450
    assert answer.isascii()


async def test_a_client_that_speaks_utf_8_gets_the_name_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = message(text("{{ 顧客 }}"))
    with caplog.at_level(logging.INFO):
        assert await plugin().message(made) is not None
    assert 'ID1: text/plain, line 1, column 4: no value for "顧客"' in caplog.text
    made.smtputf8 = True
    answer = await plugin().message(made)
    assert isinstance(answer, Reject)
    assert answer.text.endswith('no value for "顧客"')


async def test_html_can_be_allowed() -> None:
    content = b"Content-Type: text/html\r\n\r\n<p>{{ x | safe }}{{ x }}</p>\r\n"
    result = await filled(content, {"x": "<b>"}, allow_html=True)
    assert result.endswith(b"<p><b>&lt;b&gt;</p>\r\n")


async def test_output_and_work_are_bounded() -> None:
    assert await filled(text("{{ x }}"), {"x": "a" * 100}, max_output=100)
    assert "writes more than 99 octets" in await refused(
        text("{{ x }}"), {"x": "a" * 100}, max_output="99B"
    )
    assert "writes more than 16384 octets" in await refused(
        text("", "{{ x }}"), {"x": "a" * 20_000}
    )
    loop = "{% for i in range(100) %}{{ i }}{% endfor %}"
    assert await filled(text(loop), max_steps=500)
    # All places of one message share the steps.
    assert "more steps than" in await refused(text(loop, loop), max_steps=500)


async def test_equal_templates_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plugin()
    compiled = []
    original = made._syntax.parse

    def parse(text: str, *, is_html: bool) -> Any:
        compiled.append(text)
        return original(text, is_html=is_html)

    monkeypatch.setattr(made._syntax, "parse", parse)
    for name in ("A", "B", "C"):
        whole = message(text("Hi {{ name }}", "{{ name }}"), {"name": name})
        assert await made.message(whole) is None
        assert whole.content == text(f"Hi {name}", name)
    assert sorted(compiled) == ["Hi {{ name }}\n", "{{ name }}"]


# Variants.

VARIANTS = {
    "spring*": {
        "a": {"values": {"offer": "10%", "subject": "Save {{ offer }}, {{ name }}"}},
        "b": {"values": {"offer": {"text": "20%"}}},
    },
    "*": {"only": {}},
}


async def test_variants_have_values_and_a_subject_of_their_own() -> None:
    made = plugin(variants=VARIANTS)
    seen = set()
    for number in range(20):
        content = text("{{ variant }} {{ offer.text | d(offer) }}", "=?utf-8?q?Old?= {{ name }}")
        whole = message(content, address=f"p{number}@example.net")
        whole.notes["campaign"] = "Spring-1"
        assert await made.message(whole) is None
        note = whole.recipients[0].notes["variant"]
        seen.add(note)
        assert whole.body == {"a": b"a 10%\r\n", "b": b"b 20%\r\n"}[note]
        expected = {"a": "Save 10%, Taro", "b": "Old Taro"}[note]
        assert whole.headers.get("Subject") == expected
        assert len(whole.headers.fields("Subject")) == 1
    assert seen == {"a", "b"}


async def test_a_variant_is_noted_where_there_is_no_template() -> None:
    made = plugin(variants=VARIANTS | {"autumn": {"x": {"values": {"subject": "New"}}}})
    for campaign, variant in (("", "only"), ("autumn", "only")):
        whole = message(b"X-Merge: 1\r\nX: 1\r\n\r\nHi\r\n", None)
        whole.notes["campaign"] = campaign
        assert await made.message(whole) is None
        assert whole.recipients[0].notes["variant"] == variant
        assert whole.content == b"X: 1\r\n\r\nHi\r\n"
    whole = message(b"X-Merge: 1\r\nX: 1\r\n\r\nHi\r\n", None)
    whole.notes["campaign"] = "autumn"
    made = plugin(variants={"autumn": {"x": {"values": {"subject": "New 日"}}}})
    assert await made.message(whole) is None
    assert whole.headers.get("Subject") == "New 日"


async def test_an_error_in_the_subject_of_a_variant_names_it() -> None:
    variants = {"*": {"a": {"values": {"subject": "Hi {{ nobody }}"}}}}
    assert await refused(text("x"), variants=variants) == (
        '550 5.6.0 Subject, line 1, column 7: no value for "nobody"'
    )


# Configuration.


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"locale": "xx"}, "'xx' is no locale; expected a name such as ja, en or en_GB"),
        ({"timezone": "Tokyo"}, "'Tokyo' is no time zone; expected one such as Asia/Tokyo"),
        ({"timezone": "../etc/passwd"}, "is no time zone"),
        ({"currency": "YEN"}, "'YEN' is no currency; expected a code such as JPY"),
        ({"missing": "defaults"}, "Input should be"),
        ({"missing": "default"}, "missing: default needs defaults"),
        ({"defaults": {"a": 1}}, "defaults are used with missing: default only"),
        ({"missing": "default", "defaults": {"a": {1, 2}}}, "a: a template cannot be given"),
        ({"delimiters": {"variable": ["{{"]}}, "Field required"),
        ({"delimiters": {"variable": ["", "}}"]}}, "'' cannot delimit a tag"),
        ({"delimiters": {"variable": ["{ {", "}}"]}}, "cannot delimit a tag"),
        ({"delimiters": {"variable": ["{%", "}}"]}}, "need three different beginnings"),
        ({"variants": {"x": {}}}, "x: no variant has a weight; nobody could get one"),
        ({"variants": {"x": {"a": {"weight": 0}}}}, "x: no variant has a weight"),
        ({"variants": {"x": {"a": {"weight": -1}}}}, "greater than or equal to 0"),
        (
            {"variants": {"x": {"a": {"values": {"subject": "a\nb"}}}}},
            "subject is no text of one line",
        ),
        ({"variants": {"x": {"a": {"values": {"subject": 5}}}}}, "subject is no text of one line"),
        ({"only_with_header": "X Merge"}, "is not the name of a header field"),
        ({"headers": ["X Merge"]}, "is not the name of a header field"),
        ({"headers": ["Content-ID"]}, "Content-ID says how the message is built"),
        ({"max_output": 0}, "greater than 0"),
        ({"max_steps": 0}, "greater than 0"),
        ({"nonsense": 1}, "Extra inputs are not permitted"),
        ({"sources": [{"nonsense": {}}]}, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_configuration_is_an_error_that_says_why(
    config: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        plugin(**config)


def test_everything_has_a_default() -> None:
    assert PersonalizationConfig().only_with_header == "X-Merge"
