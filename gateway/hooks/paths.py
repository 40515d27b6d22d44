"""Paths in a configuration: relative ones start from the folder of `gateway.yaml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo


def _resolve(value: Any, info: ValidationInfo) -> Path:
    if isinstance(value, str) and value:
        value = Path(value)
    if not isinstance(value, Path):
        raise ValueError("expected the path of a file, for example keys/s1.pem")
    base = (info.context or {}).get("base")
    path = value if base is None else Path(base) / value
    try:
        path.exists()
    except OSError as error:
        raise ValueError(f"{path} cannot be reached: {error.strerror}") from None
    return path


def _readable(value: Any, info: ValidationInfo) -> Path:
    path = _resolve(value, info)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a file")
    if not path.exists():
        raise ValueError(f"no such file: {path}")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path} cannot be read by this user")
    return path


SitePath = Annotated[Path, BeforeValidator(_resolve)]
"""A path in a plugin's configuration. It need not exist."""

SiteFile = Annotated[Path, BeforeValidator(_readable)]
"""As `SitePath`, and there must be a readable file."""
