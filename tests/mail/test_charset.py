from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mail import charset, jis

# Every character that JIS X 0208 as CP932 has it can write, in the order of its rows and cells.
CELLS = [
    (row, cell)
    for row in range(0x21, 0x7F)
    for cell in range(0x21, 0x7F)
    if jis.decode(b"\x1b$B" + bytes((row, cell)) + b"\x1b(B", lossy=True) != "\ufffd"
]
JAPANESE = "".join(jis.decode(b"\x1b$B" + bytes(pair) + b"\x1b(B") for pair in CELLS)
MIXED = st.text(st.sampled_from("aZ ~\\\r\n¥‾ｱﾞ日本語～①㈱髙﨑―－") | st.sampled_from(JAPANESE))
MEANT = {ord(other): character for other, character in jis.VARIANTS.items()}
CHARSETS = ("iso-2022-jp", "shift_jis", "euc-jp")


def test_what_microsoft_clients_write() -> None:
    octets = b"\x1b$B-!-j|byu\x1b(I1\x1b(B"
    assert charset.decode(octets, "ISO-2022-JP") == "①㈱髙﨑ｱ"
    assert charset.encode("①㈱髙﨑ｱ", "iso-2022-jp") == octets
    assert charset.decode(b"\xad\xa1\xfc\xe2\x8e\xb1", "euc-jp") == "①髙ｱ"
    assert charset.decode(b"\x87\x40\xee\xe0\xb1", "x-sjis") == "①髙ｱ"


def test_table_is_that_of_cp932() -> None:
    assert len(CELLS) > 7000
    for row, cell in CELLS:
        euc = bytes((row | 0x80, cell | 0x80))
        assert charset.decode(euc, "euc-jp") == jis.decode(b"\x1b$B" + bytes((row, cell)))
    assert all(character.encode("cp932") for character in JAPANESE)


@pytest.mark.parametrize("name", CHARSETS)
def test_octets_of_every_character_survive(name: str) -> None:
    encoded = charset.encode(JAPANESE, name)
    text = charset.decode(encoded, name)
    assert text == JAPANESE
    assert charset.encode(text, name) == encoded


@pytest.mark.parametrize("name", CHARSETS)
def test_both_forms_of_a_character_are_encoded_to_the_same_octets(name: str) -> None:
    for other, character in jis.VARIANTS.items():
        assert charset.encode(other, name) == charset.encode(character, name)
        assert charset.decode(charset.encode(other, name), name) == character


@pytest.mark.parametrize("name", CHARSETS)
@given(text=MIXED)
@example(text="〜−‖—¢£¬")
def test_japanese_round_trip(name: str, text: str) -> None:
    if name != "iso-2022-jp":
        text = text.replace("¥", "").replace("‾", "")
    encoded = charset.encode(text, name)
    assert charset.decode(encoded, name) == text.translate(MEANT)
    if name == "iso-2022-jp":
        assert encoded.isascii()
        assert charset.encode(text + "x", name).endswith(b"x")


@given(
    st.lists(
        st.sampled_from(
            [
                b"\x1b(B",
                b"\x1b(J",
                b"\x1b(I",
                b"\x1b$B",
                b"\x1b$@",
                b"\x1b$(D",
                b"\r\n",
                b"\n",
                b"!A",
                b"-!",
                b"0!",
                b"a",
                b"\\~",
                b"\x80",
                b"\x0e",
                b"\x1b",
                b" ",
                b"!",
            ]
        )
    )
)
@example([b"\x1b$B", b"\r\n", b"!A"])
def test_both_ways_to_decode_agree(pieces: list[bytes]) -> None:
    """Python's codec is used where it can be; the table must then give the same."""
    data = b"".join(pieces)
    try:
        strict = jis.decode(data)
    except UnicodeDecodeError:
        strict = None
    runs = "".join(jis._run_text(run, data) for run in jis._runs(data))
    assert strict in (None, runs)
    assert jis.decode(data, lossy=True) == runs


@given(MIXED, MIXED, st.data())
def test_splice_keeps_text_and_octets_outside(text: str, new: str, data: st.DataObject) -> None:
    for name in (*CHARSETS, "utf-8", "gb18030"):
        if name in ("shift_jis", "euc-jp"):
            text, new = (one.translate({0xA5: None, 0x203E: None}) for one in (text, new))
        text = text.translate(MEANT)
        octets = charset.encode(text, name)
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, len(text)))
        ((first, last, put),) = charset.splice(octets, text, name, [(start, end, new)])
        result = octets[:first] + put + octets[last:]
        wanted = text[:start] + new + text[end:]
        assert charset.decode(result, name) == wanted.translate(MEANT)
        assert name != "iso-2022-jp" or not put.count(b"\x1b$B\x1b(B")


def test_splice_into_a_run_of_kanji() -> None:
    octets = b"\x1b$BF|K\\8l\x1b(B\r\n"
    assert charset.splice(octets, "日本語\r\n", "iso-2022-jp", [(1, 2, "x")]) == [
        (5, 7, b"\x1b(Bx\x1b$B")
    ]
    assert charset.splice(octets, "日本語\r\n", "iso-2022-jp", [(3, 3, "x")]) == [
        (9, 12, b"\x1b(Bx")
    ]
    assert charset.splice(octets, "日本語\r\n", "iso-2022-jp", [(0, 3, "x")]) == [(0, 12, b"x")]


