"""The example of RFC 8463, appendix A: a key, a message and the one signature that they make."""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from plugins.dkim.canonicalization import Canonicalization, body_digest, relaxed_header
from plugins.dkim.key import read_private_key

SEED = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="

FIELDS = [
    (b"from", b" Joe SixPack <joe@football.example.com>"),
    (b"to", b" Suzie Q <suzie@shopping.example.net>"),
    (b"subject", b" Is dinner ready?"),
    (b"date", b" Fri, 11 Jul 2003 21:00:37 -0700 (PDT)"),
    (b"message-id", b" <20030712040037.46341.5F8J@football.example.com>"),
    (
        b"dkim-signature",
        b" v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
        b" d=football.example.com; i=@football.example.com;\r\n"
        b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
        b" subject : date : message-id : from : subject : date;\r\n"
        b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
        b" b=",
    ),
]
BODY = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"


def test_the_body_hash() -> None:
    digest = body_digest(BODY, Canonicalization.RELAXED)

    assert b64encode(digest) == b"2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="


def test_the_signature(tmp_path: Path) -> None:
    seed = ed25519.Ed25519PrivateKey.from_private_bytes(b64decode(SEED))
    path = tmp_path / "brisbane.pem"
    path.write_bytes(seed.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)

    signature = read_private_key(path).sign(relaxed_header(FIELDS).removesuffix(b"\r\n"))

    assert b64encode(signature) == (
        b"/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="
    )
