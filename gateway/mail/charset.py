"""Character sets as mail uses them: Python's codecs, and the Japanese ones as they really are.

Mail says `iso-2022-jp` and means Microsoft's CP50221: with ① and ㈱ (NEC row 13), 髙 and 﨑
(NEC-selected IBM kanji) and half-width katakana, all of which Python's own codec refuses. Here the
three encodings of JIS X 0208 share one table, that of CP932. So the wave dash is U+FF5E, the minus
sign U+FF0D and the parallel sign U+2225, and decoding and encoding again gives the same octets.
Their other forms (U+301C, U+2212, U+2016 …), which macOS writes, are encoded to the same octets.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from gateway.mail import jis

# What Python does not know, or knows as less than mail means by it.
_ALIASES = {
    "cp50220": "iso2022_jp",
    "cp50221": "iso2022_jp",
    "cp50222": "iso2022_jp",
    "iso-2022-jp-ms": "iso2022_jp",
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "x-ms-cp932": "cp932",
    "cswindows31j": "cp932",
    "x-euc-jp": "euc_jp",
    "eucjp-ms": "euc_jp",
    "cp51932": "euc_jp",
    "cseucpkdfmtjapanese": "euc_jp",
    "x-gbk": "gbk",
    "iso-8859-8-i": "iso8859-8",
    "iso-8859-8-e": "iso8859-8",
    "unicode-1-1-utf-8": "utf-8",
}
_MEANT = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
}
# What new text in these must keep to, lest a reader that takes the name at its word loses it.
_NAMED = {"ascii": "ascii", "iso8859-1": "iso8859-1", "gb2312": "gbk", "gbk": "gbk"}
_NO_CHARSET = frozenset(
    (
        "idna",
        "punycode",
        "unicode_escape",
        "unicode-escape",
        "raw_unicode_escape",
        "raw-unicode-escape",
        "undefined",
        "mbcs",
        "oem",
    )
)
_STATEFUL = frozenset(
    (
        "utf-7",
        "utf-8-sig",
        "utf-16",
        "utf-32",
        "hz",
        "iso2022_kr",
        "iso2022_jp_1",
        "iso2022_jp_2",
        "iso2022_jp_2004",
        "iso2022_jp_3",
        "iso2022_jp_ext",
    )
)
_JAPANESE = frozenset(("iso2022_jp", "cp932", "euc_jp"))
# Here ASCII text is made of the same octets.
_ASCII_BASED = frozenset(("utf-8", "cp1252", "cp932", "euc_jp", "cp949", "gb18030", "big5hkscs"))

_HALF_PAIR = re.compile("[\ud800-\udfff]")
_VARIANTS = str.maketrans(jis.VARIANTS)

Edit = tuple[int, int, str]
"""Replace `text[start:end]` by new text."""
Splice = tuple[int, int, bytes]
"""Replace `data[start:end]` by new octets."""


def known(charset: str) -> bool:
    """Whether `decode` and `encode` know this charset."""
    return _lookup(charset) is not None


def has_plain_lines(charset: str) -> bool:
    """Whether the octets CR and LF are line ends wherever they stand, as MIME asks of charsets.

    Then octets may have LF for CRLF before they are decoded, instead of their text afterwards.
    """
    codec = _lookup(charset)
    return codec is not None and _has_plain_lines(codec)


def decode(data: bytes, charset: str) -> str:
    """Decodes exactly: `encode` gives the same octets again, as far as they were well chosen.

    Raises:
        LookupError: the charset is unknown.
        UnicodeDecodeError: the octets are not text in it.
    """
    codec = _codec(charset)
    if codec == "utf-8":
        return data.decode()
    if codec == "cp1252":
        return data.decode("ascii") if data.isascii() else _decode_1252(data)
    if codec == "iso2022_jp":
        return jis.decode(data)
    if codec == "euc_jp":
        return jis.decode_euc(data)
    text = data.decode(codec)
    if codec == "utf-7" and (half := _HALF_PAIR.search(text)):
        raise UnicodeDecodeError(codec, data, 0, len(data), f"half a pair: {half[0]!a}")
    return text


def decode_lossy(data: bytes, charset: str) -> str:
    """Decodes for display: U+FFFD stands where the octets are no text. Never raises.

    An unknown charset is read as UTF-8.
    """
    codec = _lookup(charset) or "utf-8"
    try:
        if codec == "cp1252":
            return _decode_1252(data)
        if codec == "iso2022_jp":
            return jis.decode(data, lossy=True)
        if codec == "euc_jp":
            return jis.decode_euc(data, lossy=True)
        text = data.decode(codec, "replace")
        # Python's decoder lets them pass, and no encoder takes them.
        return _HALF_PAIR.sub("\ufffd", text) if codec == "utf-7" else text
    except UnicodeError:  # codecs such as UTF-16 have errors that no handler sees
        return data.decode("ascii", "replace")


def encode(text: str, charset: str, *, exact: bool = False) -> bytes:
    """Encodes text. ISO-2022-JP ends in ASCII and has no octet above 127.

    `exact` holds new text to what the charset's name says, where `decode` reads more into it: plain
    ASCII for `us-ascii`, no typographic quotes for `iso-8859-1`.

    Raises:
        LookupError: the charset is unknown.
        UnicodeEncodeError: a character does not fit.
    """
    codec = _codec(charset)
    if exact:
        named = _NAMED.get(_python_name(charset) or "")
        if named:
            text.encode(named)
    if codec in _JAPANESE:
        if not text.isascii():
            text = text.translate(_VARIANTS)
        if codec == "iso2022_jp":
            return jis.encode(text)
        if codec == "euc_jp":
            return jis.encode_euc(text)
    if codec == "cp1252":
        return codecs.charmap_encode(text, "strict", _encoding_1252())[0]
    return text.encode(codec)


def splice(data: bytes, text: str, charset: str, edits: Sequence[Edit]) -> list[Splice]:
    """Carries edits of a text over to the octets that it was decoded from.

    `text` is `decode(data, charset)`; the edits are in order and neither overlap nor touch. What
    they do not replace keeps its octets; ISO-2022-JP gets the escapes that it needs around them.

    Raises:
        LookupError: the charset is unknown.
        UnicodeEncodeError: a character does not fit, or the charset shifts in ways that cannot be
            spliced, or line ends are other octets in it.
    """
    codec = _codec(charset)
    if codec == "iso2022_jp":
        return jis.splice(data, [(s, e, new.translate(_VARIANTS)) for s, e, new in edits])
    if not _has_plain_lines(codec):
        raise UnicodeEncodeError(codec, text, 0, len(text), "it is not spliced")
    places = _offsets(data, text, codec, [place for edit in edits for place in edit[:2]])
    plain = codec in _ASCII_BASED
    return [
        (places[2 * index], places[2 * index + 1], _new_octets(new, charset, plain))
        for index, (_, _, new) in enumerate(edits)
    ]


def new_octets(charset: str, texts: Iterable[str]) -> list[bytes] | None:
    """What `splice` writes for new texts; None if that depends on what stands around them.

    Raises:
        LookupError: the charset is unknown.
        UnicodeEncodeError: a character does not fit.
    """
    codec = _codec(charset)
    if codec == "iso2022_jp" or not _has_plain_lines(codec):
        return None
    if codec == "utf-8":
        return [text.encode() for text in texts]
    plain = codec in _ASCII_BASED
    return [_new_octets(text, charset, plain) for text in texts]


def _new_octets(text: str, charset: str, plain: bool) -> bytes:
    return text.encode() if plain and text.isascii() else encode(text, charset, exact=True)


def _offsets(data: bytes, text: str, codec: str, places: list[int]) -> list[int]:
    """The places in `data` of ascending places in `text`."""
    if len(data) == len(text):
        return places
    if codec == "utf-8" or encode(text, codec) == data:
        offsets, before, offset = [], 0, 0
        for place in places:
            piece = text[before:place]
            offset += len(piece.encode() if codec == "utf-8" else encode(piece, codec))
            offsets.append(offset)
            before = place
        return offsets
    # Some characters have two encodings and the other one was used: walk.
    ends = [0, *(jis.euc_ends(data) if codec == "euc_jp" else _ends(data, codec))]
    return [ends[place] for place in places]


def _ends(data: bytes, codec: str) -> Iterator[int]:
    """Where each character ends."""
    decoder = codecs.getincrementaldecoder(codec)()
    for index in range(len(data)):
        for _ in decoder.decode(data[index : index + 1]):
            yield index + 1


def _codec(charset: str) -> str:
    codec = _lookup(charset)
    if codec is None:
        raise LookupError(f"unknown charset {charset!r}")
    return codec


@lru_cache(maxsize=512)
def _lookup(charset: str) -> str | None:
    name = _python_name(charset)
    return None if name is None else _MEANT.get(name, name)


@lru_cache(maxsize=512)
def _python_name(charset: str) -> str | None:
    """The name of Python's codec, None without one for text."""
    name = charset.strip().strip("\"'").lower()
    try:
        codec = codecs.lookup(_ALIASES.get(name, name))
    except (LookupError, ValueError):
        return None
    is_text = codec._is_text_encoding
    return codec.name if is_text and codec.name not in _NO_CHARSET else None


@lru_cache(maxsize=512)
def _has_plain_lines(codec: str) -> bool:
    if codec in _STATEFUL or "\r\n".encode(codec) != b"\r\n":
        return False
    for lead in range(128, 256):
        for end in b"\r\n":
            try:
                if not bytes((lead, end)).decode(codec).endswith(chr(end)):
                    return False
            except UnicodeDecodeError:
                pass
    return True


@lru_cache(maxsize=1)
def _decoding_1252() -> str:
    """CP1252 with C1 controls in its five holes, as the WHATWG defines it: nothing fails."""
    return "".join(bytes([octet]).decode("cp1252", "ignore") or chr(octet) for octet in range(256))


@lru_cache(maxsize=1)
def _encoding_1252() -> Mapping[int, int]:
    return {ord(character): octet for octet, character in enumerate(_decoding_1252())}


def _decode_1252(data: bytes) -> str:
    return codecs.charmap_decode(data, "strict", _decoding_1252())[0]
