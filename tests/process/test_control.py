from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.process import control
from gateway.process.control import MAX_REQUEST, ControlError, ControlServer, Handler, request


async def echo(message: dict[str, Any]) -> dict[str, Any]:
    return {"echo": message}


@asynccontextmanager
async def serving(
    path: Path, handler: Handler = echo, timeout: float = 60.0
) -> AsyncIterator[None]:
    server = ControlServer(path, handler, timeout=timeout)
    await server.start()
    try:
        yield
    finally:
        await server.close()


async def ask(path: Path, message: dict[str, Any], timeout: float = 10.0) -> dict[str, Any]:
    return await asyncio.to_thread(request, path, message, timeout)


async def raw(path: Path, data: bytes) -> bytes:
    """What comes back for some octets, up to the end of the connection."""
    reader, writer = await asyncio.open_unix_connection(os.path.relpath(path))
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_request_is_answered_and_the_file_comes_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "control"
    async with serving(path):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]
        assert await ask(path, {"command": "見る"}) == {"echo": {"command": "見る"}}
    assert not path.exists()


async def test_several_requests_on_one_connection(tmp_path: Path) -> None:
    path = tmp_path / "control"
    async with serving(path):
        answers = await raw(path, b'{"a": 1}\n{"b": 2}\n')
    assert [json.loads(line) for line in answers.splitlines()] == [
        {"ok": True, "echo": {"a": 1}},
        {"ok": True, "echo": {"b": 2}},
    ]


async def test_clients_are_served_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "control"
    both = asyncio.Barrier(2)

    async def meet(message: dict[str, Any]) -> dict[str, Any]:
        await both.wait()
        return message

    async with serving(path, meet):
        answers = await asyncio.gather(ask(path, {"a": 1}), ask(path, {"b": 2}))
    assert list(answers) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("folders", [["d" * 60, "e" * 60, "f" * 200], []])
@pytest.mark.parametrize("name", ["control", "n" * 200])
async def test_paths_longer_than_an_address_may_be(
    tmp_path: Path, folders: list[str], name: str
) -> None:
    path = tmp_path.joinpath(*folders, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    async with serving(path):
        assert await ask(path, {"x": 1}) == {"echo": {"x": 1}}
    assert not path.exists()


async def test_the_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.path.relpath(path))
    with pytest.raises(ControlError, match="its process is gone"):
        await ask(path, {})
    async with serving(path):
        assert await ask(path, {}) == {"echo": {}}


async def test_a_living_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control"
    async with serving(path):
        with pytest.raises(ControlError, match="served by another process"):
            await ControlServer(path, echo).start()
        assert await ask(path, {}) == {"echo": {}}


async def test_a_file_that_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control"
    path.write_text("precious")
    with pytest.raises(ControlError, match="no socket"):
        await ControlServer(path, echo).start()
    assert path.read_text() == "precious"


async def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="No such file or directory"):
        await ControlServer(tmp_path / "missing" / "control", echo).start()


async def test_closing_leaves_the_file_of_a_successor(tmp_path: Path) -> None:
    path = tmp_path / "control"
    first, second = ControlServer(path, echo), ControlServer(path, echo)
    await first.start()
    path.unlink()
    await second.start()
    await first.close()
    assert await ask(path, {}) == {"echo": {}}
    await second.close()
    await second.close()
    assert not path.exists()


