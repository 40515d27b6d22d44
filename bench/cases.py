"""The cases that there are, by the name that the command line takes."""

from __future__ import annotations

from bench.case import Case
from bench.load import Load
from bench.throughput import Throughput


def cases(seconds: float) -> dict[str, Case]:
    """All cases, in the order of the report; one measurement of each takes about `seconds`."""
    return {
        case.name: case
        for case in (
            Throughput("4k", "messages of 4 KB, 20 connections", Load(4 * 1024), seconds),
            Throughput("50k", "messages of 50 KB, 20 connections", Load(50 * 1024), seconds),
        )
    }
