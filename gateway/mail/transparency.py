"""The dots of SMTP (RFC 5321 4.5.2), put in and taken out block by block. Pure."""

from __future__ import annotations

from gateway.mail.large_content import Octets


class Dots:
    """Changes what is between line ends and what follows them.

    What is fed to it begins with the CRLF of the line before the content, which stays off. Blocks
    may end anywhere.

    Args:
        found: what stands after a line end.
        instead: what is to stand there.
    """

    def __init__(self, found: bytes, instead: bytes) -> None:
        self._found = b"\r\n" + found
        self._instead = b"\r\n" + instead
        self._held = b""
        self._has_begun = False

    @classmethod
    def added(cls) -> Dots:
        """For a message that is sent."""
        return cls(b".", b"..")

    @classmethod
    def removed(cls) -> Dots:
        """For a message that comes."""
        return cls(b".", b"")

    def feed(self, block: Octets) -> bytes:
        """What comes of a block, without a line end that it ends with: that has to wait."""
        octets = b"".join((self._held, block))
        if octets.endswith(b"\r\n"):
            octets, self._held = octets[:-2], b"\r\n"
        elif octets.endswith(b"\r"):
            octets, self._held = octets[:-1], b"\r"
        else:
            self._held = b""
        # Looking for two octets is faster than for three.
        if b"\n." in octets:
            octets = octets.replace(self._found, self._instead)
        if octets and not self._has_begun:
            self._has_begun = True
            return octets[2:]
        return octets

    def end(self) -> bytes:
        """The line end that has waited."""
        return self._held if self._has_begun else self._held[2:]
