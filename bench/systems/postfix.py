"""Postfix with OpenDKIM as its milter, in an instance of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from typing import ClassVar

from bench.daemon import LOCALHOST, Daemon, tail
from bench.signature import DOMAIN, SELECTOR
from bench.systems.system import System


class Postfix(System):
    """Postfix 3.4 or later and OpenDKIM, with configuration, queue and log in `folder`."""

    name: ClassVar[str] = "postfix"
    install: ClassVar[str] = "apt-get install postfix opendkim, and run the bench as root"

    def missing(self) -> str | None:
        """The programs that are not there, or the right to start them."""
        absent = [program for program in ("postfix", "opendkim") if not shutil.which(program)]
        if absent:
            return f"no {' and no '.join(absent)}"
        return None if os.geteuid() == 0 else "Postfix starts only as root"

    def version(self) -> str:
        """The versions of both."""
        postfix = _output("postconf", "-d", "-h", "mail_version")
        opendkim = _output("opendkim", "-V").splitlines()[0].rpartition(" v")[2]
        return f"Postfix {postfix} + OpenDKIM {opendkim}"

    def launch(self, next_hop: int) -> None:
        """Starts OpenDKIM, then Postfix."""
        socket = self.folder / "opendkim.sock"
        values = {
            "folder": self.folder,
            "listen": f"{LOCALHOST}:{self.port}",
            "next_hop": f"[{LOCALHOST}]:{next_hop}",
            "milter": socket,
            "domain": DOMAIN,
            "selector": SELECTOR,
            "key": self.key.file,
        }
        etc, data, queue = (self.folder / name for name in ("etc", "data", "queue"))
        for part in (etc, data, queue):
            part.mkdir()
        os.chown(data, pwd.getpwnam("postfix").pw_uid, -1)
        self.write("postfix.main.cf", etc / "main.cf", values)
        self.write("postfix.master.cf", etc / "master.cf", values)
        self.write("opendkim.conf", self.folder / "opendkim.conf", values)

        milter = Daemon(
            "opendkim",
            ["opendkim", "-f", "-x", self.folder / "opendkim.conf"],
            self.folder / "opendkim.log",
            self.folder,
        )
        self.daemons.append(milter)
        milter.wait_for_socket(socket)
        postfix = Daemon(
            "postfix",
            ["postfix", "-c", etc, "start-fg"],
            self.folder / "output.log",
            self.folder,
            # What runs in the foreground is a script, which does not pass signals on.
            ending=["postfix", "-c", etc, "stop"],
        )
        self.daemons.append(postfix)
        postfix.wait_for_smtp(self.port)

    def log(self) -> str:
        """The end of Postfix's log, and of what the daemons said before it."""
        return "\n".join(filter(None, (tail(self.folder / "mail.log"), super().log())))


def _output(*command: str) -> str:
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return said.stdout.strip() or "unknown"
