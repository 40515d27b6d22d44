"""What is to be checked, and how. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

BUDGET = 0.01
DEADLINE = 120.0


@dataclass(frozen=True, slots=True)
class Request:
    """A plugin to check.

    Attributes:
        reference: an installed plugin's name, or a path such as `./site/footer.py:Footer`.
        settings: its settings as YAML; None: those of `site` or of pyproject.toml, or none.
        settings_file: the file that the settings are from, for messages, and whose folder relative
            paths in them start from; '' for none.
        site: a gateway.yaml whose settings for the plugin, hostname and streams are taken; '' for
            none.
        budget: seconds that one call of a hook may take.
        corpus: a folder of further messages; '' for none.
        dns: whether plugins ask the DNS; otherwise every name is unknown to them.
        deadline: seconds after which the check is given up.
        only: the names of the checks to run, and with them those that they need; none: all.
    """

    reference: str
    settings: str | None = None
    settings_file: str = ""
    site: str = ""
    budget: float = BUDGET
    corpus: str = ""
    dns: bool = False
    deadline: float = DEADLINE
    only: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Reads what `to_json` wrote."""
        data = json.loads(text)
        return cls(**{**data, "only": tuple(data["only"])})
