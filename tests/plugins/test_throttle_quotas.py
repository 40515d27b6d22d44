from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Client, Quarantine, Reject, Tempfail
from plugins.throttle import Throttle
from plugins.throttle.ledger import FILE_NAME, Ledger, LedgerError
from plugins.throttle.window import PERIODS, Period, window_of
from tests.plugins.throttle_site import Site, mail

TOKYO = ZoneInfo("Asia/Tokyo")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def at(text: str, zone: str = "Asia/Tokyo") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def plugin(site: Site, **quota: Any) -> Throttle:
    return site.plugin(quotas={"q": quota}, time_zone="Asia/Tokyo")


def taken(plugin: Throttle, *recipients: str, **kind: Any) -> bool:
    return plugin.message(mail(*recipients, **kind)) is None


# At the limit.


def test_the_last_one_is_taken_and_the_next_is_refused_for_now(site: Site) -> None:
    site.now = at("2026-11-21 14:05")
    one = plugin(site, by="user", messages={"hour": 3})
    assert [taken(one) for _ in range(3)] == [True] * 3
    assert one.message(mail()) == Tempfail(
        "The quota of 3 messages an hour for user shop is used up until 2026-11-21 15:00 JST; "
        "please try again then",
        452,
        "4.7.1",
    )
    assert taken(one, user="other")
    site.now = at("2026-11-21 14:59:59")
    assert not taken(one)
    site.now = at("2026-11-21 15:00")
    assert taken(one)


def test_two_workers_share_a_quota_exactly(site: Site) -> None:
    workers = [plugin(site, messages={"day": 101}) for _ in range(2)]
    answers = [taken(workers[number % 2]) for number in range(150)]
    assert answers == [True] * 101 + [False] * 49


