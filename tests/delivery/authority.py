"""Certificates for servers of tests: their authorities, the certificates, and what TLS needs."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A private key, and certificates from its own up to the one below the authority."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def der(self) -> list[bytes]:
        """The certificates as DER."""
        return [one.public_bytes(serialization.Encoding.DER) for one in self.chain]

    @property
    def spki(self) -> bytes:
        """The public key as DER."""
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def pem(self) -> bytes:
        """Key and certificates as PEM."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ) + b"".join(one.public_bytes(serialization.Encoding.PEM) for one in self.chain)

    def write(self, path: Path) -> Path:
        """Writes the PEM to a file."""
        path.write_bytes(self.pem())
        return path

    def server(self, client_ca: Path | None = None) -> ssl.SSLContext:
        """What a server does TLS with; it wants a certificate of that authority from clients."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            self.write(Path(file.name))
            context.load_cert_chain(file.name)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        return context


class Authority:
    """Issues certificates; with an `issuer` it is one below another.

    Args:
        issuer: the authority above.
        name: its name.
        extensions: those of its certificate; of a usual authority if left out.
        days: from when to when its certificate is valid, in days from now.
    """

    def __init__(
        self,
        issuer: Authority | None = None,
        name: str = "Test Authority",
        extensions: Sequence[tuple[x509.ExtensionType, bool]] | None = None,
        days: tuple[int, int] = (-1, 1),
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        if extensions is None:
            extensions = [(x509.BasicConstraints(ca=True, path_length=None), True)]
        above = issuer.own.chain if issuer is not None else ()
        issuer_name, issuer_key = (issuer.subject, issuer.key) if issuer else (subject, key)
        certificate = _sign(subject, key, issuer_name, issuer_key, extensions, days)
        self.subject: x509.Name = subject
        self.key: ec.EllipticCurvePrivateKey = key
        self.certificate = certificate
        self.own: Identity = Identity(key, (certificate, *above))

    def issue(
        self,
        *names: str,
        common_name: str = "a server",
        days: tuple[int, int] = (-1, 1),
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        with_root: bool = False,
    ) -> Identity:
        """A certificate for host names, with the chain up to the authority at the top.

        `with_root`: the chain has that one too.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        all_extensions = list(extensions)
        if names:
            alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            all_extensions.append((alternative, False))
        if not any(isinstance(one, x509.ExtendedKeyUsage) for one, _ in extensions):
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
            all_extensions.append((usage, False))
        certificate = _sign(_name(common_name), key, self.subject, self.key, all_extensions, days)
        above = self.own.chain if with_root else self.own.chain[:-1]
        return Identity(key, (certificate, *above))

    def write(self, path: Path) -> Path:
        """Writes its certificate, for those who trust it."""
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path


def self_signed(*names: str, days: tuple[int, int] = (-1, 1)) -> Identity:
    """A certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    subject = _name("nobody")
    return Identity(key, (_sign(subject, key, subject, key, [(alternative, False)], days),))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _sign(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    days: tuple[int, int],
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())
