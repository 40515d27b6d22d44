"""The content of one message on its way in."""

from __future__ import annotations

from gateway.mail.large_content import LARGE
from gateway.mail.transparency import Dots
from gateway.smtp.allowance import Allowance
from gateway.smtp.buffer import LEAST, Buffer
from gateway.smtp.content import LineCheck, unstuff

TOO_LARGE = "552 5.3.4 The message is too large"
NO_MEMORY = "452 4.3.1 Too many large messages at a time, please try again later"


class Arrival:
    """Takes a message block by block.

    What is large is put into a buffer, and looked at, as it comes; nothing of it is copied later.
    Once it is refused, what comes is dropped.

    Args:
        allowance: for large content.
        most: octets of the largest message.
        line_length: as in `content.flaw`.
        dots: whether it comes with transparency dots, and with the CRLF of the line before it.

    Attributes:
        size: octets that have come; after the end, those of the message.
        refusal: the reply, if the message cannot be taken; '' as long as it can.
    """

    def __init__(self, allowance: Allowance, *, most: int, line_length: int, dots: bool) -> None:
        self.refusal = ""
        self.size = -2 if dots else 0
        self._most = most
        self._dots = dots
        self._blocks: list[bytes] = []
        self._allowance = allowance
        self._line_length = line_length
        self._buffer: Buffer | None = None
        self._plain: Dots | None = None
        self._lines: LineCheck | None = None

    @property
    def flaw(self) -> str | None:
        """What `content.flaw` says of large content; None also for what is not large."""
        return None if self._lines is None else self._lines.flaw

    def expect(self, octets: int) -> bool:
        """Makes room for a message of a size that the client has declared; False if it has to wait.

        That it is too large is found out when it comes.
        """
        if octets > LARGE and self._buffer is None:
            buffer = Buffer(self._allowance, self._most)
            if not buffer.reserve(min(octets, self._most)):
                return False
            self._buffer = buffer
        return True

    def add(self, block: bytes) -> None:
        """Takes a block."""
        self.size += len(block)
        if self.refusal:
            return
        if self.size > self._most:
            self.refuse(TOO_LARGE)
        elif self.size <= LARGE:
            self._blocks.append(block)
        else:
            self._add(block)

    def _add(self, block: bytes) -> None:
        """Takes a block of what is large, or has just become so."""
        if self._lines is None:
            self._lines = LineCheck(self._line_length)
            self._plain = Dots.removed() if self._dots else None
            if not self.expect(LEAST):
                self.refuse(NO_MEMORY)
                return
        blocks, self._blocks = [*self._blocks, block], []
        for one in blocks:
            self._put(one if self._plain is None else self._plain.feed(one))

    def _put(self, octets: bytes) -> None:
        if self._buffer is None:
            return  # it was refused
        assert self._lines is not None
        self._lines.feed(octets)
        if not self._buffer.append(octets):
            self.refuse(NO_MEMORY)

    def refuse(self, reply: str) -> None:
        """Gives up what has come; what still comes is dropped."""
        self.refusal = reply
        self.close()

    def end(self) -> bytes | memoryview:
        """The message, a view if it is large; ask `refusal` before."""
        if self._lines is None:
            blocks = self._blocks
            octets = blocks[0] if len(blocks) == 1 else b"".join(blocks)
            octets = unstuff(octets) if self._dots else octets
            self.size = len(octets)
            return octets
        if self._plain is not None:
            self._put(self._plain.end())
        self._lines.end()
        assert self._buffer is not None
        content = self._buffer.end()
        self.size = len(content)
        return content

    def close(self) -> None:
        """Gives up all memory, once and for all."""
        self._blocks = []
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            buffer.close()
