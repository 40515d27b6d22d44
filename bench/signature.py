"""The DKIM key that every system signs with, and the check that it did."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.error import BenchError

DOMAIN = "bench.test"
SELECTOR = "s1"
BITS = 2048


@dataclass(frozen=True)
class SigningKey:
    """An RSA key: where its PEM file is, and the DNS record that verifiers would find."""

    file: Path
    record: bytes

    @classmethod
    def make(cls, file: Path) -> SigningKey:
        """Makes a new key of `BITS` and writes it as PKCS #1, which every system here reads."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
        file.touch(mode=0o600)
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(file, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public))

    def verify(self, message: bytes) -> str:
        """Checks the signature of a message as a receiver would (RFC 6376).

        Returns:
            Its algorithm and canonicalization, such as `rsa-sha256 relaxed/relaxed`.

        Raises:
            BenchError: there is no signature by this key, or it does not fit.
        """

        def record(name: bytes, **_: Any) -> bytes:
            known = f"{SELECTOR}._domainkey.{DOMAIN}.".encode()
            return self.record if name == known else b""

        verifier = dkim.DKIM(message)
        try:
            valid = verifier.verify(dnsfunc=record)
        except dkim.DKIMException as error:
            raise BenchError(f"the DKIM signature is broken: {error}") from error
        fields: dict[bytes, bytes] = verifier.signature_fields
        if not fields:
            raise BenchError("the message came out without a DKIM signature")
        if not valid or verifier.keysize != BITS:
            raise BenchError("the DKIM signature does not verify with the key")
        return f"{fields[b'a'].decode()} {fields.get(b'c', b'simple/simple').decode()}"
