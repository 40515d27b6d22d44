"""ISO-2022-JP and EUC-JP with the characters of CP932: NEC row 13, IBM kanji, half-width katakana.

Both write the rows and cells of JIS X 0208, in two octets; CP932 writes the same rows in another
way, and Python's codec for it is complete. One table made from that codec serves both. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

_ASCII = b"\x1b(B"
_ROMAN = b"\x1b(J"
_KANA = b"\x1b(I"
_KANJI = b"\x1b$B"
_OLD_KANJI = b"\x1b$@"
_SUPPLEMENT = b"\x1b$(D"

_ESCAPE = re.compile(rb"\x1b(?:\([BJI]|\$[@B]|\$\(D)")
_LINE_LEFT_SHIFTED = re.compile(rb"\x1b(?:\([JI]|\$[@B]|\$\(D)[^\x1b\r\n]*+[\r\n]")
_PLAIN = re.compile(rb"[^\x0e\x0f\x1b\x80-\xff]++")
_PAIRS = re.compile(rb"(?:[!-~]{2})+")
_STRETCH = {
    _ASCII: _PLAIN,
    _ROMAN: re.compile(rb"[^\x0e\x0f\x1b\r\n\x80-\xff]++"),
    _KANA: re.compile(rb"[!-_]++"),
    _KANJI: _PAIRS,
    _OLD_KANJI: _PAIRS,
    _SUPPLEMENT: _PAIRS,
}
_ROMAN_TEXT = {0x5C: "¥", 0x7E: "‾"}
_ROMAN_OCTETS = {0xA5: "\\", 0x203E: "~"}
_TEXT_STRETCH = re.compile(
    r"(?P<ascii>[\x00-\x0d\x10-\x1a\x1c-\x7f]++)|(?P<roman>[¥‾]++)|(?P<kana>[｡-ﾟ]++)"
    r"|(?P<kanji>[^\x00-\x7f¥‾｡-ﾟ]++)|(?P<bad>.)",
    re.DOTALL,
)
_EUC = re.compile(
    rb"(?P<ascii>[\x00-\x7f]++)|(?P<kanji>(?:[\xa1-\xfe]{2})+)|(?P<kana>\x8e[\xa1-\xdf])"
    rb"|(?P<supplement>\x8f[\xa1-\xfe]{2})|(?P<bad>.)",
    re.DOTALL,
)
_EUC_CHARACTER = re.compile(rb"[\x00-\x7f]|[\xa1-\xfe]{2}|\x8e.|\x8f..", re.DOTALL)
_KANA_TO_OCTET = 0xFF61 - 0x21
_UNKNOWN = 0xFFFD
_LOW = bytes(octet & 0x7F for octet in range(256))
# Some characters of JIS X 0208 have two forms in Unicode. CP932 decodes to the ones on the right.
VARIANTS = {
    "\u301c": "\uff5e",
    "\u2212": "\uff0d",
    "\u2016": "\u2225",
    "\u2014": "\u2015",
    "\u00a2": "\uffe0",
    "\u00a3": "\uffe1",
    "\u00ac": "\uffe2",
}


class _Table(dict[int, int]):
    """A table for `str.translate` in which what is missing shows up as U+FFFD."""

    def __missing__(self, key: int) -> int:
        return _UNKNOWN


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[int, int], _Table]:
    """Two octets as one number → character, and the other way."""
    to_text: dict[int, int] = {}
    to_octets = _Table()
    for row in range(0x21, 0x7F):
        lead = (row + 1) // 2 + (0x70 if row < 0x5F else 0xB0)
        for cell in range(0x21, 0x7F):
            trail = cell + (0x7E if row % 2 == 0 else 0x1F if cell < 0x60 else 0x20)
            character = bytes((lead, trail)).decode("cp932", "ignore")
            to_text[row << 8 | cell] = ord(character) if len(character) == 1 else _UNKNOWN
            if len(character) == 1:
                to_octets.setdefault(ord(character), row << 8 | cell)
    return to_text, to_octets


@dataclass(frozen=True, slots=True)
class _Run:
    """Octets from `start` to `end` that have one shift state; an octet that fits in none alone."""

    start: int
    end: int
    state: bytes
    valid: bool = True

    @property
    def width(self) -> int:
        """Octets in a character."""
        return 2 if self.state in (_KANJI, _OLD_KANJI) else 1


def _runs(data: bytes) -> Iterator[_Run]:
    """The stretches between escapes, and at the end an empty one that tells the last state."""
    state, position = _ASCII, 0
    while position < len(data):
        escape = _ESCAPE.match(data, position)
        if escape:
            state, position = escape[0], escape.end()
            continue
        stretch = _STRETCH[state].match(data, position)
        if stretch:
            yield _Run(position, stretch.end(), state, state != _SUPPLEMENT)
            position = stretch.end()
        elif state != _ASCII and data[position] in b"\r\n":
            state = _ASCII  # a line begins in ASCII, whether or not the one before ended in it
        else:
            yield _Run(position, position + 1, state, valid=False)
            position += 1
    yield _Run(position, position, state)


def decode(data: bytes, *, lossy: bool = False) -> str:
    """Decodes ISO-2022-JP as CP50221 does, and JIS Roman as it is.

    Raises:
        UnicodeDecodeError: an octet is not valid; not if `lossy`.
    """
    standard = _decode_standard(data)
    if standard is not None:
        return standard
    text = []
    for run in _runs(data):
        piece = _run_text(run, data)
        if not lossy and (not run.valid or "\ufffd" in piece):
            raise UnicodeDecodeError("iso-2022-jp", data, run.start, run.end, "not a character")
        text.append(piece)
    return "".join(text)


def _decode_standard(data: bytes) -> str | None:
    """Python's codec, which is fast, with the characters that CP932 would give.

    None where it knows too little, or lets shifts pass that it does not understand.
    """
    if _LINE_LEFT_SHIFTED.search(data):
        return None  # it goes on in the next line as if nothing had ended
    try:
        text = data.decode("iso2022_jp")
    except UnicodeDecodeError:
        return None
    if "\x1b" in text or "\x0e" in text or "\x0f" in text:
        return None
    for other, character in VARIANTS.items():
        if other in text:
            text = text.replace(other, character)
    return text


def _run_text(run: _Run, data: bytes) -> str:
    octets = data[run.start : run.end]
    if run.state in (_ASCII, _ROMAN):
        text = octets.decode("ascii", "replace")
        return text.translate(_ROMAN_TEXT) if run.state == _ROMAN else text
    if not run.valid and len(octets) == 1:
        return "\ufffd"
    if run.state == _KANA:
        return "".join(chr(octet + _KANA_TO_OCTET) for octet in octets)
    if run.state == _SUPPLEMENT:
        high = bytes(octet | 0x80 for octet in octets)
        pairs = [high[index : index + 2] for index in range(0, len(high), 2)]
        return b"".join(b"\x8f" + pair for pair in pairs).decode("euc_jp", "replace")
    return octets.decode("utf-16-be").translate(_tables()[0])


def encode(text: str, state: bytes = _ASCII, final: bytes = _ASCII) -> bytes:
    """Encodes as ISO-2022-JP, from one shift state (an escape sequence) to another.

    Raises:
        UnicodeEncodeError: a character does not fit.
    """
    out = []
    for match in _TEXT_STRETCH.finditer(text):
        kind, stretch = match.lastgroup, match[0]
        if kind == "ascii":
            wanted, octets = _ASCII, stretch.encode("ascii")
        elif kind == "roman":
            wanted, octets = _ROMAN, stretch.translate(_ROMAN_OCTETS).encode("ascii")
        elif kind == "kana":
            wanted = _KANA
            octets = bytes(ord(character) - _KANA_TO_OCTET for character in stretch)
        else:
            codes = stretch.translate(_tables()[1])
            place = codes.find("\ufffd")
            if place >= 0:
                place += match.start()
                raise UnicodeEncodeError("iso-2022-jp", text, place, place + 1, "does not fit")
            wanted, octets = _KANJI, codes.encode("utf-16-be")
        if wanted != state and not (wanted == _KANJI and state == _OLD_KANJI):
            out.append(wanted)
            state = wanted
        out.append(octets)
    if state != final:
        out.append(final)
    return b"".join(out)


def splice(data: bytes, edits: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, bytes]]:
    """Carries edits of the text of valid `data` over to it, with the escapes that they need.

    Raises:
        UnicodeEncodeError: a character does not fit.
    """
    # A start stands right after the character before it, an end right before the character after
    # it: escapes between them are replaced too, so that no useless ones are left over.
    places = _places(data, [place for edit in edits for place in edit[:2]])
    spliced = []
    for index, (_, _, new) in enumerate(edits):
        start, state, _, _ = places[2 * index]
        _, _, end, final = places[2 * index + 1]
        if end == len(data):
            final = _ASCII
        spliced.append((start, end, encode(new, state, final)))
    return spliced


def _places(data: bytes, places: list[int]) -> list[tuple[int, bytes, int, bytes]]:
    """Looks up ascending places in the text.

    Gives for each where the character before it ends and where the one after it begins, both with
    the shift state there.
    """
    found: list[tuple[int, bytes, int, bytes]] = []
    count, before, state = 0, 0, _ASCII
    waiting = iter(places)
    place = next(waiting, None)
    for run in _runs(data):
        length = (run.end - run.start) // run.width
        while place is not None and (place < count + length or run.start == run.end):
            after = run.start + (place - count) * run.width
            if place == count:
                found.append((before, state, after, run.state))
            else:
                found.append((after, run.state, after, run.state))
            place = next(waiting, None)
        count += length
        before, state = run.end, run.state
    return found


def decode_euc(data: bytes, *, lossy: bool = False) -> str:
    """Decodes EUC-JP with the characters of CP932 (as eucJP-ms) and JIS X 0212.

    Raises:
        UnicodeDecodeError: an octet is not valid; not if `lossy`.
    """
    text = []
    for match in _EUC.finditer(data):
        kind, octets = match.lastgroup, match[0]
        if kind == "ascii":
            piece = octets.decode("ascii")
        elif kind == "kana":
            piece = chr(octets[1] - 0x80 + _KANA_TO_OCTET)
        elif kind == "kanji":
            piece = octets.translate(_LOW).decode("utf-16-be").translate(_tables()[0])
        else:
            piece = octets.decode("euc_jp", "replace")
        if "\ufffd" in piece and not lossy:
            raise UnicodeDecodeError("euc-jp", data, match.start(), match.end(), "not a character")
        text.append(piece)
    return "".join(text)


def encode_euc(text: str) -> bytes:
    """Encodes as EUC-JP.

    Raises:
        UnicodeEncodeError: a character does not fit.
    """
    out = []
    to_octets = _tables()[1]
    for place, character in enumerate(text):
        point = ord(character)
        if point < 0x80:
            out.append(character.encode("ascii"))
        elif point in to_octets:
            out.append((to_octets[point] | 0x8080).to_bytes(2, "big"))
        elif 0xFF61 <= point <= 0xFF9F:
            out.append(bytes((0x8E, point - _KANA_TO_OCTET + 0x80)))
        else:
            octets = character.encode("euc_jp", "ignore")
            if len(octets) != 3:
                raise UnicodeEncodeError("euc-jp", text, place, place + 1, "does not fit")
            out.append(octets)
    return b"".join(out)


def euc_ends(data: bytes) -> Iterator[int]:
    """Where each character of valid EUC-JP ends."""
    return (match.end() for match in _EUC_CHARACTER.finditer(data))
