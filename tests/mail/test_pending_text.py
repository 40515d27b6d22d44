"""Edits that are put together, and carried down to the octets once."""

from __future__ import annotations

import quopri
from base64 import b64decode
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.charset import Edit
from gateway.mail.encoded_text import EncodedText
from gateway.mail.message import Client, Message
from gateway.mail.pending_text import PendingText, compose, pending


def apply(text: str, edits: list[Edit]) -> str:
    """The text with edits in order."""
    pieces, done = [], 0
    for start, end, new in edits:
        pieces += [text[done:start], new]
        done = end
    return "".join([*pieces, text[done:]])


@st.composite
def edits_of(draw: st.DrawFn, text: str, letters: str = "xyzé\n=") -> list[Edit]:
    """Edits of a text that neither overlap nor touch."""
    found: list[Edit] = []
    done = -1
    for place in sorted(draw(st.sets(st.integers(0, len(text)), max_size=6))):
        end = min(place + draw(st.integers(0, 3)), len(text))
        new = draw(st.text(letters, max_size=4))
        if place > done and text[place:end] != new:
            found.append((place, end, new))
            done = end
    return found


@given(st.data(), st.text("abc=\n ", max_size=40))
def test_edits_that_are_put_together_do_the_same_as_one_after_the_other(
    data: st.DataObject, text: str
) -> None:
    first = data.draw(edits_of(text))
    between = apply(text, first)
    second = data.draw(edits_of(between))
    composed = compose(first, second)
    if composed is not None:
        assert apply(text, composed) == apply(between, second)
        for (_, end, _), (start, _, _) in pairwise(composed):
            assert end < start


def test_what_meets_an_earlier_edit_is_not_put_together() -> None:
    first = [(3, 5, "XYZ")]
    assert compose(first, [(4, 4, "!")]) is None
    assert compose(first, [(1, 4, "!")]) is None
    assert compose(first, [(6, 6, "!")]) is None
    # Replaced as a whole, it counts no more.
    assert compose(first, [(2, 7, "!")]) == [(2, 6, "!")]
    assert compose(first, [(8, 9, "!")]) == [(3, 5, "XYZ"), (7, 8, "!")]


@pytest.mark.parametrize("encoding", ["quoted-printable", "base64"])
@given(data=st.data(), text=st.text("abcé=-. \n", min_size=1, max_size=200))
def test_the_octets_are_those_of_all_edits(encoding: str, data: st.DataObject, text: str) -> None:
    text += "\n"
    octets = text.replace("\n", "\r\n").encode()
    content = EncodedText(b"", encoding, "utf-8").encoded_anew(octets, "utf-8").content
    current: EncodedText = EncodedText(content, encoding, "utf-8")
    for _ in range(3):
        edits = data.draw(edits_of(text))
        text = apply(text, edits)
        later = pending(current, edits) if edits else None
        if later is None:
            current = current.spliced(current.splices(edits)) if edits else current
        else:
            current = later
        assert current.text == text
    decode = b64decode if encoding == "base64" else quopri.decodestring
    assert decode(current.content).replace(b"\r\n", b"\n").decode() == text


@pytest.mark.parametrize(
    ("encoding", "name", "new"),
    [
        ("7bit", "utf-8", "x"),
        ("quoted-printable", "iso-2022-jp", "x"),
        ("quoted-printable", "us-ascii", "é"),
        ("quoted-printable", "iso-8859-1", "é"),
        ("quoted-printable", "utf-8", "\ud800"),
    ],
)
def test_what_may_change_more_than_octets_is_done_at_once(
    encoding: str, name: str, new: str
) -> None:
    assert pending(EncodedText(b"hello\r\n", encoding, name), [(0, 1, new)]) is None


BOUNDARIES = ["=_part", "part", "a=3Db", "--part"]


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_no_line_of_the_new_text_passes_for_a_boundary(boundary: str) -> None:
    content = (
        f'Content-Type: multipart/mixed; boundary="{boundary}"\r\n\r\n'
        f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n\r\nhello\r\n"
        f"--{boundary}--\r\n"
    )
    message = Message("ID1", "a@example.com", Client("127.0.0.1"))
    message.content = content.encode()
    (part,) = message.text_parts()
    part.replace([(0, 0, "one ")])
    part.replace([(0, 0, f"--{boundary}\n"), (9, 9, f"\n--{boundary}--\n")])
    again = Message("ID1", "a@example.com", Client("127.0.0.1"))
    again.content = message.content
    (found,) = again.text_parts()
    assert found.text == part.text
    assert f"--{boundary}\n" in found.text


def test_nothing_is_encoded_before_it_is_asked_for() -> None:
    text = EncodedText(b"hello =3D world\r\n", "quoted-printable", "utf-8")
    once = pending(text, [(0, 5, "bye")])
    assert isinstance(once, PendingText)
    twice = pending(once, [(6, 11, "moon")])
    assert isinstance(twice, PendingText)
    assert twice.base is text
    assert once._encoded is None
    assert twice.content == b"bye =3D moon\r\n"


@pytest.mark.parametrize("encoding", ["quoted-printable", "base64"])
@given(data=st.data(), text=st.text("abcé=-. \n", min_size=1, max_size=200))
def test_the_next_copy_is_edited_in_the_same_places_as_if_it_were_the_first(
    encoding: str, data: st.DataObject, text: str
) -> None:
    text += "\n"
    octets = text.replace("\n", "\r\n").encode()
    content = EncodedText(b"", encoding, "utf-8").encoded_anew(octets, "utf-8").content
    shared = EncodedText(content, encoding, "utf-8")
    edits = data.draw(edits_of(text))
    for _ in range(3):
        news = [data.draw(st.text("xyzé\n=", max_size=90)) for _ in edits]
        copy = [(start, end, new) for (start, end, _), new in zip(edits, news, strict=True)]
        alone = EncodedText(content, encoding, "utf-8")
        expected = alone.spliced(alone.splices(copy)) if copy else alone
        edited = shared.edited(copy) if copy else shared
        assert edited.content == expected.content
        assert edited.text == apply(text, copy)
        assert not edited.problem
