"""Row 3: the disk answers with errors and short writes, and power fails after any of its calls."""

from __future__ import annotations

import asyncio
import re
import resource
import shutil
import time
from pathlib import Path

from gateway.testing import NextHop
from tests.conftest import Scale
from tests.e2e.conftest import Gateway, MakeGateway, until
from tests.faults.figures import Figures
from tests.faults.health import Health
from tests.faults.spool_copy import waiting
from tests.faults.strace import Call, Strace, strace
from tests.faults.traffic import Arrivals, Traffic

__all__ = ["strace"]

WRITES = "pwrite64,fdatasync,fsync,ftruncate"
"""The calls by which SQLite changes files."""


def _worker(gateway: Gateway) -> int:
    return gateway.pids()["worker 0"]


def _in_files(calls: list[Call]) -> list[Call]:
    """Those calls that concern the database or its log."""
    return [call for call in calls if re.search(r"<[^>]*/0001\.db(-wal)?>", call.arguments)]


def _check_handles(calls: list[Call]) -> int:
    """After an error, a descriptor of the log is closed before anything else is done with it.

    Returns how many errors there were.
    """
    bad: set[str] = set()
    errors = 0
    for call in _in_files(calls):
        match = re.match(r"\d+<[^>]*>", call.arguments)
        if match is None or not match[0].endswith("-wal>"):
            continue
        if call.name == "close":
            bad.discard(match[0])
        else:
            assert match[0] not in bad, f"used again after an error: {call}"
            if call.failed:
                errors += 1
                bad.add(match[0])
    return errors


async def _check_nothing_lost(gateway: Gateway, traffic: Traffic, arrivals: Arrivals) -> None:
    """All that was accepted arrives once, and nothing of what was refused."""
    await arrivals.wait(traffic.accepted)
    assert await asyncio.to_thread(gateway.stop) == 0
    rest = {row.id for row in waiting(gateway.spool)}
    assert not rest & set(traffic.accepted.values())
    assert set(arrivals.count.values()) == {1}
    assert arrivals.count.keys() <= traffic.accepted.keys() | traffic.unanswered


FAULTS = (
    ("fdatasync", "error=EIO", "451 4.3.0"),
    ("pwrite64", "error=EIO", "451 4.3.0"),
    ("pwrite64", "error=ENOSPC", "452 4.3.1"),
    ("pwrite64", "retval=0", "452 4.3.1"),
)
"""What fails for a while, how, and the only reply that clients may get meanwhile."""


async def test_calls_that_fail_for_a_while(
    make_gateway: MakeGateway, strace: Strace, figures: Figures
) -> None:
    async with NextHop() as hop:
        with Health() as health:
            gateway = make_gateway(hop.address, health.configuration, workers=1)
            await asyncio.to_thread(gateway.start)
            traffic, arrivals = Traffic(gateway), Arrivals(hop)
            reds: list[float] = []
            async with traffic.running():
                await traffic.more(50)
                await asyncio.to_thread(health.seen, 200, time.monotonic())
                for call, fault, reply in FAULTS:
                    traffic.refusals.clear()
                    log = gateway.spool / "0001.db-wal"
                    inject = f"inject={call}:{fault}"
                    arguments = ["-P", str(log), "-e", f"trace={WRITES},close", "-e", inject]
                    with strace.attached(_worker(gateway), *arguments):
                        await traffic.refused(1)
                        reds.append(await asyncio.to_thread(health.seen, 503, time.monotonic()))
                        accepted = len(traffic.accepted)
                        await traffic.refused(50)
                        assert len(traffic.accepted) == accepted
                    healed = time.monotonic()
                    await traffic.more(20)
                    await asyncio.to_thread(health.seen, 200, healed)
                    assert {text[:9] for text in traffic.refusals} == {reply}
                    assert _check_handles(strace.calls()) or fault == "retval=0"
            await _check_nothing_lost(gateway, traffic, arrivals)
    assert "can be written again" in gateway.log
    assert max(reds) < 5.0  # a second, on a machine that has nothing else to do
    figures(3, faults=len(FAULTS), health_red_after_seconds=max(reds), lost=0)


async def test_any_one_call_that_fails(
    make_gateway: MakeGateway, strace: Strace, scale: Scale, figures: Figures
) -> None:
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, workers=1)
        await asyncio.to_thread(gateway.start)
        traffic, arrivals = Traffic(gateway), Arrivals(hop)
        errors = 0
        async with traffic.running():
            await traffic.more(50)
            for number in scale((1, 2, 7), tuple(range(1, 61))):
                inject = f"inject={WRITES}:error=EIO:when={number}"
                files = [f"{gateway.spool}/0001.db{suffix}" for suffix in ("", "-wal")]
                paths = [word for path in files for word in ("-P", path)]
                arguments = [*paths, "-e", f"trace={WRITES},close", "-e", inject]
                with strace.attached(_worker(gateway), *arguments):
                    await traffic.refused(1)
                errors += _check_handles(strace.calls())
                await traffic.more(20)
        await _check_nothing_lost(gateway, traffic, arrivals)
    assert errors
    assert {text[:9] for text in traffic.refusals} == {"451 4.3.0"}
    figures(3, errors=errors, accepted=len(traffic.accepted), lost=0)


