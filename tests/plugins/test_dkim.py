from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.hooks import Reject, Tempfail
from plugins.dkim import Dkim, DkimConfig
from tests.plugins.dkim_keys import (
    NOW,
    ed25519_key,
    message,
    plugin,
    rsa_key,
    verified_by_dkimpy,
)

CANONICALIZATIONS = ["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"]

HEADER = (
    b"Received: from a.example by b.example; Sat, 21 Nov 2026 18:05:00 +0900\r\n"
    b"From: =?ISO-2022-JP?B?GyRCOzNFREJATzobKEI=?= <news@example.com>\r\n"
    b"To:taro@example.org,\r\n\thanako@example.net \r\n"
    b"SUBJECT:  Two  spaces\r\n and a fold \r\n"
    b"Date: Sat, 21 Nov 2026 18:05:00 +0900\r\n"
    b"Message-ID: <1@example.com>\r\n"
    b"Mime-Version: 1.0\r\n"
    b"List-Unsubscribe: <https://example.com/u/1>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b"Received: from c.example by d.example; Sat, 21 Nov 2026 18:05:00 +0900\r\n"
)
MESSAGES = {
    "plain": HEADER + b"\r\nHello.\r\n",
    "empty body": HEADER + b"\r\n",
    "header only": HEADER,
    "header without a final line end": HEADER + b"X-Last: yes",
    "from without a final line end": b"Subject: x\r\nFrom: <news@example.com>",
    "no final line end": HEADER + b"\r\nHello.",
    "white space without a line end": HEADER + b"\r\nHello. \t",
    "blank lines only": HEADER + b"\r\n\r\n\r\n\r\n",
    "blanks only": HEADER + b"\r\n \t\r\n  \r\n",
    "trailing blank lines": HEADER + b"\r\nHello. \r\n\r\n \r\n\r\n",
    "leading blank lines": HEADER + b"\r\n\r\n \r\nHello.\r\n",
    "8 bit": HEADER + "X-Name: 山田\r\n\r\nこんにちは  \r\n".encode(),
    "shift_jis": HEADER + b"\r\n" + "表示  能\t力\r\n".encode("shift_jis"),
    "very long header": HEADER
    + b"References:"
    + b" <1@example.com>\r\n" * 3000
    + b"\r\nHello.\r\n",
    "very long line": HEADER + b"To: " + b"a" * 50_000 + b"\r\n\r\n" + b"x " * 60_000 + b"\r\n",
    "empty fields": HEADER + b"Cc:\r\nReply-To: \r\nIn-Reply-To:\r\n \t\r\n\r\nHello.\r\n",
    "no subject": b"From: news@example.com\r\n\r\nHello.\r\n",
    "doubled fields": HEADER + b"To: x@example.com\r\nSubject: other\r\nTo: y\r\n\r\nHello.\r\n",
    "dots": HEADER + b"\r\n.\r\n..\r\n",
}


def sealed(signer: Dkim, content: bytes) -> bytes:
    """The message as it is sent: SMTP ends its last line."""
    subject = message(content)
    assert signer.seal(subject) is None
    made: bytes = subject.content
    return made if made.endswith(b"\r\n") else made + b"\r\n"


def signature(content: bytes) -> dict[str, str]:
    """The tags of the topmost field, which must be a signature, without their white space."""
    match = re.match(rb"DKIM-Signature:((?:[^\r]|\r\n[ \t])*)\r\n(?![ \t])", content)
    assert match
    text = re.sub(r"\s", "", match[1].decode())
    return dict(tag.split("=", 1) for tag in text.split(";"))


@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
@pytest.mark.parametrize("name", MESSAGES)
def test_dkimpy_verifies_the_signature(tmp_path: Path, name: str, canonicalization: str) -> None:
    signer = plugin(tmp_path, canonicalization=canonicalization)

    content = sealed(signer, MESSAGES[name])

    assert verified_by_dkimpy(content, rsa_key())
    assert signature(content)["c"] == canonicalization


@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
@pytest.mark.parametrize(("old", "new"), [(b"Hello", b"Hallo"), (b"and a fold", b"and no fold")])
def test_dkimpy_sees_a_change(
    tmp_path: Path, old: bytes, new: bytes, canonicalization: str
) -> None:
    signer = plugin(tmp_path, canonicalization=canonicalization)

    content = sealed(signer, MESSAGES["plain"])

    assert content.count(old) == 1
    assert not verified_by_dkimpy(content.replace(old, new), rsa_key())


