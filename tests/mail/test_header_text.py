"""`Headers.replace`: spans of a field's value replaced, everything else kept octet for octet."""

from __future__ import annotations

import base64
import email
import email.header
import email.policy
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gateway.mail import charset, jis
from gateway.mail.encoded_word import decode_value, stretches
from gateway.mail.headers import _RAW_VALUE, Headers, split
from gateway.mail.message import Client, Message

Spans = list[tuple[int, int, str]]

VARIANTS = {ord(old): new for old, new in jis.VARIANTS.items()}


def replaced(body: bytes, old: str, new: str, name: str = "Subject") -> bytes:
    """The body of a field after the one place of `old` in its value has become `new`."""
    headers = field(body, name)
    value = headers.fields(name)[0].value
    assert value.count(old) == 1
    start = value.index(old)
    headers.replace(name, [(start, start + len(old), new)])
    return body_of(headers, name)


def field(body: bytes, name: str = "Subject") -> Headers:
    return Headers(b"A: b\r\n%b:%b\r\nC: d\r\n" % (name.encode(), body))


def body_of(headers: Headers, name: str = "Subject") -> bytes:
    assert [field.name for field in headers] == ["A", name, "C"]
    raw = headers.fields(name)[0].raw
    assert raw.endswith(b"\r\n")
    return raw[len(name) + 1 : -2]


def applied(text: str, spans: Spans) -> str:
    pieces: list[str] = []
    done = 0
    for start, end, new in sorted(spans, key=lambda span: span[:2]):
        pieces += text[done:start], new
        done = end
    return "".join(pieces) + text[done:]


def word(text: str, name: str, encoding: str = "B") -> bytes:
    """An encoded word as other programs write it."""
    octets = charset.encode(text, name)
    if encoding in "Bb":
        payload = base64.b64encode(octets)
    else:
        payload = b"".join(
            b"_" if octet == 32 else bytes((octet,)) if chr(octet).isalnum() and octet < 128
            else b"=%02X" % octet
            for octet in octets
        )  # fmt: skip
    return b"=?%b?%b?%b?=" % (name.encode(), encoding.encode(), payload)


JIS = "iso-2022-jp"


