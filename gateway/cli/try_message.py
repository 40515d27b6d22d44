"""`gateway try`: one message through the plugins, and nothing is sent or kept."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from dataclasses import replace
from email.utils import getaddresses
from pathlib import Path

import click

from gateway.cli.lines import say
from gateway.cli.options import DEFAULT_CONFIG, fail, fail_config, json_option
from gateway.cli.trial_text import told
from gateway.configuration.network import parse_network
from gateway.configuration.yaml_document import ConfigError
from gateway.hooks.lifecycle import PluginStartError
from gateway.mail.address import AddressSyntaxError, parse_path
from gateway.mail.headers import Headers, split
from gateway.spool.shard_file import SpoolError
from gateway.trial.choice import Named, chosen
from gateway.trial.dialogue import Submission
from gateway.trial.record import Trial
from gateway.trial.run import run
from gateway.trial.scratch import ScratchError

_BARE_LF = re.compile(rb"(?<!\r)\n")
_MBOX = re.compile(rb"From [^\r\n]*\r?\n")


@click.command("try")
@click.argument("message", type=click.Path(path_type=Path, allow_dash=True), default=Path("-"))
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help=f"The configuration file.  [default: {DEFAULT_CONFIG}, if no plugin is named]",
)
@click.option(
    "-p",
    "--plugin",
    "plugins",
    multiple=True,
    metavar="PLUGIN[=CONFIG]",
    help="Run this plugin only; may be repeated. A name, or ./file.py[:Class]. CONFIG is YAML, such"
    " as '{text: Hi}', or @FILE.",
)
@click.option("--sender", metavar="ADDRESS", help="The envelope sender.  [default: of From]")
@click.option(
    "--to",
    "recipients",
    multiple=True,
    metavar="ADDRESS",
    help="A recipient; may be repeated.  [default: of To and Cc]",
)
@click.option("--client", default="127.0.0.1", show_default=True, help="The client's IP address.")
@click.option("--user", help="As whom the client has logged in.  [default: not at all]")
@click.option(
    "--helo", default="localhost", show_default=True, help="What the client calls itself."
)
@click.option("--stream", help="The stream.  [default: as gateway.yaml sorts the message]")
@click.option("--deliver", is_flag=True, help="Say which way it would go, too; nothing is sent.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Write the message that comes out to this file; - is standard output.",
)
@click.option("--timings", is_flag=True, help="Show how long each plugin took in all.")
@json_option
def try_message(
    message: Path,
    path: Path | None,
    plugins: tuple[str, ...],
    sender: str | None,
    recipients: tuple[str, ...],
    client: str,
    user: str | None,
    helo: str,
    stream: str | None,
    deliver: bool,
    output: Path | None,
    timings: bool,
    as_json: bool,
) -> None:
    """Run one message through plugins, and see what each does.

    MESSAGE is a file, or standard input. It passes the plugins of gateway.yaml, or those that you
    name. Nothing is sent, and nothing of the site is changed: plugins work on copies of their
    files and limits.

        gateway try -p 'footer={text: Hi}' message.eml

    Exit status 1: a plugin failed.
    """
    notes: list[str] = []
    submission = _submission(_read(message, notes), sender, recipients, notes)
    submission = replace(submission, client=_address(client), user=user, helo=helo)
    if not helo or not helo.isprintable() or " " in helo:
        raise click.UsageError("--helo: expected a name without spaces")
    try:
        named = [Named.parse(text) for text in plugins]
    except ValueError as error:
        raise click.UsageError(f"--plugin: {error}") from None
    try:
        config, loaded = chosen(path if path or named else DEFAULT_CONFIG, named)
    except ConfigError as error:
        fail_config(error.problems)
    if stream is not None and stream not in (*config.streams, "default"):
        known = ", ".join(dict.fromkeys((*config.streams, "default")))
        raise click.UsageError(f"--stream: there is no stream {stream!r}; there are {known}")
    try:
        trial = asyncio.run(run(config, loaded, submission, stream=stream, deliver=deliver))
    except (ScratchError, PluginStartError, SpoolError) as error:
        fail(error)
    trial = replace(trial, notes=(*notes, *trial.notes))
    on_stderr = output is not None and str(output) == "-"
    if output is not None:
        _write(output, trial)
    if as_json:
        click.echo(json.dumps(trial.to_dict(), ensure_ascii=False, indent=2), err=on_stderr)
    else:
        say(told(trial, submission, timings=timings), err=on_stderr)
    if trial.faults:
        sys.exit(1)


def _read(path: Path, notes: list[str]) -> bytes:
    """The message's octets, with CRLF as line ends."""
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    if _MBOX.match(content):
        content = content.partition(b"\n")[2]
        notes.append("the first line, From and a date, is of an mbox file and was left out")
    with_crlf = _BARE_LF.sub(b"\r\n", content)
    if with_crlf != content:
        notes.append("line ends are LF there; here they are CRLF, as SMTP has them")
    return with_crlf


def _submission(
    content: bytes, sender: str | None, recipients: tuple[str, ...], notes: list[str]
) -> Submission:
    headers = Headers(split(content)[0])
    if sender is None:
        sender = next(iter(_addresses(headers, "From")), "")
        notes.append(f"the sender <{sender}> is that of From")
    if not recipients:
        recipients = tuple(dict.fromkeys(_addresses(headers, "To", "Cc")))
        if not recipients:
            raise click.UsageError("the message names no recipient in To or Cc: say --to ADDRESS")
        notes.append("the recipients are those of To and Cc")
    for option, addresses in (("--sender", (sender,)), ("--to", recipients)):
        for address in addresses:
            if not _is_path(address) and (address or option == "--to"):
                raise click.UsageError(f"{option}: {address!r} is no address")
    return Submission(content, sender, recipients)


def _addresses(headers: Headers, *names: str) -> list[str]:
    values = [value for name in names for value in headers.get_all(name)]
    return [address for _, address in getaddresses(values) if "@" in address and _is_path(address)]


def _is_path(address: str) -> bool:
    try:
        return parse_path(f"<{address}>") == (address, "")
    except AddressSyntaxError:
        return False


def _address(text: str) -> str:
    try:
        network = parse_network(text)
    except ValueError as error:
        raise click.UsageError(f"--client: {error}") from None
    if network.num_addresses != 1:
        raise click.UsageError("--client: expected one IP address")
    return str(network.network_address)


def _write(output: Path, trial: Trial) -> None:
    """Writes the message; further copies go into files beside it: out.eml, out.2.eml."""
    copies = trial.copies
    if str(output) == "-":
        if len(copies) > 1:
            raise click.UsageError(
                f"--output: there are {len(copies)} copies of the message; name a file"
            )
        for copy in copies:
            sys.stdout.buffer.write(copy.content)
            sys.stdout.buffer.flush()
        return
    for number, copy in enumerate(copies, 1):
        file = output if number == 1 else output.with_suffix(f".{number}{output.suffix}")
        try:
            file.write_bytes(copy.content)
        except OSError as error:
            fail(f"{file}: {error.strerror}")
