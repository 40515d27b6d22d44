"""Messages with odd headers. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.testing.corpus.sample import AUTHOR, DATE, Sample, message

_LONG = "=?utf-8?B?44GT44KT44Gr44Gh44Gv?="


def headers() -> Iterator[Sample]:
    """Fields that are folded, repeated, missing, long or full of odd octets."""
    yield Sample(
        "folded",
        message(
            "Hi\n",
            "X-Tabs:\n\tone\n\t\ttwo",
            "X-Spaces:  \n   three   \n four",
            "X-Late:\n \n five",
            "References: " + "\n ".join(f"<{number}@example.com>" for number in range(40)),
        ),
    )
    yield Sample("encoded-words", message("Hi\n", subject="\n ".join([_LONG] * 8)))
    yield Sample(
        "encoded-words-odd",
        message(
            "Hi\n",
            f'X-Quoted: "{_LONG}"',
            "X-Cut: =?utf-8?B?44GT44?=",
            "X-Unknown: =?x-made-up?Q?a=20b?= =?utf-8?X?a?= =?utf-8?Q??=",
            subject="=?iso-2022-jp?B?GyRCJDM=?= =?iso-2022-jp?B?JHMbKEI=?=",
        ),
    )
    yield Sample(
        "octets-of-utf-8", message("Hi\n", "X-Name: 髙橋 Grüße", subject="ご注文の確認 ①".encode())
    )
    yield Sample("octets-of-shift-jis", message("Hi\n", subject="ご注文の確認".encode("cp932")))
    yield Sample("octets-of-nothing", message("Hi\n", b"X-Raw: \xff\xfe\x80 \x01\x1b\x7f"))
    yield Sample(
        "repeated",
        message(
            "Hi\n", f"From: {AUTHOR}", "To: eve@example.net", "Subject: Another", f"Date: {DATE}"
        ),
    )
    yield Sample("nearly-none", b"X-Only: this\r\n\r\nHi\r\n")
    yield Sample("without-from", b"To: ada@example.net\r\nSubject: Whose?\r\n\r\nHi\r\n")
    yield Sample("empty-fields", message("Hi\n", "X-Empty:", "X-Space: ", "Cc:", subject=""))
    yield Sample("names-of-odd-case", message("Hi\n", "cOnTeNt-TyPe: TEXT/Plain", "x-lower: 1"))
    yield Sample(
        "space-before-the-colon", message("Hi\n", "X-Space : 1", "Reply-To\t: a@example.com")
    )
    yield Sample(
        "names-that-are-odd", message("Hi\n", "X/y=z: 1", "_: 2", "1: 3", "X" * 300 + ": 4")
    )
    yield Sample("a-field-of-998", message("Hi\n", "X-Long: " + "x" * 990))
    yield Sample(
        "a-field-of-a-hundred-kilobytes",
        message("Hi\n", "X-Huge: " + "\n ".join(["y" * 900] * 110)),
    )
    yield Sample(
        "many-fields", message("Hi\n", *[f"X-{number}: {number}" for number in range(500)])
    )
    yield Sample("many-received", message("Hi\n", *[_received(number) for number in range(25)]))
    yield Sample(
        "addresses-odd",
        message(
            "Hi\n",
            'From: "Mori, Aiko \\"the boss\\"" (a comment (nested)) <news@example.com>',
            "Cc: undisclosed-recipients:;",
            "Bcc: hidden@example.org",
            "Reply-To: a@example.com, b@example.com,, <c@[192.0.2.1]>, d@",
            "Sender: @relay.example.com:e@example.com",
        ),
    )
    yield Sample("from-of-brackets", message("Hi\n", "From: " + "(" * 500 + "<" * 400))
    yield Sample(
        "already-signed",
        message(
            "Hi\n",
            "DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=s1; h=from:to;\n"
            "\tbh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA",
            "Authentication-Results: mx.example.net; dkim=none",
            "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=example.com; s=s1; b=AAAA",
        ),
    )


def _received(number: int) -> str:
    return (
        f"Received: from relay{number}.example.com (relay{number}.example.com [192.0.2.{number}])\n"
        f"\tby relay{number + 1}.example.com with ESMTPS id {number:08x};\n\t{DATE}"
    )
