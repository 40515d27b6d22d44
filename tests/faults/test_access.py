"""Who may relay, and who guesses at passwords: held against running gateways."""

from __future__ import annotations

import base64
import os
import smtplib
import socket
import ssl
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from gateway.configuration.users import hash_password, save_user
from tests.certificate import make_certificate
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway, until
from tests.faults.figures import Figures

ALLOWED = "127.0.0.2"
STRANGER = "127.0.0.9"
WORKERS = 4
AT_A_TIME = 4
"""Logins of one address that a worker looks at at the same time."""


@contextmanager
def client(gateway: Gateway, address: str) -> Iterator[smtplib.SMTP]:
    """A connection from an address of the loopback network."""
    with smtplib.SMTP(
        "127.0.0.1",
        gateway.port,
        "client.example.org",
        timeout=DEADLINE,
        source_address=(address, 0),
    ) as connection:
        connection.ehlo()
        yield connection


def plain(user: str, password: str) -> str:
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()


def log_in(connection: smtplib.SMTP, user: str, password: str) -> int:
    return connection.docmd("AUTH", f"PLAIN {plain(user, password)}")[0]


def make_users(folder: Path, **passwords: str) -> Path:
    path = folder / "users.yaml"
    for name, password in passwords.items():
        save_user(path, name, hash_password(password))
    return path


# Relaying.

OPEN_RELAY_TRICKS = [
    "<b@example.net>",
    "<b%example.net@gw.example.com>",
    "<b%example.net>",
    "<b@example.net@gw.example.com>",
    '<"b@example.net"@gw.example.com>',
    '<"b@example.net">',
    "<@gw.example.com:b@example.net>",
    "<@gw.example.com,@example.net:b@example.net>",
    "<example.net!b@gw.example.com>",
    "<example.net!b>",
    "<b@[127.0.0.1]>",
    "<b@localhost>",
    "<b@gw.example.com>",
    "<postmaster>",
    "<>",
    "b@example.net",
    "<b@example.net> ORCPT=rfc822;b@gw.example.com",
    "<b@example.net> NOTIFY=NEVER",
    "< b@example.net >",
    "<b@example.net",
    "<b@gw.example.com>, <b@example.net>",
    "<b@gw.example.com\t@example.net>",
]
SENDERS = ["<>", "<a@gw.example.com>", "<a@example.com>", "<a@example.com> AUTH=<>"]


def test_only_those_who_may_relay(make_gateway: MakeGateway, tmp_path: Path) -> None:
    users = make_users(tmp_path, shop="open sesame")
    certificate, key = make_certificate(tmp_path, "localhost")
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    gateway = make_gateway(
        more="limits: {errors: 1000}",
        listen=f"allow: [{ALLOWED}, '::1'], users: {users}, plaintext_auth: true,"
        f" tls: {{certificate: {certificate}, key: {key}}}",
    )
    gateway.start()

    def refused(connection: smtplib.SMTP) -> None:
        for sender in SENDERS:
            for trick in OPEN_RELAY_TRICKS:
                assert connection.docmd("MAIL", f"FROM:{sender}")[0] == 250
                assert 500 <= connection.docmd("RCPT", f"TO:{trick}")[0] < 600, trick
                assert connection.docmd("DATA")[0] in (503, 554)
                assert connection.docmd("BDAT", "0 LAST")[0] == 503
                connection.docmd("RSET")

    with client(gateway, STRANGER) as connection:
        refused(connection)
        for login in ("", "LOGIN", "PLAIN", f"PLAIN {plain('shop', 'wrong')}"):
            if connection.docmd("AUTH", login)[0] == 334:
                connection.docmd("*")
        for way in ("XCLIENT ADDR=127.0.0.2", "XFORWARD ADDR=127.0.0.2", "PROXY TCP4 127.0.0.2"):
            assert connection.docmd(way)[0] == 500
        assert connection.docmd("EHLO", f"[{ALLOWED}]")[0] == 250
        refused(connection)
        # What holds before TLS does not hold behind it (RFC 3207 4.2).
        assert log_in(connection, "shop", "open sesame") == 235
        connection.starttls(context=trusting)
        connection.ehlo()
        refused(connection)
        assert log_in(connection, "shop", "open sesame") == 235
        assert connection.docmd("MAIL", "FROM:<a@example.com>")[0] == 250
        assert connection.docmd("RCPT", "TO:<taken@example.net>")[0] == 250
        assert connection.data("Subject: of a user\r\n\r\n")[0] == 250
    with client(gateway, STRANGER) as connection:
        refused(connection)
    with client(gateway, ALLOWED) as connection:
        assert connection.docmd("MAIL", "FROM:<a@example.com>")[0] == 250
        assert connection.docmd("RCPT", "TO:<allowed@example.net>")[0] == 250
        assert connection.data("Subject: of a network\r\n\r\n")[0] == 250
    waiting = {row["recipient"] for row in gateway.queue()}
    assert waiting == {"taken@example.net", "allowed@example.net"}


