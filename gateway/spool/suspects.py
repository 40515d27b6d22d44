"""Which mail of a shard a hook has in hand, kept where the death of its process does not reach.

Each attempt has a place in a small file that is mapped into memory. While a hook is asked, its
number stands there. Memory that is mapped from a file outlives the process: who takes the shard
next finds the number, and knows that this mail may be why its owner has ended. A stop in good order
removes the file. Power cuts are another matter: they are nobody's fault in the queue.

    head | names of hooks | places

A store into a hole would be a SIGBUS when the disk is full, so all of it is allocated at once. What
a damaged file says is checked against the queue; where it says that a recipient has got the mail,
by a checksum, because such mail is not sent again.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.spool.queue_entry import Entry
from gateway.spool.shard_file import SpoolError

DEATHS = 3
"""How often a process may end over the same mail until that is held for a person."""

SUFFIX = ".suspects"
"""Of the file, beside the database of the shard."""

PLACES = 1024
"""Attempts that have a place at a time: those of all runners."""

_MAGIC = b"mail in hand\r\n\x001"
_SIZE = 64
"""Octets of the head, of a name, and of a place. Before a name stands over how much mail of the
hook processes have ended until it was held."""
LONGEST_NAME = _SIZE - 1
"""Octets of the name of a hook."""
_NAMES = 256
_LAST = _NAMES - 1
"""The number of all hooks for which there is no other."""
_BEGIN = _NAMES * _SIZE
_END = _BEGIN + PLACES * _SIZE

_PLACE = struct.Struct("=BBB x i q I")
"""The hook that is asked now, deaths so far, the hook that was asked at the last of them, number of
the first recipient, queue id, checksum of who has got it, which follows as bits."""
_DELIVERED = struct.Struct("=I44s")
_DELIVERED_AT = 16
_MOST = 44 * 8
_FIRST = (1).to_bytes(_MOST // 8, "little")
"""That the first recipient has got it, and no other."""
_FREE = bytes(_SIZE)

Key = tuple[int, int]
"""A recipient in a shard: queue id and number."""


@dataclass(slots=True, eq=False)
class Suspect:
    """Mail that was in the hand of a hook when its process ended.

    Attributes:
        id, number: the queue id and the number of the first recipient of the attempt.
        deaths: how many processes have ended over it.
        hook: that of the last time, as `Suspects.take` was told its name.
        delivered: the numbers of recipients that the next hop had taken it for.
        is_new: whether a process has ended over it since the shard was taken before.
        ended: whether the hooks have let it pass, or it is held: with the next settlement of it
            that is written, the suspicion ends.
    """

    place: int
    id: int
    number: int
    deaths: int
    hook: str
    delivered: frozenset[int]
    is_new: bool
    ended: bool = False

    @property
    def keys(self) -> set[Key]:
        """The recipients by which it is known."""
        return {(self.id, number) for number in (self.number, *self.delivered)}


@dataclass(slots=True, eq=False)
class Suspects:
    """The file of a shard that this process owns.

    Attributes:
        octets: the file.
        numbers: the number of each hook, by its key.
        known: the suspects, by recipient.
        repeated: the hook over whose mail the owner before has ended, if that was not the first
            such mail; and how often it has been so.
    """

    octets: mmap.mmap
    numbers: dict[Hashable, int] = field(default_factory=dict)
    known: dict[Key, Suspect] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    _free: list[int] = field(default_factory=list)

    @classmethod
    def take(
        cls, shard: Path, hooks: Mapping[Hashable, str], waits: Callable[[Key], bool]
    ) -> Suspects:
        """Opens the file beside a shard that has just been taken, or makes it.

        Args:
            shard: the file of that.
            hooks: the names, of up to `LONGEST_NAME` octets, of all hooks that mail of the shard
                meets, by any key.
            waits: whether a recipient is in the queue, and not held.

        Raises:
            SpoolError: it cannot be opened or made.
        """
        path = shard.with_suffix(SUFFIX)
        try:
            octets = _mapped(path)
        except OSError as error:
            raise SpoolError(f"{path}: {error.strerror}") from error
        suspects = cls(octets)
        names = _names(octets)
        suspects._find(names, waits)
        suspects._name(names, hooks)
        return suspects

    def _find(self, names: Sequence[str], waits: Callable[[Key], bool]) -> None:
        octets = self.octets
        found: list[tuple[Suspect, int]] = []
        for place in range(_END - _SIZE, _BEGIN - _SIZE, -_SIZE):
            asked, deaths, last, number, id_, _ = _PLACE.unpack_from(octets, place)
            if not (asked or deaths) or not waits((id_, number)):
                octets[place : place + _SIZE] = _FREE
                self._free.append(place)
                continue
            last = asked or last
            deaths = min(deaths + bool(asked), 255)
            delivered = _delivered(octets, place, id_, number)
            suspect = Suspect(place, id_, number, deaths, names[last], delivered, bool(asked))
            found.append((suspect, last))
        alone = sum(suspect.is_new for suspect, _ in found) == 1
        for suspect, last in found:
            known = octets[last * _SIZE]
            if suspect.is_new and alone and known:
                # Nothing else can have been the reason, and mail is held because of this hook.
                suspect.deaths = max(suspect.deaths, DEATHS)
                octets[last * _SIZE] = min(known + 1, 255)
                self.repeated[suspect.hook] = known
            elif suspect.deaths >= DEATHS:
                octets[last * _SIZE] = max(known, 1)
            octets[suspect.place : suspect.place + 3] = bytes([0, suspect.deaths, last])
            self.known.update(dict.fromkeys(suspect.keys, suspect))

    def _name(self, names: Sequence[str], hooks: Mapping[Hashable, str]) -> None:
        """Gives each hook a number; those of the owner before are kept, as suspects have them."""
        used = {name: number for number, name in enumerate(names) if name}
        free = iter([number for number in range(1, _LAST) if not names[number]])
        for key, hook in hooks.items():
            number = self.numbers[key] = used.get(hook) or next(free, _LAST)
            text = hook.encode() if number < _LAST else b"?"
            self.octets[number * _SIZE + 1 : (number + 1) * _SIZE] = text.ljust(LONGEST_NAME, b"\0")

    # Attempts.

    def enter(self, entry: Entry) -> int:
        """A place for an attempt, as an offset into `octets`; 0 if there is none.

        What stands there is 0 as long as no hook is asked; who asks one writes its number.
        """
        suspect = self.of(entry) if self.known else None
        id_, number = entry.envelope.id, entry.items[0].number
        if suspect is not None:
            place, last = suspect.place, self.octets[suspect.place + 2]
            if number != suspect.number:
                _PLACE.pack_into(self.octets, place, 0, suspect.deaths, last, number, id_, 0)
                suspect.number = number
            return place  # where it also says who has got it
        if not self._free:
            return 0
        place = self._free.pop()
        _PLACE.pack_into(self.octets, place, 0, 0, 0, number, id_, 0)
        return place

    def note_delivered(self, place: int, entry: Entry, numbers: Sequence[int]) -> None:
        """The next hop has taken the mail for these recipients, which is not on the disk yet."""
        first = entry.items[0].number
        octets = _FIRST
        if numbers != [first]:
            bits = sum({1 << number - first for number in numbers if 0 <= number - first < _MOST})
            octets = bits.to_bytes(_MOST // 8, "little")
        checksum = _checksum(entry.envelope.id, first, octets)
        _DELIVERED.pack_into(self.octets, place + _DELIVERED_AT, checksum, octets)

    def leave(self, place: int) -> None:
        """The attempt has ended, or been broken off."""
        self.octets[place] = 0
        if not self.octets[place + 1]:  # a suspect keeps its place
            self._free.append(place)

    # Suspects.

    def of(self, entry: Entry) -> Suspect | None:
        """The suspect among the recipients of an entry."""
        id_ = entry.envelope.id
        return next(
            (
                self.known[id_, item.number]
                for item in entry.items
                if (id_, item.number) in self.known
            ),
            None,
        )

    def settled(self, entry: Entry) -> None:
        """What became of an entry is on the disk."""
        suspect = self.of(entry)
        if suspect is not None and suspect.ended:
            self.known = {key: one for key, one in self.known.items() if one is not suspect}
            self.octets[suspect.place : suspect.place + _SIZE] = _FREE
            self._free.append(suspect.place)


def forget(shard: Path) -> None:
    """Removes the file beside a shard whose owner stops in good order."""
    # Where that fails, some mail is suspected once more, at worst.
    with contextlib.suppress(OSError):
        shard.with_suffix(SUFFIX).unlink(missing_ok=True)


def _mapped(path: Path) -> mmap.mmap:
    """The file; one that is not as it should be is made anew.

    Raises:
        OSError: it cannot be opened or made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(descriptor).st_size != _END or os.pread(descriptor, _SIZE, 0) != _head():
            os.ftruncate(descriptor, 0)
            os.posix_fallocate(descriptor, 0, _END)
            os.pwrite(descriptor, _head(), 0)
        return mmap.mmap(descriptor, _END)
    finally:
        os.close(descriptor)


def _head() -> bytes:
    return _MAGIC.ljust(_SIZE, b"\0")


def _names(octets: mmap.mmap) -> list[str]:
    """The names of hooks by their number, as the owner before has written them."""
    found = [""]
    for number in range(1, _NAMES):
        name = octets[number * _SIZE + 1 : (number + 1) * _SIZE].rstrip(b"\0")
        text = name.decode(errors="replace")
        found.append("".join(character if character.isprintable() else "?" for character in text))
    return found


def _checksum(id_: int, number: int, octets: bytes) -> int:
    return zlib.crc32(octets, (id_ + number + 1) & 0xFFFFFFFF)


def _delivered(octets: mmap.mmap, place: int, id_: int, first: int) -> frozenset[int]:
    checksum, bits = _DELIVERED.unpack_from(octets, place + _DELIVERED_AT)
    if checksum != _checksum(id_, first, bits):
        return frozenset()
    numbers = int.from_bytes(bits, "little")
    return frozenset(first + bit for bit in range(_MOST) if numbers >> bit & 1)