def test_splice_where_other_octets_would_have_done_too() -> None:
    octets = b"\x81\xca\xfa\x54x"  # CP932 has the not sign three times
    text = charset.decode(octets, "cp932")
    assert charset.encode(text, "cp932") != octets
    assert charset.splice(octets, text, "cp932", [(2, 3, "y")]) == [(4, 5, b"y")]


def test_splice_refuses_what_shifts() -> None:
    with pytest.raises(UnicodeEncodeError):
        charset.splice(b"\xff\xfea\x00", "a", "utf-16", [(0, 1, "b")])


@given(st.binary())
def test_western_octets_always_round_trip(data: bytes) -> None:
    for name in ("us-ascii", "ISO-8859-1", "windows-1252", "latin1"):
        text = charset.decode(data, name)
        assert len(text) == len(data)
        assert charset.encode(text, name) == data


def test_western_names_mean_windows() -> None:
    assert charset.decode(b"\x93x\x94 \x80", "iso-8859-1") == "“x” €"
    assert charset.encode("é“", "iso-8859-1") == b"\xe9\x93"
    assert charset.encode("é", "iso-8859-1", exact=True) == b"\xe9"
    for text, name in (("“", "iso-8859-1"), ("é", "us-ascii"), ("😀", "gb2312")):
        with pytest.raises(UnicodeEncodeError):
            charset.encode(text, name, exact=True)


@pytest.mark.parametrize(
    ("name", "octets", "text"),
    [
        ("ks_c_5601-1987", b"\x8c\x63", "똠"),
        ("euc-kr", b"\xc7\xd1", "한"),
        ("gb2312", b"\xb0\xa1\x81\x40", "啊丂"),
        ("big5", b"\xa4\xa4", "中"),
        ("windows-31j", b"\x87\x40", "①"),
        ("CP50221", b"\x1b$B-!\x1b(B", "①"),
        ("utf8", "é".encode(), "é"),
        ('"UTF-8"', "é".encode(), "é"),
        ("koi8-r", b"\xc1", "а"),
    ],
)
def test_names(name: str, octets: bytes, text: str) -> None:
    assert charset.known(name)
    assert charset.decode(octets, name) == text
    assert charset.encode(text, name) == octets


@pytest.mark.parametrize(
    "name",
    ["", "x-unknown", "rot13", "hex", "idna", "punycode", "unicode_escape", "a\0b", "..", "é"],
)
def test_names_that_are_no_charset(name: str) -> None:
    assert not charset.known(name)
    with pytest.raises(LookupError):
        charset.decode(b"x", name)
    with pytest.raises(LookupError):
        charset.encode("x", name)
    assert charset.decode_lossy(b"x", name) == "x"


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("utf-8", b"\xff"),
        ("iso-2022-jp", b"\x1b$B!\x1b(B"),
        ("iso-2022-jp", b"\x1b$B.!\x1b(B"),
        ("iso-2022-jp", b"\x1b$(D0!\x1b(B"),
        ("iso-2022-jp", b"\xe9"),
        ("euc-jp", b"\xa1"),
        ("shift_jis", b"\x81"),
    ],
)
def test_lossy_octets_are_reported(name: str, octets: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        charset.decode(octets, name)
    assert charset.decode_lossy(octets, name)


def test_supplementary_kanji_can_be_read() -> None:
    assert charset.decode_lossy(b"\x1b$(D0!\x1b(B", "iso-2022-jp") == "丂"
    assert charset.decode(b"\x8f\xb0\xa1", "euc-jp") == "丂"
    assert charset.encode("丂", "euc-jp") == b"\x8f\xb0\xa1"
    with pytest.raises(UnicodeEncodeError):
        charset.encode("丂", "iso-2022-jp")


@pytest.mark.parametrize("text", ["€", "😀", "é", "\x1b", "\x0e"])
def test_what_does_not_fit_iso_2022_jp(text: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        charset.encode("日本" + text, "iso-2022-jp")


@given(
    st.binary(), st.sampled_from(["utf-8", "utf-16", "utf-7", "hz", "big5", "gb2312", *CHARSETS])
)
def test_lossy_decoding_never_raises(data: bytes, name: str) -> None:
    lossy = charset.decode_lossy(data, name)
    try:
        assert charset.decode(data, name) == lossy
    except UnicodeDecodeError:
        pass


@given(st.text(max_size=30), st.binary(max_size=30))
def test_any_name_may_be_asked_for(name: str, data: bytes) -> None:
    charset.decode_lossy(data, name)


def test_half_of_a_pair_is_no_text() -> None:
    """Python's UTF-7 lets it pass, and nothing could ever write such a text again."""
    with pytest.raises(UnicodeDecodeError):
        charset.decode(b"x +2D0- y", "utf-7")
    assert charset.decode_lossy(b"x +2D0- y", "utf-7") == "x \ufffd y"
    assert charset.decode(b"x +2D3eAA- y", "utf-7") == "x \U0001f600 y"
