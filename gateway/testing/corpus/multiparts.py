"""Messages of several parts: alternatives, files, messages in messages, signatures. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.testing.corpus.sample import (
    Sample,
    base64,
    header,
    joined,
    message,
    mime,
    multipart,
    nested,
    part,
    quoted_printable,
)

_PLAIN = part("Hello Ada,\nhave a look.\n", "text/plain; charset=utf-8")
_HTML = part("<p>Hello <a href=https://example.com/>Ada</a></p>\n", "text/html; charset=utf-8")
_JAPANESE = part(
    base64("<p>こんにちは</p>\n"), "text/html; charset=utf-8", "base64", "Content-Language: ja"
)
_IMAGE = part(
    base64(b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
    'image/png; name="pixel.png"',
    "base64",
    "Content-ID: <pixel@example.com>",
    'Content-Disposition: inline; filename="pixel.png"',
)
_FILE = part(
    base64(b"%PDF-1.7\n" + b"\0\1\2" * 300),
    "application/pdf",
    "base64",
    "Content-Disposition: attachment; filename=bill.pdf",
)
_INNER = header(subject="The message inside") + b"\r\nInside.\r\n"
_CALENDAR = """BEGIN:VCALENDAR
VERSION:2.0
METHOD:REQUEST
BEGIN:VEVENT
UID:7@example.com
DTSTART:20261120T010000Z
SUMMARY:Tea
END:VEVENT
END:VCALENDAR
"""
_PGP = "-----BEGIN PGP {0}-----\n\naGVsbG8gd29ybGQ=\n=abcd\n-----END PGP {0}-----\n"


def multiparts() -> Iterator[Sample]:
    """Every kind of multipart that mail programs make, whole ones."""
    yield Sample("alternative", multipart("alternative", "b1", _PLAIN, _HTML))
    yield Sample(
        "newsletter",
        message(
            joined(
                "=_news",
                part(quoted_printable("Grüße\n"), "text/plain; charset=utf-8", "quoted-printable"),
                part(
                    quoted_printable("<h1>Grüße</h1>\n" + "<p>Buy it now.</p>\n" * 40),
                    "text/html; charset=utf-8",
                    "quoted-printable",
                ),
            ),
            "MIME-Version: 1.0",
            'Content-Type: multipart/alternative;\n boundary="=_news"; charset=utf-8',
            "List-Unsubscribe: <https://example.com/u?1>, <mailto:leave@example.com>",
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
            "Precedence: bulk",
            "X-Campaign: autumn",
        ),
    )
    yield Sample(
        "alternative-related-mixed",
        multipart(
            "mixed",
            "m1",
            nested("alternative", "a1", _PLAIN, nested("related", "r1", _HTML, _IMAGE)),
            _FILE,
        ),
    )
    yield Sample("related", multipart("related", "r2", _JAPANESE, _IMAGE))
    yield Sample(
        "amp",
        multipart(
            "alternative",
            "amp",
            _PLAIN,
            part("<!doctype html>\n<html ⚡4email data-css-strict></html>\n", _AMP, "8bit"),
            _HTML,
        ),
    )
    yield Sample(
        "calendar",
        multipart(
            "alternative",
            "cal",
            _PLAIN,
            part(_CALENDAR, "text/calendar; charset=utf-8; method=REQUEST"),
        ),
    )
    yield Sample("calendar-alone", mime(_CALENDAR, "text/calendar; charset=utf-8; method=REQUEST"))
    yield Sample("text-files-attached", multipart("mixed", "t1", _PLAIN, *_text_files()))
    yield Sample(
        "names-in-rfc-2231",
        multipart(
            "mixed",
            "n1",
            _PLAIN,
            part(
                base64(b"x" * 60),
                "application/pdf; name*0*=utf-8'ja'%E8%AB%8B; name*1*=%E6%B1%82; name*2=.pdf",
                "base64",
                "Content-Disposition: attachment; filename*=UTF-8''%E8%AB%8B%E6%B1%82.pdf",
            ),
            part(
                base64(b"y" * 60),
                'application/pdf; name="=?ISO-2022-JP?B?GyRCQEE1YT1xGyhC?=.pdf"',
                "base64",
                'Content-Disposition: attachment; filename="=?UTF-8?B?6KuL5rGC?=.pdf"',
            ),
        ),
    )
    yield Sample(
        "forwarded", multipart("mixed", "f1", _PLAIN, part(_INNER, "message/rfc822", "8bit"))
    )
    yield Sample("forwarded-alone", mime(_INNER, "message/rfc822"))
    yield Sample(
        "forwarded-three-deep",
        multipart(
            "mixed",
            "f2",
            _PLAIN,
            part(
                multipart(
                    "mixed",
                    "f3",
                    _HTML,
                    part(multipart("alternative", "f4", _PLAIN, _HTML), "message/rfc822"),
                ),
                "message/rfc822",
            ),
        ),
    )
    yield Sample(
        "digest",
        multipart("digest", "d1", b"\r\n" + _INNER, b"\r\n" + _INNER.replace(b"Inside", b"More")),
    )
    yield Sample(
        "parts-without-a-header", multipart("mixed", "w1", b"\r\nImplied text.\r\n", _HTML)
    )
    yield Sample("parts-that-are-empty", multipart("mixed", "e1", b"", b"\r\n", _PLAIN))
    yield Sample("deeply-nested", _deep(40))
    yield Sample("many-parts", multipart("mixed", "many", *[_PLAIN, _IMAGE] * 150))
    yield from _protected()


_AMP = "text/x-amp-html; charset=utf-8"


def _text_files() -> Iterator[bytes]:
    yield part("name,age\nada,36\n", "text/csv; name=list.csv", "7bit", _ATTACHED + "list.csv")
    yield part("<p>a file</p>\n", "text/html; name=page.html", "7bit", _ATTACHED + "page.html")
    yield part("log line\n", "text/plain; name=x.log", "7bit", _ATTACHED + "x.log")


_ATTACHED = "Content-Disposition: attachment; filename="


def _protected() -> Iterator[Sample]:
    """What is signed or encrypted: a changed octet breaks it."""
    yield Sample(
        "signed-with-s-mime",
        multipart(
            "signed",
            "s1",
            _PLAIN,
            part(
                base64(bytes(range(200))), "application/pkcs7-signature; name=smime.p7s", "base64"
            ),
            parameters='; protocol="application/pkcs7-signature"; micalg=sha-256',
        ),
    )
    yield Sample(
        "signed-with-openpgp",
        multipart(
            "signed",
            "s2",
            nested("alternative", "s3", _PLAIN, _HTML),
            part(_PGP.format("SIGNATURE"), "application/pgp-signature; name=signature.asc"),
            parameters='; protocol="application/pgp-signature"; micalg=pgp-sha256',
        ),
    )
    yield Sample(
        "signed-and-sent-on-by-a-list",
        multipart(
            "mixed",
            "s4",
            nested(
                "signed", "s5", _PLAIN, part(_PGP.format("SIGNATURE"), "application/pgp-signature")
            ),
            part("-- \nThe list\n", "text/plain"),
        ),
    )
    yield Sample(
        "signed-opaque",
        mime(
            base64(bytes(range(256)) * 2),
            "application/pkcs7-mime; smime-type=signed-data; name=smime.p7m",
            "base64",
        ),
    )
    yield Sample(
        "encrypted-with-openpgp",
        multipart(
            "encrypted",
            "c1",
            part("Version: 1\n", "application/pgp-encrypted"),
            part(_PGP.format("MESSAGE"), "application/octet-stream; name=encrypted.asc"),
            parameters='; protocol="application/pgp-encrypted"',
        ),
    )
    yield Sample(
        "encrypted-with-s-mime",
        mime(
            base64(bytes(range(256)) * 3),
            "application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m",
            "base64",
        ),
    )
    yield Sample("signed-in-the-text", message(_PGP.format("SIGNED MESSAGE")))


def _deep(levels: int) -> bytes:
    """Multiparts in multiparts."""
    inner = _PLAIN
    for level in range(levels):
        inner = nested("mixed", f"deep{level}", inner)
    return multipart("mixed", "deep", inner)
