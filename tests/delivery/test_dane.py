"""DANE (RFC 7672): which records say something, and which certificates they mean."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.delivery.dane import matches, usable
from gateway.resolver import Tlsa
from tests.delivery.authority import Authority, Identity, self_signed

HOST = "mx.example.com"
NOW = datetime.now(UTC)
ROOT = Authority(name="Root")
BELOW = Authority(ROOT, "Below")
SERVER = BELOW.issue(HOST, with_root=True)


def _record(usage: int, selector: int, matching: int, certificate: x509.Certificate) -> Tlsa:
    if selector:
        data = certificate.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
    else:
        data = certificate.public_bytes(Encoding.DER)
    digest = {1: hashlib.sha256, 2: hashlib.sha512}.get(matching)
    return Tlsa(usage, selector, matching, digest(data).digest() if digest else data)


def _is_right(
    identity: Identity | Sequence[bytes], *records: Tlsa, names: Sequence[str] = (HOST,)
) -> bool:
    chain = identity.der if isinstance(identity, Identity) else identity
    assert usable(records) == records
    return matches(records, chain, names, datetime.now(UTC))


# What can be used.


def test_usages_of_the_web_and_unknown_numbers_say_nothing() -> None:
    good = Tlsa(3, 1, 1, b"x")
    others = [Tlsa(usage, 1, 1, b"x") for usage in (0, 1, 4, 255)]
    others += [Tlsa(3, 2, 1, b"x"), Tlsa(3, 1, 3, b"x"), Tlsa(3, 0, 0, b""), Tlsa(3, 1, 1, b"")]
    assert usable([*others, good]) == (good,)
    assert usable(others) == ()


def test_of_two_digests_of_the_same_the_stronger_one_counts() -> None:
    weak, strong = Tlsa(3, 1, 1, b"w"), Tlsa(3, 1, 2, b"s")
    whole, other_usage = Tlsa(3, 1, 0, b"x"), Tlsa(2, 1, 1, b"x")
    other_selector = Tlsa(3, 0, 1, b"x")
    assert usable([weak, strong, whole, other_usage, other_selector]) == (
        strong,
        whole,
        other_usage,
        other_selector,
    )


# The certificate itself (usage 3).


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_the_certificate_itself(selector: int, matching: int) -> None:
    other = BELOW.issue(HOST)
    record = _record(3, selector, matching, SERVER.chain[0])
    assert _is_right(SERVER, record)
    assert not _is_right(other, record)
    assert _is_right(SERVER, _record(3, selector, matching, other.chain[0]), record)


def test_of_the_certificate_itself_neither_name_nor_date_nor_issuer_counts() -> None:
    expired = self_signed("elsewhere.example", days=(-9, -8))
    assert _is_right(expired, _record(3, 1, 1, expired.chain[0]))


def test_an_issuer_is_not_the_certificate_itself() -> None:
    assert not _is_right(SERVER, _record(3, 1, 1, BELOW.certificate))


def test_nothing_shown_matches_nothing() -> None:
    record = _record(3, 0, 1, SERVER.chain[0])
    assert not _is_right([], record)
    assert not _is_right([b"no certificate"], record)
    assert not _is_right([SERVER.der[0][:-1]], record)


def test_rubbish_behind_the_certificate_itself_does_not_matter() -> None:
    assert _is_right([SERVER.der[0], b"rubbish"], _record(3, 1, 1, SERVER.chain[0]))


# Its issuer (usage 2).


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("issuer", [BELOW, ROOT])
def test_the_issuer(selector: int, matching: int, issuer: Authority) -> None:
    record = _record(2, selector, matching, issuer.certificate)
    assert _is_right(SERVER, record)
    assert not _is_right(Authority(name="Root").issue(HOST, with_root=True), record)


def test_the_issuer_may_be_in_the_record_only() -> None:
    server = BELOW.issue(HOST)
    record = _record(2, 0, 0, ROOT.certificate)
    assert len(server.chain) == 2
    assert _is_right(server, record)
    # A digest cannot be turned round.
    assert not _is_right(server, _record(2, 0, 1, ROOT.certificate))


def test_an_issuer_that_has_not_signed_proves_nothing() -> None:
    """Anyone can show another's certificate beside his own."""
    forged = self_signed(HOST)
    same_name = Authority(name="Below").issue(HOST)
    record = _record(2, 1, 1, BELOW.certificate)
    assert not _is_right([*forged.der, *BELOW.own.der], record)
    assert not _is_right([*same_name.der, *BELOW.own.der], record)


