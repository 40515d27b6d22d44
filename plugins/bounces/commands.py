"""`gateway bounces …`: what a report says, what a refusal means, whom a return path is for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from gateway.hooks import Context, Event, SecretKey
from plugins.bounces import delivery_status, report
from plugins.bounces.classification import Classifier
from plugins.bounces.config import BouncesConfig
from plugins.bounces.decision import Decider, Decision
from plugins.bounces.delivery_status import addresses_in
from plugins.bounces.keys import Keyring, key_file
from plugins.bounces.mime import split
from plugins.bounces.origins import Origins
from plugins.bounces.report import Report
from plugins.bounces.return_path import ReturnPaths
from plugins.bounces.token import DAY

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_ENVELOPE = ("X-Original-To", "Delivered-To", "Envelope-To", "X-Envelope-To", "To")
_LINE_END = re.compile(rb"\r?\n")


def bounces_commands(
    config: BouncesConfig, classifier: Classifier, path: Path, context: Context
) -> click.Group:
    """The commands, for the keys in a file."""

    @click.group(help="Bounces: what they say, and the return paths that they come to.")
    def bounces() -> None:
        pass

    @bounces.command()
    @click.argument("file", type=click.Path(allow_dash=True), default="-")
    @click.option(
        "--to",
        "recipients",
        multiple=True,
        metavar="ADDRESS",
        help="The address that it came to; else those in its header.",
    )
    @_json_option
    def classify(file: str, recipients: tuple[str, ...], as_json: bool) -> None:
        """Print what a bounce, a complaint or a reply in FILE says, and what would become of it.

        FILE is a whole message; without it, standard input. Nothing is told to observers.
        """
        try:
            with click.open_file(file, "rb") as opened:
                content = _LINE_END.sub(b"\r\n", opened.read())
        except OSError as error:
            raise click.ClickException(f"{file}: {error.strerror}") from None
        headers, _ = split(content)
        named = recipients or [
            address
            for name in _ENVELOPE
            for value in headers.get_all(name)
            for address in addresses_in(value)
        ]
        sender = headers.get("Return-Path", "<>").strip()
        read = report.read(content, null_sender=sender == "<>")
        decider = Decider(config, _paths(), _origins().find, classifier)
        decision = decider.decide(read, list(dict.fromkeys(named)), context.clock())
        if as_json:
            found = _as_json(read, decision, decider)
            click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        else:
            click.echo("\n".join(_described(read, decision, decider)))

    @bounces.command()
    @click.argument("reply")
    @_json_option
    def explain(reply: str, as_json: bool) -> None:
        """Print what REPLY, as a server said it, means, and which rule says so.

        For example: gateway bounces explain "550 5.1.1 user unknown".
        """
        code, status = delivery_status.code_in(reply), delivery_status.status_in(reply)
        verdict = classifier.verdict(code, status, reply)
        failure = verdict.failure
        if as_json:
            found = {
                "class": failure.value,
                "kind": failure.kind,
                "code": code,
                "status": status,
                "rule": verdict.rule,
                "matched": verdict.matched,
            }
            click.echo(json.dumps(found, ensure_ascii=False, indent=2))
            return
        click.echo(f"{failure} ({failure.kind})")
        if not verdict.rule:
            click.echo("no rule matches")
        elif verdict.matched:
            click.echo(f"{verdict.rule}: by its text, {verdict.matched!r}")
        else:
            click.echo(f"{verdict.rule}: by its code, {status or code}")

    @bounces.command()
    @click.argument("address")
    @_json_option
    def address(address: str, as_json: bool) -> None:
        """Print what ADDRESS says: a return path, or the part of one before the @."""
        _keys(path)
        paths = _paths()
        assert paths is not None
        tried = (
            [address]
            if "@" in address
            else [
                f"{begin}{address}@{domain}"
                for domain in sorted(config.bounce_domains)
                for begin in ("", f"{config.prefix}+")
            ]
        )
        found = next(filter(None, map(paths.read, tried)), None)
        if found is None:
            raise click.ClickException("no return path of this gateway, or it was changed")
        token = found.token
        domain, stream = _origins().find(token.origin)
        made = datetime.fromtimestamp(token.day * DAY, UTC).date().isoformat()
        data = {
            "message_id": token.message_id,
            "recipient": token.recipient,
            "recipient_hash": token.recipient_hash,
            "sender_domain": domain,
            "stream": stream,
            "made": made,
            "key": token.key,
            "valid": not token.older_than(config.lifetime, context.clock()),
        }
        if as_json:
            click.echo(json.dumps(data, ensure_ascii=False, indent=2))
            return
        data["valid"] = "yes" if data["valid"] else "no"
        for name, value in data.items():
            if value != "":
                click.echo(f"{name.replace('_', ' ') + ':':<16}{value}")

    @bounces.command()
    @_json_option
    def keys(as_json: bool) -> None:
        """List the keys that sign return paths, the newest last. It signs; all are valid.

        Never shows the keys themselves.
        """
        found = _keys(path)
        if as_json:
            shown = [_shown(key, found[-1]) for key in found]
            click.echo(json.dumps(shown, indent=2))
            return
        click.echo(f"{path}\n{'id':>3}  {'made':<17}  use")
        for key in found:
            made = datetime.fromtimestamp(key.created, UTC).strftime("%Y-%m-%d %H:%M")
            use = "signs and verifies" if key is found[-1] else "verifies"
            click.echo(f"{key.id:>3}  {made}Z  {use}")

    @bounces.command()
    @_json_option
    def rotate(as_json: bool) -> None:
        """Add a key, which signs all new return paths from now on.

        Bounces to older ones are still taken. Running processes see the new key within a second.
        With several machines, copy the file to all of them.
        """
        try:
            key = key_file(path).rotate(context.clock())
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        if as_json:
            click.echo(json.dumps(_shown(key, key), indent=2))
        else:
            click.echo(f"key {key.id} signs from now on; older keys are still valid ({path})")

    def _paths() -> ReturnPaths | None:
        if not config.bounce_domains:
            return None
        try:
            keyring = Keyring(path, context.clock, context.log, make=False)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        return ReturnPaths(config, keyring)

    def _origins() -> Origins:
        return Origins(context.limits, context.name, context.clock, context.log)

    if not config.bounce_domains:
        for name in ("address", "keys", "rotate"):
            del bounces.commands[name]
    return bounces


def _keys(path: Path) -> Sequence[SecretKey]:
    try:
        return key_file(path).read()[1]
    except FileNotFoundError:
        raise click.ClickException(
            f"there are no keys in {path} yet; the gateway makes them at its start"
        ) from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _shown(key: SecretKey, newest: SecretKey) -> dict[str, object]:
    return {
        "id": key.id,
        "created": datetime.fromtimestamp(key.created, UTC).isoformat(),
        "signs": key is newest,
    }


def _as_json(read: Report, decision: Decision, decider: Decider) -> dict[str, object]:
    return {
        "kind": read.kind.value,
        "decision": "events" if decision.events else "held" if decision.held else "dropped",
        "why": decision.held or decision.dropped,
        "reporter": read.reporter,
        "events": [json.loads(event.to_json()) for event in decision.events],
        "findings": [
            {
                "action": finding.action.value,
                "recipient": finding.recipient,
                "original": finding.original,
                "status": finding.status,
                "code": finding.code,
                "class": decider.failure(finding, read).value,
                "said": finding.said,
            }
            for finding in read.findings
        ],
    }


def _described(read: Report, decision: Decision, decider: Decider) -> list[str]:
    by = f" from {read.reporter}" if read.reporter else ""
    lines = [f"{read.kind}{by}"]
    if not decision.events:
        for finding in read.findings:
            failure = decider.failure(finding, read)
            whom = finding.recipient or finding.original or "somebody"
            lines += [f"  {finding.action}  {whom}  {failure} ({failure.kind})"]
            lines += [f"    said: {finding.said}"] if finding.said else []
        what = "held" if decision.held else "dropped"
        return [*lines, f"{what}: {decision.held or decision.dropped}"]
    for event in decision.events:
        lines += _event_lines(event)
    return lines


def _event_lines(event: Event) -> list[str]:
    notes = dict(event.notes)
    kind = notes.pop("kind", "")
    failure = notes.pop("class", "")
    lines = [f"{event.type}  {event.recipient or '(recipient not known)'}"]
    if failure:
        lines[0] += f"  {failure} ({kind})"
    values = {"message": event.message_id, "sender": event.sender, "stream": event.stream, **notes}
    if event.code or event.status:
        values["code"] = f"{event.code or ''} {event.status}".strip()
    values["reason"] = event.reason
    return [*lines, *[f"  {name + ':':<10}{value}" for name, value in values.items() if value]]
