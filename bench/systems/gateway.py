"""The gateway itself, as `gateway run` runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from bench.daemon import Daemon, tail
from bench.error import BenchError
from bench.queue import Waiting, fill
from bench.signature import DOMAIN, SELECTOR, SigningKey
from bench.systems.system import System


class Gateway(System):
    """The gateway with its plugin `dkim`: one worker per core."""

    name: ClassVar[str] = "gateway"
    template: ClassVar[str] = "gateway.yaml"
    install: ClassVar[str] = "pip install -e . in the environment that runs the bench"

    values: Mapping[str, object] = {}
    """What its template wants besides."""

    under: Sequence[str | Path] = ()
    """The command that starts it, such as a profiler's; nothing where it is started itself."""

    # Beside this interpreter: the environment's own, whatever PATH says.
    program = Path(sys.executable).with_name("gateway")

    def missing(self) -> str | None:
        """The command, if this environment does not have it."""
        return None if self.program.exists() else f"no {self.program.name} beside {sys.executable}"

    def version(self) -> str:
        """The number at the end of what `gateway --version` says."""
        said = subprocess.run(
            [self.program, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
        words = said.stdout.split()
        return f"mail-gateway {words[-1]}" if words else "mail-gateway of an unknown version"

    def launch(self, next_hop: int) -> None:
        """Starts `gateway run` in the foreground."""
        configuration = self.folder / "gateway.yaml"
        values = {
            "port": self.port,
            "next_hop": next_hop,
            "domain": DOMAIN,
            "selector": SELECTOR,
            "key": self.key.file,
        }
        self.write(self.template, configuration, {**values, **self.values})
        self.prepare(configuration)
        daemon = Daemon(
            self.name,
            [*self.under, self.program, "run", "-c", configuration],
            self.folder / "output.log",
            self.folder,
        )
        self.daemons.append(daemon)
        daemon.wait_for_smtp(self.port)

    def prepare(self, configuration: Path) -> None:
        """What has to be done once before it starts."""

    def log(self) -> str:
        """The end of its log, and of what it wrote before it had one."""
        return "\n".join(filter(None, (tail(self.folder / "gateway.log"), super().log())))


class WorkersGateway(Gateway):
    """The gateway with its plugin `dkim` and so many workers, whatever the cores."""

    template: ClassVar[str] = "gateway.workers.yaml"

    def __init__(self, key: SigningKey, workers: int) -> None:
        super().__init__(key)
        self.values = {"workers": workers}


class PlainGateway(Gateway):
    """The gateway without any plugin."""

    template: ClassVar[str] = "gateway.plain.yaml"


class DomainsGateway(Gateway):
    """The gateway without any plugin, delivering to the MX of each domain.

    Args:
        key: not used, for nothing is signed.
        dns: the name server that it asks, `address:port`.
        workers: how many there are; the spool has a shard for each.
        connections: how many each of them opens to a domain at a time.
        waiting: what is in the queue when it starts.
    """

    template: ClassVar[str] = "gateway.domains.yaml"

    def __init__(
        self,
        key: SigningKey,
        dns: str,
        workers: int,
        connections: int,
        waiting: Sequence[Waiting] = (),
    ) -> None:
        super().__init__(key)
        self.values = {"dns": dns, "workers": workers, "connections": connections}
        self._workers = workers
        self._waiting = waiting

    def prepare(self, configuration: Path) -> None:
        """Writes what waits into the spool."""
        if self._waiting:
            fill(self.folder / "spool", self._workers, self._waiting)


class ContentGateway(Gateway):
    """The gateway with all four plugins that concern what is sent and to whom."""

    template: ClassVar[str] = "gateway.content.yaml"
    suppressed: ClassVar[int] = 100_000

    def prepare(self, configuration: Path) -> None:
        """Fills the suppression list with so many addresses, of which none gets mail."""
        addresses = self.folder / "suppressed.txt"
        addresses.write_text(
            "".join(f"user{number}@suppressed.example\n" for number in range(self.suppressed))
        )
        done = subprocess.run(
            [self.program, "-c", configuration, "suppression", "import", addresses],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise BenchError("the suppression list cannot be imported", done.stderr)


class AllPluginsGateway(ContentGateway):
    """The gateway with all six plugins, each with real work to do: one worker per core."""

    template: ClassVar[str] = "gateway.all.yaml"
    suppressed: ClassVar[int] = 1_000_000


class ClicksGateway(Gateway):
    """The gateway with `tracking` and its pages, and an observer that counts clicks.

    `http` is the port of the pages.
    """

    template: ClassVar[str] = "gateway.clicks.yaml"

    def __init__(self, key: SigningKey, http: int) -> None:
        super().__init__(key)
        self.http = http
        self.values = {"http": http}

    def prepare(self, configuration: Path) -> None:
        """Puts the observer beside the configuration."""
        self.write("count.py", self.folder / "count.py", {})