def test_a_server_is_not_its_own_issuer() -> None:
    alone = self_signed(HOST)
    assert not _is_right(alone, _record(2, 1, 1, alone.chain[0]))


def test_a_server_cannot_issue() -> None:
    thief = Authority(
        BELOW, "a server", [(x509.BasicConstraints(ca=False, path_length=None), True)]
    )
    older = Authority(BELOW, "a server", [])
    unsigning = Authority(
        BELOW,
        "a server",
        [(x509.BasicConstraints(ca=True, path_length=None), True), (_usage(cert=False), True)],
    )
    for authority in (thief, older, unsigning):
        assert not _is_right(
            authority.issue(HOST, with_root=True), _record(2, 1, 1, ROOT.certificate)
        )


def test_an_issuer_with_the_usual_extensions() -> None:
    usual = Authority(
        ROOT,
        "Usual",
        [
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (_usage(cert=True), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        ],
    )
    record = _record(2, 1, 1, ROOT.certificate)
    assert _is_right(usual.issue(HOST, with_root=True), record)
    further = Authority(usual, "Further")
    assert not _is_right(further.issue(HOST, with_root=True), record), "the path is too long"


@pytest.mark.parametrize(
    ("presented", "wanted", "right"),
    [
        ("mx.example.com", "mx.example.com", True),
        ("MX.Example.COM", "mx.example.com.", True),
        ("*.example.com", "mx.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.mx.example.com", False),
        ("example.com", "mx.example.com", False),
        ("mx.example.com", "example.com", False),
        ("m*.example.com", "mx.example.com", False),
    ],
)
def test_below_an_issuer_the_name_counts(presented: str, wanted: str, right: bool) -> None:
    server = BELOW.issue(presented, with_root=True)
    record = _record(2, 1, 1, BELOW.certificate)
    assert _is_right(server, record, names=["other.example", wanted]) is right


def test_the_common_name_counts_where_there_is_no_other() -> None:
    record = _record(2, 1, 1, BELOW.certificate)
    assert _is_right(BELOW.issue(common_name=HOST), record)
    assert not _is_right(BELOW.issue("x.example", common_name=HOST, with_root=True), record)


def test_below_an_issuer_the_dates_count() -> None:
    record = _record(2, 1, 1, ROOT.certificate)
    for days in ((-9, -8), (1, 2)):
        assert not _is_right(BELOW.issue(HOST, days=days, with_root=True), record)
        late = Authority(ROOT, "Late", days=days)
        assert not _is_right(late.issue(HOST, with_root=True), record)
    later = datetime.now(UTC) + timedelta(days=2)
    assert not matches([record], SERVER.der, [HOST], later)


def test_below_an_issuer_the_purpose_counts() -> None:
    record = _record(2, 1, 1, BELOW.certificate)
    client = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    anything = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    assert not _is_right(BELOW.issue(HOST, extensions=[(client, False)], with_root=True), record)
    assert _is_right(BELOW.issue(HOST, extensions=[(anything, False)], with_root=True), record)


def test_what_is_critical_and_not_understood_counts_against_it() -> None:
    record = _record(2, 1, 1, BELOW.certificate)
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\5\0")
    assert _is_right(BELOW.issue(HOST, extensions=[(unknown, False)], with_root=True), record)
    assert not _is_right(BELOW.issue(HOST, extensions=[(unknown, True)], with_root=True), record)


@pytest.mark.parametrize(
    ("permitted", "excluded", "right"),
    [
        (["example.com"], None, True),
        ([".example.com"], None, True),
        (["mx.example.com"], None, True),
        (["ample.com"], None, False),
        (["example.net"], None, False),
        (None, ["example.com"], False),
        (None, ["example.net"], True),
        (["example.com"], ["mx.example.com"], False),
    ],
)
def test_an_issuer_may_be_limited_to_names(
    permitted: list[str] | None, excluded: list[str] | None, right: bool
) -> None:
    names = x509.NameConstraints(
        [x509.DNSName(name) for name in permitted] if permitted else None,
        [x509.DNSName(name) for name in excluded] if excluded else None,
    )
    limited = Authority(
        ROOT, "Limited", [(x509.BasicConstraints(ca=True, path_length=0), True), (names, True)]
    )
    server = limited.issue(HOST, with_root=True)
    assert _is_right(server, _record(2, 1, 1, ROOT.certificate)) is right


def test_a_damaged_signature_proves_nothing() -> None:
    damaged = bytearray(SERVER.der[0])
    damaged[-1] ^= 1
    record = _record(2, 1, 1, BELOW.certificate)
    assert not _is_right([bytes(damaged), *SERVER.der[1:]], record)


@pytest.mark.parametrize(("digest", "right"), [("sha256", True), ("sha1", False)])
def test_a_signature_that_can_be_forged_proves_nothing(
    debian_program: Callable[[str], Path], tmp_path: Path, digest: str, right: bool
) -> None:
    openssl = debian_program("openssl")
    (tmp_path / "issuer.pem").write_bytes(BELOW.own.pem())
    (tmp_path / "extensions").write_text(f"subjectAltName=DNS:{HOST}\n")
    for command in (
        "req -new -newkey rsa:2048 -nodes -keyout key -out request -subj /CN=x",
        f"x509 -req -in request -{digest} -CA issuer.pem -CAkey issuer.pem -CAcreateserial"
        " -extfile extensions -days 1 -outform DER -out certificate",
    ):
        subprocess.run([openssl, *command.split()], cwd=tmp_path, check=True, capture_output=True)
    own = (tmp_path / "certificate").read_bytes()
    assert _is_right([own, *BELOW.own.der], _record(2, 1, 1, BELOW.certificate)) is right


def test_cross_signed_issuers_do_not_lead_astray() -> None:
    """The same key and name under two authorities: one leads to the record, one does not."""
    other = Authority(name="Other root")
    crossed = x509.CertificateBuilder(
        other.subject,
        BELOW.subject,
        BELOW.key.public_key(),
        x509.random_serial_number(),
        NOW - timedelta(days=1),
        NOW + timedelta(days=1),
    ).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    cross = crossed.sign(other.key, hashes.SHA256()).public_bytes(Encoding.DER)
    own, below, root = SERVER.der
    for chain in ([own, cross, below, root], [own, below, cross, root], [own, root, cross, below]):
        assert _is_right(chain, _record(2, 1, 1, ROOT.certificate))
        assert not _is_right(chain, _record(2, 1, 1, other.certificate))


def test_a_chain_without_end_is_not_followed() -> None:
    assert not _is_right(
        [SERVER.der[0], *[BELOW.own.der[0]] * 20, *ROOT.own.der], _record(2, 1, 1, ROOT.certificate)
    )


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, len(SERVER.chain) - 1),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damage_anywhere_proves_nothing(which: int, damage: list[tuple[int, int]]) -> None:
    chain = [bytearray(der) for der in SERVER.der]
    for place, octet in damage:
        chain[which][place % len(chain[which])] = octet
    shown = [bytes(der) for der in chain]
    found = matches([_record(2, 0, 1, ROOT.certificate)], shown, [HOST], datetime.now(UTC))
    end = _signed(SERVER.der[which]).stop
    if shown == SERVER.der:
        assert found
    elif which == len(chain) - 1 or shown[which][:end] != SERVER.der[which][:end]:
        assert not found
    # Else only a signature differs, which may be written in several ways: where its last bit is 0,
    # it may be said to be none. It holds for the same content then.


