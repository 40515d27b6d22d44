"""The footer itself: what it says, as text and as HTML."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from mail_gateway_legal_footer.config import Details, Language, is_address, is_url

NEAR_END = 65_536
"""Characters at the end of a text in which a footer is looked for."""

_RULE = "-" * 40
_LABELS: dict[Language, dict[str, str]] = {
    "ja": {
        "name": "送信者",
        "address": "所在地",
        "representative": "責任者",
        "contact": "お問い合わせ",
        "unsubscribe": "メールの配信停止はこちら",
    },
    "en": {
        "name": "Sender",
        "address": "Address",
        "representative": "Responsible",
        "contact": "Contact",
        "unsubscribe": "To receive no more of these messages",
    },
}
_STYLE = "margin-top:2em;border-top:1px solid #999;padding-top:1em;font-size:12px;color:#555"
# Characters of which Japanese charsets know one, and Unicode two: what is written as one of them
# may be read as the other.
_TWINS = tuple(zip("〜−‖—¢£¬", "～－∥―￠￡￢", strict=True))


@dataclass(frozen=True, slots=True)
class Footer:
    """A footer, ready to be added.

    Attributes:
        plain: its lines, for text; each ends in a line feed.
        html: the same as blocks of HTML.
        essentials: what the law asks for. A text with all of that in it needs no footer.
    """

    plain: str
    html: str
    essentials: frozenset[str]


def footer_of(details: Iterable[tuple[Language, Details]]) -> Footer:
    """The footer with these details, one language below the other."""
    pairs = list(details)
    blocks = [_lines(language, one) for language, one in pairs]
    return Footer(
        plain="".join(
            f"{_RULE}\n" + "".join(f"{label}: {', '.join(values)}\n" for label, values in block)
            for block in blocks
        ),
        html="".join(
            f'<div class="legal-footer" lang="{language}" style="{_STYLE}">\n'
            + "<br>\n".join(
                f"{escape(label)}: {', '.join(map(_linked, values))}" for label, values in block
            )
            + "\n</div>\n"
            for (language, _), block in zip(pairs, blocks, strict=True)
        ),
        essentials=frozenset(
            comparable(text)
            for _, one in pairs
            for text in (one.name, one.address, one.unsubscribe)
        ),
    )


def comparable(text: str) -> str:
    """A text without what layout and charsets do to it, so that it is found again."""
    text = "".join(text.split())
    if text.isascii():
        return text
    for one, other in _TWINS:
        text = text.replace(one, other)
    return "".join(unicodedata.normalize("NFKC", text).split())


def _lines(language: Language, details: Details) -> list[tuple[str, tuple[str, ...]]]:
    values = {
        "name": (details.name,),
        "address": (details.address,),
        "representative": (details.representative,) if details.representative else (),
        "contact": details.contact,
        "unsubscribe": (details.unsubscribe,),
    }
    labels = _LABELS[language]
    return [(labels[key], texts) for key, texts in values.items() if texts]


def _linked(value: str) -> str:
    """A value as HTML, to be clicked where that leads somewhere."""
    text = escape(value)
    if is_url(value):
        return f'<a href="{text}">{text}</a>'
    if is_address(value):
        return f'<a href="mailto:{text}">{text}</a>'
    return text
