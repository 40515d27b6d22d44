"""Whether a message fared as it must: what the client was told, what arrived. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import dkim

from examples.demo.case import Case
from examples.demo.installation import PublicKey
from examples.demo.transmission import Answers
from gateway.testing import ReceivedMessage

ADDED = ["DKIM-Signature", "Received"]
"""The fields that the gateway puts on top, and nothing else does it change."""

_QUEUE_ID = re.compile(rb"\bby gw\.example\.com with \w+ id (\w+)")
_FIELD_NAME = re.compile(rb"^([!-9;-~]+):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and whether it is as it must be."""

    good: bool
    text: str


def queue_id_of(content: bytes) -> str | None:
    """The id that the gateway gave to a message, from its Received field."""
    match = _QUEUE_ID.search(content)
    return match[1].decode() if match else None


def checks(
    case: Case,
    content: bytes,
    answers: Answers,
    arrivals: Sequence[ReceivedMessage],
    key: PublicKey,
) -> list[Check]:
    """Looks at everything that can be seen of one message.

    Args:
        case: what was to happen.
        content: the message as it was sent.
        answers: what the client was told.
        arrivals: what the receiver got of it.
        key: the public key that the signatures must fit.
    """
    found = []
    for recipient in case.recipients:
        expected = case.refused.get(recipient, "250")
        reply = _reply(f"<{recipient}>", answers.recipients[recipient], expected)
        if not reply.good or recipient in case.refused:
            found.append(reply)
    found.append(_reply("the message", answers.message, case.reply))
    arrived = sorted(address for one in arrivals for address, _ in one.recipients)
    if case.delivered or arrived:
        good = arrived == sorted(case.delivered)
        text = f"arrived at {', '.join(arrived) or 'nobody'}"
        found.append(Check(good, text if good else f"{text}; must: {', '.join(case.delivered)}"))
    for message in arrivals:
        if message.sender != case.sender:
            found.append(Check(False, f"the sender became <{message.sender}>"))
        found += [_signature(message.content, key), _octets(message.content, content)]
    return list(dict.fromkeys(found))


def _reply(subject: str, reply: str, expected: str) -> Check:
    good = reply.startswith(expected)
    text = f"the client is told about {subject}: {reply}"
    return Check(good, text if good else f"{text}; must: {expected}")


def _signature(content: bytes, key: PublicKey) -> Check:
    def look_up(name: bytes, timeout: float = 0) -> bytes | None:
        return key.record if name == key.name else None

    try:
        verifier = dkim.DKIM(content)
        valid = bool(verifier.verify(dnsfunc=look_up))
    except dkim.DKIMException as error:
        return Check(False, f"the DKIM signature is not valid: {error}")
    if not valid:
        return Check(False, "the DKIM signature is not valid")
    return Check(True, f"DKIM signature of {verifier.domain.decode()} is valid")


def _octets(arrived: bytes, sent: bytes) -> Check:
    if not arrived.endswith(sent):
        return Check(False, "the message was changed on its way")
    top = arrived.removesuffix(sent)
    names = [name.decode() for name in _FIELD_NAME.findall(top)]
    if names != ADDED:
        return Check(False, f"other fields were added than {ADDED}: {names}")
    return Check(True, f"all {len(sent):,} octets as they were sent, below {' and '.join(ADDED)}")
