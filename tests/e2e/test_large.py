"""Large messages through a whole gateway: how much memory they take, and what a crash does."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.testing import Hang, NextHop
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway
from tests.plugins.dkim_keys import rsa_key

MB = 1_000_000
LINE = b"x" * 78 + b"\r\n"
BLOCK = LINE * 800
BLOCKS = 50 * MB // len(BLOCK)
AGAIN = "452 4.3.1"


class Peak:
    """How much more memory a gateway's processes take at the most, from its making on.

    The kernel keeps the peak of each process, so nothing is missed.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._idle: dict[int, int] = {}
        for pid in gateway.pids().values():
            Path(f"/proc/{pid}/clear_refs").write_text("5\n")
            self._idle[pid] = self._memory(pid, "VmRSS")

    @staticmethod
    def _memory(pid: int, field: str) -> int:
        text = Path(f"/proc/{pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def above(self) -> float:
        """Octets above what they had, in MB."""
        found = ((self._memory(pid, "VmHWM"), idle) for pid, idle in self._idle.items())
        return sum(max(0, peak - idle) for peak, idle in found) / MB


async def _reply(reader: asyncio.StreamReader) -> str:
    line = b"250-"
    while line[3:4] == b"-":
        line = await reader.readline()
    return line.decode()


async def _send(port: int, number: int, *, declare: bool = True, blocks: int = BLOCKS) -> str:
    """Sends a large message, and returns the reply to it, or to the command that was refused."""
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await _reply(reader)
            size = f" SIZE={blocks * len(BLOCK)}" if declare else ""
            for command in (
                "EHLO client.example.org",
                f"MAIL FROM:<a@example.com>{size}",
                f"RCPT TO:<{number}@example.net>",
                "DATA",
            ):
                writer.write(command.encode() + b"\r\n")
                reply = await _reply(reader)
                if not reply.startswith(("250", "354")):
                    return reply
            writer.write(f"From: a@example.com\r\nSubject: number {number}\r\n\r\n".encode())
            for _ in range(blocks):
                writer.write(BLOCK)
                await writer.drain()
            writer.write(b".\r\n")
            return await _reply(reader)
        finally:
            writer.close()


def _signed(tmp_path: Path) -> str:
    key = rsa_key().write(tmp_path / "key.pem")
    return f"plugins: [dkim: {{keys: [{{domain: example.com, selector: s, file: {key}}}]}}]"


def _is_whole(content: bytes, blocks: int = BLOCKS) -> bool:
    header, _, body = content.partition(b"\r\n\r\n")
    return header.startswith(b"DKIM-Signature: ") and body == BLOCK * blocks


@pytest.fixture
def one_worker(make_gateway: MakeGateway, tmp_path: Path) -> Callable[[NextHop], Gateway]:
    def make(hop: NextHop) -> Gateway:
        return make_gateway(hop.address, _signed(tmp_path), workers=1)

    return make


async def test_one_takes_little_more_than_its_size(
    one_worker: Callable[[NextHop], Gateway],
) -> None:
    async with NextHop() as hop:
        gateway = one_worker(hop)
        await asyncio.to_thread(gateway.start)
        peak = Peak(gateway)
        assert (await _send(gateway.port, 1)).startswith("250")
        (message,) = await hop.wait(1, DEADLINE)
        assert _is_whole(message.content)
        assert peak.above() < 85


@pytest.mark.parametrize(("count", "declare"), [(20, True), (8, False)])
async def test_of_many_at_once_some_come_again(
    one_worker: Callable[[NextHop], Gateway], count: int, declare: bool
) -> None:
    async with NextHop() as hop:
        gateway = one_worker(hop)
        await asyncio.to_thread(gateway.start)
        peak = Peak(gateway)
        sending = [_send(gateway.port, number, declare=declare) for number in range(count)]
        replies = Counter([reply[:9] for reply in await asyncio.gather(*sending)])
        taken = replies["250 2.0.0"]
        assert taken >= 3
        assert replies[AGAIN] == count - taken
        messages = await hop.wait(taken, DEADLINE)
        assert peak.above() < 560
        assert all(_is_whole(message.content) for message in messages)
        # There is room again.
        assert (await _send(gateway.port, count, blocks=50)).startswith("250")


async def test_a_kill_while_it_is_on_its_way_loses_nothing(
    one_worker: Callable[[NextHop], Gateway],
) -> None:
    async with NextHop(content=Hang(reads=False)) as stuck:
        gateway = one_worker(stuck)
        await asyncio.to_thread(gateway.start)
        assert (await _send(gateway.port, 1, blocks=100)).startswith("250")
        coming = asyncio.create_task(_send(gateway.port, 2, blocks=100))
        while "DATA" not in [one.line for one in stuck.commands]:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(gateway.kill)
        answers = await asyncio.gather(coming, return_exceptions=True)
    async with NextHop(port=int(stuck.address.rpartition(":")[2])) as hop:
        await asyncio.to_thread(gateway.start)
        accepted = 1 + str(answers[0]).startswith("250")
        messages = await hop.wait(accepted, DEADLINE)
        assert all(_is_whole(message.content, 100) for message in messages)
        await asyncio.to_thread(gateway.wait_empty)
