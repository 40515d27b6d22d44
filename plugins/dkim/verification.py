"""The signatures of a message, verified (RFC 6376 6, RFC 8301, RFC 8463). Pure."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from gateway.hooks import Headers, domain_name
from plugins.dkim.canonicalization import (
    Canonicalization,
    Octets,
    measured_digest,
    relaxed_header,
    simple_header,
)
from plugins.dkim.key import PublicKey
from plugins.dkim.record import KeyRecord, parse_record, record_name
from plugins.dkim.tag_list import parse_tags, words

_LEAST_RSA_BITS = 1024
_CLOCK_SKEW = 300
"""How many seconds the signer's clock may be ahead of ours."""

_ALGORITHMS = ("rsa-sha256", "ed25519-sha256", "rsa-sha1")
_FIELD_NAME = re.compile(rb"[!-9;-~]+")
_SECONDS = re.compile(rb"[0-9]{1,12}")
_OCTETS = re.compile(rb"[0-9]{1,76}")
# What can stand in Authentication-Results without quotation marks.
_IDENTITY = re.compile(r"[A-Za-z0-9!#$%&'*+?^_`{|}~.-]*@")


class Result(StrEnum):
    """What became of a signature, in the words of RFC 8601 2.7.1."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    POLICY = "policy"
    NEUTRAL = "neutral"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


@dataclass(frozen=True, slots=True)
class Signature:
    """A DKIM-Signature field (RFC 6376 3.5).

    Attributes:
        domain, selector, algorithm: `d=`, `s=` and `a=`, in lower case; names as A-labels.
        header, body: `c=`, the canonicalization of each.
        names: `h=`, in lower case.
        body_hash, octets: `bh=` and `b=`, decoded.
        start: how `b=` begins, by which people tell signatures apart (RFC 6008).
        identity: `i=` if there is one that can be repeated safely.
        identity_domain: the domain in `i=`; without one, that in `d=`.
        length: `l=`, how many octets of the canonical body are signed; None: all.
        signed, expires: `t=` and `x=`, seconds since the epoch, or None.
        field: the field without what `b=` says: its name, and what comes after its colon.
    """

    domain: str
    selector: str
    algorithm: str
    header: Canonicalization
    body: Canonicalization
    names: tuple[bytes, ...]
    body_hash: bytes
    octets: bytes
    start: str
    identity: str | None
    identity_domain: str
    length: int | None
    signed: int | None
    expires: int | None
    field: tuple[bytes, bytes]

    @property
    def record_name(self) -> str:
        """Where the public key stands in the DNS."""
        return record_name(self.selector, self.domain)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a signature; `signature` is None if it cannot be read."""

    result: Result
    reason: str
    signature: Signature | None = None


class _Refusal(Exception):  # noqa: N818 - a verdict, not an error
    def __init__(self, result: Result, reason: str) -> None:
        self.result = result
        self.reason = reason


def parse_signature(raw: bytes) -> Signature:
    """Reads a complete DKIM-Signature field.

    Raises:
        ValueError: it breaks the rules of RFC 6376 3.5. The text is made of ours alone.
    """
    name, _, body = raw.removesuffix(b"\r\n").partition(b":")
    tags = parse_tags(body)
    value = {tag: found.value for tag, found in tags.items()}
    missing = [tag for tag in ("v", "a", "b", "bh", "d", "h", "s") if not value.get(tag)]
    if missing:
        raise ValueError(f"there is no {missing[0]}=")
    if value["v"] != b"1":
        raise ValueError("v= is not 1")
    algorithm = value["a"].decode("latin-1").lower()
    if algorithm not in _ALGORITHMS:
        raise ValueError("a= is an unknown algorithm")
    if b"dns/txt" not in words(value.get("q", b"dns/txt").lower()):
        raise ValueError("q= is an unknown way to get the key")
    header, body_form = _canonicalizations(value.get("c", b"simple"))
    domain = _name("d", value["d"])
    signed, expires = _number("t", value, _SECONDS), _number("x", value, _SECONDS)
    if signed is not None and expires is not None and expires <= signed:
        raise ValueError("x= is not after t=")
    identity, identity_domain = _identity(value.get("i"), domain)
    return Signature(
        domain=domain,
        selector=_name("s", value["s"]),
        algorithm=algorithm,
        header=header,
        body=body_form,
        names=_names(value["h"]),
        body_hash=_base64("bh", value["bh"]),
        octets=_base64("b", value["b"]),
        start=b"".join(value["b"].split())[:8].decode("ascii"),
        identity=identity,
        identity_domain=identity_domain,
        length=_number("l", value, _OCTETS),
        signed=signed,
        expires=expires,
        field=(name, body[: tags["b"].start] + body[tags["b"].end :]),
    )