@pytest.mark.parametrize(
    ("body", "old", "new", "wanted"),
    [
        (b" Hello {{x}}!", "{{x}}", "Bob", b" Hello Bob!"),
        (b"Hello {{x}}", "{{x}}", "Bob", b"Hello Bob"),
        (b" Hello {{x}}!", "{{x}}", "", b" Hello !"),
        (b" Hello {{x}}", " {{x}}", "", b" Hello"),
        (b" Hello {{x}}", "{{x}}", "", b" Hello"),
        (b" {{x}}", "{{x}}", "", b""),
        (b"\r\n {{x}}", "{{x}}", "", b""),
        (b" a\r\n {{x}}\r\n b", "{{x}}", "", b" a\r\n  b"),
        (b" a\r\n\t{{x}} b\r\n c", "{{x}}", "new", b" a\r\n\tnew b\r\n c"),
        (b" Hello {{x}}", "{{x}}", "a\tb", b" Hello a\tb"),
        # What is not ASCII is encoded, with all that it touches.
        (b" Hello {{x}}", "{{x}}", "太郎", b" Hello " + word("太郎", "utf-8", "b")),
        (b" Hello{{x}}!", "{{x}}", "太郎", b" " + word("Hello太郎!", "utf-8", "b")),
        (b" Hi {{x}}, you", "{{x}}", "é è", b" Hi " + word("é è,", "utf-8", "b") + b" you"),
        (b" {{x}} a", "{{x}}", "é x é",
         b" " + word("é", "utf-8", "b") + b" x " + word("é", "utf-8", "b") + b" a"),
        # What would be read as an encoded word is encoded.
        (b" a {{x}}", "{{x}}", "=?utf-8?q?x?=",
         b" a " + word("=?utf-8?q?x?=", "utf-8", "b")),
        (b" =?utf-8?q?a{{x}}", "{{x}}", "?=", b" " + word("=?utf-8?q?a?=", "utf-8", "b")),
        (b" =?utf-8?q?a b{{x}}", "{{x}}", "?=", b" =?utf-8?q?a " + word("b?=", "utf-8", "b")),
        (b" =?utf-8{{x}}?q?a?=", "{{x}}", "", b" " + word("=?utf-8?q?a?=", "utf-8", "b")),
        # A word stays in its charset and encoding.
        (b" " + word("{{x}}様", JIS), "{{x}}", "太郎", b" " + word("太郎様", JIS)),
        (b" =?ISO-2022-JP*ja?b?" + base64.b64encode(charset.encode("{{x}}様", JIS)) + b"?=",
         "{{x}}", "①", b" =?ISO-2022-JP*ja?b?GyRCLSFNTRsoQg==?="),
        (b" " + word("für {{x}}", "iso-8859-1", "Q"), "{{x}}", "Jörg",
         b" " + word("für Jörg", "iso-8859-1", "Q")),
        (b" " + word("für {{x}}", "iso-8859-1", "Q"), "für {{x}}", "to Bob",
         b" " + word("to Bob", "iso-8859-1", "Q")),
        # New text holds to what the charset's name says: no typographic quotes in ISO-8859-1.
        (b" " + word("für {{x}}", "iso-8859-1", "Q"), "{{x}}", "”",
         b" " + word("für ”", "utf-8", "Q")),
        (b" " + word("{{x}}様", JIS), "{{x}}", "😀", b" " + word("😀様", "utf-8")),
        # Neighbours stay, and so do folds.
        (b" " + word("あ", JIS) + b"\r\n " + word("い", JIS) + b"\r\n\t" + word("う", JIS),
         "い", "え",
         b" " + word("あ", JIS) + b"\r\n " + word("え", JIS) + b"\r\n\t" + word("う", JIS)),
        (b" " + word("あ", JIS) + b"\r\n " + word("い", JIS) + b" a", "い", "",
         b" " + word("あ", JIS) + b"\r\n a"),
        (b" a\r\n " + word("い", JIS) + b"\r\n b", "い", "", b" a\r\n  b"),
        # Between encoded words, white space that is seen is encoded too.
        (b" " + word("あ", JIS) + b" {{x}} " + word("い", JIS), "{{x}}", "え",
         b" " + word("あ", JIS) + b" " + word(" え ", JIS) + b"\r\n " + word("い", JIS)),
        (b" " + word("あ", JIS) + b" {{x}} " + word("い", JIS), " {{x}} ", " ",
         b" " + word("あ", JIS) + b" " + word(" ", JIS) + b"\r\n " + word("い", JIS)),
        (b" " + word("あ", JIS) + b" {{x}} " + word("い", JIS), " {{x}} ", "",
         b" " + word("あ", JIS) + b" " + word("い", JIS)),
        (b" " + word("あ", JIS) + b" {{x}} b", " {{x}}", "",
         b" " + word("あ", JIS) + b" b"),
        (b" " + word("あ", JIS) + b" {{x}}", " {{x}}", "b",
         b" " + word("あ", JIS) + b" " + word("b", JIS)),
        (b" " + word("あ", JIS) + b" {{x}}", "{{x}}", "b", b" " + word("あ", JIS) + b" b"),
        (b" " + word("あ", JIS) + b" {{x}}", "{{x}}", "é",
         b" " + word("あ", JIS) + b" " + word(" é", "utf-8")),
        # Characters that are cut across words: these are one.
        (b" =?utf-8?B?44E=?= =?utf-8?B?gmI=?= c", "b", "é", b" " + word("あé", "utf-8") + b" c"),
        # A word that does not shift back before the next one begins.
        (b" =?iso-2022-jp?Q?=1B$B$\"?= =?iso-2022-jp?Q?$$=1B(B?=", "い", "a",
         b" " + word("あa", JIS, "Q")),
        # The form of what is not encoded is kept.
        (" あ {{x}} é".encode(), "{{x}}", "太郎", " あ 太郎 é".encode()),
        (" あ {{x}} い".encode(JIS), "{{x}}", "太郎", " あ 太郎 い".encode(JIS)),
        (" あ{{x}} い".encode(JIS), "{{x}}", "①", b' \x1b$B$"-!\x1b(B \x1b$B$$\x1b(B'),
        (b" \xe9 {{x}} \xe9", "{{x}}", "ü", b" \xe9 \xfc \xe9"),
        (b" \xe9 {{x}} \xe9", "{{x}}", "太", b" \xe9 " + word("太", "utf-8", "b") + b" \xe9"),
        # New text at the border of a word does not touch it.
        (b" " + word("{{x}}", JIS) + b" a", " a", "様",
         b" " + word("{{x}}", JIS) + b" " + word("様", JIS)),
    ],
)  # fmt: skip
def test_replace(body: bytes, old: str, new: str, wanted: bytes) -> None:
    assert replaced(body, old, new) == wanted


