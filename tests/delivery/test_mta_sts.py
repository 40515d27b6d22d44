"""MTA-STS policies (RFC 8461): what is one, and which servers it allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.mta_sts import LONGEST_AGE, Mode, Policy, policy_id

TEXT = """version: STSv1
mode: enforce
mx: mail.example.com
mx: *.example.net
mx: backupmx.example.com
max_age: 604800
"""


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\n", "\r\n"), TEXT.rstrip()])
def test_the_policy_of_the_rfc(text: str) -> None:
    assert Policy.parse(text) == Policy(
        Mode.ENFORCE, ("mail.example.com", "*.example.net", "backupmx.example.com"), 604800
    )


def test_what_a_policy_may_say_besides() -> None:
    text = (
        "version:STSv1\nmode: \t testing \nx-later: no=idea:\nmx:MAIL.example.com.\n\n"
        "max_age: 99999999\nmode: enforce\nmax_age: 1\n"
    )
    assert Policy.parse(text) == Policy(Mode.TESTING, ("mail.example.com",), LONGEST_AGE)


def test_mode_none_needs_no_servers() -> None:
    assert Policy.parse("version: STSv1\nmode: none\nmax_age: 0\n") == Policy(Mode.NONE, (), 0)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("version: STSv1", "", "no version"),
        ("version: STSv1", "version: STSv2", "no version"),
        ("mode: enforce", "", "mode"),
        ("mode: enforce", "mode: Enforce", "mode"),
        ("mode: enforce", "mode: strict", "mode"),
        ("max_age: 604800", "", "max_age"),
        ("max_age: 604800", "max_age: a week", "max_age"),
        ("max_age: 604800", "max_age: -1", "max_age"),
        ("max_age: 604800", "max_age: 1e3", "max_age"),
        ("max_age: 604800", "max_age: ٣", "max_age"),
        ("max_age: 604800", f"max_age: {'9' * 5000}", "max_age"),
        ("mx: mail.example.com", "mx: mail.*.com", "name of a server"),
        ("mx: mail.example.com", "mx: *", "name of a server"),
        ("mx: mail.example.com", "mx: *.*.com", "name of a server"),
        ("mx: mail.example.com", "mx:", "name of a server"),
        ("mx: mail.example.com", "mx: mail.example.com mail.example.org", "name of a server"),
        ("mx: mail.example.com", "just words", "not a field"),
        ("mx: mail.example.com", ": x", "not a field"),
        (TEXT, "<html>", "not a field"),
        (TEXT, "", "no version"),
        (TEXT, "version: STSv1\nmode: testing\nmax_age: 1\n", "no mx"),
    ],
)
def test_what_is_no_policy(old: str, new: str, reason: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match=reason) as raised:
        Policy.parse(TEXT.replace(old, new))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200


@given(st.text())
def test_any_text_is_a_policy_or_none(text: str) -> None:
    for whole in (text, TEXT + text):
        try:
            policy = Policy.parse(whole)
        except ValueError:
            continue
        assert policy.mx or policy.mode is Mode.NONE
        assert 0 <= policy.max_age <= LONGEST_AGE


@pytest.mark.parametrize("size", [65536])
@pytest.mark.parametrize("piece", [" ", "a", "a:", "mx: ", "\n", "mx: a.", "\t:", "x: \n"])
def test_a_hostile_text_takes_no_time(piece: str, size: int) -> None:
    """What takes longer than this test may, 120 seconds, would take minutes."""
    for text in (piece * size, f"version: STSv1\nmx: x{piece * size}x"):
        with pytest.raises(ValueError, match=r"."):
            Policy.parse(text[:size])
        policy_id([b"v=STSv1;" + text[:size].encode(), b"x"])
        assert policy_id([b"v=STSv1; " + text[:size].encode() + b"!"]) is None


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("mail.example.com", True),
        ("MAIL.Example.Com", True),
        ("mail.example.com.", True),
        ("other.example.com", False),
        ("example.com", False),
        ("x.mail.example.com", False),
        ("a.example.net", True),
        ("a.example.net.", True),
        ("example.net", False),
        (".example.net", False),
        ("a.b.example.net", False),
        ("aexample.net", False),
        ("127.0.0.1", False),
        ("", False),
    ],
)
def test_servers_that_a_policy_allows(host: str, allowed: bool) -> None:
    assert Policy.parse(TEXT).allows(host) is allowed


@pytest.mark.parametrize(
    ("records", "found"),
    [
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        (["v=STSv1;id=1"], "1"),
        (["v=STSv1 ;\tid=Ab9 ; later=x;"], "Ab9"),
        (["v=STSv1; first=x; id=2;"], "2"),
        (["v=spf1 -all", "v=STSv1; id=3"], "3"),
        (["v=STSv1; id=1", "v=STSv1; id=1"], None),
        (["v=STSv1; id=1", "v=STSv1;"], None),
        (["v=STSv1; id=4", "v=STSv1", "v=STSv10; id=1"], "4"),
        (["v=STSv1"], None),
        (["v=STSv1;"], None),
        (["v=STSv1; id="], None),
        (["v=STSv1; id=a-b"], None),
        (["v=STSv1; id=" + "a" * 33], None),
        (["v=STSv1; xid=1"], None),
        (["v=STSv1 id=1"], None),
        (["V=STSV1; id=1"], None),
        (["id=1; v=STSv1"], None),
        ([" v=STSv1; id=1"], None),
        (["v=STSv10; id=1"], None),
        ([], None),
    ],
)
def test_the_record_in_the_dns(records: list[str], found: str | None) -> None:
    assert policy_id([record.encode() for record in records]) == found


@given(st.lists(st.binary(max_size=60).map(lambda octets: b"v=STSv1;" + octets), max_size=2))
def test_any_record_has_an_id_or_none(records: list[bytes]) -> None:
    found = policy_id(records)
    assert found is None or (found.isalnum() and len(found) <= 32)
