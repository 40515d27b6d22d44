"""Haraka, one process per core, with its plugins `dkim` and `relay`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from bench.daemon import LOCALHOST, Daemon
from bench.signature import DOMAIN, SELECTOR, SigningKey
from bench.systems.system import System

_PACKAGES = ("Haraka", "haraka-plugin-dkim", "haraka-plugin-relay")


class Haraka(System):
    """Haraka 3; `program` is its `haraka` command, None to look for it on PATH."""

    name: ClassVar[str] = "haraka"
    install: ClassVar[str] = (
        "see bench/README.md, then --haraka or HARAKA=…/node_modules/.bin/haraka"
    )

    def __init__(self, key: SigningKey, program: str | None = None) -> None:
        super().__init__(key)
        self.program = shutil.which(program or "haraka")

    @property
    def _modules(self) -> Path:
        """The folder node_modules: the command is a link to its Haraka/bin/haraka."""
        assert self.program is not None
        return Path(self.program).resolve().parents[2]

    def missing(self) -> str | None:
        """The command, or the plugins that are not installed with it."""
        if self.program is None:
            return "no haraka"
        absent = [name for name in _PACKAGES if not (self._modules / name).exists()]
        return f"no {' and no '.join(absent)} beside it" if absent else None

    def version(self) -> str:
        """The versions of Haraka, its plugin and Node."""
        versions = [
            json.loads((self._modules / name / "package.json").read_text())["version"]
            for name in ("Haraka", "haraka-plugin-dkim")
        ]
        node = subprocess.run(
            ["node", "--version"], capture_output=True, text=True, timeout=30, check=False
        )
        return f"Haraka {versions[0]} + dkim {versions[1]}, Node {node.stdout.strip()}"

    def launch(self, next_hop: int) -> None:
        """Starts the master process, which starts the others."""
        assert self.program is not None
        config = self.folder / "config"
        key = config / "dkim" / DOMAIN
        key.mkdir(parents=True)
        (self.folder / "queue").mkdir()
        values = {
            "listen": f"{LOCALHOST}:{self.port}",
            "next_hop": f"{LOCALHOST}:{next_hop}",
            "domain": DOMAIN,
            "selector": SELECTOR,
        }
        for name in ("smtp", "outbound", "log", "dkim", "relay_dest_domains"):
            self.write(f"haraka.{name}.ini", config / f"{name}.ini", values)
        (config / "me").write_text("haraka.bench.test\n")
        (config / "plugins").write_text("relay\ndkim\n")
        (config / "relay_acl_allow").write_text("127.0.0.0/8\n")
        # It does not run without this file, and has no defaults for it elsewhere.
        shutil.copy(self._modules / "Haraka/config/connection.ini", config)
        (key / "private").write_text(self.key.file.read_text())
        (key / "private").chmod(0o600)
        (key / "selector").write_text(SELECTOR + "\n")
        daemon = Daemon(
            self.name,
            [self.program, "-c", self.folder],
            self.folder / "output.log",
            self.folder,
            {"NODE_ENV": "production", "UV_THREADPOOL_SIZE": "16"},
        )
        self.daemons.append(daemon)
        daemon.wait_for_smtp(self.port)
