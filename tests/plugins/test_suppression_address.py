from __future__ import annotations

import fnmatch
import re
import time
from datetime import UTC, datetime

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.hooks import Recipient
from plugins.suppression.address import (
    Spelling,
    is_pattern,
    normal_address,
    normal_domain,
    normal_entry,
    normal_local_part,
    root,
)
from plugins.suppression.entry import (
    format_scope,
    format_time,
    parse_expiry,
    parse_note,
    parse_reason,
    parse_scope,
    parse_time,
    sender_scope,
    stream_scope,
)
from plugins.suppression.pattern import Pattern

LABELS = st.from_regex(r"[a-zA-Z0-9日本é_-]{1,6}", fullmatch=True)
DOMAINS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
LOCAL_PARTS = st.one_of(
    st.from_regex(r"[A-Za-z0-9.+!#']{1,8}", fullmatch=True),
    st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=8).map(
        lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    ),
    st.text(st.characters(min_codepoint=0xA1, blacklist_categories=["Cs"]), min_size=1, max_size=8),
)


@st.composite
def entries(draw: st.DrawFn) -> str:
    """Normal entries of every kind."""
    kind = draw(st.sampled_from(["address", "domain", "subdomains", "pattern"]))
    domain = draw(DOMAINS)
    text = {
        "address": f"{draw(LOCAL_PARTS)}@{domain}",
        "domain": f"@{domain}",
        "subdomains": f"@.{domain}",
        "pattern": f"a*{draw(st.sampled_from(['', 'b', '*']))}@*.{domain}",
    }[kind]
    try:
        return normal_entry(text)
    except ValueError:
        assume(False)
        raise


@given(entries())
@example('"a*b"@example.com'.replace("*", "+"))
def test_the_normal_form_is_its_own_normal_form(entry: str) -> None:
    assert normal_entry(normal_entry(entry)) == normal_entry(entry)


@given(LOCAL_PARTS, DOMAINS)
@example("a\u037e", "example.com")  # becomes a semicolon, which needs quotes
@example("\u1f80", "example.com")
def test_the_gateway_and_the_list_agree_on_an_address(local: str, domain: str) -> None:
    """What RCPT looks up is what the list has, for every address that the list takes."""
    try:
        listed = normal_address(f"{local}@{domain}")
    except ValueError:
        return
    recipient = Recipient(f"{local}@{domain}")
    looked_up = normal_local_part(recipient.address.rpartition("@")[0])
    assert f"{looked_up}@{recipient.domain}" == listed


@given(LOCAL_PARTS, DOMAINS)
def test_case_makes_no_difference(local: str, domain: str) -> None:
    try:
        normal = normal_address(f"{local}@{domain}")
    except ValueError:
        return
    # Upper case is not always there and back: ı becomes I, which is i.
    assume(local.upper().casefold() == local.casefold())
    assert normal_address(f"{local.upper()}@{domain.swapcase()}") == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("@Example.COM", "@example.com"),
        ("@.例え.JP", "@.xn--r8jz45g.jp"),
        ("*@example.com", "@example.com"),
        ("**@*.Example.com", "*@*.example.com"),
        ("Info@*", "info@*"),
        ("*@*.例え.jp", "*@*.xn--r8jz45g.jp"),
        ("a**b@example.com", "a*b@example.com"),
        ("ÉCOLE*@example.com", "école*@example.com"),
        ('"taro"@example.com', "taro@example.com"),
        (r'"\ta\ro"@example.com', "taro@example.com"),
        ('"a b"@example.com', '"a b"@example.com'),
        ('""@example.com', '""@example.com'),
        ("a\u037e@example.com", '"a;"@example.com'),
        ("Taro@[IPv6:2001:DB8::1]", "taro@[ipv6:2001:db8::1]"),
        ("\u212aen@example.com", "ken@example.com"),  # the Kelvin sign
    ],
)
def test_entries_have_one_form(text: str, normal: str) -> None:
    assert normal_entry(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "@.", "*", "*@", "@*", "*@*", "**@**", "taro", "taro@", "a@b@c", "@a@b", "@..a"),
        *("a,b@example.com", "a b@example.com", 'a"b@example.com', '"a@example.com', '"a"b"@c.jp'),
        *('"a\\"@example.com', "a@exa mple.com", "a@example..com", "a@.example.com", "a@b.c."),
        *("a\x00@example.com", "a@example.com\x00", "a\ud800@example.com", '"\ud800"@example.com'),
        *("日本*@例え*.jp", '"a*"@example.com', "a@b*c@d", "<a@example.com>", "a@[b@c]"),
    ],
)
def test_what_is_no_entry_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        normal_entry(text)
    assert "is not" in str(caught.value) or "suppress all" in str(caught.value)


def test_an_address_literal_has_no_parent_domains() -> None:
    assert Spelling().target("a", "[192.0.2.1]").names == [
        "a@[192.0.2.1]",
        "@[192.0.2.1]",
        "@.[192.0.2.1]",
    ]


