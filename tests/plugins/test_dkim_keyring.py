"""Which key signs: patterns, folders of keys, the default, and keys that follow each other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from dkim.util import parse_tag_value
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.configuration.config import load_config
from gateway.hooks import Reject
from gateway.hooks.load import load_plugins
from plugins.dkim import Dkim, DkimConfig
from plugins.dkim.validity import Validity, gaps, parse_instant, warning
from tests.plugins.dkim_keys import (
    NOW,
    context,
    ed25519_key,
    message,
    plugin,
    rsa_key,
    verified_by_dkimpy,
)
from tests.plugins.test_dkim import sealed, signature

DAY = 86400.0


def text(author: str) -> bytes:
    return f"From: {author}\r\n\r\nHello.\r\n".encode()


def signatures(signer: Dkim, author: str = "news@example.com") -> list[str]:
    """The selector and domain of each signature, from the top."""
    subject = message(text(author))
    assert signer.seal(subject) is None
    tags = [
        parse_tag_value(field.body.strip()) for field in subject.headers.fields("DKIM-Signature")
    ]
    return [f"{one[b's'].decode()} {one[b'd'].decode()}" for one in tags]


def started(folder: Path, config: DkimConfig, clock: Clock) -> Dkim:
    made = Dkim(config)
    made.start(context(folder, clock=clock))
    return made


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def config(folder: Path, *keys: Mapping[str, object], **other: object) -> DkimConfig:
    """Keys of RSA for example.com, unless they say otherwise."""
    if not (folder / "key.pem").exists():
        rsa_key().write(folder / "key.pem")
        ed25519_key().write(folder / "ed25519.pem")
    entries = [{"domain": "example.com", "file": "key.pem", **key} for key in keys]
    return DkimConfig.model_validate({"keys": entries, **other}, context={"base": folder})


# Patterns.


def test_a_pattern_signs_for_each_domain_below_as_itself(tmp_path: Path) -> None:
    signer = plugin(
        tmp_path,
        {"domain": "*.customers.example"},
        {"domain": "own.customers.example", "selector": "own"},
        pairs=(rsa_key(),) * 2,
    )

    assert signatures(signer, "a@one.customers.example") == ["s1 one.customers.example"]
    assert signatures(signer, "a@x.one.CUSTOMERS.example") == ["s1 x.one.customers.example"]
    assert signatures(signer, "a@own.customers.example") == ["own own.customers.example"]
    assert signatures(signer, "a@x.own.customers.example") == ["s1 x.own.customers.example"]
    assert signatures(signer, "a@customers.example") == []
    assert signatures(signer, "a@notcustomers.example") == []
    content = sealed(signer, text("a@one.customers.example"))
    assert verified_by_dkimpy(content, rsa_key())


def test_the_nearest_parent_signs_and_the_star_for_all_others(tmp_path: Path) -> None:
    signer = plugin(
        tmp_path,
        {"domain": "*", "selector": "any"},
        {"domain": "*.example.com", "selector": "below"},
        {"domain": "news.example.com", "selector": "news", "subdomains": True},
        pairs=(rsa_key(),) * 3,
    )

    assert signatures(signer, "a@example.org") == ["any example.org"]
    assert signatures(signer, "a@example.com") == ["any example.com"]
    assert signatures(signer, "a@x.example.com") == ["below x.example.com"]
    assert signatures(signer, "a@news.example.com") == ["news news.example.com"]
    assert signatures(signer, "a@x.news.example.com") == ["news news.example.com"]
    assert signatures(signer, "a@example.org, b@x.example.com") == [
        "any example.org",
        "below x.example.com",
    ]


def test_a_pattern_with_two_keys_makes_two_signatures(tmp_path: Path) -> None:
    signer = plugin(
        tmp_path,
        {"domain": "*.example.com", "selector": "r"},
        {"domain": "*.example.com", "selector": "e"},
        pairs=(rsa_key(), ed25519_key()),
    )

    assert signatures(signer, "a@x.example.com, b@x.example.com") == [
        "r x.example.com",
        "e x.example.com",
    ]


def test_a_key_may_be_for_a_list_of_domains(tmp_path: Path) -> None:
    signer = plugin(tmp_path, {"domain": ["one.example", "日本.example", "*.two.example"]})

    assert signatures(signer, "a@one.example") == ["s1 one.example"]
    assert signatures(signer, "a@日本.example") == ["s1 xn--wgv71a.example"]
    assert signatures(signer, "a@x.two.example") == ["s1 x.two.example"]
    assert signatures(signer, "a@two.example") == []


def test_thousands_of_domains_of_a_pattern(tmp_path: Path) -> None:
    signer = plugin(tmp_path, {"domain": "*"}, pairs=(ed25519_key(),))

    for number in range(5000):
        assert signatures(signer, f"a@d{number}.example") == [f"s1 d{number}.example"]


# A key for each domain, in files named for it.


def key_file(folder: Path, name: str, mode: int = 0o600) -> None:
    path = folder / "keys" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    ed25519_key().write(path, mode)


def test_a_pattern_with_a_place_for_the_domain_finds_the_keys_that_are_there(
    tmp_path: Path,
) -> None:
    for name in (
        *("one.example/s1.pem", "xn--wgv71a.example/s1.pem", "two.test/s1.pem"),
        *("other.example/s2.pem", "not a domain/s1.pem", "UPPER.example/s1.pem"),
    ):
        key_file(tmp_path, name)
    (tmp_path / "keys" / "file.example").touch()
    entry = {"domain": "*.example", "selector": "s1", "file": "keys/{domain}/s1.pem"}

    signer = started(tmp_path, config(tmp_path, entry), Clock())

    assert signatures(signer, "a@one.example") == ["s1 one.example"]
    assert signatures(signer, "a@日本.example") == ["s1 xn--wgv71a.example"]
    for other in ("two.test", "other.example", "upper.example", "file.example", "x.one.example"):
        assert signatures(signer, f"a@{other}") == []


@pytest.mark.parametrize("file", ["keys/{domain}.pem", "keys/dkim-{domain}.pem"])
def test_the_place_may_be_in_the_name_of_the_file(tmp_path: Path, file: str) -> None:
    key_file(tmp_path, file.format(domain="one.example").removeprefix("keys/"))
    key_file(tmp_path, "else.txt")

    made = config(tmp_path, {"domain": "*", "selector": "s1", "file": file})

    assert list(made.keys[0].private_keys) == ["one.example"]


def test_each_domain_of_a_list_needs_its_file(tmp_path: Path) -> None:
    key_file(tmp_path, "one.example.pem")
    entry = {"domain": ["one.example"], "selector": "s1", "file": "keys/{domain}.pem"}

    assert list(config(tmp_path, entry).keys[0].private_keys) == ["one.example"]
    with pytest.raises(ValidationError, match=r"keys/two\.example\.pem: cannot be read"):
        config(tmp_path, {**entry, "domain": ["one.example", "two.example"]})


def test_a_key_in_the_folder_that_others_may_read_is_refused(tmp_path: Path) -> None:
    key_file(tmp_path, "one.example.pem")
    key_file(tmp_path, "two.example.pem", 0o644)

    with pytest.raises(ValidationError, match=r"two\.example\.pem: mode 0644"):
        config(tmp_path, {"domain": "*", "selector": "s1", "file": "keys/{domain}.pem"})


def test_a_folder_that_is_not_there_yet_holds_no_keys(tmp_path: Path) -> None:
    entry = {"domain": "*", "selector": "s1", "file": "keys/{domain}/s1.pem"}

    assert not config(tmp_path, entry).keys[0].private_keys


# The default.


def test_mail_that_no_key_is_for_is_signed_by_default(tmp_path: Path) -> None:
    signer = plugin(
        tmp_path,
        {"domain": "gw.example.com", "selector": "gw"},
        {"domain": "example.org", "selector": "org"},
        pairs=(rsa_key(),) * 2,
        unsigned="default",
        default="GW.example.com",
    )

    assert signatures(signer, "a@example.org") == ["org example.org"]
    assert signatures(signer, "a@elsewhere.example") == ["gw gw.example.com"]
    assert signatures(signer, "a@example.org, b@elsewhere.example") == ["gw gw.example.com"]
    assert signatures(signer, "<a@example.com> <b@example.com>") == ["gw gw.example.com"]
    assert verified_by_dkimpy(sealed(signer, text("a@elsewhere.example")), rsa_key())


@pytest.mark.parametrize(
    "content",
    [
        b"Subject: x\r\n\r\nHello.\r\n",
        b"From: a@example.org\r\nFrom: b@example.org\r\n\r\nHello.\r\n",
    ],
)
def test_what_has_not_one_from_is_not_signed_by_default_either(
    tmp_path: Path, content: bytes
) -> None:
    signer = plugin(tmp_path, unsigned="default", default="example.com")

    assert sealed(signer, content) == content


# Keys that follow each other.

SWITCH = datetime(2026, 12, 1, tzinfo=UTC).timestamp()


def test_the_keys_change_in_the_second_that_is_set(tmp_path: Path) -> None:
    clock = Clock(SWITCH - 10 * DAY)
    made = config(
        tmp_path,
        {"selector": "old", "not_after": "2026-12-01"},
        {"selector": "new", "not_before": date(2026, 12, 1)},
    )
    signer = started(tmp_path, made, clock)

    for now, selector in (
        *((SWITCH - 10 * DAY, "old"), (SWITCH - 0.001, "old"), (SWITCH, "new")),
        *((SWITCH + 1000 * DAY, "new"), (SWITCH - 1, "old"), (SWITCH + 0.001, "new")),
    ):
        clock.now = now
        content = sealed(signer, text("news@example.com"))
        assert signature(content)["s"] == selector
        assert signature(content)["t"] == str(int(now))


def test_three_keys_and_one_beside_them(tmp_path: Path) -> None:
    clock = Clock()
    made = config(
        tmp_path,
        {"selector": "c", "not_before": "2027-01-01T00:00:00+09:00"},
        {"selector": "a", "not_after": "2026-12-01T09:00:00+09:00"},
        {"selector": "e", "file": "ed25519.pem"},
        {
            "selector": "b",
            "not_before": "2026-12-01T00:00:00Z",
            "not_after": datetime(2026, 12, 31, 15, tzinfo=UTC),
        },
    )
    signer = started(tmp_path, made, clock)

    for when, selectors in (
        ("2026-11-30", ["a", "e"]),
        ("2026-12-01", ["e", "b"]),
        ("2026-12-31T23:59:59+09:00", ["e", "b"]),
        ("2026-12-31T15:00:00Z", ["c", "e"]),
    ):
        clock.now = parse_instant(when)
        assert signatures(signer) == [f"{name} example.com" for name in selectors]


def test_a_key_that_does_not_sign_yet_or_any_more_leaves_mail_to_the_others(
    tmp_path: Path,
) -> None:
    clock = Clock(SWITCH - DAY)
    made = config(
        tmp_path,
        {"selector": "own", "domain": "x.example.com", "not_before": "2026-12-01"},
        {"selector": "star", "domain": "*.example.com", "not_after": "2026-12-05"},
        unsigned="reject",
    )
    signer = started(tmp_path, made, clock)

    assert signatures(signer, "a@x.example.com") == ["star x.example.com"]
    clock.now = SWITCH
    assert signatures(signer, "a@x.example.com") == ["own x.example.com"]
    assert signatures(signer, "a@y.example.com") == ["star y.example.com"]
    clock.now = SWITCH + 4 * DAY
    assert isinstance(signer.seal(message(text("a@y.example.com"))), Reject)


def test_threads_that_meet_at_the_change_all_sign(tmp_path: Path) -> None:
    clock = Clock(SWITCH - 1)
    made = config(
        tmp_path,
        {"selector": "old", "not_after": "2026-12-01", "file": "ed25519.pem"},
        {"selector": "new", "not_before": "2026-12-01", "file": "ed25519.pem"},
    )
    signer = started(tmp_path, made, clock)
    seen: set[tuple[str, ...]] = set()

    def sign() -> None:
        for _ in range(200):
            seen.add(tuple(signatures(signer)))

    threads = [threading.Thread(target=sign) for _ in range(4)]
    for thread in threads:
        thread.start()
    for step in range(200):
        clock.now = SWITCH - 1 + step % 2
    for thread in threads:
        thread.join()
    assert seen <= {("old example.com",), ("new example.com",)}


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            [{"not_after": "2026-12-01"}, {"not_before": "2026-12-02"}],
            "a key of type rsa for example.com is missing from 2026-12-01 00:00:00 UTC to "
            "2026-12-02 00:00:00 UTC",
        ),
        (
            [
                {"not_after": "2026-12-01"},
                {"not_before": "2026-12-01T00:00:01Z"},
                {"file": "ed25519.pem"},
            ],
            "to 2026-12-01 00:00:01 UTC",
        ),
        (
            [
                {"not_after": "2026-12-01", "subdomains": True},
                {"not_before": "2026-12-01"},
                {"not_before": "2027-01-01", "subdomains": True},
            ],
            r"for \*\.example\.com is missing from 2026-12-01",
        ),
        (
            [
                {"domain": "*.example.com", "not_after": "2026-12-01"},
                {"domain": "*.example.com", "not_before": "2027-01-01"},
            ],
            r"for \*\.example\.com is missing",
        ),
    ],
)
def test_a_gap_between_keys_is_an_error(
    tmp_path: Path, keys: list[dict[str, object]], text: str
) -> None:
    named = [{"selector": f"s{number}"} | key for number, key in enumerate(keys)]

    with pytest.raises(ValidationError, match=text):
        config(tmp_path, *named)


def test_keys_that_overlap_both_sign(tmp_path: Path) -> None:
    made = config(
        tmp_path,
        {"selector": "old", "not_after": "2026-12-02"},
        {"selector": "new", "not_before": "2026-12-01"},
    )

    assert signatures(started(tmp_path, made, Clock(SWITCH))) == [
        "old example.com",
        "new example.com",
    ]


def test_times_in_a_file_are_read_as_yaml_gives_them(tmp_path: Path) -> None:
    rsa_key().write(tmp_path / "key.pem")
    times = (
        "2026-12-01",
        "2026-12-01T09:00:00+09:00",
        "2026-12-01 00:00:00 +00:00",
        "2026-12-01T00:00Z",
        "'2026-12-01'",
    )
    for time in times:
        (tmp_path / "gateway.yaml").write_text(
            "hostname: gw.example.com\n"
            "listen: [{address: '127.0.0.1:2525', allow: [127.0.0.0/8]}]\n"
            "plugins:\n  - dkim:\n      keys:\n"
            f"        - {{domain: example.com, selector: s1, file: key.pem, not_before: {time}}}\n"
        )
        (loaded,) = load_plugins(load_config(tmp_path / "gateway.yaml"))
        assert loaded.instance.config.keys[0].not_before == SWITCH


@given(
    spans=st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 10)).map(
            lambda span: Validity(span[0], span[0] + span[1])
        ),
        min_size=1,
        max_size=6,
    )
)
def test_gaps_are_the_instants_in_no_span(spans: list[Validity]) -> None:
    missing = gaps(spans)

    first, last = min(one.start for one in spans), max(one.end for one in spans)
    for instant in range(int(first), int(last)):
        covered = any(instant in one for one in spans)
        assert covered is not any(instant in gap for gap in missing)


# What the log says at the start.


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-30", "is missing until 2026-12-01 00:00:00 UTC"),
        ("2026-12-01", None),
        ("2027-02-28", None),
        ("2027-03-02", "will be missing from 2027-04-01 00:00:00 UTC on; add the key that follows"),
        ("2027-04-01", "is missing since 2027-04-01 00:00:00 UTC"),
    ],
)
def test_the_service_process_says_at_its_start_which_keys_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, now: str, expected: str | None
) -> None:
    made = Dkim(
        config(
            tmp_path,
            {"selector": "a", "not_before": "2026-12-01", "not_after": "2027-01-01"},
            {"selector": "b", "not_before": "2027-01-01", "not_after": "2027-04-01"},
        )
    )
    clock = Clock(parse_instant(now))

    with caplog.at_level(logging.INFO):
        made.start(context(tmp_path, clock=clock))
        assert caplog.messages == []
        made.start(context(tmp_path, clock=clock, role="service"))

    expected_lines = [] if expected is None else [f"a key of type rsa for example.com {expected}"]
    assert caplog.messages == expected_lines


def test_a_plugin_that_does_nothing_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Dkim(DkimConfig()).start(context(tmp_path, role="service"))
    Dkim(DkimConfig.model_validate({"verify": True})).start(context(tmp_path, role="service"))

    assert caplog.messages == ["no keys: nothing is signed"]


def test_keys_without_times_are_never_missing() -> None:
    assert warning("x", [Validity()], NOW) is None
