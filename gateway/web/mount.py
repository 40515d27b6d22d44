"""Under which path each plugin is served. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

HEALTH = "health"
METRICS = "metrics"
"""Paths of the service's own."""

_OWN = {HEALTH: "the health check", METRICS: "what Prometheus reads"}


def mount_names(entries: Iterable[str]) -> dict[str, str]:
    """The entry that is served under `/<name>/`, by that name.

    It is the entry's name as it stands, but for characters that a URL would have to escape:
    they become `-`, so that `site#2` is served under `/site-2/`.

    Raises:
        ValueError: two entries have the same name then, or one has a name of the service's own.
    """
    mounts: dict[str, str] = {}
    for entry in entries:
        name = re.sub(r"[^\w.~-]", "-", entry)
        if name in _OWN:
            raise ValueError(
                f"plugin {entry} cannot be served: /{name} is {_OWN[name]}; "
                "rename the plugin or its file"
            )
        if name in mounts:
            raise ValueError(
                f"plugins {mounts[name]} and {entry} cannot both be served under /{name}/; "
                "rename one of them or its file"
            )
        mounts[name] = entry
    return mounts
