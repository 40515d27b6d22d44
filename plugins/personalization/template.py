"""A text with templates in it, ready to be filled again and again. Pure."""

from __future__ import annotations

import re
from typing import Literal

from plugins.personalization.rendering import Rendering, TemplateError
from plugins.personalization.statement import Statements
from plugins.personalization.syntax import Syntax

Kind = Literal["header", "text", "html"]
Span = tuple[int, int, str]

_LINE_BREAKS = re.compile(r"[\t\n\x0b\x0c\r\x1c-\x1e\x85\u2028\u2029]+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_CONTROLS_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+")
_HALF_PAIR = re.compile(r"[\ud800-\udfff]")


class Template:
    """The template in a text: literal text, and gaps that are filled.

    Args:
        text: all of it.
        kind: where it stands: a header field, or a part of plain text or of HTML.
        syntax: how to read it.
        allow_html: whether the filter `safe` may be used.

    Raises:
        TemplateError: it is no template; its offset is one of `text`.
    """

    def __init__(self, text: str, kind: Kind, syntax: Syntax, *, allow_html: bool = False) -> None:
        self._kind = kind
        tree = syntax.parse(text, is_html=kind == "html")
        statements = Statements(allow_html, tree.literal)
        try:
            self._gaps = [
                (gap.start, gap.end, [statements.compile(node) for node in gap.body])
                for gap in tree.gaps
            ]
        except TemplateError as error:
            raise TemplateError(str(error), tree.places.original(error.offset)) from None
        except RecursionError:
            raise TemplateError("this is nested too deeply", 0) from None
        self._places = tree.places
        # Reading it was work too, which counts whether it was done for this message or before.
        self._cost = sum(end - start for start, end, _ in self._gaps) >> 2

    def fill(self, rendering: Rendering) -> list[Span]:
        """The stretches of the text that change, and what takes their places.

        Raises:
            TemplateError: that cannot be done with these values; its offset is one of the text.
        """
        spans = []
        try:
            rendering.spend(self._cost)
            for start, end, statements in self._gaps:
                out: list[str] = []
                rendering.out = out
                for statement in statements:
                    statement(rendering)
                text = "".join(out)
                spans.append((start, end, text if text.isprintable() else self._cleaned(text)))
        except TemplateError as error:
            raise TemplateError(str(error), self._places.original(error.offset)) from None
        except ValueError as error:
            raise TemplateError(str(error), 0) from None
        return spans

    def _cleaned(self, text: str) -> str:
        """Text without what a value must not bring into mail: controls, and half characters.

        None of these is printable, so that most texts need not be cleaned.
        """
        text = _HALF_PAIR.sub("\ufffd", text)
        if self._kind == "header":
            return _CONTROLS.sub("", _LINE_BREAKS.sub(" ", text))
        return _CONTROLS_IN_TEXT.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """The line and the column, both from 1, of a place in a text."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
