"""The files that a plugin writes: in its own folder, or named in its configuration."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway.testing.conformance.examination import Examination

_DESCRIPTORS = Path("/proc/self/fd")


async def check(examination: Examination) -> str:
    """Looks at what the plugin has opened for writing since the check began."""
    site, worker = examination.site, examination.worker
    plugins = site.folder / "plugins"
    own = [plugins / name for name in (worker.loaded.entry.name, f"{examination.candidate.name}#2")]
    settings = worker.loaded.instance.config
    named = set(_paths(settings, examination.candidate.config.base))
    written = dict(examination.watch.written)
    for file in open_for_writing():
        if file not in examination.opened_before:
            written.setdefault(file, "")
    inside = 0
    for file, place in written.items():
        if any(file.is_relative_to(folder) for folder in own):
            inside += 1
        elif not any(file == one or file.is_relative_to(one) for one in named):
            examination.error(
                f"writes {_shown(file, site.folder)}, which its configuration does not name: two "
                "entries of the plugin would share it; write into context.data_folder()",
                place,
            )
    return f"{inside} written in the plugin's own folder" if written else "none is written"


def open_for_writing() -> Iterator[Path]:
    """The regular files that this process has open for writing."""
    if not _DESCRIPTORS.is_dir():
        return
    for descriptor in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - links that lead to no path
        try:
            description = (_DESCRIPTORS.parent / "fdinfo" / descriptor).read_text()
            mode = os.fstat(int(descriptor)).st_mode
            target = os.readlink(_DESCRIPTORS / descriptor)  # noqa: PTH115 - may be no path
        except OSError:
            continue
        (flags,) = [line.split()[1] for line in description.splitlines() if line[:6] == "flags:"]
        if stat.S_ISREG(mode) and int(flags, 8) & (os.O_WRONLY | os.O_RDWR):
            yield Path(target.removesuffix(" (deleted)"))


def _shown(file: Path, folder: Path) -> str:
    if file.is_relative_to(folder):
        return f"{file.relative_to(folder)} in the folder of the spool"
    return str(file)


def _paths(value: Any, base: Path) -> Iterator[Path]:
    """The files and folders that a configuration names."""
    if isinstance(value, Path) or (isinstance(value, str) and value):
        yield base / value
    elif isinstance(value, BaseModel):
        yield from _paths(vars(value), base)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _paths(inner, base)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _paths(inner, base)
