"""A real Postfix as the next hop, which takes mail over TLS only."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import pytest
import uvloop

from gateway.attempt import Disposition, Hop, Outcome, Route, TlsLevel
from gateway.configuration.relay import RelayTls
from gateway.delivery.connection import Connection, Timeouts, open_connection
from gateway.delivery.protection import Protection
from gateway.delivery.tls import Tls
from gateway.delivery.transaction import transact
from gateway.resolver import Resolver
from gateway.testing import FakeDns
from tests.assembly import until
from tests.delivery.authority import Authority
from tests.delivery.sending import SOURCE, make_delivery

HOST = "mx.example.com"
AUTHORITY = Authority()
SERVER = AUTHORITY.issue(HOST, with_root=True)
NEW_LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]

MAIN = Template("""
compatibility_level = 3.6
queue_directory = $folder/queue
data_directory = $folder/data
maillog_file = $folder/mail.log
maillog_file_prefixes = $folder
myhostname = postfix.test
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
biff = no
default_transport = hold:
smtpd_client_restrictions = static:HOLD
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_security_level = encrypt
smtpd_tls_chain_files = $folder/server.pem
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
""")

MASTER = Template("""
127.0.0.1:$starttls inet n - n - - smtpd
127.0.0.1:$implicit inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
127.0.0.1:$old inet n - n - - smtpd -o smtpd_tls_mandatory_protocols=TLSv1.2
127.0.0.1:$strict inet n - n - - smtpd -o smtpd_tls_req_ccert=yes -o smtpd_tls_CAfile=$folder/ca.pem
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
""")


@dataclass(frozen=True)
class Postfix:
    """Where it listens, and its folder."""

    starttls: int
    implicit: int
    old: int
    strict: int
    folder: Path

    def message(self, text: bytes) -> bytes:
        """The message with a text that it keeps."""
        held = [path for path in (self.folder / "queue" / "hold").rglob("*") if path.is_file()]
        (found,) = [content for path in held if text in (content := path.read_bytes())]
        return found


@pytest.fixture(scope="module")
def postfix(debian_program: Callable[[str], Path]) -> Iterator[Postfix]:
    program = debian_program("postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix starts only as root")
    # Its processes run as another user, who must come as far as this folder.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield from _run(program, folder)


def _run(program: Path, folder: Path) -> Iterator[Postfix]:
    etc, data, queue = (folder / name for name in ("etc", "data", "queue"))
    for part in (etc, data, queue):
        part.mkdir()
    os.chown(data, pwd.getpwnam("postfix").pw_uid, -1)
    SERVER.write(folder / "server.pem")
    AUTHORITY.write(folder / "ca.pem")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    values = dict(zip(("starttls", "implicit", "old", "strict"), ports, strict=True))
    (etc / "main.cf").write_text(MAIN.substitute(folder=folder))
    (etc / "master.cf").write_text(MASTER.substitute(values, folder=folder))
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [program, "-c", etc, "start-fg"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _await_banner(ports[0], folder)
        yield Postfix(folder=folder, **values)
    finally:
        subprocess.run([program, "-c", etc, "stop"], check=False, capture_output=True, timeout=60)
        process.wait(30)


def _await_banner(port: int, folder: Path) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                if connection.recv(100).startswith(b"220 "):
                    return
        except OSError:
            pass
        if time.monotonic() > end:
            logs = [folder / "output", folder / "mail.log"]
            raise AssertionError("\n".join(path.read_text() for path in logs if path.exists()))
        time.sleep(0.05)


async def _open(
    folder: Path, port: int, *, is_mx: bool = False, implicit_tls: bool = False, **config: Any
) -> Connection | Outcome:
    key = hashlib.sha256(SERVER.spki).hexdigest()
    zones: dict[str, Any] = {
        HOST: {"A": ["127.0.0.1"]},
        f"_{port}._tcp.{HOST}": {"TLSA": [f"3 1 1 {key}"]},
    }
    config = {"ca": AUTHORITY.write(folder / "ca.pem"), "mta_sts": False, **config}
    async with FakeDns(zones, signed=["."]) as dns:
        resolver = Resolver([dns.address], loopback=True)
        tls = Tls(RelayTls(**config), resolver, folder / "mta-sts")
        hop = Hop(HOST, port)
        route = Route((hop,), "s", is_mx=is_mx, authentic=is_mx, implicit_tls=implicit_tls)
        protection = await tls.protection(await tls.requirement(make_delivery(), route), hop)
        await resolver.close()
    assert isinstance(protection, Protection)
    return await open_connection(hop, "127.0.0.1", SOURCE, Timeouts(), protection)


async def _deliver(folder: Path, port: int, content: bytes, **how: Any) -> str:
    connection = await _open(folder, port, **how)
    assert isinstance(connection, Connection), connection
    outcomes = await transact(connection, make_delivery(content=content), Timeouts())
    assert isinstance(outcomes, list)
    assert outcomes[0].disposition is Disposition.DELIVERED
    await _leave(connection)
    return connection.tls


async def _leave(connection: Connection) -> None:
    closed = asyncio.Event()
    connection.on_lost = lambda _: closed.set()
    connection.quit()
    async with asyncio.timeout(20):
        await closed.wait()


async def _be_refused(folder: Path, port: int, **how: Any) -> Outcome:
    """What became of it, when the connection has ended with its last words of TLS."""
    outcome = await _open(folder, port, **how)
    assert isinstance(outcome, Outcome)
    await until(lambda: not _is_connected(port), "the end of the connection")
    return outcome


def _is_connected(port: int) -> bool:
    """Whether a process holds a connection to that port."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, *_, inode = line.split()[:10]
        if int(remote.partition(":")[2], 16) == port and inode != "0":
            return True
    return False


