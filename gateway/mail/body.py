"""The body of one message: its bytes, and text parts whose edits it carries. Pure."""

from __future__ import annotations

from functools import lru_cache
from weakref import ref

from gateway.mail import transfer_encoding
from gateway.mail.encoded_text import EncodedText
from gateway.mail.headers import Headers, MessageSealedError
from gateway.mail.mime import Part, scan
from gateway.mail.text_part import State as PartState
from gateway.mail.text_part import TextPart, TextPartError

LARGEST_KNOWN = 64 << 10
KNOWN_STRUCTURES = 16
"""The largest body, in octets, whose structure is remembered, and how many are."""

_MIME_FIELDS = ("content-type", "content-transfer-encoding", "content-disposition")

Description = tuple[bytes, ...]
State = tuple[Description, tuple[PartState, ...]] | None


class Structure:
    """What one scan found in a body: shared by all copies that have the same body."""

    __slots__ = ("described_by", "texts")

    def __init__(self, octets: bytes, headers: Headers, protected: str) -> None:
        self.described_by = _description(headers)
        self.texts: list[tuple[Part, EncodedText]] = []
        root = scan(octets, headers.copy())
        root.protected = protected
        for part in root.walk():
            if part.content_type.startswith("text/") and not part.embedded:
                if part.is_attachment:
                    continue
                content = octets[part.start : part.end]
                text = EncodedText(content, part.transfer_encoding, part.charset)
                self.texts.append((part, text))


def _structure_of(octets: bytes, headers: Headers, protected: str) -> Structure:
    """The structure of a body. Mail to many often comes with the same body for each of them."""
    if len(octets) > LARGEST_KNOWN:
        return Structure(octets, headers, protected)
    return _known_structure(_Source(octets, headers, protected))


class _Source:
    """What a structure is found in. Bodies are told apart cheaply: by hash, size and ends."""

    __slots__ = ("_hash", "headers", "key", "octets")

    def __init__(self, octets: bytes, headers: Headers, protected: str) -> None:
        self.octets = octets
        self.headers = headers
        self.key = (_description(headers), protected)
        self._hash = hash((self.key, len(octets), octets[:64], octets[-64:]))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Source) and self.key == other.key and self.octets == other.octets


@lru_cache(maxsize=KNOWN_STRUCTURES)
def _known_structure(source: _Source) -> Structure:
    return Structure(source.octets, source.headers.copy(), source.key[1])


def _description(headers: Headers) -> Description:
    """The fields that say what the body is."""
    return tuple([field.raw for name in _MIME_FIELDS for field in headers.fields(name)])


class Body:
    """A body: the bytes that came, and the edits of its text parts.

    `content` may be a whole message; the body begins at `start` in it. `protected` says why a body
    that is one text must not be edited, '' if it may be.
    """

    __slots__ = (
        "__weakref__",
        "_content",
        "_described_by",
        "_flat",
        "_octets",
        "_parts",
        "_protected",
        "_seen",
        "_shared",
        "_start",
        "edited",
        "replaced",
        "sealed",
    )

    def __init__(self, content: bytes, start: int = 0, protected: str = "") -> None:
        self._content = content
        self._protected = protected
        self._start = start
        self._octets: bytes | None = None
        self._shared: list[Structure] = []  # filled by whichever copy needs it first
        self._parts: list[TextPart] = []
        self._described_by: Description | None = None
        self._seen: bytes | None = None  # the header that was last found to describe it
        self._flat: Body | None = None
        self.edited = False
        self.replaced = False
        self.sealed = False

    @property
    def octets(self) -> bytes:
        """The bytes, edits applied."""
        if self.edited:
            return self._flattened().octets
        if self._octets is None:
            self._octets = self._content[self._start :]
        return self._octets

    def _flattened(self) -> Body:
        """A body of the edited bytes; made once for each edit, so that copies can share it."""
        if self._flat is None:
            original = self._content[self._start :] if self._octets is None else self._octets
            splices = [part.splice() for part in self._parts if part.changed]
            self._flat = Body(transfer_encoding.apply(original, splices), 0, self._protected)
        return self._flat

    def described_anew(self) -> Body:
        """The same bytes, to be scanned again; this one is not to be used any more."""
        self.replaced = True
        new = Body(self.octets, 0, self._protected)
        new.sealed = self.sealed
        return new

    def text_parts(self, headers: Headers) -> list[TextPart] | None:
        """The text parts, always the same objects.

        None if the message's `headers` no longer describe the body that was scanned.
        """
        if self._described_by is None:
            if not self._shared:
                self._shared.append(_structure_of(self.octets, headers, self._protected))
            structure = self._shared[0]
            self._described_by = structure.described_by
            self._parts = [self._text_part(*found, headers) for found in structure.texts]
            self._seen = headers.raw
        if headers.raw is not self._seen:
            if self._described_by != _description(headers):
                return None
            self._seen = headers.raw
        return self._parts

    def _text_part(self, part: Part, text: EncodedText, headers: Headers) -> TextPart:
        # Not held by its parts: in a circle both would stay until the garbage collector comes.
        owner = ref(self)

        def check() -> None:
            body = owner()
            if body is not None and body.sealed:
                raise MessageSealedError("the message is sealed: its text can no longer be changed")
            if body is None or body.replaced:
                raise TextPartError("the body that this part belongs to was replaced")

        def changed() -> None:
            body = owner()
            if body is not None:
                body.edited, body._flat = True, None
                if part.depth == 0:
                    body._described_by = _description(headers)

        own = headers if part.depth == 0 else part.headers.copy()
        return TextPart(part, text, own, check=check, changed=changed)

    def copy(self) -> Body:
        """An independent copy; bytes and structure are shared."""
        if self.edited:
            return self._flattened().copy()
        new = Body(self._content, self._start, self._protected)
        new._octets, new._shared = self._octets, self._shared
        return new

    def shares(self, other: Body) -> bool:
        """Whether both are the same bytes, for certain and without looking at them."""
        same = self._content is other._content and self._start == other._start
        return same and not (self.edited or other.edited)

    def state(self) -> State:
        """What `restore` needs to undo later edits."""
        if not self.edited:
            return None
        return self._described_by or (), tuple([part.state() for part in self._parts])

    def restore(self, state: State) -> None:
        """Undoes all edits since `state()`."""
        self.replaced = False
        if not self.edited:
            return
        self.edited, self._flat = state is not None, None
        if state is None:
            self._described_by = self._shared[0].described_by
            for part in self._parts:
                part.reset()
        else:
            self._described_by = state[0]
            for part, before in zip(self._parts, state[1], strict=True):
                part.restore(before)
