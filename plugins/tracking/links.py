"""Finding the links in HTML, as the tokenizer of the HTML Standard would. Pure.

Nothing is parsed into a tree and nothing is written anew: what comes out are the places of URLs in
the text. The time is linear in the length of the text, whatever is in it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from plugins.tracking.attribute import decode

_LONGEST_NAME = 64
_BLANK = " \t\n\f\r"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# The engine keeps every repetition in mind. Past so many attributes, a tag is taken for one that
# does not end.
_MOST_ATTRIBUTES = 1000


class Link(NamedTuple):
    """A link, in terms of the text that it stands in.

    Attributes:
        start, end: where the URL is, without quotes and without white space around it.
        raw: the URL as it is written, with its character references.
        name: what the attribute `data-link-name` calls the link, '' without one.
        tracked: whether there is no `data-track="off"`.
        text: where the tag ends, and so the text of the link begins.
    """

    start: int
    end: int
    raw: str
    name: str
    tracked: bool
    text: int

    @property
    def value(self) -> str:
        """The URL as a browser reads it."""
        return decode(self.raw)


class Scan(NamedTuple):
    """What is in a text.

    Attributes:
        links: in order.
        body_end: where the last `</body>` begins that is no part of a comment; None without one.
        complete: whether no tag, comment or script is left open at the end, which would hide what
            is added there.
    """

    links: list[Link]
    body_end: int | None
    complete: bool


def _any_case(*names: str) -> str:
    """A pattern for names in any case."""
    return "|".join(
        "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in name) for name in names
    )


_SPACE = r"[ \t\n\f\r]"
_NAME = r"[^ \t\n\f\r/>]"
_END = r"(?=[ \t\n\f\r/>])"
_HREF = rf"{_any_case('href')}(?=[ \t\n\f\r/>=])"
# A value whose quotes do not end is none: to a browser such a tag does not end either.
_VALUE = rf"""={_SPACE}*+(?:"[^"]*+"|'[^']*+'|(?!["'])[^ \t\n\f\r>]*+)"""
_KEPT_VALUE = rf"""={_SPACE}*+(?:"([^"]*+)"|'([^']*+)'|(?!["'])([^ \t\n\f\r>]*+))"""
# An attribute, or white space and slashes between two.
_ATTRIBUTE = rf"(?:[ \t\n\f\r/]++|[^ \t\n\f\r/>][^ \t\n\f\r/>=]*+{_SPACE}*+(?:{_VALUE}|(?!=)))"
_ATTRIBUTES = rf"{_ATTRIBUTE}{{0,{_MOST_ATTRIBUTES}}}"

_LINKED = rf"(?:{_any_case('a', 'area')}|[vV]:{_NAME}*+)"
_RAW_NAMES = ("style", "script", "title", "textarea", "xmp", "iframe", "noembed", "noframes")
_RAW = _any_case(*_RAW_NAMES)
_PLAIN = _any_case("plaintext")
_BODY = _any_case("body")
# The tags that `_FOUND` finds, sorted by their first letters for speed.
_NOTABLE = "|".join(
    (
        rf"[aA](?:{_any_case('rea')}|){_END}",
        r"[vV]:",
        rf"[sS](?:{_any_case('tyle', 'cript')}){_END}",
        rf"[tT](?:{_any_case('itle', 'extarea')}){_END}",
        rf"[xX]{_any_case('mp')}{_END}",
        rf"[iI]{_any_case('frame')}{_END}",
        rf"[nN][oO](?:{_any_case('embed', 'frames')}){_END}",
        rf"[pP]{_any_case('laintext')}{_END}",
    )
)
# Both match a tag that does not end, too, and say so by a group: if the engine failed there, it
# would go back and try all other ways to divide the tag into attributes.
# Text, and the tags between. Most attributes are as in the first way, which is there for speed.
_SKIPPED = re.compile(
    rf"[^<]*+(?:<(?:(?:(?!{_NOTABLE})[A-Za-z]|/(?!{_BODY}{_END})[A-Za-z]){_NAME}*+"
    rf'(?:>|(?: [a-z-]++="[^"]*+"|{_ATTRIBUTE}){{0,{_MOST_ATTRIBUTES}}}(?:>|(?P<open>)))'
    r"|(?:\?|!(?!--)|/(?![A-Za-z]))[^>]*+>|(?![A-Za-z/!?]))[^<]*+){0,50}"
)
_FOUND = re.compile(
    rf"<(?:{_LINKED}{_END}(?:(?!{_HREF}){_ATTRIBUTE}){{0,{_MOST_ATTRIBUTES}}}"
    rf"(?:{_HREF}{_SPACE}*+(?:{_KEPT_VALUE}|(?!=)))?{_ATTRIBUTES}(?:(?P<link>>)|(?P<open>))"
    rf"|(?P<raw>{_RAW}){_END}{_ATTRIBUTES}(?:>|(?P<open_raw>))"
    rf"|/{_BODY}{_END}{_ATTRIBUTES}(?:(?P<body>>)|(?P<open_body>))"
    rf"|(?P<plain>{_PLAIN}){_END}"
    # What Outlook reads and others do not: <!--[if mso]>, and also <!--[if !mso]><!-->.
    r"|!--(?P<comment>\[if[^\]>]*+\]>|))"
)
_COMMENT_END = re.compile(r"--!?>")
_EMPTY_COMMENT = re.compile(r"-?>")
_RAW_END = {name: re.compile(rf"</{_any_case(name)}{_END}") for name in _RAW_NAMES}
_TAG_NAME = re.compile(rf"<{_NAME}++")
_NAMED = re.compile(
    rf"[ \t\n\f\r/]++|([^ \t\n\f\r/>][^ \t\n\f\r/>=]*+){_SPACE}*+(?:{_KEPT_VALUE})?"
)
_OFF = frozenset(("off", "false", "no", "0"))