@given(st.lists(st.binary(max_size=40), max_size=3), st.integers(2, 3), st.integers(0, 1))
def test_any_octets_are_no_certificate(chain: list[bytes], usage: int, selector: int) -> None:
    assert not matches([Tlsa(usage, selector, 1, b"x" * 32)], chain, [HOST], NOW)


@given(st.integers(0, len(SERVER.der[0]) - 1))
def test_a_part_of_a_certificate_is_none(length: int) -> None:
    part = SERVER.der[0][:length]
    key = Tlsa(3, 1, 0, SERVER.spki)
    assert matches([key], SERVER.der, [HOST], NOW)
    if SERVER.spki not in part:
        assert not matches([key], [part], [HOST], NOW)


@pytest.mark.parametrize("change", [0x01, 0x02, 0x80, 0xFF])
def test_no_change_of_any_octet_gets_through(change: int) -> None:
    records = [_record(3, 0, 1, SERVER.chain[0]), _record(2, 1, 1, BELOW.certificate)]
    own = SERVER.der[0]
    signed = _signed(own)
    for place in range(len(own)):
        changed = bytearray(own)
        changed[place] ^= change
        found = matches(records, [bytes(changed), *SERVER.der[1:]], [HOST], NOW)
        # A signature may be written in several ways, and holds for the same content then.
        if place in signed:
            assert not found, place


def _signed(der: bytes) -> range:
    """Where the part of a certificate is that its signature is of."""
    signed = x509.load_der_x509_certificate(der).tbs_certificate_bytes
    first = der.index(signed)
    return range(first, first + len(signed))


def _usage(*, cert: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
