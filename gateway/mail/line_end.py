"""CR and LF that are not a pair (RFC 5321 2.3.8). Pure."""

from __future__ import annotations

import io


def bare_line_end(octets: bytes) -> str | None:
    """`LF` or `CR`, if there is one without the other; LF where there are both; None if not.

    Python's decoder for files takes note of the line ends that it sees: one look at each octet, in
    C. Counting them takes four times as long.
    """
    decoder = io.IncrementalNewlineDecoder(None, translate=False)
    decoder.decode(octets.decode("latin-1"), final=True)
    seen = decoder.newlines
    if seen is None or seen == "\r\n":
        return None
    return "LF" if "\n" in seen else "CR"
