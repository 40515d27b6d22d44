"""A worker in a process of its own, which its plugin may end: what is run there, and by whom.

`python -m tests.queue.dying_worker FOLDER [RECIPIENT …]` runs the objects of a worker in a folder
with a `gateway.yaml`: it takes a message to each of these, and works until nothing is due
any more.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from gateway.configuration.config import load_config
from tests.assembly import Assembly, until

STATUS = 3
"""That of a process which its plugin has ended."""


async def _work(folder: Path, recipients: list[str]) -> None:
    async with Assembly(load_config(folder / "gateway.yaml")) as gateway:
        for recipient in recipients:
            await gateway.submit(*recipient.split(","))

        def is_done() -> bool:
            load = gateway.dispatcher.load
            return not load.recipients and not gateway.rows(state="active")

        await until(is_done, "everything to be tried")


def run(folder: Path, *recipients: str) -> int:
    """Runs it to its end, and returns its exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.queue.dying_worker", folder, *recipients],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, STATUS), done.stderr
    return done.returncode


if __name__ == "__main__":
    asyncio.run(_work(Path(sys.argv[1]), sys.argv[2:]))
