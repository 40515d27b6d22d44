"""How the service is, as `/health` tells it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Health:
    """What keeps the service from its work; nothing, if all is well.

    Attributes:
        problems: what is wrong, by the name of what was looked at.
    """

    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status that tells it to a load balancer: 200 or 503."""
        return 503 if self.problems else 200

    def to_json(self) -> str:
        """One JSON object: `{"status": "ok"}`, or `failing` with the problems."""
        told: dict[str, object] = {"status": "failing" if self.problems else "ok"}
        if self.problems:
            told["problems"] = dict(self.problems)
        return json.dumps(told, ensure_ascii=False)
