"""Plugins that say wrong things of themselves: each flaw is found, in the right words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.flaw import GOOD, HEAD, MESSAGE, Flaw, assert_found

FLAWS = {
    "names its events as one text": Flaw(
        """
            observes = "bounced"
            @hookimpl
            def observe(self, events: Any) -> None:
                pass
        """,
        "declarations",
        ("observes is 'bounced'", 'observes = ("bounced",)'),
    ),
    "declares what there is not": Flaw(
        '    changes = ("subject",)\n' + MESSAGE + "        pass\n",
        "declarations",
        ("changes has 'subject'", "header:NAME"),
    ),
    "has nothing to observe": Flaw(
        '    observes = ("bounced",)\n' + MESSAGE + "        pass\n",
        "declarations",
        ("observes has no effect",),
        level="warning",
    ),
    "has nothing for one recipient": Flaw(
        """
            per_recipient = True
            @hookimpl
            def mail(self, message: Message) -> None:
                pass
        """,
        "declarations",
        ("per_recipient has no effect",),
        level="warning",
    ),
    "says nothing of itself": Flaw(
        MESSAGE + "        pass\n",
        "declarations",
        ('api = "1.0"',),
        level="warning",
        head=f"{HEAD}\nclass Site(Plugin[Config]):\n    pass\n",
    ),
    "does not describe its keys": Flaw(
        MESSAGE + "        pass\n",
        "configuration",
        ("text has no description", "Field(description="),
        level="warning",
        head=HEAD + '    text: str = ""\n' + GOOD,
    ),
    "has a default that is none": Flaw(
        MESSAGE + "        pass\n",
        "configuration",
        ("the default of size would be refused", "greater than or equal to 1"),
        level="warning",
        head=HEAD + '    size: int = Field(0, ge=1, description="How many.")\n' + GOOD,
    ),
    "shows its password": Flaw(
        MESSAGE + "        pass\n",
        "configuration",
        ("api_token is plain text", "SecretStr"),
        level="warning",
        head=HEAD + '    api_token: str | None = Field(None, description="Secret.")\n' + GOOD,
    ),
    "lets misspelt keys pass": Flaw(
        MESSAGE + "        pass\n",
        "configuration",
        ("Config lets misspelt keys pass", 'extra="forbid"'),
        level="warning",
        head=HEAD.replace(', extra="forbid"', "") + GOOD,
    ),
    "has a key that editors cannot know": Flaw(
        MESSAGE + "        pass\n",
        "configuration",
        ("Config has no JSON schema",),
        head=HEAD.replace("frozen=True", "frozen=True, arbitrary_types_allowed=True")
        + '    lock: threading.Event | None = Field(None, description="What.")\n'
        + GOOD,
    ),
    "needs settings that nobody gave": Flaw(
        MESSAGE + "        pass\n",
        "loads",
        ("text: missing",),
        head=HEAD + '    text: str = Field(description="What.")\n' + GOOD,
        settings=None,
    ),
    "has a hook of another name": Flaw(
        "    @hookimpl\n    def mesage(self, message: Message) -> None:\n        pass\n",
        "loads",
        ('there is no hook "mesage"', 'did you mean "message"'),
    ),
}


@pytest.mark.parametrize("name", FLAWS)
def test_a_flaw_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_found(FLAWS[name], tmp_path)
