"""The process that a plugin is checked in: a request on standard input, what happens on a pipe.

It is a process of its own because a plugin may hang, leak or end it, and because listening to the
interpreter cannot be undone.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from typing import Any

from gateway.testing.conformance.request import Request
from gateway.testing.conformance.run import run


def main() -> None:
    """Checks what the request on standard input names.

    The arguments are the number of the pipe to write to, and a file for where it hangs, if it does.
    """
    pipe = int(sys.argv[1])
    request = Request.from_json(sys.stdin.readline())
    with open(sys.argv[2], "w") as traces:  # noqa: PTH123 - faulthandler wants it to stay open
        faulthandler.register(signal.SIGUSR1, traces, all_threads=False)

        def tell(what: dict[str, Any]) -> None:
            os.write(pipe, json.dumps(what).encode() + b"\n")

        run(request, tell)
        tell({"over": True})
    # Threads that a plugin has left must not keep the check from ending.
    os._exit(0)


if __name__ == "__main__":
    main()
