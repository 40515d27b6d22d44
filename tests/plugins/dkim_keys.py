"""Keys made for the tests, messages to sign, and what DNS would say of the keys."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import dkim
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.hooks import Client, Context, Event, Message, Resolver
from gateway.limits import Limits
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
    made.start(context(folder))
    return made


def context(
    folder: Path,
    resolver: Resolver | None = None,
    clock: Callable[[], float] = lambda: NOW,
    role: Literal["worker", "service", "command"] = "worker",
) -> Context:
    """What the gateway gives to the plugin. Without a resolver: one that reaches no server."""
    return Context(
        name="dkim",
        hostname="gw.example.com",
        role=role,
        folder=folder / "data",
        base=folder,
        clock=clock,
        log=logging.getLogger("gateway.plugins.dkim"),
        resolver=resolver or Resolver(["127.0.0.1:1"], 1.0),
        limits=Limits(folder / "limits"),
        emit=_emit,
    )


def _emit(event: Event) -> asyncio.Future[None]:
    raise AssertionError(f"the plugin emits no events: {event}")


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
    except (dkim.DKIMException, ValueError):
        return False
