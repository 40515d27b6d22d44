"""The MIME structure of a message (RFC 2045, 2046) as spans of its bytes. Pure.

The scanner reads a body once, never raises and never writes: what it cannot make sense of is part
of what surrounds it. Time and memory are bounded by the size of the body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import islice
from urllib.parse import unquote_to_bytes

from gateway.mail import charset
from gateway.mail.encoded_word import decode_value
from gateway.mail.headers import Headers

MAX_DEPTH = 100
"""Parts nested deeper stay unread inside their container."""
MAX_PARTS = 1_000
"""The last part that is counted holds all that follows, and is protected."""
MAX_PARAMETERS = 100
"""Parameters of one field past this number are not read."""

# A field name may begin with dashes; in a part's header such a line is a delimiter.
_PART_HEADER = re.compile(rb"(?:(?!--)[!-9;-~]++[ \t]*+:[^\r\n]*+\r\n(?:[ \t][^\r\n]*+\r\n)*)*")
_CONTENT_TYPE = re.compile(rb"\s*+([^\s;/\"]++)\s*+/\s*+([^\s;/\"]++)")
_PARAMETER = re.compile(
    rb";\s*+([^\s;=\"]++)\s*+=\s*+(?:\"((?:[^\"\\]|\\.)*)\"?|([^;\"]*+))", re.DOTALL
)
_TOKEN = re.compile(rb"[^\s(]*+")
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPE = re.compile(rb"=[0-9A-Fa-f]{2}")
_SECTION = re.compile(r"(.+?)\*(?:(\d{1,3})(\*)?)?")
_PROTECTED_TYPES = frozenset(
    (
        "multipart/signed",
        "multipart/encrypted",
        "application/pkcs7-mime",
        "application/x-pkcs7-mime",
    )
)
_SIGNED = "it is signed or encrypted"
_IDENTITY = frozenset(("7bit", "8bit", "binary"))
_LONGEST_BOUNDARY = 70  # as RFC 2046 5.1.1 has it
_LONGEST_KNOWN = 512  # octets of a header that is worth to be remembered


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a field as it is written.

    `start` and `end` are the value's place in the field's body, quotes not included.
    """

    name: str
    value: bytes
    start: int
    end: int


def parse_parameters(body: bytes) -> list[Parameter]:
    """The parameters of a Content-Type or Content-Disposition (RFC 2045 5.1), in order."""
    found = []
    for match in islice(_PARAMETER.finditer(body), MAX_PARAMETERS):
        name = match[1].decode("latin-1").lower()
        if match[2] is not None:
            value, (start, end) = _ESCAPED.sub(rb"\1", match[2]), match.span(2)
        else:
            # Names of files are written with spaces and without quotes too.
            value = match[3].strip() if name.endswith("name") else _TOKEN.match(match[3])[0]  # type: ignore[index]
            start = match.start(3)
            end = start + len(value)
        found.append(Parameter(name, value.replace(b"\r\n", b""), start, end))
    return found


def decode_parameters(parameters: list[Parameter]) -> dict[str, str]:
    """Names in lower case → values, with RFC 2231's sections and charsets and RFC 2047's words.

    Of a name that comes twice the first counts; RFC 2231's form wins over the plain one.
    """
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[bytes, bool]]] = {}
    for parameter in parameters:
        section = _SECTION.fullmatch(parameter.name) if "*" in parameter.name else None
        if section is None:
            plain.setdefault(parameter.name, decode_value(parameter.value))
        else:
            number = int(section[2] or 0)
            extended = section[2] is None or section[3] is not None
            sections.setdefault(section[1], {}).setdefault(number, (parameter.value, extended))
    for name, numbered in sections.items():
        octets, encoding, number = bytearray(), "", 0
        while number in numbered:
            value, extended = numbered[number]
            if extended and number == 0 and value.count(b"'") >= 2:
                label, _, value = value.split(b"'", 2)
                encoding = label.decode("latin-1")
            octets += unquote_to_bytes(value) if extended else value
            number += 1
        if number:
            plain[name] = charset.decode_lossy(bytes(octets), encoding or "utf-8")
    return plain


@dataclass(frozen=True, slots=True)
class _Description:
    """What the header of a part says of it; `content_type` is empty where it says none."""

    content_type: str
    params: Mapping[str, str]
    boundary: bytes | None
    transfer_encoding: str
    disposition: str | None
    filename: str | None