class Verifier:
    """Verifies the signatures of messages, and remembers public keys that it has read."""

    def __init__(self) -> None:
        # Most mail comes from few senders; reading a key takes some 20 µs.
        self._read = lru_cache(maxsize=256)(_read)

    def verdicts(
        self,
        headers: Headers,
        body: Octets,
        signatures: Sequence[Signature | Verdict],
        published: Mapping[str, Sequence[bytes] | None],
        now: float,
        pause: Callable[[], None] | None = None,
    ) -> list[Verdict]:
        """What is to be said of each signature.

        Args:
            headers: the header of the message.
            body: its body.
            signatures: its signatures; verdicts among them stay as they are.
            published: the TXT records at the name of each key, none if there are none; None if the
                DNS has no answer now.
            now: seconds since the epoch.
            pause: called after each block of the body, to let other threads run.
        """
        content = _Content(headers, body, pause)
        return [
            one
            if isinstance(one, Verdict)
            else self._verdict(content, one, published[one.record_name], now)
            for one in signatures
        ]

    def _verdict(
        self,
        content: _Content,
        signature: Signature,
        records: Sequence[bytes] | None,
        now: float,
    ) -> Verdict:
        try:
            _check_time_and_algorithm(signature, now)
            record, key = self._key(signature, records)
            _check_body(signature, content)
            if not key.verifies(signature.octets, content.signed_header(signature)):
                raise _Refusal(Result.FAIL, "signature does not match")
        except _Refusal as refusal:
            return Verdict(refusal.result, refusal.reason, signature)
        # RFC 6376 3.6.1: to be treated as if it were not signed; people know it by this name.
        test = "; test mode" if record.testing else ""
        return Verdict(Result.PASS, f"{key.bits}-bit key{test}", signature)

    def _key(
        self, signature: Signature, records: Sequence[bytes] | None
    ) -> tuple[KeyRecord, PublicKey]:
        """The key of a signature, which may be used for it (RFC 6376 6.1.2)."""
        if records is None:
            raise _Refusal(Result.TEMPERROR, "no answer from the DNS")
        if not records:
            raise _Refusal(Result.PERMERROR, "no key in the DNS")
        problem = ""
        for text in records:
            try:
                record, key = self._read(text)
                break
            except ValueError as error:
                problem = problem or str(error)
        else:
            raise _Refusal(Result.PERMERROR, f"bad key in the DNS: {problem}")
        if key is None:
            raise _Refusal(Result.PERMERROR, "key revoked")
        if key.algorithm != signature.algorithm:
            raise _Refusal(Result.PERMERROR, "key of another algorithm")
        if not (record.serves_mail and record.serves_sha256):
            raise _Refusal(Result.PERMERROR, "key not for this use")
        if record.exact and signature.identity_domain != signature.domain:
            raise _Refusal(Result.PERMERROR, "key not for subdomains")
        if key.type == "rsa" and key.bits < _LEAST_RSA_BITS:
            # RFC 8301 3.2
            raise _Refusal(Result.FAIL, f"RSA key of {key.bits} bits is too short")
        return record, key