def test_insertion_at_the_borders() -> None:
    encoded = word("お知らせ", JIS)
    headers = field(b" " + encoded)
    headers.replace("Subject", [(0, 0, "太郎様"), (4, 4, "!")])
    assert body_of(headers) == (
        b" " + word("太郎様", JIS) + b"\r\n " + encoded + b" " + word("!", JIS)
    )
    assert headers.get("Subject") == "太郎様お知らせ!"


@pytest.mark.parametrize("body", [b"", b" ", b"  "])
def test_insertion_into_nothing(body: bytes) -> None:
    for new, value in (("Hello you", b"Hello you"), ("é", word("é", "utf-8", "b"))):
        headers = field(body)
        headers.replace("Subject", [(0, 0, new)])
        assert body_of(headers).lstrip() == value
        assert body_of(headers).startswith(b" ")


def test_several_spans_in_any_order() -> None:
    headers = field(b" " + word("{{a}}様、{{b}}です", JIS) + b" for {{c}}")
    value = headers.fields("Subject")[0].value
    spans = [
        (value.index(name), value.index(name) + 5, new)
        for name, new in (("{{c}}", "Bob"), ("{{a}}", "太郎"), ("{{b}}", "花子"))
    ]
    headers.replace("Subject", spans)
    assert body_of(headers) == b" " + word("太郎様、花子です", JIS) + b" for Bob"


def test_spans_that_touch_are_one() -> None:
    headers = field(b" abcdef")
    headers.replace("Subject", [(2, 4, "X"), (0, 2, "1"), (2, 2, "Y")])
    assert body_of(headers) == b" 1YXef"


def test_lines_are_folded_where_they_grow() -> None:
    words = b" {{x}} " + b" ".join([b"word"] * 13)
    assert replaced(words, "{{x}}", "x" * 20) == (
        b" " + b"x" * 20 + b"\r\n " + b" ".join([b"word"] * 13)
    )
    assert replaced(b" a {{x}}", "{{x}}", "x" * 80) == b" a\r\n " + b"x" * 80
    assert replaced(b" {{x}} a", "{{x}}", "é" * 40) == (
        b" " + word("é" * 19, "utf-8", "b") + b"\r\n " + word("é" * 21, "utf-8", "b") + b" a"
    )


def test_a_line_that_came_too_long_is_not_folded() -> None:
    body = b" {{x}}" + b" word" * 40
    assert replaced(body, "{{x}}", "new text") == b" new text" + b" word" * 40
    folded = replaced(b" {{x}}" + b" word" * 195, "{{x}}", "y" * 50)
    assert folded == b" " + b"y" * 50 + b"\r\n" + b" word" * 195


def test_a_word_that_no_line_can_hold_is_encoded() -> None:
    body = replaced(b" a {{x}}", "{{x}}", "x" * 2000)
    assert decode_value(body) == "a " + "x" * 2000
    assert max(map(len, body.split(b"\r\n"))) <= 76
    body = replaced(b" a {{x}}", "{{x}}", " " * 2000 + "b")
    assert decode_value(body) == "a " + " " * 2000 + "b"
    assert max(map(len, body.split(b"\r\n"))) <= 76


def test_nothing_changes_where_nothing_is_replaced() -> None:
    for raw in (b"Subject:  a =?utf-8?q?b?=  \r\n\tc \r\n", b"Subject:\r\n"):
        headers = Headers(raw)
        value = headers.fields("Subject")[0].value
        headers.replace("Subject", [])
        headers.replace("Subject", [(0, len(value), value), (len(value), len(value), "")])
        assert headers.raw is raw


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ([(0, 2, "x"), (1, 3, "y")], "overlaps"),
        ([(-1, 0, "")], "overlaps"),
        ([(3, 2, "x")], "overlaps"),
        ([(0, 6, "x")], "overlaps"),
        ([(0, 1, "\r\nBcc: x")], "control"),
        ([(0, 1, "\n")], "control"),
        ([(0, 1, "\r")], "control"),
        ([(0, 1, "\0")], "control"),
        ([(0, 1, "\x1b")], "control"),
        ([(0, 1, "\x7f")], "control"),
        ([(0, 1, "\ud800")], "surrogates"),
    ],
)
@pytest.mark.parametrize("body", [b" hello", b" =?utf-8?q?hello?="])
def test_spans_that_are_refused(body: bytes, spans: Spans, reason: str) -> None:
    headers = field(body)
    with pytest.raises(ValueError, match=reason):
        headers.replace("Subject", spans)
    assert body_of(headers) == body


