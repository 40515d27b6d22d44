"""Login at next hops (RFC 4954): over TLS only, and the password is never told."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.attempt import Credentials, Disposition, Hop, Outcome, Route
from gateway.configuration.relay import Login, RelayTls, credentials_of
from gateway.delivery.connection import Connection, Timeouts, open_connection
from gateway.delivery.protection import Protection
from gateway.delivery.tls import Tls
from gateway.delivery.transaction import transact
from gateway.resolver import Resolver
from gateway.testing import Drop, Hang, NextHop, Raw, Trickle
from tests.delivery.authority import self_signed
from tests.delivery.sending import NOWHERE, SOURCE, lines, make_delivery

TLS = self_signed("mx.example.com").server()
PASSWORD = "correct horse Pässwörd"
GOOD = Credentials("gateway", PASSWORD)
USERS = {"gateway": PASSWORD}
MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5")


async def _open(
    folder: Path,
    server: NextHop,
    login: Credentials = GOOD,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 (it is frozen)
    **route: Any,
) -> Connection | Outcome:
    tls = Tls(RelayTls(), Resolver([NOWHERE]), folder)
    hop = Hop.parse(server.address)
    requirement = await tls.requirement(
        make_delivery(), Route((hop,), "site", login=login, **route)
    )
    protection = await tls.protection(requirement, hop)
    assert isinstance(protection, Protection)
    for value in (requirement, protection):
        assert PASSWORD not in repr(value)
    return await open_connection(hop, hop.host, SOURCE, timeouts, protection)


async def _fail(folder: Path, server: NextHop, login: Credentials = GOOD, **how: Any) -> Outcome:
    opened = await _open(folder, server, login, **how)
    assert isinstance(opened, Outcome)
    assert opened.disposition is Disposition.DEFERRED
    for secret in (login.password, base64.b64encode(login.password.encode()).decode()):
        assert secret not in repr(opened)
    return opened


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("implicit", [False, True])
async def test_each_mechanism(tmp_path: Path, mechanism: str, implicit: bool) -> None:
    server = NextHop(tls=TLS, users=USERS, mechanisms=[mechanism], implicit_tls=implicit)
    async with server:
        connection = await _open(tmp_path, server, implicit_tls=implicit)
        assert isinstance(connection, Connection)
        await transact(connection, make_delivery(), Timeouts())
        (message,) = server.messages
        assert (message.user, message.tls) == ("gateway", "TLSv1.3")
        connection.abort()


async def test_the_simplest_mechanism_is_tried_and_no_other(tmp_path: Path) -> None:
    async with NextHop(tls=TLS, users=USERS, mechanisms=MECHANISMS[::-1]) as server:
        await _fail(tmp_path, server, Credentials("gateway", "wrong"))
        assert [line.split()[:2] for line in lines(server) if line.startswith("AUTH")] == [
            ["AUTH", "PLAIN"]
        ]


async def test_what_a_server_offers_and_does_not_know_is_passed_over(tmp_path: Path) -> None:
    async with NextHop(
        tls=TLS, users=USERS, auth=["504 5.5.4 Unknown", Raw(b"334 VXNlcm5hbWU6\r\n")]
    ) as server:
        await _open(tmp_path, server)
        assert [line.split()[:2] for line in lines(server) if line.startswith("AUTH")] == [
            ["AUTH", "PLAIN"],
            ["AUTH", "LOGIN"],
        ]


async def test_a_login_that_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with NextHop(tls=TLS, users=USERS) as server:
        outcome = await _fail(tmp_path, server, Credentials("gateway", "wrong horse"))
        ip, port = server.address.split(":")
        relay = f"{ip}[{ip}]:{port}"
    assert outcome == Outcome(
        Disposition.DEFERRED,
        535,
        "4.7.8",
        f"login at {relay} as gateway failed: 535 5.7.8 Bad credentials",
        "auth",
        relay,
    )
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.message == f"login at {relay} as gateway failed: 535 5.7.8 Bad credentials"


async def test_a_server_with_no_time(tmp_path: Path) -> None:
    async with NextHop(tls=TLS, users=USERS, auth="454 4.7.0 Ask later") as server:
        outcome = await _fail(tmp_path, server)
    assert (outcome.code, outcome.status, outcome.stage) == (454, "4.7.0", "auth")


@pytest.mark.parametrize("mechanisms", [[], ["XOAUTH2", "GSSAPI"]])
async def test_a_server_that_offers_no_login(tmp_path: Path, mechanisms: list[str]) -> None:
    users = USERS if mechanisms else None
    async with NextHop(tls=TLS, users=users, mechanisms=mechanisms) as server:
        outcome = await _fail(tmp_path, server)
        assert (outcome.code, outcome.status, outcome.stage) == (0, "4.7.8", "auth")
        assert "no AUTH PLAIN, LOGIN or CRAM-MD5 is offered" in outcome.text
        assert not any(line.startswith("AUTH") for line in lines(server))


async def test_the_password_is_never_said_in_the_clear(tmp_path: Path) -> None:
    for how in ({}, {"tls": TLS, "starttls": "454 No"}, {"tls": TLS, "handshake": Drop()}):
        async with NextHop(users=USERS, **how) as server:  # type: ignore[arg-type]
            outcome = await _fail(tmp_path, server)
            assert outcome.stage == "tls"
            assert not any(line.startswith("AUTH") for line in lines(server))


async def test_what_is_offered_in_the_clear_does_not_count(tmp_path: Path) -> None:
    ehlo = ["250 nexthop.test\nSTARTTLS\nAUTH PLAIN", "250 nexthop.test"]
    async with NextHop(tls=TLS, users=USERS, ehlo=list(ehlo)) as server:
        outcome = await _fail(tmp_path, server)
        assert "is offered" in outcome.text


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(
    "said",
    [
        Drop(),
        Drop(reset=True),
        Hang(),
        "421 4.3.2 Going down",
        "250 Fine",
        "334 ",
        "334 not base64!",
        Raw(b"\xff\xfe\r\n"),
        Raw(b"334-x\r\n" * 20_000),
        Trickle("535 5.7.8 No"),
    ],
)
async def test_servers_that_do_not_play_along(tmp_path: Path, mechanism: str, said: Any) -> None:
    async with NextHop(tls=TLS, users=USERS, mechanisms=[mechanism], auth=said) as server:
        timeouts = Timeouts(auth=0.5) if isinstance(said, Hang) else Timeouts()
        outcome = await _fail(tmp_path, server, timeouts=timeouts)
        assert outcome.stage == "auth"
        assert outcome.text


async def test_a_server_that_repeats_the_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = [
        base64.b64encode(f"\0gateway\0{PASSWORD}".encode()).decode(),
        base64.b64encode(PASSWORD.encode()).decode(),
        PASSWORD,
    ]
    async with NextHop(tls=TLS, users=USERS, auth=f"535 5.7.8 {' or '.join(said)}?") as server:
        outcome = await _fail(tmp_path, server)
    assert outcome.text.endswith("535 5.7.8 *** or *** or ***?")
    assert "***" in caplog.text
    for secret in said:
        assert secret not in caplog.text


# Where the password is.


def test_a_password_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    for text in (PASSWORD, f"{PASSWORD}\n", f"{PASSWORD}\r\n"):
        path.write_bytes(text.encode())
        credentials = credentials_of(Login(user="gateway", password_file=path))
        assert credentials == GOOD
        assert PASSWORD not in repr(credentials)
    path.write_text("  spaces count \n")
    assert credentials_of(Login(user="a", password_file=path)).password == "  spaces count "


def test_a_password_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_PASSWORD", PASSWORD)
    assert credentials_of(Login(user="gateway", password_env="RELAY_PASSWORD")) == GOOD


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"swordfish\ntwo\n", "several lines"),
        (b"swordfish\n\n", "several lines"),
        (b"a\0b", "control characters"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_a_file_with_something_else(tmp_path: Path, octets: bytes, reason: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(octets)
    with pytest.raises(ValueError, match=reason) as raised:
        credentials_of(Login(user="gateway", password_file=path))
    assert str(path) in str(raised.value)
    assert "swordfish" not in str(raised.value)


def test_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "password"
    path.touch()
    login = Login(user="gateway", password_file=path)
    path.unlink()
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        credentials_of(login)
    monkeypatch.delenv("RELAY_PASSWORD", raising=False)
    with pytest.raises(
        ValueError, match="RELAY_PASSWORD is not set; it has the password of gateway"
    ):
        credentials_of(Login(user="gateway", password_env="RELAY_PASSWORD"))