@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
@pytest.mark.parametrize("name", MESSAGES)
def test_the_message_below_the_signature_is_as_it_was(
    tmp_path: Path, name: str, canonicalization: str
) -> None:
    subject = message(MESSAGES[name])

    plugin(tmp_path, canonicalization=canonicalization).seal(subject)

    assert subject.content.endswith(MESSAGES[name])
    assert subject.content.startswith(b"DKIM-Signature: v=1; a=rsa-sha256; ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    header=st.lists(
        st.tuples(
            st.sampled_from([b"Subject", b"to", b"X-Any", b"Cc", b"List-Id"]),
            st.lists(st.sampled_from([b" ", b"\t", b"a", b"\r\n b", b"  ", b"\xe3"])).map(b"".join),
        ),
        max_size=6,
    ),
    body=st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"\xe3", b"  "])).map(b"".join),
    canonicalization=st.sampled_from(CANONICALIZATIONS),
)
def test_dkimpy_verifies_any_message(
    tmp_path: Path, header: list[tuple[bytes, bytes]], body: bytes, canonicalization: str
) -> None:
    fields = b"".join(name + b":" + value + b"\r\n" for name, value in header)

    content = sealed(
        plugin(tmp_path, canonicalization=canonicalization),
        b"From: news@example.com\r\n" + fields + b"\r\n" + body,
    )

    assert verified_by_dkimpy(content, rsa_key())


def test_real_messages_are_verified_by_dkimpy(tmp_path: Path, mail_corpus: Path) -> None:
    signer = plugin(tmp_path)
    verified = 0
    for file in sorted(mail_corpus.rglob("*.*")):
        content = file.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        # What dkimpy cannot read, or what never gets past the gateway's listener.
        if b"\r" in content.replace(b"\r\n", b"") or re.search(rb"[\0\v\f]", content):
            continue
        header, blank, body = content.partition(b"\r\n\r\n")
        if not all(re.match(rb"[!-9;-~]+:|[ \t]+[^ \t]", line) for line in header.split(b"\r\n")):
            continue
        fields = [
            field
            for field in re.split(rb"\r\n(?![ \t])", header)
            if not re.match(rb"[ \t]|from:|dkim-signature:", field, re.IGNORECASE)
        ]
        content = b"\r\n".join([b"From: news@example.com", *fields]) + blank + body
        assert verified_by_dkimpy(sealed(signer, content), rsa_key()), file
        verified += 1
    assert verified > 200


