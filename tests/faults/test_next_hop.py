"""The next hop fails, in each way at each stage: the right outcome for each recipient, once."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from gateway.testing import Drop, NextHop
from tests.conftest import Scale
from tests.e2e.conftest import DEADLINE, Gateway, MakeGateway
from tests.faults.figures import Figures

STAGES = {
    "banner": "220 nexthop.test ESMTP",
    "ehlo": "250 nexthop.test",
    "mail": "250 2.1.0 Ok",
    "rcpt": "250 2.1.5 Ok",
    "data": "354 Go on",
    "dot": "250 2.0.0 Ok: queued",
}
"""The yes to each stage; at `banner` the connection itself is what fails."""

WAYS: dict[str, str | Drop] = {
    "4xx": "451 4.3.0 Later",
    "5xx": "554 5.7.1 No",
    "421": "421 4.3.2 Stopping",
    "fin": Drop(),
    "rst": Drop(reset=True),
}

DOUBT = "the server may have taken the message, then it arrives twice"


@dataclass
class Case:
    """A next hop that fails in one way at one stage, and then no more.

    At `rcpt` it fails for one of two recipients.
    """

    stage: str
    way: str
    pipelining: bool
    failures: int

    @property
    def domain(self) -> str:
        """The domain that is delivered there, and that the sender is named after."""
        kind = "pipelining" if self.pipelining else "plain"
        return f"{self.stage}-{self.way}-{kind}.test"

    @property
    def sender(self) -> str:
        """Who sends the message of this case."""
        return f"{self.domain}@sender.test"

    @property
    def fails(self) -> bool:
        """Whether a recipient fails for good."""
        return self.way == "5xx"

    @property
    def doubtful(self) -> bool:
        """Whether the reply to the dot is lost."""
        return self.stage == "dot" and self.way in ("fin", "rst")

    @property
    def delivered(self) -> set[str]:
        """Who gets the message in the end."""
        if not self.fails:
            return {f"bad@{self.domain}", f"good@{self.domain}"}
        return {f"good@{self.domain}"} if self.stage == "rcpt" else set()

    def hop(self) -> NextHop:
        """The server."""
        extensions = ("PIPELINING", "8BITMIME") if self.pipelining else ("8BITMIME",)
        yes = STAGES[self.stage]
        if self.stage == "ehlo":
            yes = "\n".join((yes, *extensions))
        answers = [*[WAYS[self.way]] * self.failures, yes]
        script: dict[str, Any] = {self.stage: answers}
        if self.stage == "rcpt":
            script = {"rcpt": {"bad@*": answers}}
        if self.stage == "ehlo" and self.fails:
            script["helo"] = answers
        return NextHop(extensions=extensions, **script)


async def test_the_next_hop_fails_in_each_way(
    make_gateway: MakeGateway, scale: Scale, figures: Figures
) -> None:
    cases = [
        Case(stage, way, pipelining, scale(1, 5))
        for stage in STAGES
        for way in WAYS
        for pipelining in (True, False)
    ]
    async with AsyncExitStack() as running:
        hops = {case.domain: await running.enter_async_context(case.hop()) for case in cases}
        senders = await running.enter_async_context(NextHop())
        routes = {domain: hop.address for domain, hop in hops.items()}
        routes["sender.test"] = senders.address
        table = ", ".join(f'"{domain}": ["{address}"]' for domain, address in routes.items())
        gateway = make_gateway()
        gateway.configure(f"relay: {{routes: {{{table}}}}}\nretry: {{schedule: [1s], jitter: 0}}")
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(_submit, gateway, cases)
        await asyncio.to_thread(gateway.wait_empty)
        await senders.wait(sum(case.fails for case in cases), DEADLINE)
        assert await asyncio.to_thread(gateway.stop) == 0
        repeats = sum(_check(case, hops[case.domain], senders, gateway.log) for case in cases)
    assert len(senders.messages) == sum(case.fails for case in cases)
    assert "Traceback" not in gateway.log
    figures(7, ways=len(cases), lost=0, repeats=repeats, unexplained_repeats=0)


def _submit(gateway: Gateway, cases: list[Case]) -> None:
    for case in cases:
        recipients = (f"bad@{case.domain}", f"good@{case.domain}")
        gateway.submit(case.domain, *recipients, sender=case.sender)


def _check(case: Case, hop: NextHop, senders: NextHop, log: str) -> int:
    """Looks at what became of each recipient; returns how often the message came once more."""
    sent = [address for message in hop.messages for address, _ in message.recipients]
    # A message that was answered with no was sent, and not taken.
    refused = 2 * (1 if case.fails else case.failures) if case.stage == "dot" else 0
    if case.doubtful:
        assert len(sent) == 2 + refused, case
        repeats = refused // 2
    else:
        assert len(sent) == len(case.delivered) + refused, case
        repeats = 0
    assert set(sent[refused:]) == case.delivered, case
    lines = [line for line in log.splitlines() if f"@{case.domain}>, " in line]
    assert _recipients(lines, "sent") == case.delivered, (case, lines)
    everyone = {f"bad@{case.domain}", f"good@{case.domain}"}
    failed = everyone - case.delivered
    assert _recipients(lines, "bounced") == failed, (case, lines)
    late = set() if case.fails else everyone
    if case.stage == "rcpt" and case.way == "4xx":
        late = {f"bad@{case.domain}"}
    assert _recipients(lines, "deferred") == late, (case, lines)
    # A repeat is announced where it may come, and nowhere else.
    announced = [line for line in lines if DOUBT in line]
    assert len(announced) == (len(everyone) * case.failures if case.doubtful else 0), case
    _check_report(case, senders, failed)
    return repeats


def _recipients(lines: list[str], status: str) -> set[str]:
    found = [re.search(r"to=<([^>]*)>", line) for line in lines if f"status={status}" in line]
    return {match[1] for match in found if match is not None}


def _check_report(case: Case, senders: NextHop, failed: set[str]) -> None:
    """The sender is told of those who get nothing, and why."""
    reports = [m for m in senders.messages if m.recipients[0][0] == case.sender]
    assert len(reports) == bool(failed), case
    for report in reports:
        told = re.findall(rb"(?m)^Final-Recipient: rfc822;\s*(\S+)", report.content)
        assert {address.decode() for address in told} == failed, case
        assert report.content.count(b"Status: 5.7.1") == len(failed), case
        assert b"smtp; 554 5.7.1 No" in report.content, case
