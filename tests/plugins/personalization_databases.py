"""Database servers of a test's own: each in a folder of its own, gone with the tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy

from tests.conftest import DebianProgram

_DEADLINE = 60.0
_ROOM = 512 << 20
_USER = "nobody"
"""Who runs the servers where the tests run as root: they refuse to be root."""

PASSWORD = "ge:h/e@i m%?"


@dataclass
class DatabaseServer:
    """A running server.

    Attributes:
        url: where it is, with a password that has to be quoted there.
        admin: the same for who may change everything.
        process: what runs now.
        start: starts it anew.
        ending: the signal that makes it end without waiting for its clients.
    """

    url: sqlalchemy.URL
    admin: sqlalchemy.URL
    process: subprocess.Popen[bytes]
    start: Callable[[], subprocess.Popen[bytes]]
    ending: signal.Signals = signal.SIGQUIT

    @property
    def text(self) -> str:
        """The URL with its password."""
        return self.url.render_as_string(hide_password=False)

    def execute(self, *statements: str) -> list[tuple[object, ...]]:
        """Runs statements as admin; returns the rows of the last one."""
        engine = sqlalchemy.create_engine(self.admin, isolation_level="AUTOCOMMIT")
        rows: list[tuple[object, ...]] = []
        try:
            with engine.connect() as connection:
                for statement in statements:
                    result = connection.exec_driver_sql(statement.replace("%", "%%"))
                    rows = [tuple(row) for row in result] if result.returns_rows else []
        finally:
            engine.dispose()
        return rows

    def stop(self) -> None:
        """Ends the server at once."""
        self.process.send_signal(self.ending)
        try:
            self.process.wait(_DEADLINE / 4)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def restart(self) -> None:
        """Starts it again and waits until it answers.

        To be called from the main thread: the server ends with the thread that started it.
        """
        self.process = self.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Waits until it answers."""
        end = time.monotonic() + _DEADLINE
        while True:
            try:
                # First a socket that is closed for sure: a driver that fails leaves its own open.
                assert self.url.port is not None
                socket.create_connection(("127.0.0.1", self.url.port)).close()
                self.execute("SELECT 1")
            except (OSError, sqlalchemy.exc.OperationalError):
                if time.monotonic() > end or self.process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return


@contextmanager
def postgresql(find: DebianProgram) -> Iterator[DatabaseServer]:
    """A PostgreSQL server. The test is skipped where it is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    programs = folders[-1] if folders else find("postgres").parent
    with _folder() as folder:
        data, port = folder / "data", _free_port()
        options = "-U admin -A trust -E UTF8 --locale=C --no-sync --no-instructions"
        _run([str(programs / "initdb"), f"-D{data}", *options.split()])
        (data / "pg_hba.conf").write_text(
            "host all admin 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        options = "--listen_addresses=127.0.0.1 --unix_socket_directories= --fsync=off"
        options += " --dynamic_shared_memory_type=mmap"
        command = [str(programs / "postgres"), f"-D{data}", f"-p{port}", *options.split()]
        url = sqlalchemy.URL.create("postgresql+psycopg", host="127.0.0.1", port=port)
        with _server(command, url, folder) as server:
            server.ending = signal.SIGINT
            server.admin = url.set(username="admin", database="postgres")
            server.wait_ready()
            server.execute(
                "CREATE DATABASE shop", f"CREATE ROLE gateway LOGIN PASSWORD '{PASSWORD}'"
            )
            server.admin = server.admin.set(database="shop")
            server.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO gateway")
            yield server


@contextmanager
def mariadb(find: DebianProgram) -> Iterator[DatabaseServer]:
    """A MariaDB server. The test is skipped where it is not installed."""
    program, install = find("mariadbd"), find("mariadb-install-db")
    with _folder() as folder:
        data, port, path = folder / "data", _free_port(), folder / "socket"
        small = "--innodb-log-file-size=4M --innodb-buffer-pool-size=8M --skip-name-resolve"
        options = f"--no-defaults --datadir={data} --tmpdir={folder} {small}".split()
        _run([str(install), *options, "--skip-test-db", "--auth-root-authentication-method=normal"])
        options += [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={path}"]
        command = [str(program), *options, f"--pid-file={folder / 'pid'}", "--skip-log-bin"]
        url = sqlalchemy.URL.create("mysql+pymysql", host="127.0.0.1", port=port)
        with _server(command, url, folder) as server:
            server.admin = url.set(host=None, port=None, username="root").update_query_pairs(
                [("unix_socket", str(path))]
            )
            server.wait_ready()
            server.execute(
                "CREATE DATABASE shop CHARACTER SET utf8mb4",
                f"CREATE USER gateway@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
                "GRANT SELECT ON shop.* TO gateway@'127.0.0.1'",
            )
            server.admin = server.admin.set(database="shop")
            yield server


@contextmanager
def _server(command: list[str], url: sqlalchemy.URL, folder: Path) -> Iterator[DatabaseServer]:
    log = (folder / "log").open("wb")

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            _unprivileged(command, deadly=True),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )

    own = url.set(username="gateway", password=PASSWORD, database="shop")
    server = DatabaseServer(own, url, start(), start)
    try:
        yield server
    finally:
        log.close()
        server.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    # Not pytest's: that is closed to the server's user, and too long for a socket's name.
    # In memory where there is room: a new MariaDB writes much, and waits for the disk each time.
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM
    folder = Path(tempfile.mkdtemp(prefix="gateway-database-", dir=memory if roomy else None))
    try:
        if os.getuid() == 0:
            shutil.chown(folder, _USER)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged(command: list[str], *, deadly: bool = False) -> list[str]:
    """The command for somebody who is not root; with `deadly`, it ends with the tests."""
    options = ["--pdeathsig", "KILL"] if deadly else []
    if os.getuid() == 0:
        options += ["--reuid", _USER, "--regid", "nogroup", "--clear-groups"]
    return [*(["setpriv", *options] if options else []), *command]


def _run(command: list[str]) -> None:
    done = subprocess.run(_unprivileged(command), capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
