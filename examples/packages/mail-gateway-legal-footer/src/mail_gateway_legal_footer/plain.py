"""A footer in plain text."""

from __future__ import annotations

import re

from mail_gateway_legal_footer.footer import NEAR_END, Footer, comparable

_QUOTED = re.compile(r"^>.*$", re.MULTILINE)


def has_footer(text: str, footer: Footer) -> bool:
    """Whether all that the footer has to say is in the text, and not only in a quotation."""
    text = text[-NEAR_END:]
    unquoted = comparable(_QUOTED.sub("", text) if ">" in text else text)
    return all(essential in unquoted for essential in footer.essentials)


def insertion(text: str, footer: Footer) -> tuple[int, int, str]:
    """Where the footer goes, as `TextPart.replace` takes it: below the text."""
    line_end = "" if not text or text.endswith("\n") else "\n"
    gap = "\n" if text.strip() else ""
    return len(text), len(text), f"{line_end}{gap}{footer.plain}"