def _describe(headers: Headers) -> _Description:
    fields = headers.fields("content-type")
    body = fields[0].body if fields else b""
    match = _CONTENT_TYPE.match(body)
    parameters = parse_parameters(body)
    params = decode_parameters(parameters)
    boundary = params.get("boundary", "").encode("utf-8", "replace") or None
    for parameter in parameters:
        if parameter.name == "boundary":
            boundary = parameter.value.rstrip(b" \t") or None
            break
    words = (headers.get("content-transfer-encoding") or "").lower().split()
    fields = headers.fields("content-disposition")
    disposition, _, rest = fields[0].body.partition(b";") if fields else (b"", b"", b"")
    named = decode_parameters(parse_parameters(fields[0].body)) if rest else {}
    return _Description(
        f"{match[1].decode('latin-1')}/{match[2].decode('latin-1')}".lower() if match else "",
        params,
        boundary,
        words[0].strip('";') if words else "7bit",
        disposition.strip().decode("latin-1").lower() or None,
        named.get("filename") or params.get("name") or None,
    )


@lru_cache(maxsize=256)
def _described(raw: bytes) -> _Description:
    return _describe(Headers(raw))


@dataclass(eq=False)
class Part:
    """One part, as spans of the body that was scanned; the root is the message itself.

    Attributes:
        headers: the part's own, or for the root those of the message.
        header_start, header_end: the header's place; the root's is empty.
        start, end: the content's place, without the line end that belongs to a delimiter.
        depth: 0 for the root.
        default_type: what it is without a Content-Type.
        protected: why it must not be edited (it is signed, say); '' if it may be.
        embedded: inside of a message that this message carries.
        boundaries: of the multiparts that it is in; none of its lines may look like one.
        touches: the delimiter after it follows without a line end of its own.
    """

    headers: Headers = field(repr=False)
    header_start: int
    header_end: int
    start: int
    end: int
    depth: int
    default_type: str = "text/plain"
    protected: str = ""
    embedded: bool = False
    boundaries: tuple[bytes, ...] = ()
    touches: bool = False
    children: list[Part] = field(default_factory=list)

    @cached_property
    def boundary_texts(self) -> tuple[str, ...] | None:
        """The boundaries as text; None if one of them looks like an escape of an encoding."""
        if any(_ESCAPE.search(boundary) for boundary in self.boundaries):
            return None
        return tuple([boundary.decode("latin-1") for boundary in self.boundaries])

    @cached_property
    def _description(self) -> _Description:
        raw = self.headers.raw
        # Parts of one kind have the same header in most messages; a message's own is too long.
        return _described(raw) if len(raw) <= _LONGEST_KNOWN else _describe(self.headers)

    @property
    def content_type(self) -> str:
        """Such as `text/plain`, in lower case."""
        return self._description.content_type or self.default_type

    @property
    def params(self) -> Mapping[str, str]:
        """The parameters of Content-Type, names in lower case."""
        return self._description.params

    @property
    def charset(self) -> str | None:
        """The charset as it is named, in lower case."""
        name = self.params.get("charset", "").strip().lower()
        return name or None

    @property
    def boundary(self) -> bytes | None:
        """What delimits the parts of a multipart."""
        return self._description.boundary

    @property
    def transfer_encoding(self) -> str:
        """Such as `base64`, in lower case; `7bit` where none is named (RFC 2045 6.1)."""
        return self._description.transfer_encoding

    @property
    def disposition(self) -> str | None:
        """`inline`, `attachment` or None (RFC 2183)."""
        return self._description.disposition

    @property
    def filename(self) -> str | None:
        """The name of the file that it is, if it is one."""
        return self._description.filename

    @property
    def is_attachment(self) -> bool:
        """Whether a reader sees it as a file rather than as text of the message."""
        return self.disposition == "attachment" or self.filename is not None

    def walk(self) -> list[Part]:
        """This part and all inside it, in the order of the message."""
        found, waiting = [], [self]
        while waiting:
            part = waiting.pop()
            found.append(part)
            waiting.extend(reversed(part.children))
        return found


@dataclass(slots=True)
class _Open:
    """A part whose end has not been seen.

    `boundary` is what its delimiters say, if it has any; `shadowed` is the place of an outer part
    with the same boundary.
    """

    part: Part
    boundary: bytes | None = None
    shadowed: int | None = None


