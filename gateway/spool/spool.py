"""The spool of one worker: the shards that it owns.

One rule covers a crash, fewer workers after a restart, and reload: a worker takes a free shard or
makes one, and adopts shards that nobody holds. New mail goes to the lowest-numbered shard held, so
that shards made during a reload run empty and are removed.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from gateway.spool.expectation import Expectation
from gateway.spool.queue_id import SHARD_BITS
from gateway.spool.room import room_of
from gateway.spool.shard import Shard
from gateway.spool.shard_file import ShardBusyError, SpoolError

ROOM_SECONDS = 0.5

log = logging.getLogger("gateway.spool")


class Spool:
    """The shards in a folder that this process owns.

    Args:
        folder: where all workers' shards are.
        owner: what lock files say of this process: the path of its control socket.
        reserve: octets that stay free on the disk for the work on mail that was accepted.

    Attributes:
        expected: what clients may bring soon.
    """

    def __init__(self, folder: Path, owner: str, reserve: int) -> None:
        self.folder = folder
        self.shards: list[Shard] = []
        self.expected = Expectation()
        self._owner = owner
        self._reserve = reserve
        self._room_known_until = 0.0
        self._room = 0
        self._broken: dict[int, int] = {}
        self._past_commits = 0
        self._past_commit_seconds = 0.0

    @property
    def home(self) -> Shard:
        """The shard that takes new mail."""
        return self.shards[0]

    def open(self, new: bool = False) -> None:
        """Takes a first shard: a free one, or a new one; with `new`, only one without any mail.

        Raises:
            SpoolError: the folder cannot be used.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolError(f"{self.folder}: {error.strerror}") from error
        for number in range(1, 1 << SHARD_BITS):
            if new and (self.folder / f"{number:04d}.db").exists():
                continue
            if number not in self._broken and self._take(number, first=True):
                return
        raise SpoolError(f"{self.folder}: every shard is taken")

    def adopt(self) -> list[Shard]:
        """Takes every shard that nobody holds; returns those."""
        adopted = []
        self._broken = {
            number: inode for number, inode in self._broken.items() if self._inode(number) == inode
        }
        for number in shard_numbers(self.folder):
            if number in self._broken or any(shard.number == number for shard in self.shards):
                continue
            shard = self._take(number)
            if shard is not None:
                log.info("shard %04d adopted", number)
                adopted.append(shard)
        return adopted

    def _take(self, number: int, first: bool = False) -> Shard | None:
        existed = (self.folder / f"{number:04d}.db").exists()
        try:
            shard = Shard.claim(self.folder, number, self._owner)
        except ShardBusyError:
            return None
        except SpoolError as error:
            if first and not existed:
                raise
            log.error("shard %04d is left for a person: %s", number, error)
            self._broken[number] = self._inode(number)
            return None
        try:
            shard.recover()
        except SpoolError as error:
            log.error("shard %04d is left for a person: %s", number, error)
            self._broken[number] = self._inode(number)
            shard.close()
            return None
        shard.expected = self.expected
        self.shards.append(shard)
        self.shards.sort(key=lambda held: held.number)
        return shard

    def _inode(self, number: int) -> int:
        """Which file a shard is: one that a person has repaired, or replaced, is another one."""
        try:
            return (self.folder / f"{number:04d}.db").stat().st_ino
        except OSError:
            return 0

    def release_empty(self) -> list[Shard]:
        """Removes shards that have run empty, all but the home; returns those."""
        empty = [shard for shard in self.shards[1:] if shard.failure is None and shard.is_empty()]
        for shard in empty:
            self.shards.remove(shard)
            self._past_commits += shard.commits
            self._past_commit_seconds += shard.commit_seconds
            shard.close(remove=True)
            log.info("shard %04d ran empty and was removed", shard.number)
        return empty

    def refusal(self, size: int) -> SpoolError | None:
        """Why a message of `size` octets cannot be taken now; None if it can be tried."""
        home = self.home
        if home.failure is not None:
            return SpoolError(home.failure, home.full)
        now = time.monotonic()
        if now > self._room_known_until:
            try:
                status = os.statvfs(self.folder)
            except OSError as error:
                return SpoolError(f"{self.folder}: {error.strerror}")
            self._room = room_of(status)
            self._room_known_until = now + ROOM_SECONDS
        if self._room < self._reserve + size:
            return SpoolError(f"{self.folder}: no room on the disk", full=True)
        return None

    @property
    def failure(self) -> str | None:
        """Why mail would not be safe now; None if it is."""
        return next((shard.failure for shard in self.shards if shard.failure), None)

    @property
    def left(self) -> frozenset[int]:
        """The numbers of shards that cannot be read: their mail waits for a person."""
        return frozenset(self._broken)

    @property
    def commits(self) -> int:
        """How many commits were made, in all shards."""
        return self._past_commits + sum(shard.commits for shard in self.shards)

    @property
    def commit_seconds(self) -> float:
        """How long they took."""
        return self._past_commit_seconds + sum(shard.commit_seconds for shard in self.shards)

    async def drain(self) -> None:
        """Returns when everything that was submitted is written."""
        for shard in self.shards:
            if shard.failure is None:
                await shard.drain()

    def close(self) -> None:
        """Gives all shards up. Call `drain` first."""
        for shard in self.shards:
            shard.close()
        self.shards.clear()


def shard_numbers(folder: Path) -> list[int]:
    """The numbers of the shards in a folder, whoever owns them."""
    return sorted(
        int(path.stem) for path in folder.glob("[0-9][0-9][0-9][0-9].db") if path.stem.isdigit()
    )
