"""The `gateway` command. Only this package prints."""

from __future__ import annotations

import sys

from gateway.cli.command import gateway
from gateway.cli.plugins import add_plugin_commands


def main() -> None:
    """The program's entry point."""
    add_plugin_commands(gateway, sys.argv[1:])
    gateway(prog_name="gateway")
