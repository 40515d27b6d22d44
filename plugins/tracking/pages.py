"""The pages that people see, in English and Japanese, as complete HTML. Pure.

Everything is in the page itself: no scripts, no images, nothing from elsewhere. What comes from
outside is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, get_args

Language = Literal["en", "ja"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

CONFIRMATION = "unsubscribe"
"""The field that says that the form of the page was sent."""
REASON = "reason"
"""The field with the name of the reason that was chosen."""

_STYLE = """
:root { color-scheme: light dark; }
* { box-sizing: border-box; }
body { margin: 0; padding: 1.5rem; font: 1rem/1.7 system-ui, sans-serif;
  color: #1f2328; background: #f6f8fa; overflow-wrap: anywhere; }
main { max-width: 32rem; margin: 8vh auto 0; padding: 2rem; background: #fff;
  border: 1px solid #d0d7de; border-radius: .75rem; }
h1 { margin: 0 0 1rem; font-size: 1.4rem; line-height: 1.4; }
.brand { margin: 0 0 1rem; font-weight: 600; color: #57606a; }
.address { font-weight: 600; }
fieldset { margin: 1.5rem 0; padding: 0; border: 0; }
legend { padding: 0; font-weight: 600; }
label { display: flex; gap: .6rem; align-items: baseline; padding: .4rem 0; }
button { width: 100%; padding: .8rem 1rem; font: inherit; font-weight: 600; color: #fff;
  background: #0a58ca; border: 0; border-radius: .5rem; cursor: pointer; }
a, button, input { outline-offset: 3px; }
a { color: #0a58ca; }
nav { max-width: 32rem; margin: 1rem auto; text-align: right; }
section + section { margin-top: 2rem; }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117; }
  main { background: #161b22; border-color: #30363d; }
  .brand { color: #9da7b1; }
  a { color: #79b8ff; }
}
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Texts:
    """What the pages for unsubscribing say in one language; all of it plain text.

    Attributes:
        brand: whose mail it is; '' says nothing.
        heading, question, button: the page that asks.
        reasons: the question above the reasons.
        done_heading, done: the page that confirms.
    """

    brand: str
    heading: str
    question: str
    button: str
    reasons: str
    done_heading: str
    done: str


TEXTS: Mapping[Language, Texts] = {
    "en": Texts(
        brand="",
        heading="Unsubscribe",
        question="Do you want to stop getting these emails?",
        button="Unsubscribe",
        reasons="May we ask why? (optional)",
        done_heading="You are unsubscribed",
        done="You will not get these emails any more. One that is already on its way may still "
        "arrive.",
    ),
    "ja": Texts(
        brand="",
        heading="メールの配信停止",
        question="このメールの配信を停止しますか？",
        button="配信を停止する",
        reasons="よろしければ理由をお聞かせください（任意）",
        done_heading="配信を停止しました",
        done="今後、このメールはお届けしません。すでに送信されたメールは届く場合があります。",
    ),
}

_ADDRESS: Mapping[Language, str] = {"en": "Address:", "ja": "メールアドレス："}
_NAMES: Mapping[Language, str] = {"en": "English", "ja": "日本語"}
_TRY_AGAIN: Mapping[Language, tuple[str, str]] = {
    "en": (
        "Please try again",
        "We could not save this just now, and you are not unsubscribed yet. Please try again in a "
        "few minutes.",
    ),
    "ja": (
        "もう一度お試しください",
        "保存できなかったため、配信はまだ停止されていません。数分後にもう一度お試しください。",
    ),
}
_NOT_FOUND: Mapping[Language, tuple[str, str]] = {
    "en": (
        "This link does not work",
        "It may be incomplete or too old. Please try the link in the email again, or ask whoever "
        "sent it.",
    ),
    "ja": (
        "このリンクは使えません",
        "リンクが途中で切れているか、古くなっている可能性があります。メールのリンクをもう一度開くか、"
        "送信元にお問い合わせください。",
    ),
}


def masked(address: str) -> str:
    """An address that its owner knows again and others do not learn: `t***@example.com`."""
    local, at, domain = address.rpartition("@")
    return f"{local[:1]}***{at}{domain}" if at else f"{domain[:1]}***"


def preferred_language(field: str, default: Language) -> Language:
    """The language of ours that an Accept-Language field prefers (RFC 9110 12.5.4)."""
    best, weight = default, 0.0
    for item in field[:1000].lower().split(","):
        tag, _, parameter = item.strip().partition(";")
        primary = tag.strip().partition("-")[0]
        for language in LANGUAGES:
            if primary == language and _quality(parameter) > weight:
                best, weight = language, _quality(parameter)
    return best


def _quality(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    value = value.strip()
    if name.strip() != "q" or len(value) > 5 or not value.replace(".", "", 1).isdecimal():
        return 0.0
    return float(value)


def ask_page(
    language: Language, texts: Texts, address: str, reasons: Sequence[tuple[str, str]]
) -> bytes:
    """The page with the button.

    Args:
        language: what it is in.
        texts: what it says, in that language.
        address: whose mail it is; shown masked.
        reasons: names and texts of the reasons to choose from; none: it does not ask.
    """
    content = (
        f"<h1>{escape(texts.heading)}</h1>\n<p>{escape(texts.question)}</p>\n"
        f"{_address(language, address)}{_form(language, texts, reasons)}"
    )
    return _page(language, texts.heading, _brand(texts) + content, _switch(language))


def done_page(language: Language, texts: Texts, address: str) -> bytes:
    """The page that confirms."""
    content = (
        f"<h1>{escape(texts.done_heading)}</h1>\n"
        f"{_address(language, address)}<p>{escape(texts.done)}</p>\n"
    )
    return _page(language, texts.done_heading, _brand(texts) + content, "")


def try_again_page(language: Language, texts: Texts, address: str) -> bytes:
    """The page for when nothing could be saved; it has the button again."""
    heading, text = _TRY_AGAIN[language]
    content = (
        f"<h1>{heading}</h1>\n<p>{text}</p>\n"
        f"{_address(language, address)}{_form(language, texts, ())}"
    )
    return _page(language, heading, _brand(texts) + content, "")


def not_found_page() -> bytes:
    """The page for a link that is none of ours, in both languages at once."""
    content = "".join(
        f'<section lang="{language}">\n<h1>{heading}</h1>\n<p>{text}</p>\n</section>\n'
        for language, (heading, text) in _NOT_FOUND.items()
    )
    title = " / ".join(heading for heading, _ in _NOT_FOUND.values())
    return _page("en", title, content, "")


def _form(language: Language, texts: Texts, reasons: Sequence[tuple[str, str]]) -> str:
    choices = "".join(
        f'<label><input type="radio" name="{REASON}" value="{escape(name)}">'
        f"<span>{escape(text)}</span></label>\n"
        for name, text in reasons
    )
    if choices:
        choices = f"<fieldset>\n<legend>{escape(texts.reasons)}</legend>\n{choices}</fieldset>\n"
    return (
        f'<form method="post" action="?lang={language}">\n{choices}'
        f'<button type="submit" name="{CONFIRMATION}" value="yes">{escape(texts.button)}</button>\n'
        "</form>\n"
    )


def _address(language: Language, address: str) -> str:
    return (
        f'<p>{_ADDRESS[language]} <span class="address" dir="ltr">{escape(masked(address))}'
        "</span></p>\n"
    )


def _brand(texts: Texts) -> str:
    return f'<p class="brand">{escape(texts.brand)}</p>\n' if texts.brand else ""


def _switch(current: Language) -> str:
    links = "".join(
        f'<a href="?lang={one}" lang="{one}" hreflang="{one}">{_NAMES[one]}</a>\n'
        for one in LANGUAGES
        if one != current
    )
    return f'<nav aria-label="Language / 言語">\n{links}</nav>\n'


def _page(language: Language, title: str, content: str, after: str) -> bytes:
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="robots" content="noindex, nofollow">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{content}</main>\n{after}</body>\n</html>\n"
    ).encode("utf-8", "replace")
