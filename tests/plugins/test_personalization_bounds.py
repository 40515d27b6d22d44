"""What templates and values cannot do: reach, grow, run for ever, or change what is not theirs."""

from __future__ import annotations

import html
import time
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.personalization.places import applied
from plugins.personalization.rendering import TemplateError
from plugins.personalization.template import Kind, Template
from tests.plugins.personalization_templates import SYNTAX, filled, rendering

# What it refuses: templates and values that mean harm.


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{ ''.__class__ }}", "no value for"),
        ("{{ x.__init__.__globals__ }}", "no value for"),
        ("{{ x['__class__'] }}", "no value for"),
        ("{{ x | attr('__class__') }}", "there is no filter"),
        ("{{ rows | map(attribute='__class__') }}", "no value for"),
        ("{{ ''.format(x) }}", "cannot be called"),
        ("{{ x.update({}) }}", "cannot be called|cannot be used"),
        ("{{ rows.append(1) }}", "cannot be called"),
        ("{{ x.items.__self__ }}", "no value for"),
        ("{{ range.__name__ }}", "no value for"),
        ("{{ (range)(5) | first.real }}", "no filter|unexpected|cannot"),
        ("{{ x() }}", "cannot be called"),
        ("{{ '%s' % x }}", "a number is needed"),
        ("{{ '%999999999d' | format(1) }}", "there is no filter"),
        ("{{ '{0.__class__}' | format(x) }}", "there is no filter"),
        ("{{ upper(*rows) }}", "cannot be unpacked"),
        ("{{ self }}", "no value for"),
        ("{{ loop }}", "no value for"),
        ("{{ cycler }}", "no value for"),
        ("{{ namespace() }}", "cannot be called"),
        ("{{ lipsum() }}", "cannot be called"),
        ("{{ dict(a=1) }}", "cannot be called"),
        ("{% include '/etc/passwd' %}", 'the tag "include" cannot be used in mail'),
        ("{% import 'os' as os %}", 'the tag "import" cannot be used in mail'),
        ("{% from 'os' import path %}", 'the tag "from" cannot be used in mail'),
        ("{% extends 'x' %}", 'the tag "extends" cannot be used in mail'),
        ("{% block x %}{% endblock %}", 'the tag "block" cannot be used in mail'),
        ("{% macro x() %}{{ x() }}{% endmacro %}", 'the tag "macro" cannot be used in mail'),
        ("{% call x() %}{% endcall %}", 'the tag "call" cannot be used in mail'),
        ("{% filter upper %}{% endfilter %}", 'the tag "filter" cannot be used in mail'),
        (
            "{% autoescape false %}{% endautoescape %}",
            'the tag "autoescape" cannot be used in mail',
        ),
        ("{% with a = 1 %}{% endwith %}", 'the tag "with" cannot be used in mail'),
        ("{% set a %}x{% endset %}", 'the tag "set without =" cannot be used in mail'),
        ("{% for a in rows recursive %}{{ loop(rows) }}{% endfor %}", "recursive"),
        ("{% do x %}", 'the tag "do" is unknown'),
    ],
)
def test_nothing_is_reached_besides_the_values(text: str, error: str) -> None:
    with pytest.raises(TemplateError, match=error):
        filled(text, {"x": {"a": 1}, "rows": [{"a": 1}]}, "html")


BIG = "a" * (1 << 20)
LOOPS = "{%% for i in range(10000) %%}{%% for j in range(10000) %%}%s{%% endfor %%}{%% endfor %%}"


