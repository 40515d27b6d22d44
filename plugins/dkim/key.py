"""Keys: private ones in files that nobody else may read or write, and their public halves."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

KeyType = Literal["rsa", "ed25519"]

LEAST_RSA_BITS = 2048
"""What a signer needs; receivers are asked to take 1024 too (RFC 8301 3.2)."""

_PROBE = b"Does the signature verify?"
_SCHEME = padding.PKCS1v15()
_DIGEST = hashes.SHA256()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key.

    Attributes:
        type: what `k=` says in its record.
        octets: what stands in `p=`: DER of an RSA key, the 32 octets of an Ed25519 key.
        bits: the size of an RSA key's modulus, 256 for Ed25519.
        verifies: whether a signature is this key's signature over some data.
    """

    type: KeyType
    octets: bytes = field(repr=False)
    bits: int
    verifies: Callable[[bytes, bytes], bool] = field(repr=False, compare=False)

    @property
    def algorithm(self) -> str:
        """What `a=` says: `rsa-sha256` (RFC 8301) or `ed25519-sha256` (RFC 8463)."""
        return f"{self.type}-sha256"


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key.

    Attributes:
        public: its public half.
        sign: the signature over data of any length.
    """

    public: PublicKey
    sign: Callable[[bytes], bytes] = field(repr=False)

    @property
    def algorithm(self) -> str:
        """What `a=` says in its signatures."""
        return self.public.algorithm


def read_private_key(path: Path) -> PrivateKey:
    """Reads a PEM file (PKCS#1 or PKCS#8) with an RSA or Ed25519 key, not encrypted.

    Raises:
        ValueError: the file cannot be read, other users may read it or change it, or the key in it
            is none that a receiver would accept. The text names the file.
    """
    pem = _read_secret(path)
    try:
        # Looking for prime factors takes 30 ms a key, which sites with many keys would wait for at
        # each start. That the key's signatures verify is shown below, in 1 ms.
        key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise ValueError(f"{path}: the key is encrypted; store it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path}: holds no private key in PEM format (PKCS#1 or PKCS#8)") from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < LEAST_RSA_BITS:
            raise ValueError(
                f"{path}: an RSA key of {key.key_size} bits is too short: "
                f"{LEAST_RSA_BITS} bits or more are needed"
            )
        private = PrivateKey(_rsa_public(key.public_key()), _rsa_signer(key))
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        private = PrivateKey(_ed25519_public(key.public_key()), _ed25519_signer(key))
    else:
        raise ValueError(f"{path}: DKIM knows RSA and Ed25519 keys, and this is neither")
    try:
        sound = private.public.verifies(private.sign(_PROBE), _PROBE)
    except ValueError:
        sound = False
    if not sound:
        raise ValueError(f"{path}: the key is damaged: what it signs does not verify")
    return private


def new_private_key(kind: KeyType, bits: int = LEAST_RSA_BITS) -> bytes:
    """A new private key as PEM (PKCS#8); `bits` is the size of an RSA key."""
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if kind == "rsa":
        key = rsa.generate_private_key(65537, bits)
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_private_key(path: Path, pem: bytes) -> None:
    """Writes a key to a new file that only its owner may read; folders are made if need be.

    Raises:
        FileExistsError: there is something at `path`.
        OSError: the file cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(descriptor)


def public_key(kind: str, octets: bytes) -> PublicKey:
    """The key of a record: `kind` is its `k=`, `octets` what its `p=` holds.

    Raises:
        ValueError: there is no such kind, or the octets are no key of this kind. The text is made
            of ours alone.
    """
    if kind == "ed25519":
        if len(octets) != 32:
            raise ValueError("no Ed25519 key, which has 32 octets")
        return _ed25519_public(ed25519.Ed25519PublicKey.from_public_bytes(octets))
    if kind != "rsa":
        raise ValueError("a key of an unknown type")
    try:
        key = load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("no RSA key") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("no RSA key")
    return _rsa_public(key)


def _read_secret(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: is not a file")
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
                raise ValueError(
                    f"{path}: mode {mode:04o} lets other users read or change the key; "
                    f"use 0600 or 0640 (chmod 0600 {path})"
                )
            return file.read()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None


def _rsa_signer(key: rsa.RSAPrivateKey) -> Callable[[bytes], bytes]:
    return lambda data: key.sign(data, _SCHEME, _DIGEST)


def _ed25519_signer(key: ed25519.Ed25519PrivateKey) -> Callable[[bytes], bytes]:
    # RFC 8463 3: the signature is over the SHA-256 digest of the data.
    return lambda data: key.sign(hashlib.sha256(data).digest())


def _rsa_public(key: rsa.RSAPublicKey) -> PublicKey:
    def verifies(signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature, data, _SCHEME, _DIGEST)
        except (InvalidSignature, ValueError):
            return False
        return True

    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey("rsa", octets, key.key_size, verifies)


def _ed25519_public(key: ed25519.Ed25519PublicKey) -> PublicKey:
    def verifies(signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature, hashlib.sha256(data).digest())
        except InvalidSignature:
            return False
        return True

    return PublicKey("ed25519", key.public_bytes_raw(), 256, verifies)
