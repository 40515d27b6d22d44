"""Row 2: power is cut, and only what has reached the block device is there afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.testing import NextHop
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway
from tests.faults.figures import Figures
from tests.faults.file_system import mounted
from tests.faults.spool_copy import waiting
from tests.faults.traffic import Arrivals, Traffic

IMAGE_BYTES = 160 << 20
"""Room for the logs of two workers, each of which grows to 32 MiB and more."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file that holds an ext4 file system with its journal, as a disk would."""
    program = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        pytest.skip("mkfs.ext4 is not installed (Debian: apt-get install e2fsprogs)")
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run([program, "-q", str(path)], check=True, capture_output=True)
    return path


@pytest.fixture
def disk(image: Path) -> Iterator[Path]:
    """The image, mounted by way of a loop device."""
    with mounted("-o", "loop", str(image)) as folder:
        yield folder


@contextlib.contextmanager
def _stopped(gateway: Gateway) -> Iterator[None]:
    """All processes stand still: nothing is written meanwhile but by the kernel."""
    pids = gateway.pids().values()
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _copy(image: Path, copy: Path) -> None:
    """Copies the block device as it is at one moment, without asking the file system for anything.

    What the file system has not written yet is missing in the copy, as after a loss of power. The
    kernel may write while it is copied; then it is copied once more.
    """
    content = image.read_bytes()
    while (again := image.read_bytes()) != content:
        content = again
    with copy.open("wb") as file:
        for at in range(0, len(content), 1 << 20):
            block = content[at : at + (1 << 20)]
            if block.count(0) == len(block):
                file.seek(len(block), os.SEEK_CUR)
            else:
                file.write(block)
        file.truncate(len(content))


def _on_disk(copy: Path) -> dict[str, bool]:
    """The queue ids in the spool of a copy, and whether their messages are whole."""
    with mounted("-o", "loop", str(copy)) as folder:
        return {row.id: row.whole for row in waiting(folder)}


async def test_power_cuts_lose_nothing(
    image: Path,
    disk: Path,
    make_gateway: MakeGateway,
    tmp_path: Path,
    scale: Scale,
    figures: Figures,
) -> None:
    cuts = scale(5, 50)
    copy = tmp_path / "copy"
    async with NextHop(latency=0.02) as hop:
        gateway = make_gateway(hop.address, workers=2)
        gateway.spool.symlink_to(disk)
        await asyncio.to_thread(gateway.start)
        traffic, arrivals = Traffic(gateway, size=2000, pause=0.15), Arrivals(hop)
        on_disk: dict[str, bool] = {}
        accepted: dict[int, str] = {}
        async with traffic.running():
            for _ in range(cuts):
                await traffic.more(60)
                with _stopped(gateway):
                    accepted = dict(traffic.accepted)
                    await asyncio.to_thread(_copy, image, copy)
                done = arrivals.count.copy()
                on_disk = await asyncio.to_thread(_on_disk, copy)
                assert all(on_disk.values())
                lost = [n for n, id_ in accepted.items() if id_ not in on_disk and not done[n]]
                assert lost == []
        await arrivals.wait(traffic.accepted)
        await asyncio.to_thread(gateway.wait_empty)
        assert await asyncio.to_thread(gateway.stop) == 0
    # After the last cut, a gateway delivers what is on the copy.
    async with NextHop() as hop:
        with mounted("-o", "loop", str(copy)) as folder:
            gateway = make_gateway(hop.address, workers=2)
            gateway.spool.symlink_to(folder)
            await asyncio.to_thread(gateway.start)
            try:
                await hop.wait(len(on_disk), DEADLINE)
                await asyncio.to_thread(gateway.wait_empty)
                assert await asyncio.to_thread(gateway.stop) == 0
            finally:
                gateway.clean()
        again = Arrivals(hop).count
    sent = {n for n, id_ in (accepted | traffic.accepted).items() if id_ in on_disk}
    assert sent <= again.keys()
    assert set(again.values()) == {1}
    figures(2, cuts=cuts, accepted=len(traffic.accepted), waiting_at_the_last=len(on_disk), lost=0)
