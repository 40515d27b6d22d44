from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from plugins.dkim.key import (
    KeyType,
    new_private_key,
    public_key,
    read_private_key,
    write_private_key,
)
from tests.plugins.dkim_keys import ed25519_key, rsa_key

EC_KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("style", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_rsa_key_signs_with_sha256(tmp_path: Path, style: PrivateFormat) -> None:
    private = load_pem_private_key(rsa_key().pem, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    pem = private.private_bytes(Encoding.PEM, style, NoEncryption())

    key = read_private_key(write(tmp_path / "key.pem", pem))

    assert key.algorithm == "rsa-sha256"
    signature = key.sign(b"data")
    private.public_key().verify(signature, b"data", padding.PKCS1v15(), hashes.SHA256())


def test_an_ed25519_key_signs_the_digest(tmp_path: Path) -> None:
    private = load_pem_private_key(ed25519_key().pem, None)
    assert isinstance(private, ed25519.Ed25519PrivateKey)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(b"data")

    key = read_private_key(ed25519_key().write(tmp_path / "key.pem"))

    assert key.algorithm == "ed25519-sha256"
    private.public_key().verify(key.sign(b"data"), digest.finalize())


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_modes_that_keep_the_secret(tmp_path: Path, mode: int) -> None:
    read_private_key(rsa_key().write(tmp_path / "key.pem", mode))


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o620, 0o602, 0o777])
def test_modes_that_let_others_in_are_refused(tmp_path: Path, mode: int) -> None:
    path = rsa_key().write(tmp_path / "key.pem", mode)

    with pytest.raises(ValueError, match=rf"{path}: mode {mode:04o} lets other users"):
        read_private_key(path)


def test_the_mode_of_the_file_counts_not_that_of_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link.pem"
    link.symlink_to(rsa_key().write(tmp_path / "key.pem"))
    read_private_key(link)
    (tmp_path / "key.pem").chmod(0o644)

    with pytest.raises(ValueError, match="mode 0644"):
        read_private_key(link)


def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    short = rsa.generate_private_key(65537, 1024)
    pem = short.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = write(tmp_path / "key.pem", pem)

    with pytest.raises(ValueError, match=rf"{path}: an RSA key of 1024 bits is too short"):
        read_private_key(path)


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    private = load_pem_private_key(ed25519_key().pem, None)
    secret = BestAvailableEncryption(b"passphrase")
    path = write(
        tmp_path / "key.pem", private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)
    )

    with pytest.raises(ValueError, match=rf"{path}: the key is encrypted"):
        read_private_key(path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = write(tmp_path / "key.pem", pem)

    with pytest.raises(ValueError, match=rf"{path}: DKIM knows RSA and Ed25519 keys"):
        read_private_key(path)


@pytest.mark.parametrize("content", [b"", b"no key", b"\xff\0", rsa_key().pem[:200]])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "key.pem", content)

    with pytest.raises(ValueError, match=rf"{path}: holds no private key in PEM format"):
        read_private_key(path)


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    private = load_pem_private_key(rsa_key().pem, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    numbers = private.private_numbers()
    damaged = rsa.RSAPrivateNumbers(
        numbers.p,
        numbers.q,
        numbers.d + 2,
        numbers.dmp1 + 2,
        numbers.dmq1,
        numbers.iqmp,
        numbers.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)
    pem = damaged.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = write(tmp_path / "key.pem", pem)

    with pytest.raises(ValueError, match=rf"{path}: the key is damaged"):
        read_private_key(path)


@pytest.mark.parametrize(("kind", "bits"), [("rsa", 2048), ("rsa", 3072), ("ed25519", 256)])
def test_a_new_key_is_written_for_its_owner_only(tmp_path: Path, kind: KeyType, bits: int) -> None:
    path = tmp_path / "keys" / "example.com" / "s1.pem"
    umask = os.umask(0)
    try:
        write_private_key(path, new_private_key(kind, bits))
    finally:
        os.umask(umask)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    key = read_private_key(path)
    assert (key.public.type, key.public.bits) == (kind, bits)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "key.pem", b"precious")
    link = tmp_path / "link.pem"
    link.symlink_to(tmp_path / "elsewhere.pem")

    for taken in (path, link):
        with pytest.raises(FileExistsError):
            write_private_key(taken, b"new")
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
def test_the_public_key_of_a_record_is_that_of_the_file(tmp_path: Path, form: PublicFormat) -> None:
    key = read_private_key(rsa_key().write(tmp_path / "key.pem"))
    private = load_pem_private_key(rsa_key().pem, None)

    published = public_key("rsa", private.public_key().public_bytes(Encoding.DER, form))

    assert published == key.public
    assert published.verifies(key.sign(b"data"), b"data")
    assert not published.verifies(key.sign(b"data"), b"date")
    assert not published.verifies(b"", b"data")


@pytest.mark.parametrize(
    ("kind", "octets", "problem"),
    [
        ("rsa", b"", "no RSA key"),
        ("rsa", b"\x30\x03\x02\x01\x01", "no RSA key"),
        ("rsa", EC_KEY, "no RSA key"),
        ("ed25519", b"x" * 31, "no Ed25519 key, which has 32 octets"),
        ("dsa", b"x", "a key of an unknown type"),
    ],
    ids=["nothing", "rubbish", "elliptic", "short", "unknown"],
)
def test_what_is_no_public_key_is_refused(kind: str, octets: bytes, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        public_key(kind, octets)

    assert str(caught.value) == problem


def test_an_ed25519_signature_of_something_else_does_not_verify(tmp_path: Path) -> None:
    key = read_private_key(ed25519_key().write(tmp_path / "key.pem"))

    assert key.public.verifies(key.sign(b"data"), b"data")
    assert not key.public.verifies(key.sign(b"data"), b"date")
    assert not key.public.verifies(b"short", b"data")


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing\.pem: cannot be read: No such file"):
        read_private_key(tmp_path / "missing.pem")
    with pytest.raises(ValueError, match="is not a file"):
        read_private_key(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ValueError, match="pipe: is not a file"):
        read_private_key(tmp_path / "pipe")


def test_a_key_does_not_show_in_its_repr(tmp_path: Path) -> None:
    key = read_private_key(rsa_key().write(tmp_path / "key.pem"))

    assert repr(key) == "PrivateKey(public=PublicKey(type='rsa', bits=2048))"
