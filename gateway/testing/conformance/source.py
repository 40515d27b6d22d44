"""The files that a plugin's code is in, and the places in them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType


class Source:
    """Tells a plugin's own code from that of the gateway and of libraries.

    A package is all its files; a site's file is itself alone.
    """

    def __init__(self, plugin_class: type) -> None:
        module = sys.modules.get(plugin_class.__module__)
        file = Path(getattr(module, "__file__", None) or "?").absolute()
        package = getattr(module, "__package__", None) or ""
        self.file = str(file)
        self._folder = f"{file.parent}/" if package else ""

    def owns(self, file: str) -> bool:
        """Whether a file is the plugin's."""
        return file == self.file or bool(self._folder and file.startswith(self._folder))

    def of_error(self, error: BaseException) -> str:
        """Where an exception came from: the last line of the plugin; '' if there is none."""
        frames = traceback.extract_tb(error.__traceback__)
        return self.first((one.filename, one.lineno or 0) for one in reversed(frames))

    def of_frame(self, frame: FrameType | None) -> str:
        """The plugin's line that a frame was called from; '' if there is none."""
        places = []
        while frame is not None:
            places.append((frame.f_code.co_filename, frame.f_lineno))
            frame = frame.f_back
        return self.first(places)

    def first(self, places: Iterable[tuple[str, int]]) -> str:
        """The first of these files and lines that is the plugin's; '' if none is."""
        for file, line in places:
            if self.owns(file):
                return f"{shown(file)}:{line}"
        return ""


def shown(file: str) -> str:
    """A path as people read it: from the current folder, if it is in it."""
    path = Path(file)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return file