@pytest.mark.parametrize(
    "text",
    [
        LOOPS % "",
        LOOPS % "x",
        LOOPS % "{% if big == other %}{% endif %}",
        LOOPS % "{% if big | upper %}{% endif %}",
        LOOPS % "{% if big[::-1] %}{% endif %}",
        LOOPS % "{% if big | trim('bcdefghijk') %}{% endif %}",
        LOOPS % "{% if rows | sort(attribute='a') %}{% endif %}",
        LOOPS % "{% if rows | groupby('a') %}{% endif %}",
        LOOPS % "{% if map | first %}{% endif %}",
        LOOPS % "{% if 'zzz' in big %}{% endif %}",
        LOOPS % "{% if big ~ '' %}{% endif %}",
        LOOPS % "{% if i / 7 | currency('JPY') %}{% endif %}",
        LOOPS % "{% if rows | map(attribute='a') | map('date') %}{% endif %}",
        "{{ range(10**9) }}",
        "{{ range(1000000000) | length }}",
        "{{ 'a' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% set x = 10 %}" + "{% set x = x * x %}" * 60,
        "{% set x = 1.1 %}" + "{% set x = x * x %}" * 60,
        "{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 60,
        "{% set x = 'ab' %}" + "{% set x = x | replace('a', x) %}" * 60,
        "{% set x = 'ab' %}" + "{% set x = [x, x, x] | join(x) %}" * 60,
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x == x }}",
        "{% set x = rows %}" + "{% set x = x + x %}" * 60,
        "{{ 'a' | ljust(1000000000) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ big | trim(big) }}",
        "{{ 'x' | truncate(1000000000, true, big) }}{{ big }}",
        "{% for i in range(10000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}" * 9,
        "{{ big | number }}",
        "{{ 1 | round(999999999) }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "not " * 5000 + "1 }}",
        "{{ " + "- " * 5000 + "1 }}",
        "{{ " + "1 if 1 else " * 2000 + "1 }}",
        "{{ map" + ".a" * 5000 + " }}",
        "{{ map" + " | list" * 5000 + " }}",
        "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
        "{% for i in [1] %}" * 1000 + "{% endfor %}" * 1000,
        "{{ " + "9" * 6000 + " }}",
        "{{ map }}" * 30_000,
        "{{ " + "1 + " * 30_000 + "1 }}",
        "{{" * 100_000,
        "{# " * 100_000,
        "日" * (3 << 20) + "{% if map %}{% endif %}" * 1_900 + "{{ nobody }}",
        " " * (2 << 20) + " {% if map %} {% endif %} " * 1_900 + "{{ nobody }}",
        "{#x" * 200_000 + "#} {{ nobody }}",
        "&{{ a }}" * 100 + "&{{" * 200_000,
        "{% raw %}" * 50_000,
        "{{ '" + "\\\\" * 100_000,
        "x" * ((4 << 20) + 1) + "{{ map }}",
        " " * (1 << 20) + "{{ nobody }}",
        "{%- if map %}" + " " * (2 << 20) + "{%- endif %}",
    ],
    ids=lambda text: text[:60],
)
@pytest.mark.parametrize("kind", ["text", "html"])
def test_work_and_memory_are_bounded(text: str, kind: Literal["text", "html"]) -> None:
    values = {
        "big": BIG,
        "other": "a" * (1 << 20),
        "rows": [{"a": str(number)} for number in range(10_000)],
        "map": {str(number): number for number in range(10_000)},
    }
    started = time.perf_counter()
    with pytest.raises(TemplateError):
        filled(text, values, kind)
    # A bound that holds is far below this; one that does not, far above.
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 30, "gets longer than 1048576 char"),
        ("{{ big | replace('a', 'aa') }}", "gets longer than 1048576 characters"),
        ("{{ [big, big] | join }}", "gets longer than 1048576 characters"),
        ("{{ 99999999999999999999 * 99999999999999999999 }}", "more than 30 digits"),
        ("{{ 99999999999999999999.5 * 99999999999999999999 }}", "more than 30 digits"),
        ("{{ 0 - 999999999999999999999999999999 - 1 }}", "more than 30 digits"),
        ("{{ [[1], [2]] }}", "a list that is written in a template holds texts and numbers"),
        ("{{ [rows] | length }}", "a list that is written in a template holds texts and numbers"),
        ("{{ 'a' | rjust(1001) }}", "a width is at most 1000"),
        ("{{ 1 | round(31) }}", "at most 30 digits after the point"),
        ("{{ 'a' | trim('" + "b" * 21 + "') }}", "at most 20 characters"),
        ("{{ 1 }}" * 6_667, "more than 20000 names and signs"),
        ("{{ 1 }}" + "x" * (4 << 20), "has at most 4194304 characters"),
        (LOOPS % "{% if rows | sort(attribute='a') %}{% endif %}", "steps"),
        ("{{ " + "(" * 900 + "1" + ")" * 900 + " }}", "nested too deeply"),
    ],
    ids=lambda text: text[:50],
)
def test_bounds_say_what_they_are(text: str, error: str) -> None:
    values = {"big": BIG, "rows": [{"a": str(number)} for number in range(1_000)]}
    with pytest.raises(TemplateError, match=error):
        filled(text, values)