class Part(NamedTuple):
    """A piece of a generated field: its octets, what they mean, whether they are encoded words."""

    raw: bytes
    text: str
    encoded: bool


LETTERS = 'ab =?_<>"é日本①髙ｱ('
CHARSETS = ["utf-8", JIS, "shift_jis", "euc-jp", "iso-8859-1", "us-ascii", "gb2312"]
SPACES = st.sampled_from([b" ", b" ", b" ", b"\r\n ", b"\r\n\t", b"  ", b"\t", b" \r\n "])
NEW = (
    st.text(st.sampled_from(LETTERS + "😀〜\t,"), max_size=20)
    | st.text(st.sampled_from("abc "), max_size=12)
    | st.text(st.sampled_from("日本 a"), min_size=40, max_size=120)
    | st.sampled_from(["=?utf-8?q?x?=", "?=", "=?", "x" * 1000, " " * 100 + "x"])
)


def fits(text: str, name: str) -> bool:
    try:
        charset.encode(text, name, exact=True)
    except UnicodeEncodeError:
        return False
    return True


@st.composite
def encoded_words(draw: st.DrawFn) -> Part:
    name, encoding = draw(st.sampled_from(CHARSETS)), draw(st.sampled_from("BbQq"))
    text = draw(st.text(st.sampled_from(LETTERS), min_size=1, max_size=12))
    text = "".join(character for character in text if fits(character, name)) or "x"
    return Part(word(text, name, encoding), text, True)


def plain_words(form: str) -> st.SearchStrategy[Part]:
    letters = {"ascii": "abc", "utf-8": "aé日", JIS: "a日", "windows-1252": "é"}[form]
    words = st.text(st.sampled_from(letters), min_size=1, max_size=9) | st.sampled_from(
        ["x" * 70, "a,b", '"', "(c)", "?", "="]
    )
    return words.map(lambda text: Part(charset.encode(text, form), text, False))


@st.composite
def fields(draw: st.DrawFn) -> list[Part]:
    """The parts of a body: white space first, then words with white space between them."""
    form = draw(st.sampled_from(["ascii", "ascii", "utf-8", JIS, "windows-1252"]))
    words = draw(st.lists(encoded_words() | plain_words(form), max_size=6))
    parts = [Part(b" ", " ", False)]
    for index, one in enumerate(words):
        parts.append(one)
        if index + 1 < len(words):
            raw = draw(SPACES)
            unseen = one.encoded and words[index + 1].encoded
            parts.append(Part(raw, "" if unseen else raw.replace(b"\r\n", b"").decode(), False))
    return parts


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Part], Spans]:
    parts = draw(fields())
    length = len("".join(part.text for part in parts).strip())
    places = draw(st.lists(st.integers(0, length), max_size=6).map(sorted))
    spans = zip(places[::2], places[1::2], strict=False)
    return parts, [
        (start, end if draw(st.booleans()) else start, draw(NEW)) for start, end in spans
    ]


def kept(parts: list[Part], spans: Spans) -> tuple[list[bytes], bytes, bytes]:
    """What must keep its octets: encoded words, a beginning, and an end."""
    text = "".join(part.text for part in parts)
    lead = len(text) - len(text.lstrip())
    places = [(start + lead, end + lead) for start, end, _ in spans]
    words, position, touched = [], 0, []
    for index, part in enumerate(parts):
        end = position + len(part.text)
        inside = [
            (position < last and first < end) if first < last else position < first < end
            for first, last in places
        ]
        if part.encoded and not any(inside):
            words.append(part.raw)
        if any(position <= last and first <= end for first, last in places):
            touched.append(index)
        position = end
    if not touched:
        whole = b"".join(part.raw for part in parts)
        return words, whole, whole
    # The words beside what is touched may come to touch what is new; and lines may begin there.
    before = parts[: max(0, touched[0] - 2)]
    after = parts[touched[-1] + 3 :]
    return words, b"".join([part.raw for part in before]), b"".join([part.raw for part in after])


