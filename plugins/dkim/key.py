"""Private keys: read from files that nobody else may read or write."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_LEAST_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key.

    Attributes:
        algorithm: what `a=` says: `rsa-sha256` (RFC 8301) or `ed25519-sha256` (RFC 8463).
        sign: the signature over data of any length.
    """

    algorithm: str
    sign: Callable[[bytes], bytes] = field(repr=False)


def read_private_key(path: Path) -> PrivateKey:
    """Reads a PEM file (PKCS#1 or PKCS#8) with an RSA or Ed25519 key, not encrypted.

    Raises:
        ValueError: the file cannot be read, other users may read it or change it, or the key in it
            is none that a receiver would accept. The text names the file.
    """
    pem = _read_secret(path)
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError(f"{path}: the key is encrypted; store it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path}: holds no private key in PEM format (PKCS#1 or PKCS#8)") from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < _LEAST_RSA_BITS:
            raise ValueError(
                f"{path}: an RSA key of {key.key_size} bits is too short: "
                f"{_LEAST_RSA_BITS} bits or more are needed"
            )
        return PrivateKey("rsa-sha256", _rsa_signer(key))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return PrivateKey("ed25519-sha256", _ed25519_signer(key))
    raise ValueError(f"{path}: DKIM knows RSA and Ed25519 keys, and this is neither")


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
    scheme, digest = padding.PKCS1v15(), hashes.SHA256()
    return lambda data: key.sign(data, scheme, digest)


def _ed25519_signer(key: ed25519.Ed25519PrivateKey) -> Callable[[bytes], bytes]:
    # RFC 8463 3: the signature is over the SHA-256 digest of the data.
    return lambda data: key.sign(hashlib.sha256(data).digest())
