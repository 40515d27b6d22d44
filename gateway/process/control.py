"""The command channel: a Unix socket on which a process answers questions about its mail.

One JSON object on one line is a request, one on one line is the reply: `{"ok": true, ...}` or
`{"ok": false, "error": "..."}`. A connection may carry several requests, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import secrets
import socket
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

MAX_REQUEST = 1024 * 1024
"""The longest request, in octets with its line end."""

MAX_REPLY = 64 * 1024 * 1024
"""The longest reply, in octets with its line end."""

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

_log = logging.getLogger(__name__)


class ControlError(Exception):
    """A request that could not be answered; the text tells a person why."""


class ControlServer:
    """Answers requests on a Unix socket that only its owner may use.

    `handler` gets the request and returns what the reply holds besides `ok`. A `ControlError` that
    it raises is told to the client; any other exception is logged too. `timeout`, in seconds,
    bounds the wait for a request, the handler's work and the sending of a reply, each.
    """

    def __init__(self, path: Path, handler: Handler, *, timeout: float = 60.0) -> None:
        self._path = path
        self._handler = handler
        self._timeout = timeout
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Begins to listen; a socket file that a dead process left is replaced.

        Raises:
            ControlError: the file is no socket, another process serves it, or its folder is
                missing or not ours to write to.
        """
        _check_replaceable(self._path)
        try:
            await self._listen()
        except OSError as error:
            raise ControlError(f"cannot serve {self._path}: {error.strerror}") from error

    async def _listen(self) -> None:
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                # Set before bind, the mode is there from the first moment (Linux).
                os.fchmod(listener.fileno(), 0o600)
                # A socket's address has at most 107 bytes; the path by way of its folder is short.
                name = f".{secrets.token_hex(8)}"
                listener.bind(f"/proc/self/fd/{folder}/{name}")
                # A rename leaves no moment without a socket file, and none that nobody serves.
                listener.listen()
                try:
                    os.rename(name, self._path.name, src_dir_fd=folder, dst_dir_fd=folder)
                except OSError:
                    os.unlink(name, dir_fd=folder)
                    raise
                self._inode = os.stat(self._path.name, dir_fd=folder).st_ino
                self._server = await asyncio.start_unix_server(
                    self._serve, sock=listener, limit=MAX_REQUEST
                )
            except BaseException:
                listener.close()
                raise
        finally:
            os.close(folder)

    async def close(self) -> None:
        """Stops listening, ends what is under way and removes the socket file."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        # The file may be a successor's by now.
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            more = True
            while more:
                async with asyncio.timeout(self._timeout):
                    try:
                        line = await reader.readuntil(b"\n")
                    except asyncio.LimitOverrunError:
                        line = b""
                if line:
                    reply = await self._answer(line)
                else:
                    reply = _refusal(f"the request is longer than {MAX_REQUEST} octets")
                    more = False
                writer.write(reply)
                async with asyncio.timeout(self._timeout):
                    await writer.drain()
        except (asyncio.CancelledError, TimeoutError, OSError, asyncio.IncompleteReadError):
            # Only `close` cancels; the others are a client that went away or fell silent.
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            return _refusal("the request is not a JSON object on one line")
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                answer = await self._handler(request)
            reply = json.dumps({"ok": True, **answer}).encode() + b"\n"
        except ControlError as error:
            return _refusal(str(error))
        except Exception as error:
            if limit.expired():
                return _refusal(f"no answer within {self._timeout:g} s")
            _log.exception("a request on %s failed", self._path)
            return _refusal(f"internal error: {type(error).__name__}: {error}")
        if len(reply) > MAX_REPLY:
            return _refusal(f"the reply is longer than {MAX_REPLY} octets; ask for less at a time")
        return reply


def request(path: Path, message: dict[str, Any], timeout: float = 30.0) -> dict[str, Any]:
    """Sends a request to the process that serves `path` and returns its reply, without `ok`.

    Args:
        path: the socket file.
        message: the request.
        timeout: how long the whole exchange may take, in seconds.

    Raises:
        ControlError: nobody serves the path, the time is over, the reply makes no sense, or the
            process refused; the text says which.
    """
    line = json.dumps(message).encode() + b"\n"
    if len(line) > MAX_REQUEST:
        raise ControlError(f"the request is longer than {MAX_REQUEST} octets")
    deadline = time.monotonic() + timeout
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            _connect(connection, path)
            connection.sendall(line)
            reply = _read_line(connection, path, deadline)
    except TimeoutError:
        raise ControlError(f"{path}: no answer within {timeout:g} s") from None
    except FileNotFoundError:
        raise ControlError(f"{path}: no such socket; is the gateway running?") from None
    except ConnectionRefusedError:
        raise ControlError(f"{path}: its process is gone; is the gateway running?") from None
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror or error}") from None
    try:
        answer = json.loads(reply)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or "ok" not in answer:
        raise ControlError(f"{path}: the reply is not what this version of the gateway understands")
    if not answer.pop("ok"):
        raise ControlError(str(answer.get("error", "refused without a reason")))
    return answer


def _read_line(connection: socket.socket, path: Path, deadline: float) -> bytes:
    blocks: list[bytes] = []
    length = 0
    while not blocks or not blocks[-1].endswith(b"\n"):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        block = connection.recv(1024 * 1024)
        length += len(block)
        if not block:
            raise ControlError(f"{path}: the process closed the connection without a whole reply")
        if length > MAX_REPLY:
            raise ControlError(f"{path}: the reply is longer than {MAX_REPLY} octets")
        blocks.append(block)
    return b"".join(blocks)


def _connect(connection: socket.socket, path: Path) -> None:
    """Connects to a socket file by way of a descriptor: its path may have any length."""
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{file}")
    finally:
        os.close(file)


def _check_replaceable(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ControlError(f"{path} is there and no socket; it stays as it is")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            _connect(probe, path)
    except (FileNotFoundError, ConnectionRefusedError):
        return
    except OSError as error:
        # A full queue (EAGAIN) means that someone listens, too.
        if error.errno != errno.EAGAIN:
            raise ControlError(f"{path}: {error.strerror}") from error
    raise ControlError(f"{path} is served by another process")


def _refusal(text: str) -> bytes:
    return json.dumps({"ok": False, "error": text}).encode() + b"\n"
