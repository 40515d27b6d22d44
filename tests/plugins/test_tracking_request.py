from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.tracking import request
from plugins.tracking.request import DisconnectedError, Request, RequestError


def made(
    path: str = "/c/x",
    root_path: str | None = "",
    query: bytes = b"",
    headers: list[tuple[bytes, bytes]] | None = None,
    client: tuple[str, int] | None = ("192.0.2.7", 1),
) -> Request:
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query,
        "headers": headers or [],
        "client": client,
    }
    if root_path is not None:
        scope["root_path"] = root_path
    return Request.of(scope)


@pytest.mark.parametrize(
    ("path", "root_path", "rest"),
    [
        ("/c/x", "", "/c/x"),
        ("/c/x", None, "/c/x"),
        ("/tracking/c/x", "/tracking", "/c/x"),
        ("/a/tracking/c/x", "/a/tracking", "/c/x"),
        # A server that cuts the path itself.
        ("/c/x", "/tracking", "/c/x"),
        ("/tracking", "/tracking", ""),
        ("/tracking/", "/tracking", "/"),
        ("/trackings/c/x", "/tracking", "/trackings/c/x"),
        ("/c/c/x", "/c", "/c/x"),
    ],
)
def test_the_path_below_the_mount(path: str, root_path: str | None, rest: str) -> None:
    assert made(path, root_path).path == rest


def test_of_fields_with_one_name_the_first_counts() -> None:
    one = made(headers=[(b"user-agent", b"first"), (b"user-agent", b"second")])
    assert one.user_agent == "first"
    assert made(query=b"a=1&a=2&b=").query() == {"a": "1", "b": ""}


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"plain/1.0 (x)", "plain/1.0 (x)"),
        (b"a\tb\x1b[31mc\x00d\x7fe\x85f", "ab[31mcdef"),
        (b"x" * 10_000, "x" * 300),
        ("日本".encode(), "".join(c for c in "日本".encode().decode("latin-1") if c.isprintable())),
        (b"", ""),
    ],
)
def test_a_user_agent_is_short_and_has_no_control_characters(sent: bytes, kept: str) -> None:
    assert made(headers=[(b"user-agent", sent)]).user_agent == kept


def test_purposes() -> None:
    assert made().purpose == ""
    assert made(headers=[(b"x-moz", b"prefetch"), (b"purpose", b"a")]).purpose == "a prefetch"


def test_the_address_of_a_client_that_has_none() -> None:
    assert made(client=None).address == ""
    assert made().address == "192.0.2.7"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"click=abc", "abc"),
        (b"a=1; click=abc; b=2", "abc"),
        (b'click="abc"', "abc"),
        (b"clicks=no;click=abc;click=def", "abc"),
        (b"xclick=no", ""),
        (b"click", ""),
        (b";;;=;", ""),
        (b"\xff\x00=\xfe", ""),
        (b"", ""),
    ],
)
def test_a_cookie(field: bytes, value: str) -> None:
    assert made(headers=[(b"cookie", field)]).cookie("click") == value


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (b"a=" + b"x" * 9000, 414),
        (b"&".join([b"a=1"] * 200), 400),
        (b"a=%ff", 400),
        (b"a=\xff", 400),
    ],
)
def test_a_query_that_cannot_be_read_is_refused(query: bytes, status: int) -> None:
    with pytest.raises(RequestError) as caught:
        made(query=query).query()
    assert caught.value.status == status


MULTIPART = (
    b"--XyZ\r\n"
    b'Content-Disposition: form-data; name="List-Unsubscribe"\r\n\r\n'
    b"One-Click\r\n"
    b"--XyZ\r\n"
    b'content-disposition: form-data; filename="name"; NAME="b"\r\nContent-Type: text/plain\r\n\r\n'
    b"two\r\nlines\r\n"
    b"--XyZ--\r\n"
)


def fields(content_type: bytes | None, body: bytes) -> dict[str, str]:
    headers = [] if content_type is None else [(b"content-type", content_type)]
    return made(headers=headers).fields(body)