def lines_of(name: str, body: bytes) -> list[bytes]:
    return (name.encode() + b":" + body).split(b"\r\n")


@settings(max_examples=300, deadline=None)
@given(cases())
@example(([Part(b" ", " ", False), Part(b"=?us-ascii?B?eCw9?=", "x,=", True)], [(0, 1, "c ")]))
@example(([Part(b"", "", False), Part(word("あ", JIS, "Q") + b" a", "あ a", True)], [(2, 3, "")]))
def test_the_value_afterwards_is_the_old_one_with_the_spans_replaced(
    case: tuple[list[Part], Spans],
) -> None:
    parts, spans = case
    body = b"".join(part.raw for part in parts)
    text = "".join(part.text for part in parts).strip()
    headers = field(body)
    assert headers.fields("Subject")[0].value == text
    headers.replace("Subject", spans)
    new = body_of(headers)
    value = headers.fields("Subject")[0].value

    wanted = applied(text, spans).strip()
    assert value.translate(VARIANTS) == wanted.translate(VARIANTS)
    assert _RAW_VALUE.fullmatch(new)
    for found in re.findall(rb"=\?[^?]+\?[BbQq]\?[^?]*\?=", new):
        assert len(found) <= 75 or found in body
    for line in lines_of("Subject", new):
        shortest = re.split(rb"(?<=.)[ \t]", line)
        longest = 76 if b"?=" in line else 78
        assert len(line) <= longest or len(shortest) == 1 or line in lines_of("Subject", body) or (
            max(map(len, lines_of("Subject", body))) > longest or max(map(len, shortest)) > 60
        )  # fmt: skip
        assert len(line) <= 998

    words, before, after = kept(parts, spans)
    assert new.startswith(before)
    assert new.endswith(after)
    rest = new.replace(b"\r\n", b"")
    for one in words:
        assert one in rest
        rest = rest[rest.index(one) + len(one) :]


@settings(deadline=None)
@given(cases())
def test_replacing_back_gives_the_old_value(case: tuple[list[Part], Spans]) -> None:
    parts, spans = case
    headers = field(b"".join(part.raw for part in parts))
    before = headers.fields("Subject")[0].value
    headers.replace("Subject", spans)
    after = headers.fields("Subject")[0].value
    headers.replace("Subject", [(0, len(after), before)])
    assert headers.fields("Subject")[0].value.translate(VARIANTS) == before.translate(VARIANTS)


PYTHONS = ["utf-8", JIS, "shift_jis"]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.text(st.sampled_from("ab日本語"), min_size=1), st.sampled_from(PYTHONS)),
        min_size=1,
        max_size=4,
    ),
    st.data(),
)
def test_python_reads_the_same(words: list[tuple[str, str]], data: st.DataObject) -> None:
    body = b" " + b"\r\n ".join([word(text, name) for text, name in words])
    headers = field(body)
    value = headers.fields("Subject")[0].value
    start, end = sorted(data.draw(st.lists(st.integers(0, len(value)), min_size=2, max_size=2)))
    new = data.draw(st.text(st.sampled_from("xy本太郎é "), max_size=30))
    headers.replace("Subject", [(start, end, new)])
    read = email.header.make_header(email.header.decode_header(body_of(headers).decode("ascii")))
    # It puts spaces of its own between words that are encoded and words that are not.
    assert "".join(str(read).split()) == "".join((value[:start] + new + value[end:]).split())


