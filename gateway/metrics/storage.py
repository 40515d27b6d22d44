"""Whether a process can write to the disk."""

from __future__ import annotations

from gateway.spool.spool import Spool


def storage_of(spool: Spool) -> str:
    """What keeps it from writing: `full` or `failed`; '' if nothing does."""
    if spool.failure is None:
        return ""
    return "full" if any(shard.full for shard in spool.shards) else "failed"
