"""Who sends through the gateway, read from the newest mail in the queue and from the log."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from email.utils import getaddresses
from pathlib import Path
from typing import Any

import apsw

from gateway.configuration.config import Config
from gateway.mail.address import domain_of
from gateway.mail.headers import Headers, split
from gateway.spool.spool import shard_numbers

MESSAGES = 200
"""Newest messages of each shard that are looked at."""

LOG_TAIL = 4 << 20
"""Octets at the end of the log that are looked at."""

_HEADER = 64 << 10
"""Octets of a message in which its header is looked for."""

_LONGEST_FIELD = 2000

_NEWEST = (
    "SELECT m.sender, substr(m.content, 1, ?), (SELECT d.parameters FROM deliveries d"
    " WHERE d.id = m.id AND d.copy = m.copy LIMIT 1)"
    " FROM messages m ORDER BY m.copy DESC LIMIT ?"
)
_SENDER = re.compile(rb'(?: from=<|"from": ?")([^<>"\\\s]{1,320})[>"]')
_TAG = re.compile(r"(?:^|;)\s*([a-z]+)\s*=\s*([^;\s]+)")


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs: `selector._domainkey.domain` has its public half."""

    domain: str
    selector: str


@dataclass(frozen=True, slots=True)
class Specimen:
    """What one message says of where it comes from.

    Attributes:
        author: the domain of its From field; '' where only the envelope is known.
        envelope: the domains of its return paths.
        signers: who signed it.
    """

    author: str
    envelope: frozenset[str]
    signers: frozenset[Signer] = frozenset()


def specimens(config: Config) -> set[Specimen]:
    """What the newest mail has, each kind once. What cannot be read is left out."""
    found = set(_of_queue(config.spool.path))
    if config.log.file is not None:
        found |= set(_of_log(config.log.file))
    return found


def _of_queue(folder: Path) -> Iterator[Specimen]:
    for number in shard_numbers(folder) if folder.is_dir() else ():
        try:
            path = os.fspath(folder / f"{number:04d}.db")
            db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
            with closing(db):
                db.set_busy_timeout(5_000)
                rows: list[Any] = db.execute(_NEWEST, (_HEADER, MESSAGES)).fetchall()
        except apsw.Error:
            continue  # the examination of the shards says so
        for sender, content, parameters in rows:
            yield specimen(_return_path(parameters) or sender, bytes(content))


def _return_path(parameters: str | None) -> str:
    try:
        data = json.loads(parameters or "{}")
        return str(data.get("return_path") or "")
    except (ValueError, AttributeError):
        return ""


def specimen(sender: str, content: bytes) -> Specimen:
    """What one message has; a From field that cannot be read has no domain."""
    headers = Headers(split(content)[0])
    domains = _authors([value[:_LONGEST_FIELD] for value in headers.get_all("From")])
    signers = set()
    for value in headers.get_all("DKIM-Signature"):
        tags = dict(_TAG.findall(value))
        if tags.get("d") and tags.get("s"):
            signers.add(Signer(tags["d"].lower(), tags["s"].lower()))
    author = domains.pop() if len(domains) == 1 else ""
    envelope = frozenset({domain_of(sender)} - {""})
    return Specimen(author, envelope, frozenset(signers))


def _authors(values: list[str]) -> set[str]:
    try:
        return {domain_of(address) for _, address in getaddresses(values)}
    except RecursionError:  # comments in comments, without end
        return set()


def _of_log(path: Path) -> Iterator[Specimen]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL))
            text = file.read()
    except OSError:
        return  # the examination of the log says so
    for sender in set(_SENDER.findall(text)):
        domain = domain_of(sender.decode("utf-8", "replace"))
        if domain:
            yield Specimen("", frozenset({domain}))
