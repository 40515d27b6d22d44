"""Mail in by real clients, out to real servers: each message once, each byte as it came."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import signal
import smtplib
import ssl
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.queue.administration import worker_stats
from gateway.testing import NextHop
from tests.assembly import below_trace
from tests.certificate import make_certificate
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, Sink, free_port, until

DebianProgram = Callable[[str], Path]


@pytest.mark.parametrize(("connections", "messages"), [(20, 1000), (500, 1500)])
def test_many_connections_deliver_each_message_once(
    make_gateway: MakeGateway,
    sink: Sink,
    debian_program: DebianProgram,
    connections: int,
    messages: int,
) -> None:
    gateway = make_gateway(sink.address)
    gateway.start()
    source = [str(debian_program("smtp-source")), "-s", str(connections), "-m", str(messages)]
    # -N puts a number of its own in front of each recipient.
    source += ["-N", "-l", "2000", "-f", "a@example.com", "-t", "b@example.net"]
    subprocess.run([*source, f"127.0.0.1:{gateway.port}"], check=True, timeout=DEADLINE)
    until(lambda: len(sink.messages()) >= messages, "every message")
    gateway.wait_empty()
    found = Counter(sink.found(rb"(?m)^X-Rcpt-Args: <(\d+)b@example\.net>"))
    assert len(found) == messages
    assert set(found.values()) == {1}
    assert gateway.stop() == 0
    assert "error" not in gateway.log
    assert "Traceback" not in gateway.log


def test_a_few_connections_are_shared_by_all_workers(make_gateway: MakeGateway, sink: Sink) -> None:
    gateway = make_gateway(sink.address, workers=4)
    gateway.start()

    def connections() -> list[int]:
        return sorted(stats["connections"] for stats in worker_stats(gateway.spool))

    clients = [gateway.client() for _ in range(8)]
    assert connections() == [2, 2, 2, 2]
    for number, client in enumerate(clients):
        for _ in range(2):
            client.sendmail(
                "a@example.com", f"{number}@example.net", b"Subject: x\r\n\r\nHello\r\n"
            )
    assert [stats["accepted"] for stats in worker_stats(gateway.spool)] == [4, 4, 4, 4]
    # The worker that is started again has none, and gets the next ones.
    os.kill(gateway.pids()["worker 2"], signal.SIGKILL)
    gateway.logged("worker 2 runs again")
    until(lambda: connections() == [0, 2, 2, 2], "the end of two connections")
    clients += [gateway.client() for _ in range(2)]
    assert connections() == [2, 2, 2, 2]
    for client in clients:
        client.close()
    until(lambda: connections() == [0, 0, 0, 0], "the end of all")
    gateway.wait_empty()
    assert len(sink.messages()) == 16
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.log


# Postfix on both sides.


class Postfix:
    """An instance of Postfix with a configuration, a queue and a port of its own."""

    def __init__(self, program: Path, folder: Path, relayhost: str = "") -> None:
        self._program = program
        self.port = free_port()
        self.config = folder / "etc"
        self.data = folder / "data"
        self.queue = folder / "queue"
        self.log = folder / "log"
        self.mail = folder / "mail"
        for path in (self.config, self.data, self.queue):
            path.mkdir(parents=True)
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": str(self.queue),
            "data_directory": str(self.data),
            "maillog_file": str(self.log),
            "maillog_file_prefixes": str(folder),
            "myhostname": "postfix.example.com",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "alias_maps": "",
            "alias_database": "",
            "relayhost": relayhost,
            "smtp_dns_support_level": "disabled",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "queue_minfree": "0",
            "in_flow_delay": "0",
        }
        if not relayhost:
            # Takes everything into files, one for each message.
            self.mail.mkdir()
            settings |= {
                "virtual_mailbox_domains": "example.net",
                "virtual_mailbox_base": str(self.mail),
                "virtual_mailbox_maps": "static:all/",
                "virtual_uid_maps": "static:65534",
                "virtual_gid_maps": "static:65534",
                "virtual_minimum_uid": "1",
            }
            self.mail.chmod(0o777)
        lines = [f"{name} = {value}" for name, value in settings.items()]
        (self.config / "main.cf").write_text("\n".join([*lines, ""]))
        (self.config / "master.cf").write_text(_MASTER.format(port=self.port))
        os.chown(self.data, _postfix_user(), -1)

    def start(self) -> None:
        self._run("start")

    def _run(self, command: str) -> None:
        done = subprocess.run(
            [str(self._program), "-c", str(self.config), command],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        log = self.log.read_text() if self.log.exists() else ""
        assert done.returncode == 0, (done, log)

    def stop(self) -> None:
        self._run("abort")


_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def _postfix_user() -> int:
    return pwd.getpwnam("postfix").pw_uid


@pytest.fixture
def make_postfix(
    debian_program: DebianProgram,
) -> Iterator[Callable[..., Postfix]]:
    program = debian_program("postfix")
    if os.getuid() != 0:
        pytest.skip("Postfix starts as root only")
    folder = Path(tempfile.mkdtemp(prefix="postfix-"))
    folder.chmod(0o755)
    running: list[Postfix] = []

    def make(relayhost: str = "") -> Postfix:
        postfix = Postfix(program, folder / str(len(running)), relayhost)
        running.append(postfix)
        postfix.start()
        return postfix

    yield make
    for postfix in running:
        postfix.stop()
    shutil.rmtree(folder)


def test_between_two_postfixes(
    make_gateway: MakeGateway, make_postfix: Callable[..., Postfix]
) -> None:
    last = make_postfix()
    gateway = make_gateway(f"127.0.0.1:{last.port}")
    gateway.start()
    first = make_postfix(f"[127.0.0.1]:{gateway.port}")
    with smtplib.SMTP("127.0.0.1", first.port, timeout=DEADLINE) as client:
        for number in range(20):
            message = f"From: a@example.com\nSubject: number {number}\n\n.dot\nGrüße\n".encode()
            client.sendmail("a@example.com", ["b@example.net", "c@example.net"], message)

    def mails() -> list[bytes]:
        return [path.read_bytes() for path in (last.mail / "all" / "new").glob("*")]

    until(lambda: len(mails()) >= 40, "every message")
    gateway.wait_empty()
    subjects = Counter(re.findall(rb"(?m)^Subject: number (\d+)", b"".join(mails())))
    assert subjects == {str(number).encode(): 2 for number in range(20)}
    for mail in mails():
        # virtual(8) puts an empty line at the end.
        assert mail.endswith("\n\n.dot\nGrüße\n\n".encode())
        assert mail.count(b"by gw.example.com with ESMTP id ") == 1


# Clients that people use.


@pytest.fixture
def tls_gateway(make_gateway: MakeGateway, tmp_path: Path, sink: Sink) -> Callable[[str], Gateway]:
    """Makes gateways with a certificate and a user, to each of which a login is needed."""
    make_certificate(tmp_path, "localhost")

    def make(mode: str) -> Gateway:
        listen = (
            f"tls: {{mode: {mode}, certificate: {tmp_path / 'cert.pem'}, "
            f"key: {tmp_path / 'key.pem'}}}, users: users.yaml"
        )
        gateway = make_gateway(sink.address, "", listen, 1)
        gateway.command("user", "add", "shop", "--password-stdin", stdin="s3cret\n")
        gateway.start()
        return gateway

    return make


def _trusting(tmp_path: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=tmp_path / "cert.pem")


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_smtplib_with_tls_and_a_login(
    tls_gateway: Callable[[str], Gateway], tmp_path: Path, sink: Sink, mode: str
) -> None:
    gateway = tls_gateway(mode)
    context = _trusting(tmp_path)
    client: smtplib.SMTP
    if mode == "starttls":
        client = smtplib.SMTP("localhost", gateway.port, timeout=DEADLINE)
        with pytest.raises(smtplib.SMTPNotSupportedError):
            client.login("shop", "s3cret")
        client.starttls(context=context)
    else:
        client = smtplib.SMTP_SSL("localhost", gateway.port, context=context, timeout=DEADLINE)
    with client:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@example.com", ["b@example.net"], b"Subject: no\n\n")
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("shop", "wrong")
        client.login("shop", "s3cret")
        body = "x" * 200 + "\r\n"
        for number in range(3):
            content = f"Subject: number {number}\r\n\r\n{body * 1000}".encode()
            client.sendmail("a@example.com", ["b@example.net"], content)
    until(lambda: len(sink.messages()) >= 3, "every message")
    gateway.wait_empty()
    assert sorted(sink.found(rb"(?m)^Subject: number (\d)")) == [b"0", b"1", b"2"]
    assert all(b"with ESMTPSA" in message for message in sink.messages())
    assert "s3cret" not in gateway.log


def test_swaks(
    tls_gateway: Callable[[str], Gateway], tmp_path: Path, sink: Sink, debian_program: DebianProgram
) -> None:
    program = debian_program("swaks")
    for mode, flag in (("starttls", "--tls"), ("implicit", "--tls-on-connect")):
        gateway = tls_gateway(mode)
        command = [str(program), "--server", "localhost", "--port", str(gateway.port), flag]
        command += ["--from", "a@example.com", "--to", "b@example.net", "--ehlo", "swaks.example"]
        for mechanism in ("PLAIN", "LOGIN"):
            login = ["--auth", mechanism, "--auth-user", "shop", "--auth-password", "s3cret"]
            done = subprocess.run(
                [*command, *login, "--header", f"Subject: {mode} {mechanism}"],
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "250 2.0.0 Ok: queued as" in done.stdout
        gateway.wait_empty()
    wanted = [b"implicit LOGIN", b"implicit PLAIN", b"starttls LOGIN", b"starttls PLAIN"]
    until(lambda: len(sink.messages()) >= 4, "every message")
    assert sorted(sink.found(rb"(?m)^Subject: ((?:implicit|starttls) \w+)")) == wanted


async def test_what_the_sender_asks_for_reaches_the_next_hop(make_gateway: MakeGateway) -> None:
    async with NextHop() as hop:
        gateway = make_gateway(hop.address)
        await asyncio.to_thread(gateway.start)

        def send() -> None:
            with gateway.client() as client:
                client.ehlo()
                client.mail(
                    "ä@example.com", ["SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=q+2B"]
                )
                client.rcpt("bücher@example.net", ["NOTIFY=SUCCESS,DELAY"])
                client.rcpt("c@example.net", ["NOTIFY=NEVER", "ORCPT=rfc822;d+2Be@example.net"])
                client.command_encoding = "utf-8"
                content = "Subject: 日本語\r\n\r\nGrüße".encode()
                client.send(b"BDAT 10\r\n" + content[:10])
                assert client.getreply()[0] == 250
                client.send(b"BDAT %d LAST\r\n" % (len(content) - 10) + content[10:])
                assert client.getreply()[0] == 250

        await asyncio.to_thread(send)
        (message,) = await hop.wait(1, DEADLINE)
        assert message.sender == "ä@example.com"
        assert {"SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=q+2B"} <= set(message.parameters)
        assert message.recipients == (
            ("bücher@example.net", ("NOTIFY=DELAY,SUCCESS",)),
            ("c@example.net", ("NOTIFY=NEVER", "ORCPT=rfc822;d+2Be@example.net")),
        )
        # DATA needs a line end at the end; BDAT did not have one.
        assert below_trace(message.content) == "Subject: 日本語\r\n\r\nGrüße\r\n".encode()


async def test_real_messages_arrive_byte_for_byte(
    make_gateway: MakeGateway, mail_corpus: Path
) -> None:
    files = sorted(path for path in mail_corpus.rglob("*") if path.is_file())
    contents = {}
    for path in files:
        content = re.sub(rb"\r?\n", b"\r\n", path.read_bytes())
        contents[path] = content if content.endswith(b"\r\n") else content + b"\r\n"
    assert len(contents) > 100
    async with NextHop() as hop:
        gateway = make_gateway(hop.address)
        await asyncio.to_thread(gateway.start)
        refused: dict[Path, str] = {}

        def send() -> None:
            with gateway.client() as client:
                client.ehlo()
                for number, (path, content) in enumerate(contents.items()):
                    client.mail("a@example.com", ["BODY=8BITMIME"])
                    client.rcpt(f"{number}@example.net")
                    # Not client.data(), which changes line ends.
                    assert client.docmd("DATA")[0] == 354
                    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
                    client.send(stuffed + b".\r\n")
                    code, text = client.getreply()
                    if code != 250:
                        refused[path] = f"{code} {text.decode()}"

        await asyncio.to_thread(send)
        messages = await hop.wait(len(contents) - len(refused), DEADLINE)
        arrived = {message.recipients[0][0]: message.content for message in messages}
        for number, (path, content) in enumerate(contents.items()):
            reason = _why_smtp_cannot_carry(content)
            if reason:
                assert re.fullmatch(rf"550 5\.6\.0 .*{reason}.*", refused[path]), path
            else:
                assert path not in refused, refused[path]
                assert below_trace(arrived[f"{number}@example.net"]) == content, path
        assert len(arrived) == len(messages)


def _why_smtp_cannot_carry(content: bytes) -> str:
    if b"\r" in content.replace(b"\r\n", b""):
        return "bare CR"
    if b"\0" in content:
        return "NUL"
    if any(len(line) > 998 for line in content.split(b"\r\n")):
        return "longer than 998"
    return ""
