"""Records of public keys: read, written, and compared with keys."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import dns.rdatatype
import dns.zone
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from dkim.util import InvalidTagValueList, parse_tag_value
from hypothesis import given
from hypothesis import strategies as st

from plugins.dkim.key import read_private_key
from plugins.dkim.publication import Publication, findings
from plugins.dkim.record import parse_record, record_text, zone_lines
from plugins.dkim.tag_list import parse_tags, words
from plugins.dkim.validity import Validity
from tests.plugins.dkim_keys import NOW, KeyPair, ed25519_key, rsa_key

# Lists of tags.


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (b"a=1", {"a": b"1"}),
        (b"a=1;", {"a": b"1"}),
        (b"a=1; ", {"a": b"1"}),
        (b" a = 1 2 ;\r\n\tb_2=x=y", {"a": b"1 2", "b_2": b"x=y"}),
        (b"a=;A=", {"a": b"", "A": b""}),
    ],
)
def test_a_list_of_tags(text: bytes, tags: dict[str, bytes]) -> None:
    assert {name: tag.value for name, tag in parse_tags(text).items()} == tags


@pytest.mark.parametrize(
    "text", [b"", b";", b"a", b"=1", b"a=1;;b=2", b"1a=1", b"a-b=1", b"a=1;a=2", b"a\xe9=1"]
)
def test_what_is_no_list_of_tags(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_tags(text)


@given(
    text=st.lists(
        st.sampled_from([b"a", b"b", b"=", b";", b" ", b"\r\n ", b"\t", b"1", b":", b"bc"])
    ).map(b"".join)
)
def test_lists_are_read_as_dkimpy_reads_them(text: bytes) -> None:
    try:
        theirs = parse_tag_value(text)
    except (InvalidTagValueList, ValueError):
        theirs = None
    try:
        ours = {name.encode(): tag.value for name, tag in parse_tags(text).items()}
    except ValueError:
        # dkimpy asks for less: names may be anything, and there may be no tags.
        assert (
            theirs is None
            or not all(name.isalnum() and name[:1].isalpha() for name in theirs)
            or not theirs
        )
    else:
        assert ours == theirs


def test_where_a_value_is() -> None:
    text = b"a=1; b = x\r\n y ;c=2"

    tag = parse_tags(text)["b"]

    assert text[: tag.start] + text[tag.end :] == b"a=1; b =;c=2"


def test_words() -> None:
    assert words(b" a : b\r\n :c") == [b"a", b"b", b"c"]


# Records.


def test_a_record_of_each_type(tmp_path: Path) -> None:
    for pair in (rsa_key(), ed25519_key()):
        key = read_private_key(pair.write(tmp_path / "key.pem")).public

        assert record_text(key) == pair.record
        record = parse_record(pair.record.encode())
        assert record.key() == key
        assert (record.serves_mail, record.serves_sha256) == (True, True)
        assert [record.revoked, record.testing, record.exact] == [False] * 3


def test_the_tags_of_a_record() -> None:
    record = parse_record(
        b"v=DKIM1; h=sha1 : SHA256; k=RSA; n=a note; p= AA\r\n AA ; s=Email; t=y : S"
    )

    assert record.type == "rsa"
    assert record.octets == b"\0\0\0"
    assert record.hashes == frozenset({"sha1", "sha256"})
    assert record.services == {"email"}
    assert (record.testing, record.exact) == (True, True)


@pytest.mark.parametrize("length", [0, 1, 254, 255, 256, 510, 511, 2000])
def test_a_zone_file_has_the_whole_text_in_strings_that_fit(length: int) -> None:
    text = ("v=DKIM1; k=rsa; p=" + "A" * length)[: max(length, 18)]

    lines = zone_lines("s1._domainkey.example.com", text)

    zone = dns.zone.from_text(
        f"@ 60 IN SOA ns. mail. 1 1 1 1 1\n@ 60 IN NS ns.\n{lines}\n", "example.com."
    )
    (record,) = zone.find_rdataset("s1._domainkey", dns.rdatatype.TXT)
    assert b"".join(record.strings).decode() == text
    assert max(map(len, record.strings)) <= 255


# What is published, compared with a key.


def publication(folder: Path, pair: KeyPair, identity: str | None = None) -> Publication:
    key = read_private_key(pair.write(folder / "key.pem"))
    return Publication("example.com", "example.com", "s1", key, identity, False, Validity())


def test_what_is_published_as_it_should_be(tmp_path: Path) -> None:
    for pair in (rsa_key(), ed25519_key()):
        key = publication(tmp_path, pair, "@news.example.com")
        assert findings(key, [key.text.encode()], NOW) == []


RSA = rsa_key().record
WRONG: dict[str, tuple[list[str] | None, str]] = {
    "no answer": (None, "the DNS has no answer now"),
    "missing": ([], "missing: there is no TXT record at s1._domainkey.example.com"),
    "revoked": (["v=DKIM1; p="], "revoked: p= is empty"),
    "not a record": (["hello"], "no key record: no list of tag=value"),
    "no key": (["v=DKIM1; p=AAAA"], "what is published cannot be used: no RSA key"),
    "other key": (
        [f"v=DKIM1; p={b64encode(b'x' * 32).decode()}; k=ed25519"],
        "k=ed25519 is published, and the key is rsa",
    ),
    "several": ([RSA, RSA], "2 TXT records; receivers may take any, leave only one"),
    "service": ([RSA.replace("; k", "; s=tlsrpt; k")], "s= does not name email"),
    "hash": (
        [RSA.replace("; k", "; h=sha1; k")],
        "h= does not name sha256, which signatures use",
    ),
    "exact": (
        [RSA.replace("; k", "; t=s; k")],
        "t=s forbids an identity in a subdomain, such as @news.example.com",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_what_is_published(tmp_path: Path, name: str) -> None:
    records, text = WRONG[name]
    key = publication(tmp_path, rsa_key(), "@news.example.com")

    found = findings(key, None if records is None else [one.encode() for one in records], NOW)

    assert [(one.is_error, one.text) for one in found] == [(True, text)]


def test_another_key_shows_both_ends(tmp_path: Path) -> None:
    key = publication(tmp_path, rsa_key())
    ours = RSA.partition("p=")[2]
    short = rsa.generate_private_key(65537, 1024).public_key()
    octets = short.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    theirs = b64encode(octets).decode()

    error, warning = findings(key, [f"v=DKIM1; p={theirs}".encode()], NOW)

    assert error.is_error
    assert error.text == (
        f"differs: {theirs[:20]}…{theirs[-20:]} is published, "
        f"and the key is {ours[:20]}…{ours[-20:]}"
    )
    assert (warning.is_error, warning.text) == (False, "the published key is short: 1024 bits")


def test_short_keys_that_differ_are_shown_whole(tmp_path: Path) -> None:
    other = b64encode(b"x" * 32).decode()
    ours = ed25519_key().record.partition("p=")[2]

    (found,) = findings(
        publication(tmp_path, ed25519_key()), [f"k=ed25519; p={other}".encode()], NOW
    )

    assert found.text == f"differs: {other} is published, and the key is {ours}"


def test_test_mode_is_no_error(tmp_path: Path) -> None:
    key = publication(tmp_path, rsa_key())

    (found,) = findings(key, [RSA.replace("; k", "; t=y; k").encode()], NOW)

    assert not found.is_error
    assert found.text == "t=y: test mode; receivers treat the mail as unsigned"


def test_the_same_key_in_its_other_form_is_right(tmp_path: Path) -> None:
    private = load_pem_private_key(rsa_key().pem, None)
    octets = private.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)

    record = b"v=DKIM1; p=" + b64encode(octets)

    assert findings(publication(tmp_path, rsa_key()), [record], NOW) == []


def test_a_test_signature_that_does_not_verify_is_an_error(tmp_path: Path) -> None:
    key = publication(tmp_path, rsa_key())
    broken = replace(key, private=replace(key.private, sign=lambda data: b"x" * 256))

    (found,) = findings(broken, [key.text.encode()], NOW)

    assert found.is_error
    assert found.text == "a test signature does not verify: signature does not match"
