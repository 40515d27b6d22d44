"""Providers: the receivers whose mail goes to many domains and is judged in one place. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.hooks import Route

OTHER = "other"
"""The one provider that everybody else is, as far as warm-up goes."""

_SITE = 80
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Provider:
    """Patterns of a receiver's domains and of its servers: `example.com`, `*.example.com`."""

    domains: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Destination:
    """Where mail goes, as far as a source's reputation is concerned.

    `provider` is what its mail is counted under. `judge` is who blocks a source: the provider, or
    for `other` the site, since one small site's opinion says nothing of the rest.
    """

    provider: str
    judge: str


PROVIDERS: Mapping[str, Provider] = {
    "gmail": Provider(("gmail.com", "googlemail.com"), ("*.google.com", "*.googlemail.com")),
    "yahoo": Provider(
        ("yahoo.com", "ymail.com", "rocketmail.com", "aol.com", "aim.com"), ("*.yahoodns.net",)
    ),
    "microsoft": Provider(
        ("outlook.com", "hotmail.com", "live.com", "msn.com", "outlook.jp", "hotmail.co.jp"),
        ("*.protection.outlook.com", "*.mx.microsoft"),
    ),
    "apple": Provider(("icloud.com", "me.com", "mac.com"), ("*.mail.icloud.com",)),
    "docomo": Provider(("docomo.ne.jp",), ("*.docomo.ne.jp",)),
    "au": Provider(
        ("ezweb.ne.jp", "*.ezweb.ne.jp", "au.com", "uqmobile.jp"), ("*.ezweb.ne.jp", "*.au.com")
    ),
    "softbank": Provider(
        (
            *("softbank.ne.jp", "i.softbank.jp", "ymobile.ne.jp", "yahoo.ne.jp", "disney.ne.jp"),
            *("*.vodafone.ne.jp", "willcom.com", "*.pdx.ne.jp"),
        ),
        ("*.softbank.ne.jp", "*.softbank.jp"),
    ),
    "yahoo_japan": Provider(("yahoo.co.jp", "ybb.ne.jp"), ("*.mail.yahoo.co.jp",)),
}
"""The receivers known without configuration."""


class _Patterns:
    """Finds the provider that a name belongs to; the longest pattern wins."""

    def __init__(self, patterns: Iterable[tuple[str, str]]) -> None:
        self._providers = dict(patterns)

    def find(self, name: str) -> str | None:
        found = self._providers.get(name)
        while found is None and "." in name:
            name = name.partition(".")[2]
            found = self._providers.get(f"*.{name}")
        return found


class Providers:
    """The providers of a configuration.

    Attributes:
        names: all of them, `other` last.
    """

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self.names = (*providers, OTHER)
        named = providers.items()
        self._domains = _Patterns((one, name) for name, each in named for one in each.domains)
        self._mx = _Patterns((one, name) for name, each in named for one in each.mx)
        self._known: dict[tuple[str, str], Destination] = {}

    def destination(self, domain: str, route: Route | None) -> Destination:
        """Where mail for a domain goes over a route.

        It is told by the domain, and where that is not known by the server to be tried first.
        """
        key = (domain, route.site if route is not None else "")
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[key] = self._find(domain, route)
        return found

    def _find(self, domain: str, route: Route | None) -> Destination:
        provider = self._domains.find(domain)
        if provider is None and route is not None and route.hops:
            provider = self._mx.find(route.hops[0].host.lower())
        if provider is not None:
            return Destination(provider, provider)
        return Destination(OTHER, short_site(route.site if route is not None else domain))


def short_site(site: str) -> str:
    """The name of a site, such as all its servers' names; a long one cut, and still unique."""
    if len(site) <= _SITE:
        return site
    return f"{site[: _SITE - 17]}#{hashlib.blake2b(site.encode(), digest_size=8).hexdigest()}"
