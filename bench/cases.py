"""The cases that there are, by the name that the command line takes."""

from __future__ import annotations

import re
from functools import partial

from bench.case import Case
from bench.chain import ChainCost
from bench.clicks import Clicks
from bench.connections import ManyConnections
from bench.error import BenchError
from bench.hook import HookTime
from bench.large import LargeMessages
from bench.latency import Latency
from bench.load import Load
from bench.neighbours import Backlog, BlackHole
from bench.newsletter import (
    TRACKER,
    Newsletter,
    check_links,
    check_unsubscribing,
    check_values,
)
from bench.scaling import Scaling
from bench.systems.gateway import AllPluginsGateway
from bench.throughput import Throughput

_ENCODINGS = ("8bit", "quoted-printable", "base64")


def cases(seconds: float) -> dict[str, Case]:
    """All cases, in the order of the report; one measurement of each takes about `seconds`."""
    return {
        case.name: case
        for case in (
            Throughput(
                "4k",
                "messages of 4 KB, 20 connections",
                Load(4 * 1024),
                seconds,
                cpu=0.9,
                ahead={"postfix": 6, "haraka": 4},
            ),
            Throughput(
                "50k",
                "HTML of 50 KB, 20 connections",
                Load(50 * 1024),
                seconds,
                ahead={"postfix": 2.5, "haraka": 2.5},
                content=Newsletter(html=30_000, links=60).message("quoted-printable"),
            ),
            Throughput(
                "all",
                "4 KB, the gateway with all six plugins and the peers with DKIM alone",
                Load(4 * 1024),
                seconds,
                ahead={"postfix": 3, "haraka": 3},
                content=Newsletter(html=2_400, links=10, values=True).message("quoted-printable"),
                gateway=AllPluginsGateway,
                check=_check_all,
            ),
            HookTime(
                "rewrite",
                "tracking, 30 KB of HTML, 30 links",
                f'{{tracking: {{base_url: "{TRACKER}"}}}}',
                _messages(Newsletter(html=30_000, links=30)),
                partial(check_links, links=30),
                bar=1.0,
            ),
            HookTime(
                "personalize",
                "subject, text and HTML, ten variables",
                "{personalization: {sources: [{header: {}}]}}",
                _messages(Newsletter(html=4_000, links=10, values=True)),
                check_values,
                bar=0.5,
            ),
            ChainCost(
                "chain",
                "4 KB, no plugins and four of them",
                Newsletter(html=2_400, links=10, values=True),
                seconds,
            ),
            Latency("latency", "one connection, 4 KB, one after the other", 4 * 1024, seconds),
            Scaling(
                "scaling",
                "4 KB, 80 connections, one worker and four",
                Load(4 * 1024, sessions=80),
                seconds,
            ),
            ManyConnections(
                "connections", "20, 500, and 10,000 idle", Load(4 * 1024), seconds, 10_000
            ),
            LargeMessages("large", "messages of 50 MB", 50_000_000),
            Clicks("clicks", "tracked links, each verified and recorded", round(5000 * seconds)),
            BlackHole(
                "blackhole",
                "100 domains, one of which never answers",
                max(2_000, round(15_000 * seconds)),
            ),
            Backlog(
                "backlog",
                "fresh mail of 4 KB beside a million messages that are deferred",
                1_000_000,
                7200.0,
                Load(4 * 1024),
                seconds,
            ),
        )
    }


def _check_all(received: bytes) -> None:
    """Raises BenchError unless the plugins of `all` that can be seen to work have worked."""
    check_values(received)
    check_links(received, 10)
    check_unsubscribing(received)
    if not re.search(rb"^X-Client-Addr: 127\.0\.0\.[2345]\r?$", received, re.MULTILINE):
        raise BenchError("the message did not come from an address of the pool")


def _messages(newsletter: Newsletter) -> dict[str, bytes]:
    return {encoding: newsletter.message(encoding) for encoding in _ENCODINGS}
