"""Plugins each of which does one thing wrong at one hook, to mail of one address only.

They do it as long as there is a file that says so. See tests/hooks/faults.py for what they do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hooks.faults import FAULTS, HOOKS, NAME, TIMEOUT, statement, write

DIES = "dies"
"""Ends its process without a word: nothing that runs in it can prevent that."""

AFTER_ACCEPTANCE = ("route", "source", "admit", "reply")
"""Hooks that meet mail which is in the queue, in whatever worker has it: when that is dead, another
one. Mail that ends its process there does so again, in any worker, until it is held."""

RECIPIENTS = {"receive": "b@own.example", "reply": "b@later.example"}
"""Whom mail must go to so that it meets the hook; `b@example.com`, if left out."""


@dataclass(frozen=True)
class Case:
    """A hook, what goes wrong there, and how the hook is written."""

    hook: str
    fault: str
    variant: str

    def __str__(self) -> str:
        return f"{self.hook}-{self.fault}-{self.variant}"

    @property
    def stops_its_worker(self) -> bool:
        """Whether nothing else can run in the process meanwhile."""
        if self.fault in (DIES, "spins"):  # in a thread too: it holds the interpreter's lock
            return True
        # `seal` is awaited by nobody, and so waits for its thread.
        waits = self.variant == "plain" or (self.variant, self.hook) == ("blocking", "seal")
        return self.fault == "hangs" and waits

    @property
    def opens_the_breaker(self) -> bool:
        """Whether it counts as failed, in a process that is there to count."""
        return self.fault not in (DIES, "leaks")

    @property
    def recipient(self) -> str:
        """Whom mail must go to so that it meets the hook."""
        return RECIPIENTS.get(self.hook, "b@example.com")


def cases(hook: str) -> list[Case]:
    """All that can go wrong at a hook, and is noticed in one worker at most."""
    variants = HOOKS[hook].variants
    found = [Case(hook, fault, variant) for fault in FAULTS for variant in variants]
    return found if hook in AFTER_ACCEPTANCE else [*found, Case(hook, DIES, "plain")]


SAMPLE = [
    Case("connect", "raises", "plain"),
    Case("connect", DIES, "plain"),
    Case("helo", "hangs", "async"),
    Case("auth", "junk", "async"),
    Case("mail", "exits", "blocking"),
    Case("mail", "spins", "plain"),
    Case("rcpt", "hangs", "blocking"),
    Case("claim", "hangs", "plain"),
    Case("receive", "forbidden", "async"),
    Case("message", "leaks", "async"),
    Case("message", "spins", "async"),
    Case("seal", "raises", "blocking"),
    Case("route", "hangs", "async"),
    Case("source", "junk", "plain"),
    Case("admit", "spins", "plain"),
    Case("reply", "exits", "plain"),
]
"""Each hook and each fault at least once."""


class BrokenPlugins:
    """The entries of `gateway.yaml` for some cases, and a switch for each of them.

    Mail that waits after a fault comes back later, while another case is tried: its plugin has to
    do right by then.

    Attributes:
        entries: the section `plugins`.
        addresses: by case, the client's address whose mail meets it.
        names: by case, the name of its entry in the log.
    """

    def __init__(self, folder: Path, wanted: Sequence[Case]) -> None:
        self._switches: dict[Case, Path] = {}
        self.addresses = {case: f"127.0.1.{number}" for number, case in enumerate(wanted, 1)}
        self.names: dict[Case, str] = {}
        lines = ["plugins:"]
        for number, case in enumerate(wanted, 1):
            own = folder / f"case-{number}"
            own.mkdir()
            self._switches[case] = own / "broken"
            write(own, case.hook, self._statement(case), case.variant, "tempfail")
            rules = f"timeout: {TIMEOUT}, on_error: tempfail"
            when = f"when: {{client: {self.addresses[case]}}}"
            lines.append(f"  - ./{own.name}/{NAME}.py: {{{rules}, {when}}}")
            self.names[case] = NAME if number == 1 else f"{NAME}#{number}"
        self.entries = "\n".join(lines)

    def _statement(self, case: Case) -> str:
        if case.fault == DIES:
            wrong = "import os; os._exit(3)"
        else:
            wrong = statement(case.hook, case.fault, case.variant)
        right = f"return {HOOKS[case.hook].normal}"
        switch = str(self._switches[case])
        return f"if not Path({switch!r}).exists():\n        {right}\n    {wrong}"

    def switch(self, wrong: Collection[Case]) -> None:
        """Lets these do wrong, and all others right."""
        for case, switch in self._switches.items():
            if case in wrong:
                switch.touch()
            else:
                switch.unlink(missing_ok=True)
