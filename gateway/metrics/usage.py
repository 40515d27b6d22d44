"""What this process has taken from the machine."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from gateway import __version__
from gateway.metrics.readings import Readings

_OWN = Path("/proc/self")


class Usage:
    """Tells CPU time, memory and open files of the process that makes it, at its start."""

    def __init__(self) -> None:
        self._started = time.time()

    def read(self, readings: Readings) -> None:
        """Adds them as they are now."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        resident = int((_OWN / "statm").read_text().split()[1]) * resource.getpagesize()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        readings.put("gateway_build_info", 1, __version__)
        readings.put("process_cpu_seconds_total", used.ru_utime + used.ru_stime)
        readings.put("process_resident_memory_bytes", resident)
        readings.put("process_open_fds", _open_files())
        readings.put("process_max_fds", files)
        readings.put("process_start_time_seconds", self._started)


def _open_files() -> int:
    folder = _OWN / "fd"
    # Since Linux 6.2 the size is the number; before, it is 0. Listing ten thousand takes long.
    return folder.stat().st_size or sum(1 for _ in folder.iterdir()) - 1
