"""A certificate that lives as long as a test."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Certificate:
    """A certificate for a server, signed by itself: `Certificate.make("mx.example.com")`.

    Attributes:
        name: the host name, or the IP address, that it is for.
        certificate, key: both as PEM.
    """

    name: str
    certificate: bytes
    key: bytes

    @classmethod
    def make(cls, name: str = "localhost") -> Certificate:
        """Makes one that is valid for a day."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([_named(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(name, certificate.public_bytes(pem), private)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Writes `cert.pem` and `key.pem` into a folder and returns their paths."""
        certificate, key = folder / "cert.pem", folder / "key.pem"
        certificate.write_bytes(self.certificate)
        key.touch(mode=0o600)
        key.write_bytes(self.key)
        return certificate, key

    def server(self) -> ssl.SSLContext:
        """What a server does TLS with: `NextHop(tls=certificate.server())`."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with tempfile.TemporaryDirectory() as folder:
            context.load_cert_chain(*self.write(Path(folder)))
        return context

    def client(self) -> ssl.SSLContext:
        """What a client does TLS with that trusts this certificate and no other."""
        return ssl.create_default_context(cadata=self.certificate.decode())


def _named(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
