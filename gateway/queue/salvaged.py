"""What was found in a damaged shard, and what can be done with it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gateway.spool import queue_id
from gateway.spool.damaged_shard import DamagedShard, FoundDelivery, FoundMessage, Key

SHARD = re.compile(r"([0-9]{4})\.db")
"""The name of a shard's file."""


@dataclass(frozen=True, slots=True)
class Apart:
    """A message that cannot be put back, or not to all of its recipients.

    Attributes:
        id: its queue id; sender: None if that is not known.
        problem: why.
        recipients: those who do not get it.
        damaged: what is left of recipients whose checksum does not fit.
        file: where its content is, or what is left of it; None if there is nothing.
    """

    id: str
    problem: str
    sender: str | None
    recipients: list[str]
    damaged: list[str]
    file: str | None = None


@dataclass(slots=True)
class Salvage:
    """A damaged shard, and what comes of it.

    Attributes:
        path: the file; reason: what SQLite says to it, or nothing if nobody asked SQLite.
        number: of the shard; None for a file that is not one of the spool.
        messages, recipients: how many can be put back, or have been.
        octets: of those messages.
        known: recipients that are in the queue already.
        apart: what cannot be put back.
        lost_pages: pages of the file that are destroyed, missing, or cannot be read.
        lost_rows: places in the others where there is no row that makes sense.
        renamed: how the files are called now.
        report: the file that says what could not be put back; '' if there is none.
    """

    path: Path
    reason: str
    number: int | None
    found: DamagedShard
    messages: int = 0
    recipients: int = 0
    octets: int = 0
    known: int = 0
    apart: list[Apart] = field(default_factory=list)
    lost_pages: int = 0
    lost_rows: int = 0
    renamed: list[str] = field(default_factory=list)
    report: str = ""

    @property
    def name(self) -> str:
        """What people call it."""
        match = SHARD.match(self.path.name)
        return self.path.name if match is None else f"shard {match[1]}"

    @property
    def is_complete(self) -> bool:
        """Whether nothing is known to be missing."""
        return not (self.apart or self.lost_pages or self.lost_rows)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "shard": self.number,
            "file": str(self.path),
            "error": self.reason,
            "messages": self.messages,
            "recipients": self.recipients,
            "known": self.known,
            "apart": [asdict(one) for one in self.apart],
            "lost_pages": self.lost_pages,
            "lost_rows": self.lost_rows,
            "renamed": self.renamed,
            "report": self.report,
        }

    def forget(self) -> None:
        """Counts anew what was found."""
        self.messages = self.recipients = self.octets = self.known = 0
        self.apart.clear()

    def judge(
        self, found: FoundMessage, known: set[Key]
    ) -> tuple[list[FoundDelivery], Apart | None]:
        """Counts a message.

        Args:
            found: the message.
            known: recipients that are in the queue. Those that it can be put back to are from then
                on.

        Returns:
            The recipients that it can be put back to, and what cannot be put back of it.
        """
        new = [row for row in found.deliveries if (found.id, row.item.number) not in known]
        self.known += len(found.deliveries) - len(new)
        is_sound = found.envelope is not None and found.content is not None
        back = new if is_sound else []
        if back:
            known.update((found.id, row.item.number) for row in back)
            self.messages += 1
            self.recipients += len(back)
            self.octets += len(found.content or b"")
        problem = _problem(found)
        # What is in the queue already is whole there.
        if problem is None or (found.deliveries and not new and not found.damaged):
            return back, None
        apart = Apart(
            queue_id.to_text(found.id),
            problem,
            None if found.envelope is None else found.envelope.sender,
            [] if is_sound else [row.item.recipient.address for row in new],
            list(found.damaged),
        )
        self.apart.append(apart)
        return back, apart


def _problem(found: FoundMessage) -> str | None:
    """Why a message cannot be put back to all of its recipients; None if it can."""
    if not found.is_there:
        return "only the recipients are there"
    if found.content is None:
        return "the content is damaged"
    if found.envelope is None:
        return "the envelope is damaged"
    if found.damaged:
        return "some recipients are damaged"
    return None if found.deliveries else "the recipients are not there"