HAMMER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.plugins.throttle_site import Site, mail
site = Site(Path(sys.argv[1]))
one = site.plugin(quotas={"q": {"messages": {"day": 500}, "recipients": {"day": 700}}})
sys.stdin.read()
print(sum(one.message(mail(f"r{n % 333}@x.example")) is None for n in range(400)))
"""


def test_processes_that_hammer_a_quota_never_take_more(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, str(tmp_path), root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    counts = []
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    for process in running:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        counts.append(int(output))
    assert sum(counts) == 500


def test_recipients_count_once(site: Site) -> None:
    one = plugin(site, recipients={"day": 3})
    assert taken(one, "a@x.example", "b@x.example")
    assert taken(one, "A@X.example", "b@x.example", "b@x.example")
    assert taken(one, "c@x.example")
    said = one.message(mail("a@x.example", "d@x.example"))
    assert isinstance(said, Tempfail)
    assert said.text.startswith("The quota of 3 recipients a day is used up until ")
    assert taken(one, "a@x.example", "b@x.example", "c@x.example")


def test_a_message_that_can_never_fit_is_refused_for_good(site: Site) -> None:
    one = plugin(site, recipients={"day": 2, "month": 100})
    said = one.message(mail("a@x.example", "b@x.example", "c@x.example"))
    assert said == Reject(
        "The message has more recipients than the quota of 2 recipients a day allows", 550, "5.5.3"
    )
    assert taken(one, "a@x.example", "b@x.example")


def test_a_refused_message_takes_nothing(site: Site) -> None:
    one = site.plugin(
        quotas={
            "many": {"messages": {"day": 5}, "recipients": {"day": 5}},
            "few": {"by": "sender", "messages": {"day": 1}},
        }
    )
    assert taken(one, "a@x.example", sender="a@s.example")
    for _ in range(10):
        assert not taken(one, "b@x.example", sender="a@s.example")
    assert [taken(one, sender=f"{n}@s.example") for n in range(5)] == [True] * 4 + [False]


def test_what_is_beyond_can_be_held(site: Site) -> None:
    one = plugin(site, by="sender_domain", messages={"day": 1}, at_limit="hold")
    site.now = at("2026-11-21 14:05")
    assert taken(one)
    assert one.message(mail()) == Quarantine(
        "quota q: The quota of 1 message a day for sender domain shop.example.com is used up until "
        "2026-11-22 00:00 JST; please try again then"
    )


def test_a_refusal_is_stronger_than_holding(site: Site) -> None:
    one = site.plugin(
        quotas={
            "holds": {"messages": {"day": 1}, "at_limit": "hold"},
            "refuses": {"messages": {"month": 1}},
        }
    )
    assert taken(one)
    assert isinstance(one.message(mail()), Tempfail)


# Whose.


@pytest.mark.parametrize(
    ("by", "same", "other"),
    [
        ("user", {"sender": "x@y.example"}, {"user": "office"}),
        (
            "sender",
            {"user": "office", "sender": "News@shop.Example.com"},
            {"sender": "a@b.example"},
        ),
        ("sender_domain", {"sender": "other@Shop.example.com"}, {"sender": "news@b.example"}),
    ],
)
def test_a_quota_for_each(site: Site, by: str, same: dict[str, str], other: dict[str, str]) -> None:
    one = plugin(site, by=by, messages={"day": 1})
    assert taken(one)
    assert not taken(one, **same)
    assert taken(one, **other)


@pytest.mark.parametrize("by", ["stream", "client"])
def test_a_quota_for_each_stream_and_client(site: Site, by: str) -> None:
    one = plugin(site, by=by, messages={"day": 1})
    assert taken(one)
    other = mail()
    other.stream, other.client = "transactional", Client("192.0.2.77")
    assert one.message(other) is None
    assert not taken(one)


def test_nobody_has_no_quota(site: Site) -> None:
    assert all(taken(plugin(site, by="user", messages={"day": 1}), user=None) for _ in range(3))
    reports = plugin(site, by="sender", messages={"day": 1})
    assert all(taken(reports, sender="") for _ in range(3))


def test_only_what_the_condition_means_counts(site: Site) -> None:
    one = plugin(site, when={"recipient_domain": "x.example"}, recipients={"day": 1})
    assert taken(one, "a@y.example", "b@y.example")
    assert taken(one, "a@x.example", "b@y.example", "c@y.example")
    assert not taken(one, "b@x.example")
    assert taken(one, "b@y.example")


# Hours, days and months.


@pytest.mark.parametrize(
    ("period", "before", "after"),
    [
        ("hour", "2026-11-21 14:59:59", "2026-11-21 15:00"),
        ("day", "2026-11-21 23:59:59", "2026-11-22 00:00"),
        ("month", "2026-11-30 23:59:59", "2026-12-01 00:00"),
        ("month", "2028-02-29 23:59:59", "2028-03-01 00:00"),
        ("month", "2026-12-31 23:59:59", "2027-01-01 00:00"),
    ],
)
def test_a_quota_begins_anew_with_the_calendar_of_the_time_zone(
    site: Site, period: Period, before: str, after: str
) -> None:
    one = plugin(site, messages={period: 2}, recipients={period: 2})
    site.now = window_of(period, at(before), TOKYO).start
    assert taken(one, "a@x.example")
    site.now = at(before)
    assert taken(one, "b@x.example")
    assert not taken(one, "a@x.example")
    site.now = at(after)
    assert taken(one, "c@x.example", "d@x.example")


def test_all_periods_hold(site: Site) -> None:
    one = plugin(site, messages={"hour": 2, "day": 3, "month": 4})
    site.now = at("2026-11-21 00:00")
    counts = []
    for _ in range(3):
        for _ in range(3):
            counts.append(sum(taken(one) for _ in range(5)))
            site.now += 3600
        site.now += 86400 - 3 * 3600
    assert counts == [2, 1, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("Asia/Tokyo", "2026-03-29", 24),
        ("America/Sao_Paulo", "2018-11-04", 23),  # its midnight is skipped
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
    ],
)
def test_days_on_which_the_clock_is_set(zone: str, day: str, hours: float) -> None:
    window = window_of("day", at(f"{day} 12:00", zone), ZoneInfo(zone))
    assert window.end - window.start == hours * 3600


@given(
    st.sampled_from(["UTC", "Asia/Tokyo", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu"]),
    st.sampled_from(PERIODS),
    st.floats(0, 4e9),
)
def test_windows_hold_their_moments_and_follow_each_other(
    zone: str, period: Period, moment: float
) -> None:
    place = ZoneInfo(zone)
    window = window_of(period, moment, place)
    assert window.start <= moment < window.end
    assert window_of(period, window.start, place) == window
    assert window_of(period, window.end - 1, place) == window
    following = window_of(period, window.end, place)
    assert following.start == window.end
    longest = {"hour": timedelta(hours=1), "day": timedelta(hours=26), "month": timedelta(days=32)}
    assert window.end - window.start <= longest[period].total_seconds()
    if period != "hour":
        begin = datetime.fromtimestamp(window.start, place)
        assert (begin.hour <= 1, begin.minute) == (True, 0)


def test_a_clock_that_is_set_back_counts_in_the_window_of_then(site: Site) -> None:
    one = plugin(site, messages={"hour": 1})
    site.now = at("2026-11-21 14:50")
    assert taken(one)
    site.now += 1800
    assert taken(one)
    site.now -= 1800
    assert not taken(one)


# The file.


def rows(site: Site, table: str) -> int:
    db = apsw.Connection(os.fspath(site.folder / "data" / FILE_NAME))
    try:
        count: Any = db.execute(f"SELECT count(*) FROM {table}").get
        return int(count)
    finally:
        db.close()


def test_quotas_survive_a_restart(site: Site) -> None:
    assert taken(plugin(site, messages={"day": 1}))
    assert not taken(plugin(site, messages={"day": 1}))


def test_what_is_over_is_removed_a_little_at_a_time(site: Site) -> None:
    one = plugin(site, by="user", messages={"day": 10**6}, recipients={"hour": 10**6})
    for user in range(5):
        assert taken(one, *(f"r{n}@x.example" for n in range(500)), user=f"user{user}")
    assert rows(site, "seen") == 2500
    site.now += 2 * 86400
    before = rows(site, "seen")
    for _ in range(40):
        assert taken(one, "r@x.example", user="new")
        now = rows(site, "seen")
        assert before - now <= 300
        before = now
    assert (rows(site, "seen"), rows(site, "windows")) == (1, 2)


def test_a_file_is_for_its_owner_only_and_holds_no_addresses(site: Site) -> None:
    one = plugin(site, recipients={"day": 10})
    assert taken(one, "hanako@secret.example")
    path = site.folder / "data" / FILE_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    for file in path.parent.iterdir():
        assert b"hanako" not in file.read_bytes()


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"nonsense" * 1000, "move it away"), (None, "is of another program or version")],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / FILE_NAME
    if content is not None:
        path.write_bytes(content)
    else:
        db = apsw.Connection(os.fspath(path))
        db.execute("CREATE TABLE other (x)")
        db.close()
    with pytest.raises(LedgerError, match=problem):
        Ledger(path)
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "missing" / FILE_NAME)


def test_mail_is_not_taken_while_nobody_can_count(site: Site) -> None:
    one = plugin(site, messages={"day": 10})
    assert one._counting is not None
    one._counting.close()
    with pytest.raises(LedgerError, match="cannot be written"):
        one.message(mail())


def test_times_are_shown_with_their_zone(site: Site) -> None:
    site.now = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
    for zone, end in (
        ("UTC", "2026-11-22 00:00 UTC"),
        ("Asia/Kathmandu", "2026-11-22 00:00 +0545"),
    ):
        one = site.plugin(quotas={zone.replace("/", "-"): {"messages": {"day": 1}}}, time_zone=zone)
        assert taken(one)
        said = one.message(mail())
        assert isinstance(said, Tempfail)
        assert end in said.text


# The configuration.


@pytest.mark.parametrize(
    ("quota", "problem"),
    [
        ({"by": "user"}, "needs messages or recipients"),
        ({"messages": {}}, "expected hour, day or month"),
        ({"messages": {"hour": 10, "day": 5}}, "hour: 10 is more than day: 5 allows"),
        ({"messages": {"day": 10, "month": 5}}, "day: 10 is more than month: 5 allows"),
        ({"messages": {"day": 0}}, "greater than or equal to 1"),
        ({"messages": {"week": 1}}, "Extra inputs"),
        ({"messages": {"day": 1}, "by": "domain"}, "'user', 'sender'"),
        ({"messages": {"day": 1}, "at_limit": "drop"}, "'refuse' or 'hold'"),
        ({"messages": {"day": 1}, "when": {}}, "a condition needs"),
    ],
)
def test_quotas_that_make_no_sense(site: Site, quota: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        site.config(quotas={"q": quota})
