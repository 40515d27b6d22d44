"""What differs between two messages: exactly, in any octets, and readably."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Client, Message
from gateway.testing.changes import Changes, changes

MIXED = (
    b"From: a@example.com\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/alternative; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n"
    b"--b\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>\r\n"
    b"--b--\r\n"
)
PLAIN = b"From: a@example.com\r\nSubject: Hello\r\n\r\nHello\r\n"


def message(content: bytes, *recipients: str) -> Message:
    new = Message("ID1", "a@example.com", Client("127.0.0.1"))
    for recipient in recipients:
        new.add_recipient(recipient)
    new.content = content
    return new


def edited(content: bytes, index: int, add: str) -> bytes:
    """The message with something added to a text part by the gateway's own editor."""
    new = message(content)
    part = new.text_parts()[index]
    part.text += add
    return new.content


def test_equal_messages_have_no_changes() -> None:
    found = changes(MIXED, MIXED)
    assert not found
    assert found.what == frozenset()
    assert found.spans == ()
    assert str(found) == "nothing changed"
    found.only()


def test_fields_that_are_added_removed_and_changed() -> None:
    after = (
        b"X-Top: 1\r\nFrom: a@example.com\r\nMIME-Version: 1.1\r\n"
        b"Content-Type: multipart/alternative; boundary=b\r\nX-End: 2\r\n\r\n"
    ) + MIXED.partition(b"\r\n\r\n")[2]
    found = changes(MIXED, after)
    assert [(one.kind, one.name) for one in found.fields] == [
        ("added", "X-Top"),
        ("removed", "Subject"),
        ("changed", "MIME-Version"),
        ("added", "X-End"),
    ]
    assert found.what == {"header:X-Top", "header:Subject", "header:MIME-Version", "header:X-End"}
    assert found.fields[1].before == b"Subject: Hello\r\n"
    assert found.fields[2].after == b"MIME-Version: 1.1\r\n"
    assert not found.texts
    assert not found.others
    assert str(found) == (
        "header field X-Top added:\n"
        "+ X-Top: 1\n"
        "header field Subject removed:\n"
        "- Subject: Hello\n"
        "header field MIME-Version changed:\n"
        "- MIME-Version: 1.0\n"
        "+ MIME-Version: 1.1\n"
        "header field X-End added:\n"
        "+ X-End: 2"
    )


def test_of_fields_with_one_name_the_new_one_is_found() -> None:
    before = b"Received: a\r\nReceived: b\r\nReceived: c\r\n\r\n"
    for place in range(4):
        fields = before[:-2].splitlines(keepends=True)
        fields.insert(place, b"Received: new\r\n")
        (change,) = changes(before, b"".join(fields) + b"\r\n").fields
        assert (change.kind, change.after) == ("added", b"Received: new\r\n")
        (change,) = changes(b"".join(fields) + b"\r\n", before).fields
        assert (change.kind, change.before) == ("removed", b"Received: new\r\n")


def test_a_field_that_moved_is_named_alone() -> None:
    before = b"A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n"
    (change,) = changes(before, b"D: 4\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n").fields
    assert (change.kind, change.name) == ("moved", "D")
    assert str(change) == "header field D moved: 18:24 -> 0:6"


def test_a_span_is_as_short_as_can_be() -> None:
    (span,) = changes(PLAIN, PLAIN.replace(b"Subject: Hello", b"Subject: Hi")).spans
    assert PLAIN[span.start : span.end] == b"ello"
    assert (span.new_start, span.new_end) == (span.start, span.start + 1)


