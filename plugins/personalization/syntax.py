"""From a text to its literal pieces, which stay as they are, and the trees between them. Pure.

Jinja2's lexer and parser do it, with places in the text where they have numbers of lines.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.lexer import Lexer
from jinja2.parser import Parser

from plugins.personalization.rendering import TemplateError

MAX_TOKENS = 20_000
"""Names, signs and pieces of literal text in one template."""
MAX_LENGTH = 4 << 20
"""Characters of a text with a template in it."""

_PLACE = re.compile(r" at (\d+)$")
_UNKNOWN_TAG = re.compile(r"Encountered unknown tag '(.*?)'")
_UNCLOSED = re.compile(r"needs to be closed is '(.*?)'")
_BEGINS_COMMENT = re.compile(r"[-+\s]")
_REST_OF_LINE = re.compile(r"[ \t]*(?:\n|\Z)")
_MASK = "\ue000"

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Delimiters:
    """What begins and ends a variable, a block and a comment."""

    variable: Pair = ("{{", "}}")
    block: Pair = ("{%", "%}")
    comment: Pair = ("{#", "#}")

    @property
    def openings(self) -> tuple[str, str, str]:
        """What a text with a template in it has in it."""
        return self.variable[0], self.block[0], self.comment[0]

    def are_in(self, text: str) -> bool:
        """Whether there may be a template in a text."""
        variable, block, comment = self.openings
        return variable in text or block in text or comment in text


@dataclass(slots=True)
class Gap:
    """A stretch of the text, from `start` to `end`, and what takes its place."""

    start: int
    end: int
    body: list[nodes.Node] = field(default_factory=list)


class Syntax:
    """Parses templates."""

    def __init__(self, delimiters: Delimiters) -> None:
        self._delimiters = delimiters
        self._environment = _Environment(
            variable_start_string=delimiters.variable[0],
            variable_end_string=delimiters.variable[1],
            block_start_string=delimiters.block[0],
            block_end_string=delimiters.block[1],
            comment_start_string=delimiters.comment[0],
            comment_end_string=delimiters.comment[1],
            keep_trailing_newline=True,
        )
        pairs = (delimiters.variable, delimiters.block, delimiters.comment)
        self._ends = dict(pairs)
        openings = sorted(self._ends, key=len, reverse=True)
        self._opening = re.compile("|".join(map(re.escape, openings)))

    def parse(self, text: str, *, is_html: bool) -> Tree:
        """Finds the gaps in a text.

        In HTML, entities inside of tags are what they stand for, and a comment begins only where
        white space follows.

        Raises:
            TemplateError: it is no template; the offset is one of `text`.
        """
        if len(text) > MAX_LENGTH:
            raise TemplateError(f"a text with a template has at most {MAX_LENGTH} characters", 0)
        source = text.replace("\r", " ")
        shifts: list[tuple[int, int]] = []
        if is_html:
            source, shifts = self._without_entities(source)
        places = Places(shifts)
        try:
            tree = Parser(self._environment, source).parse()
        except TemplateSyntaxError as error:
            text_of_error, place = self._complaint(str(error.message), error.lineno, source)
            raise TemplateError(text_of_error, places.original(place)) from None
        except RecursionError:
            raise TemplateError("this is nested too deeply", 0) from None
        except ValueError:
            raise TemplateError("a number has too many digits", 0) from None
        return Tree(text, places, tree.body)

    def _complaint(self, text: str, place: int, source: str) -> tuple[str, int]:
        """What Jinja2 complains of, as short as our own texts, and where that is."""
        if match := _UNKNOWN_TAG.match(text):
            return f'the tag "{match[1]}" is unknown, or cannot stand here', place
        if match := _UNCLOSED.search(text):
            return f'the block "{match[1]}" has no end', self._last_open(source, place)
        text = text.replace("expected token", "expected").replace("'end of", "'the end of")
        return (text[:1].lower() + text[1:]).rstrip("."), place

    def _last_open(self, source: str, default: int) -> int:
        """The place of the innermost block that has no end."""
        opened: list[int] = []
        in_tag = False
        for place, kind, value in self._environment.lexer.tokeniter(source, None):
            if in_tag and kind == "name" and value in ("if", "for"):
                opened.append(place)
            elif opened and in_tag and kind == "name" and value in ("endif", "endfor"):
                opened.pop()
            in_tag = kind == "block_begin" or (in_tag and kind == "whitespace")
        return opened[-1] if opened else default

    def _without_entities(self, source: str) -> tuple[str, list[tuple[int, int]]]:
        """HTML with the entities in its tags resolved, and where its places shift by that.

        What looks like a comment but is CSS, such as `@media print{#menu{…}}`, is masked.
        """
        pieces: list[str] = []
        shifts: list[tuple[int, int]] = []
        endless: set[str] = set()
        done = length = 0
        while match := self._opening.search(source, done):
            opening, start, end = match[0], match.start(), match.end()
            tag = opening
            if opening == self._delimiters.comment[0] and not _BEGINS_COMMENT.match(source, end):
                tag = _MASK * len(opening)
            elif opening not in endless:
                found = source.find(self._ends[opening], end)
                if found < 0:
                    endless.add(opening)
                else:
                    end = found
                    tag = html.unescape(source[start:end]).replace("\xa0", " ")
            pieces += source[done:start], tag
            length += start - done + len(tag)
            if len(tag) != end - start:
                shifts.append((length, end))
            done = end
        pieces.append(source[done:])
        return "".join(pieces), shifts


class Places:
    """Places in the parsed text → places in the text as it came."""

    def __init__(self, shifts: list[tuple[int, int]]) -> None:
        self._shifts = shifts
        self._starts = [shift[0] for shift in shifts]

    def original(self, place: int) -> int:
        """The place in the text as it came; inside of a tag with entities about the right one."""
        index = bisect_right(self._starts, place)
        if index == 0:
            return place
        start, original = self._shifts[index - 1]
        return original + place - start


class Tree:
    """A parsed text."""

    def __init__(self, text: str, places: Places, body: list[nodes.Node]) -> None:
        self._text = text
        self._body = body
        self.places = places

    def literal(self, node: nodes.TemplateData) -> str:
        """The text that a piece of literal text is."""
        return self._text[slice(*self._span(node))]

    def _span(self, node: nodes.TemplateData) -> tuple[int, int]:
        start, end = node.lineno, node.lineno + len(node.data)
        return self.places.original(start), self.places.original(end)

    @cached_property
    def gaps(self) -> list[Gap]:
        """What is between the literal pieces, in order."""
        gaps, gap = [], Gap(0, 0)
        for node in self._flattened():
            if not isinstance(node, nodes.TemplateData):
                gap.body.append(node)
                continue
            gap.end, end = self._span(node)
            gaps.append(gap)
            gap = Gap(end, end)
        gap.end = len(self._text)
        gaps.append(gap)
        return [gap for gap in gaps if gap.body or gap.start < gap.end]

    def _flattened(self) -> Iterator[nodes.Node]:
        for node in self._body:
            if isinstance(node, nodes.Output):
                yield from node.nodes
            else:
                yield node


class _Lexer(Lexer):
    """Jinja2's, with places instead of lines, and without the lines that only hold a tag."""

    def tokeniter(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> Iterator[tuple[int, str, str]]:
        tokens: list[tuple[int, str, str]] = []
        place = 0
        try:
            for _, kind, value in super().tokeniter(source, name, filename, state):
                place = source.index(value, place)
                tokens.append((place, kind, value))
                place += len(value)
                if len(tokens) > MAX_TOKENS:
                    raise TemplateSyntaxError(f"more than {MAX_TOKENS} names and signs", place)
        except TemplateSyntaxError as error:
            text = str(error.message)
            if match := _PLACE.search(text):
                text, place = text[: match.start()], int(match[1])
            raise TemplateSyntaxError(text, place, name, filename) from None
        return _without_lines_of_tags(source, tokens)


def _without_lines_of_tags(
    source: str, tokens: list[tuple[int, str, str]]
) -> Iterator[tuple[int, str, str]]:
    """Takes the rest of the line away from tags that stand alone on theirs."""
    ends_at: dict[int, int] = {}
    starts_at: dict[int, int] = {}
    begin = line = done = 0
    alone = False
    for place, kind, value in tokens:
        if kind in ("block_begin", "comment_begin"):
            before = source[done:place].rstrip(" \t")
            begin, line = place, done + len(before)
            alone = value[-1] not in "-+" and (line == 0 or source[line - 1] == "\n")
        elif kind in ("block_end", "comment_end") and alone and value[0] not in "-+":
            rest = _REST_OF_LINE.match(source, place + len(value))
            if rest:
                ends_at[begin], starts_at[rest.pos] = line, rest.end()
        if kind != "data":
            done = place + len(value)
    for place, kind, value in tokens:
        if kind == "data":
            start = starts_at.get(place, place)
            end = ends_at.get(place + len(value), place + len(value))
            if start < end:
                yield start, kind, source[start:end]
        else:
            yield place, kind, value


class _Environment(Environment):
    @cached_property
    def lexer(self) -> Lexer:
        """A lexer of its own, for Jinja2 shares those that it makes."""
        return _Lexer(self)