def test_all_parent_domains_are_looked_for() -> None:
    assert Spelling().target("a", "b.c.jp").names == [
        "a@b.c.jp",
        "@b.c.jp",
        "@.b.c.jp",
        "@.c.jp",
        "@.jp",
    ]


SPELLINGS = st.builds(Spelling, st.booleans(), st.booleans())
TAGGED = st.tuples(
    st.from_regex(r"[abc.+]{1,6}", fullmatch=True),
    st.sampled_from(["gmail.com", "googlemail.com", "example.com"]),
).map("@".join)


@given(TAGGED, TAGGED, SPELLINGS)
def test_reduced_addresses_are_reduced_and_have_one_root(
    one: str, other: str, spelling: Spelling
) -> None:
    reduced = spelling.reduced(one)
    assert spelling.reduced(reduced) == reduced
    # The database finds all spellings by their root, whatever makes a difference.
    if reduced == spelling.reduced(other):
        assert (root(one) or one) == (root(other) or other)


@given(entries())
def test_domains_and_patterns_have_no_root(entry: str) -> None:
    if entry.startswith("@") or is_pattern(entry):
        assert root(entry) is None


# Patterns.


@given(
    st.from_regex(r"[ab*]{1,8}", fullmatch=True),
    st.from_regex(r"[ab.*]{1,8}", fullmatch=True),
    st.from_regex(r"[ab]{0,8}", fullmatch=True),
    st.from_regex(r"[ab.]{0,8}", fullmatch=True),
)
@example("a*a", "*", "a", "")
@example("*", "ab*b.b", "", "ab.b")
def test_patterns_fit_as_globs_do(
    local_glob: str, domain_glob: str, local: str, domain: str
) -> None:
    expected = fnmatch.fnmatchcase(local, local_glob) and fnmatch.fnmatchcase(domain, domain_glob)
    assert (
        Pattern(f"{local_glob}@{domain_glob}").names(Spelling().target(local, domain)) is expected
    )


def test_no_pattern_takes_long() -> None:
    """A regular expression for this one would run until the end of days, or of the test."""
    pattern = Pattern(f"{'*a' * 30}*b@*")
    target = Spelling().target("a" * 64, "example.com")
    assert not pattern.names(target)


def test_a_pattern_meets_the_address_without_its_tag() -> None:
    pattern = Pattern("info@*")
    assert not pattern.names(Spelling().target("info+a", "example.com"))
    assert pattern.names(Spelling(subaddresses=True).target("info+a", "example.com"))


# Scopes, notes and times.


@given(DOMAINS)
def test_sender_scopes_are_read_as_they_are_written(domain: str) -> None:
    try:
        scope = sender_scope(normal_domain(domain))
    except ValueError:
        return
    assert parse_scope(format_scope(scope)) == scope


@pytest.mark.parametrize("scope", ["", stream_scope("bulk"), stream_scope("a:b"), stream_scope("")])
def test_other_scopes_are_read_as_they_are_written(scope: str) -> None:
    assert parse_scope(format_scope(scope)) == scope


@pytest.mark.parametrize("text", ["bulk", "sender:", "sender:a@b", "stream:", "stream:a\nb", "x:y"])
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no scope|is not a domain"):
        parse_scope(text)


@given(st.integers(0, 253402300799))
def test_times_are_read_as_they_are_written(seconds: int) -> None:
    assert parse_time(format_time(seconds)) == seconds
    assert parse_expiry(format_time(seconds), 0.0) == seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("never", None),
        ("90d", 1000 + 90 * 86400),
        ("1.5h", 1000 + 5400),
        ("2031-12-31T09:00:00+09:00", datetime(2031, 12, 31, tzinfo=UTC).timestamp()),
        ("2031-12-31T00:00Z", datetime(2031, 12, 31, tzinfo=UTC).timestamp()),
    ],
)
def test_ends(text: str, expected: float | None) -> None:
    assert parse_expiry(text, 1000.0) == expected


def test_a_date_ends_with_its_day_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        end = parse_expiry("2031-12-31", 0.0)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert end == datetime(2031, 12, 31, 15, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "text", ["90", "soon", "2031-02-30", "9999-12-31", "90x", "2031", "-1d", "9" * 12 + "w"]
)
def test_what_is_no_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no end; expected a date"):
        parse_expiry(text, 0.0)


@pytest.mark.parametrize("text", ["a\nb", "a\x00", "\x1b[0m", "a\u2028b", "\ud800", "\x85"])
def test_notes_are_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        parse_note(text)


@pytest.mark.parametrize("text", ["", "電話で\u3000四月", 'a, "b"; c\'d', " a "])
def test_notes_are_kept_as_they_are(text: str) -> None:
    assert parse_note(text) == text


def test_reasons_are_known() -> None:
    assert parse_reason("bounce") == "bounce"
    with pytest.raises(ValueError, match=re.escape("'bored' is no reason; expected complaint,")):
        parse_reason("bored")
