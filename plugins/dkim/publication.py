"""What is published of a key, compared with the key. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gateway.hooks import Headers
from plugins.dkim.canonicalization import Canonicalization, body_digest, relaxed_header
from plugins.dkim.config import DkimConfig
from plugins.dkim.key import LEAST_RSA_BITS, PrivateKey, PublicKey
from plugins.dkim.keyring import ANY
from plugins.dkim.record import KeyRecord, parse_record, record_name, record_text, zone_lines
from plugins.dkim.signature import Coverage, Signer
from plugins.dkim.validity import Validity
from plugins.dkim.verification import Result, Verifier, parse_signature


@dataclass(frozen=True, slots=True)
class Publication:
    """A key and where its public half has to be published.

    Attributes:
        pattern: what stands under `domain` in the configuration.
        domain: the domain that signatures name (`d=`); None for a pattern that stands for many.
        selector, private, identity, subdomains, validity: of the key, as configured.
    """

    pattern: str
    domain: str | None
    selector: str
    private: PrivateKey
    identity: str | None
    subdomains: bool
    validity: Validity

    @property
    def name(self) -> str:
        """Where the record stands, with `<domain>` for a domain that is not known."""
        return record_name(self.selector, self.domain or "<domain>")

    @property
    def text(self) -> str:
        """The text of the record."""
        return record_text(self.private.public)

    @property
    def zone(self) -> str:
        """The record in the form of a zone file; a comment if the domain is not known."""
        lines = zone_lines(self.name, self.text)
        return lines if self.domain else "; " + lines.replace("\n", "\n; ")

    @property
    def description(self) -> str:
        """What sort of key it is, in words."""
        return description(self.private.public)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with what is published, or that somebody should know."""

    is_error: bool
    text: str


def publications(config: DkimConfig, domain: str | None = None) -> list[Publication]:
    """All keys of a configuration, or those that sign for one domain.

    Those are its own; without any, those of the nearest parent that signs for what is below it.
    """
    found = [
        Publication(
            pattern,
            None if pattern.startswith(ANY) else pattern,
            key.selector,
            private,
            key.identity,
            key.subdomains,
            key.validity,
        )
        for key in config.keys
        for pattern, private in key.private_keys.items()
    ]
    if domain is None:
        return found
    own = [one for one in found if one.domain == domain]
    parent = domain
    while parent and not own:
        parent = parent.partition(".")[2]
        pattern = f"{ANY}.{parent}" if parent else ANY
        own = [one for one in found if one.domain == parent and one.subdomains]
        own += [replace(one, domain=domain) for one in found if one.pattern == pattern]
    return own


def findings(key: Publication, records: Sequence[bytes] | None, now: float) -> list[Finding]:
    """Everything that is to be said of what is published.

    Args:
        key: the key; its domain is known.
        records: the TXT records at its name; None if the DNS has no answer now.
        now: seconds since the epoch, for a signature as a test.
    """
    if records is None:
        return [Finding(True, "the DNS has no answer now")]
    if not records:
        return [Finding(True, f"missing: there is no TXT record at {key.name}")]
    found: list[Finding] = []
    if len(records) > 1:
        found.append(
            Finding(True, f"{len(records)} TXT records; receivers may take any, leave only one")
        )
    problem = ""
    for text in records:
        try:
            record = parse_record(text)
            break
        except ValueError as error:
            problem = problem or str(error)
    else:
        return [*found, Finding(True, f"no key record: {problem}")]
    found += _differences(key, record)
    if not any(finding.is_error for finding in found):
        failure = _failure_of_a_test(key, records, now)
        if failure is not None:
            found.append(Finding(True, f"a test signature does not verify: {failure}"))
    return found


def description(key: PublicKey) -> str:
    """What sort of key it is, in words."""
    return "Ed25519" if key.type == "ed25519" else f"RSA, {key.bits} bits"


def _differences(key: Publication, record: KeyRecord) -> Iterator[Finding]:
    ours = key.private.public
    if record.revoked:
        yield Finding(True, "revoked: p= is empty")
        return
    try:
        published = record.key()
    except ValueError as error:
        yield Finding(True, f"what is published cannot be used: {error}")
        return
    if published.type != ours.type:
        yield Finding(True, f"k={published.type} is published, and the key is {ours.type}")
    elif published.octets != ours.octets:
        yield Finding(
            True,
            f"differs: {_ends(published.octets)} is published, and the key is {_ends(ours.octets)}",
        )
    if published.type == "rsa" and published.bits < LEAST_RSA_BITS:
        yield Finding(False, f"the published key is short: {published.bits} bits")
    if not record.serves_sha256:
        yield Finding(True, "h= does not name sha256, which signatures use")
    if not record.serves_mail:
        yield Finding(True, "s= does not name email")
    identity = (key.identity or "").lower()
    if record.exact and identity and not identity.endswith(f"@{key.domain}"):
        yield Finding(True, f"t=s forbids an identity in a subdomain, such as {key.identity}")
    if record.testing:
        yield Finding(False, "t=y: test mode; receivers treat the mail as unsigned")


def _ends(octets: bytes) -> str:
    text = b64encode(octets).decode()
    return text if len(text) <= 48 else f"{text[:20]}…{text[-20:]}"


def _failure_of_a_test(key: Publication, records: Sequence[bytes], now: float) -> str | None:
    """Signs a message and verifies it as a receiver would; returns why that fails, or None."""
    assert key.domain is not None
    signer = Signer(key.domain, key.selector, key.private, identity=key.identity)
    author = f" test@{key.domain}".encode()
    body = b"Test\r\n"
    value = signer.sign(
        relaxed_header([(b"from", author)]),
        Coverage().header_list([b"from"]),
        body_digest(body, Canonicalization.RELAXED),
        int(now),
    )
    headers = Headers(b"From:" + author + b"\r\n")
    signature = parse_signature(b"DKIM-Signature: " + value)
    (verdict,) = Verifier().verdicts(headers, body, [signature], {key.name: records}, now)
    return None if verdict.result is Result.PASS else verdict.reason
