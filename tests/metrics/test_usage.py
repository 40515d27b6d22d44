from __future__ import annotations

import os
import resource
import time

from gateway import __version__
from gateway.metrics.catalogue import METRICS
from gateway.metrics.readings import Distribution, Readings
from gateway.metrics.usage import Usage


def _read() -> dict[str, float]:
    readings = Readings()
    Usage().read(readings)
    assert readings.of("gateway_build_info") == [((__version__,), 1)]
    return {
        name: value
        for name in METRICS
        if name.startswith("process_")
        for _, value in readings.of(name)
        if not isinstance(value, Distribution)
    }


def test_what_this_process_takes_is_told() -> None:
    before = _read()
    assert before["process_max_fds"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert before["process_cpu_seconds_total"] > 0
    page = resource.getpagesize()
    assert before["process_resident_memory_bytes"] % page == 0
    assert before["process_resident_memory_bytes"] > 1000 * page
    started = time.time()
    assert started <= _read()["process_start_time_seconds"] <= time.time()


def test_open_files_are_counted() -> None:
    before = _read()["process_open_fds"]
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
    try:
        assert _read()["process_open_fds"] - before == 50
    finally:
        for file in files:
            os.close(file)


def test_cpu_time_is_counted() -> None:
    before = _read()["process_cpu_seconds_total"]
    while (used := _read()["process_cpu_seconds_total"]) < before + 0.05:
        assert used >= before
