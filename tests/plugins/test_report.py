"""What is counted, and that neither repetition nor order nor age changes a report."""

from __future__ import annotations

import json
import math
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.hooks import Event
from plugins.report import Report, ReportConfig
from plugins.report.database import open_to_read, open_to_write
from plugins.report.days import day_expression
from plugins.report.significance import compare, two_proportions
from tests.plugins.report_site import DAY, HOUR, NOW, Site, event, sent

URL = "https://shop.example/"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.stop()


def _campaigns(site: Site, *arguments: str) -> dict[str | None, dict[str, Any]]:
    printed = json.loads(site.said("--json", *arguments))
    return {one["campaign"]: one for one in printed["campaigns"]}


def _counts(site: Site, *arguments: str) -> dict[str, int]:
    """The counts of `spring` that are not 0."""
    counts = _campaigns(site, *arguments)["spring"]["counts"]
    return {name: count for name, count in counts.items() if count}


def test_each_milestone_counts_once_for_a_recipient_of_a_message(site: Site) -> None:
    kinds = ["accepted", "delivered", "bounced", "expired", "suppressed", "discarded", "dropped"]
    site.observe(event(kind, after=second) for kind in kinds for second in (0, 1, 2))
    kinds.remove("delivered")  # it came back
    assert _counts(site) == dict.fromkeys(kinds, 1)
    site.observe([sent("delivered", "ID2", "third@example.net")])
    assert _counts(site)["delivered"] == 1
    site.observe([sent("accepted", "ID1", "other@example.net"), event("accepted", 2)])
    assert _counts(site)["accepted"] == 3


def test_what_is_no_fate_of_mail_is_not_counted(site: Site) -> None:
    kinds = ("deferred", "held", "released", "suspected", "anything")
    site.observe(event(kind) for kind in kinds)
    assert _campaigns(site) == {}


def test_people_count_once_and_what_they_do_each_time(site: Site) -> None:
    site.observe([event("accepted"), event("delivered")])
    site.observe(event("opened", after=second) for second in (10, 20, 20))
    site.observe(event("clicked", after=second, url=URL) for second in (30, 40))
    site.observe([event("unsubscribed", after=50), event("complained", after=60)])
    assert _counts(site) == {
        **dict.fromkeys(("accepted", "delivered", "opened", "clicked"), 1),
        **dict.fromkeys(("unsubscribed", "complained"), 1),
        **dict.fromkeys(("opens", "clicks"), 2),
    }


def test_programs_are_counted_apart(site: Site) -> None:
    site.observe([event("accepted"), event("delivered")])
    site.observe(
        [
            event("opened", robot="proxy-apple"),
            event("clicked", after=1, url=URL, robot="scanner"),
            event("clicked", after=2, url=URL, robot="scanner"),
            event("converted", after=3, order="1", value="5", currency="EUR", robot="bot"),
            event("unsubscribed", after=4, robot="scanner"),
        ]
    )
    assert _counts(site) == {"accepted": 1, "delivered": 1}
    found = _campaigns(site)["spring"]
    assert found["robots"] == {
        "opened": {"proxy-apple": 1},
        "clicked": {"scanner": 2},
        "converted": {"bot": 1},
        "unsubscribed": {"scanner": 1},
    }
    assert (found["links"], found["sales"]) == ([], [])


def test_opens_through_the_proxies_of_mail_providers_are_people(site: Site) -> None:
    site.observe([event("accepted"), event("opened", after=5, proxy="google")])
    assert _counts(site)["opened"] == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_click_found_to_be_a_robots_is_not_a_persons(site: Site, late: bool) -> None:
    person = event("clicked", after=9, url=URL)
    robot = event("clicked", after=9, url=URL, robot="burst")
    site.observe([event("accepted")])
    site.observe([person, robot] if late else [robot, person])
    site.observe([person])
    assert _counts(site) == {"accepted": 1}
    site.observe([event("clicked", after=99, url=URL)])
    assert _counts(site) == {"accepted": 1, "clicked": 1, "clicks": 1}


