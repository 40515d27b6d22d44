"""How the gateway is, as `/health` tells it. Pure.

It is `failing` where mail is refused or delayed, or would not be safe, and `degraded` where mail
passes as the configuration wants it to, although something is wrong.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_TOLD = re.compile(
    r"(?:[a-z]{1,20} )?(?:raised \w{1,60}|ran longer than [0-9.e+]{1,20} s|answered \w{1,60})"
)
"""What may be told of a fault to anybody: a hook and an exception's type, and not its text."""


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """A plugin that failed so often that a process does not ask it for now.

    Attributes:
        plugin: its entry's name.
        reason: which hook failed at last, and how.
        seconds: until it is asked again; 0 if the next call is a trial.
        on_error: what becomes of mail meanwhile.
    """

    plugin: str
    reason: str
    seconds: float
    on_error: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a process says of itself.

    Attributes:
        storage: what keeps it from writing to the disk: `full` or `failed`; '' if nothing does.
        breakers: those that are not closed.
        left: the numbers of shards that it cannot read.
    """

    storage: str = ""
    breakers: tuple[OpenBreaker, ...] = ()
    left: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """An object for JSON, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Any) -> Report:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: this is no report.
        """
        try:
            return cls(
                str(told["storage"]),
                tuple(
                    OpenBreaker(
                        str(one["plugin"]),
                        str(one["reason"]),
                        float(one["seconds"]),
                        str(one["on_error"]),
                    )
                    for one in told["breakers"]
                ),
                tuple(int(number) for number in told["left"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no report: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Health:
    """What keeps the gateway from its work; nothing, if all is well.

    Attributes:
        problems: what is wrong, by the name of what was looked at.
        flaws: what is wrong as well, and keeps no mail up.
    """

    problems: Mapping[str, str] = field(default_factory=dict)
    flaws: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status that tells it to a load balancer: 200 or 503."""
        return 503 if self.problems else 200

    def to_json(self) -> str:
        """One JSON object: `{"status": "ok"}`, or `failing` or `degraded` with the problems."""
        told: dict[str, object] = {"status": "ok"}
        if self.problems or self.flaws:
            told["status"] = "failing" if self.problems else "degraded"
            told["problems"] = {**self.flaws, **self.problems}
        return json.dumps(told, ensure_ascii=False)


def judge(
    reports: Mapping[str, Report], silent: Mapping[str, float], *, spool: str, workers: str
) -> Health:
    """The health of a gateway.

    An open breaker is a problem where mail waits for the plugin, but for its trial: who sends no
    mail to a gateway that is failing would never see it well again.

    Args:
        reports: what each process says of itself.
        silent: workers that say nothing, and for how many seconds they have not.
        spool: why nothing new can be stored there; '' if there is room.
        workers: what the names of workers begin with; other processes do not keep mail up, and
            have no mail to write.
    """
    problems: dict[str, str] = {}
    flaws: dict[str, str] = {}
    if spool:
        problems["spool"] = spool
    for name, seconds in silent.items():
        problems[name] = f"has not answered for {seconds:.0f} s"
    for name, report in reports.items():
        if report.storage:
            why = "the disk is full" if report.storage == "full" else "see the log"
            if name.startswith(workers):
                problems[name] = f"cannot write mail to the disk: {why}"
            else:
                flaws[name] = f"cannot write events to the disk: {why}"
        for number in report.left:
            problems[f"{number:04d}.db"] = (
                "cannot be read, and its mail waits for a person: gateway doctor says what to do"
            )
    breakers: dict[tuple[str, bool], list[tuple[str, OpenBreaker]]] = {}
    for name, report in reports.items():
        for breaker in report.breakers:
            grave = name.startswith(workers) and breaker.seconds > 0 and breaker.on_error != "skip"
            breakers.setdefault((breaker.plugin, grave), []).append((name, breaker))
    for (plugin, grave), seen in breakers.items():
        (problems if grave else flaws)[f"plugin {plugin}"] = _described(seen, workers)
    return Health(problems, flaws)


def _described(seen: list[tuple[str, OpenBreaker]], workers: str) -> str:
    """What is told of a plugin's breaker that is open in some processes."""
    name, last = seen[-1]
    seconds = math.ceil(max(breaker.seconds for _, breaker in seen))
    if name.startswith(workers):
        consequence = _CONSEQUENCES.get(last.on_error, "mail waits for it")
    else:
        consequence = "mail does not wait for it"
    again = f"in {seconds} s" if seconds else "with the next call"
    processes = ", ".join(name for name, _ in seen)
    return f"{told(last.reason)}; {consequence}; asked again {again} ({processes})"


_CONSEQUENCES = {
    "tempfail": "mail is refused or delayed",
    "quarantine": "mail is held",
    "skip": "mail passes without it",
}


def told(reason: str) -> str:
    """The part of a fault's description that anybody may read."""
    match = _TOLD.match(reason)
    return match[0] if match is not None else "failed, see the log"