class _Content:
    """The message, whose canonical bodies are hashed once, however many signatures it has."""

    def __init__(self, headers: Headers, body: Octets, pause: Callable[[], None] | None) -> None:
        self._fields: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for field in headers:
            self._fields.setdefault(field.lower, []).append((field.raw, field.body))
        self._body = body
        self._pause = pause
        self._digests: dict[Canonicalization, tuple[bytes, int]] = {}

    def count(self, name: bytes) -> int:
        """How many fields of a name there are."""
        return len(self._fields.get(name, ()))

    def body_digest(self, canonicalization: Canonicalization) -> tuple[bytes, int]:
        """The digest of the canonical body and how long that body is."""
        digest = self._digests.get(canonicalization)
        if digest is None:
            digest = measured_digest(self._body, canonicalization, self._pause)
            self._digests[canonicalization] = digest
        return digest

    def signed_header(self, signature: Signature) -> bytes:
        """What was signed: the fields that the signature names, and its own."""
        left = {name: len(fields) for name, fields in self._fields.items()}
        chosen: list[tuple[bytes, bytes, bytes]] = []
        for name in signature.names:
            if left.get(name):
                # RFC 6376 5.4.2: the lowest first.
                left[name] -= 1
                chosen.append((name, *self._fields[name][left[name]]))
        own_name, own_body = signature.field
        if signature.header is Canonicalization.SIMPLE:
            return simple_header([raw for _, raw, _ in chosen]) + own_name + b":" + own_body
        fields = [(name, body) for name, _, body in chosen]
        fields.append((own_name.rstrip(b" \t").lower(), own_body))
        return relaxed_header(fields).removesuffix(b"\r\n")


def _read(text: bytes) -> tuple[KeyRecord, PublicKey | None]:
    """A record and its key, None if that was revoked."""
    record = parse_record(text)
    return record, None if record.revoked else record.key()


def _check_time_and_algorithm(signature: Signature, now: float) -> None:
    if signature.algorithm == "rsa-sha1":
        raise _Refusal(Result.FAIL, "SHA-1 is not safe")  # RFC 8301 3.1
    if signature.expires is not None and now > signature.expires:
        raise _Refusal(Result.FAIL, "signature expired")
    if signature.signed is not None and now < signature.signed - _CLOCK_SKEW:
        raise _Refusal(Result.POLICY, "signed in the future")


def _check_body(signature: Signature, content: _Content) -> None:
    """Checks what does not need the key: which fields are signed, and the body."""
    if not content.count(b"from"):
        raise _Refusal(Result.PERMERROR, "no From field")
    if content.count(b"from") > signature.names.count(b"from"):
        # Readers may see the other one (RFC 6376 8.15).
        raise _Refusal(Result.FAIL, "a From field is not signed")
    digest, size = content.body_digest(signature.body)
    if signature.length is not None and signature.length > size:
        raise _Refusal(Result.FAIL, "body is shorter than l= says")
    if signature.length is not None and signature.length < size:
        # Anybody may have added the rest (RFC 6376 8.2).
        raise _Refusal(Result.POLICY, "l= leaves a part of the body unsigned")
    if digest != signature.body_hash:
        raise _Refusal(Result.FAIL, "body hash does not match")


def _canonicalizations(value: bytes) -> tuple[Canonicalization, Canonicalization]:
    header, _, body = value.decode("latin-1").lower().partition("/")
    try:
        return Canonicalization(header.strip()), Canonicalization(body.strip() or "simple")
    except ValueError:
        raise ValueError("c= is an unknown canonicalization") from None


def _name(tag: str, value: bytes) -> str:
    try:
        return domain_name(value.decode("utf-8"))
    except ValueError:
        raise ValueError(f"{tag}= is not a domain name") from None


def _identity(value: bytes | None, domain: str) -> tuple[str | None, str]:
    """What to say of `i=`, and its domain, which has to be `domain` or below it."""
    if value is None:
        return None, domain
    local, at, below = value.rpartition(b"@")
    name = _name("i", below)
    if not at or not f".{name}".endswith(f".{domain}"):
        raise ValueError("i= is not at or below d=")
    start = local.decode("latin-1") + "@"
    return (start + name if _IDENTITY.fullmatch(start) else None), name


def _names(value: bytes) -> tuple[bytes, ...]:
    names = tuple([name.lower() for name in words(value)])
    if not all(_FIELD_NAME.fullmatch(name) for name in names):
        raise ValueError("h= is no list of names")
    if b"from" not in names:
        raise ValueError("h= does not name From")
    return names


def _number(tag: str, value: Mapping[str, bytes], form: re.Pattern[bytes]) -> int | None:
    if tag not in value:
        return None
    if not form.fullmatch(value[tag]):
        raise ValueError(f"{tag}= is not a number")
    return int(value[tag])


def _base64(tag: str, value: bytes) -> bytes:
    try:
        return b64decode(b"".join(value.split()), validate=True)
    except binascii.Error:
        raise ValueError(f"{tag}= is not base64") from None