@pytest.mark.parametrize("parameter", [b"boundary=XyZ", b'boundary="XyZ"', b"x=1; Boundary=XyZ"])
def test_multipart_form_data(parameter: bytes) -> None:
    assert fields(b"multipart/form-data; " + parameter, MULTIPART) == {
        "List-Unsubscribe": "One-Click",
        "b": "two\r\nlines",
    }


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        (b"multipart/form-data", MULTIPART, 400),
        (b"multipart/form-data; boundary=", MULTIPART, 400),
        (b"multipart/form-data; boundary=x", b"\r\n--x".join([b"a"] * 99), 400),
        (
            b"multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\na\r\n--x--',
            400,
        ),
        (b"application/json", b"{", 400),
        (b"application/json", b"[" * 16_000, 400),
        (b"application/json", b'{"a": NaN}', 400),
        (b"application/json", b'{"a": -Infinity}', 400),
        (b"application/json", b"\xff", 400),
        (b"application/json", b"[]", 400),
        (b"application/json", b'"text"', 400),
        (b"application/json", b'{"a": {"b": 1}}', 400),
        (b"application/json", b'{"a": true}', 400),
        (None, b"a=%ff", 400),
        (b"text/plain", b"&".join([b"a"] * 99), 400),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    content_type: bytes | None, body: bytes, status: int
) -> None:
    with pytest.raises(RequestError) as caught:
        fields(content_type, body)
    assert caught.value.status == status
    assert str(caught.value).isprintable()


def test_numbers_in_json_keep_their_digits() -> None:
    body = b'{"value": 12.50, "big": 10000000000000000000000001, "n": null, "t": "x"}'
    assert fields(b"application/json; charset=utf-8", body) == {
        "value": "12.50",
        "big": "10000000000000000000000001",
        "t": "x",
    }
    assert fields(b"application/json", b'{"a": 1e3, "b": 1e999999999, "c": 0e-99999}') == {
        "a": "1000",
        "b": "too large",
        "c": "too large",
    }


@pytest.mark.parametrize(
    "content_type", [None, b"", b"text/plain", b"\xff\xfe;;", b"APPLICATION/X"]
)
def test_what_is_not_said_to_be_something_else_is_a_form(content_type: bytes | None) -> None:
    assert fields(content_type, b"List-Unsubscribe=One-Click") == {"List-Unsubscribe": "One-Click"}


@given(
    st.sampled_from([b"", b"application/json", b"multipart/form-data; boundary=x"]),
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"--x", b"\r\n", b"=", b'name="a"'])).map(b"".join),
)
def test_any_body_gives_fields_or_is_refused(content_type: bytes, body: bytes) -> None:
    try:
        found = fields(content_type, body)
    except RequestError:
        return
    assert all(isinstance(value, str) for value in found.values())


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=20), max_size=9))
def test_json_objects_of_texts_come_through(data: dict[str, str]) -> None:
    assert fields(b"application/json", json.dumps(data).encode()) == data


# The body.


async def body(messages: list[dict[str, Any]], headers: list[tuple[bytes, bytes]]) -> bytes:
    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    return await made(headers=headers).body(receive)


async def test_a_body_in_pieces_is_put_together() -> None:
    pieces: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": b"cd"},
    ]
    assert await body(pieces, []) == b"abcd"


@pytest.mark.parametrize("length", [b"16385", b"9" * 5000])
async def test_a_body_that_is_said_to_be_too_long_is_not_read(length: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        await body([], [(b"content-length", length)])
    assert caught.value.status == 413


async def test_a_body_that_grows_too_long_is_refused() -> None:
    pieces = [{"type": "http.request", "body": b"x" * 9000, "more_body": True} for _ in range(9)]
    with pytest.raises(RequestError) as caught:
        await body(pieces, [])
    assert caught.value.status == 413
    assert len(pieces) == 7


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "BODY_SECONDS", 0.01)
    with pytest.raises(RequestError) as caught:
        await body([{"type": "http.request", "body": b"x", "more_body": True}], [])
    assert caught.value.status == 408


async def test_a_client_that_goes_away() -> None:
    with pytest.raises(DisconnectedError):
        await body([{"type": "http.disconnect"}], [])
