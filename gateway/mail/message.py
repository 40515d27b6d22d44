"""A message on its way through the gateway: envelope, header and body. Pure.

What no plugin changes keeps its bytes. Copies share what neither of them changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.mail.address import check, domain_of
from gateway.mail.body import Body
from gateway.mail.body import State as BodyState
from gateway.mail.headers import Headers, MessageSealedError, split
from gateway.mail.headers import State as HeadersState
from gateway.mail.text_part import TextPart, TextPartError

__all__ = [
    "Checkpoint",
    "Client",
    "Message",
    "MessageSealedError",
    "Recipient",
    "TextPart",
    "TextPartError",
]


@dataclass(slots=True)
class Client:
    """Who gave the message to the gateway.

    Attributes:
        address: the IP address; port: its port.
        listener: the address of ours that was connected to.
        helo: what the client called itself; esmtp: whether it did so with EHLO.
        user: the identity that it logged in as, None without a login.
        tls: the protocol and cipher of the connection, None if it is not encrypted.
        notes: what plugins want to remember about this connection.
    """

    address: str
    port: int = 0
    listener: str = ""
    helo: str = ""
    esmtp: bool = False
    user: str | None = None
    tls: str | None = None
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Recipient:
    """One address that the message goes to.

    Attributes:
        address: without angle brackets.
        notify: when the sender wants a report, as RCPT's NOTIFY said (RFC 3461 4.1): `NEVER`, or
            any of `SUCCESS`, `FAILURE`, `DELAY`; None if it said nothing.
        orcpt: the original recipient, as RCPT's ORCPT said it (RFC 3461 4.2), still in xtext.
        notes: what plugins want to remember about this recipient; reports and events carry them.
        message: the message that it belongs to, up to the queue; None from there on.
        return_path: what stands in MAIL for this recipient instead of the message's sender, so that
            a bounce tells whom it is about; None: the sender. Reports that the gateway writes
            itself go to the sender.
    """

    address: str
    notify: frozenset[str] | None = None
    orcpt: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    message: Message | None = field(default=None, repr=False)
    return_path: str | None = None

    @property
    def domain(self) -> str:
        """The domain in lower case and A-labels; '' if the address has none."""
        return domain_of(self.address)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A message's state at one moment, for `Message.restore`."""

    sender: str
    stream: str
    notes: dict[str, str]
    recipients: tuple[tuple[Recipient, str, dict[str, str], str | None], ...]
    headers: HeadersState
    separator: bytes
    body: Body
    edits: BodyState


