"""A flame graph: who called whom, each as wide as the time that it took. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.stacks import Stack

_WIDTH = 1400.0
_ROW = 17
_NARROWEST = 0.4
_CHARACTER = 6.6
_COLOURS = (
    *("#8fb8de", "#f2b880", "#a8d5a2", "#e7a6a1", "#c9b1dd", "#f0dc82"),
    *("#9fd6d2", "#d8b59a", "#b9c4d0", "#f0b6d0", "#c5d88b"),
)


@dataclass
class _Box:
    """A function, called from one place: its samples, and what it called."""

    samples: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    called: dict[str, _Box] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        return max(self.stages, key=lambda stage: (self.stages[stage], stage))

    @property
    def height(self) -> int:
        return 1 + max((box.height for box in self.called.values()), default=0)


def svg(stacks: Sequence[Stack], title: str) -> str:
    """The graph as SVG for a browser: pointing at a box tells its name and its share.

    The outermost function is at the bottom. Colours are stages.
    """
    root = _Box()
    for stack in stacks:
        stage = stack.stage
        box = root
        _count(box, stage, stack.samples)
        for frame in stack.frames:
            box = box.called.setdefault(frame, _Box())
            _count(box, stage, stack.samples)
    ordered = sorted(root.stages, key=lambda stage: (-root.stages[stage], stage))
    colours = {stage: _COLOURS[at % len(_COLOURS)] for at, stage in enumerate(ordered)}
    legend = -(-len(ordered) // 6)
    top = (2 + legend) * _ROW
    height = top + root.height * _ROW + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH:.0f}" height="{height}"'
        ' font-family="monospace" font-size="11">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="4" y="{_ROW - 4}" font-size="13">{html.escape(title)}</text>',
    ]
    for at, stage in enumerate(ordered):
        x, y = 4 + at % 6 * _WIDTH / 6, (1 + at // 6) * _ROW
        share = 100 * root.stages[stage] / root.samples
        lines.append(
            f'<rect x="{x:.0f}" y="{y + 3}" width="11" height="11" fill="{colours[stage]}"/>'
        )
        lines.append(
            f'<text x="{x + 15:.0f}" y="{y + 13}">{html.escape(stage)} {share:.0f} %</text>'
        )
    lines += _boxes("all", root, 0.0, height - 4 - _ROW, root.samples, colours)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _count(box: _Box, stage: str, samples: int) -> None:
    box.samples += samples
    box.stages[stage] = box.stages.get(stage, 0) + samples


def _boxes(
    name: str, box: _Box, x: float, y: int, total: int, colours: dict[str, str]
) -> Iterator[str]:
    width = _WIDTH * box.samples / total
    if width < _NARROWEST:
        return
    room = int((width - 4) / _CHARACTER)
    shown = name if len(name) <= room else name[: max(0, room - 1)] + "…"
    text = f'<text x="{x + 2:.1f}" y="{y + 12}">{html.escape(shown)}</text>' if room > 2 else ""
    said = html.escape(f"{name}: {100 * box.samples / total:.1f} %")
    yield (
        f'<g><title>{said}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{_ROW - 1}" fill="{colours[box.stage]}" stroke="#fff" stroke-width="0.5"/>'
        f"{text}</g>"
    )
    for called in sorted(box.called):
        yield from _boxes(called, box.called[called], x, y - _ROW, total, colours)
        x += _WIDTH * box.called[called].samples / total
