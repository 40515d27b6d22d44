from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.configuration.key_pair import KeyPair
from gateway.doctor.certificates import examined, fits
from gateway.doctor.finding import Finding
from gateway.testing.certificate import Certificate
from tests.doctor.sites import found, site_of

NOW = datetime.now(UTC)


def _examined(folder: Path, certificate: Certificate, name: str, days: float = 0) -> list[Finding]:
    path, key = certificate.write(folder)
    pair = KeyPair(certificate=path, key=key)
    return list(examined("listen", pair, name, NOW + timedelta(days=days)))


def _told(findings: list[Finding]) -> dict[str, str]:
    return {one.text.removeprefix("listen: "): one.severity for one in findings}


@pytest.mark.parametrize(
    ("name", "host", "wanted"),
    [
        ("gw.example.com", "gw.example.com", True),
        ("gw.example.com", "GW.example.com.", True),
        ("*.example.com", "gw.example.com", True),
        ("*.example.com", "a.gw.example.com", False),
        ("*.example.com", "example.com", False),
        ("*.", "gw", False),
        ("example.com", "gw.example.com", False),
    ],
)
def test_names_in_certificates(name: str, host: str, wanted: bool) -> None:
    assert fits(name, host) is wanted


def test_a_certificate_that_ends_and_has_another_name(tmp_path: Path) -> None:
    made = Certificate.make("gw.example.com")
    soon = _told(_examined(tmp_path, made, "gw.example.com"))
    assert any("ends on" in text and word == "warning" for text, word in soon.items())
    assert any("signed by itself" in text and word == "note" for text, word in soon.items())
    assert len(soon) == 2
    over = _told(_examined(tmp_path, made, "mx.example.com", days=2))
    assert any("has ended" in text and word == "problem" for text, word in over.items())
    assert any("not for mx.example.com" in text for text in over)
    early = _told(_examined(tmp_path, made, "", days=-2))
    assert any("is valid from" in text and word == "problem" for text, word in early.items())


def _issued(folder: Path, days: int = 90) -> tuple[bytes, bytes, Path]:
    """A certificate and the one that issued it, both as PEM, and the file with its key."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Root")])
    leaf = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gw.example.com")])
    pem = serialization.Encoding.PEM

    def made(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> bytes:
        return (
            x509.CertificateBuilder(root, subject, public, x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("gw.example.com")]), False)
            .sign(root_key, hashes.SHA256())
            .public_bytes(pem)
        )

    file = folder / "key.pem"
    file.touch(mode=0o600)
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made(leaf, key.public_key()), made(root, root_key.public_key()), file


def test_a_chain(tmp_path: Path) -> None:
    leaf, root, key = _issued(tmp_path)
    path = tmp_path / "cert.pem"

    def told(*certificates: bytes) -> list[str]:
        path.write_bytes(b"".join(certificates))
        pair = KeyPair(certificate=path, key=key)
        findings = examined("listen", pair, "gw.example.com", NOW)
        return [one.text for one in findings if one.severity != "ok"]

    assert told(leaf, root) == []
    (alone,) = told(leaf)
    assert "no chain, only the certificate" in alone
    other = told(leaf, Certificate.make("other").certificate)
    assert any("CN=other did not issue CN=gw.example.com" in text for text in other)


def test_a_key_that_everybody_reads(tmp_path: Path) -> None:
    leaf, root, key = _issued(tmp_path)
    (tmp_path / "cert.pem").write_bytes(leaf + root)
    key.chmod(0o644)
    pair = KeyPair(certificate=tmp_path / "cert.pem", key=key)
    (finding,) = [one for one in examined("listen", pair, "", NOW) if one.severity == "problem"]
    assert finding.remedy == f"chmod o= {key}"


async def test_all_certificates_of_a_site(tmp_path: Path) -> None:
    leaf, root, _ = _issued(tmp_path)
    (tmp_path / "cert.pem").write_bytes(leaf + root)
    pair = "certificate: cert.pem, key: key.pem"
    base = (
        "hostname: gw.example.com\nspool: {path: spool}\n"
        f"listen: [{{address: '127.0.0.1:0', tls: {{{pair}}}}}]\n"
        f"http: {{address: '127.0.0.1:0', tls: {{{pair}}}}}\n"
        f"relay: {{tls: {{client: {{{pair}}}}}}}\n"
    )
    findings = await found("certificates", site_of(tmp_path, base=base))
    assert [one.text.partition(": the")[0] for one in findings] == [
        "listen 127.0.0.1:0",
        "http",
        "relay.tls.client",
    ]
    assert {one.severity for one in findings} == {"ok"}


async def test_a_site_without_certificates(tmp_path: Path) -> None:
    (finding,) = await found("certificates", site_of(tmp_path))
    assert finding.severity == "note"
