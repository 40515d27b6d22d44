"""The unit for systemd: what it forbids, and that the gateway needs none of it."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.testing import NextHop
from gateway.testing.certificate import Certificate
from tests.docs.blocks import ROOT, blocks
from tests.doctor.confinement import HEADER
from tests.e2e.conftest import Gateway

UNIT = ROOT / "packaging/mail-gateway.service"

DENIED = """
import ctypes, mmap, os, socket
def refused(act):
    try:
        act()
    except (OSError, PermissionError) as error:
        return type(error).__name__
    return 'allowed'
print(refused(lambda: open('/etc/of-the-gateway', 'w')))
print(refused(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)))
print(refused(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)))
print(refused(lambda: os.chroot('/')))
print(refused(lambda: os.setuid(65534)))
print(refused(lambda: os.nice(-1)))
print(refused(lambda: socket.socket(socket.AF_INET6).close()))
"""


def test_the_documents_show_the_unit() -> None:
    (shown,) = [
        block.text for block in blocks(ROOT / "docs/operations.md") if block.language == "ini"
    ]
    assert shown == UNIT.read_text()


def test_systemd_calls_it_well_protected(debian_program: Callable[[str], Path]) -> None:
    words = ["security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT)]
    result = subprocess.run(
        [str(debian_program("systemd-analyze")), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    # The threshold is in tenths: 2.0 of 10, where 10 is no protection at all.
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.fixture
def confined(debian_program: Callable[[str], Path], tmp_path: Path) -> list[str]:
    """What to put before a program so that it runs under the unit's restrictions."""
    debian_program("systemd-analyze")
    if os.geteuid() != 0 or platform.machine() != "x86_64" or not HEADER.exists():
        pytest.skip("needs root, x86-64, and the numbers of system calls (linux-libc-dev)")
    words = [sys.executable, "-m", "tests.doctor.confinement", str(UNIT), str(tmp_path)]
    tried = subprocess.run(
        [*words, "/bin/true"], capture_output=True, text=True, check=False, cwd=ROOT, timeout=30
    )
    if tried.returncode:
        pytest.skip(f"this machine does not let anybody be confined: {tried.stderr[-200:]}")
    return words


def test_what_is_forbidden(confined: list[str]) -> None:
    result = subprocess.run(
        [*confined, sys.executable, "-c", DENIED],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=30,
    )
    told = result.stdout.split()
    assert told == ["OSError", "OSError", *["PermissionError"] * 4, "allowed"]


class Confined(Gateway):
    """A gateway under the restrictions of the unit."""

    prefix: list[str]

    def start(self) -> None:
        self._starts += 1
        with self._log_path.open("wb") as output:
            self._process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "gateway", "run", "-c", str(self.config)],
                stdout=output,
                stderr=output,
                cwd=ROOT,
                start_new_session=True,
            )
        self.logged("ready: ")


@pytest.fixture
def gateway(confined: list[str], tmp_path: Path) -> Iterator[Confined]:
    running = Confined(tmp_path, "127.0.0.1:1")
    running.prefix = confined
    yield running
    running.clean()


def _key(path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


async def test_the_gateway_needs_nothing_that_is_forbidden(
    gateway: Confined, tmp_path: Path
) -> None:
    Certificate.make("gw.example.com").write(tmp_path)
    _key(tmp_path / "s1.pem")
    async with NextHop() as hop:
        gateway._via = hop.address
        gateway._listen = "allow: [127.0.0.0/8], tls: {certificate: cert.pem, key: key.pem}"
        gateway.configure(
            "http: {address: '127.0.0.1:0'}\nplugins:\n"
            "  - suppression: {}\n  - throttle: {}\n"
            "  - tracking: {base_url: 'https://t.example.com'}\n"
            "  - dkim: {keys: [{domain: example.com, selector: s1, file: s1.pem}]}\n"
        )
        # The next hop answers in this loop.
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(_send, gateway)
        await hop.wait(1)
        gateway.signal(signal.SIGHUP)
        await asyncio.to_thread(gateway.logged, "ready: ", times=2)
        await asyncio.to_thread(_send, gateway)
        messages = await hop.wait(2)
    assert all(b"DKIM-Signature:" in message.content for message in messages)
    modes = {path.stat().st_mode & 0o077 for path in gateway.spool.rglob("*")}
    assert modes == {0}
    assert gateway.stop() == 0
    assert not re.search(r"error:|Traceback|not permitted", gateway.log), gateway.log


def _send(gateway: Gateway) -> None:
    with gateway.client() as client:
        client.starttls()
        client.sendmail("a@example.com", ["b@example.net"], b"From: a@example.com\r\n\r\nHi\r\n")
