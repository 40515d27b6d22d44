from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.headers import split
from gateway.mail.message import Client, Message, MessageSealedError, Recipient, TextPartError

CONTENT = (
    b"From: alice@example.com\r\nSubject: one\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\n\r\nfirst\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>second</p>\r\n--b\r\n"
    b"Content-Disposition: attachment\r\n\r\nfile\r\n--b\r\nContent-Type: text/csv\r\n\r\nx\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nembedded\r\n--b\r\n"
    b"Content-Type: text/plain; name=a.txt\r\n\r\nfile\r\n--b--\r\n"
)
LINES = st.lists(
    st.sampled_from(
        [b"", b" ", b"A: b", b" c", b"d", b"--b", b"Content-Type: multipart/x; boundary=b"]
    )
).map(lambda lines: b"\r\n".join(lines) + b"\r\n")


def message(content: bytes = CONTENT) -> Message:
    made = Message("id", "alice@example.com", Client("192.0.2.1", helo="client.example"))
    made.content = content
    made.add_recipient("bob@example.net", frozenset({"NEVER"}), "rfc822;bob@example.net")
    made.add_recipient("carol@EXAMPLE.org", notes={"key": "value"})
    return made


def everything(made: Message) -> tuple[object, ...]:
    """All that a plugin may change."""
    return (
        made.content,
        made.headers.raw,
        made.body,
        made.sender,
        made.stream,
        dict(made.notes),
        [(id(one), one.address, dict(one.notes)) for one in made.recipients],
        [(part.text, part.charset, part.changed) for part in made.text_parts()],
    )


def test_new_message_is_empty() -> None:
    made = Message("id", "", Client("192.0.2.1"), "bulk")
    assert (made.sender, made.stream, made.recipients, made.notes) == ("", "bulk", [], {})
    assert (made.smtputf8, made.ret, made.envid) == (False, None, None)
    assert made.body == b""
    assert made.content == b"\r\n"
    made.headers.add("Subject", "x")
    made.body = b"hello\r\n"
    assert made.content == b"Subject: x\r\n\r\nhello\r\n"


def test_content_that_nobody_changes_is_the_same_object() -> None:
    made = message()
    assert made.content is CONTENT
    assert made.headers.get("subject") == "one"
    assert made.body == split(CONTENT)[2]
    assert made.text_parts()[0].text
    assert made.content is CONTENT


@given(LINES)
def test_content_comes_back(content: bytes) -> None:
    made = message(content)
    made.text_parts()
    copy = made.copy()
    copy.text_parts()
    assert made.content == copy.content == content
    assert made.headers.raw + content[len(made.headers.raw) :] == content
    assert content.endswith(made.body)


@given(LINES)
def test_a_field_on_top_changes_nothing_below_it(content: bytes) -> None:
    made = message(content)
    body = made.body
    made.headers.prepend("X-Top", "1")
    again = message(made.content)
    assert again.body == body
    assert again.headers.raw == made.headers.raw == b"X-Top: 1\r\n" + split(content)[0]
    assert made.content.endswith(content)


def test_corpus_comes_back(mail_corpus: Path) -> None:
    count = 0
    for path in sorted(mail_corpus.rglob("*")):
        if not path.is_file() or path.suffix == ".md":
            continue
        content = re.sub(rb"(?<!\r)\n", b"\r\n", path.read_bytes())
        made = Message("id", "", Client("192.0.2.1"))
        made.receive(content)
        made.text_parts()
        list(made.headers)
        copy = made.copy()
        assert made.headers.raw + made._separator + made.body == content
        assert made.content is content
        assert copy.content == content
        count += 1
    assert count > 300


@pytest.mark.parametrize("octets", [b"a\nb\r\n", b"a\rb\r\n", b"\n", b"a\r", b"a\0\r\n"])
def test_octets_that_smtp_cannot_carry_are_refused(octets: bytes) -> None:
    made = message()
    with pytest.raises(ValueError):
        made.content = b"Subject: x\r\n\r\n" + octets
    with pytest.raises(ValueError):
        made.body = octets
    assert made.content is CONTENT


