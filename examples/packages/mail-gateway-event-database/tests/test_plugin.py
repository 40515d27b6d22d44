"""The plugin in a gateway: what it is given, what it shows, and what it does without a database."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gateway.hooks import Event
from gateway.testing import Clock, MemoryGateway
from pydantic import ValidationError

from mail_gateway_event_database import EventDatabaseConfig

NOW = 1_790_000_000.0
"""2026-09-21 14:13:20 UTC."""
HOUR, DAY = 3600.0, 86_400.0
TOKEN = "a-token-of-length"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}

Service = Callable[..., MemoryGateway]


@pytest.fixture
def service(gateway: Callable[..., MemoryGateway], tmp_path: Path) -> Service:
    """Makes a service process with the plugin; its files are the same each time."""

    def make(role: str = "service", may_fail: bool = False, **settings: Any) -> MemoryGateway:
        return gateway(
            ("event-database", settings),
            role=role,
            folder=tmp_path / "gw",
            clock=Clock(NOW),
            may_fail=may_fail,
        )

    (tmp_path / "gw").mkdir()
    return make


def event(number: int = 1, kind: str = "delivered", after: float = 0.0, **fields: Any) -> Event:
    return Event(kind, NOW + after, f"ID{number}", recipient=f"u{number}@example.net", **fields)


def counted(gateway: MemoryGateway, *arguments: str) -> list[dict[str, Any]]:
    result = gateway.command(["event-database", "count", "--json", *arguments])
    assert result.status == 0, result
    return [json.loads(line) for line in result.output.splitlines()]


def test_events_are_counted_once_however_often_they_come(service: Service) -> None:
    gateway = service()
    for _ in range(2):
        result = gateway.observe([event(1), event(2), event(3, "bounced")])
        assert list(result.again) == []
    assert counted(gateway) == [
        {"type": "delivered", "count": 2},
        {"type": "bounced", "count": 1},
    ]


def test_events_are_there_after_a_restart(service: Service, url: str) -> None:
    first = service(database=url)
    first.observe([event(1)])
    first.close()
    second = service(database=url)
    second.observe([event(1), event(2)])
    assert counted(second) == [{"type": "delivered", "count": 2}]


def test_only_events_of_the_types_that_are_wanted_come(service: Service) -> None:
    gateway = service(types=["bounced"])
    result = gateway.observe([event(1), event(2, "bounced")])
    assert [one.type for one in result.seen["event-database"]] == ["bounced"]


def test_without_its_database_nothing_is_lost(service: Service, tmp_path: Path) -> None:
    """Here the file cannot be made; a server that is down behaves the same."""
    gateway = service(database="sqlite:///no/such/folder/events.db", may_fail=True)
    result = gateway.observe([event(1)])
    assert list(result.again) == ["event-database"]
    assert len(result.faults) == 1
    (Path(gateway.config.base) / "no/such/folder").mkdir(parents=True)
    gateway.clock.move(60)  # as long as the gateway may pause a plugin that fails
    assert list(gateway.observe([event(1)]).again) == []
    assert counted(gateway) == [{"type": "delivered", "count": 1}]


def test_a_url_that_cannot_be_used_is_an_error_at_the_start(service: Service) -> None:
    with pytest.raises(Exception, match="SQLAlchemy cannot read this URL") as refused:
        service(database="nothing://u:geheim@h/x")
    assert "geheim" not in str(refused.value)


def test_what_is_too_old_is_forgotten(service: Service) -> None:
    gateway = service(keep="1d")
    gateway.observe([event(1), event(2, after=HOUR)])
    gateway.clock.move(DAY + HOUR / 2)
    gateway.observe([event(3, after=DAY)])
    assert counted(gateway, "--by", "recipient") == [
        {"recipient": "u2@example.net", "type": "delivered", "count": 1},
        {"recipient": "u3@example.net", "type": "delivered", "count": 1},
    ]


def test_all_is_kept_if_that_is_wanted(service: Service) -> None:
    gateway = service(keep=None)
    gateway.observe([event(1)])
    gateway.clock.move(10_000 * DAY)
    gateway.observe([event(2)])
    assert counted(gateway) == [{"type": "delivered", "count": 2}]


def test_workers_neither_open_nor_make_a_database(service: Service) -> None:
    gateway = service("worker")
    assert gateway.send().accepted
    assert list(gateway.folder.rglob("events.db")) == []


def test_the_plugin_is_loaded_without_its_database_driver() -> None:
    """Each worker loads it, and does not need one."""
    code = (
        "import sys, mail_gateway_event_database as m\n"
        "m.EventDatabase(m.EventDatabaseConfig(database='sqlite:///x.db'))\n"
        "assert not {'sqlalchemy', 'click'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


# The commands.


def test_the_last_events_are_shown_newest_first(service: Service) -> None:
    gateway = service()
    spring = {"campaign": "spring"}
    gateway.observe(
        [
            event(1, notes=spring),
            event(2, "bounced", 1.5, reason="550 5.1.1 \x1b[31mNo\nsuch user", notes=spring),
            event(3, "opened", 2),
        ]
    )
    result = gateway.command(["event-database", "last", "-n", "2"])
    assert result.output.splitlines() == [
        "2026-09-21 14:13:22Z  opened        ID3  u3@example.net",
        "2026-09-21 14:13:21Z  bounced       ID2  u2@example.net  campaign=spring  "
        "550 5.1.1 \ufffd[31mNo\ufffdsuch user",
    ]
    result = gateway.command(
        ["event-database", "last", "--json", "--type", "bounced", "--type", "opened"]
    )
    opened, bounced = map(json.loads, result.output.splitlines())
    assert opened["time"] == "2026-09-21T14:13:22Z"
    assert bounced["notes"] == {"campaign": "spring"}
    assert bounced["reason"] == "550 5.1.1 \x1b[31mNo\nsuch user"


def test_counts_are_shown_by_what_is_asked(service: Service) -> None:
    gateway = service()
    spring = {"campaign": "spring"}
    gateway.observe([event(number, notes=spring) for number in range(1200)])
    gateway.observe([event(1, "opened", -2 * HOUR)])
    result = gateway.command(["event-database", "count", "--by", "campaign"])
    assert result.output == "1,200  delivered     spring\n    1  opened        -\n"
    result = gateway.command(["event-database", "count"])
    assert result.output == "1,200  delivered\n    1  opened\n"
    assert counted(gateway, "--since", "1h") == [{"type": "delivered", "count": 1200}]
    assert counted(gateway, "--since", "3h", "--recipient", "u1@example.net") == [
        {"type": "delivered", "count": 1},
        {"type": "opened", "count": 1},
    ]
    assert counted(gateway, "--campaign", "autumn") == []
    assert counted(gateway, "--since", "9999999d", "-n", "1") == [
        {"type": "delivered", "count": 1200}
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["last", "--since", "yesterday"], "expected a duration such as 90m, 24h or 7d"),
        (["last", "-n", "0"], "0 is not in the range"),
        (["count", "--by", "colour"], "'colour' is not one of"),
    ],
)
def test_a_wrong_option_is_explained(service: Service, arguments: list[str], text: str) -> None:
    result = service().command(["event-database", *arguments])
    assert result.status == 2
    assert text in result.errors


def test_without_a_database_the_command_says_so(service: Service) -> None:
    result = service("worker").command(["event-database", "last"])
    assert result.status == 1
    assert "there is no database yet; it is made when the gateway runs" in result.errors


def test_a_database_that_cannot_be_read_is_an_error(service: Service, tmp_path: Path) -> None:
    gateway = service()
    gateway.close()
    (file,) = tmp_path.rglob("events.db")
    file.write_bytes(b"nothing of the kind" * 100)
    result = service("worker").command(["event-database", "count"])
    assert result.status == 1
    assert "the database cannot be read: file is not a database" in result.errors


# The page.


def test_the_page_has_the_counts_of_the_last_hours(service: Service) -> None:
    gateway = service(page={"token": TOKEN, "hours": 2})
    gateway.observe([event(1), event(2), event(3, "bounced", -HOUR), event(4, after=-2 * HOUR)])
    result = gateway.http("GET", "/event-database/", headers=AUTHORIZED)
    assert result.status == 200
    assert result.headers["content-type"] == "application/json"
    assert result.headers["cache-control"] == "no-store"
    assert json.loads(result.body) == {
        "total": {"bounced": 1, "delivered": 2},
        "hours": [
            {"hour": "2026-09-21T13:00Z", "counts": {"bounced": 1}},
            {"hour": "2026-09-21T14:00Z", "counts": {"delivered": 2}},
        ],
    }


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \xff"},
    ],
)
def test_the_page_is_for_those_who_have_the_token(
    service: Service, headers: dict[str, str]
) -> None:
    gateway = service(page={"token": TOKEN})
    for path in ("/event-database/", "/event-database/other"):
        result = gateway.http("GET", path, headers=headers)
        assert result.status == 401
        assert result.headers["www-authenticate"] == "Bearer"


def test_the_page_answers_what_it_cannot_do(service: Service) -> None:
    gateway = service(page={"token": TOKEN})
    assert gateway.http("GET", "/event-database/x", headers=AUTHORIZED).status == 404
    assert gateway.http("POST", "/event-database/", b"x", AUTHORIZED).status == 405
    result = gateway.http("HEAD", "/event-database/", headers=AUTHORIZED)
    assert (result.status, result.body) == (200, b"")


def test_the_page_says_that_the_database_is_away(service: Service) -> None:
    url = "sqlite:///no/such/folder/events.db"
    gateway = service(page={"token": TOKEN}, database=url, may_fail=True)
    assert gateway.http("GET", "/event-database/", headers=AUTHORIZED).status == 503


def test_without_a_token_there_is_no_page(service: Service) -> None:
    with pytest.raises(ValueError, match="event-database"):
        service().http("GET", "/event-database/")


# The configuration.


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"database": "events.db"}, "expected a URL, for example"),
        ({"types": []}, "at least 1"),
        ({"keep": "1h"}, "greater than or equal to 86400"),
        ({"page": {}}, "token"),
        ({"page": {"token": "short"}}, "at least 16"),
        ({"page": {"token": TOKEN, "hours": 169}}, "less than or equal to 168"),
        ({"file": "events.db"}, "file"),
    ],
)
def test_a_configuration_that_is_wrong_says_why(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        EventDatabaseConfig.model_validate(wrong)
    assert text in str(refused.value)


def test_secrets_are_not_shown() -> None:
    config = EventDatabaseConfig.model_validate(
        {"database": "sqlite://u:geheim@h", "page": {"token": "geheim-geheim-geheim"}}
    )
    assert "geheim" not in repr(config)


def test_every_key_is_described() -> None:
    schema = EventDatabaseConfig.model_json_schema()
    models = [schema, *schema["$defs"].values()]
    keys = [key for model in models for key in model["properties"].values()]
    assert len(keys) == 6
    assert all("description" in key for key in keys)
