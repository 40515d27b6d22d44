"""Signatures verified by the plugin, held to dkimpy's verdict and to RFC 6376, 8301 and 8463."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from plugins.dkim.canonicalization import Canonicalization, body_digest, relaxed_header
from plugins.dkim.key import PrivateKey, public_key
from plugins.dkim.signature import Coverage, Signer
from plugins.dkim.verification import Result, Signature, Verdict, Verifier, parse_signature
from tests.plugins.dkim_keys import (
    NOW,
    KeyPair,
    ed25519_key,
    message,
    plugin,
    rsa_key,
    verified_by_dkimpy,
)
from tests.plugins.test_dkim import CANONICALIZATIONS, HEADER, MESSAGES, sealed

NAME = "s1._domainkey.example.com"


def verdicts(
    content: bytes, records: dict[str, Sequence[bytes] | None] | KeyPair, now: float = NOW
) -> list[Verdict]:
    """What is said of each signature of a message."""
    if isinstance(records, KeyPair):
        records = {NAME: [records.record.encode()]}
    subject = message(content)
    signatures: list[Signature | Verdict] = []
    for field in subject.headers.fields("DKIM-Signature"):
        try:
            signatures.append(parse_signature(field.raw))
        except ValueError as error:
            signatures.append(Verdict(Result.NEUTRAL, str(error)))
    published = {
        one.record_name: records.get(one.record_name, [])
        for one in signatures
        if isinstance(one, Signature)
    }
    return Verifier().verdicts(subject.headers, subject.body, signatures, published, now)


def verdict(
    content: bytes, records: dict[str, Sequence[bytes] | None] | KeyPair, now: float = NOW
) -> tuple[str, str]:
    """The verdict on the one signature of a message: its result and the reason."""
    (one,) = verdicts(content, records, now)
    return str(one.result), one.reason


PASS = ("pass", "2048-bit key")


# What others sign.


@cache
def traditional(pair: KeyPair) -> bytes:
    """A key as dkimpy reads it."""
    key = load_pem_private_key(pair.pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def signed_by_dkimpy(content: bytes, canonicalization: str, **how: object) -> bytes:
    header, _, body = canonicalization.encode().partition(b"/")
    field: bytes = dkim.DKIM(content).sign(
        b"s1", b"example.com", traditional(rsa_key()), canonicalize=(header, body), **how
    )
    return field + content


# What dkimpy cannot read, or takes for something else than RFC 6376 does.
NOT_FOR_DKIMPY = {"header only", "header without a final line end", "from without a final line end"}


@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
@pytest.mark.parametrize("name", sorted(MESSAGES.keys() - NOT_FOR_DKIMPY))
def test_what_dkimpy_signs_is_verified(name: str, canonicalization: str) -> None:
    content = MESSAGES[name]
    content += b"" if content.endswith(b"\r\n") else b"\r\n"

    assert verdict(signed_by_dkimpy(content, canonicalization), rsa_key(), time.time()) == PASS


def test_fields_of_any_choice_are_verified() -> None:
    content = MESSAGES["doubled fields"]
    for names in (["From"], ["from", "To", "to", "TO", "subject"], ["X-None", "From", "Received"]):
        field = dkim.DKIM(content)
        field.should_not_sign = set()
        made = (
            field.sign(b"s1", b"example.com", traditional(rsa_key()), include_headers=names)
            + content
        )
        assert verdict(made, rsa_key(), time.time()) == PASS


# What we sign, unchanged and changed: the same verdict as dkimpy's.


@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
@pytest.mark.parametrize("pair", [rsa_key(), ed25519_key()], ids=["rsa", "ed25519"])
@pytest.mark.parametrize("name", MESSAGES)
def test_what_the_plugin_signs_is_verified(
    tmp_path: Path, name: str, pair: KeyPair, canonicalization: str
) -> None:
    signer = plugin(tmp_path, pairs=(pair,), canonicalization=canonicalization)

    (one,) = verdicts(sealed(signer, MESSAGES[name]), pair)

    assert one.result is Result.PASS


def changes(content: bytes) -> st.SearchStrategy[bytes]:
    """A message with one octet, word or line changed, added or taken away."""
    pieces = st.sampled_from(
        [b" ", b"\t", b"\r\n", b"\r\n ", b"a", b"=", b";", b"", b"X-New: 1\r\n", b"From: a@b\r\n"]
    )
    return st.tuples(st.integers(0, len(content)), st.integers(0, 3), pieces).map(
        lambda change: content[: change[0]] + change[2] + content[change[0] + change[1] :]
    )


def readable(content: bytes) -> bool:
    """Whether dkimpy and the gateway find the same fields and body."""
    if b"\r" in content.replace(b"\r\n", b"") or b"\n" in content.replace(b"\r\n", b""):
        return False
    if not content.endswith(b"\r\n"):
        return False  # dkimpy does not end the last line, as SMTP does
    header, blank, _ = content.partition(b"\r\n\r\n")
    fields = re.split(rb"\r\n(?![ \t])", header)
    return bool(blank) and all(
        # dkimpy strips other white space too, and does not know a line of nothing else.
        re.match(rb"[!-9;-~]+:", field) and not re.search(rb"\r\n[ \t]*(\r\n|$)", field)
        for field in fields
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), canonicalization=st.sampled_from(CANONICALIZATIONS))
def test_a_changed_message_is_judged_as_by_dkimpy(
    tmp_path: Path, data: st.DataObject, canonicalization: str
) -> None:
    name = data.draw(st.sampled_from(["plain", "trailing blank lines", "doubled fields"]))
    content = sealed(plugin(tmp_path, canonicalization=canonicalization), MESSAGES[name])

    changed = data.draw(changes(content))

    assume(readable(changed))
    ours = [one.result is Result.PASS for one in verdicts(changed, rsa_key())]
    theirs = b"DKIM-Signature:" in changed and verified_by_dkimpy(changed, rsa_key())
    assert any(ours) is theirs


@pytest.mark.parametrize("pair", [rsa_key(), ed25519_key()], ids=["rsa", "ed25519"])
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"Hello", b"Hallo", "body hash does not match"),
        (b"and a fold", b"and no fold", "signature does not match"),
        (b"t=1700000000", b"t=1700000001", "signature does not match"),
        (b"DKIM-Signature", b"Subject: x\r\nDKIM-Signature", "signature does not match"),
        (b"DKIM-Signature", b"From: x@y.z\r\nDKIM-Signature", "a From field is not signed"),
    ],
)
def test_a_change_is_seen(
    tmp_path: Path, pair: KeyPair, old: bytes, new: bytes, reason: str
) -> None:
    content = sealed(plugin(tmp_path, pairs=(pair,)), MESSAGES["plain"])
    assert content.count(old) == 1
    if reason.startswith("a From"):
        content = content.replace(b"from:from:", b"from:")

    assert verdict(content.replace(old, new), pair) == ("fail", reason)


def test_each_signature_has_its_verdict(tmp_path: Path) -> None:
    signer = plugin(
        tmp_path, {"selector": "r1"}, {"selector": "e1"}, pairs=(rsa_key(), ed25519_key())
    )
    records: dict[str, Sequence[bytes] | None] = {
        "r1._domainkey.example.com": [rsa_key().record.encode()],
        "e1._domainkey.example.com": [ed25519_key().record.encode()],
    }

    content = sealed(signer, MESSAGES["plain"])

    assert [one.reason for one in verdicts(content, records)] == ["2048-bit key", "256-bit key"]
    records["e1._domainkey.example.com"] = None
    assert [one.result for one in verdicts(content, records)] == [Result.PASS, Result.TEMPERROR]


# Keys in the DNS.


def with_tags(pair: KeyPair, tags: str) -> bytes:
    return pair.record.replace("v=DKIM1;", f"v=DKIM1; {tags};").encode()


SHORT = rsa.generate_private_key(65537, 1024)
# The library makes no such keys any more; nothing is signed with this one.
TOO_SHORT = rsa.RSAPublicNumbers(65537, (1 << 767) + 1).public_key()


def record_of(key: rsa.RSAPublicKey, form: PublicFormat) -> bytes:
    return b"v=DKIM1; p=" + b64encode(key.public_bytes(Encoding.DER, form))


def key_of(key: rsa.RSAPrivateKey) -> PrivateKey:
    """A key that is too short for the configuration."""
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PrivateKey(
        public_key("rsa", der), lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    )


KEYS: dict[str, tuple[list[bytes] | None, str, str]] = {
    "no answer": (None, "temperror", "no answer from the DNS"),
    "missing": ([], "permerror", "no key in the DNS"),
    "revoked": ([b"v=DKIM1; p="], "permerror", "key revoked"),
    "bad record": ([b"v=DKIM1; k=rsa"], "permerror", "bad key in the DNS: there is no p="),
    "bad base64": ([b"p=%%%"], "permerror", "bad key in the DNS: p= is not base64"),
    "bad key": ([b"p=AAAA"], "permerror", "bad key in the DNS: no RSA key"),
    "bad version": (
        [rsa_key().record.replace("DKIM1", "DKIM2").encode()],
        "permerror",
        "bad key in the DNS: v= is not DKIM1, or does not come first",
    ),
    "unknown type": (
        [with_tags(rsa_key(), "").replace(b"k=rsa", b"k=dsa").replace(b"; ;", b";")],
        "permerror",
        "bad key in the DNS: a key of an unknown type",
    ),
    "other type": ([ed25519_key().record.encode()], "permerror", "key of another algorithm"),
    "other key": (
        [record_of(SHORT.public_key(), PublicFormat.SubjectPublicKeyInfo)],
        "fail",
        "signature does not match",
    ),
    "too short": (
        [record_of(TOO_SHORT, PublicFormat.SubjectPublicKeyInfo)],
        "fail",
        "RSA key of 768 bits is too short",
    ),
    "other service": ([with_tags(rsa_key(), "s=tlsrpt")], "permerror", "key not for this use"),
    "other hash": ([with_tags(rsa_key(), "h=sha1")], "permerror", "key not for this use"),
    "mail": ([with_tags(rsa_key(), "s=other:email; h=sha1:sha256; n=note")], *PASS),
    "exact": ([with_tags(rsa_key(), "t=s")], *PASS),
    "test mode": ([with_tags(rsa_key(), "t=y:s")], "pass", "2048-bit key; test mode"),
    "no version": ([rsa_key().record.removeprefix("v=DKIM1; ").encode()], *PASS),
    "no type": ([rsa_key().record.replace("k=rsa; ", "").encode()], *PASS),
    "folded": ([rsa_key().record.replace("A", " A\t").encode() + b";"], *PASS),
    "another text first": ([b"v=spf1 -all", rsa_key().record.encode()], *PASS),
}


@pytest.mark.parametrize("name", KEYS)
def test_what_the_dns_says_of_the_key(tmp_path: Path, name: str) -> None:
    records, result, reason = KEYS[name]
    content = sealed(plugin(tmp_path), MESSAGES["plain"])

    assert verdict(content, {NAME: records}) == (result, reason)


def test_an_exact_key_is_not_for_subdomains(tmp_path: Path) -> None:
    content = sealed(plugin(tmp_path, {"identity": "@x.example.com"}), MESSAGES["plain"])

    assert verdict(content, {NAME: [rsa_key().record.encode()]}) == PASS
    assert verdict(content, {NAME: [with_tags(rsa_key(), "t=s")]}) == (
        "permerror",
        "key not for subdomains",
    )


@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (SHORT.public_key(), ("pass", "1024-bit key")),
        (TOO_SHORT, ("fail", "RSA key of 768 bits is too short")),
    ],
)
def test_short_keys(key: rsa.RSAPublicKey, form: PublicFormat, expected: tuple[str, str]) -> None:
    content = signed(Signer("example.com", "s1", key_of(SHORT)))

    assert verdict(content, {NAME: [record_of(key, form)]}) == expected


# Signatures.


def signed(signer: Signer, *, header: bytes = b"From: a@example.com\r\n") -> bytes:
    """A short message with one field, signed."""
    body = b"Hello.\r\n"
    value = signer.sign(
        relaxed_header([(b"from", b"a@example.com")]),
        Coverage().header_list([b"from"]),
        body_digest(body, Canonicalization.RELAXED),
        NOW,
    )
    return b"DKIM-Signature: " + value + b"\r\n" + header + b"\r\n" + body


FIELD = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=s1; h=From; bh=AAAA;\r\n b=AbCdEfGhIjKl"
)


def test_the_parts_of_a_signature() -> None:
    one = parse_signature(
        b"dkim-signature : v = 1;a=RSA-SHA256;c=Relaxed;d=Example.COM;s= S1\r\n ;\r\n"
        b"\th=From : To:\r\n subject; l=007; t=1; x=2; q=dns/txt; i=a+b@mail.example.com;\r\n"
        b" bh = AA\r\n AA; b= Ab\r\n CdEfGhIj\r\n KL; z=unknown;\r\n"
    )

    assert (one.domain, one.selector, one.algorithm) == ("example.com", "s1", "rsa-sha256")
    assert (one.header, one.body) == (Canonicalization.RELAXED, Canonicalization.SIMPLE)
    assert one.names == (b"from", b"to", b"subject")
    assert (one.length, one.signed, one.expires) == (7, 1, 2)
    assert (one.identity, one.identity_domain) == ("a+b@mail.example.com", "mail.example.com")
    assert one.body_hash == b"\0\0\0"
    assert one.start == "AbCdEfGh"
    assert one.field[0] == b"dkim-signature "
    assert one.field[1].endswith(b" bh = AA\r\n AA; b=; z=unknown;")
    assert one.record_name == "s1._domainkey.example.com"


def test_what_a_signature_means_without_further_tags() -> None:
    one = parse_signature(FIELD)

    assert (one.header, one.body) == (Canonicalization.SIMPLE, Canonicalization.SIMPLE)
    assert (one.identity, one.identity_domain) == (None, "example.com")
    assert (one.length, one.signed, one.expires) == (None, None, None)


def test_names_outside_ascii_are_found_under_their_a_labels() -> None:
    # RFC 8616 4
    one = parse_signature(FIELD.replace(b"d=example.com", "d=例え.jp".encode()))

    assert one.domain == "xn--r8jz45g.jp"


@pytest.mark.parametrize(
    "identity", [b"=20a@example.com", b'"a;b"@example.com', b"(c)@example.com", b"\xe3@example.com"]
)
def test_an_identity_that_is_not_safe_to_repeat_is_left_out(identity: bytes) -> None:
    text = FIELD.replace(b"; s=", b"; i=" + identity.replace(b";", b"") + b"; s=")

    assert parse_signature(text).identity is None


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        *((b"%s=" % tag, b"y%s=" % tag, f"there is no {tag.decode()}=") for tag in (b"a", b"d")),
        *((b"%s=" % tag, b"y%s=" % tag, f"there is no {tag.decode()}=") for tag in (b"s", b"h")),
        (b" b=", b" y=", "there is no b="),
        (b"bh=AAAA", b"bh=", "there is no bh="),
        (b"v=1; ", b"", "there is no v="),
        (b"v=1", b"v=2", "v= is not 1"),
        (b"v=1", b"v=1; v=1", "the tag v= is there twice"),
        (b"v=1;", b"v=1;;", "no list of tag=value"),
        (b"v=1;", b"v=1; x y=1;", "no list of tag=value"),
        (b"v=1;", b"v=1; word;", "no list of tag=value"),
        (b"rsa-sha256", b"rsa-md5", "a= is an unknown algorithm"),
        (b"; s=", b"; q=http; s=", "q= is an unknown way to get the key"),
        (b"; s=", b"; c=strict; s=", "c= is an unknown canonicalization"),
        (b"; s=", b"; c=simple/simple/simple; s=", "c= is an unknown canonicalization"),
        (b"example.com", b"exa mple.com", "d= is not a domain name"),
        (b"example.com", b"\xff.com", "d= is not a domain name"),
        (b"s=s1", b"s=s1/", "s= is not a domain name"),
        (b"h=From", b"h=To", "h= does not name From"),
        (b"h=From", b"h=From:", "h= is no list of names"),
        (b"h=From", b"h=From:T o", "h= is no list of names"),
        (b"; s=", b"; i=@example.org; s=", "i= is not at or below d="),
        (b"; s=", b"; i=@badexample.com; s=", "i= is not at or below d="),
        (b"; s=", b"; i=example.com; s=", "i= is not at or below d="),
        (b"; s=", b"; i=a@; s=", "i= is not a domain name"),
        (b"; s=", b"; l=-1; s=", "l= is not a number"),
        (b"; s=", b"; l=\xd9\xa1; s=", "l= is not a number"),
        (b"; s=", b"; t=1.5; s=", "t= is not a number"),
        (b"; s=", b"; x=9999999999999; s=", "x= is not a number"),
        (b"; s=", b"; t=5; x=5; s=", "x= is not after t="),
        (b"bh=AAAA", b"bh=AAA", "bh= is not base64"),
        (b"b=AbCd", b"b=AbC%", "b= is not base64"),
        (b"b=AbCd", b"b=AbC\xe9", "b= is not base64"),
    ],
)
def test_a_signature_against_the_rules_is_refused(old: bytes, new: bytes, problem: str) -> None:
    assert old in FIELD

    with pytest.raises(ValueError) as caught:
        parse_signature(FIELD.replace(old, new, 1))

    assert str(caught.value) == problem


@given(octets=st.binary(max_size=200) | st.sampled_from([FIELD]), junk=st.binary(max_size=20))
def test_no_octets_break_the_reader(octets: bytes, junk: bytes) -> None:
    said = ""
    try:
        parse_signature(b"DKIM-Signature:" + octets + junk)
    except ValueError as error:
        said = str(error)
    # It stands in a field of ours.
    assert re.fullmatch(r"[A-Za-z0-9 =/.-]*", said)


def test_sha1_is_refused() -> None:
    content = MESSAGES["plain"]
    signed = dkim.DKIM(content, signature_algorithm=b"rsa-sha1")
    field = signed.sign(b"s1", b"example.com", traditional(rsa_key()))
    assert verified_by_dkimpy(field + content, rsa_key())

    assert verdict(field + content, rsa_key(), time.time()) == ("fail", "SHA-1 is not safe")


def test_times(tmp_path: Path) -> None:
    content = sealed(plugin(tmp_path, expire="1d"), MESSAGES["plain"])

    assert verdict(content, rsa_key(), NOW + 86400) == PASS
    assert verdict(content, rsa_key(), NOW + 86401) == ("fail", "signature expired")
    assert verdict(content, rsa_key(), NOW - 300) == PASS
    assert verdict(content, rsa_key(), NOW - 301) == ("policy", "signed in the future")


def test_a_signature_of_a_part_of_the_body() -> None:
    content = signed_by_dkimpy(HEADER + b"\r\nHello.\r\n", "relaxed/relaxed", length=True)
    assert b"l=8" in content
    now = time.time()

    assert verdict(content, rsa_key(), now) == PASS
    # Blank lines at the end are none of the body.
    assert verdict(content + b"\r\n\r\n", rsa_key(), now) == PASS
    longer = content + b"Buy!\r\n"
    assert verified_by_dkimpy(longer, rsa_key())
    assert verdict(longer, rsa_key(), now) == (
        "policy",
        "l= leaves a part of the body unsigned",
    )
    assert verdict(content.replace(b"Hello.", b"Hell"), rsa_key(), now) == (
        "fail",
        "body is shorter than l= says",
    )


def test_a_message_without_from() -> None:
    content = signed(Signer("example.com", "s1", key_of(SHORT)), header=b"To: a@example.com\r\n")

    assert verdict(content, {NAME: [record_of(SHORT.public_key(), PublicFormat.PKCS1)]}) == (
        "permerror",
        "no From field",
    )


def test_very_many_names_and_fields(tmp_path: Path) -> None:
    content = sealed(plugin(tmp_path), MESSAGES["plain"])
    content = content.replace(b" h=", b" h=" + b"to:x:" * 20_000, 1)

    assert verdict(b"To: x\r\n" * 20_000 + content, rsa_key()) == (
        "fail",
        "signature does not match",
    )


# The example of RFC 8463, appendix A.

RFC8463 = (
    b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
    b" d=football.example.com; i=@football.example.com;\r\n"
    b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
    b" subject : date : message-id : from : subject : date;\r\n"
    b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
    b" b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n"
    b" Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n"
    b"From: Joe SixPack <joe@football.example.com>\r\n"
    b"To: Suzie Q <suzie@shopping.example.net>\r\n"
    b"Subject: Is dinner ready?\r\n"
    b"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
    b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
    b"\r\n"
    b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
)
RECORD = b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def test_the_example_of_the_rfc() -> None:
    records: dict[str, Sequence[bytes] | None] = {
        "brisbane._domainkey.football.example.com": [RECORD]
    }

    assert verdict(RFC8463, records) == ("pass", "256-bit key")
    assert verdict(RFC8463.replace(b"dinner", b"supper"), records)[0] == "fail"
