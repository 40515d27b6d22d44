"""What the demo shows: readable without colours, and nicer with."""

from __future__ import annotations

from collections.abc import Sequence

import click

from examples.demo.case import Case
from examples.demo.verdict import Check

NEXT = """\
What to try next:

  make run                            run a gateway with gateway.yaml, on 127.0.0.1:2525
  examples/demo/site/gateway.yaml     the configuration of this demo
  examples/demo/site/stay_inside.py   the plugin of this demo: change its rule
  docs/plugins/README.md              write a plugin of your own
  docs/operations.md                  set up a gateway that stays
"""


def started(port: int, receiver: str) -> None:
    """Tells where everything is."""
    click.echo(f"A gateway takes mail on 127.0.0.1:{port} and passes it on to {receiver}.")
    click.echo(
        "Its plugins: suppression, stay_inside (a file of this site), dkim (a key made just now)."
    )


def relayed(number: int, case: Case, results: Sequence[Check]) -> None:
    """Shows one message."""
    recipients = ", ".join(f"<{recipient}>" for recipient in case.recipients)
    click.echo("")
    click.echo(click.style(f"{number:2}  {case.title}", bold=True))
    click.echo(click.style(f"    <{case.sender}> → {recipients}", dim=True))
    for check in results:
        click.echo(f"    {_mark(check)} {check.text}")


def ended(messages: int, wrong: int, left_over: Check) -> None:
    """Shows the result of all messages."""
    click.echo("")
    click.echo(f"{_mark(left_over)} {left_over.text}")
    if wrong:
        text = f"{wrong} of {messages} messages went otherwise than they must."
        click.echo(click.style(text, fg="red", bold=True))
    elif left_over.good:
        text = f"All {messages} messages went as they must."
        click.echo(click.style(text, fg="green", bold=True))
    click.echo("")
    click.echo(NEXT)


def failed(error: Exception) -> None:
    """Says why there is no demo."""
    click.echo(f"demo: {error}", err=True)


def interrupted() -> None:
    """Says that the demo ended early."""
    click.echo("\ndemo: interrupted; the gateway was stopped", err=True)


def _mark(check: Check) -> str:
    return click.style("✓", fg="green") if check.good else click.style("✗", fg="red", bold=True)
