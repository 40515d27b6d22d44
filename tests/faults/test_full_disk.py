"""Row 4: the disk, or its table of inodes, is full: also in the middle of DATA."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.testing import NextHop
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, MakeGateway
from tests.faults.figures import Figures
from tests.faults.file_system import fill, mounted, take_inodes
from tests.faults.health import Health
from tests.faults.traffic import Arrivals, Traffic

BACK_TO_NORMAL = 10.0
"""Seconds after which mail is accepted again when there is room."""


@pytest.fixture
def disk(scale: Scale) -> Iterator[Path]:
    """A file system of a few megabytes and a thousand files, that lives in memory."""
    size = scale("24m", "200m")
    with mounted("-t", "tmpfs", "-o", f"size={size},nr_inodes=1000", "tmpfs") as folder:
        yield folder


def _fill(folder: Path) -> list[Path]:
    return [fill(folder)]


class Dialogue:
    """A client that says one thing at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self._file = self._socket.makefile("rb")
        self.reply()

    def say(self, data: bytes) -> None:
        """Sends it as it is."""
        self._socket.sendall(data)

    def reply(self) -> str:
        """The last line of the next reply."""
        while True:
            line = self._file.readline()
            if line[3:4] in (b" ", b""):
                return line.decode().rstrip()

    def close(self) -> None:
        """Hangs up."""
        self._file.close()
        self._socket.close()


def _in_data(port: int) -> Dialogue:
    """A client that has sent the first half of a message."""
    client = Dialogue(port)
    for command in ("EHLO x.example", "MAIL FROM:<a@b.example>", "RCPT TO:<b@c.example>", "DATA"):
        client.say(f"{command}\r\n".encode())
        code = client.reply()[:3]
        assert code == ("354" if command == "DATA" else "250")
    client.say(b"Subject: half\r\n\r\nthe first half\r\n")
    return client


@pytest.mark.parametrize(
    ("take", "least"),
    [
        # The log of the database may have room of its own, from what was written into it before.
        pytest.param(_fill, 1, id="room"),
        # What is written needs no inode.
        pytest.param(take_inodes, 0, id="inodes"),
    ],
)
async def test_a_full_disk_delays_and_loses_nothing(
    disk: Path,
    make_gateway: MakeGateway,
    scale: Scale,
    figures: Figures,
    take: Callable[[Path], list[Path]],
    least: int,
) -> None:
    """A message that had begun may be safe on disk all the same; `least` are refused."""
    backlog = scale(60, 500)
    async with NextHop(latency=0.05) as hop:
        with Health() as health:
            gateway = make_gateway(hop.address, health.configuration, workers=2)
            text = gateway.config.read_text()
            gateway.config.write_text(text.replace("reserve: 1}", "reserve: 2MiB}"))
            gateway.spool.symlink_to(disk)
            await asyncio.to_thread(gateway.start)
            traffic, arrivals = Traffic(gateway, clients=8, size=2000), Arrivals(hop)
            back: list[float] = []
            replies: list[str] = []
            async with traffic.running():
                for _ in range(scale(1, 20)):
                    await traffic.more(backlog)
                    await asyncio.to_thread(health.seen, 200, time.monotonic())
                    client = await asyncio.to_thread(_in_data, gateway.port)
                    made = await asyncio.to_thread(take, disk)
                    await asyncio.to_thread(health.seen, 503, time.monotonic())
                    await traffic.refused(20, "452 4.3.1")
                    client.say(b"the second half\r\n.\r\n")
                    reply = await asyncio.to_thread(client.reply)
                    replies.append(reply[:9])
                    client.close()
                    # What was accepted is delivered although nothing more can be written.
                    await arrivals.wait(traffic.accepted)
                    freed = time.monotonic()
                    for path in made:
                        path.unlink()
                    await traffic.more(1)
                    back.append(time.monotonic() - freed)
                    await asyncio.to_thread(health.seen, 200, freed)
            await arrivals.wait(traffic.accepted)
            await asyncio.to_thread(gateway.wait_empty)
            assert await asyncio.to_thread(gateway.stop) == 0
        halves = sum(b"second half" in message.content for message in hop.messages)
    assert halves == replies.count("250 2.0.0")
    assert len(replies) - halves == replies.count("452 4.3.1") >= least
    assert set(arrivals.count.values()) == {1}
    assert {reply[:9] for reply in traffic.refusals} == {"452 4.3.1"}, traffic.refusals
    assert max(back) <= BACK_TO_NORMAL
    figures(
        4,
        accepted=len(traffic.accepted),
        refused=traffic.refusals.total(),
        back_to_normal_seconds=max(back),
        lost=0,
    )
