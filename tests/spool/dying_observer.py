"""A process that passes events on, which its observer may end.

`python -m tests.spool.dying_observer FOLDER` does so, in a folder with a `gateway.yaml`, until
there are none left.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from gateway.configuration.config import load_config
from gateway.hooks.chain import Chain
from gateway.hooks.load import load_plugins
from gateway.hooks.watchdog import Watchdog
from gateway.spool.outbox import Outbox

STATUS = 3
"""That of a process which its plugin has ended."""


async def _pass_on(folder: Path) -> None:
    config = load_config(folder / "gateway.yaml")
    outbox = Outbox(config.spool.path, Chain(load_plugins(config), Watchdog()))
    while await outbox.pass_on():
        pass
    outbox.close()


def run(folder: Path) -> tuple[int, str]:
    """Runs it to its end; returns its exit status and what it logged."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.spool.dying_observer", folder],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, STATUS), done.stderr
    return done.returncode, done.stderr


if __name__ == "__main__":
    asyncio.run(_pass_on(Path(sys.argv[1])))
