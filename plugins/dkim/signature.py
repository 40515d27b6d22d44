"""The DKIM-Signature field (RFC 6376 3.5): which fields it covers, and how it is written. Pure."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from plugins.dkim.canonicalization import Canonicalization
from plugins.dkim.key import PrivateKey

_WIDTH = 76
_FOLD = b"\r\n "

SEALED = (
    "From",
    "Subject",
    "To",
    "Cc",
    "Reply-To",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
)
"""Signed, and no further one may be added on the way, even if the message has none
(RFC 6376 8.15). A second one would change what a reader sees."""

SEALED_IF_PRESENT = ("Date", "Message-ID", "List-Unsubscribe", "List-Unsubscribe-Post")
"""As `SEALED`, but a message without them may get one on the way: a smarthost adds a missing Date
or Message-ID (RFC 6409 8), a mailing list its own List-Unsubscribe."""

SIGNED = (
    "Sender",
    "Resent-Date",
    "Resent-From",
    "Resent-To",
    "Resent-Cc",
    "List-Id",
    "List-Help",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
    "Feedback-ID",
)
"""Signed if present; more of them may be added above."""

UNSIGNABLE = (
    "Received",
    "Return-Path",
    "Authentication-Results",
    "ARC-Authentication-Results",
    "ARC-Message-Signature",
    "ARC-Seal",
    "DKIM-Signature",
    "Delivered-To",
    "Bcc",
)
"""Never signed: every relay may add, change or take away such a field (RFC 6376 5.4.1)."""


@dataclass(frozen=True)
class Coverage:
    """Which header fields signatures cover. `extra` names more than those of this module."""

    extra: tuple[str, ...] = ()

    @cached_property
    def names(self) -> frozenset[bytes]:
        """The names of all fields to sign, in lower case."""
        return _lower((*SEALED, *SEALED_IF_PRESENT, *SIGNED, *self.extra))

    def header_list(self, present: Sequence[bytes]) -> bytes:
        """The tag `h=`, folded and with its semicolon.

        Args:
            present: the names of the fields that are signed, in lower case, in the order in which
                they are hashed: fields of one name from the lowest in the header to the highest.
        """
        sealed = [name.lower().encode() for name in SEALED]
        sealed += sorted(_lower(SEALED_IF_PRESENT).intersection(present))
        names = [name + b":" for name in (*present, *sealed)]
        return fold([b"h=" + names[0], *names[1:-1], names[-1][:-1] + b";"])


@dataclass(frozen=True, eq=False)
class Signer:
    """Writes signatures of one key for one domain.

    Attributes:
        domain, selector: where receivers look up the public key: `<selector>._domainkey.<domain>`.
        key: the private key.
        header, body: the canonicalization of each.
        identity: the tag `i=`, or None.
        expire: how many seconds a signature is valid; None: for ever.
    """

    domain: str
    selector: str
    key: PrivateKey
    header: Canonicalization = Canonicalization.RELAXED
    body: Canonicalization = Canonicalization.RELAXED
    identity: str | None = None
    expire: int | None = None
    _start: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tags = [
            "v=1;",
            f"a={self.key.algorithm};",
            f"c={self.header}/{self.body};",
            f"d={self.domain};",
            f"s={self.selector};",
        ]
        if self.identity is not None:
            tags.append(f"i={self.identity};")
        start = fold([tag.encode() for tag in tags], b" ", used=len("DKIM-Signature: "))
        object.__setattr__(self, "_start", start + _FOLD)

    def sign(self, header: bytes, header_list: bytes, body_hash: bytes, now: int) -> bytes:
        """The value of a DKIM-Signature field, folded.

        Args:
            header: the canonical form of the fields that `header_list` names.
            header_list: the tag `h=`, from `Coverage.header_list`.
            body_hash: the digest of the canonical body.
            now: the time of the signature, in seconds since the epoch.
        """
        times = b"t=%d;" % now
        if self.expire is not None:
            times += b" x=%d;" % (now + self.expire)
        bh = b"bh=" + b2a_base64(body_hash, newline=False) + b";"
        unsigned = self._start + _FOLD.join((times, header_list, bh, b"b="))
        if self.header is Canonicalization.RELAXED:
            # Written with single spaces, so that only its folds have to be undone.
            own = b"dkim-signature:" + unsigned.replace(_FOLD, b" ")
        else:
            own = b"DKIM-Signature: " + unsigned
        signature = b2a_base64(self.key.sign(header + own), newline=False)
        return unsigned + _FOLD.join(
            [signature[at : at + 72] for at in range(0, len(signature), 72)]
        )


def fold(words: Iterable[bytes], space: bytes = b"", used: int = 1) -> bytes:
    """Joins words to lines of at most 76 octets, a longer word on a line of its own.

    Args:
        words: what no line break may divide.
        space: what stands between two words on a line.
        used: how many octets of the first line are taken.
    """
    lines: list[list[bytes]] = [[]]
    for word in words:
        if lines[-1] and used + len(space) + len(word) > _WIDTH:
            lines.append([])
            used = 1
        used += len(word) + (len(space) if lines[-1] else 0)
        lines[-1].append(word)
    return _FOLD.join([space.join(line) for line in lines])


def _lower(names: Iterable[str]) -> frozenset[bytes]:
    return frozenset(name.lower().encode("ascii") for name in names)
