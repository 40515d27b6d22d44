"""The cases of the bench about mail beside other mail, in small, with a real gateway."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from bench.cases import cases
from bench.load import Load, missing
from bench.neighbours import ALONE, BESIDE, Backlog, BlackHole
from bench.queue import Waiting, fill
from bench.signature import SigningKey
from bench.systems.gateway import DomainsGateway, Gateway
from gateway.configuration.config import load_config
from gateway.queue.listing import read
from gateway.queue.selection import Selection

needs_load = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.make(tmp_path_factory.mktemp("key") / "key.pem")


def test_a_queue_has_what_was_asked_for(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    late = Waiting(["late.example"], 100, 10, spread=1000.0)
    now = time.time()
    fill(spool, 2, [Waiting(["a.example", "b.example"], 40, 300), late])
    rows = list(read(spool, Selection()))
    assert Counter(row.lane for row in rows) == {
        "a.example": 20,
        "b.example": 20,
        "late.example": 100,
    }
    assert len({row.id for row in rows}) == 140
    due = sorted(row.due or 0.0 for row in rows if row.lane == "late.example")
    assert due[0] < now
    assert now + 950 < due[-1] < time.time() + 1000
    assert all((row.due or 0.0) < now for row in rows if row.lane != "late.example")


def test_the_configuration_can_be_used(key: SigningKey, tmp_path: Path) -> None:
    gateway = DomainsGateway(key, "127.0.0.1:53", 2, 4)
    file = tmp_path / "gateway.yaml"
    gateway.write(gateway.template, file, {"port": 1, "next_hop": 2600, **gateway.values})
    config = load_config(file)
    assert (config.workers, config.relay.connections, config.relay.mx_port) == (2, 4, 2600)


def test_the_cases_are_those_of_the_titles() -> None:
    hole, backlog = cases(4.0)["blackhole"], cases(4.0)["backlog"]
    assert isinstance(hole, BlackHole)
    assert isinstance(backlog, Backlog)
    assert len(hole.domains) == 99
    assert hole.share.bar == 95
    assert backlog.waiting.messages == 1_000_000
    assert backlog.share.bar == 80


@needs_load
@pytest.mark.timeout(180)
def test_mail_goes_out_beside_a_black_hole(key: SigningKey, tmp_path: Path) -> None:
    gateway = Gateway(key)
    if (reason := gateway.missing()) is not None:
        pytest.skip(reason)
    tmp_path.chmod(0o755)
    with BlackHole("blackhole", "", 990).trial(gateway, tmp_path) as trial:
        measured = trial.measure()
    assert measured[ALONE.name] > 0
    assert measured[BlackHole.share.name] == pytest.approx(
        100 * measured[BESIDE.name] / measured[ALONE.name]
    )


@needs_load
@pytest.mark.timeout(180)
def test_mail_goes_out_beside_a_backlog(key: SigningKey, tmp_path: Path) -> None:
    gateway = Gateway(key)
    if (reason := gateway.missing()) is not None:
        pytest.skip(reason)
    tmp_path.chmod(0o755)
    case = Backlog("backlog", "", 2000, 600.0, Load(500), 0.5)
    with case.trial(gateway, tmp_path) as trial:
        measured = trial.measure()
    assert measured[BESIDE.name] > 0
    assert 0 < measured[Backlog.start.name] < 60
    assert 0 < measured[Backlog.memory.name] < 300
    waiting = list(read(tmp_path / "instance-1" / "spool", Selection()))
    assert len(waiting) == 2000
