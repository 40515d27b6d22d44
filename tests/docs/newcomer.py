"""What somebody has who begins with nothing: Python, and a package index.

The index is a folder with the wheel of this gateway; the libraries that it needs are there already,
because the network may not be. Nothing else of this environment is seen.
"""

from __future__ import annotations

import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path


class Newcomer:
    """A folder with an index, libraries and programs.

    Attributes:
        variables: the environment of a shell that has them.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        self._libraries = folder / "libraries"
        programs, index = folder / "programs", folder / "index"
        for path in (self._libraries, programs, index):
            path.mkdir()
        (index / wheel.name).symlink_to(wheel)
        for path in _others():
            (self._libraries / path.name).symlink_to(path)
        _script(programs / "python3", f"{Path(sys.executable).resolve()}")
        # What pip would have put beside the Python of the virtual environment.
        for name in ("pytest", "mypy"):
            _script(programs / name, f"python -P -m {name}")
        (programs / "ruff").symlink_to(Path(sys.executable).with_name("ruff"))
        self.variables = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_FIND_LINKS": str(index),
            "PIP_NO_INDEX": "1",
            # pip's word for it, when it is a variable, means the opposite.
            "PIP_NO_BUILD_ISOLATION": "0",
        }

    def furnish(self, environment: Path) -> None:
        """Gives a virtual environment the libraries, once it is there."""
        for site in environment.glob("lib/python*/site-packages"):
            if not (site / "libraries.pth").exists():
                (site / "libraries.pth").write_text(f"{self._libraries}\n")


def _others() -> list[Path]:
    """What is installed here, but for the gateway, and for plugins of pytest that load themselves.

    An author need not have those, and they change what pytest prints.
    """
    hidden = {
        str(Path(str(one.locate_file("."))) / Path(str(file)).parts[0])
        for one in distributions()
        if any(point.group == "pytest11" for point in one.entry_points)
        for file in one.files or ()
        if ".dist-info" in str(file)
    }
    return [
        path
        for path in Path(sysconfig.get_path("purelib")).iterdir()
        if str(path) not in hidden
        and path.suffix != ".pth"
        and path.name not in ("gateway", "plugins", "__pycache__")
        and not path.name.startswith(("mail_gateway", "pip"))
    ]


def _script(path: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
