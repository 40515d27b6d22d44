"""Text parts: read as text, changed in place, the rest kept octet for octet. Pure.

What is written of a part passes three layers: line ends (text has LF, mail has CRLF), the charset,
and the transfer encoding. An edit is carried down through all three as spans.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cached_property

from gateway.mail import charset, transfer_encoding
from gateway.mail.charset import Edit, Splice
from gateway.mail.headers import Headers
from gateway.mail.headers import State as HeadersState
from gateway.mail.mime import Part, parse_parameters

_LONGEST_LINE = 998
_LINE_END = re.compile(r"\r\n?")
_SEVEN_BIT = frozenset(("7bit", "8bit", "binary"))


class TextPartError(ValueError):
    """A text part that cannot be edited; the text says why."""


class EncodedText:
    """The content of a text part in its encoding: a value, decoded when first asked for."""

    def __init__(self, content: bytes, encoding: str, charset_name: str | None) -> None:
        self.content = content
        self.encoding = encoding
        self.charset = charset_name

    @cached_property
    def _data(self) -> tuple[bytes, bool]:
        return transfer_encoding.decode(self.content, self.encoding)

    @cached_property
    def effective_charset(self) -> str:
        """The charset that it is read in: without a name UTF-8 where that fits, or ASCII."""
        if self.charset is not None:
            return self.charset
        data = self._data[0]
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                pass
            else:
                return "utf-8"
        return "us-ascii"

    @cached_property
    def _decoded(self) -> tuple[str, str]:
        """The text with its line ends as they are, and why it is not exact ('' if it is)."""
        data, exact = self._data
        name = self.effective_charset
        try:
            text = charset.decode(data, name)
        except LookupError:
            return charset.decode_lossy(data, name), f"its charset {name} is unknown"
        except UnicodeDecodeError:
            return charset.decode_lossy(data, name), f"it is not valid {name}"
        return text, "" if exact else f"its transfer encoding is not valid {self.encoding}"

    @property
    def problem(self) -> str:
        """Why the text cannot be carried back to the octets, '' if it can."""
        return self._decoded[1]

    @cached_property
    def text(self) -> str:
        """The text; lines end in LF."""
        return self._decoded[0].replace("\r\n", "\n")

    @cached_property
    def line_end(self) -> str:
        """What new lines end in: CRLF, or LF inside of an encoding where all lines do so."""
        wide = self._decoded[0]
        return "\n" if "\n" in wide and "\r" not in wide else "\r\n"

    def splices(self, edits: list[Edit]) -> list[Splice]:
        """Carries edits of `text` down to the decoded octets.

        Raises:
            UnicodeEncodeError: a character does not fit the charset.
        """
        wide = self._decoded[0]
        if len(wide) != len(self.text):
            ends = [match.start() - index for index, match in enumerate(re.finditer("\r\n", wide))]
            edits = [
                (start + bisect_left(ends, start), end + bisect_left(ends, end), new)
                for start, end, new in edits
            ]
        edits = [(start, end, new.replace("\n", self.line_end)) for start, end, new in edits]
        return charset.splice(self._data[0], wide, self.effective_charset, edits)

    def spliced(self, splices: list[Splice]) -> EncodedText:
        """The same with stretches of its decoded octets replaced; encoded anew if they need it."""
        data = self._data[0]
        if self.encoding in _SEVEN_BIT:
            content = transfer_encoding.apply(data, splices)
            if self._fits_lines(content, splices):
                return EncodedText(content, self.encoding, self.charset)
            return self.encoded_anew(content, self.charset)
        content = transfer_encoding.splice(self.content, data, self.encoding, splices)
        return EncodedText(content, self.encoding, self.charset)

    def _fits_lines(self, content: bytes, splices: list[Splice]) -> bool:
        """Whether new octets may stand in the message as they are (RFC 5321 4.5.3.1.6, RFC 2045 2).

        What was wrong before the edit does not count: it came so and goes so.
        """
        new = b"".join([splice[2] for splice in splices])
        if b"\0" in new:
            return False
        if self.encoding == "7bit" and not new.isascii() and self.content.isascii():
            return False
        shift = checked = 0
        for start, end, octets in splices:
            first, last = start + shift, start + shift + len(octets)
            shift += len(octets) - (end - start)
            if last < checked:
                continue  # in a line that was measured already
            longest, checked = _longest_line(content, first, last)
            if longest > max(_LONGEST_LINE, _longest_line(self.content, start, end)[0]):
                return False
        return True

    def in_utf8(self, edits: list[Edit]) -> EncodedText:
        """All of it in UTF-8, with edits of `text`."""
        pieces: list[str] = []
        done = 0
        for start, end, new in edits:
            pieces += self.text[done:start], new
            done = end
        pieces.append(self.text[done:])
        return self.encoded_anew("".join(pieces).replace("\n", "\r\n").encode(), "utf-8")

    def encoded_anew(self, data: bytes, charset_name: str | None) -> EncodedText:
        """Other octets in this encoding, or in a safe one where they do not fit this."""
        encoding = self.encoding
        if encoding in _SEVEN_BIT and (
            (encoding == "7bit" and not data.isascii())
            or b"\0" in data
            or _longest_line(data, 0, len(data))[0] > _LONGEST_LINE
        ):
            wide = len(data) - len(data.translate(None, _EIGHT_BIT))
            encoding = "base64" if wide * 6 > len(data) else "quoted-printable"
        return EncodedText(transfer_encoding.encode(data, encoding), encoding, charset_name)

    def has_line_of(self, boundaries: tuple[bytes, ...]) -> bool:
        """Whether a line would be read as the end of the part."""
        content = b"\r\n" + self.content
        return any(b"\r\n--" + boundary in content for boundary in boundaries)

    def in_base64(self) -> EncodedText:
        """The same in an encoding in which no line can be mistaken for anything."""
        content = transfer_encoding.encode(self._data[0], "base64")
        return EncodedText(content, "base64", self.charset)

    def terminated(self) -> EncodedText:
        """The same, ending in a line end: a message's last line must have one."""
        content = self.content
        if not content or content.endswith(b"\r\n"):
            return self
        if self.encoding == "quoted-printable":
            content = transfer_encoding.end_softly(content)
        else:
            content += b"\r\n"
        return EncodedText(content, self.encoding, self.charset)