TOKENS = [
    *(b" ", b"\t", b"\r\n ", b'"', b"<", b">", b",", b":", b";", b"(", b")", b"\\", b"@", b"["),
    *(b"a@b.c", b"foo", b"=?utf-8?B?44GC?=", b"=?iso-2022-jp?B?GyRCJCIbKEI=?=", b"=?utf-8?Q?a,b?="),
    *(b"=?", b"?=", b"\xff", b"\xe3\x81\x82", b'\x1b$B$"\x1b(B', b"\x1b$B", b"\x01", b"]"),
    *(b"=?utf-8?q?=22?=", b"=?utf-7?q?+2AA-?=", b"=?utf-16?b?//5CMA==?=", b"=?utf-8?q?=0D=0A?="),
    b"=?utf-8?q??=",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["Subject", "To"]),
    st.lists(st.sampled_from(TOKENS), max_size=14).map(b"".join),
    st.data(),
)
def test_whatever_the_field_holds(name: str, body: bytes, data: st.DataObject) -> None:
    assume(_RAW_VALUE.fullmatch(body))
    headers = field(body, name)
    value = headers.fields(name)[0].value
    ends = st.lists(st.integers(0, len(value)), min_size=2, max_size=2).map(sorted)
    start, end = data.draw(ends)
    spans = [(start, end, data.draw(NEW))]
    before = headers.raw
    try:
        headers.replace(name, spans)
    except ValueError:
        assert name == "To"
        assert headers.raw == before
        return
    new = body_of(headers, name)
    assert _RAW_VALUE.fullmatch(new)
    assert [one.name for one in Headers(split(headers.raw + b"\r\nbody")[0])] == ["A", name, "C"]
    if name == "Subject" and b"utf-7" not in body:
        wanted = applied(value, spans).strip()
        assert headers.fields(name)[0].value.translate(VARIANTS) == wanted.translate(VARIANTS)


@given(st.binary(max_size=80) | st.lists(st.sampled_from(TOKENS), max_size=9).map(b"".join))
def test_stretches_are_what_is_read(body: bytes) -> None:
    body = body.replace(b"\r\n", b"")
    for joint in (False, True):
        found = stretches(body, joint=joint)
        assert "".join([one.text for one in found]).strip() == decode_value(body)
        end = 0
        for one in found:
            assert end <= one.start < one.end
            assert not body[end : one.start].strip(b" \t")
            end = one.end


ADDRESS = "alice@shop.example"


