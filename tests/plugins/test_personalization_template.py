"""The language of templates: what it can do, and what it says of what is wrong."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.personalization.rendering import Policy, TemplateError
from plugins.personalization.syntax import Delimiters, Syntax
from tests.plugins.personalization_templates import VALUES, filled, refusal

# What it can do.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dear {{ name }},", "Dear Taro,"),
        ("{{name}}{{ name }}", "TaroTaro"),
        ("{{ order.number }} {{ order['number'] }} {{ order.items.0 }}", "A-1 A-1 x"),
        ("{{ order.items[1] }} {{ order.items[-1] }} {{ name[0] }} {{ name[1:3] }}", "y z T ar"),
        ("{{ order.items[:2] | join('+') }}", "x+y"),
        ("{{ nobody | default('お客様') }}", "お客様"),
        ("{{ order.nothing.at.all | default('-') }}", "-"),
        ("{{ nothing | d('-') }} {{ blank | default('-') }} {{ zero | d('-') }}", "- - 0"),
        ("{{ nobody | default(name) }} {{ nobody | d(noone) | d('x') }}", "Taro x"),
        ("{% if vip %}A{% elif name %}B{% else %}C{% endif %}", "A"),
        ("{% if nobody %}A{% elif order.nobody %}B{% else %}C{% endif %}", "C"),
        ("{% if not nobody and (vip or nobody) %}A{% endif %}", "A"),
        ("{{ 'A' if vip else 'B' }}{{ 'A' if nobody else 'B' }}{{ 'A' if nobody }}", "AB"),
        ("{% for x in order.items %}{{ loop.index }}{{ x }}{% endfor %}", "1x2y3z"),
        (
            "{% for x in empty or map %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}",
            "a, b",
        ),
        ("{% for x in order.items if x != 'y' %}{{ x }}{{ loop.length }}{% endfor %}", "x2z2"),
        ("{% for x in empty %}A{% else %}none{% endfor %}", "none"),
        ("{% for k, v in map.items() %}{{ k }}={{ v }};{% endfor %}", "a=1;b=2;"),
        ("{% for k, v in map | dictsort %}{{ k }}{% endfor %}{{ map | length }}", "ab2"),
        ("{% for k in map %}{{ k }}{% endfor %}", "ab"),
        ("{% for x in range(3) %}{{ loop.cycle('a', 'b') }}{% endfor %}", "aba"),
        (
            "{% for x in order.items %}{{ loop.previtem | d('.') }}{{ loop.nextitem | d('.') }}"
            "{{ loop.revindex }}{{ loop.first }}{% endfor %}",
            ".y3Truexz2Falsey.1False",
        ),
        (
            "{% set x = name | upper %}{{ x }}{% if vip %}{% set x = 'y' %}{% endif %}{{ x }}",
            "TAROy",
        ),
        (
            "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}",
            "231",
        ),
        ("{% set a, b = order.items[:2] %}{{ b }}{{ a }}", "yx"),
        (
            "{{ name | upper }} {{ name | lower }} {{ 'a b' | title }} {{ 'a b' | capitalize }}",
            "TARO taro A B A b",
        ),
        ("[{{ '  x ' | trim }}] {{ 'banana' | replace('an', '-') }}", "[x] b--a"),
        (
            "{{ 'one two three' | truncate(10) }} {{ 'abcdef' | truncate(5, true, '~') }}",
            "one... abcd~",
        ),
        ("|{{ '東京' | ljust(6) }}|{{ 5 | rjust(3) }}|{{ 'a' | center(4) }}|", "|東京  |  5| a  |"),
        ("{{ 'a b/c&d' | urlencode }}", "a%20b/c%26d"),
        ("{{ order.items | length }} {{ order.items | first }} {{ order.items | last }}", "3 x z"),
        ("{{ [3, 1, 2] | sort | join }} {{ ['b', 'A'] | sort | join }}", "123 Ab"),
        ("{{ ['10', '9'] | sort | join(' ') }} {{ [1, 2] | reverse | join }}", "9 10 21"),
        ("{{ ['a', 'A', 'b'] | unique | join }} {{ [2, 5] | min }}{{ [2, 5] | max }}", "ab 25"),
        ("{{ rows | map(attribute='name') | join(', ') }}", "Pen, Bag, Ink"),
        (
            "{{ rows | sort(attribute='price', reverse=true) | map(attribute='name') | join }}",
            "BagInkPen",
        ),
        (
            "{{ rows | sum(attribute='price') }} {{ order.items | map('upper') | join }}",
            "58.10 XYZ",
        ),
        (
            "{% for kind, items in rows | groupby('kind') %}{{ kind }}:"
            "{{ items | map(attribute='name') | join('+') }};{% endfor %}",
            "office:Pen+Ink;travel:Bag;",
        ),
        ("{{ rows | selectattr('count', 'gt', 1) | map(attribute='name') | join }}", "PenInk"),
        ("{{ rows | rejectattr('gift') | list | length }} {{ [0, 1] | select | join }}", "3 1"),
        ("{% for two in rows | batch(2) %}{{ two | length }}{% endfor %}", "21"),
        ("{{ 7 // 2 }} {{ 7 % 3 }} {{ -7 // 2 }} {{ 10 / 4 }} {{ 2 * 3 + 1 }}", "3 1 -4 2.5 7"),
        ("{{ 3.7 | int }} {{ '3' | int + 1 }} {{ 'x' | int(0) }} {{ 2.5 | round }}", "3 4 0 3"),
        ("{{ 2.675 | round(2) }} {{ -3 | abs }} {{ '1.50' | float }}", "2.68 3 1.50"),
        ("{{ 'Mr ' ~ name ~ 1 }}", "Mr Taro1"),
        (
            "{{ 1 < 2 < 3 }} {{ 'x' in order.items }} {{ 'q' not in name }} {{ 'a' in map }}",
            "True True True True",
        ),
        (
            "{{ 3 is odd }} {{ 4 is divisibleby 2 }} {{ name is defined }} {{ nobody is defined }}",
            "True True True False",
        ),
        ("{{ nothing is none }} {{ name is string }} {{ rows is iterable }}", "True True True"),
        ("a{# nobody reads this {{ x }} #}b", "ab"),
        ("{% raw %}{{ name }}{% endraw %}", "{{ name }}"),
        ("a  {{- name -}}  b", "aTarob"),
    ],
)
def test_templates(text: str, expected: str) -> None:
    assert filled(text, VALUES) == expected


def test_a_tag_alone_on_its_line_leaves_no_line() -> None:
    text = (
        "Items:\n{% for row in rows %}\n  {# one line each #}\n"
        "{{ row.name | ljust(5) }}{{ row.price * row.count | int }}\n  {% endfor %}  \nEnd\n"
    )
    assert filled(text, VALUES) == "Items:\nPen  3.30\nBag  49.95\nInk  14.10\nEnd\n"
    assert filled("a {% if vip %}\nb{% endif %}\nc", VALUES) == "a \nb\nc"
    assert filled("{% if vip %}\n{% if vip %}\nb\n{% endif %}\n{% endif %}", VALUES) == "b\n"
    assert filled("{{ name }}\n  {{ name }}\n", VALUES) == "Taro\n  Taro\n"


# Numbers and dates.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ 0.1 + 0.2 }}", "0.3"),
        ("{{ price * 3 }}", "59.97"),
        ("{{ float * 3 }}", "3.3"),
        ("{{ text * 2 }} {{ text + text }}", "2469.00 2469.00"),
        ("{{ 1.1 * 1.15 | round(2) }} {{ (1.1 * 1.15) | round(2) }}", "1.265 1.27"),
        ("{{ price }} {{ float }} {{ big }}", "19.99 1.1 12345678901234567890.12"),
        ("{{ big + 0.01 }}", "12345678901234567890.13"),
        ("{{ 1 / 8 }} {{ 0.5 * 4 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}", "0.125 2.0 3 0.5"),
        ("{{ big | currency('USD') }}", "$12,345,678,901,234,567,890.12"),
        ("{{ text | currency }} {{ text | currency('JPY') }}", "$1,234.50 ¥1,235"),
        ("{{ text | currency('EUR', locale='de') }}", "1.234,50\xa0€"),
        (
            "{{ 2.665 | currency }} {{ 0.125 | number(2) }} {{ 1234567.891 | number }}",
            "$2.67 0.13 1,234,567.891",
        ),
        ("{{ 0.155 | percent }} {{ 0.155 | percent(1) }}", "16% 15.5%"),
        (
            "{{ day | date('long') }} {{ '2026-11-21' | date('d.M.yyyy') }}",
            "November 21, 2026 21.11.2026",
        ),
        ("{{ '2026/4/1' | date('era') }} {{ moment | time }}", "令和8年4月1日 5:06 AM"),
        ("{{ day }} {{ moment }}", "2026-11-21 2026-11-21 05:06+00:00"),
        (
            "{{ text > 1000 }} {{ text > 9 }} {{ '10' > 9 }} {{ text == 1234.5 }}",
            "True True True True",
        ),
        (
            "{{ day > '2026-01-01' }} {{ day == '2026-11-21' }} {{ moment < '2026/11/22' }}",
            "True True True",
        ),
        ("{{ [text, price] | sum }}", "1254.49"),
    ],
)
def test_numbers_are_exact_and_texts_may_be_numbers(text: str, expected: str) -> None:
    values = {
        "price": Decimal("19.99"),
        "float": 1.1,
        "text": "1234.50",
        "big": Decimal("12345678901234567890.12"),
        "day": date(2026, 11, 21),
        "moment": datetime(2026, 11, 21, 5, 6, tzinfo=UTC),
    }
    assert filled(text, values) == expected


# HTML.


def test_values_are_escaped_in_html_and_nowhere_else() -> None:
    values = {"x": "<a href=\"x\" title='y'>&amp;</a>"}
    escaped = "&lt;a href=&quot;x&quot; title=&#x27;y&#x27;&gt;&amp;amp;&lt;/a&gt;"
    assert filled("<p>{{ x }}</p>", values, "html") == f"<p>{escaped}</p>"
    assert filled("<p>{{ x }}</p>", values, "text") == f"<p>{values['x']}</p>"
    assert filled("<p>{{ x }}</p>", values, "header") == f"<p>{values['x']}</p>"
    for expression in ("x | upper | lower", "x ~ ''", "'' ~ x", "[x] | join", "x | default('')"):
        assert filled(f"{{{{ {expression} }}}}", values, "html").lower() == escaped.lower()
    assert filled("{% set y = x %}{% if x %}{{ y }}{% endif %}", values, "html") == escaped


@given(st.text(), st.sampled_from(["<p>%s</p>", '<p title="%s">x</p>', "<p title='%s'>x</p>"]))
def test_no_value_leaves_its_place_in_html(value: str, frame: str) -> None:
    seen: list[Any] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append((tag, attrs))

    reader = Reader(convert_charrefs=True)
    reader.feed(filled(frame % "{{ x }}", {"x": value}, "html"))
    reader.close()
    ((tag, attributes),) = seen
    assert tag == "p"
    assert [name for name, _ in attributes] == (["title"] if "title" in frame else [])


def test_safe_html_needs_permission_and_comes_last() -> None:
    values = {"x": "<b>\n"}
    with pytest.raises(TemplateError, match=r"the filter safe is not allowed; .*allow_html: true"):
        filled("{{ x | safe }}", values, "html")
    assert filled("{{ x | safe }}", values, "html", allow_html=True) == "<b>\n"
    assert filled("{{ x | safe | upper }}", values, "html", allow_html=True) == "&lt;B&gt;\n"
    assert filled("{{ (x | safe)[0] ~ x[1:] }}", values, "html", allow_html=True) == "&lt;b&gt;\n"
    assert filled("{{ x | nl2br }}", values, "html") == "&lt;b&gt;<br>\n"
    assert filled("{{ x | escape }}|{{ x | e }}", values, "html") == "&lt;b&gt;\n|&lt;b&gt;\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ 1 &lt; 2 }} &lt; {{ &quot;a&amp;b&quot; }}", "True &lt; a&amp;b"),
        ("{{&nbsp;name&nbsp;|&nbsp;upper&nbsp;}}&nbsp;x", "TARO&nbsp;x"),
        ("{% if 2 &gt; 1 &amp;&quot;&quot; %}", ""),
        ("&amp;{{ name }}&amp;{{ &#39;x&#39; }}&amp;", "&amp;Taro&amp;x&amp;"),
        ("{% for x in [1, 2] if x &gt; 1 %}&lt;{{ x }}&gt;{% endfor %}&lt;", "&lt;2&gt;&lt;"),
        ("{% raw %}{{ &lt; }}{% endraw %}&lt;{{ name }}", "{{ &lt; }}&lt;Taro"),
        ("{{ name }}{{&lt;", ""),
    ],
)
def test_editors_of_html_write_entities_into_tags(text: str, expected: str) -> None:
    if expected:
        assert filled(text, VALUES, "html") == expected
    else:
        refusal(text, VALUES, "html")


def test_the_place_of_an_error_is_right_where_entities_are() -> None:
    text = "<p>\n{{ &quot;a&quot; }} &amp; {{ nobody }}</p>"
    assert refusal(text, kind="html") == '2:30 no value for "nobody"'


def test_css_is_no_comment_in_html() -> None:
    css = "@media print{#menu{color:#fff}}"
    text = f"<style>{css}</style>{{# {{{{ x }}}} #}}{{% if vip %}}{css}{{% endif %}}"
    assert filled(text, VALUES, "html") == f"<style>{css}</style>{css}"
    assert filled("a{#no space#}b") == "ab"
    assert filled("{{ '{#a' }}{# &amp; #}&amp;{#- x -#} b", kind="html") == "{#a&amp;b"


# Delimiters.


def test_delimiters_can_be_others() -> None:
    syntax = Syntax(Delimiters(("*|", "|*"), ("<%", "%>"), ("<#", "#>")))
    text = "{{ name }} *|name | upper|* <% if vip %>{% x %}<% endif %><# no #>{# yes #}"
    text += "*|order['number']|*"
    assert filled(text, VALUES, syntax=syntax) == "{{ name }} TARO {% x %}{# yes #}A-1"
    syntax = Syntax(Delimiters(("[[", "]]"), ("[%", "%]"), ("[#", "#]")))
    assert filled("[[ order['items'][0] ]] [[name]]", VALUES, syntax=syntax) == "x Taro"
    syntax = Syntax(Delimiters(("«", "»"), ("{%", "%}"), ("{#", "#}")))
    assert filled("«name» {{", VALUES, syntax=syntax) == "Taro {{"
    syntax = Syntax(Delimiters(("<<", ">>"), ("{%", "%}"), ("{#", "#}")))
    assert filled("<p><<name>></p> &lt;<< 'a&amp;b' >>", VALUES, "html", syntax=syntax) == (
        "<p>Taro</p> &lt;a&amp;b"
    )


# Missing values.


@pytest.mark.parametrize(
    "use",
    [
        "{{ x.y }}",
        "{{ x.y | upper }}",
        "{{ 'a' ~ x.y }}",
        "{{ x.y + 1 }}",
        "{{ 1 - x.y }}",
        "{% if x.y == 1 %}{% endif %}",
        "{% if 1 < x.y %}{% endif %}",
        "{{ x.y in [1] }}",
        "{{ 1 in x.y }}",
        "{% for a in x.y %}{% endfor %}",
        "{{ x.y | join }}",
        "{{ x.y | date }}",
        "{{ x.y | currency }}",
        "{{ x.y | length }}",
        "{{ x.y is odd }}",
        "{% set a = x.y %}",
        "{{ [x.y] | length }}",
        "{{ x.y[0:1] }}",
        "{{ -x.y }}",
        "{{ x.y | items }}",
        "{{ 'a' if not x.y else '' }}{{ x.y }}",
        "{{ x.y or x.y }}",
        "{{ x['y'] }}",
        "{{ 'a' | replace('a', x.y) }}",
        "{{ 4 is divisibleby(x.y) }}",
        "{{ 4 | number(digits=x.y) }}",
        "{{ x.y | default(x.y) }}",
        "{{ x.y | safe }}",
    ],
)
def test_a_missing_value_is_refused_by_its_name(use: str) -> None:
    known: list[dict[str, Any]] = [{}, {"x": {}}, {"x": {"y": None}}, {"x": 5}]
    for values in known:
        with pytest.raises(TemplateError, match=r'^no value for "x\.y"$'):
            filled(use, values, allow_html=True)


def test_an_attribute_of_an_item_is_refused_by_its_name() -> None:
    assert refusal("{{ rows | map(attribute='a.b') }}", VALUES) == '1:11 no value for "a.b"'
    assert refusal("{% for r in rows %}\n{{ r.gift }}{% endfor %}", VALUES) == (
        '2:4 no value for "r.gift"'
    )
    assert refusal("{{ (empty | first).name }}", VALUES) == '1:13 no value for "….name"'
    assert refusal("{{ empty | first }}", VALUES) == '1:12 no value for "first"'


def test_missing_values_can_be_empty() -> None:
    policy = Policy("empty")
    text = "[{{ x.y }}{{ x | upper }}{% for a in x %}b{% endfor %}{{ x ~ 'c' }}{{ x == '' }}]"
    assert filled(text, {}, policy=policy) == "[cTrue]"
    assert (
        filled("{% for k, v in x | items %}a{% endfor %}{{ x | length }}", {}, policy=policy) == "0"
    )


def test_missing_values_can_have_defaults() -> None:
    policy = Policy(
        "default", {"name": "friend", "order": {"items": [1, 2], "sum": 5}, "no": False}
    )
    text = "{{ name }} {{ order.sum + 1 }} {% for i in order.items %}{{ i }}{% endfor %} {{ no }}"
    assert filled(text, {"order": {"number": 1}}, policy=policy) == "friend 6 12 False"
    assert filled("{{ name | default('x') }}{% if name %}y{% endif %}", {}, policy=policy) == "x"
    assert filled("{{ name }}", {"name": "Taro"}, policy=policy) == "Taro"
    with pytest.raises(TemplateError, match=r'no value for "order\.number"'):
        filled("{{ order.number }}", {}, policy=policy)


# Errors.


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a\n {{ x", "2:5 unexpected end of template, expected 'the end of print statement'"),
        ("{{ x y }}", "1:6 expected 'the end of print statement', got 'y'"),
        ("\n\n{% if x %}\n{% for y in x %}{% endfor %}", '3:4 the block "if" has no end'),
        ("{% for y in x %}{% if x %}", '1:20 the block "if" has no end'),
        ("{% if x %}{% endfor %}", '1:14 the tag "endfor" is unknown, or cannot stand here'),
        ("{% iff x %}", '1:4 the tag "iff" is unknown, or cannot stand here'),
        ("{# x", "1:3 missing end of comment tag"),
        ("日本 {{ “x” }}", "1:7 unexpected char '“'"),
        ("{{ 'x }}", '1:4 unexpected char "\'"'),
        ("{{ x | uper }}", '1:8 there is no filter "uper"; did you mean "upper"?'),
        ("{{ x | nonsense }}", '1:8 there is no filter "nonsense"'),
        ("{{ x is od }}", '1:6 there is no test "od"; did you mean "odd"?'),
        ("{{ 1 | upper(2) }}", "1:8 wrong arguments"),
        (
            "{{ 'a' + 'b' }}",
            "1:4 a number is needed here, such as 1234.50; texts are joined with ~",
        ),
        ("{{ 'a' < 1 }}", "1:4 these two cannot be compared: one is no number, or no date"),
        ("{{ [1] == [1] }}", "1:4 lists and mappings cannot be compared"),
        ("{{ 1 / 0 }}", "1:4 this cannot be calculated"),
        ("{{ 1.5 % 0 }}", "1:4 this cannot be calculated"),
        ("{{ 'x' | date }}", "1:10 no date is here; expected one such as 2026-04-01"),
        (
            "{{ '2026-04-01' | date('bogus') }}",
            "1:19 'bogus' is no style of dates; expected short, long or such as yyyy-MM-dd",
        ),
        ("{{ '2026-04-01' | time }}", "1:19 a day is here, without a time"),
        ("{{ 5 | currency('XXQ') }}", "1:8 'XXQ' is no currency; expected a code such as JPY"),
        (
            "{{ 5 | number(locale='tlh') }}",
            "1:8 'tlh' is no locale; expected a name such as ja, en or en_GB",
        ),
        ("{{ 5 | number(-1) }}", "1:8 digits is no number from 0 to 30"),
        ("{{ [1] }}", "1:4 a list cannot be written as text; write a loop, or use join"),
        ("{{ map }}", "1:4 a mapping cannot be written as text; name one of its values"),
        ("{{ none }}", "1:4 there is nothing here that could be written"),
        ("{% for x in 'abc' %}{% endfor %}", "1:4 this is no list"),
        ("{% for a, b in [1] %}{% endfor %}", "1:4 2 names need a list of 2 values"),
        ("{% for a in range(10001) %}{% endfor %}", "1:18 a range has at most 10000 numbers"),
        ("{{ 1e999 }}", "1:4 a number has too many digits"),
        ("{{ loop.cycle(1) }}", "1:14 there is no loop around this"),
        ("{{ {'a': 1} }}", "1:4 this cannot be used in a template"),
        ("{{ 1 ** 2 }}", "1:4 there is no operator **"),
        ("{% set a.b = 1 %}", "1:8 a value can only be given to a name"),
    ],
)
def test_errors_name_their_place(text: str, error: str) -> None:
    assert refusal(text, {"x": "a", "map": {"a": 1}}) == error