def test_header_and_body_changes_show_in_the_content() -> None:
    made = message()
    made.headers.change("Subject", "two")
    assert made.content == CONTENT.replace(b"one", b"two")
    made.body = b"new\r\n"
    assert made.content == split(CONTENT)[0].replace(b"one", b"two") + b"\r\nnew\r\n"
    made.content = CONTENT
    assert made.content is CONTENT


def test_text_parts() -> None:
    made = message()
    assert [part.text for part in made.text_parts()] == ["first", "<p>second</p>"]
    assert [part.text for part in made.text_parts("text/html")] == ["<p>second</p>"]
    assert [part.text for part in made.text_parts("TEXT/csv")] == ["x"]
    assert made.text_parts("image/png") == []
    plain, html = made.text_parts()
    plain.text += " line"
    html.text = html.text.replace("second", "2")
    changed = CONTENT.replace(b"first", b"first line").replace(b"second", b"2")
    assert made.content == changed
    assert made.body == split(changed)[2]
    assert made.text_parts() == [plain, html]
    assert plain.changed


def test_parts_of_a_replaced_body_say_so() -> None:
    made = message()
    part = made.text_parts()[0]
    made.body = b"new\r\n"
    with pytest.raises(TextPartError, match="replaced"):
        part.text = "lost"
    assert made.body == b"new\r\n"


def test_body_that_is_described_anew_is_scanned_anew() -> None:
    made = message(CONTENT.replace(b"multipart/mixed", b"text/plain"))
    (whole,) = made.text_parts()
    whole.text = whole.text.replace("first", "FIRST")
    made.headers.change("Content-Type", "multipart/mixed; boundary=b")
    assert [part.text for part in made.text_parts()] == ["FIRST", "<p>second</p>"]
    with pytest.raises(TextPartError):
        whole.text = "lost"
    assert made.content == CONTENT.replace(b"first", b"FIRST")
    part = made.text_parts()[0]
    made.headers.prepend("X-Other", "1")
    assert made.text_parts()[0] is part