async def test_a_checkpoint_that_fails(
    make_gateway: MakeGateway, strace: Strace, figures: Figures
) -> None:
    """The log is copied into the database when it has grown: that may fail as well."""
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, workers=1)
        await asyncio.to_thread(gateway.start)
        traffic, arrivals = Traffic(gateway, clients=4, size=1 << 20), Arrivals(hop)
        database = gateway.spool / "0001.db"
        async with traffic.running():
            arguments = ["-P", str(database), "-e", f"trace={WRITES},close"]
            inject = ["-e", "inject=fdatasync,fsync:error=EIO"]
            with strace.attached(_worker(gateway), *arguments, *inject):
                await asyncio.to_thread(gateway.logged, "cannot be written")
            await traffic.more(20)
        await _check_nothing_lost(gateway, traffic, arrivals)
    assert all(reply.startswith("451 4.3.0") for reply in traffic.refusals), traffic.refusals
    figures(3, accepted=len(traffic.accepted), lost=0)


async def test_a_write_that_is_cut_short(make_gateway: MakeGateway, figures: Figures) -> None:
    """A limit on the size of files lets a part of a write through, and refuses the rest."""
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, workers=1)
        await asyncio.to_thread(gateway.start)
        traffic, arrivals = Traffic(gateway), Arrivals(hop)
        log = gateway.spool / "0001.db-wal"
        async with traffic.running():
            await traffic.more(50)
            pid = _worker(gateway)
            soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (log.stat().st_size + 50_001, hard))
            await traffic.refused(50)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
            await traffic.more(50)
        await _check_nothing_lost(gateway, traffic, arrivals)
    assert {text[:9] for text in traffic.refusals} == {"451 4.3.0"}
    figures(3, refused=traffic.refusals.total(), accepted=len(traffic.accepted), lost=0)


class Disk:
    """What would be on the disk if power failed: of each file, what the last fsync found in it.

    Args:
        folder: of the files, as they are when nothing waits to be written.
        scratch: where the files are laid down to be looked at.
    """

    def __init__(self, folder: Path, scratch: Path) -> None:
        names = ("0001.db", "0001.db-wal")
        self._written = {name: bytearray((folder / name).read_bytes()) for name in names}
        self._safe = {name: bytes(content) for name, content in self._written.items()}
        self._scratch = scratch

    def follow(self, call: Call) -> bool:
        """Follows a call that concerns one of the files; True if more is on the disk now."""
        match = re.match(r"\d+<(?P<path>[^>]*)>(?P<rest>.*)", call.arguments, re.DOTALL)
        name = Path(_text(match["path"]) if match is not None else "").name
        if match is None or name not in self._written or call.failed:
            return False
        content = self._written[name]
        if call.name == "pwrite64":
            data, size, offset = _write(match["rest"])
            assert len(data) == size == int(call.result)
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + size] = data
        elif call.name == "ftruncate":
            size = int(match["rest"].strip(", "))
            del content[size:]
            content.extend(bytes(size - len(content)))
        else:
            assert call.name in ("fdatasync", "fsync")
            self._safe[name] = bytes(content)
            return True
        return False

    def ids(self) -> set[str]:
        """The queue ids that would be found there, each with its whole message."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        for name, content in self._safe.items():
            (self._scratch / name).write_bytes(content)
        return {row.id for row in waiting(self._scratch) if row.whole}


def _text(argument: str) -> str:
    """A string of strace, whose octets may be written in hexadecimal."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), argument)


def _write(arguments: str) -> tuple[bytes, int, int]:
    match = re.fullmatch(r', "((?:\\x[0-9a-f]{2})*)", (\d+), (\d+) *', arguments)
    assert match is not None, arguments[:200]
    return bytes.fromhex(match[1].replace("\\x", "")), int(match[2]), int(match[3])


async def test_power_may_fail_at_any_moment(
    make_gateway: MakeGateway, strace: Strace, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    """Whenever a client was told 250, what fsync had made safe until then holds the message."""
    gateway = make_gateway("127.0.0.1:1", workers=1)
    await asyncio.to_thread(gateway.start)
    await asyncio.to_thread(gateway.submit, "first")

    def is_settled() -> bool:
        return [row["state"] for row in gateway.queue()] == ["deferred"]

    await asyncio.to_thread(until, is_settled, "the first one to wait on disk")
    disk = Disk(gateway.spool, tmp_path / "disk")
    traffic = Traffic(gateway, clients=3)
    arguments = ["-xx", "-s", "1000000", "-e", f"trace={WRITES},write,sendto,sendmsg,writev"]
    with strace.attached(_worker(gateway), *arguments):
        async with traffic.running():
            await traffic.more(scale(40, 1000))
    assert await asyncio.to_thread(gateway.stop) == 0
    safe = disk.ids()
    told: set[str] = set()
    moments = 0
    for call in strace.calls():
        if disk.follow(call):
            safe = disk.ids()
            moments += 1
            assert told <= safe, "told 250, and gone after a loss of power"
        for id_ in re.findall(r"queued as (\w{13})\r\n", _text(call.arguments)):
            told.add(id_)
            assert id_ in safe, f"told 250 before it was safe: {id_}"
    assert told == set(traffic.accepted.values())
    figures(2, moments_by_trace=moments, told=len(told), lost=0)