def scan(html: str) -> Scan:
    """Finds the `href` of every `<a>`, `<area>` and VML shape.

    What a browser takes for text has no links: the content of scripts, styles and comments. But
    the markup in conditional comments, which Outlook reads, has.
    """
    links: list[Link] = []
    body_end, complete = _scan(html, 0, len(html), links)
    return Scan(links, body_end, complete)


def _scan(html: str, position: int, limit: int, links: list[Link]) -> tuple[int | None, bool]:
    """Adds the links of a stretch; returns where the body ends, and whether all was closed."""
    body_end: int | None = None
    while position < limit:
        skipped = _SKIPPED.match(html, position, limit)
        assert skipped is not None
        at = skipped.end()
        if skipped["open"] is not None:
            return body_end, False
        if at == limit:
            break
        found = _FOUND.match(html, at, limit)
        if found is None:
            if at == position:
                return body_end, False
            position = at
            continue
        position = found.end()
        kind = found.lastgroup
        if kind == "link":
            _add(links, found)
        elif kind == "body":
            body_end = at
        elif kind == "raw":
            end = _RAW_END[found["raw"].lower()].search(html, position, limit)
            if end is None:
                return body_end, False
            position = end.start()
        elif kind == "comment":
            empty = None if found["comment"] else _EMPTY_COMMENT.match(html, position, limit)
            end = empty or _COMMENT_END.search(html, position, limit)
            if end is None:
                return body_end, False
            if found["comment"]:
                # No comment ends in there, so it goes no deeper than this.
                _scan(html, position, end.start(), links)
            position = end.end()
        else:  # a tag that does not end, or <plaintext>, which never does
            return body_end, False
    return body_end, True


def _add(links: list[Link], tag: re.Match[str]) -> None:
    for group in (1, 2, 3):
        start, end = tag.span(group)
        if start >= 0:
            break
    else:
        return
    written = tag[group]
    raw = written.strip(_BLANK)
    if len(raw) != len(written):
        start += len(written) - len(written.lstrip(_BLANK))
        end = start + len(raw)
    tracked, name = True, ""
    whole = tag[0]
    if "data-" in whole.lower():
        attributes = _attributes(whole)
        tracked = attributes.get("data-track", "").strip().lower() not in _OFF
        name = " ".join(attributes.get("data-link-name", "").split())
        name = _CONTROL.sub("", name)[:_LONGEST_NAME]
    links.append(Link(start, end, raw, name, tracked, tag.end()))


def _attributes(tag: str) -> dict[str, str]:
    """The attributes of a tag; of those with one name the first counts."""
    attributes: dict[str, str] = {}
    name = _TAG_NAME.match(tag)
    assert name is not None
    for match in _NAMED.finditer(tag, name.end(), len(tag) - 1):
        if match[1] is not None:
            value = match[2] or match[3] or match[4] or ""
            attributes.setdefault(match[1].lower(), decode(value))
    return attributes
