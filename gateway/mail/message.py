"""A message on its way through the gateway: envelope, header and body. Pure.

What no plugin changes keeps its bytes. Copies share what neither of them changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from gateway.mail.address import check, is_path
from gateway.mail.body import Body, large_body, protected_for
from gateway.mail.checkpoint import Checkpoint
from gateway.mail.client import Client
from gateway.mail.guard import SEALED, ForbiddenChangeError, Guard, MessageSealedError
from gateway.mail.headers import Headers, split
from gateway.mail.large_content import LARGE, Content, Pieces
from gateway.mail.line_end import bare_line_end
from gateway.mail.notes import MessageNotes
from gateway.mail.recipient import Recipient, Recipients
from gateway.mail.text_part import TextPart, TextPartError

__all__ = [
    "Checkpoint",
    "Client",
    "ForbiddenChangeError",
    "Message",
    "MessageSealedError",
    "Recipient",
    "TextPart",
    "TextPartError",
]

_set = object.__setattr__


class _Unguarded:
    """The attributes of a message, while it is made: nothing is asked and nothing checked."""

    __slots__ = (
        "__weakref__",
        "_body",
        "_joined",
        "_sender",
        "_separator",
        "_stream",
        "_whole",
        "client",
        "envid",
        "guard",
        "headers",
        "id",
        "notes",
        "priority",
        "recipients",
        "release",
        "require_tls",
        "ret",
        "smtputf8",
    )

    id: str
    client: Client
    recipients: list[Recipient]
    notes: dict[str, str]
    smtputf8: bool
    ret: str | None
    envid: str | None
    require_tls: bool
    priority: int | None
    release: float
    headers: Headers
    guard: Guard
    _sender: str
    _stream: str
    _separator: bytes
    _body: Body
    _whole: Message | None
    # Header and body that were joined last, and what that gave.
    _joined: tuple[bytes, Body, bytes] | None


class Message(_Unguarded):
    """A message: what MAIL and RCPT said, and header and body.

    What is written is checked: by what the stage allows, and whether mail can go out with it.

    Attributes:
        id: the queue id that the client is told.
        client: who gave it to the gateway.
        recipients: whom it goes to, in order; change it by `add_recipient`, `remove_recipient`.
        notes: what plugins want to remember; reports and events carry them.
        smtputf8: whether MAIL said SMTPUTF8 (RFC 6531).
        ret: `FULL` or `HDRS`, as MAIL's RET said (RFC 3461 4.3); None if it said nothing.
        envid: MAIL's ENVID (RFC 3461 4.4), still in xtext; None without one.
        require_tls: whether MAIL said REQUIRETLS (RFC 8689).
        priority: MAIL's MT-PRIORITY (RFC 6710), from -9 to 9; None without one.
        release: not to be delivered before then, in seconds since the epoch, as MAIL's HOLDFOR or
            HOLDUNTIL (RFC 4865) or a header field asked for; 0: at once.
        headers: the header.
        guard: says what may be changed now.
    """

    __slots__ = ()

    def __new__(
        cls,
        id: str,  # noqa: A002 - the word that everyone uses
        sender: str,
        client: Client,
        stream: str = "default",
    ) -> Self:
        """A message without header, body and recipients."""
        guard = Guard()
        new = _Unguarded()
        new.id = id
        new.client = client
        new.recipients = Recipients(guard)
        new.notes = MessageNotes(None, guard)
        new.smtputf8 = False
        new.ret = None
        new.envid = None
        new.require_tls = False
        new.priority = None
        new.release = 0.0
        new.headers = Headers(b"", guard)
        new.guard = guard
        new._sender = check(sender)
        new._stream = stream
        new._separator = b"\r\n"
        new._body = Body(b"")
        new._body.guard = guard
        new._whole = None
        new._joined = None
        # As a class that checks, it would take three times as long to be made.
        new.__class__ = cls
        return new  # type: ignore[return-value]

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self.guard.check(f"message.{name}")
            if name == "recipients":
                value = Recipients.of(value, self.guard)
            elif name == "notes":
                MessageNotes.check(value)
                value = MessageNotes(value, self.guard)
            elif name == "release" and not 0 <= value < _END_OF_TIME:
                raise ValueError(f"{value!r} is no time in seconds since the epoch")
            elif name == "headers":
                value = value.copy(self.guard)
        _set(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"message.{name} cannot be deleted")

    @property
    def sender(self) -> str:
        """The envelope sender, '' for the null path.

        Raises (on setting):
            ValueError: no command could carry it.
            ForbiddenChangeError: the stage does not allow it.
        """
        return self._sender

    @sender.setter
    def sender(self, sender: str) -> None:
        if not is_path(check(sender)):
            raise ValueError(f"{sender!r} is no address that mail can come from")
        self._sender = sender

    @property
    def whole(self) -> Message:
        """The message that this is a copy of, with all recipients that it came for; or itself.

        What is needed for all of them can be fetched at once when the first copy asks for it.
        """
        return self if self._whole is None else self._whole

    @property
    def stream(self) -> str:
        """The stream of `gateway.yaml` that the message belongs to.

        Raises (on setting):
            ValueError: it is no name.
            ForbiddenChangeError: the stage does not allow it.
        """
        return self._stream

    @stream.setter
    def stream(self, stream: str) -> None:
        if type(stream) is not str or not stream.isprintable():
            raise ValueError(f"{stream!r} is no name of a stream")
        _set(self, "_stream", stream)

    @property
    def content(self) -> bytes:
        """Header, blank line and body, as the next hop gets them; lines end in CRLF.

        Setting it replaces all of it.

        Raises (on setting):
            ValueError: there is a bare CR, a bare LF or a NUL in it, which SMTP cannot carry.
            ForbiddenChangeError: the stage does not allow it.
        """
        header, body = self.headers.raw, self._body
        joined = self._joined
        if joined is not None and joined[0] is header and joined[1] is body and not body.edited:
            return joined[2]
        blank_line = self._blank_line(header)
        if len(body) > LARGE:
            return b"".join((header, blank_line, body.view))
        content = b"".join((header, blank_line, body.octets))
        if not body.edited:
            _set(self, "_joined", (header, body, content))
        return content

    @content.setter
    def content(self, content: bytes) -> None:
        _check_lines(content)
        self.receive(content)

    def receive(self, content: bytes) -> None:
        """Sets `content` that is known to have no bare CR, bare LF or NUL, as SMTP was obeyed.

        Raises:
            ForbiddenChangeError: the stage does not allow it.
        """
        self.guard.check("message.content")
        header, separator, _ = split(content)
        self.headers.restore((header, None))
        body = Body(content, len(header) + len(separator), protected_for(separator))
        _set(self, "_separator", separator)
        self._replace_body(body)
        _set(self, "_joined", (header, body, content))

    def receive_large(self, trace: bytes, content: memoryview) -> bool:
        """As `receive`, for content below a trace field; it is not copied, and must not change.

        Returns False, and sets nothing, if its header is larger than 1 MiB.
        """
        self.guard.check("message.content")
        found = large_body(trace, content)
        if found is None:
            return False
        header, self._separator, body = found
        self.headers.restore((header, None))
        self._replace_body(body)
        return True

    @property
    def octets(self) -> Content:
        """As `content`, and in pieces if it is large: for the gateway itself."""
        if not self.is_large:
            return self.content
        header = self.headers.raw
        return Pieces(header, self._blank_line(header), self._body.view)

    @property
    def is_large(self) -> bool:
        """Whether the body has more than 1 MiB, so that it is not copied without need."""
        return len(self._body) > LARGE

    @property
    def size(self) -> int:
        """How many octets `content` has; nothing is copied to tell."""
        header = self.headers.raw
        return len(header) + len(self._blank_line(header)) + len(self._body)

    def _blank_line(self, header: bytes) -> bytes:
        # A message that came without a blank line goes without one, unless the first line of its
        # body could be read as going on with a field that was added.
        if not self._separator and header and bytes(self._body.view[:1]) in (b" ", b"\t"):
            return b"\r\n"
        return self._separator

    @property
    def body(self) -> bytes:
        """What comes after the blank line. Setting it replaces it, text parts and all.

        Raises (on setting):
            ValueError: there is a bare CR, a bare LF or a NUL in it, which SMTP cannot carry.
            ForbiddenChangeError: the stage does not allow it.
        """
        return self._body.octets

    @body.setter
    def body(self, octets: bytes) -> None:
        _check_lines(octets)
        self._separator = b"\r\n"
        self._replace_body(Body(octets))

    @property
    def body_view(self) -> memoryview:
        """The body without a copy, to be read in blocks: `view[start : start + 65536]`.

        A large body takes memory as long as somebody keeps a view of it or of a part.
        """
        return self._body.view

    def _replace_body(self, body: Body) -> None:
        self._body.replaced = True
        _set(self, "_body", body)
        body.guard = self.guard
        body.replaced = False

    def text_parts(self, content_type: str | None = None) -> list[TextPart]:
        """The parts of text that readers see, in order: `text/plain` and `text/html`, no files.

        `content_type` asks for one type only, which may be another type of text. Parts inside of
        an attached message are not among them. Parts of what is signed or encrypted are, but are
        not `editable`.
        """
        parts = self._body.text_parts(self.headers)
        if parts is None:  # a plugin described the body anew
            self._body = self._body.described_anew()
            parts = self._body.text_parts(self.headers) or []
        wanted = _TEXT if content_type is None else (content_type.lower(),)
        return [part for part in parts if part.content_type in wanted]

    def add_recipient(
        self,
        address: str,
        notify: frozenset[str] | None = None,
        orcpt: str | None = None,
        notes: dict[str, str] | None = None,
    ) -> Recipient:
        """Adds a recipient at the end and returns it.

        Raises:
            ValueError: mail cannot go to that address, or something is not as in `Recipient`.
            ForbiddenChangeError: the stage does not allow it.
        """
        self.guard.check("message.recipients")
        recipient = Recipient(address, notify, orcpt, notes, self)
        recipient.verify()
        list.append(self.recipients, recipient)
        return recipient

    def remove_recipient(self, recipient: Recipient) -> None:
        """Takes a recipient out: this message does not go to it.

        Raises:
            ValueError: it is not one of this message's.
            ForbiddenChangeError: the stage does not allow it.
        """
        self.guard.check("message.recipients")
        list.remove(self.recipients, recipient)

    def copy(self, recipients: Sequence[Recipient] | None = None) -> Message:
        """An independent copy for some of the recipients, or for all.

        Header fields and body are shared until one of the two changes them. The copy has
        recipients, notes and a guard of its own; what may be changed in it is what may be in this.
        """
        guard = self.guard.copy()
        new = _Unguarded()
        new.id, new.client = self.id, self.client
        new._sender, new._stream = self._sender, self._stream
        new.notes = MessageNotes(self.notes, guard)
        new.smtputf8, new.ret, new.envid = self.smtputf8, self.ret, self.envid
        new.require_tls, new.priority, new.release = self.require_tls, self.priority, self.release
        new.headers = self.headers.copy(guard)
        new._separator = self._separator
        new._body = self._body.copy()
        new.guard = new._body.guard = guard
        new._whole, new._joined = self.whole, None
        new.recipients = Recipients(guard)
        new.__class__ = Message
        copy: Message = new  # type: ignore[assignment]
        for old in self.recipients if recipients is None else recipients:
            one = Recipient(old.address, old.notify, old.orcpt, old.notes, copy, old.return_path)
            list.append(copy.recipients, one)
        return copy

    def equals(self, other: Message) -> bool:
        """Whether all but the recipients is the same: sender, stream, notes, header and body."""
        return (
            self._sender == other._sender
            and self._stream == other._stream
            and self.notes == other.notes
            and self._separator == other._separator
            and self.headers.raw == other.headers.raw
            and self._body.equals(other._body)
        )

    def take_recipients(self, other: Message) -> None:
        """Takes the recipients of another message, which is not to be used any more."""
        for recipient in other.recipients:
            recipient.join(self.guard, self)
        list.extend(self.recipients, other.recipients)

    def take(self, recipient: Recipient) -> None:
        """Takes a recipient that was made for this message: RCPT has been answered with yes."""
        list.append(self.recipients, recipient)

    def seal(self) -> None:
        """From now on only `headers.prepend` works; other changes raise MessageSealedError."""
        self.guard.rights, self.guard.plugin = SEALED, ""

    def checkpoint(self) -> Checkpoint:
        """The state that `restore` goes back to; takes a microsecond, nothing is copied."""
        body = self._body
        return Checkpoint(
            self._sender,
            self._stream,
            self.release,
            self.notes.copy(),
            tuple(
                [  # as `Recipient.checkpoint`, and quicker
                    (one, (one.address, one.notify, one.orcpt, one.notes.copy(), one.return_path))
                    for one in self.recipients
                ]
            ),
            self.headers.state(),
            self._separator,
            body,
            body.state(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes back to a checkpoint of this message, sealed or not."""
        _set(self, "_sender", checkpoint.sender)
        _set(self, "_stream", checkpoint.stream)
        _set(self, "release", checkpoint.release)
        _set(self, "notes", MessageNotes(checkpoint.notes, self.guard))
        recipients = Recipients(self.guard)
        for recipient, state in checkpoint.recipients:
            recipient.restore(state)
            list.append(recipients, recipient)
        _set(self, "recipients", recipients)
        self.headers.restore(checkpoint.headers)
        _set(self, "_separator", checkpoint.separator)
        if checkpoint.body is not self._body:
            self._replace_body(checkpoint.body)
        self._body.restore(checkpoint.edits)

    def __repr__(self) -> str:
        return f"<Message {self.id} from {self._sender!r} to {len(self.recipients)}>"


_END_OF_TIME = 1e11
_TEXT = ("text/plain", "text/html")


def _check_lines(octets: bytes) -> None:
    if bare_line_end(octets) is not None:
        raise ValueError("a line ends in a bare CR or LF; mail has CRLF")
    if b"\0" in octets:
        raise ValueError("mail cannot carry a NUL octet")
