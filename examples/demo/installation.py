"""The gateway of the demo: its folder, its key, its process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import re
import shutil
import signal
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

SITE = Path(__file__).parent / "site"

START_SECONDS = 60.0
STOP_SECONDS = 30.0

_READY = re.compile(rb"listening on 127\.0\.0\.1:(\d+)")
_LAST_LINES = 20
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


class GatewayError(Exception):
    """The gateway did not start or stop as it should; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public key of the demo's signatures, and where it would stand in the DNS."""

    name: bytes
    record: bytes


def make_site(folder: Path, next_hop: str) -> PublicKey:
    """Fills a folder with the demo's configuration and a new DKIM key.

    Args:
        folder: an empty folder.
        next_hop: `host:port` of the receiver.
    """
    template = Template((SITE / "gateway.yaml").read_text())
    (folder / "gateway.yaml").write_text(template.substitute(next_hop=next_hop))
    shutil.copy(SITE / "stay_inside.py", folder)
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    file = folder / "demo.pem"
    file.touch(mode=0o600)
    file.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    return PublicKey(b"demo._domainkey.example.com.", record)


class Gateway:
    """`gateway run` with a configuration, as a process; it ends with the block.

    Attributes:
        port: where it takes mail, on 127.0.0.1.
    """

    def __init__(self, config: Path) -> None:
        self._config = config
        self._last_lines: deque[bytes] = deque(maxlen=_LAST_LINES)
        self.port = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[int] = loop.create_future()
        libc = ctypes.CDLL(None)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "run", "-c", str(self._config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            # A group of its own: Ctrl-C is for the demo, which then stops the gateway in order.
            start_new_session=True,
            # Whatever happens to the demo, the gateway does not stay behind.
            preexec_fn=lambda: libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM),
        )
        self._log = asyncio.create_task(self._read_log())
        try:
            self.port = await asyncio.wait_for(self._ready, START_SECONDS)
        except BaseException as error:
            await self._stop()
            if isinstance(error, TimeoutError):
                raise self._error(f"the gateway was not ready after {START_SECONDS:g} s") from None
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        status = await self._stop()
        if status and error is None:
            raise self._error(f"the gateway ended with status {status}")

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._last_lines.append(line)
            match = _READY.search(line)
            if match and not self._ready.done():
                self._ready.set_result(int(match[1]))
        if not self._ready.done():
            self._ready.set_exception(self._error("the gateway did not start"))

    async def _stop(self) -> int:
        """Ends the process, whatever it does; returns its exit status."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            # Its children end when it is gone, and with the last of them the log.
            await self._log
        return await self._process.wait()

    def _error(self, text: str) -> GatewayError:
        log = b"".join(self._last_lines).decode(errors="replace")
        return GatewayError(f"{text}\n{log}".rstrip())