def test_sums_of_orders_are_exact_and_an_order_counts_once(site: Site) -> None:
    def order(number: int, after: float, value: str, currency: str = "EUR") -> Event:
        name = f"order-{number}"
        return event("converted", 1, after, order=name, value=value, currency=currency)

    site.observe([order(1, 5, "0.1"), order(2, 6, "0.2"), order(3, 7, "1200", "JPY")])
    site.observe([order(1, 8, "0.1"), event("converted", 1, 9)])
    site.observe([order(9, 1, "NaN"), order(10, 2, "1e999999999"), order(11, 3, "5", "<b>")])
    found = _campaigns(site)["spring"]
    assert found["sales"] == [
        {"currency": "EUR", "orders": 2, "value": "0.3"},
        {"currency": "JPY", "orders": 1, "value": "1200"},
        {"currency": None, "orders": 4, "value": "0"},
    ]
    assert found["counts"]["converted"] == 1


def test_mail_without_a_campaign_is_one_line_or_none(site: Site, tmp_path: Path) -> None:
    events = [event("accepted", 1), event("accepted", 2, campaign="")]
    site.observe(events)
    assert list(_campaigns(site)) == ["spring", None]
    assert list(_campaigns(site, "--campaign", "(none)")) == [None]
    other = Site(tmp_path / "other", campaigns_only=True)
    other.observe(events)
    other.stop()
    assert list(_campaigns(other)) == ["spring"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_what_one_event_does_not_say_others_do(site: Site, order: tuple[int, ...]) -> None:
    events = [
        event("suppressed", campaign=""),
        event("accepted", after=1, variant="A"),
        event("delivered", after=2, campaign="", variant=""),
    ]
    for place in order:
        site.observe([events[place]])
    (found,) = _campaigns(site).values()
    assert found["campaign"] == "spring"
    assert [one["variant"] for one in found["variants"]] == ["A"]


def test_hostile_events_do_not_stop_the_others(site: Site) -> None:
    long = "x" * 100_000
    site.observe(
        [
            replace(event("accepted"), time=math.nan),
            replace(event("accepted"), time=1e300),
            replace(event("accepted"), time=-1.0),
            event("accepted", 2, campaign=long, variant=long),
            event("clicked", 2, url=long, campaign=long, robot=long),
            sent("accepted", "ID3", "postmaster", campaign="'; DROP TABLE recipients; --"),
            event("accepted", 4, variant="\x00\x1b[2J"),
        ]
    )
    found = _campaigns(site)
    assert sorted(len(name or "") for name in found) == [6, 28, 500]
    assert found["'; DROP TABLE recipients; --"]["domains"][0]["domain"] == ""


# Laws.

_SUBJECTS = st.tuples(
    st.sampled_from(["ID1", "ID2", "ID3"]),
    st.sampled_from(["ada@example.net", "bob@Example.NET", "eve@example.org"]),
)
_NOTES: dict[str, st.SearchStrategy[dict[str, str]]] = {
    "clicked": st.fixed_dictionaries(
        {"url": st.sampled_from(["https://a.example", "https://b.example"])}
    ),
    "converted": st.fixed_dictionaries(
        {
            "order": st.sampled_from(["", "1", "2"]),
            "value": st.sampled_from(["", "0.10", "12"]),
            "currency": st.sampled_from(["EUR", "JPY"]),
        }
    ),
}


_KINDS = (
    *("accepted", "suppressed", "delivered", "bounced", "expired"),
    *("opened", "clicked", "clicked", "converted", "unsubscribed", "complained"),
)


@st.composite
def _events(draw: st.DrawFn) -> Event:
    """An event as it would be emitted: notes depend on the message, so that they agree."""
    kind = draw(st.sampled_from(_KINDS))
    message_id, recipient = draw(_SUBJECTS)
    after = draw(st.integers(0, 400)) * HOUR
    notes = draw(_NOTES.get(kind, st.just({})))
    # Two orders at the same time are told apart by their number, and worth what they are worth.
    if kind == "converted":
        after += {"": 0, "0.10": 1, "12": 2}[notes["value"]] + (notes["currency"] == "EUR") * 4
    if kind in ("opened", "clicked", "converted"):
        notes = {**notes, "robot": draw(st.sampled_from(["", "", "scanner", "burst"]))}
    campaign = {"ID1": "spring", "ID2": "", "ID3": "autumn"}[message_id]
    variant = "A" if recipient.startswith("a") else "B"
    return sent(kind, message_id, recipient, after, campaign=campaign, variant=variant, **notes)


def _report(folder: str, name: str, batches: list[list[Event]]) -> dict[str, Any]:
    site = Site(Path(folder) / name, timezone="Asia/Tokyo")
    for batch in batches:
        site.observe(batch)
    site.stop()
    if not site.path.exists():
        return {}
    found: dict[str, Any] = json.loads(site.said("--json"))
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(_events(), max_size=30), st.randoms(use_true_random=False), st.integers(1, 10))
def test_neither_repetition_nor_order_changes_a_report(
    events: list[Event], chance: random.Random, size: int
) -> None:
    again = events + [one for one in events if chance.random() < 0.5]
    chance.shuffle(again)
    batches = [again[start : start + size] for start in range(0, len(again), size)]
    batches += [batch for batch in batches if chance.random() < 0.3]
    with TemporaryDirectory() as folder:
        assert _report(folder, "one", [events]) == _report(folder, "two", [[], *batches])


