"""Whose mail it is: the domain of the From field, which is what recipients see."""

from __future__ import annotations

import re

from gateway.hooks import Message, domain_name

_LAST_ADDRESS = re.compile(
    rb"@([^\s<>()@,;:\"\\\[\]]++)\s*+>?\s*+(?:\([^()]*+\)\s*+)?\Z",
)


def author_domain(message: Message) -> str:
    """The domain of the author, in lower case and A-labels.

    It is that of the last address in From, and of the envelope where there is no From; '' if
    there is no domain.
    """
    fields = message.headers.fields("From")
    if fields:
        match = _LAST_ADDRESS.search(fields[0].body)
        domain = match[1].decode(errors="replace") if match else ""
    else:
        domain = message.sender.rpartition("@")[2]
    try:
        return domain_name(domain)
    except ValueError:
        return ""
