"""Charts as SVG that stands in a page, and in XML just as well. Pure.

Colours are those of the classes in the style of the page, so that they follow light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 640
_BAR = 26
_LABEL = 150
_VALUE = 130
_LONGEST = 22


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: its label, its length from 0 to 1, and what is written behind it."""

    label: str
    length: float
    text: str


@dataclass(frozen=True, slots=True)
class Series:
    """Columns of one colour, one for each label below them."""

    name: str
    values: Sequence[int]


def bars(identifier: str, title: str, description: str, rows: Sequence[Bar]) -> str:
    """Bars from left to right, below each other.

    Args:
        identifier: unique in the page.
        title: what the chart shows.
        description: the same in a sentence, for those who do not see it.
        rows: the bars; texts may be from anyone.
    """
    room = _WIDTH - _LABEL - _VALUE
    parts = []
    for place, row in enumerate(rows):
        top = place * _BAR
        label = row.label if len(row.label) <= _LONGEST else f"{row.label[: _LONGEST - 1]}…"
        width = room * min(1.0, max(0.0, row.length))
        parts.append(
            f'<text class="label" x="{_LABEL - 8}" y="{top + 17}" text-anchor="end">'
            f"{escape(label)}</text>\n"
            f'<rect class="one" x="{_LABEL}" y="{top + 4}" width="{width:.1f}" height="18" '
            'rx="3"/>\n'
            f'<text x="{_LABEL + width + 6:.1f}" y="{top + 17}">{escape(row.text)}</text>\n'
        )
    return _svg(identifier, title, description, len(rows) * _BAR, "".join(parts))


def columns(
    identifier: str,
    title: str,
    description: str,
    labels: Sequence[str],
    series: Sequence[Series],
) -> str:
    """Groups of columns side by side, with a line at the highest value and a legend above.

    Args:
        identifier: unique in the page.
        title: what the chart shows.
        description: the same in a sentence, for those who do not see it.
        labels: below the groups.
        series: at most two, each with a value for each label.
    """
    top, height, left = 34, 180, 60
    bottom = top + height
    highest = max((value for one in series for value in one.values), default=0)
    step = (_WIDTH - left) / max(1, len(labels))
    width = step * 0.8 / max(1, len(series))
    parts = [
        f'<line class="axis" x1="{left}" y1="{y}" x2="{_WIDTH}" y2="{y}"/>\n'
        f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{text}</text>\n'
        for y, text in ((top, f"{highest:,}"), (bottom, "0"))
    ]
    for number, (one, style) in enumerate(zip(series, ("one", "two"), strict=False)):
        legend = left + number * 160
        parts.append(
            f'<rect class="{style}" x="{legend}" y="4" width="12" height="12" rx="2"/>\n'
            f'<text x="{legend + 18}" y="14">{escape(one.name)}</text>\n'
        )
        for place, value in enumerate(one.values):
            size = height * value / highest if highest else 0
            x = left + place * step + step * 0.1 + number * width
            parts.append(
                f'<rect class="{style}" x="{x:.1f}" y="{bottom - size:.1f}" '
                f'width="{width:.1f}" height="{size:.1f}"/>\n'
            )
    parts += [
        f'<text class="label" x="{left + (place + 0.5) * step:.1f}" y="{bottom + 18}" '
        f'text-anchor="middle">{escape(label)}</text>\n'
        for place, label in enumerate(labels)
    ]
    return _svg(identifier, title, description, bottom + 28, "".join(parts))


def _svg(identifier: str, title: str, description: str, height: int, content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-labelledby="{identifier}-title {identifier}-description">\n'
        f'<title id="{identifier}-title">{escape(title)}</title>\n'
        f'<desc id="{identifier}-description">{escape(description)}</desc>\n{content}</svg>\n'
    )
