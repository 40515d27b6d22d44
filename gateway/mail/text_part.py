"""Text parts: read as text, changed in place, the rest kept octet for octet. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from operator import itemgetter

from gateway.mail.charset import Edit, Splice
from gateway.mail.encoded_text import EncodedText
from gateway.mail.headers import Headers
from gateway.mail.headers import State as HeadersState
from gateway.mail.mime import Part, parse_parameters
from gateway.mail.pending_text import pending

_LINE_END = re.compile(r"\r\n?")


class TextPartError(ValueError):
    """A text part that cannot be edited; the text says why."""


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
        later = pending(self._current, edits)
        if later is not None and self._is_safe(later):
            self._current = later
            self._notify()
            return
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

    def _is_safe(self, text: EncodedText) -> bool:
        """Whether a text can stand in the part as it is, however it is encoded."""
        part = self._part
        if part.depth == 0:
            return text.encoding == "quoted-printable" and text.text.endswith("\n")
        if text.encoding == "base64":
            return True
        # What is not in the text is not in valid quoted-printable either, unless it looks like an
        # escape.
        boundaries, read = part.boundary_texts, text.text
        if boundaries is None:
            return False
        for boundary in boundaries:  # noqa: SIM110 - a generator takes twice as long
            if boundary in read:
                return False
        return True

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
    for start, end, new in sorted(spans, key=itemgetter(0, 1)):
        if not done <= start <= end <= len(text):
            raise ValueError(f"the stretch {start}:{end} overlaps another or is not in the text")
        done = end
        if "\r" in new:
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