@settings(max_examples=40, deadline=None)
@given(st.lists(_events(), min_size=1, max_size=30), st.integers(0, 400))
def test_what_is_forgotten_stays_in_the_report(events: list[Event], hours: int) -> None:
    with TemporaryDirectory() as folder:
        site = Site(Path(folder), timezone="Asia/Tokyo")
        site.observe(events)
        before = json.loads(site.said("--json"))
        since = ["--since", "2026-09-25", "--until", "2026-10-01", "--json"]
        part = json.loads(site.said(*since))
        # The first part is forgotten now, and the rest in a second step.
        for age in (hours * HOUR, 1000 * HOUR):
            site.now = NOW + 400 * DAY + age
            site.observe([])  # the start
            site.now += 2 * HOUR
            site.observe([])
            assert _same(json.loads(site.said("--json")), before)
            assert _same(json.loads(site.said(*since)), part)
        site.stop()
        with closing(open_to_read(site.path)) as db:
            for table in ("recipients", "actions", "conversions"):
                assert db.execute(f"SELECT count(*) FROM {table}").get == 0


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether reports agree; of forgotten mail only the day is known, so campaigns may swap."""
    for report in (one, other):
        report["campaigns"].sort(key=lambda campaign: campaign["campaign"] or "")
    assert one == other
    return True


def test_forgetting_takes_a_batch_at_a_time_and_waits_after_the_start(site: Site) -> None:
    events = [event("accepted", number) for number in range(2500)]
    for start in range(0, 2500, 500):
        site.observe(events[start : start + 500])
    site.stop()

    def rows() -> int:
        # Another copy of SQLite in the same process would break the locks of the first.
        with closing(open_to_read(site.path)) as db:
            return int(db.execute("SELECT count(*) FROM recipients").get)

    site.now = NOW + 401 * DAY
    left = []
    site.observe([])
    left.append(rows())  # events may come again now
    site.now += 601
    for _ in range(6):
        site.observe([])
        left.append(rows())
    assert left == [2500, 2000, 1500, 1000, 500, 0, 0]
    assert _counts(site) == {"accepted": 2500}


def test_what_cannot_be_forgotten_does_not_stop_counting(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.observe([event("accepted")])
    with closing(open_to_write(site.path)) as db:
        db.execute("ALTER TABLE totals RENAME TO elsewhere")
    site.now = NOW + 401 * DAY
    for number in range(2, 5):
        site.observe([event("accepted", number, 401 * DAY)])
    assert caplog.text.count("old rows stay for another hour: no such table: totals") == 1
    with closing(open_to_write(site.path)) as db:
        db.execute("ALTER TABLE elsewhere RENAME TO totals")
    assert _counts(site) == {"accepted": 4}
    site.now += HOUR
    site.observe([])
    assert _counts(site) == {"accepted": 4}
    with closing(open_to_read(site.path)) as db:
        assert db.execute("SELECT sum(count) FROM totals").get == 1


def test_mail_that_comes_to_life_after_it_was_forgotten(site: Site) -> None:
    site.observe([event("accepted"), event("delivered")])
    site.now = NOW + 401 * DAY
    site.observe([])
    site.now += HOUR
    site.observe([])
    site.observe([event("clicked", after=401 * DAY, url=URL)])
    assert _counts(site) == dict.fromkeys(("accepted", "delivered", "clicked", "clicks"), 1)
    (last,) = [one for one in _campaigns(site)["spring"]["timeline"] if one["hours"] is None]
    assert last["clicked"] == 1
    assert _campaigns(site)["spring"]["timeline"][-2]["clicked"] == 0


# Days.


@pytest.mark.parametrize(
    "name", ["UTC", "Asia/Tokyo", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]
)
def test_days_in_sql_are_those_of_python(name: str) -> None:
    zone = ZoneInfo(name)
    start = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
    times = [start + 1171.5 * step for step in range(2 * 365 * 74)]
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE moments (time REAL)")
    db.executemany("INSERT INTO moments VALUES (?)", [(time,) for time in times])
    sql = f"SELECT {day_expression('time', zone, times[0], times[-1])} FROM moments"
    found = [day for (day,) in db.execute(sql)]
    db.close()
    assert found == [f"{datetime.fromtimestamp(time, zone):%Y-%m-%d}" for time in times]


def test_mail_belongs_to_the_day_of_its_first_event(tmp_path: Path) -> None:
    for zone, day in (("UTC", "2026-09-21"), ("Asia/Tokyo", "2026-09-22")):
        site = Site(tmp_path / zone, timezone=zone)
        late = 3 * HOUR  # 17:13 in UTC and 02:13 in Tokyo
        site.observe([event("delivered", after=late + DAY), event("accepted", after=late)])
        site.stop()
        assert [one["day"] for one in _campaigns(site)["spring"]["days"]] == [day]
        assert list(_campaigns(site, "--since", day, "--until", day)) == ["spring"]
        assert _campaigns(site, "--since", "2026-09-23") == {}
        assert _campaigns(site, "--until", "2026-09-20") == {}


# Chance.


def test_the_p_value_is_that_of_the_normal_distribution() -> None:
    # Where the pooled rate is 50 %, the standard error is sqrt(0.5 / n).
    for z, probability in ((1.0, 0.3173), (1.96, 0.05), (2.5758, 0.01)):
        half = round(z * math.sqrt(0.5 / 10**8) / 2 * 10**8)
        value = two_proportions(5 * 10**7 + half, 10**8, 5 * 10**7 - half, 10**8)
        assert value == pytest.approx(probability, abs=0.0002)
    assert two_proportions(50, 100, 50, 100) == 1.0
    assert two_proportions(0, 1000, 1, 1000) is None
    assert two_proportions(1000, 1000, 999, 1000) is None


def test_verdicts() -> None:
    (one,) = compare({"A": (100, 1000), "B": (150, 1000), "C": (0, 0)})
    assert (one.better, one.other, one.verdict) == ("B", "A", "unlikely chance")
    (one,) = compare({"A": (100, 1000), "B": (105, 1000)})
    assert one.verdict == "likely chance"
    (one,) = compare({"A": (2, 30), "B": (1, 30)})
    assert (one.verdict, one.probability) == ("too few", None)
    (one,) = compare({"A": (30, 10), "B": (5, 10)})
    assert one.better_rate == 1.0


def test_more_pairs_need_a_greater_difference() -> None:
    two = {"A": (100, 1000), "B": (130, 1000)}
    assert [one.verdict for one in compare(two)] == ["unlikely chance"]
    four = compare({**two, "C": (115, 1000), "D": (114, 1000)})
    assert [one.verdict for one in four] == ["likely chance"] * 6


# The file.


def test_only_the_service_process_opens_the_file(site: Site) -> None:
    plugin = Report(ReportConfig())
    plugin.start(site.context("worker"))
    plugin.stop()
    assert not site.path.exists()


def test_the_file_is_for_its_owner_only(site: Site) -> None:
    site.observe([event("accepted")])
    files = list(site.path.parent.iterdir())
    assert len(files) > 1
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_file_of_something_else_is_left_alone(site: Site) -> None:
    site.path.parent.mkdir()
    with sqlite3.connect(site.path) as db:
        db.execute("CREATE TABLE other (a)")
    db.close()
    with pytest.raises(ValueError, match=r"report\.db cannot be used: it is not a file of this"):
        site.observe([])
    result = site.run()
    assert result.exit_code == 1
    assert "it is not a file of this plugin" in result.stderr


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"timezone": "Mars/Olympus"}, "expected one such as Asia/Tokyo"),
        ({"timezone": "../../etc/passwd"}, "expected one such as Asia/Tokyo"),
        ({"keep": "1h"}, "greater than or equal to"),
        ({"keeps": "1d"}, "Extra inputs"),
    ],
)
def test_bad_configurations(config: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ReportConfig.model_validate(config)