# Guesses at passwords.


def guess(gateway: Gateway, address: str, user: str, password: str) -> int:
    """The answer to one login on a connection of its own."""
    with client(gateway, address) as connection:
        return log_in(connection, user, password)


def test_guesses_are_limited_over_all_workers(
    make_gateway: MakeGateway, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    users = make_users(tmp_path, shop="open sesame", crm="xyzzy")
    pause = 2
    gateway = make_gateway(
        more=f"limits: {{login_failures: 5, login_pause: {pause}s}}",
        listen=f"users: {users}, plaintext_auth: true",
        workers=WORKERS,
    )
    gateway.start()
    assert guess(gateway, "127.0.0.3", "shop", "open sesame") == 235
    guesses = scale(100, 5000)
    begin = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        answers = Counter(
            pool.map(lambda n: guess(gateway, STRANGER, "shop", f"guess {n}"), range(guesses))
        )
        # The user himself, meanwhile, where he has logged in before.
        assert guess(gateway, "127.0.0.3", "shop", "open sesame") == 235
    elapsed = time.monotonic() - begin
    # One for each pause that ended meanwhile, and those that each worker was looking at.
    most = (5 + AT_A_TIME * WORKERS) + (1 + AT_A_TIME * WORKERS) * (4 + elapsed / pause)
    assert set(answers) == {535, 454}
    assert 5 <= answers[535] <= most
    assert answers[454] >= guesses - most
    # A right guess is worth nothing while the address waits; it is not even looked at.
    assert guess(gateway, STRANGER, "crm", "wrong") in (454, 535)
    assert guess(gateway, STRANGER, "crm", "xyzzy") == 454
    # The user from an address that nobody knows waits for the pause of his name at most.
    begin = time.monotonic()
    until(lambda: guess(gateway, "127.0.0.4", "shop", "open sesame") == 235, "the user's login")
    waited = time.monotonic() - begin
    # And his neighbours do not wait at all.
    assert guess(gateway, "127.0.0.4", "crm", "xyzzy") == 235
    figures(14, guesses=guesses, looked_at=answers[535], put_off=answers[454], user_waited=waited)


def test_a_connection_that_guesses_is_closed(make_gateway: MakeGateway, tmp_path: Path) -> None:
    users = make_users(tmp_path, shop="open sesame")
    gateway = make_gateway(
        listen=f"users: {users}, plaintext_auth: true", more="limits: {login_failures: 3}"
    )
    gateway.start()
    with client(gateway, STRANGER) as connection:
        answers = [log_in(connection, "shop", f"guess {number}") for number in range(4)]
        assert answers == [535, 535, 535, 421]
        with pytest.raises(smtplib.SMTPServerDisconnected):
            connection.docmd("NOOP")
    with client(gateway, STRANGER) as connection:
        code, text = connection.docmd("AUTH", f"PLAIN {plain('shop', 'open sesame')}")
        assert code == 454
        assert text.startswith(b"4.7.0 Too many failed logins, try again in ")
        # Mail that needs no login goes on.
        assert connection.docmd("NOOP")[0] == 250
    (line,) = gateway.logged("127.0.0.9: 3 logins failed")
    assert "WARNING" in line.upper()


def test_many_addresses_guess_at_one_user(
    make_gateway: MakeGateway, tmp_path: Path, scale: Scale
) -> None:
    users = make_users(tmp_path, shop="open sesame")
    gateway = make_gateway(listen=f"users: {users}, plaintext_auth: true", workers=2)
    gateway.start()
    assert guess(gateway, "127.0.0.3", "shop", "open sesame") == 235
    addresses = [f"127.1.{n // 200}.{n % 200 + 1}" for n in range(scale(60, 1000))]
    begin = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        answers = Counter(pool.map(lambda one: guess(gateway, one, "shop", "password1"), addresses))
    # Waits of 1, 2, 4, … seconds: so many can have ended.
    ended = int(time.monotonic() - begin + 2).bit_length()
    assert answers[535] <= 5 + 2 * AT_A_TIME * (1 + ended)
    assert answers[454] == len(addresses) - answers[535]
    assert guess(gateway, "127.0.0.3", "shop", "open sesame") == 235


# Time.


def cpu_seconds(pid: int) -> float:
    """What a process and its threads have spent."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_an_unknown_user_costs_as_much_as_a_known_one(
    make_gateway: MakeGateway, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    users = make_users(tmp_path, shop="open sesame")
    gateway = make_gateway(
        listen=f"users: {users}, plaintext_auth: true",
        more="limits: {login_failures: 100000, errors: 100000}",
        workers=1,
    )
    gateway.start()
    worker = gateway.pids()["worker 0"]
    batch = 2
    spent: dict[str, list[float]] = {"shop": [], "nobody": []}
    with client(gateway, STRANGER) as connection:
        assert log_in(connection, "shop", "wrong") == 535
        for _ in range(scale(6, 100)):
            for user, seconds in spent.items():
                before = cpu_seconds(worker)
                for _ in range(batch):
                    assert log_in(connection, user, "wrong") == 535
                seconds.append((cpu_seconds(worker) - before) / batch)
    known, unknown = (statistics.median(seconds) for seconds in spent.values())
    # An answer without a hash would cost a hundredth. Ticks of 10 ms are a few percent of a batch.
    assert known > 0.02
    assert 0.7 < unknown / known < 1.4, spent
    figures(14, known_user_ms=known * 1000, unknown_user_ms=unknown * 1000)


# Secrets.

SECRETS = {
    "password": "open-sesame-4711",
    "wrong": "wr0ng-guess-4712",
    "next hop": "next-hop-word-4713",
}

TALKATIVE = """
from pydantic import BaseModel
from gateway.hooks import *

class Config(BaseModel):
    pass

class Site(Plugin[Config]):
    @hookimpl
    def auth(self, login):
        if login.username == "broken":
            raise RuntimeError(f"cannot look up {login!r}")
        if login.username == "odd":
            return login
"""


class PlainHop:
    """A next hop without TLS, which must not be told the password."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.said = b""
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with connection, connection.makefile("rwb", buffering=0) as stream:
                    stream.write(b"220 hop\r\n")
                    while line := stream.readline():
                        self.said += line
                        stream.write(
                            b"250-hop\r\n250 AUTH PLAIN LOGIN\r\n"
                            if line.startswith(b"EHLO")
                            else b"502 5.5.1 No\r\n"
                        )

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(DEADLINE)


def test_no_secret_is_in_a_log_a_queue_or_an_error(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    users = make_users(tmp_path, shop=SECRETS["password"])
    hashed = users.read_text().split("password:")[1].split()[0]
    hop = PlainHop()
    with closing(hop):
        gateway = make_gateway(
            listen=f"allow: [{ALLOWED}], users: {users}, plaintext_auth: true",
            more="log: {level: debug}\nplugins: [./talkative.py]\n"
            "limits: {login_failures: 3}\n"
            f"relay: {{via: ['{hop.address}'], login: {{user: gw, password_file: word}}}}",
        )
        (gateway.folder / "talkative.py").write_text(TALKATIVE)
        (gateway.folder / "word").write_text(SECRETS["next hop"])
        (gateway.folder / "word").chmod(0o600)
        gateway.start()
        texts = []
        with client(gateway, STRANGER) as connection:
            for user in ("broken", "odd", "shop", "nobody", "shop"):
                _, text = connection.docmd("AUTH", f"PLAIN {plain(user, SECRETS['wrong'])}")
                texts.append(text.decode())
        for command in (
            f"AUTH PLAIN {plain('shop', SECRETS['wrong'])}x",
            f"AUTH LOGIN {SECRETS['wrong']}",
            f"AUTH {SECRETS['wrong']}",
        ):
            with client(gateway, "127.0.0.5") as connection:
                _, text = connection.docmd(command)
                texts.append(text.decode())
                if text.startswith(b"UGFz"):
                    connection.docmd(SECRETS["wrong"])
        with client(gateway, "127.0.0.6") as connection:
            assert log_in(connection, "shop", SECRETS["password"]) == 235
            connection.docmd("MAIL", "FROM:<a@example.com>")
            connection.docmd("RCPT", "TO:<b@example.net>")
            assert connection.data("Subject: x\r\n\r\n")[0] == 250
        until(lambda: b"EHLO" in hop.said, "an attempt")
        gateway.logged("deferred")
        texts += [
            gateway.command("queue", "list", "--json"),
            gateway.command("check", "-c", str(gateway.config)),
            gateway.command("chain", "-c", str(gateway.config)),
        ]
        # A mistake in each file that holds a secret: the message names the place alone.
        for path, content in (
            (users, f"users: {{shop: {{password: {SECRETS['password']}}}}}\n"),
            (users, f"users: {{shop: {{password: [{SECRETS['password']}]}}}}\n"),
            (users, f"users:\n  shop: {{password: *{SECRETS['password']}}}\n"),
        ):
            path.write_text(content)
            texts.append(gateway.command("check", "-c", str(gateway.config), status=2))
        gateway.stop()
        texts.append(gateway.log)
    said = "\n".join(texts)
    assert "failed in auth" in said
    for name, secret in SECRETS.items():
        assert secret not in said, name
        assert base64.b64encode(secret.encode()).decode().rstrip("=") not in said, name
    assert plain("shop", SECRETS["wrong"]).rstrip("=") not in said
    assert hashed not in said
    assert b"AUTH" not in hop.said
