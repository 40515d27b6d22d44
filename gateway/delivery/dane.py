"""DANE for SMTP (RFC 7672): whether a server's certificates are those of its TLSA records. Pure."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from gateway.resolver import Tlsa

TRUST_ANCHOR = 2
END_ENTITY = 3
_WHOLE, _KEY = 0, 1
_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}

LONGEST_CHAIN = 10
"""Certificates of a server that are looked at: a hostile one could send very many."""

_BROKEN_HASHES = ("md5", "sha1")

T = TypeVar("T", bound=x509.ExtensionType)


def usable(records: Iterable[Tlsa]) -> tuple[Tlsa, ...]:
    """Those records that say something to an SMTP client (RFC 7672 3.1).

    Where a key or certificate is there with two digests, the weaker one does not count (RFC 7671
    9): whoever forges a certificate would choose it.
    """
    known = [
        record
        for record in records
        if record.usage in (TRUST_ANCHOR, END_ENTITY)
        and record.selector in (_WHOLE, _KEY)
        and (record.matching == 0 or record.matching in _DIGESTS)
        and record.data
    ]
    strong = {(record.usage, record.selector) for record in known if record.matching == 2}
    return tuple(
        record
        for record in known
        if record.matching != 1 or (record.usage, record.selector) not in strong
    )


def matches(
    records: Sequence[Tlsa], chain: Sequence[bytes], names: Iterable[str], now: datetime
) -> bool:
    """Whether a server is the one that its usable TLSA records mean.

    Args:
        records: usable ones.
        chain: the certificates that the server showed, its own first, as DER.
        names: those that the certificate may be for, where a record names its issuer (RFC 7672
            3.2.2); where a record names the certificate itself, names and dates do not count.
        now: the time, with its zone.
    """
    if not chain:
        return False
    if any(_is_meant(record, chain[0]) for record in records if record.usage == END_ENTITY):
        return True
    anchors = [record for record in records if record.usage == TRUST_ANCHOR]
    own = _read(chain[0]) if anchors else None
    if own is None or not _is_for(own, names) or not _is_valid(own, now):
        return False
    in_records = [one.data for one in anchors if (one.selector, one.matching) == (_WHOLE, 0)]
    others = map(_read, [*chain[1:LONGEST_CHAIN], *in_records])
    return _is_issued_by(own, [one for one in others if one is not None], anchors, now)


def _is_meant(record: Tlsa, certificate: bytes) -> bool:
    data = _public_key(certificate) if record.selector == _KEY else certificate
    if data is None:
        return False
    digest = _DIGESTS.get(record.matching)
    return record.data == (data if digest is None else digest(data).digest())


def _read(der: bytes) -> x509.Certificate | None:
    """A certificate that can be read to its end; None otherwise, for it proves nothing."""
    try:
        with warnings.catch_warnings():
            # What the library only warns of, it does not take back.
            warnings.simplefilter("ignore")
            certificate = x509.load_der_x509_certificate(der)
            _ = certificate.extensions, certificate.subject, certificate.issuer
    except Exception:
        # Whatever the library says of octets that a hostile server made up.
        return None
    return certificate


def _is_issued_by(
    own: x509.Certificate,
    others: Sequence[x509.Certificate],
    anchors: Sequence[Tlsa],
    now: datetime,
) -> bool:
    """Whether signatures lead from a certificate to one that a record means.

    All ways are tried at once, so that cross-signed issuers do not lead astray.
    """
    names = _names(own)
    reached = [own]
    rest = [one for one in others if _is_valid(one, now) and _permits(one, names)]
    for depth in range(len(rest)):
        issuers = [one for one in rest if any(_has_signed(one, child, depth) for child in reached)]
        shown = [issuer.public_bytes(Encoding.DER) for issuer in issuers]
        if any(_is_meant(record, der) for der in shown for record in anchors):
            return True
        reached = issuers
        rest = [one for one in rest if one not in issuers]
    return False


def _has_signed(issuer: x509.Certificate, child: x509.Certificate, depth: int) -> bool:
    """Whether an issuer may sign, with so many others between it and the server, and did."""
    constraints = _extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        return False
    if constraints.path_length is not None and constraints.path_length < depth:
        return False
    usage = _extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return False
    try:
        hashed = child.signature_hash_algorithm
        if hashed is not None and hashed.name in _BROKEN_HASHES:
            return False
        # It compares the names as well.
        child.verify_directly_issued_by(issuer)
    except Exception:
        # Also for keys and signatures of kinds that nobody knows.
        return False
    return True


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether it is valid at that time, for servers, and all that it demands is understood."""
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        return False
    if any(
        extension.critical and isinstance(extension.value, x509.UnrecognizedExtension)
        for extension in certificate.extensions
    ):
        return False
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    return (
        purposes is None
        or ExtendedKeyUsageOID.SERVER_AUTH in purposes
        or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in purposes
    )


def _names(certificate: x509.Certificate) -> list[str]:
    """The host names that a certificate is for; the common name counts if there are no others."""
    alternative = _extension(certificate, x509.SubjectAlternativeName)
    names = alternative.get_values_for_type(x509.DNSName) if alternative is not None else []
    if not names:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = [str(attribute.value) for attribute in common]
    return [name.lower() for name in names]


def _is_for(certificate: x509.Certificate, names: Iterable[str]) -> bool:
    """Whether a certificate is for one of some names; `*.` in it stands for one label."""
    wanted = {name.rstrip(".").lower() for name in names}
    parents = {name.partition(".")[2] for name in wanted}
    return any(
        name[2:] in parents if name.startswith("*.") else name in wanted
        for name in _names(certificate)
    )


def _permits(issuer: x509.Certificate, names: Sequence[str]) -> bool:
    """Whether an issuer may vouch for all of these host names (RFC 5280 4.2.1.10)."""
    constraints = _extension(issuer, x509.NameConstraints)
    if constraints is None:
        return True
    permitted = _domains(constraints.permitted_subtrees)
    excluded = _domains(constraints.excluded_subtrees)
    return all(
        (not permitted or _is_within(name, permitted)) and not _is_within(name, excluded)
        for name in names
    )


def _domains(subtrees: Iterable[x509.GeneralName] | None) -> list[str]:
    return [one.value.lower() for one in subtrees or () if isinstance(one, x509.DNSName)]


def _is_within(name: str, domains: Iterable[str]) -> bool:
    return any(f".{name}".endswith(f".{domain.lstrip('.')}") or not domain for domain in domains)


def _extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _public_key(certificate: bytes) -> bytes | None:
    """The SubjectPublicKeyInfo as it stands in a certificate (RFC 5280 4.1); None if there is none.

    Read here, because a key must be compared as it is, and may be of a kind that nobody knows.
    """
    try:
        position, _ = _element(certificate, 0)
        position, _ = _element(certificate, position)
        # The version is optional; then come serial number, signature, issuer, validity and subject.
        for _ in range(6 if certificate[position] == 0xA0 else 5):
            _, position = _element(certificate, position)
        _, end = _element(certificate, position)
    except IndexError:
        return None
    return certificate[position:end] if end <= len(certificate) else None


def _element(der: bytes, position: int) -> tuple[int, int]:
    """Where the contents of a DER element begin and end; its tag has one octet."""
    length = der[position + 1]
    start = position + 2
    if length & 0x80:
        octets = length & 0x7F
        length = int.from_bytes(der[start : start + octets], "big")
        start += octets
    return start, start + length
