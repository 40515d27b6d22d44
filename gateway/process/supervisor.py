"""Starts the worker and service processes, keeps them running and replaces them on reload.

It holds the listening sockets and never loads a plugin, so that nothing a site adds can end it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gateway.configuration.config import Config, load_config
from gateway.configuration.yaml_document import ConfigError, read
from gateway.process.assignment import Role
from gateway.process.child import ChildError
from gateway.process.generation import Generation, Surroundings, Timing
from gateway.process.listen import BindError, ListenSockets
from gateway.process.notify import Notifier, watchdog_interval

_log = logging.getLogger(__name__)

_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What systemd tells the main process; children must not answer for it."""


class CheckError(Exception):
    """A configuration that cannot be run; `problems` has a line for each thing that is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def child_command(role: Role) -> list[str]:
    """The program of a child: the module `gateway.process.worker` or `.service`."""
    # -P: a file in the current folder must not stand in for a module.
    return [sys.executable, "-P", "-m", f"gateway.process.{role}"]


def check_command(config_path: Path) -> list[str]:
    """The program that checks a configuration, plugins included; it prints a line a problem."""
    return [sys.executable, "-P", "-m", "gateway", "check", "-c", str(config_path)]


class Supervisor:
    """Runs the gateway that `gateway.yaml` describes, until SIGTERM or SIGINT.

    SIGUSR1 makes all processes open their log files anew, after `reopen_log` did so for this one.
    SIGHUP reads the file again: if it and all new processes are good they take over, and the old
    ones finish what they hold; otherwise everything stays as it is and the log says why. A second
    SIGINT does not wait for anything. `command` and `check` give the programs of a role and of the
    check of a file.
    """

    def __init__(
        self,
        config_path: Path,
        *,
        command: Callable[[Role], Sequence[str]] = child_command,
        check: Callable[[Path], Sequence[str]] = check_command,
        timing: Timing | None = None,
        environ: Mapping[str, str] | None = None,
        reopen_log: Callable[[], None] = lambda: None,
    ) -> None:
        self._config_path = config_path.absolute()
        self._command = command
        self._check = check
        self._timing = timing or Timing()
        self._reopen_log = reopen_log
        environ = os.environ if environ is None else environ
        self._notifier = Notifier(environ.get("NOTIFY_SOCKET"))
        self._watchdog = watchdog_interval(environ)
        self._environ = {name: value for name, value in environ.items() if name not in _SYSTEMD}
        self._sockets = ListenSockets()
        self._running: Generation | None = None
        self._generations: dict[Generation, asyncio.Task[None] | None] = {}

    def run(self) -> int:
        """Runs until a signal ends it.

        Returns:
            The exit status: 0 after an orderly end; 2 if the configuration is wrong and 1 if it
            could not start for another reason (the log says why) or was interrupted twice.
        """
        return asyncio.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        self._stop_wanted = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._hurry = False
        loop.add_signal_handler(signal.SIGTERM, self._stop_wanted.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen_logs)
        self._parent_fd, lifeline = os.pipe()
        try:
            tasks = [asyncio.create_task(self._serve()), asyncio.create_task(self._feed_watchdog())]
            stop = asyncio.create_task(self._stop_wanted.wait())
            await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
            self._notifier.stopping()
            for task in (*tasks, stop):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            failed = [error for error in results if isinstance(error, Exception)]
            for error in failed:
                _report_failure(error)
            # Who connects from now on is refused at once by the last worker's end, and goes
            # elsewhere instead of waiting here.
            self._sockets.trim()
            await asyncio.gather(*map(self._begin_end, list(self._generations)))
            _log.info("stopped")
            if any(isinstance(error, CheckError) for error in failed):
                return 2
            return 1 if failed or self._hurry else 0
        finally:
            self._sockets.trim()
            os.close(self._parent_fd)
            os.close(lifeline)

    def _reopen_logs(self) -> None:
        self._reopen_log()
        for generation in self._generations:
            generation.reopen_logs()

    def _interrupt(self) -> None:
        if self._stop_wanted.is_set():
            self._hurry = True
            for generation in self._generations:
                generation.kill()
        self._stop_wanted.set()

    async def _serve(self) -> None:
        """Starts everything, then reloads whenever asked to.

        Raises:
            CheckError, BindError, ChildError: it could not start.
        """
        config, text = await self._checked()
        generation = await self._started(config, text)
        self._running = generation
        self._announce(generation)
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            self._notifier.reloading()
            try:
                await self._reload()
            except (CheckError, BindError, ChildError) as error:
                _report_failure(error)
                _log.error("the reload changed nothing")
            except Exception:
                # Whatever it was, those that run go on running.
                _log.exception("the reload failed and changed nothing")
            self._announce(self._running)

    async def _reload(self) -> None:
        old = self._running
        assert old is not None
        config, text = await self._checked()
        try:
            new = await self._started(config, text)
        except BaseException:
            self._sockets.trim(old.listening)
            raise
        self._running = new
        old.retire()
        # Before the old workers stop: the last owner of a socket that is given up must be one that
        # takes what waits on it, and closes it when it takes no more.
        self._sockets.trim(new.listening)
        self._begin_end(old)

    async def _started(self, config: Config, text: str) -> Generation:
        """Binds what a configuration asks for and starts its processes.

        Raises:
            BindError, ChildError: something failed; the processes are on their way down.
        """
        surroundings = Surroundings(
            config_path=self._config_path,
            command=self._command,
            environ=self._environ,
            parent_fd=self._parent_fd,
            sockets=self._sockets,
            timing=self._timing,
        )
        generation = Generation(config, text, surroundings)
        self._generations[generation] = None
        try:
            self._sockets.open(generation.listening)
            await generation.start()
            self._sockets.listen()
        except Exception:
            self._begin_end(generation)
            raise
        return generation

    def _begin_end(self, generation: Generation) -> asyncio.Task[None]:
        """Lets a generation finish while others run."""
        task = self._generations.get(generation)
        if task is None:
            task = self._generations[generation] = asyncio.create_task(generation.stop())
            task.add_done_callback(lambda _: self._generations.pop(generation))
        return task

    def _announce(self, generation: Generation | None) -> None:
        assert generation is not None
        workers = "1 worker" if generation.slots == 1 else f"{generation.slots} workers"
        addresses = map(self._sockets.address, generation.endpoints)
        status = f"{workers}, listening on {', '.join(addresses)}"
        if generation.http is not None:
            status += f", HTTP on {self._sockets.address(generation.http)}"
        _log.info("ready: %s", status)
        self._notifier.ready(status)

    async def _checked(self) -> tuple[Config, str]:
        """Reads and checks the file; the text is exactly what was checked.

        Raises:
            CheckError: something is wrong with it.
        """
        while True:
            config, text = await asyncio.to_thread(self._load)
            await self._check_plugins()
            # The check has read the file for itself: what it read must be what will run.
            if (await asyncio.to_thread(self._load))[1] == text:
                return config, text

    def _load(self) -> tuple[Config, str]:
        try:
            text = read(self._config_path)
            return load_config(self._config_path, text), text
        except ConfigError as error:
            raise CheckError([str(problem) for problem in error.problems]) from error

    async def _check_plugins(self) -> None:
        """Loads the plugins in a process of its own, which takes them along when it ends."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._check(self._config_path),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environ,
                process_group=0,
            )
        except OSError as error:
            raise CheckError([f"the check cannot be started: {error}"]) from error
        try:
            output, _ = await asyncio.wait_for(process.communicate(), self._timing.check)
        except TimeoutError:
            raise CheckError([f"the check took over {self._timing.check:g} s"]) from None
        finally:
            if process.returncode is None:
                # With it go the programs that a plugin has started.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            lines = output.decode(errors="replace").splitlines()
            raise CheckError(lines or [f"the check ended with status {process.returncode}"])

    async def _feed_watchdog(self) -> None:
        if self._watchdog is None:
            await asyncio.Event().wait()
        else:
            while True:
                self._notifier.alive()
                await asyncio.sleep(self._watchdog)


def _report_failure(error: Exception) -> None:
    if isinstance(error, CheckError):
        for problem in error.problems:
            _log.error("%s", problem)
    elif isinstance(error, BindError | ChildError):
        _log.error("%s", error)
    else:
        _log.error("unexpected failure", exc_info=error)
