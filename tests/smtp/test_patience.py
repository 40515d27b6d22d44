"""How long clients may take, and how many connections one may have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.configuration.config import Limits
from gateway.smtp.attendance import Attendance, place_of
from gateway.smtp.patience import Patience

LIMITS = Limits(command_timeout=300.0, data_timeout=600.0, data_rate=500, message_timeout=3600.0)


def test_each_command_has_its_time() -> None:
    patience = Patience(LIMITS, 1000.0)
    assert patience.deadline == 1300.0
    patience.work(1200.0)
    patience.await_command()
    assert patience.deadline == 1500.0


def test_commands_that_lead_to_no_message_come_to_an_end() -> None:
    patience = Patience(LIMITS, 0.0)
    now = 0.0
    while now <= patience.deadline:
        patience.work(now)
        patience.await_command()
        now += 100.0
    assert now == 3700.0


def test_our_own_work_is_not_on_the_clients_time() -> None:
    patience = Patience(LIMITS, 0.0)
    patience.work(3599.0)
    assert patience.deadline == 3899.0


def test_a_message_begins_a_new_time() -> None:
    patience = Patience(LIMITS, 0.0)
    patience.work(3599.0)
    patience.begin(3610.0)
    patience.work(7000.0)
    patience.await_command()
    assert patience.deadline == 7210.0


def test_a_client_that_is_silent_within_a_message() -> None:
    patience = Patience(LIMITS, 0.0)
    patience.await_content(10.0, 100, 600.0)
    assert patience.deadline == 610.0


def test_single_octets_earn_next_to_nothing() -> None:
    patience = Patience(LIMITS, 0.0)
    now, octets = 0.0, 0
    while now <= patience.deadline:
        patience.await_content(now, octets, 600.0)
        now += 1.0
        octets += 1
    assert 600.0 < now < 605.0


def test_a_client_at_the_rate_may_go_on_until_the_message_is_due() -> None:
    patience = Patience(LIMITS, 0.0)
    now, octets = 0.0, 0
    while now <= patience.deadline:
        patience.await_content(now, octets, 600.0)
        now += 10.0
        octets += 5000
    assert now == 3610.0


def test_each_message_has_its_time_to_the_full() -> None:
    patience = Patience(LIMITS, 0.0)
    patience.await_content(0.0, 0, 600.0)
    patience.await_content(599.0, 1, 600.0)
    patience.work(599.5)
    patience.begin(599.5)
    patience.await_content(600.0, 1, 600.0)
    assert patience.deadline == 1200.0


@given(st.lists(st.tuples(st.floats(0.01, 500.0), st.integers(0, 1_000_000)), max_size=50))
def test_nobody_gets_more_than_silence_and_earnings_allow(
    arrivals: list[tuple[float, int]],
) -> None:
    patience = Patience(LIMITS, 0.0)
    now, octets = 0.0, 0
    patience.await_content(now, octets, 600.0)
    for passed, arrived in arrivals:
        now += passed
        if now > patience.deadline:
            break
        octets += arrived
        patience.await_content(now, octets, 600.0)
        assert patience.deadline <= now + 600.0
        assert patience.deadline <= 600.0 + octets / 500 + 0.001
        assert patience.deadline <= 3600.0


def test_what_counts_as_one_client() -> None:
    assert place_of("192.0.2.1") == place_of("::ffff:192.0.2.1") != place_of("192.0.2.2")
    assert place_of("2001:db8::1") == place_of("2001:db8::ffff:1") != place_of("2001:db8:0:1::1")
    assert place_of("::1") != place_of("::ffff:192.0.2.1")
    assert place_of("fe80::1%eth0") == place_of("fe80::2%eth0")
    assert place_of("") == ""


@given(st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"])))
def test_connections_are_counted_by_client(addresses: list[str]) -> None:
    attendance = Attendance()
    places = list(map(place_of, addresses))
    for place in places:
        attendance.come(place)
    assert all(attendance.count(place) == places.count(place) for place in places)
    assert len(attendance) == len(set(places))
    for place in places:
        attendance.go(place)
    assert len(attendance) == 0
    assert all(attendance.count(place) == 0 for place in places)
