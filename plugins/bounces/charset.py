"""Text in whatever charset it turns out to be, as far as it can be read. Pure."""

from __future__ import annotations

import re

_KNOWN = re.compile(
    r"us-ascii|utf-?(?:8|16(?:le|be)?)|iso-?8859-\d{1,2}|windows-\d{3,4}|cp\d{3,4}|koi8-[ru]"
    r"|gb2312|gbk|gb18030|big5|euc-(?:kr|jp)|ks_c_5601-1987|shift_jis|iso-2022-(?:jp|kr)",
    re.IGNORECASE,
)
_ALIASES = {
    "x-sjis": "cp932",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "windows-31j": "cp932",
    "x-euc-jp": "euc-jp",
    "ks_c_5601-1987": "cp949",
    "gb2312": "gb18030",
    "cp50220": "iso-2022-jp",
    "cp50221": "iso-2022-jp",
}
_SHIFT = re.compile(rb"\x1b\$[@B]")
_GUESSES = ("utf-8", "euc_jp", "cp932", "cp1252")


def decode(octets: bytes, label: str = "") -> str:
    """The text of octets; what cannot be read becomes U+FFFD. Never raises.

    The label is believed where the octets can be read with it. Bounces in Japanese are often
    labelled wrong, or not at all.
    """
    if _SHIFT.search(octets):
        # Half-width katakana and vendors' characters are beyond the codec of the plain name.
        return octets.decode("iso2022_jp_ext", "replace")
    if octets.isascii():
        return octets.decode("ascii")
    name = label.strip("\"' ").lower()
    name = _ALIASES.get(name, name)
    labels = (name, *_GUESSES) if _KNOWN.fullmatch(name) else _GUESSES
    for codec in labels:
        try:
            return octets.decode(codec)
        except (UnicodeError, LookupError):
            continue
    return octets.decode("latin-1")
