from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.web.health import Health, OpenBreaker, Report, judge, told

WELL = Report()


def test_all_is_well() -> None:
    assert (Health().status, Health().to_json()) == (200, '{"status": "ok"}')
    assert judge({"worker-0": WELL, "service": WELL}, {}, spool="", workers="worker-") == Health()


def test_what_is_wrong_is_told() -> None:
    health = Health({"disk": "no room"})
    assert health.status == 503
    assert health.to_json() == '{"status": "failing", "problems": {"disk": "no room"}}'


def test_a_flaw_keeps_nobody_away() -> None:
    health = Health(flaws={"plugin a": "failed"})
    assert health.status == 200
    assert health.to_json() == '{"status": "degraded", "problems": {"plugin a": "failed"}}'
    both = Health({"spool": "full"}, {"plugin a": "failed"})
    assert both.status == 503
    assert json.loads(both.to_json()) == {
        "status": "failing",
        "problems": {"plugin a": "failed", "spool": "full"},
    }


def _judged(reports: dict[str, Report], **silent: float) -> Health:
    return judge(reports, silent, spool="", workers="worker-")


def test_a_worker_that_says_nothing() -> None:
    health = judge({}, {"worker-1": 12.4}, spool="", workers="worker-")
    assert health == Health({"worker-1": "has not answered for 12 s"})


def test_a_spool_without_room() -> None:
    assert judge({}, {}, spool="no room", workers="worker-") == Health({"spool": "no room"})


def test_mail_that_cannot_be_read() -> None:
    """Every worker looks at every shard; each is told once, also where a worker cannot write."""
    reports = {"worker-0": Report(left=(3, 12)), "worker-1": Report("full", left=(3,))}
    health = _judged(reports)
    assert health.status == 503
    assert sorted(health.problems) == ["0003.db", "0012.db", "worker-1"]
    for name in ("0003.db", "0012.db"):
        assert "waits for a person: gateway doctor" in health.problems[name]


def test_what_the_service_cannot_write_is_no_mail() -> None:
    health = _judged({"worker-0": WELL, "service": Report("full")})
    text = "cannot write events to the disk: the disk is full"
    assert health == Health(flaws={"service": text})


@pytest.mark.parametrize(
    ("storage", "why"), [("full", "the disk is full"), ("failed", "see the log")]
)
def test_a_worker_that_cannot_write(storage: str, why: str) -> None:
    health = _judged({"worker-0": Report(storage), "worker-1": WELL})
    assert health == Health({"worker-0": f"cannot write mail to the disk: {why}"})


def _breaker(on_error: str = "tempfail", seconds: float = 1.5, plugin: str = "dkim") -> OpenBreaker:
    return OpenBreaker(plugin, "seal raised KeyError: 'the secret'", seconds, on_error)


@pytest.mark.parametrize(
    ("on_error", "consequence"),
    [("tempfail", "mail is refused or delayed"), ("quarantine", "mail is held")],
)
def test_a_plugin_that_mail_waits_for(on_error: str, consequence: str) -> None:
    report = Report(breakers=(_breaker(on_error),))
    text = f"seal raised KeyError; {consequence}; asked again in 2 s (worker-0)"
    assert _judged({"worker-0": report}) == Health({"plugin dkim": text})


def test_a_plugin_that_mail_passes_without() -> None:
    report = Report(breakers=(_breaker("skip"),))
    text = "seal raised KeyError; mail passes without it; asked again in 2 s (worker-0)"
    assert _judged({"worker-0": report}) == Health(flaws={"plugin dkim": text})


def test_a_trial_lets_mail_come() -> None:
    """Who is sent no mail cannot find out that a plugin works again."""
    health = _judged({"worker-0": Report(breakers=(_breaker(seconds=0.0),))})
    text = "seal raised KeyError; mail is refused or delayed; asked again with the next call"
    assert health == Health(flaws={"plugin dkim": f"{text} (worker-0)"})
    assert health.status == 200


def test_an_observer_keeps_no_mail_up() -> None:
    report = Report(
        breakers=(OpenBreaker("report", "observe ran longer than 10 s", 9, "tempfail"),)
    )
    text = "observe ran longer than 10 s; mail does not wait for it; asked again in 9 s (service)"
    assert _judged({"worker-0": WELL, "service": report}) == Health(flaws={"plugin report": text})


def test_a_plugin_is_told_once_for_all_workers() -> None:
    reports = {f"worker-{index}": Report(breakers=(_breaker(seconds=index),)) for index in range(3)}
    health = _judged(reports)
    assert list(health.problems) == ["plugin dkim"]
    assert health.problems["plugin dkim"].endswith("asked again in 2 s (worker-1, worker-2)")
    assert health.flaws["plugin dkim"].endswith("with the next call (worker-0)")
    assert json.loads(health.to_json())["problems"] == health.problems


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("message raised OSError: [Errno 2] /etc/key", "message raised OSError"),
        ("seal ran longer than 0.3 s", "seal ran longer than 0.3 s"),
        ("rcpt answered Quarantine, and may answer None, Accept", "rcpt answered Quarantine"),
        ("claim claimed an address, and has no hook receive", "failed, see the log"),
        ("the password: raised Secret", "failed, see the log"),
        (f"seal raised {'X' * 1000}: y", f"seal raised {'X' * 60}"),
        ("", "failed, see the log"),
    ],
)
def test_secrets_are_not_told(reason: str, text: str) -> None:
    assert told(reason) == text


@given(st.text(), st.sampled_from(["seal raised ValueError: ", "seal raised A: raised ", ""]))
def test_no_text_of_an_exception_is_told(text: str, head: str) -> None:
    assert told(f"seal raised ValueError: {text}") == "seal raised ValueError"
    assert len(told(head + text)) <= 100


REPORTS = st.builds(
    Report,
    st.sampled_from(["", "full", "failed"]),
    st.lists(
        st.builds(
            OpenBreaker,
            st.text(max_size=5),
            st.text(max_size=20),
            st.floats(0, 60),
            st.sampled_from(["tempfail", "skip", "quarantine"]),
        ),
        max_size=3,
    ).map(tuple),
    st.lists(st.integers(1, 9999), max_size=2).map(tuple),
)


@given(REPORTS)
def test_a_report_arrives_as_it_was(report: Report) -> None:
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize(
    "junk",
    [
        None,
        [],
        {},
        {"storage": ""},
        {"storage": "", "breakers": [{}]},
        {"breakers": 1},
        {"storage": "", "breakers": []},
        {"storage": "", "breakers": [], "left": ["x"]},
    ],
)
def test_what_is_no_report_is_refused(junk: Any) -> None:
    with pytest.raises(ValueError, match="no report"):
        Report.from_json(junk)


@given(st.dictionaries(st.sampled_from(["worker-0", "worker-1", "service"]), REPORTS))
def test_health_is_red_only_where_mail_waits(reports: dict[str, Report]) -> None:
    health = judge(reports, {}, spool="", workers="worker-")
    waits = any(
        report.left
        or (report.storage and name.startswith("worker-"))
        or (
            name != "service"
            and any(one.seconds > 0 and one.on_error != "skip" for one in report.breakers)
        )
        for name, report in reports.items()
    )
    assert (health.status == 503) is waits
    wrong = waits or any(report.breakers or report.storage for report in reports.values())
    assert (json.loads(health.to_json())["status"] != "ok") is wrong
