"""Keys made for the tests, messages to sign, and what DNS would say of the keys."""

from __future__ import annotations

import logging
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import dkim
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.hooks import Client, Context, Message
from plugins.dkim import Dkim, DkimConfig

NOW = 1_700_000_000


@dataclass(frozen=True)
class KeyPair:
    """A private key as PEM (PKCS#8) and the text of its DNS record."""

    pem: bytes
    record: str

    def write(self, path: Path, mode: int = 0o600) -> Path:
        path.write_bytes(self.pem)
        path.chmod(mode)
        return path


@cache
def rsa_key() -> KeyPair:
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return KeyPair(pem, f"v=DKIM1; k=rsa; p={b64encode(public).decode()}")


@cache
def ed25519_key() -> KeyPair:
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return KeyPair(pem, f"v=DKIM1; k=ed25519; p={b64encode(public).decode()}")


def plugin(
    folder: Path,
    *keys: dict[str, object],
    pairs: tuple[KeyPair, ...] = (),
    **config: object,
) -> Dkim:
    """A plugin whose clock stands still. Without keys: one RSA key for example.com, selector s1."""
    entries = []
    for number, key in enumerate(keys or ({},)):
        pair = pairs[number] if pairs else rsa_key()
        file = pair.write(folder / f"{number}.pem")
        entries.append({"domain": "example.com", "selector": "s1", "file": str(file)} | key)
    made = Dkim(DkimConfig.model_validate({"keys": entries, **config}))
    made.start(
        Context(
            name="dkim",
            hostname="gw.example.com",
            role="worker",
            folder=folder / "data",
            base=folder,
            clock=lambda: NOW,
            log=logging.getLogger("gateway.plugins.dkim"),
        )
    )
    return made


def message(content: bytes) -> Message:
    """A message that was sealed, as a `seal` hook gets it."""
    made = Message("4fJx", "news@example.com", Client("192.0.2.1"))
    made.content = content
    made.seal()
    return made


def verified_by_dkimpy(content: bytes, pair: KeyPair, index: int = 0) -> bool:
    """Whether dkimpy verifies the signature of an RSA key: the one with this index from the top."""
    record = pair.record.encode()
    verifier = dkim.DKIM(content, timeout=1)
    try:
        return bool(verifier.verify(idx=index, dnsfunc=lambda name, timeout=5: record))
    except dkim.ValidationError:
        return False
