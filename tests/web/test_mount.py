from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.web.mount import mount_names


def test_a_plugin_is_served_under_its_name() -> None:
    entries = ["tracking", "acme.pages", "site", "site#2", "acme/site", "お知らせ", "a b"]
    assert mount_names(entries) == {
        "tracking": "tracking",
        "acme.pages": "acme.pages",
        "site": "site",
        "site-2": "site#2",
        "acme-site": "acme/site",
        "お知らせ": "お知らせ",
        "a-b": "a b",
    }


def test_two_plugins_under_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^plugins site#2 and site-2 cannot both be .* /site-2/;"):
        mount_names(["site", "site#2", "site-2"])


def test_the_paths_of_the_service_are_taken() -> None:
    with pytest.raises(ValueError, match="plugin health cannot be served: /health is the health"):
        mount_names(["health"])
    with pytest.raises(ValueError, match="plugin metrics cannot be served: /metrics is what Prom"):
        mount_names(["metrics"])


@given(st.lists(st.text(min_size=1), unique=True))
def test_every_entry_has_one_part_of_a_path(entries: list[str]) -> None:
    try:
        names = mount_names(entries)
    except ValueError:
        return
    assert list(names.values()) == entries
    for name in names:
        assert name
        assert not set("/?#%&; \t\r\n\0") & set(name)
