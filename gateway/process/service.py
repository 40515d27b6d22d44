"""The service process: observers learn here what happened, apart from the mail's way."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from gateway.configuration.config import load_config
from gateway.configuration.yaml_document import ConfigError
from gateway.hooks.chain import Chain
from gateway.hooks.lifecycle import PluginStartError, start_plugins, stop_plugins
from gateway.hooks.load import load_plugins
from gateway.hooks.watchdog import Watchdog
from gateway.log import setup as setup_log
from gateway.process.assignment import Assignment
from gateway.spool.outbox import Outbox

LOOK_SECONDS = 0.5
"""How often the outbox is looked at."""

log = logging.getLogger("gateway.service")


async def _serve(assignment: Assignment) -> None:
    config = load_config(assignment.config_path, assignment.config_text())
    handler = setup_log(config.log, config.hostname, "service")
    plugins = load_plugins(config)
    watchdog = Watchdog()
    chain = Chain(plugins, watchdog)
    outbox = Outbox(config.spool.path, chain)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, handler.reopen)
    attendance = loop.create_task(assignment.attend())
    attendance.add_done_callback(lambda _: stop.set())
    watchdog.start()
    try:
        await start_plugins(plugins, config, "service")
        for step in chain.steps["http"]:
            log.warning("plugin %s offers http, and this version serves none", step.plugin)
        assignment.report_ready()
        log.info("ready")
        while not stop.is_set():
            try:
                if await outbox.pass_on():
                    continue
            except Exception:
                log.exception("the outbox cannot be read")
            try:
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue
        # What the workers wrote last, while this process was told to stop, comes at the next start.
        outbox.close()
        await stop_plugins(plugins)
        log.info("stopped")
    finally:
        attendance.cancel()
        watchdog.stop()


def main() -> int:
    """The process that `gateway run` starts once beside the workers."""
    assignment = Assignment.receive()
    # Ctrl-C reaches the whole group; the supervisor says what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asyncio.run(_serve(assignment))
    except ConfigError as error:
        assignment.report_failure("; ".join(map(str, error.problems)))
        return 2
    except (PluginStartError, OSError) as error:
        assignment.report_failure(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
