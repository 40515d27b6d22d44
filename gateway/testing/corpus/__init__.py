"""Messages of every shape that mail takes, to try plugins on. Made up, and the same each time."""

from __future__ import annotations

from gateway.testing.corpus.envelopes import envelopes
from gateway.testing.corpus.headers import headers
from gateway.testing.corpus.malformed import malformed
from gateway.testing.corpus.multiparts import multiparts
from gateway.testing.corpus.sample import Sample
from gateway.testing.corpus.texts import texts

__all__ = ["Sample", "samples"]


def samples() -> list[Sample]:
    """All messages of the corpus, in an order that does not change.

    What SMTP cannot carry (bare CR or LF, NUL, lines over 998 octets) is not among them: the
    gateway refuses it before any plugin sees it.
    """
    return [*texts(), *multiparts(), *malformed(), *headers(), *envelopes()]
