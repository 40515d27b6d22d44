"""Fixtures that several test modules share, and the two forms of a test.

What takes long comes in two forms: a short one at every run of the tests, a long one by `-m long`.
A test that asks for `scale` has both forms; one marked `long` has the long one only. With
GATEWAY_TEST_LONG=1 in the environment all tests run, those with two forms in the long one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

DebianProgram = Callable[[str], Path]
MakeOnce = Callable[[str, Callable[[Path], None]], Path]

ROOT = Path(__file__).parent.parent

LONGEST = 4 * 3600.0
"""Seconds after which a test in its long form is ended."""

T = TypeVar("T")

_PACKAGES = {
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "postgres": "postgresql",
    "smtp-source": "postfix",
    "smtp-sink": "postfix",
    "postfix": "postfix",
    "opendkim": "opendkim",
    "opendkim-testkey": "opendkim-tools",
    "opendkim-testmsg": "opendkim-tools",
    "swaks": "swaks",
    "strace": "strace",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
}


def pytest_configure() -> None:
    """Before any test is read.

    Bytecode is kept: a run starts hundreds of gateways, which must not compile each module anew.
    Properties hold on a busy machine, too, so that hypothesis measures no time.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    slow = [HealthCheck.too_slow]
    settings.register_profile("busy machine", deadline=None, suppress_health_check=slow)
    settings.load_profile("busy machine")


def runs_long(config: pytest.Config) -> bool:
    """Whether the long forms are run."""
    by_environment = os.environ.get("GATEWAY_TEST_LONG") == "1"
    return by_environment or config.getoption("markexpr") == "long"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what has a long form as `long` where that is asked for, before others are left out."""
    if not runs_long(config):
        return
    if config.option.markexpr == "not long":
        config.option.markexpr = ""
    for item in items:
        if "scale" in getattr(item, "fixturenames", ()):
            item.add_marker("long")
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONGEST))


class Scale:
    """Gives the first of two values in the short form of a test, the second in its long form."""

    def __init__(self, is_long: bool) -> None:
        self._is_long = is_long

    def __call__(self, short: T, long: T) -> T:
        """One of the two."""
        return long if self._is_long else short


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> Scale:
    """Sizes by the form that runs: `scale(10, 200)`."""
    return Scale(runs_long(request.config))


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Makes a folder by its name once for all processes that share the tests among them."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a failure left behind
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def gateway_wheel(make_once: MakeOnce) -> Path:
    """The wheel of this gateway, built without any network."""

    def build(folder: Path) -> None:
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel")
        offline = ("--no-index", "--no-deps", "--no-build-isolation")
        subprocess.run([*pip, *offline, "-w", folder, ROOT], check=True, timeout=300)

    (wheel,) = make_once("wheel", build).glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def debian_program() -> DebianProgram:
    """Finds a program that Debian packages; where it is missing the test is skipped and says so.

    With CI=true a missing program is a failure: there, everything has to be tested.
    """

    def find(name: str) -> Path:
        path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if path is not None:
            return Path(path)
        package = _PACKAGES.get(name, name)
        reason = f"{name} is not installed (Debian: apt-get install {package})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return find


@pytest.fixture(scope="session")
def mail_corpus() -> Path:
    """The folder of real messages named by MAIL_CORPUS; without it the test is skipped."""
    folder = os.environ.get("MAIL_CORPUS")
    if not folder:
        pytest.skip("MAIL_CORPUS does not name a folder of real messages")
    return Path(folder)
