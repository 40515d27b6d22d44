"""Domains that are one slip of the hand away from a big one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# Domains with very many mailboxes. Short names are left out: too many others look like them.
BIG = (
    "gmail.com",
    "yahoo.co.jp",
    "docomo.ne.jp",
    "ezweb.ne.jp",
    "icloud.com",
    "softbank.ne.jp",
    "i.softbank.jp",
    "yahoo.com",
    "hotmail.com",
    "hotmail.co.jp",
    "outlook.jp",
    "outlook.com",
    "ymobile.ne.jp",
    "ymobile1.ne.jp",
    "uqmobile.jp",
    "rakumail.jp",
    "nifty.com",
    "biglobe.ne.jp",
    "so-net.ne.jp",
    "plala.or.jp",
    "asahi-net.or.jp",
    "excite.co.jp",
    "infoseek.jp",
    "googlemail.com",
    "protonmail.com",
    "fastmail.com",
    "rocketmail.com",
    "yandex.ru",
    "naver.com",
    "hanmail.net",
    "hotmail.co.uk",
    "yahoo.co.uk",
    "btinternet.com",
    "virginmedia.com",
    "hotmail.fr",
    "orange.fr",
    "wanadoo.fr",
    "laposte.net",
    "t-online.de",
    "freenet.de",
    "libero.it",
    "comcast.net",
    "verizon.net",
    "sbcglobal.net",
    "bellsouth.net",
    "charter.net",
    "rediffmail.com",
)

# Domains of others that look like one of these.
OTHERS = frozenset(
    {
        "cloud.com",
        "email.com",
        "fifty.com",
        "hotmail.de",
        "libera.it",
        "liberi.it",
        "mail.com",
        "never.com",
        "outlook.at",
        "outlook.be",
        "outlook.cl",
        "outlook.co",
        "plaza.or.jp",
        "yandex.com",
        "ymail.com",
    }
)


class Misspellings:
    """Finds the domain that was meant.

    Args:
        known: normal domains that are spelled right, besides those that are known to be.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._right = {*BIG, *OTHERS, *known}
        # Two words that are one slip apart have a word in common that lacks at most one letter.
        self._meant: dict[str, list[str]] = {}
        for domain in BIG:
            for shorter in _shortened(domain):
                self._meant.setdefault(shorter, []).append(domain)

    def meant(self, domain: str) -> str | None:
        """The big domain that this one is a misspelling of; None if it is none."""
        if domain in self._right:
            return None
        for shorter in _shortened(domain):
            for candidate in self._meant.get(shorter, ()):
                if is_one_slip(domain, candidate):
                    return candidate
        return None


def _shortened(word: str) -> Iterator[str]:
    yield word
    for place in range(len(word)):
        yield word[:place] + word[place + 1 :]


def is_one_slip(one: str, other: str) -> bool:
    """Whether a letter too many, too few or wrong, or two exchanged ones, is all the difference."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    if len(one) > len(other):
        return one[start + 1 :] == other[start:]
    if len(one) < len(other):
        return one[start:] == other[start + 1 :]
    exchanged = one[start : start + 2] == other[start : start + 2][::-1]
    return one[start + 1 :] == other[start + 1 :] or (
        exchanged and one[start + 2 :] == other[start + 2 :]
    )
