"""Places for keys, and a file that is not what it should be."""

from __future__ import annotations

import logging
import math
import os
import random
import stat
import struct
from pathlib import Path

import pytest

from gateway.limits import Cell, Limits, LimitsFullError, Rate, Take
from gateway.limits.layout import BOOT, BOOT_SIZE, HEADS, PAGE, Header
from tests.limits.conftest import Open
from tests.limits.soundness import check

NOW = 1_900_000_000.0


def put(limits: Limits, key: str, now: float = NOW, expires: float = NOW + 60) -> None:
    limits.change(key, now, lambda _: (1, expires, key))


def header(path: Path) -> Header:
    with path.open("rb") as file:
        found = Header.unpack(file.read(PAGE))
    assert found is not None
    return found


def overwrite(path: Path, octets: bytes, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(octets)


def test_what_has_expired_makes_room(open_limits: Open) -> None:
    limits = open_limits(places=8)
    for number in range(200):
        put(limits, f"key{number}", NOW + number, NOW + number + 5.5)
        alive = {cell.key for cell in limits.cells("", NOW + number)}
        assert alive == {f"key{n}" for n in range(max(0, number - 5), number + 1)}
    check(limits.path)


def test_what_is_removed_makes_room(open_limits: Open) -> None:
    limits = open_limits(places=4)
    for number in range(100):
        put(limits, f"key{number}", expires=math.inf)
        if number >= 3:
            limits.remove(f"key{number - 3}")
    assert len(limits.cells("", NOW)) == 3
    check(limits.path)


def test_rates_that_rest_make_room(open_limits: Open) -> None:
    limits = open_limits(places=8)
    rate = Rate(1, 1)
    for number in range(100):
        assert limits.take([Take(f"key{number}", rate)], NOW + number * 0.2) == 0
        assert limits.take([Take(f"key{number}", rate)], NOW + number * 0.2) > 0
        if number >= 4:
            assert limits.take([Take(f"key{number - 4}", rate)], NOW + number * 0.2) > 0
    check(limits.path)


def test_a_full_table_says_so_until_there_is_room(open_limits: Open) -> None:
    one, other = open_limits(places=40), open_limits()
    for number in range(40):
        put(one, f"key{number}", expires=NOW + 60 + number)
    for _ in range(3):
        with pytest.raises(LimitsFullError, match="limits is full: 40 rates, counters and pauses"):
            put(one, "another")
        with pytest.raises(LimitsFullError):
            other.take([Take("another", Rate(1, 1))], NOW)
        with pytest.raises(LimitsFullError):
            other.lease({"another": 1})
    put(other, "key7", expires=NOW + 100)
    assert len(one.cells("", NOW)) == 40
    assert other.take([Take("another", Rate(1, 1))], NOW + 60) == 0
    assert one.read("key0", NOW) is None or one.read("key0", NOW + 60) is None
    check(one.path)


def test_a_place_is_found_however_far_it_is(open_limits: Open) -> None:
    limits = open_limits(places=1000)
    for number in range(1000):
        put(limits, f"key{number}", expires=math.inf)
    for number in (777, 3, 500):
        limits.remove(f"key{number}")
        put(limits, f"new{number}", expires=math.inf)
        assert limits.read(f"new{number}", NOW) is not None
        with pytest.raises(LimitsFullError):
            put(limits, "another", NOW + number, math.inf)


def test_takes_do_not_push_each_other_out(open_limits: Open) -> None:
    limits = open_limits(places=2)
    rate = Rate(10, 1)
    for number in range(50):
        takes = [Take(f"a{number % 3}", rate), Take(f"b{number % 5}", rate)]
        assert limits.take(takes, NOW + number) == 0
        assert limits.take(takes[:1], NOW + number) == pytest.approx(0.1, abs=1e-6)
        assert limits.take(takes[1:], NOW + number) == pytest.approx(0.1, abs=1e-6)
    with pytest.raises(LimitsFullError):
        limits.take([Take(name, rate) for name in "xyz"], NOW + 100)
    assert limits.take([Take("x", rate), Take("z", rate)], NOW + 100) == 0, "nothing was taken"


def test_a_clock_that_was_wrong_for_a_while_leaves_room(open_limits: Open) -> None:
    limits = open_limits(places=8)
    for number in range(8):
        limits.take([Take(f"key{number}", Rate(1, 86400))], NOW + 1e9)
    assert limits.take([Take("another", Rate(1, 1))], NOW) == 0


def test_the_disk_holds_what_was_used(limits: Limits) -> None:
    for number in range(100):
        put(limits, f"key{number}")
    status = limits.path.stat()
    assert status.st_size == header(limits.path).size > 64 * 1024 * 1024
    assert status.st_blocks * 512 < 1024 * 1024


def test_only_its_owner_may_read_it(limits: Limits) -> None:
    old = os.umask(0)
    try:
        limits.open()
    finally:
        os.umask(old)
    assert stat.S_IMODE(limits.path.stat().st_mode) == 0o600
    assert [path.name for path in limits.path.parent.iterdir()] == ["limits"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_whom_the_folder_does(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 23456)
    limits = Limits(tmp_path / "limits")
    limits.open()
    status = limits.path.stat()
    assert (status.st_uid, status.st_gid) == (12345, 23456)
    limits.close()


def test_a_folder_is_made(tmp_path: Path) -> None:
    limits = Limits(tmp_path / "spool" / "limits")
    put(limits, "key")
    assert stat.S_IMODE(limits.path.parent.stat().st_mode) == 0o700
    limits.close()


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "limits").mkdir()
    with pytest.raises(IsADirectoryError):
        Limits(tmp_path / "limits").read("key", NOW)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        Limits(tmp_path / "file" / "limits").read("key", NOW)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_text("limits\r\n"), id="short"),
        pytest.param(lambda path: path.write_bytes(os.urandom(100_000)), id="noise"),
        pytest.param(lambda path: os.truncate(path, header(path).size - 1), id="cut"),
        pytest.param(lambda path: os.truncate(path, header(path).size + PAGE), id="longer"),
        pytest.param(lambda path: overwrite(path, b"x", 0), id="magic"),
        pytest.param(lambda path: overwrite(path, struct.pack("=I", 2), 8), id="version"),
        pytest.param(lambda path: overwrite(path, struct.pack("=I", 9), 12), id="places"),
        pytest.param(lambda path: overwrite(path, b"x", 30), id="secret"),
    ],
)
def test_a_damaged_file_is_made_anew(
    open_limits: Open, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    limits = open_limits()
    put(limits, "key")
    limits.close()
    assert callable(damage)
    damage(limits.path)
    one, other = open_limits(), open_limits()
    with caplog.at_level(logging.WARNING, "gateway.limits"):
        assert one.read("key", NOW) is None
        assert one.take([Take("key", Rate(1, 1))], NOW) == 0
        assert other.take([Take("key", Rate(1, 1))], NOW) > 0
    assert [record.getMessage() for record in caplog.records] == [
        f"{limits.path} is damaged or of another version: made anew, so rates, counters and pauses"
        " begin from nothing"
    ]
    assert [path.name for path in limits.path.parent.iterdir()] == ["limits"]


def test_whoever_has_the_old_file_can_still_use_it(open_limits: Open) -> None:
    old = open_limits()
    put(old, "key")
    overwrite(old.path, b"another version", 0)
    new = open_limits()
    put(new, "new")
    put(old, "old")
    assert [cell.key for cell in old.cells("", NOW)] == ["key", "old"]
    assert [cell.key for cell in new.cells("", NOW)] == ["new"]


def filled(open_limits: Open) -> Limits:
    limits = open_limits(places=300)
    for number in range(100):
        put(limits, f"cell{number}")
        limits.take([Take(f"rate{number}", Rate(1, 60))], NOW)
    return limits


def test_chains_are_put_in_order_after_a_power_failure(
    open_limits: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the pages in memory, any may not have reached the disk."""
    limits = filled(open_limits)
    limits.close()
    overwrite(limits.path, bytes(header(limits.path).chains * 4), HEADS * 4)
    overwrite(limits.path, b"another boot".ljust(BOOT_SIZE), BOOT)
    after = open_limits()
    assert len(after.cells("", NOW)) == 100
    for number in range(100):
        name = f"cell{number}"
        assert after.read(name, NOW) == Cell(name, 1, NOW + 60, name)
        assert after.take([Take(f"rate{number}", Rate(1, 60))], NOW) == pytest.approx(60)
    assert caplog.records == []
    check(limits.path)


def test_a_chain_that_goes_in_circles_is_put_in_order(
    open_limits: Open, caplog: pytest.LogCaptureFixture
) -> None:
    limits = filled(open_limits)
    found = header(limits.path)
    # Every chain leads to the first record, whose next is itself.
    overwrite(limits.path, struct.pack("=I", 1) * found.chains, HEADS * 4)
    overwrite(limits.path, struct.pack("=I", 1), found.records + 192)
    other = open_limits()
    for number in range(100):
        assert other.read(f"cell{number}", NOW) is not None
        assert limits.take([Take(f"rate{number}", Rate(1, 60))], NOW) == pytest.approx(60)
    assert [record.getMessage() for record in caplog.records] == [
        f"{limits.path} is damaged: put in order as far as possible"
    ]
    check(limits.path)


@pytest.mark.parametrize("seed", range(20))
def test_noise_anywhere_stops_nobody(open_limits: Open, seed: int) -> None:
    """What was there may be lost; calls still return, and what is new is kept."""
    chance = random.Random(seed)
    limits = filled(open_limits)
    lease = limits.lease({"lease": 5})
    size = header(limits.path).size
    for _ in range(30):
        begin = chance.choice([HEADS * 4, header(limits.path).records])
        noise = chance.randbytes(chance.choice([1, 4, 100]))
        overwrite(limits.path, noise, chance.randrange(begin, size - len(noise)))
    overwrite(limits.path, chance.randbytes(12), 64)
    other = open_limits()
    for at in (limits, other):
        at.cells("", NOW)
        at.rates("", NOW)
        at.leases("")
        for number in range(120):
            at.read(f"cell{number}", NOW)
            assert not math.isnan(at.take([Take(f"rate{number}", Rate(1, 60))], NOW))
            at.leased("lease")
    for number in range(20):
        put(other, f"new{number}")
        cell = Cell(f"new{number}", 1, NOW + 60, f"new{number}")
        assert limits.read(cell.key, NOW) == other.read(cell.key, NOW) == cell
    assert lease is not None
    lease.release()