def test_lines_of_the_signature_are_short(tmp_path: Path) -> None:
    signer = plugin(
        tmp_path,
        {"selector": "a-rather-long-selector", "identity": "@mail.example.com"},
        expire="30d",
    )

    content = sealed(signer, MESSAGES["doubled fields"])

    lines = content[: content.index(b"\r\nReceived")].split(b"\r\n")
    assert all(len(line) <= 76 for line in lines)
    assert all(line.startswith(b" ") and line.strip() for line in lines[1:])
    assert lines[0].startswith(b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;")
    assert not any(line.endswith((b" ", b"\t")) for line in lines)


def test_the_fields_that_are_signed_once_more_than_they_are_there(tmp_path: Path) -> None:
    content = sealed(plugin(tmp_path), MESSAGES["doubled fields"])

    signed = signature(content)["h"].split(":")

    times = {name: signed.count(name) for name in set(signed)}
    assert times == {
        "from": 2,
        "subject": 3,
        "to": 4,
        "cc": 1,
        "reply-to": 1,
        "in-reply-to": 1,
        "references": 1,
        "date": 2,
        "message-id": 2,
        "mime-version": 2,
        "content-type": 1,
        "content-transfer-encoding": 1,
        "list-unsubscribe": 2,
        "list-unsubscribe-post": 2,
    }


@pytest.mark.parametrize(
    "name", [b"From", b"Subject", b"To", b"Reply-To", b"Content-Type", b"List-Unsubscribe"]
)
def test_a_field_that_was_put_on_top_breaks_the_signature(tmp_path: Path, name: bytes) -> None:
    content = sealed(plugin(tmp_path), MESSAGES["plain"])

    assert verified_by_dkimpy(b"X-Other: x@example.org\r\n" + content, rsa_key())
    assert not verified_by_dkimpy(name + b": x@example.org\r\n" + content, rsa_key())


@pytest.mark.parametrize("name", [b"Date", b"Message-ID", b"List-Unsubscribe", b"Received"])
def test_a_missing_field_that_a_relay_may_add_does_not(tmp_path: Path, name: bytes) -> None:
    content = sealed(plugin(tmp_path), MESSAGES["no subject"])

    assert verified_by_dkimpy(name + b": <x@example.org>\r\n" + content, rsa_key())


def test_fields_of_lists_and_of_the_site_are_signed_where_present(tmp_path: Path) -> None:
    signer = plugin(tmp_path, sign=["X-Campaign", "X-Absent"])
    fields = b"List-Id: <a.example.com>\r\nFeedback-ID: a:b:c:d\r\nX-Campaign: 1\r\nX-Other: 2\r\n"

    signed = signature(sealed(signer, fields + MESSAGES["plain"]))["h"].split(":")

    assert {"list-id", "feedback-id", "x-campaign"} < set(signed)
    assert not {"x-other", "x-absent", "received", "list-post"} & set(signed)


# RFC 2369, RFC 2919 and RFC 8058.
LIST_FIELDS = [
    *("List-Help", "List-Subscribe", "List-Unsubscribe", "List-Post", "List-Owner"),
    *("List-Archive", "List-Id", "List-Unsubscribe-Post"),
]


@pytest.mark.parametrize("name", LIST_FIELDS)
def test_each_field_of_lists_is_signed(tmp_path: Path, name: str) -> None:
    field = f"{name}: <https://example.com/list>\r\n".encode()

    content = sealed(plugin(tmp_path), field + MESSAGES["no subject"])

    assert verified_by_dkimpy(content, rsa_key())
    assert not verified_by_dkimpy(content.replace(b"/list>", b"/lost>"), rsa_key())


@pytest.mark.parametrize("name", ["List-Unsubscribe", "List-Unsubscribe-Post"])
def test_nobody_can_put_another_unsubscription_on_top(tmp_path: Path, name: str) -> None:
    field = f"{name}: <https://example.com/list>\r\n".encode()
    content = sealed(plugin(tmp_path), field + MESSAGES["no subject"])

    assert not verified_by_dkimpy(field.replace(b"list", b"evil") + content, rsa_key())


def test_what_relays_add_and_older_signatures_are_never_signed(tmp_path: Path) -> None:
    fields = b"".join(
        name + b": x\r\n"
        for name in (b"Return-Path", b"Authentication-Results", b"DKIM-Signature", b"Bcc")
    )

    signed = signature(sealed(plugin(tmp_path), fields + MESSAGES["plain"]))["h"].split(":")

    assert not {"return-path", "authentication-results", "dkim-signature", "bcc"} & set(signed)


def test_the_length_of_the_body_is_never_limited(tmp_path: Path) -> None:
    content = sealed(plugin(tmp_path), MESSAGES["plain"])

    assert "l" not in signature(content)
    assert not verified_by_dkimpy(content + b"more\r\n", rsa_key())


def test_the_tags(tmp_path: Path) -> None:
    signer = plugin(
        tmp_path, {"domain": "Example.COM", "identity": "news@mail.example.com"}, expire="7d"
    )
    tags = signature(sealed(signer, MESSAGES["plain"]))

    assert list(tags) == ["v", "a", "c", "d", "s", "i", "t", "x", "h", "bh", "b"]
    assert tags["d"] == "example.com"
    assert tags["s"] == "s1"
    assert tags["i"] == "news@mail.example.com"
    assert tags["t"] == str(NOW)
    assert tags["x"] == str(NOW + 7 * 86400)
    assert len(b64decode(tags["bh"])) == 32
    assert len(b64decode(tags["b"])) == 256


def test_without_more_configuration_a_signature_does_not_expire(tmp_path: Path) -> None:
    assert not {"x", "i"} & set(signature(sealed(plugin(tmp_path), MESSAGES["plain"])))


@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
def test_each_key_of_the_domain_signs(tmp_path: Path, canonicalization: str) -> None:
    signer = plugin(
        tmp_path,
        {"selector": "r1"},
        {"selector": "e1"},
        pairs=(rsa_key(), ed25519_key()),
        canonicalization=canonicalization,
    )

    content = sealed(signer, MESSAGES["plain"])

    first = signature(content)
    second = signature(content[content.index(b"DKIM-Signature", 1) :])
    assert (first["a"], first["s"]) == ("rsa-sha256", "r1")
    assert (second["a"], second["s"]) == ("ed25519-sha256", "e1")
    assert first["bh"] == second["bh"]
    assert len(b64decode(second["b"])) == 64
    assert verified_by_dkimpy(content, rsa_key(), 0)


def test_the_domain_of_the_author_chooses_the_key(tmp_path: Path) -> None:
    signer = plugin(
        tmp_path,
        {"domain": "example.com", "subdomains": True},
        {"domain": "own.example.com"},
        {"domain": "example.org"},
        {"domain": "日本語.jp"},
        pairs=(rsa_key(),) * 4,
    )

    def domain(author: str) -> str | None:
        content = sealed(signer, f"From: {author}\r\n\r\nHello.\r\n".encode())
        return signature(content)["d"] if content.startswith(b"DKIM") else None

    assert domain("a@EXAMPLE.com") == "example.com"
    assert domain("a@mail.example.com") == "example.com"
    assert domain("a@x.y.example.com") == "example.com"
    assert domain("a@own.example.com") == "own.example.com"
    assert domain("a@x.own.example.com") == "example.com"
    assert domain("a@example.org") == "example.org"
    assert domain("a@日本語.jp") == "xn--wgv71a119e.jp"
    assert domain("a@mail.example.org") is None
    assert domain("a@notexample.com") is None
    assert domain("a@com") is None
    assert domain("a@example.com, b@mail.example.com") == "example.com"
    assert domain("a@example.com, b@elsewhere.example") is None


def test_authors_with_one_key_make_one_signature(tmp_path: Path) -> None:
    signer = plugin(tmp_path, {"subdomains": True})
    authors = b"From: a@mail.example.com, b@www.example.com, c@example.com\r\n"

    content = sealed(signer, authors + b"\r\nHello.\r\n")

    assert content.count(b"DKIM-Signature: ") == 1
    assert verified_by_dkimpy(content, rsa_key())


def test_several_authors_make_a_signature_for_each_domain(tmp_path: Path) -> None:
    signer = plugin(tmp_path, {}, {"domain": "example.org"}, pairs=(rsa_key(),) * 2)
    authors = b"From: a@example.com, b@example.org, c@example.com\r\n"

    content = sealed(signer, authors + b"\r\nHello.\r\n")

    assert content.count(b"DKIM-Signature: ") == 2
    assert signature(content)["d"] == "example.com"
    assert verified_by_dkimpy(content, rsa_key(), 0)
    assert verified_by_dkimpy(content, rsa_key(), 1)


WITHOUT_KEY = {
    "another domain": b"From: a@elsewhere.example\r\n\r\nHello.\r\n",
    "no From": b"Subject: x\r\n\r\nHello.\r\n",
    "two From": b"From: a@example.com\r\nFrom: a@example.com\r\n\r\nHello.\r\n",
    "unreadable From": b"From: <a@example.com> <b@example.com>\r\n\r\nHello.\r\n",
    "no header": b"\r\nHello.\r\n",
}


@pytest.mark.parametrize("name", WITHOUT_KEY)
@pytest.mark.parametrize("unsigned", ["pass", "reject", "tempfail"])
def test_mail_that_no_key_is_for(tmp_path: Path, name: str, unsigned: str) -> None:
    subject = message(WITHOUT_KEY[name])

    answer = plugin(tmp_path, unsigned=unsigned).seal(subject)

    assert type(answer) is {"pass": type(None), "reject": Reject, "tempfail": Tempfail}[unsigned]
    assert subject.content == WITHOUT_KEY[name]


def test_a_signature_of_a_message_with_very_many_fields(tmp_path: Path) -> None:
    signer = plugin(tmp_path)
    content = sealed(signer, b"To: a@example.org\r\n" * 2000 + MESSAGES["plain"])

    assert verified_by_dkimpy(content, rsa_key())
    assert signer._header_list.cache_info().currsize == 0


def config(tmp_path: Path, *keys: dict[str, object], **other: object) -> DkimConfig:
    rsa_key().write(tmp_path / "key.pem")
    entry = {"domain": "example.com", "selector": "s1", "file": "key.pem"}
    return DkimConfig.model_validate(
        {"keys": [entry | key for key in keys or ({},)], **other}, context={"base": tmp_path}
    )


def test_a_relative_path_starts_from_the_folder_of_the_configuration(tmp_path: Path) -> None:
    assert config(tmp_path).keys[0].file == tmp_path / "key.pem"


@pytest.mark.parametrize(
    ("key", "where", "text"),
    [
        ({"file": "missing.pem"}, ("keys", 0), "missing.pem: cannot be read"),
        ({"domain": "*.*.example.com"}, ("keys", 0, "domain"), "is not a domain name"),
        ({"domain": "news.*.com"}, ("keys", 0, "domain"), "is not a domain name"),
        ({"domain": "*example.com"}, ("keys", 0, "domain"), "is not a domain name"),
        ({"domain": []}, ("keys", 0, "domain"), "at least 1"),
        ({"domain": ["example.com", "a b"]}, ("keys", 0, "domain"), "is not a domain name"),
        ({"domain": "*.example.com", "identity": "@example.com"}, ("keys", 0), "at or below"),
        ({"not_before": "2026-12-01 09:00"}, ("keys", 0, "not_before"), "without a zone"),
        ({"not_before": "soon"}, ("keys", 0, "not_before"), "expected a date such as"),
        ({"not_after": 2026}, ("keys", 0, "not_after"), "expected a date such as"),
        ({"not_before": "2026-12-02", "not_after": "2026-12-01"}, ("keys", 0), "must be later"),
        ({"not_before": "2026-12-01", "not_after": "2026-12-01"}, ("keys", 0), "must be later"),
        ({"domain": ""}, ("keys", 0, "domain"), "is not a domain name"),
        ({"selector": "s 1"}, ("keys", 0, "selector"), "is not a domain name"),
        ({"selector": "s1;"}, ("keys", 0, "selector"), "is not a domain name"),
        ({"identity": "@example.org"}, ("keys", 0), "at or below the domain example.com"),
        ({"identity": "@notexample.com"}, ("keys", 0), "at or below the domain example.com"),
        ({"identity": "example.com"}, ("keys", 0), "must look like"),
        ({"identity": "a;b@example.com"}, ("keys", 0), "must look like"),
        ({"identity": "a@x=y.example.com"}, ("keys", 0), "must look like"),
        ({"identity": "@日本.example.com"}, ("keys", 0), "must look like"),
        ({"other": 1}, ("keys", 0, "other"), "Extra inputs"),
    ],
)
def test_a_wrong_key_is_an_error_at_its_place(
    tmp_path: Path, key: dict[str, object], where: tuple[object, ...], text: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        config(tmp_path, key)

    (error,) = caught.value.errors()
    assert error["loc"] == where
    assert text in error["msg"]


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"canonicalization": "relaxed"}, "relaxed/relaxed"),
        ({"unsigned": "drop"}, "pass"),
        ({"expire": "7 days"}, "unknown unit"),
        ({"expire": 0}, "greater than 0"),
        ({"expire": True}, "expected a duration"),
        ({"sign": ["received"]}, "must not be signed"),
        ({"sign": ["X Y"]}, "is not the name of a header field"),
        ({"sign": ["X;Y"]}, "is not the name of a header field"),
        ({"sign": ["名前"]}, "is not the name of a header field"),
        ({"length": 100}, "Extra inputs"),
        ({"unsigned": "default"}, "set both or neither"),
        ({"default": "example.com"}, "set both or neither"),
        ({"default": "example.org", "unsigned": "default"}, "no key is for the domain example.org"),
        ({"default": "a b", "unsigned": "default"}, "is not a domain name"),
        ({"verify": {"signatures": 0}}, "greater than or equal to 1"),
        ({"verify": {"authserv_id": "a b"}}, "is not a domain name"),
        ({"verify": {"reject": True}}, "Extra inputs"),
        ({"verify": "yes"}, "valid dictionary"),
    ],
)
def test_a_wrong_setting_is_an_error(tmp_path: Path, other: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(tmp_path, **other)


@pytest.mark.parametrize(
    "identity", ["@example.com", "news@example.com", "@MAIL.Example.com", "a+b@x.example.com"]
)
def test_identities(tmp_path: Path, identity: str) -> None:
    assert config(tmp_path, {"identity": identity}).keys[0].identity == identity


def test_a_selector_is_there_once_for_each_domain(tmp_path: Path) -> None:
    config(tmp_path, {}, {"domain": "example.org"}, {"selector": "s2"})

    with pytest.raises(ValidationError, match=r"s1\._domainkey\.example\.com is there twice"):
        config(tmp_path, {}, {"domain": "EXAMPLE.com"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800), (5, 5), (None, None)],
)
def test_durations(tmp_path: Path, text: object, seconds: int | None) -> None:
    assert config(tmp_path, expire=text).expire == seconds
