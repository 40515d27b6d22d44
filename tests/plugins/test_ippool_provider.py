"""To which provider mail goes: by the domain, and else by the server that takes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Hop, Route
from plugins.ippool.provider import PROVIDERS, Destination, Provider, Providers, short_site
from tests.plugins.ippool_site import route_to

SHIPPED = Providers(PROVIDERS)


@pytest.mark.parametrize(
    ("domain", "mx", "provider"),
    [
        ("gmail.com", "gmail-smtp-in.l.google.com", "gmail"),
        ("company.example", "aspmx.l.google.com", "gmail"),
        ("company.example", "ASPMX.L.GOOGLE.COM", "gmail"),
        ("yahoo.com", "mta5.am0.yahoodns.net", "yahoo"),
        ("att.net", "mx-att.mail.am0.yahoodns.net", "yahoo"),
        ("hotmail.co.jp", "hotmail-co-jp.olc.protection.outlook.com", "microsoft"),
        ("company.example", "company-example.mail.protection.outlook.com", "microsoft"),
        ("company.example", "company-example.a-v1.mx.microsoft", "microsoft"),
        ("icloud.com", "mx01.mail.icloud.com", "apple"),
        ("docomo.ne.jp", "mfsmax.docomo.ne.jp", "docomo"),
        ("ezweb.ne.jp", "lsean.ezweb.ne.jp", "au"),
        ("t.vodafone.ne.jp", "mx.softbank.ne.jp", "softbank"),
        ("i.softbank.jp", "mx.i.softbank.jp", "softbank"),
        ("yahoo.co.jp", "mx1.mail.yahoo.co.jp", "yahoo_japan"),
        # A name below a domain is not the domain, and the end of a name is not its label.
        ("mail.gmail.com", "mx.example.net", "other"),
        ("company.example", "mx.notgoogle.com", "other"),
        ("company.example", "google.com", "other"),
    ],
)
def test_receivers_are_known(domain: str, mx: str, provider: str) -> None:
    assert SHIPPED.destination(domain, route_to(mx)).provider == provider


def test_only_the_server_that_is_tried_first_counts() -> None:
    route = route_to("mx.example.net", "aspmx.l.google.com")
    assert SHIPPED.destination("company.example", route).provider == "other"


def test_a_provider_judges_for_itself_and_others_site_by_site() -> None:
    route = route_to("b.example.net", "a.example.net")
    assert SHIPPED.destination("gmail.com", route) == Destination("gmail", "gmail")
    expected = Destination("other", "a.example.net,b.example.net")
    assert SHIPPED.destination("example.net", route) == expected
    assert SHIPPED.destination("example.net", None) == Destination("other", "example.net")


def test_the_longest_pattern_wins() -> None:
    providers = Providers({"all": Provider(("*.example",)), "one": Provider(("*.a.example",))})
    assert providers.destination("x.a.example", None).provider == "one"
    assert providers.destination("x.b.example", None).provider == "all"


def test_one_way_is_not_taken_for_another() -> None:
    """What is remembered of a domain is no answer for the same domain over another site."""
    first = SHIPPED.destination("moving.example", route_to("mx.example.net"))
    second = SHIPPED.destination("moving.example", route_to("aspmx.l.google.com"))
    assert (first.provider, second.provider) == ("other", "gmail")


def test_a_smarthost_is_a_site() -> None:
    route = Route((Hop("10.0.0.5"),), "smarthost")
    assert SHIPPED.destination("example.net", route) == Destination("other", "smarthost")
    assert SHIPPED.destination("gmail.com", route).judge == "gmail"


@given(st.lists(st.text("abc.,", max_size=300), unique=True))
def test_a_long_site_is_short_and_still_another(names: list[str]) -> None:
    short = [short_site(name) for name in names]
    assert len(set(short)) == len(names)
    assert all(len(name) <= 80 for name in short)
