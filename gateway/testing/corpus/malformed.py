"""Messages that break the rules and come all the same. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.testing.corpus.sample import Sample, header, joined, message, mime, multipart, part

_PLAIN = part("Hello\n", "text/plain")
_HTML = part("<p>Hello</p>\n", "text/html")
_VERSION = "MIME-Version: 1.0"


def malformed() -> Iterator[Sample]:
    """Broken structure: what SMTP carries, and RFC 5322 and MIME forbid."""
    whole = multipart("alternative", "b1", _PLAIN, _HTML)
    yield Sample("empty", b"")
    yield Sample("a-blank-line", b"\r\n")
    yield Sample("no-header", b"\r\nA body and no header.\r\n")
    yield Sample("no-body", header())
    yield Sample("no-body-but-a-blank-line", header() + b"\r\n")
    yield Sample("no-blank-line", header() + b"This is no field, the body begins.\r\n\r\nMore.\r\n")
    yield Sample("no-field-at-all", b"Hello, this is a letter: of one line\r\nand another\r\n")
    yield Sample("no-final-line-end", header() + b"\r\nIt ends here")
    yield Sample("only-a-dot", header() + b"\r\n.\r\n")
    yield Sample(
        "begins-with-a-continuation", b" folded into nothing\r\n" + header() + b"\r\nHi\r\n"
    )
    yield Sample(
        "begins-with-a-mailbox-line", b"From news Sat Nov 14\r\n" + header() + b"\r\nHi\r\n"
    )
    yield Sample("boundary-never-ends", whole.rpartition(b"--b1--")[0])
    yield Sample("boundary-never-begins", whole.replace(b"--b1", b"--other"))
    yield Sample("boundary-missing", message(joined("b1", _PLAIN), _VERSION, _MIXED))
    yield Sample("boundary-empty", message(joined("", _PLAIN), _VERSION, f'{_MIXED}; boundary=""'))
    yield Sample(
        "boundary-odd",
        message(
            joined("a b?(=)+'/:,", _PLAIN, _HTML), _VERSION, f'{_MIXED}; boundary="a b?(=)+\'/:,"'
        ),
    )
    yield Sample(
        "boundary-inside-a-longer-one",
        multipart("mixed", "x", part(joined("xx", _PLAIN), 'multipart/mixed; boundary="xx"')),
    )
    yield Sample("text-after-the-end", whole + b"An epilogue.\r\n--b1\r\n\r\nanother part\r\n")
    yield Sample(
        "text-before-the-begin", whole.replace(b"\r\n\r\n--b1", b"\r\n\r\nProlog\r\n--b1", 1)
    )
    yield Sample("spaces-after-boundaries", whole.replace(b"--b1\r\n", b"--b1 \t\r\n"))
    yield Sample("content-type-of-nonsense", mime("Hello\n", ';;; = /// "', "7bit"))
    yield Sample(
        "content-type-twice", mime("Hello\n", "text/html", "7bit", "Content-Type: text/plain")
    )
    yield Sample("encoding-twice", mime("SGVsbG8K\n", "text/plain", "base64", _ENCODING + "7bit"))
    yield Sample(
        "encoding-on-a-multipart",
        message(
            joined("b1", _PLAIN, _HTML), _VERSION, f"{_MIXED}; boundary=b1", _ENCODING + "base64"
        ),
    )
    yield Sample("message-of-a-nonsense", mime("no header\nhere\n", "message/rfc822", "base64"))


_MIXED = "Content-Type: multipart/mixed"
_ENCODING = "Content-Transfer-Encoding: "
