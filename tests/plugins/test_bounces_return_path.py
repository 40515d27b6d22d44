"""What the `message` hook gives to recipients, and which addresses are the gateway's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.hooks import Accept, Limits, Reject
from plugins.bounces import BouncesConfig
from tests.plugins.bounces_site import (
    DAY,
    DOMAIN,
    HANAKO,
    ID,
    NOW,
    SENDER,
    Site,
    claimed,
    mail,
    path_of,
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def local(address: str) -> str:
    return address.rpartition("@")[0]


# What recipients get.


def test_each_recipient_has_a_return_path_of_its_own(site: Site) -> None:
    message = mail(HANAKO, "taro@example.org", "hanako@EXAMPLE.net")
    site.plugin().message(message)

    paths = [one.return_path or "" for one in message.recipients]
    assert len(set(paths)) == 3
    for path in paths:
        assert re.fullmatch(rf"b\+{ID}[0-9a-hjkmnp-tv-z]{{17}}-\S+@bounce\.example\.com", path)
        assert len(local(path)) <= 64
    assert paths[0].endswith("-hanako=example.net@bounce.example.com")
    assert message.sender == SENDER
    assert message.recipients[0].address == HANAKO


def test_two_messages_to_one_recipient_have_different_ones(site: Site) -> None:
    plugin = site.plugin()
    assert path_of(plugin) != path_of(plugin, message_id="06F8K2N4QXW7C")
    assert path_of(plugin) == path_of(plugin)


def test_an_address_without_room_is_a_hash(site: Site) -> None:
    plugin = site.plugin()
    room = 64 - len("b+") - len(ID) - 18
    fits, long = (f"{'h' * (room - 12 + more)}@example.net" for more in (0, 1))
    assert len(local(path_of(plugin, fits))) == 64
    assert f"-{'h' * (room - 12)}=example.net@" in path_of(plugin, fits)
    assert re.search(r"-[0-9a-z]{8}@", path_of(plugin, long))
    assert re.search(r"-[0-9a-z]{8}@", path_of(plugin, "花子@例え.jp"))


def test_a_token_style_names_nobody(site: Site) -> None:
    path = path_of(site.plugin(domain=DOMAIN, style="token"))
    assert re.fullmatch(r"b\+\w+-[0-9a-z]{8}@bounce\.example\.com", path)
    assert "hanako" not in path


def test_a_longer_prefix_takes_room_from_the_address(site: Site) -> None:
    plugin = site.plugin(domain=DOMAIN, prefix="Mailer-Daemon".replace("-", "."))
    assert path_of(plugin).startswith("mailer.daemon+")
    assert claimed(plugin, path_of(plugin)) == Accept()


@pytest.mark.parametrize(
    ("sender", "domain"),
    [
        ("news@shop.example.com", "bounce.shop.example.com"),
        ("news@SHOP.example.com", "bounce.shop.example.com"),
        ("news@mail.shop.example.com", "bounce.shop.example.com"),
        ("a@xn--r8jz45g.jp", "bounce.xn--r8jz45g.jp"),
        ("a@例え.jp", "bounce.xn--r8jz45g.jp"),
        ("a@bank.example.com", DOMAIN),
        ("a@notshop.example.com", DOMAIN),
    ],
)
def test_senders_can_have_domains_of_their_own(site: Site, sender: str, domain: str) -> None:
    domains = {"shop.example.com": "bounce.shop.example.com", "例え.jp": "bounce.例え.jp"}
    plugin = site.plugin(domain=DOMAIN, domains=domains)
    path = path_of(plugin, sender=sender)
    assert path.rpartition("@")[2] == domain
    assert claimed(plugin, path) == Accept()


def test_without_a_domain_for_all_others_have_none(site: Site) -> None:
    plugin = site.plugin(domains={"shop.example.com": "bounce.shop.example.com"})
    message = mail(HANAKO, sender="a@bank.example.com")
    plugin.message(message)
    assert message.recipients[0].return_path is None


@pytest.mark.parametrize("sender", ["", f"b+token@{DOMAIN}", "postmaster@BOUNCE.example.com"])
def test_reports_and_what_has_a_return_path_already_are_left_alone(site: Site, sender: str) -> None:
    message = mail(HANAKO, sender=sender)
    site.plugin().message(message)
    assert message.recipients[0].return_path is None


def test_a_return_path_of_another_plugin_stays(site: Site) -> None:
    message = mail(HANAKO, "taro@example.org")
    message.recipients[0].return_path = "other@example.com"
    site.plugin().message(message)
    assert message.recipients[0].return_path == "other@example.com"
    assert message.recipients[1].return_path is not None


def test_only_some_mail_can_get_one(site: Site) -> None:
    plugin = site.plugin(domain=DOMAIN, only={"stream": "bulk", "recipient_domain": "example.net"})
    wanted = mail(HANAKO, "taro@example.org", stream="bulk")
    plugin.message(wanted)
    assert [one.return_path is not None for one in wanted.recipients] == [True, False]
    other = mail(HANAKO)
    plugin.message(other)
    assert other.recipients[0].return_path is None


def test_giving_return_paths_leaves_the_message_one(site: Site) -> None:
    message = mail(HANAKO, "taro@example.org")
    message.content = b"Subject: hi\r\n\r\nHello\r\n"
    before = message.copy()
    site.plugin().message(message)
    assert message.equals(before)
    assert not site.plugin().per_recipient


def test_mail_goes_on_where_limits_cannot_be_written(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    plugin = site.plugin()
    monkeypatch.setattr(Limits, "change", full)
    path = path_of(plugin)
    assert claimed(plugin, path) == Accept()
    assert "the origin of a message cannot be written" in caplog.text


# Which addresses are the gateway's own.


def test_what_was_made_here_is_taken_in_any_case(site: Site) -> None:
    plugin = site.plugin()
    path = path_of(plugin, "Hanako.Yamada@Example.net")
    for address in (path, path.lower(), path.upper(), path.swapcase()):
        assert claimed(plugin, address) == Accept()


def test_every_process_takes_what_another_has_made(site: Site) -> None:
    assert claimed(site.plugin(), path_of(site.plugin())) == Accept()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.replace("hanako", "taro"),
        lambda path: path.replace(ID, "06F8K2N4QXW7C"),
        lambda path: path.replace("-", "x"),
        lambda path: f"b+{path}",
        lambda path: path[2:],
        lambda path: f"somebody@{DOMAIN}",
        lambda path: f"b+@{DOMAIN}",
        lambda path: f'"b+"@{DOMAIN}',
        lambda path: f"{'b' * 64}@{DOMAIN}",
        lambda path: f"花子@{DOMAIN}",
    ],
)
def test_what_is_forged_is_refused(site: Site, change: Any) -> None:
    plugin = site.plugin()
    answer = claimed(plugin, change(path_of(plugin)))
    assert isinstance(answer, Reject)
    assert (answer.code, answer.status) == (550, "5.1.1")


def test_a_return_path_of_another_gateway_is_refused(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other")
    path = path_of(other.plugin())
    other.close()
    assert isinstance(claimed(site.plugin(), path), Reject)


def test_an_old_return_path_is_refused(site: Site) -> None:
    plugin = site.plugin(domain=DOMAIN, lifetime="7d")
    path = path_of(plugin)
    site.now = NOW + 7 * DAY
    assert claimed(plugin, path) == Accept()
    site.now = NOW + 8 * DAY
    answer = claimed(plugin, path)
    assert isinstance(answer, Reject)
    assert "not valid any more" in answer.text


def test_people_have_mailboxes_there(site: Site) -> None:
    plugin = site.plugin()
    for name in ("postmaster", "Postmaster", "abuse"):
        assert claimed(plugin, f"{name}@{DOMAIN}") == Accept()
    none = site.plugin(domain=DOMAIN, roles=[])
    assert isinstance(claimed(none, f"postmaster@{DOMAIN}"), Reject)


def test_addresses_for_complaints_may_be_anywhere(site: Site) -> None:
    plugin = site.plugin(domain=DOMAIN, complaints=["FBL@example.com", f"fbl@{DOMAIN}"])
    for address in ("fbl@example.com", "Fbl@EXAMPLE.com", f"fbl@{DOMAIN}"):
        assert claimed(plugin, address) == Accept()
    assert claimed(plugin, "postmaster@example.com") is None


@pytest.mark.parametrize("address", [HANAKO, "a@example.com", "a@x.bounce.example.com", "a"])
def test_everything_else_is_none_of_its_business(site: Site, address: str) -> None:
    assert claimed(site.plugin(), address) is None


# What the configuration does not need costs nothing.


def test_hooks_that_have_nothing_to_do_are_left_out(site: Site) -> None:
    def unused(**config: Any) -> set[str]:
        return set(site.plugin("command", **config).unused)

    assert unused(domain=DOMAIN) == set()
    assert unused(domains={"a.example": DOMAIN}) == set()
    assert unused(complaints=["fbl@example.com"]) == {"message"}
    assert unused(campaign_header=None) == {"message", "claim", "receive"}


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"domain": "bounce@example.com"}, "is not a domain name"),
        ({"domain": DOMAIN, "prefix": "b+"}, "is no prefix"),
        ({"domain": DOMAIN, "prefix": "a..b"}, "is no prefix"),
        ({"domain": DOMAIN, "prefix": "x" * 17}, "is no prefix"),
        ({"prefix": "c"}, "prefix is about return paths, and there is no domain for them"),
        ({"style": "token", "lifetime": "1d"}, "lifetime is about return paths"),
        ({"complaints": ["fbl"]}, "is not an address; expected one such as fbl@"),
        ({"domain": DOMAIN, "complaints": [f"b+fbl@{DOMAIN}"]}, "looks like a return path"),
        ({"domain": DOMAIN, "roles": ["a@b"]}, "is no name of a mailbox"),
        ({"domain": DOMAIN, "campaign_header": "X Campaign"}, "is no header name"),
        ({"domain": DOMAIN, "lifetime": 0}, "greater than 0"),
        ({"domain": DOMAIN, "domian": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said(config: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        BouncesConfig.model_validate(config)