def test_text_cannot_become_a_header_or_a_delimiter() -> None:
    made = message(b"Subject: x\r\nno field\r\n")
    with pytest.raises(TextPartError, match="blank line"):
        made.text_parts()[0].text = "Bcc: evil@example.com\n"
    made = message()
    made.text_parts()[0].text = "Bcc: x\n--b\nContent-Type: text/html\n\nforged\n--b--\n"
    parts = message(made.content).text_parts()
    assert [part.text for part in parts] == [
        "Bcc: x\n--b\nContent-Type: text/html\n\nforged\n--b--\n",
        "<p>second</p>",
    ]
    made = message(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n--b--\r\n")
    made.text_parts()[0].text = "Bcc: x"
    assert [part.text for part in message(made.content).text_parts()] == ["Bcc: x"]


def test_body_beginning_with_white_space_does_not_go_on_with_a_new_field() -> None:
    made = message(b" indented\r\n")
    assert made.content == b" indented\r\n"
    made.headers.prepend("X-Top", "1")
    assert made.content == b"X-Top: 1\r\n\r\n indented\r\n"


def test_recipients() -> None:
    made = message()
    bob, carol = made.recipients
    assert (bob.domain, carol.domain) == ("example.net", "example.org")
    assert bob.message is made
    made.remove_recipient(bob)
    assert made.recipients == [carol]
    with pytest.raises(ValueError):
        made.remove_recipient(bob)
    with pytest.raises(ValueError, match="control"):
        made.add_recipient("dave@example.com>\r\nRCPT TO:<eve@example.com")
    with pytest.raises(ValueError, match="control"):
        made.sender = "a@example.com\r\n"
    assert Recipient("x@example.com") != Recipient("x@example.com")


def test_copies_are_independent() -> None:
    made = message()
    made.notes["a"] = "1"
    made.envid, made.ret, made.smtputf8 = "e", "FULL", True
    made.text_parts()[0].text = "edited"
    copy = made.copy()
    before, copied = everything(made), copy.content
    assert copied == made.content
    assert (copy.id, copy.envid, copy.ret, copy.smtputf8) == ("id", "e", "FULL", True)
    assert copy.client is made.client
    assert [one.message for one in copy.recipients] == [copy, copy]
    copy.text_parts()[0].text = "in the copy"
    copy.text_parts()[1].text = "é"
    copy.headers.change("Subject", "copy")
    copy.notes["b"] = "2"
    copy.recipients[1].notes["key"] = "other"
    copy.sender, copy.stream = "x@example.com", "bulk"
    copy.remove_recipient(copy.recipients[0])
    assert everything(made) == before
    made.text_parts()[1].text = "in the original"
    made.headers.delete("Subject")
    assert b"in the copy" in copy.content
    assert b"in the original" not in copy.content
    assert copy.headers.get("Subject") == "copy"


def test_copy_for_some_recipients_shares_the_body() -> None:
    made = message()
    one, two = made.copy(made.recipients[:1]), made.copy(made.recipients[1:])
    assert [one.address for one in two.recipients] == ["carol@EXAMPLE.org"]
    assert one.recipients[0].notify == frozenset({"NEVER"})
    assert one.recipients[0].orcpt == "rfc822;bob@example.net"
    one.text_parts()
    assert one._body._shared[0] is two._body._shared[0]
    made.text_parts()[0].text = "edited"
    three, four = made.copy(), made.copy()
    assert three.body is four.body


def describe_anew(made: Message) -> None:
    made.headers.change("Content-Type", "text/plain")
    made.text_parts()[0].text = "é\n"


CHANGES: dict[str, Callable[[Message], object]] = {
    "add": lambda made: made.headers.add("X", "1"),
    "change": lambda made: made.headers.change("Subject", "two"),
    "delete": lambda made: made.headers.delete("Subject"),
    "content": lambda made: setattr(made, "content", b"X: y\r\n\r\nz\r\n"),
    "body": lambda made: setattr(made, "body", b"x\r\n"),
    "text": lambda made: setattr(made.text_parts()[0], "text", "x"),
    "charset": lambda made: setattr(made.text_parts()[1], "text", "é" * 9),
    "describe": describe_anew,
    "sender": lambda made: setattr(made, "sender", "x@example.com"),
    "stream": lambda made: setattr(made, "stream", "bulk"),
    "add recipient": lambda made: made.add_recipient("dave@example.com"),
    "remove recipient": lambda made: made.remove_recipient(made.recipients[0]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_sealed_message_refuses_every_change_but_fields_on_top(
    change: Callable[[Message], object],
) -> None:
    for made in (message(), message().copy()):
        made.text_parts()
        made.seal()
        sealed_copy = made.copy()
        for one in (made, sealed_copy):
            before = one.content
            with pytest.raises(MessageSealedError):
                change(one)
            assert one.content == before
            one.headers.prepend("X-Top", "1")
            assert one.content == b"X-Top: 1\r\n" + before


@given(
    st.lists(st.sampled_from(sorted(CHANGES)), max_size=4),
    st.lists(st.sampled_from(sorted(CHANGES))),
)
def test_restore_undoes_everything(before: list[str], after: list[str]) -> None:
    def apply(made: Message, names: list[str]) -> None:
        for name in names:
            try:
                CHANGES[name](made)
            except (IndexError, ValueError):
                pass  # there is no second part or no recipient any more

    made = message()
    apply(made, before)
    held = made.text_parts() if len(before) % 2 else []
    state, checkpoint = everything(made), made.checkpoint()
    apply(made, after)
    made.notes["x"] = "y"
    for recipient in made.recipients:
        recipient.notes["x"] = recipient.address = "changed@example.com"
    made.restore(checkpoint)
    assert everything(made) == state
    if held:
        assert made.text_parts() == held
    apply(made, after)
    made.restore(checkpoint)
    assert everything(made) == state


def test_restore_works_on_a_sealed_message() -> None:
    made = message()
    made.seal()
    checkpoint = made.checkpoint()
    made.headers.prepend("DKIM-Signature", b"v=1")
    made.restore(checkpoint)
    assert made.content == CONTENT
