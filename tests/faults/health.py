"""What `/health` of a running gateway says, and how long that took."""

from __future__ import annotations

import http.client
import json
import threading
import time
from types import TracebackType
from typing import Any, Self

from tests.e2e.conftest import DEADLINE, free_port

LOOK_SECONDS = 0.02


class Health:
    """Asks for `/health` all the time, in a thread of its own.

    Attributes:
        port: to be given to the gateway as `http.address`.
        changes: each status that was another than the one before, with the time on the monotonic
            clock at which it was seen.
        last: what it said at last.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.changes: list[tuple[float, int]] = []
        self.last: dict[str, Any] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def configuration(self) -> str:
        """A line of gateway.yaml."""
        return f"http: {{address: '127.0.0.1:{self.port}'}}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
            try:
                connection.request("GET", "/health")
                reply = connection.getresponse()
                self.last = json.loads(reply.read())
            except OSError:
                continue
            finally:
                connection.close()
            if not self.changes or self.changes[-1][1] != reply.status:
                self.changes.append((time.monotonic(), reply.status))

    def seen(self, status: int, since: float) -> float:
        """Waits until that status is seen after a time; returns the seconds from then to it.

        It is 0 if the status was there already.
        """
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            before = [known for moment, known in self.changes if moment <= since]
            if before and before[-1] == status:
                return 0.0
            for moment, known in self.changes:
                if moment > since and known == status:
                    return moment - since
            time.sleep(LOOK_SECONDS)
        raise AssertionError(f"/health was never {status}: {self.changes} {self.last}")