def test_text_parts_are_found_by_their_index_and_type() -> None:
    after = edited(MIXED, 1, "<p>Bye</p>\n")
    found = changes(MIXED, after)
    (text,) = found.texts
    assert (text.index, text.content_type) == (1, "text/html")
    assert text.before == "<p>Hello</p>"
    assert text.after == "<p>Hello</p><p>Bye</p>\n"
    assert found.what == {"text/html"}
    assert not found.fields
    assert not found.others
    found.only("text/html")
    found.only("parts")
    found.only("body")
    with pytest.raises(AssertionError) as failure:
        found.only("text/plain", "header:*")
    assert str(failure.value) == (
        "only text/plain, header:* may change, but so did text/html:\n"
        "text/html, text part 1, changed:\n"
        "- <p>Hello</p>\n"
        "+ <p>Hello</p><p>Bye</p>\n"
        "+ "
    )


def test_fields_that_describe_the_one_text_may_change_with_it() -> None:
    after = edited(PLAIN, 0, "日本\n")
    found = changes(PLAIN, after)
    assert {one.name: one.describes for one in found.fields} == {
        "MIME-Version": "text/plain",
        "Content-Type": "text/plain",
        "Content-Transfer-Encoding": "text/plain",
    }
    assert found.what == {"text/plain"}
    found.only("text/plain")
    with pytest.raises(AssertionError, match="so did text/plain"):
        found.only("text/html")
    with pytest.raises(AssertionError, match="so did text/plain"):
        found.only("header:*")


def test_fields_that_describe_a_text_do_not_change_without_it() -> None:
    found = changes(PLAIN, PLAIN.replace(b"\r\n\r\n", b"\r\nMIME-Version: 1.0\r\n\r\n"))
    assert found.what == {"header:MIME-Version"}


def test_the_same_text_in_other_octets_is_a_change() -> None:
    head = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    found = changes(head + b"=41b\r\n", head + b"Ab\r\n")
    (text,) = found.texts
    assert text.before == text.after == "Ab\n"
    assert str(text) == (
        "text/plain, text part 0, changed: the same text in other octets:\n- =41b\n+ Ab"
    )


def test_another_header_of_a_part_belongs_to_the_part() -> None:
    found = changes(MIXED, MIXED.replace(b"text/plain\r\n", b"text/plain; charset=utf-8\r\n"))
    assert found.what == {"text/plain"}
    assert "the same octets under another header" in str(found)


@pytest.mark.parametrize(
    "after",
    [
        MIXED.replace(b"--b--\r\n", b"--b--\r\nepilogue\r\n"),
        MIXED.replace(b"--b\r\n", b"preamble\r\n--b\r\n", 1),
        MIXED.replace(b"--b\r\nContent-Type: text/html", b"--b \r\nContent-Type: text/html"),
        MIXED.replace(b"text/html", b"text/enriched"),
        MIXED.replace(b"--b--", b"--b\r\nContent-Type: text/plain\r\n\r\nmore\r\n--b--"),
    ],
)
def test_what_is_no_text_part_is_the_body(after: bytes) -> None:
    found = changes(MIXED, after)
    assert found.what == {"body"}
    found.only("body")
    with pytest.raises(AssertionError, match="so did body"):
        found.only("parts", "header:*", "text/plain", "text/html")
    assert "other octets changed, " in str(found)


def test_an_attachment_is_the_body_too() -> None:
    file = MIXED.replace(b"text/html", b"text/csv; name=a.csv")
    assert changes(file, file.replace(b"<p>", b"<b>")).what == {"body"}


def test_the_envelope_is_compared_if_there_is_one() -> None:
    before = message(PLAIN, "b@example.net", "c@example.net")
    after = before.copy()
    assert not changes(before, after)
    after.sender = "x@example.com"
    after.stream = "bulk"
    after.recipients[1].address = "d@example.net"
    found = changes(before, after)
    assert found.what == {"sender", "recipients", "stream"}
    found.only("sender", "recipients", "stream")
    with pytest.raises(AssertionError) as failure:
        found.only("sender", "stream", "body", "header:*")
    assert str(failure.value).endswith(
        "but so did recipients:\nrecipients changed:\n  b@example.net\n"
        "- c@example.net\n+ d@example.net"
    )


def test_only_without_words_allows_nothing() -> None:
    with pytest.raises(AssertionError, match=r"^nothing may change, but so did header:Subject:\n"):
        changes(PLAIN, PLAIN.replace(b"Subject: Hello", b"Subject: Hi")).only()


