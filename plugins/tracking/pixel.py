"""The image that says that a message was opened. Pure."""

from __future__ import annotations

from plugins.tracking.links import Scan


def place(html: str, scan: Scan) -> int | None:
    """Where the image goes: before `</body>`, or at the end of a text without one.

    None where nothing that is added would be seen, because a comment or a tag does not end.
    """
    if scan.body_end is not None:
        return scan.body_end
    return len(html.rstrip()) if scan.complete else None


def image(url: str) -> str:
    """An image of one pixel, which programs that read mail aloud pass over."""
    return f'<img src="{url}" alt="" width="1" height="1" border="0" style="display:block">'