async def test_closing_ends_what_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "control"
    begun = asyncio.Event()
    ended = asyncio.Event()

    async def hang(message: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return message

    server = ControlServer(path, hang)
    await server.start()
    client = asyncio.create_task(ask(path, {}))
    await begun.wait()
    await server.close()
    assert ended.is_set()
    with pytest.raises(ControlError, match="without a whole reply"):
        await client


async def test_a_refusal_and_a_failure_come_back_as_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(message: dict[str, Any]) -> dict[str, Any]:
        if "refuse" in message:
            raise ControlError("no such message")
        if "unserializable" in message:
            return {"x": object()}
        raise LookupError("oh")

    path = tmp_path / "control"
    async with serving(path, fail):
        with pytest.raises(ControlError, match=r"^no such message$"):
            await ask(path, {"refuse": True})
        assert not caplog.records
        with pytest.raises(ControlError, match="internal error: LookupError: oh"):
            await ask(path, {})
        assert "LookupError" in caplog.text
        with pytest.raises(ControlError, match="internal error: TypeError"):
            await ask(path, {"unserializable": True})


@pytest.mark.parametrize("line", [b"hello\n", b"[1]\n", b"\n", b"\xff\n", b"[" * 200_000 + b"\n"])
async def test_what_is_no_object_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "control"
    async with serving(path):
        answers = [json.loads(text) for text in (await raw(path, line + b"{}\n")).splitlines()]
    assert answers == [
        {"ok": False, "error": "the request is not a JSON object on one line"},
        {"ok": True, "echo": {}},
    ]


async def test_a_request_cut_short_is_no_request(tmp_path: Path) -> None:
    path = tmp_path / "control"
    async with serving(path):
        assert await raw(path, b'{"a": 1}') == b""


async def test_the_longest_request_and_one_octet_more(tmp_path: Path) -> None:
    async def length(message: dict[str, Any]) -> dict[str, Any]:
        return {"length": len(message["x"])}

    path = tmp_path / "control"
    room = MAX_REQUEST - len(b'{"x": ""}\n')
    async with serving(path, length):
        assert await ask(path, {"x": "y" * room}) == {"length": room}
        with pytest.raises(ControlError, match="request is longer than 1048576 octets"):
            await ask(path, {"x": "y" * (room + 1)})
        reader, writer = await asyncio.open_unix_connection(os.path.relpath(path))
        writer.write(b'{"x": "' + b"y" * MAX_REQUEST + b'"}')
        assert b"request is longer than" in await reader.readline()
        writer.close()


async def test_a_reply_that_is_too_long_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def much(message: dict[str, Any]) -> dict[str, Any]:
        return {"x": "y" * message["length"]}

    path = tmp_path / "control"
    async with serving(path, much):
        reply = await ask(path, {"length": 8_000_000})
        assert len(reply["x"]) == 8_000_000
        monkeypatch.setattr(control, "MAX_REPLY", 1000)
        with pytest.raises(ControlError, match="reply is longer than 1000 octets"):
            await ask(path, {"length": 1000})


async def test_a_handler_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    async def hang(message: dict[str, Any]) -> dict[str, Any]:
        await asyncio.Event().wait()
        return message

    path = tmp_path / "control"
    async with serving(path, hang, timeout=0.05):
        with pytest.raises(ControlError, match=r"no answer within 0\.05 s"):
            await ask(path, {})


async def test_a_silent_client_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "control"
    async with serving(path, timeout=0.05):
        reader, writer = await asyncio.open_unix_connection(os.path.relpath(path))
        assert await reader.read() == b""
        writer.close()


async def test_the_client_does_not_wait_forever(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(os.path.relpath(path))
        silent.listen()
        with pytest.raises(ControlError, match=r"no answer within 0\.05 s"):
            await ask(path, {}, timeout=0.05)


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="is the gateway running"):
        await ask(tmp_path / "control", {})
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ControlError, match="is the gateway running"):
        await ask(path, {})


@pytest.mark.parametrize("reply", [b"hello\n", b"[]\n", b"{}\n", b"\xff\n"])
async def test_a_reply_without_sense_is_told(tmp_path: Path, reply: bytes) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(reply)
        writer.close()

    path = tmp_path / "control"
    server = await asyncio.start_unix_server(nonsense, os.path.relpath(path))
    try:
        with pytest.raises(ControlError, match="not what this version"):
            await ask(path, {})
    finally:
        server.close()


async def test_a_reply_over_the_limit_is_not_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except OSError:
            writer.close()

    monkeypatch.setattr(control, "MAX_REPLY", 1_000_000)
    path = tmp_path / "control"
    server = await asyncio.start_unix_server(endless, os.path.relpath(path))
    try:
        with pytest.raises(ControlError, match="reply is longer than 1000000 octets"):
            await ask(path, {})
    finally:
        server.close()