def test_sorting_counts_as_work() -> None:
    values = {"rows": [{"a": number} for number in range(1_000)]}
    template = Template("{{ rows | sort(attribute='a') | length }}", "text", SYNTAX)
    assert template.fill(rendering(values, steps=12_000))
    with pytest.raises(TemplateError, match="max_steps"):
        template.fill(rendering(values, steps=10_000))


def test_output_is_bounded_in_octets() -> None:
    template = Template("{{ x }}", "text", SYNTAX)
    assert template.fill(rendering({"x": "あ" * 10}, size=30))
    with pytest.raises(TemplateError, match="the template writes more than 29 octets"):
        template.fill(rendering({"x": "あ" * 10}, size=29))
    template = Template("{% for i in [1, 2] %}0123456789{% endfor %}", "text", SYNTAX)
    assert template.fill(rendering({}, size=20))
    with pytest.raises(TemplateError, match="more than 19 octets"):
        template.fill(rendering({}, size=19))


def test_steps_are_bounded() -> None:
    template = Template("{% for i in range(100) %}{{ i }}{% endfor %}", "text", SYNTAX)
    assert template.fill(rendering({}, steps=1000))
    with pytest.raises(TemplateError, match="the template takes more steps than max_steps allows"):
        template.fill(rendering({}, steps=200))


@given(st.text(st.sampled_from("{%#}}{|().,'\"ax1 =~-+*/\n\\&;") | st.characters(), max_size=60))
def test_any_text_is_a_template_or_refused(text: str) -> None:
    refused = []
    kinds: tuple[Kind, ...] = ("text", "html", "header")
    for kind in kinds:
        try:
            filled(text, {"a": 1, "x": "y"}, kind)
        except TemplateError as error:
            refused.append(error)
    assert all(0 <= error.offset <= len(text) and str(error) for error in refused)


EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "l", "m", "m.x", "nobody", "1", "2.5", "'t'", "''", "none", "true"]),
    lambda inner: st.one_of(
        st.tuples(
            inner,
            st.sampled_from(
                [
                    "+",
                    "-",
                    "*",
                    "/",
                    "//",
                    "%",
                    "~",
                    "==",
                    "!=",
                    "<",
                    "<=",
                    ">",
                    ">=",
                    "in",
                    "and",
                    "or",
                ]
            ),
            inner,
        ).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(
            inner,
            st.sampled_from(
                [
                    "upper",
                    "length",
                    "first",
                    "last",
                    "sort",
                    "join",
                    "list",
                    "items",
                    "sum",
                    "min",
                    "max",
                    "date",
                    "time",
                    "number",
                    "currency",
                    "percent",
                    "int",
                    "float",
                    "round",
                    "abs",
                    "reverse",
                    "unique",
                    "default",
                    "escape",
                    "nl2br",
                    "urlencode",
                    "batch(2)",
                    "ljust(5)",
                    "truncate(3)",
                    "replace('t','u')",
                    "groupby('x')",
                    "map('upper')",
                    "select",
                    "title",
                ]
            ),
        ).map(lambda parts: f"({parts[0]} | {parts[1]})"),
        st.tuples(inner, inner).map(lambda parts: f"{parts[0]}[{parts[1]}]"),
        inner.map(lambda one: f"(not {one})"),
        inner.map(lambda one: f"[{one}]"),
        st.tuples(
            inner, st.sampled_from(["odd", "defined", "none", "string", "number", "in([1])"])
        ).map(lambda parts: f"({parts[0]} is {parts[1]})"),
    ),
    max_leaves=6,
)


@given(
    EXPRESSIONS, st.dictionaries(st.sampled_from("abx"), st.text() | st.integers() | st.floats())
)
def test_any_expression_has_a_value_or_is_refused(expression: str, values: dict[str, Any]) -> None:
    values = {**values, "l": [1, "b", {"x": 2}], "m": {"x": [3]}}
    refused = []
    for text in (
        "{{ %s }}",
        "{%% for i in %s %%}{{ i }}{%% endfor %%}",
        "{%% if %s %%}{%% endif %%}",
    ):
        try:
            filled(text % expression, values)
        except TemplateError as error:
            refused.append(str(error))
    assert all(refused)


# What stays as it is.