_EIGHT_BIT = bytes(range(128, 256))


def _longest_line(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The length of the longest of the lines that a stretch touches, and where the last ends."""
    last = data.find(b"\r\n", end)
    last = last if last >= 0 else len(data)
    lines = data[transfer_encoding.line_start(data, start) : last]
    return max(map(len, lines.split(b"\r\n"))), last


State = tuple[EncodedText, HeadersState]


class TextPart:
    """A part of text in a message, as its readers see it.

    Attributes:
        content_type: `text/plain` or `text/html`.
        disposition: `inline`, or None where the part does not say.
    """

    def __init__(
        self,
        part: Part,
        original: EncodedText,
        headers: Headers,
        *,
        check: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self._part = part
        self._original = original
        self._current = original
        self._headers = headers
        self._initial: State = (original, headers.state())
        self._check = check
        self._notify = changed
        self.content_type = part.content_type
        self.disposition = part.disposition

    @property
    def charset(self) -> str:
        """The charset that the part is written in, in lower case."""
        return self._current.effective_charset

    @property
    def transfer_encoding(self) -> str:
        """The Content-Transfer-Encoding, in lower case."""
        return self._current.encoding

    @property
    def headers(self) -> Headers:
        """A read-only copy of the part's header."""
        headers = self._headers.copy()
        headers.seal()
        return headers

    @property
    def changed(self) -> bool:
        """Whether the part is another than the one that came."""
        return self._current is not self._original

    @property
    def editable(self) -> bool:
        """Whether the part may be changed: it decodes exactly and nothing else forbids it."""
        return not self._problem()

    def _problem(self) -> str:
        return self._part.protected or self._current.problem

    @property
    def text(self) -> str:
        r"""The text; lines end in `\n`. U+FFFD stands where it does not decode.

        Setting it writes only what differs. Text that does not fit the charset turns the part into
        UTF-8; text that does not fit the transfer encoding changes that. A message consisting of
        this part alone ends in a line end, which is added where the text has none.

        Raises (on setting):
            TextPartError: the part is not `editable`.
            MessageSealedError: the message is sealed.
        """
        return self._current.text

    @text.setter
    def text(self, new: str) -> None:
        old, new = self.text, new.replace("\r\n", "\n")
        start = _common_prefix(old, new)
        end = len(old) - _common_suffix(old, new, min(len(old), len(new)) - start)
        self.replace([(start, end, new[start : end + len(new) - len(old)])])

    def replace(self, spans: Iterable[tuple[int, int, str]]) -> None:
        """Replaces stretches of `text`, each `(start, end, new)`; they must not overlap.

        Everything outside of them keeps its encoded octets.

        Raises:
            ValueError: stretches overlap, or lie outside of the text.
            TextPartError: the part is not `editable`.
            MessageSealedError: the message is sealed.
        """
        edits = _normalized(self._current.text, spans)
        self._check()
        if not edits:
            return
        problem = self._problem()
        if problem:
            raise TextPartError(f"the part {self.content_type} cannot be edited: {problem}")
        try:
            text = self._current.spliced(self._current.splices(edits))
        except UnicodeEncodeError:
            text = self._current.in_utf8(edits)
        if self._part.depth == 0:
            text = text.terminated()
        elif text.has_line_of(self._part.boundaries):
            text = text.in_base64()
        if text.content == self._current.content and text.encoding == self._current.encoding:
            return
        self._write_headers(text)
        self._current = text
        self._notify()

    def _write_headers(self, text: EncodedText) -> None:
        headers, old = self._headers, self._current
        if text.charset == old.charset and text.encoding == old.encoding:
            return
        if self._part.depth == 0 and "MIME-Version" not in headers:
            headers.add("MIME-Version", "1.0")
        if text.charset != old.charset and text.charset is not None:
            _set_charset(headers, self.content_type, text.charset)
        if text.encoding != old.encoding:
            headers.change("Content-Transfer-Encoding", text.encoding)

    def state(self) -> State:
        """What `restore` needs to undo later edits."""
        return self._current, self._headers.state()

    def restore(self, state: State) -> None:
        """Undoes all edits since `state()`."""
        self._current = state[0]
        if self._part.depth:
            self._headers.restore(state[1])

    def reset(self) -> None:
        """Undoes all edits."""
        self.restore(self._initial)

    def splice(self) -> Splice:
        """What replaces the part's span in the body that was scanned: header and content."""
        part = self._part
        if part.depth == 0:
            return part.start, part.end, self._current.content
        content = self._current.content + (b"\r\n" if part.touches else b"")
        header = self._headers.raw
        if header == part.headers.raw and part.start > part.header_end:
            return part.start, part.end, content
        return part.header_start, part.end, header + b"\r\n" + content

    def __repr__(self) -> str:
        return f"<TextPart {self.content_type} {self.charset} {self.transfer_encoding}>"


def _set_charset(headers: Headers, content_type: str, name: str) -> None:
    """Names another charset in Content-Type, and changes nothing else in it."""
    fields = headers.fields("content-type")
    parameters = parse_parameters(fields[0].body) if fields else []
    for parameter in parameters:
        if parameter.name == "charset":
            headers.splice("Content-Type", parameter.start, parameter.end, name.encode())
            return
    unusual = any(parameter.name.startswith("charset*") for parameter in parameters)
    if unusual or not fields or "/" not in fields[0].value:
        headers.change("Content-Type", f'{content_type}; charset="{name}"')
        return
    end = len(fields[0].body.rstrip(b"; \t\r\n"))
    headers.splice("Content-Type", end, len(fields[0].body), f'; charset="{name}"'.encode())


def _normalized(text: str, spans: Iterable[tuple[int, int, str]]) -> list[Edit]:
    """Edits in order that change something; those that touch are one."""
    edits: list[Edit] = []
    done = 0
    for start, end, new in sorted(spans, key=lambda span: (span[0], span[1])):
        if not done <= start <= end <= len(text):
            raise ValueError(f"the stretch {start}:{end} overlaps another or is not in the text")
        done = end
        new = _LINE_END.sub("\n", new)
        if edits and edits[-1][1] == start:
            edits[-1] = (edits[-1][0], end, edits[-1][2] + new)
        else:
            edits.append((start, end, new))
    return [edit for edit in edits if text[edit[0] : edit[1]] != edit[2]]


def _common_prefix(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low < high - 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _common_suffix(one: str, other: str, limit: int) -> int:
    """How many characters, at most `limit`, two texts have in common at their end."""
    low, high = 0, limit + 1
    while low < high - 1:
        middle = (low + high) // 2
        if one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]:
            low = middle
        else:
            high = middle
    return low
