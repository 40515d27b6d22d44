"""The demo, from the first message to the last; exit status 0 if all went as it must."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from examples.demo import report
from examples.demo.case import CASES, Case
from examples.demo.installation import Gateway, GatewayError, PublicKey, make_site
from examples.demo.transmission import send
from examples.demo.verdict import Check, checks, queue_id_of
from gateway.testing import NextHop, ReceivedMessage

ARRIVAL_SECONDS = 5.0
"""How long a message may take from the client to the receiver."""

INTERRUPTED = 130
"""The exit status that shells expect of a program that was interrupted."""


def main(cases: Sequence[Case] = CASES) -> int:
    """Runs the demo and returns the exit status: 0, or 1 if anything went otherwise."""
    try:
        return asyncio.run(_run(cases))
    except (KeyboardInterrupt, asyncio.CancelledError):
        report.interrupted()
        return INTERRUPTED
    except GatewayError as error:
        report.failed(error)
        return 1


async def _run(cases: Sequence[Case]) -> int:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(ending, task.cancel)
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder:
        async with NextHop() as receiver:
            key = make_site(Path(folder), receiver.address)
            async with Gateway(Path(folder) / "gateway.yaml") as gateway:
                report.started(gateway.port, receiver.address)
                wrong = 0
                for number, case in enumerate(cases, 1):
                    results = await _relay(case, number, gateway.port, receiver, key)
                    wrong += not all(check.good for check in results)
            # Only now nothing more can arrive.
            left_over = _left_over(cases, receiver.messages)
    report.ended(len(cases), wrong, left_over)
    return 1 if wrong or not left_over.good else 0


async def _relay(
    case: Case, number: int, port: int, receiver: NextHop, key: PublicKey
) -> list[Check]:
    """Sends one message, waits for what must arrive, and reports."""
    content = case.content()
    # smtplib waits for the network, and the receiver has to answer meanwhile.
    answers = await asyncio.to_thread(send, port, case, content)
    arrivals = await _arrivals(case, receiver, answers.queue_id)
    results = checks(case, content, answers, arrivals, key)
    report.relayed(number, case, results)
    return results


async def _arrivals(case: Case, receiver: NextHop, queue_id: str | None) -> list[ReceivedMessage]:
    """What has arrived of one message, once all of it has, or after `ARRIVAL_SECONDS`."""
    if queue_id is None:
        return []
    loop = asyncio.get_running_loop()
    end = loop.time() + ARRIVAL_SECONDS
    while True:
        found = [one for one in receiver.messages if queue_id_of(one.content) == queue_id]
        if sum(len(one.recipients) for one in found) >= len(case.delivered):
            return found
        try:
            await receiver.wait(len(receiver.messages) + 1, timeout=end - loop.time())
        except TimeoutError:
            return found


def _left_over(cases: Sequence[Case], received: Sequence[ReceivedMessage]) -> Check:
    """Whether all in all exactly what must arrive has arrived, each once."""
    expected = sum(len(case.delivered) for case in cases)
    arrived = sum(len(message.recipients) for message in received)
    return Check(
        arrived == expected,
        f"{arrived} of {expected} copies arrived in all"
        + (": none twice, none of what was refused" if arrived == expected else ""),
    )


if __name__ == "__main__":
    sys.exit(main())