@pytest.mark.parametrize("new_loop", NEW_LOOPS)
@pytest.mark.parametrize(
    ("port", "how", "verified"),
    [
        ("starttls", {}, "not verified"),
        ("starttls", {"level": TlsLevel.VERIFIED}, "verified by certificate"),
        ("starttls", {"is_mx": True}, "verified by DANE"),
        ("implicit", {"implicit_tls": True}, "not verified"),
        ("implicit", {"implicit_tls": True, "level": TlsLevel.VERIFIED}, "verified by certificate"),
        ("old", {"level": TlsLevel.REQUIRED}, "not verified"),
    ],
)
def test_postfix_takes_mail_over_tls(
    postfix: Postfix,
    tmp_path: Path,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    port: str,
    how: dict[str, Any],
    verified: str,
) -> None:
    text = os.urandom(8).hex().encode()
    content = b"From: a@example.com\r\nSubject: x\r\n\r\n" + text + b"\r\n"
    with asyncio.Runner(loop_factory=new_loop) as runner:
        reached = runner.run(_deliver(tmp_path, getattr(postfix, port), content, **how))
    version, cipher = re.fullmatch(rf"(\S+) with (\S+), {verified}", reached).groups()  # type: ignore[union-attr]
    assert version == ("TLSv1.2" if port == "old" else "TLSv1.3")
    kept = postfix.message(text)
    assert f"(using {version} with cipher {cipher} ".encode() in kept


def test_postfix_takes_no_mail_in_the_clear(postfix: Postfix, tmp_path: Path) -> None:
    async def run() -> None:
        connection = await _open(tmp_path, postfix.starttls, level=TlsLevel.NONE)
        assert isinstance(connection, Connection)
        outcomes = await transact(connection, make_delivery(), Timeouts())
        assert isinstance(outcomes, list)
        assert outcomes[0].reply == "530 5.7.0 Must issue a STARTTLS command first"
        await _leave(connection)

    asyncio.run(run())


@pytest.mark.parametrize("new_loop", NEW_LOOPS)
@pytest.mark.parametrize(
    ("port", "how", "stage", "reason"),
    [
        ("old", {"level": TlsLevel.REQUIRED, "minimum": "1.3"}, "tls", "protocol version"),
        ("starttls", {"implicit_tls": True}, "tls", "wrong version number"),
        ("strict", {"level": TlsLevel.REQUIRED}, "ehlo", "No client certificate presented"),
    ],
)
def test_what_postfix_does_not_do(
    postfix: Postfix,
    tmp_path: Path,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    port: str,
    how: dict[str, Any],
    stage: str,
    reason: str,
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        outcome = runner.run(_be_refused(tmp_path, getattr(postfix, port), **how))
    assert (outcome.disposition, outcome.stage) == (Disposition.DEFERRED, stage)
    assert reason in outcome.text
