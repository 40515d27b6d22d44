"""SMTP replies: cutting them out of a byte stream, and reading them (RFC 5321 4.2). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_OCTETS = 65536
MAX_LINES = 512
MAX_TEXT = 1024

_STATUS = re.compile(rb"([245])\.(\d{1,3})\.(\d{1,3})(?:[ \t]+|$)")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said.

    `code` is 200 to 599, or 0 where the reply makes no sense. `status` is the enhanced code
    (RFC 3463), made up from `code` where the server sent none; where it contradicts the code, the
    code is believed. `text` is what remains, on one line, without control characters.
    """

    code: int
    status: str
    text: str

    @classmethod
    def parse(cls, raw: bytes) -> Reply:
        """Reads one reply of one or more lines. Takes anything; what is no reply has code 0."""
        code = code_of(raw)
        if not code:
            return cls(0, "4.5.0", one_line(raw))
        if b"\n" not in raw:
            return cls.of(code, raw[4:].rstrip(b"\r"))
        lines = raw.rstrip(b"\r\n").split(b"\n")
        return cls.of(code, b"\n".join(line[4:].rstrip(b"\r") for line in lines))

    @classmethod
    def of(cls, code: int, text: bytes) -> Reply:
        """Makes a reply of a code and the text after it; lines are separated by LF."""
        if not 200 <= code <= 599:
            return cls(0, "4.5.0", one_line(text))
        kind = code // 100
        lines = text.split(b"\n")
        found = _STATUS.match(lines[0])
        if found is None:
            return cls(code, f"{kind}.0.0", one_line(text))
        status = f"{kind}.{int(found[2])}.{int(found[3])}"
        if len(lines) == 1:
            return cls(code, status, one_line(text[found.end() :]))
        # Servers repeat the enhanced code on each line; once is enough for a reader.
        code_length = found.end(3)
        for number, line in enumerate(lines):
            again = _STATUS.match(line)
            if again is not None and again.end(3) == code_length:
                lines[number] = line[again.end() :]
        return cls(code, status, one_line(b"\n".join(lines)))


def code_of(raw: bytes) -> int:
    """The code of a reply, 200 to 599; 0 if it is none. With several lines the last one counts."""
    if b"\n" in raw:
        raw = raw.rstrip(b"\r\n").rpartition(b"\n")[2]
    # A code alone is a reply too (RFC 5321 4.2).
    if raw[:3].isdigit() and raw[3:4] in b" \t\r":
        code = int(raw[:3])
        if 200 <= code <= 599:
            return code
    return 0


def one_line(text: bytes) -> str:
    """The text on one line: control characters and what is not UTF-8 are shown as escapes."""
    decoded = text.decode("utf-8", "backslashreplace").strip()
    decoded = decoded.replace("\r\n", " ").replace("\n", " ")
    if not decoded.isprintable():
        decoded = _CONTROL.sub(_escape, decoded)
    return decoded if len(decoded) <= MAX_TEXT else decoded[: MAX_TEXT - 1] + "…"


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


class ReplyReader:
    """Cuts a stream of bytes into replies, however the network cut it into pieces.

    `too_long` turns true at a reply of more than 64 KB or 512 lines: the stream is of no more use.
    """

    __slots__ = ("_lines", "_octets", "_partial", "too_long")

    def __init__(self) -> None:
        self.too_long = False
        self._partial = bytearray()
        self._lines: list[bytes] = []
        self._octets = 0

    @property
    def pending(self) -> bool:
        """Whether a part of a reply has come and waits for the rest."""
        return bool(self._partial or self._lines)

    def feed(self, data: bytes) -> list[bytes]:
        """Takes the next bytes and gives the replies that they complete, for `Reply.parse`."""
        if self.too_long:
            return []
        if self._partial:
            self._partial += data
            if b"\n" not in data:
                self.too_long = self._octets + len(self._partial) > MAX_OCTETS
                return []
            data = bytes(self._partial)
            self._partial.clear()
        lines = data.split(b"\n")
        partial = lines.pop()
        replies: list[bytes] = []
        for line in lines:
            octets = self._octets + len(line)
            if octets > MAX_OCTETS or len(self._lines) >= MAX_LINES:
                self.too_long = True
                return replies
            if line[3:4] == b"-" and line[:3].isdigit():
                self._lines.append(line)
                self._octets = octets
            elif self._lines:
                self._lines.append(line)
                replies.append(b"\n".join(self._lines))
                self._lines.clear()
                self._octets = 0
            else:
                replies.append(line)
        if partial:
            self._partial += partial
            self.too_long = self._octets + len(partial) > MAX_OCTETS
        return replies
