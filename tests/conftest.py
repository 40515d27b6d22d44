"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

DebianProgram = Callable[[str], Path]

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
