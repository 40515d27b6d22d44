"""Rules on what servers say, ready to be asked. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.hooks import Outcome
from plugins.throttle.destination import Rule
from plugins.throttle.lined_yaml import KeyPath
from plugins.throttle.pattern import LONGEST

PAUSE_SECONDS = 600.0
BOUNCE_SECONDS = 3600.0
WITHIN_SECONDS = 600.0

STAGES = frozenset({"connect", "ehlo", "tls", "auth", "mail", "rcpt", "data", "dot"})
"""What a server answers. Other stages are plugins, this one among them."""


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule with its defaults.

    Attributes:
        name: of the rule; path: where it stands.
        actions: what it does.
        lasting: seconds that a pause or a bounce lasts.
        scope: `provider`, `site` or `domain`; per_source: only for the source address.
        after, within: how many such replies it takes, in how many seconds.
        condition: what has to be said, for people.
    """

    name: str
    path: KeyPath
    actions: frozenset[str]
    lasting: float
    scope: str
    per_source: bool
    after: int
    within: float
    condition: str
    _codes: tuple[str, ...]
    _statuses: re.Pattern[str] | None
    _texts: tuple[re.Pattern[str], ...]
    _stages: frozenset[str]

    @classmethod
    def of(cls, name: str, rule: Rule, path: KeyPath) -> CompiledRule:
        """Compiles a rule that is complete."""
        actions = frozenset(rule.action or ())
        lasting = BOUNCE_SECONDS if "bounce" in actions else PAUSE_SECONDS
        statuses = "|".join(
            status.replace(".", r"\.").replace("*", r"\d+") for status in rule.status or ()
        )
        return cls(
            name=name,
            path=path,
            actions=actions,
            lasting=lasting if rule.lasting is None else rule.lasting,
            scope=rule.scope or "provider",
            per_source=True if rule.per_source is None else rule.per_source,
            after=rule.after or 1,
            within=WITHIN_SECONDS if rule.within is None else rule.within,
            condition=", ".join(
                f"{key} {' or '.join(values)}"
                for key in ("code", "status", "stage", "text")
                if (values := getattr(rule, key))
            ),
            _codes=tuple(code.rstrip("x") for code in rule.code or ()),
            _statuses=re.compile(statuses) if statuses else None,
            _texts=tuple(re.compile(text, re.IGNORECASE) for text in rule.text or ()),
            _stages=frozenset(rule.stage or ()),
        )

    @property
    def keeps_state(self) -> bool:
        """Whether it has an effect on what comes later."""
        return not self.actions.isdisjoint(("slow", "pause", "bounce"))

    def matches(self, outcome: Outcome) -> bool:
        """Whether that is what the rule is about."""
        if self._codes and not str(outcome.code).startswith(self._codes):
            return False
        if self._statuses is not None and not self._statuses.fullmatch(outcome.status):
            return False
        if self._stages and outcome.stage not in self._stages:
            return False
        text = outcome.text[:LONGEST]
        return not self._texts or any(pattern.search(text) for pattern in self._texts)


def compiled(rules: Mapping[str, Rule | None] | None, path: KeyPath) -> tuple[CompiledRule, ...]:
    """The rules of a section, in order."""
    return tuple(
        CompiledRule.of(name, rule, (*path, name))
        for name, rule in (rules or {}).items()
        if rule is not None
    )


def first_match(rules: tuple[CompiledRule, ...], outcome: Outcome) -> CompiledRule | None:
    """The first rule that is about a server's refusal; None: there is none, or no server spoke."""
    if not outcome.code or outcome.stage not in STAGES:
        return None
    for rule in rules:
        if rule.matches(outcome):
            return rule
    return None