def test_names_of_fields_match_in_any_case_and_all_at_once() -> None:
    found = changes(PLAIN, PLAIN.replace(b"Subject: Hello", b"Subject: Hi"))
    found.only("header:SUBJECT")
    found.only("header:*")
    assert found.beyond("header:From") == found
    assert not found.beyond("header:subject")


@pytest.mark.parametrize(
    "word", ["Subject", "headers:Subject", "header:", "text", "", "attachment"]
)
def test_a_word_that_does_not_exist_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="is no part of a message; there are sender, "):
        changes(PLAIN, PLAIN).only(word)


def test_what_cannot_be_seen_is_shown() -> None:
    found = changes(PLAIN, PLAIN.replace(b"Hello\r\n\r\n", b"Hell\xf6\t\r\n\r\n"))
    assert str(found) == (
        "header field Subject changed:\n- Subject: Hello\n+ Subject: Hell\\xf6\\t"
    )


def test_a_long_difference_is_cut() -> None:
    found = changes(PLAIN, PLAIN + b"line\r\n" * 5000 + b"x" * 900)
    lines = str(found).splitlines()
    assert len(lines) == 42
    assert lines[-1] == "  ... 4963 lines more"
    assert all(len(line) < 250 for line in lines)


def test_large_messages_are_compared() -> None:
    body = b"".join(b"line %d of many\r\n" % number for number in range(200_000))
    found = changes(PLAIN + body, PLAIN + body.replace(b"7", b"seven"))
    assert found.what == {"text/plain"}
    assert unchanged_parts(found)


def unchanged_parts(found: Changes) -> bool:
    """Whether everything outside of the spans is the same in both messages."""
    end = new_end = 0
    for span in found.spans:
        assert end <= span.start <= span.end
        assert new_end <= span.new_start <= span.new_end
        assert found.before[end : span.start] == found.after[new_end : span.new_start]
        assert found.before[span.start : span.end] != found.after[span.new_start : span.new_end]
        end, new_end = span.end, span.new_end
    return found.before[end:] == found.after[new_end:]


PIECES = st.lists(
    st.sampled_from(
        [
            *(b"A: 1\r\n", b"a: 1\r\n", b"B: 2\r\n", b"B: 3\r\n folded\r\n", b"\r\n", b"text\r\n"),
            *(
                b"Content-Type: multipart/mixed; boundary=b\r\n",
                b"--b\r\n",
                b"--b--\r\n",
                b"\0\xff",
            ),
            *(b"Content-Type: text/html; charset=iso-2022-jp\r\n", b"\x1b$B", b"\r", b"\n", b" x"),
            *(b"Content-Transfer-Encoding: base64\r\n", b"SGVsbG8=\r\n", b"Content-Type: x\r\n"),
        ]
    ),
    max_size=14,
).map(b"".join)


@given(PIECES | st.binary(max_size=60), PIECES | st.binary(max_size=60))
def test_outside_of_the_spans_nothing_differs(before: bytes, after: bytes) -> None:
    found = changes(before, after)
    assert bool(found) == (before != after)
    assert unchanged_parts(found)
    assert str(found)
    assert repr(found)
    found.only("header:*", "body")


def test_real_messages_and_an_edit_of_each(mail_corpus: Path) -> None:
    paths = sorted(path for path in mail_corpus.rglob("*.eml"))[:400]
    assert paths
    for path in paths:
        content = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"")
        content = content.replace(b"\0", b"").replace(b"\n", b"\r\n")
        before = message(content)
        after = before.copy()
        after.headers.prepend("X-Test", "1")
        allowed = {"header:X-Test"}
        for part in after.text_parts():
            if part.editable:
                part.text += "\nFooter"
                allowed.add(part.content_type)
        found = changes(before, after)
        found.only(*allowed)
        assert found.what == allowed, path
        assert unchanged_parts(found)