def scan(body: bytes, headers: Headers) -> Part:
    """Finds the parts of a message's body; `headers` are the message's."""
    root = Part(headers, 0, 0, 0, len(body), 0)
    _Scanner(body, root).run()
    return root


class _Scanner:
    """Walks over the lines that look like delimiters, with a stack of the parts that are open."""

    def __init__(self, body: bytes, root: Part) -> None:
        self.body = body
        self.stack: list[_Open] = []
        self.active: dict[bytes, int] = {}
        self.delimiter = b"\r\n--"  # what all delimiters now begin with
        self.count = 0
        self.open(root)

    def run(self) -> None:
        """Finds all delimiters."""
        body, active = self.body, self.active
        line = 0 if body.startswith(b"--") else body.find(self.delimiter) + 2
        while line != 1 and active:
            end = body.find(b"\r\n", line)
            if end < 0:
                end = len(body)
            found = body[line + 2 : end].rstrip(b" \t")
            index = active.get(found)
            if index is not None:
                self.close_inside(index, line)
                end = self.begin_part(index, min(end + 2, len(body))) - 2
            elif found.endswith(b"--") and (index := active.get(found[:-2])) is not None:
                self.close_inside(index, line)
                self.deactivate(self.stack[index])
            line = body.find(self.delimiter, max(end, line)) + 2

    def open(self, part: Part) -> None:
        """Puts a part on the stack, and the message that it is the container of."""
        while True:
            self.count += 1
            entry = _Open(part)
            self.stack.append(entry)
            if part.depth >= MAX_DEPTH:
                return
            if part.content_type.startswith("multipart/"):
                boundary = part.boundary
                if boundary:
                    entry.boundary = boundary
                    entry.shadowed = self.active.get(boundary)
                    self.active[boundary] = len(self.stack) - 1
                    self.delimit()
                return
            if part.content_type != "message/rfc822" or part.transfer_encoding not in _IDENTITY:
                return
            child = self.part_at(part.start, part)
            child.embedded = True
            part = child

    def part_at(self, start: int, parent: Part, boundary: bytes | None = None) -> Part:
        """Makes the child that begins at `start`; `boundary` is that of a multipart."""
        header_end = _PART_HEADER.match(self.body, start).end()  # type: ignore[union-attr]
        content = header_end + 2 if self.body.startswith(b"\r\n", header_end) else header_end
        digest = parent.content_type == "multipart/digest"
        child = Part(
            Headers(self.body[start:header_end]),
            start,
            header_end,
            content,
            len(self.body),
            parent.depth + 1,
            "message/rfc822" if digest else "text/plain",
            parent.protected or (_SIGNED if parent.content_type in _PROTECTED_TYPES else ""),
            parent.embedded,
            parent.boundaries if boundary is None else (*parent.boundaries, boundary),
        )
        parent.children.append(child)
        return child

    def begin_part(self, index: int, start: int) -> int:
        """Begins a part of the multipart at `index`; returns where its content begins."""
        entry = self.stack[index]
        child = self.part_at(start, entry.part, entry.boundary)
        if self.count >= MAX_PARTS:
            child.protected = f"it comes after {MAX_PARTS} parts"
            self.active.clear()
        else:
            self.open(child)
        return self.stack[-1].part.start if self.active else child.start

    def close_inside(self, index: int, line: int) -> None:
        """Ends all parts inside the multipart at `index`, before the delimiter at `line`."""
        while len(self.stack) > index + 1:
            entry = self.stack.pop()
            # A part that ends in a delimiter, with nothing after that, has its line end in it.
            inside = entry.part.children[-1].end if entry.part.children else 0
            entry.part.end = max(entry.part.start, line - 2, inside)
            entry.part.touches = entry.part.end == line
            self.deactivate(entry)

    def deactivate(self, entry: _Open) -> None:
        """Forgets the boundary of a multipart that has ended."""
        if entry.boundary is None:
            return
        if entry.shadowed is None:
            del self.active[entry.boundary]
        else:
            self.active[entry.boundary] = entry.shadowed
        entry.boundary = None
        self.delimit()

    def delimit(self) -> None:
        """Finds what the delimiters of all active boundaries begin with.

        The longer it is, the faster it is looked for, and the fewer lines are looked at in vain.
        """
        starts = [boundary[:_LONGEST_BOUNDARY] for boundary in self.active]
        first, last = min(starts, default=b""), max(starts, default=b"")
        while not last.startswith(first):
            first = first[:-1]
        self.delimiter = b"\r\n--" + first