@pytest.mark.parametrize(
    ("body", "old", "new", "wanted"),
    [
        (b" {{x}} <a@b.c>", "{{x}}", "Bob", b" Bob <a@b.c>"),
        (b" {{x}}<a@b.c>", "{{x}}", "Bob", b" Bob<a@b.c>"),
        (b" {{x}} <a@b.c>", "{{x}}", "", b"  <a@b.c>"),
        (b" {{x}} <a@b.c>", "{{x}}", "太郎", b" " + word("太郎", "utf-8", "b") + b" <a@b.c>"),
        (b" {{x}}<a@b.c>", "{{x}}", "太郎", b" " + word("太郎", "utf-8", "b") + b" <a@b.c>"),
        (b" {{x}} Lee <a@b.c>", "{{x}}", "太郎",
         b" " + word("太郎", "utf-8", "b") + b" Lee <a@b.c>"),
        # What could add a mailbox, or end the name, is quoted.
        (b" {{x}} <a@b.c>", "{{x}}", "Lee, Bob", b' "Lee, Bob" <a@b.c>'),
        (b" {{x}} <a@b.c>", "{{x}}", "<e@vil>,", b' "<e@vil>," <a@b.c>'),
        (b" {{x}} <a@b.c>", "{{x}}", "e@vil", b' "e@vil" <a@b.c>'),
        (b" {{x}} <a@b.c>", "{{x}}", "Bob (x", b' "Bob (x" <a@b.c>'),
        (b" {{x}} <a@b.c>", "{{x}}", 'a"b', b' "a\\"b" <a@b.c>'),
        (b" {{x}} <a@b.c>", "{{x}}", "Group:", b' "Group:" <a@b.c>'),
        (b" {{x}} <a@b.c>", "{{x}}", "=?utf-8?q?x?=",
         b" " + word("=?utf-8?q?x?=", "utf-8", "b") + b" <a@b.c>"),
        (b" Dr{{x}} Lee <a@b.c>", "{{x}}", ".", b' "Dr." Lee <a@b.c>'),
        # Quoted strings stay so as long as they can.
        (b' "{{x}} Lee" <a@b.c>', "{{x}}", "Bob", b' "Bob Lee" <a@b.c>'),
        (b' "{{x}} \\"B\\" Lee" <a@b.c>', "{{x}}", 'a"\\', b' "a\\"\\\\ \\"B\\" Lee" <a@b.c>'),
        (b' "{{x}}, \\"Lee\\"" <a@b.c>', "{{x}}", "太郎",
         b" " + word('太郎, "Lee"', "utf-8", "b") + b" <a@b.c>"),
        (b' "{{x}}" <a@b.c>', '"{{x}}"', "太郎", b" " + word("太郎", "utf-8", "b") + b" <a@b.c>"),
        (b' "{{x}}" <a@b.c>', '"{{x}}"', "Lee", b' "Lee" <a@b.c>'),
        (b' {{x}} "Le\\"e" <a@b.c>', '{{x}} "Le', "B", b' "B\\"e" <a@b.c>'),
        (b' "a \\"b" {{x}} <a@b.c>', 'b" {{x}}', "x y", b' "a \\"x y" <a@b.c>'),
        (b' "a {{x}} b" {{y}} "c d" <a@b.c>', '{{x}} b" {{y}} "c', "é",
         b" " + word("a é d", "utf-8", "b") + b" <a@b.c>"),
        (b' a "b" {{y}} <a@b.c>', '"b" {{y}}', "é",
         b" a " + word("é", "utf-8", "b") + b" <a@b.c>"),
        (b' "{{x}}" <a@b.c>', '"{{x}}"', "a,b", b' "a,b" <a@b.c>'),
        (b' "' + word("{{x}}", JIS) + b'" <a@b.c>', "{{x}}", "太郎",
         b" " + word("太郎", JIS) + b" <a@b.c>"),
        ('"あ {{x}}" <a@b.c>'.encode(), "{{x}}", "é,", '"あ é," <a@b.c>'.encode()),
        # Encoded words, and comments.
        (b" " + word("{{x}}様", JIS) + b" <a@b.c>, b@c", "{{x}}", "太郎,",
         b" " + word("太郎,様", JIS) + b" <a@b.c>, b@c"),
        (b" a@b.c (from {{x}})", "{{x}}", "Bob", b" a@b.c (from Bob)"),
        (b" a@b.c (from {{x}})", "{{x}}", "B) <e@vil>",
         b" a@b.c (from " + word("B)", "utf-8", "b") + b" <e@vil>)"),
        (b" a@b.c ({{x}})", "{{x}}", "太郎", b" a@b.c (" + word("太郎", "utf-8", "b") + b")"),
        (b" {{x}}: a@b.c, b@c;", "{{x}}", "a b", b" a b: a@b.c, b@c;"),
        (b" a <a@b>,\r\n {{x}} <c@d>,\r\n e <f@g>", "{{x}}", "x,y",
         b' a <a@b>,\r\n "x,y" <c@d>,\r\n e <f@g>'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["From", "to", "Reply-To"])
def test_names_and_comments(body: bytes, old: str, new: str, wanted: bytes, name: str) -> None:
    assert replaced(body, old, new, name) == wanted


@pytest.mark.parametrize(
    ("body", "start", "end"),
    [
        (b" Bob <a@b.c>", 5, 6),
        (b" Bob <a@b.c>", 4, 5),
        (b" Bob <a@b.c>", 3, 6),
        (b" Bob <a@b.c>", 11, 11),
        (b" Bob <a@b.c>", 10, 11),
        (b" Bob <{{x}}@b.c>", 5, 10),
        (b" a@b.c", 0, 0),
        (b" a@b.c", 2, 3),
        (b" a@b.c", 5, 5),
        (b" root", 0, 4),
        (b" Bob Lee bob@b.c", 0, 3),
        (b" Bob <a@b>, Lee <c@d>", 9, 10),
        (b" Bob <a@b>, Lee <c@d>", 0, 12),
        (b' "Bob <a@b>', 1, 4),
        (b" Bob <a@b", 0, 3),
        (b" Bob (x <a@b>", 0, 3),
        (b" Bob <a@b> <c@d>", 0, 3),
        (b' "x y"@b.c', 1, 2),
        (b" a@b (x)", 4, 5),
        (b"", 0, 0),
    ],
)
def test_addresses_and_what_is_between_them_stay(body: bytes, start: int, end: int) -> None:
    headers = field(body, "To")
    with pytest.raises(ValueError, match="change the field"):
        headers.replace("To", [(start, end, "new")])
    assert body_of(headers, "To") == body


@st.composite
def names(draw: st.DrawFn) -> tuple[bytes, str, str, int]:
    """A display name: its octets, its text in the value, what it says, and where that begins."""
    kind = draw(st.sampled_from(["words", "quoted", "encoded", "none"]))
    if kind == "words":
        text = " ".join(draw(st.lists(st.text("abcXY", min_size=1, max_size=8), min_size=1)))
        return text.encode(), text, text, 0
    if kind == "quoted":
        text = draw(st.text("ab ,.<>@;:()'", min_size=1, max_size=12)).strip() or "a"
        return f'"{text}"'.encode(), f'"{text}"', text, 1
    if kind == "encoded":
        text = draw(st.text('ab日本,<>"', min_size=1, max_size=12))
        return word(text, draw(st.sampled_from(["utf-8", JIS]))), text, text, 0
    return b"", "", "", 0


@settings(max_examples=200, deadline=None)
@given(st.lists(names(), min_size=1, max_size=3), st.data())
def test_names_change_and_mailboxes_do_not(
    found: list[tuple[bytes, str, str, int]], data: st.DataObject
) -> None:
    boxes, value, spans, wanted = [], "", [], []
    for raw, text, name, skipped in found:
        start = len(value) + skipped
        if raw and data.draw(st.booleans()):
            ends = st.lists(st.integers(0, len(name)), min_size=2, max_size=2).map(sorted)
            first, last = data.draw(ends)
            letters = data.draw(st.sampled_from(["abc ", "ab ,.<>@;:()\"\\'[]=?", '日本 a,<>"']))
            new = data.draw(st.text(letters, max_size=10))
            spans.append((start + first, start + last, new))
            name = name[:first] + new + name[last:]
        boxes.append(raw + b" <%b>" % ADDRESS.encode() if raw else ADDRESS.encode())
        value += (f"{text} <{ADDRESS}>" if raw else ADDRESS) + ", "
        wanted.append(("".join(name.split()), ADDRESS))
    headers = field(b" " + b",\r\n ".join(boxes), "To")
    assert headers.fields("To")[0].value == value[:-2]
    headers.replace("To", spans)
    raw = headers.fields("To")[0].raw
    parsed = email.message_from_bytes(raw + b"\r\n", policy=email.policy.default)
    # Python puts a space between encoded words of one name.
    assert [
        ("".join(one.display_name.split()), one.addr_spec) for one in parsed["To"].addresses
    ] == wanted
    for line in raw.split(b"\r\n"):
        longest = max(map(len, boxes)) + len("To: ,")
        assert len(line) <= (76 if b"=?" in line else 78) or longest > 76


def test_subjects_of_real_messages(mail_corpus: Path) -> None:
    replacements = 0
    for path in sorted(mail_corpus.rglob("*")):
        if not path.is_file() or path.suffix == ".md":
            continue
        content = re.sub(rb"(?<!\r)\n|\r(?!\n)", b"\r\n", path.read_bytes()).replace(b"\0", b"")
        message = Message("id", "alice@example.com", Client("192.0.2.1"))
        message.content = content
        for occurrence, old in enumerate(message.headers.fields("Subject")):
            value = old.value
            message.headers.replace("Subject", [(0, len(value), value)], occurrence)
            assert message.content is content
            for place in {0, len(value), *(one.start() for one in re.finditer(r"\b", value))}:
                for new in ("<new>", "太郎"):
                    headers = message.headers.copy()
                    headers.replace("Subject", [(place, place, new)], occurrence)
                    field = headers.fields("Subject")[occurrence]
                    assert field.value == (value[:place] + new + value[place:]).strip(), path
                    assert len(headers) == len(message.headers)
                    assert [one.raw for one in headers if one.lower != b"subject"] == [
                        one.raw for one in message.headers if one.lower != b"subject"
                    ]
                    before, after = stretches(old.body.replace(b"\r\n", b"")), field.body
                    words = [
                        old.body.replace(b"\r\n", b"")[one.start : one.end]
                        for one in before
                        if one.form is not None
                    ]
                    lost = [one for one in words if one not in after.replace(b"\r\n", b"")]
                    assert len(lost) <= 1, path
                    replacements += 1
    assert replacements > 2000


def test_a_fold_stays_before_the_word_that_white_space_is_taken_from() -> None:
    headers = field(b" a\r\n a aaaaa  =?utf-8?B?PA==?=\r\n b c d")
    headers.replace("Subject", [(10, 11, "")])
    assert body_of(headers) == b" a\r\n a aaaaa =?utf-8?B?PA==?=\r\n b c d"