LITERAL = st.text(
    st.sampled_from("ab \t\n\r.-<>&;'\"}%#日本é\ue000") | st.characters(exclude_categories=["Cs"]),
    max_size=12,
).map(lambda text: text.replace("{", "(").replace("\r\n", "\n"))
CONSTRUCTS = st.sampled_from(
    [
        ("{{ x }}", "X"),
        ("{{x}}", "X"),
        ("{{ nobody | default('') }}", ""),
        ("{{ 'a\\nb' }}", "a\nb"),
        ("{% if x %}[{{ x }}]{% endif %}", "[X]"),
        ("{% if nobody %}x{% else %}日{% endif %}", "日"),
        ("{% for i in [1, 2] %}<\n{{ i }}>{% endfor %}", "<\n1><\n2>"),
        ("{# x #}.{# y #}", "."),
        ("{% set y = 1 %}.", "."),
        ("{% raw %}{{ x }} {% endraw %}", "{{ x }} "),
        ("{{ '{{ x }}' }}", "{{ x }}"),
    ]
)


@given(st.lists(st.tuples(LITERAL, CONSTRUCTS), max_size=6), LITERAL, st.booleans())
def test_literal_text_stays_as_it_is(
    pieces: list[tuple[str, tuple[str, str]]], last: str, is_html: bool
) -> None:
    text = expected = ""
    places: set[int] = set()
    for literal, (source, result) in pieces:
        # With a dot before and after it, no tag is alone on its line.
        start = len(text) + len(literal) + 1
        text += f"{literal}.{source}."
        expected += f"{literal}.{result}."
        places.update(range(start, start + len(source) + 1))
    text, expected = text + last, expected + last
    kind: Kind = "html" if is_html else "text"

    spans = Template(text, kind, SYNTAX).fill(rendering({"x": "X"}, kind))

    assert applied(text, spans) == expected
    assert all(place in places for start, end, _ in spans for place in range(start, end))


def test_values_are_never_templates() -> None:
    values = {"x": "{{ y }}{% if z %}{#", "y": "secret"}
    assert filled("{{ x }}|{{ x }}", values) == "{{ y }}{% if z %}{#|{{ y }}{% if z %}{#"


# What values must not bring along.


@pytest.mark.parametrize(
    ("value", "in_text", "in_header"),
    [
        ("a\r\nBcc: b@example.net", "a\nBcc: b@example.net", "a Bcc: b@example.net"),
        ("a\rb\nc\n\nd", "a\nb\nc\n\nd", "a b c d"),
        ("a\0b\x1b$B\x0e\x7f\x85c", "ab$Bc", None),
        ("a\tb\u2028c", "a\tb\u2028c", "a b c"),
        ("日本", "日本", "日本"),
    ],
)
def test_controls_do_not_get_into_mail(value: str, in_text: str, in_header: str | None) -> None:
    assert filled("{{ x }}", {"x": value}) == in_text
    assert html.unescape(filled("{{ x }}", {"x": value}, "html")) == in_text
    if in_header is not None:
        assert filled("{{ x }}", {"x": value}, "header") == in_header
    assert filled("{{ '" + repr(value)[1:-1] + "' }}", {}) == in_text


@pytest.mark.parametrize("kind", ["text", "html", "header"])
def test_one_character_that_cannot_be_sent_is_enough(kind: Kind) -> None:
    controls = [*range(9), 0xB, 0xC, *range(0xE, 0x20), *range(0x7F, 0xA0), 0x2028, 0xD800, 0xDFFF]
    for hostile in map(chr, controls):
        left = filled("{{ x }}", {"x": f"日{hostile}本"}, kind)
        assert hostile not in left or (hostile == "\u2028" and kind != "header")


@given(st.text(st.characters()), st.sampled_from(["text", "html", "header"]))
def test_what_is_written_can_be_sent(value: str, kind: Kind) -> None:
    text = filled("{{ x }}{{ '\\ud800\\x00\\r' }}", {"x": value}, kind)
    text.encode()
    allowed = {"header": "", "text": "\n\t", "html": "\n\t"}[kind]
    assert not any((c < " " or "\x7f" <= c <= "\x9f") and c not in allowed for c in text)


def test_templates_are_independent_of_each_other() -> None:
    template = Template("{% set x = (x | default(0)) + 1 %}{{ x }}", "text", SYNTAX)
    values: dict[str, Any] = {"rows": [1]}
    assert [template.fill(rendering(values))[-1][2] for _ in range(3)] == ["1", "1", "1"]
    assert values == {"rows": [1]}
