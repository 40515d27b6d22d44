"""Messages of one text: the charsets and transfer encodings of the wild. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.testing.corpus.sample import Sample, base64, message, mime, quoted_printable

_ENGLISH = "Dear Ada,\n\nthe parcel is on its way: https://shop.example.com/parcel?id=7\n\nAiko\n"
_GERMAN = "Schöne Grüße aus Köln,\n\nÄnderungen kosten 5 €.\n"
_JAPANESE = (
    "こんにちは、エイダさん\n\nご注文ありがとうございます。\nまたのご利用をお待ちしております。\n"
)
_HALFWIDTH = "ﾃｽﾄです\n①②③ 髙橋 ～ − ∥\n"
_HTML = """<!DOCTYPE html>
<html><head><title>News</title><style>p > a { color: #123 }</style></head>
<body><p>Hello <b>Ada</b>, <a href="https://shop.example.com/a?b=1&amp;c=2">look</a>.</p>
</body></html>
"""


def texts() -> Iterator[Sample]:
    """Every charset in the transfer encodings that it comes in."""
    yield Sample("plain-without-mime", message(_ENGLISH))
    yield Sample("us-ascii", mime(_ENGLISH, "text/plain; charset=us-ascii"))
    yield Sample(
        "format-flowed",
        mime("A line that \nflows on.  \n-- \nAiko\n", "text/plain; format=flowed; delsp=yes"),
    )
    yield Sample("utf-8-8bit", mime(_JAPANESE, "text/plain; charset=utf-8", "8bit"))
    yield Sample("utf-8-base64", mime(base64(_JAPANESE), "text/plain; charset=UTF-8", "base64"))
    yield Sample(
        "utf-8-quoted-printable",
        mime(quoted_printable(_GERMAN), 'text/plain; charset="utf-8"', "quoted-printable"),
    )
    yield Sample(
        "utf-8-with-byte-order-mark",
        mime("\N{ZERO WIDTH NO-BREAK SPACE}" + _GERMAN, "text/plain; charset=utf-8", "8bit"),
    )
    yield Sample("emoji", mime("It works 🎉👩‍👩‍👧\n", "text/plain; charset=utf-8", "8bit"))
    yield Sample("right-to-left", mime("שלום עולם\nمرحبا\n", "text/plain; charset=utf-8", "8bit"))
    yield Sample(
        "iso-2022-jp",
        mime(
            _JAPANESE.replace("\n", "\r\n").encode("iso2022_jp"),
            "text/plain; charset=ISO-2022-JP",
            subject="=?ISO-2022-JP?B?GyRCJCpDTiRpJDsbKEI=?=",
        ),
    )
    yield Sample(
        "iso-2022-jp-halfwidth",
        mime(
            _HALFWIDTH.replace("\n", "\r\n").encode("iso2022_jp_ext", "replace"),
            "text/plain; charset=iso-2022-jp",
        ),
    )
    yield Sample(
        "iso-2022-jp-cut-off",
        mime(b"\x1b$B$3$s\r\n\x1b$B$K\r\n", "text/plain; charset=iso-2022-jp"),
    )
    yield Sample(
        "shift-jis",
        mime(_crlf(_HALFWIDTH, "cp932"), "text/plain; charset=Shift_JIS", "8bit"),
    )
    yield Sample(
        "shift-jis-called-utf-8",
        mime(_crlf(_JAPANESE, "cp932"), "text/plain; charset=utf-8", "8bit"),
    )
    yield Sample(
        "shift-jis-called-iso-2022-jp",
        mime(_crlf(_JAPANESE, "cp932"), "text/plain; charset=iso-2022-jp", "7bit"),
    )
    yield Sample("euc-jp", mime(_crlf(_JAPANESE, "euc_jp"), "text/plain; charset=EUC-JP", "8bit"))
    yield Sample(
        "iso-8859-1-quoted-printable",
        mime(
            quoted_printable(_crlf("Grüße, déjà vu\n", "latin-1")),
            "text/plain; charset=iso-8859-1",
            "quoted-printable",
        ),
    )
    yield Sample(
        "windows-1252-called-iso-8859-1",
        mime(b"\x93Hello\x94 \x96 5 \x80\r\n", "text/plain; charset=iso-8859-1", "8bit"),
    )
    yield Sample(
        "gb18030", mime(_crlf("你好，世界\n", "gb18030"), "text/plain; charset=gb18030", "8bit")
    )
    yield Sample("utf-7", mime("Gr+APw-+AN8-e\n", "text/plain; charset=utf-7"))
    yield Sample("charset-unknown", mime(_ENGLISH, "text/plain; charset=x-made-up", "8bit"))
    yield Sample("charset-empty", mime(_ENGLISH, 'text/plain; charset=""', "8bit"))
    yield Sample(
        "charset-in-rfc-2231", mime(_GERMAN, "text/plain; charset*=us-ascii''utf-8", "8bit")
    )
    yield Sample("encoding-unknown", mime(_ENGLISH, "text/plain", "x-uuencode"))
    yield Sample("8bit-called-7bit", mime(_GERMAN, "text/plain; charset=utf-8", "7bit"))
    yield Sample(
        "base64-in-short-lines",
        mime(base64(_JAPANESE, 16), "text/plain; charset=utf-8", "BASE64"),
    )
    yield Sample(
        "base64-in-one-line",
        mime(base64(_GERMAN * 8, 900), "text/plain; charset=utf-8", "base64"),
    )
    yield Sample(
        "base64-with-text-around",
        mime(f"\n {base64(_GERMAN)}\n-- \n*list*\n", "text/plain; charset=utf-8", "base64"),
    )
    yield Sample("base64-broken", mime("SGVsbG8gd29y=bGQ\n!!\nA\n", "text/plain", "base64"))
    yield Sample(
        "quoted-printable-odd",
        mime(
            "soft =\nbreak, =3d lower, =ZZ wrong, trailing =20\nspaces   \n=\n",
            "text/plain; charset=utf-8",
            "quoted-printable",
        ),
    )
    yield Sample("quoted-printable-at-its-end", mime("cut off =", "text/plain", "quoted-printable"))
    yield Sample("html", mime(_HTML, "text/html; charset=utf-8"))
    yield Sample(
        "html-quoted-printable",
        mime(quoted_printable(_HTML), "text/html; charset=utf-8", "quoted-printable"),
    )
    yield Sample("html-base64", mime(base64(_HTML), "text/html; charset=utf-8", "base64"))
    yield Sample(
        "html-of-outlook",
        mime(
            _HTML.replace(
                "<body>",
                "<!--[if mso]><xml><o:OfficeDocumentSettings/></xml><![endif]-->\n"
                "<!--[if !mso]><!--><link href=x.css><!--<![endif]-->\n<body class=MsoNormal>",
            ).replace("</p>", "</p><![if !supportLists]>&middot;<![endif]><o:p>&nbsp;</o:p>"),
            "text/html; charset=us-ascii",
        ),
    )
    yield Sample(
        "html-broken",
        mime(
            "<p>Never closed <a href='https://shop.example.com/<b>x</a <i>\n<!-- no end\n<",
            "text/html",
        ),
    )
    yield Sample("html-in-iso-2022-jp", mime(_crlf(_HTML + _JAPANESE, "iso2022_jp"), _JP_HTML))
    yield Sample(
        "lines-of-998",
        message("\n".join("x" * 998 for _ in range(3)) + "\n" + "é" * 499 + "\n"),
    )
    yield Sample("lines-that-begin-with-dots", message(".\n..\n.hidden\n"))
    yield Sample("control-characters", message(b"bell \x07, escape \x1b[31m, \x7f, \x0c\r\n"))
    yield Sample("all-octets", message(bytes(range(1, 256)).translate(None, b"\r\n") + b"\r\n"))
    yield Sample("a-megabyte", mime(_ENGLISH * 13_000, "text/plain; charset=utf-8", "8bit"))


_JP_HTML = "text/html; charset=iso-2022-jp"


def _crlf(text: str, charset: str) -> bytes:
    return text.replace("\n", "\r\n").encode(charset, "replace")