class Message:
    """A message: what MAIL and RCPT said, and header and body.

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
    """

    def __init__(self, id: str, sender: str, client: Client, stream: str = "default") -> None:  # noqa: A002 - the word that everyone uses
        self.id = id
        self.client = client
        self.recipients: list[Recipient] = []
        self.notes: dict[str, str] = {}
        self.smtputf8 = False
        self.ret: str | None = None
        self.envid: str | None = None
        self.require_tls = False
        self.priority: int | None = None
        self.release = 0.0
        self.headers = Headers()
        self._sender = check(sender)
        self._stream = stream
        self._separator = b"\r\n"
        self._body = Body(b"")
        self._sealed = False
        self._whole: Message | None = None
        # Header and body that were joined last, and what that gave.
        self._joined: tuple[bytes, Body, bytes] | None = None

    @property
    def sender(self) -> str:
        """The envelope sender, '' for the null path.

        Raises (on setting):
            ValueError: it contains a control character.
            MessageSealedError: the message is sealed.
        """
        return self._sender

    @sender.setter
    def sender(self, sender: str) -> None:
        self._check_open()
        self._sender = check(sender)

    @property
    def whole(self) -> Message:
        """The message that this is a copy of, with all recipients that it came for; or itself.

        What is needed for all of them can be fetched at once when the first copy asks for it.
        """
        return self._whole or self

    @property
    def stream(self) -> str:
        """The stream of `gateway.yaml` that the message belongs to.

        Raises (on setting):
            MessageSealedError: the message is sealed.
        """
        return self._stream

    @stream.setter
    def stream(self, stream: str) -> None:
        self._check_open()
        self._stream = stream

    @property
    def content(self) -> bytes:
        """Header, blank line and body, as the next hop gets them; lines end in CRLF.

        Setting it replaces all of it.

        Raises (on setting):
            ValueError: there is a bare CR, a bare LF or a NUL in it, which SMTP cannot carry.
            MessageSealedError: the message is sealed.
        """
        header, body = self.headers.raw, self._body
        joined = self._joined
        if joined is not None and joined[0] is header and joined[1] is body and not body.edited:
            return joined[2]
        octets = body.octets
        content = b"".join((header, self._blank_line(header, octets), octets))
        if not body.edited:
            self._joined = header, body, content
        return content

    @content.setter
    def content(self, content: bytes) -> None:
        _check_lines(content)
        self.receive(content)

    def receive(self, content: bytes) -> None:
        """Sets `content` that is known to have no bare CR, bare LF or NUL, as SMTP was obeyed.

        Raises:
            MessageSealedError: the message is sealed.
        """
        self._check_open()
        header, self._separator, _ = split(content)
        self.headers.restore((header, None))
        protected = "" if self._separator else "no blank line separates it from the header"
        self._replace_body(Body(content, len(header) + len(self._separator), protected))
        self._joined = header, self._body, content

    def _blank_line(self, header: bytes, octets: bytes) -> bytes:
        # A message that came without a blank line goes without one, unless the first line of its
        # body could be read as going on with a field that was added.
        if not self._separator and header and octets[:1] in (b" ", b"\t"):
            return b"\r\n"
        return self._separator

    @property
    def body(self) -> bytes:
        """What comes after the blank line. Setting it replaces it, text parts and all.

        Raises (on setting):
            ValueError: there is a bare CR, a bare LF or a NUL in it, which SMTP cannot carry.
            MessageSealedError: the message is sealed.
        """
        return self._body.octets

    @body.setter
    def body(self, octets: bytes) -> None:
        self._check_open()
        _check_lines(octets)
        self._separator = b"\r\n"
        self._replace_body(Body(octets))

    def _replace_body(self, body: Body) -> None:
        self._body.replaced = True
        self._body = body
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
            ValueError: the address contains a control character.
            MessageSealedError: the message is sealed.
        """
        self._check_open()
        recipient = Recipient(check(address), notify, orcpt, dict(notes or {}), self)
        self.recipients.append(recipient)
        return recipient

    def remove_recipient(self, recipient: Recipient) -> None:
        """Takes a recipient out: this message does not go to it.

        Raises:
            ValueError: it is not one of this message's.
            MessageSealedError: the message is sealed.
        """
        self._check_open()
        self.recipients.remove(recipient)

    def copy(self, recipients: Sequence[Recipient] | None = None) -> Message:
        """An independent copy for some of the recipients, or for all.

        Header fields and body are shared until one of the two changes them. The copy has
        recipients and notes of its own, and is sealed if this is.
        """
        new = Message(self.id, self._sender, self.client, self._stream)
        new._whole = self._whole or self
        new.notes = dict(self.notes)
        new.smtputf8, new.ret, new.envid = self.smtputf8, self.ret, self.envid
        new.require_tls, new.priority, new.release = self.require_tls, self.priority, self.release
        new.headers = self.headers.copy()
        new._separator = self._separator
        new._body = self._body.copy()
        new._sealed = new._body.sealed = self._sealed
        for old in self.recipients if recipients is None else recipients:
            one = Recipient(
                old.address, old.notify, old.orcpt, dict(old.notes), new, old.return_path
            )
            new.recipients.append(one)
        return new

    def equals(self, other: Message) -> bool:
        """Whether all but the recipients is the same: sender, stream, notes, header and body."""
        return (
            self._sender == other._sender
            and self._stream == other._stream
            and self.notes == other.notes
            and self._separator == other._separator
            and self.headers.raw == other.headers.raw
            and (self._body.shares(other._body) or self._body.octets == other._body.octets)
        )

    def take_recipients(self, other: Message) -> None:
        """Takes the recipients of another message, which is not to be used any more."""
        for recipient in other.recipients:
            recipient.message = self
        self.recipients += other.recipients

    def seal(self) -> None:
        """From now on only `headers.prepend` works; other changes raise MessageSealedError."""
        self._sealed = self._body.sealed = True
        self.headers.seal()

    def checkpoint(self) -> Checkpoint:
        """The state that `restore` goes back to; takes a microsecond, nothing is copied."""
        body = self._body
        return Checkpoint(
            self._sender,
            self._stream,
            self.notes.copy(),
            tuple(
                [(one, one.address, one.notes.copy(), one.return_path) for one in self.recipients]
            ),
            self.headers.state(),
            self._separator,
            body,
            body.state(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes back to a checkpoint of this message, sealed or not."""
        self._sender = checkpoint.sender
        self._stream = checkpoint.stream
        self.notes = checkpoint.notes.copy()
        for recipient, address, notes, return_path in checkpoint.recipients:
            recipient.address, recipient.notes = address, notes.copy()
            recipient.return_path = return_path
        self.recipients = [entry[0] for entry in checkpoint.recipients]
        self.headers.restore(checkpoint.headers)
        self._separator = checkpoint.separator
        if checkpoint.body is not self._body:
            self._replace_body(checkpoint.body)
        self._body.restore(checkpoint.edits)

    def _check_open(self) -> None:
        if self._sealed:
            raise MessageSealedError("the message is sealed: only headers.prepend is allowed")

    def __repr__(self) -> str:
        return f"<Message {self.id} from {self._sender!r} to {len(self.recipients)}>"


_TEXT = ("text/plain", "text/html")


def _check_lines(octets: bytes) -> None:
    ends = octets.count(b"\r\n")
    if octets.count(b"\n") != ends or octets.count(b"\r") != ends:
        raise ValueError("a line ends in a bare CR or LF; mail has CRLF")
    if b"\0" in octets:
        raise ValueError("mail cannot carry a NUL octet")
