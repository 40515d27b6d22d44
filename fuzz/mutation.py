"""New inputs out of old ones, without knowing what they mean. Pure but for the generator given."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

_INTERESTING = (
    *(b"\0", b"\r", b"\n", b"\r\n", b"\n.\n", b"\r\n.\r\n", b"\r.\r", b"\x7f", b"\x80", b"\xff"),
    *(b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xc3", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\x1b"),
    *(b"", b"0", b"-1", b"4294967296", b"99999999999999999999", b"%00", b"%0d%0a", b"'", b'"'),
)
LARGEST = 1 << 16


def mutated(random: Random, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """One of the seeds with some changes.

    Args:
        random: what decides.
        seeds: inputs, at least one.
        tokens: pieces to put in.
    """
    data = bytearray(random.choice(seeds))
    for _ in range(1 << random.randrange(5)):
        _change(random, data, seeds, tokens)
    return bytes(data[:LARGEST])


def _change(
    random: Random, data: bytearray, seeds: Sequence[bytes], tokens: Sequence[bytes]
) -> None:
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice((1, 1, 2, 4, 16, 64, 512)))
    kind = random.randrange(10)
    if kind == 0 and start < len(data):
        data[start] ^= 1 << random.randrange(8)
    elif kind == 1 and start < len(data):
        data[start] = random.randrange(256)
    elif kind == 2:
        del data[start:end]
    elif kind == 3:
        data[start:start] = data[start:end] * random.choice((1, 2, 10, 100))
    elif kind == 4:
        del data[start:]
    elif kind == 5:
        other = random.choice(seeds)
        cut = random.randrange(len(other) + 1)
        data[start:] = other[cut : cut + LARGEST]
    elif kind == 6:
        other = random.choice(seeds)
        cut = random.randrange(len(other) + 1)
        data[start:start] = other[cut : cut + 200]
    elif kind == 7:
        data[start:end] = random.choice(_INTERESTING)
    elif tokens:
        data[start : start if kind == 8 else end] = random.choice(tokens)
    del data[LARGEST:]


def smaller(data: bytes) -> list[bytes]:
    """What an input becomes when pieces are left out, the largest pieces first."""
    found = []
    size = len(data) // 2
    while size:
        found += [data[:start] + data[start + size :] for start in range(0, len(data), size)]
        size //= 2
        if len(found) > 512:
            break
    return found
