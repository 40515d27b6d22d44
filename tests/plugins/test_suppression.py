from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.hooks import Discard, Event, Message, Recipient, Reject
from plugins.suppression import Suppression, SuppressionConfig
from plugins.suppression.database import DatabaseError
from tests.plugins.suppression_site import NOW, Site, ask, mail


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def suppressed(plugin: Suppression, address: str, message: Message | None = None) -> bool:
    return ask(plugin, address, message) is not None


def replace(path: Path, text: str) -> None:
    """A new file in the place of the old one, as an editor or `mv` puts it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


# What is answered.


def test_a_listed_address_is_rejected_and_no_other(site: Site) -> None:
    plugin = site.plugin(addresses=["taro@example.com"])

    assert ask(plugin, "taro@example.com") == Reject("Recipient refused")
    assert ask(plugin, "hanako@example.com") is None
    assert ask(plugin, "taro@example.org") is None


def test_the_reply_is_a_lasting_refusal_that_says_no_reason(site: Site) -> None:
    answer = ask(site.plugin(addresses=["taro@example.com"]), "taro@example.com")

    assert isinstance(answer, Reject)
    assert (answer.code, answer.status) == (550, "5.7.1")
    assert "list" not in answer.text
    assert "suppress" not in answer.text.lower()


def test_discard_takes_the_recipient_and_drops_it(site: Site) -> None:
    plugin = site.plugin(addresses=["taro@example.com"], action="discard")

    assert ask(plugin, "taro@example.com") == Discard("suppressed")
    assert ask(plugin, "hanako@example.com") is None


def test_each_reason_can_have_its_own_action(site: Site) -> None:
    site.add("taro@example.com", reason="unsubscribe")
    site.add("jiro@example.com", reason="bounce")
    site.add("hanako@example.com", reason="complaint")
    plugin = site.plugin(actions={"unsubscribe": "discard", "complaint": "reject"})

    assert ask(plugin, "taro@example.com") == Discard("suppressed")
    assert ask(plugin, "jiro@example.com") == Reject("Recipient refused")
    assert ask(plugin, "hanako@example.com") == Reject("Recipient refused")


def test_of_several_reasons_the_first_of_the_order_decides(site: Site) -> None:
    for reason in ("invalid", "bounce", "manual", "unsubscribe", "complaint"):
        site.add("taro@example.com", reason=reason)
        plugin = site.plugin(actions={reason: "discard"})
        assert ask(plugin, "taro@example.com") == Discard("suppressed"), reason
        assert site.events[-1].reason == f"{reason}: everywhere"


def test_an_event_says_who_was_suppressed_and_why(site: Site) -> None:
    site.add("@example.org", scope="sender:shop.example.com", reason="unsubscribe")
    plugin = site.plugin()
    message = mail("News@Shop.Example.com", "bulk")
    message.notes["campaign"] = "spring"

    assert suppressed(plugin, "Taro@Example.org", message)
    assert not suppressed(plugin, "taro@example.net", message)

    assert site.events == [
        Event(
            type="suppressed",
            time=NOW,
            message_id="ID1",
            sender="News@Shop.Example.com",
            recipient="Taro@Example.org",
            stream="bulk",
            client="192.0.2.1",
            user="shop",
            reason="unsubscribe: sender:shop.example.com, @example.org",
            notes={"campaign": "spring"},
        )
    ]


# What entries mean.


def test_a_listed_domain_is_refused_without_its_subdomains(site: Site) -> None:
    plugin = site.plugin(domains=["Example.COM"])

    assert suppressed(plugin, "anyone@example.com")
    assert suppressed(plugin, "anyone@EXAMPLE.com")
    assert not suppressed(plugin, "anyone@mail.example.com")
    assert not suppressed(plugin, "anyone@notexample.com")


@pytest.mark.parametrize("where", ["configuration", "database"])
def test_a_domain_with_a_dot_is_meant_with_its_subdomains(site: Site, where: str) -> None:
    if where == "database":
        site.add("@.example.com")
    plugin = site.plugin(domains=[".example.com"] if where == "configuration" else [])

    for address in ("a@example.com", "a@mail.example.com", "a@a.b.c.d.e.f.g.h.i.j.example.com"):
        assert suppressed(plugin, address), address
    for address in ("a@notexample.com", "a@example.com.example.net", "a@com"):
        assert not suppressed(plugin, address), address


@pytest.mark.parametrize("where", ["configuration", "database"])
def test_a_pattern_names_all_that_fit(site: Site, where: str) -> None:
    if where == "database":
        site.add("info@*", "*@*.example.com")
    patterns = ["INFO@*", "*@*.Example.com"] if where == "configuration" else []
    plugin = site.plugin(addresses=patterns)

    for address in ("info@example.net", "Info@[192.0.2.1]", "anyone@mail.example.com"):
        assert suppressed(plugin, address), address
    for address in ("infos@example.net", "anyone@example.com", "info.a@example.org"):
        assert not suppressed(plugin, address), address


@pytest.mark.parametrize(
    ("listed", "recipient"),
    [
        ("taro@example.com", "TARO@Example.Com"),
        ("Taro@EXAMPLE.com", "taro@example.com"),
        ("taro@日本語.jp", "taro@xn--wgv71a119e.jp"),
        ("taro@xn--wgv71a119e.jp", "taro@日本語.jp"),
        ("taro@BÜCHER.example", "taro@bücher.example"),
        # The same letters, composed and not.
        ("caf\u00e9@example.com", "cafe\u0301@example.com"),
        ("CAFE\u0301@example.com", "caf\u00e9@example.com"),
        ("straße@example.com", "STRASSE@example.com"),
        ('"taro"@example.com', "taro@example.com"),
        ("taro.yamada@example.com", '"Taro.Yamada"@example.com'),
        (r'"a \"b\""@example.com', r'"A \"\b\""@example.com'),
        ('"a@b"@example.com', '"A@b"@example.com'),
        ("a..b@docomo.example", "a..b@docomo.example"),
        ("a.@ezweb.example", "A.@ezweb.example"),
        ("taro@[192.0.2.1]", "taro@[192.0.2.1]"),
        ("taro+news@example.com", "taro+news@example.com"),
    ],
)
def test_spellings_of_one_address(site: Site, listed: str, recipient: str) -> None:
    assert suppressed(site.plugin(addresses=[listed]), recipient)


@pytest.mark.parametrize(
    ("listed", "recipient"),
    [
        ("taro@example.com", "taro+news@example.com"),
        ("taro@example.com", "t.aro@example.com"),
        ("taro@gmail.com", "t.aro@gmail.com"),
        ("taro@gmail.com", "taro@googlemail.com"),
        ("taro@example.com", "postmaster"),
        ("taro@example.com", '"taro "@example.com'),
        ("@example.com", '""@example.net'),
    ],
)
def test_other_addresses(site: Site, listed: str, recipient: str) -> None:
    site.add(listed)
    assert not suppressed(site.plugin(), recipient)


GMAIL = [
    ("t.aro@gmail.com", True, False),
    ("taro+a@gmail.com", True, True),
    ("t.a.r.o+a+b@googlemail.com", True, False),
    ("taro+a@googlemail.com", True, False),
    ("tar@gmail.com", False, False),
    ('"ta.ro"@gmail.com', True, False),
]
OTHERS = [
    ("taro+a@example.com", False, True),
    ("t.aro@example.com", False, False),
    ('"taro+a b"@example.com', False, False),
    ("+taro@example.com", False, False),
]


@pytest.mark.parametrize(("address", "gmail", "subaddress"), [*GMAIL, *OTHERS])
@pytest.mark.parametrize("where", ["configuration", "database"])
@pytest.mark.parametrize("listed", ["plain", "itself"])
def test_dots_and_tags_can_be_ignored(
    site: Site, address: str, gmail: bool, subaddress: bool, where: str, listed: str
) -> None:
    domain = address.rpartition("@")[2].replace("googlemail", "gmail")
    plain = f"taro@{domain}"
    # An entry and a recipient are two spellings of one address, whichever is which.
    name, recipient = (plain, address) if listed == "plain" else (address, plain)
    fixed = [name] if where == "configuration" else []
    if where == "database":
        site.add(*site.plugin(addresses=[name]).config.addresses)

    ignored: list[tuple[dict[str, Any], bool]] = [
        ({}, False),
        ({"gmail_dots": True}, gmail),
        ({"subaddresses": True}, subaddress),
        ({"gmail_dots": True, "subaddresses": True}, gmail or subaddress),
    ]
    for options, expected in ignored:
        plugin = site.plugin(addresses=fixed, **options)
        assert suppressed(plugin, recipient) is expected, options
        assert suppressed(plugin, name), options


# Scopes.


def test_an_entry_for_a_sender_domain_holds_for_no_other(site: Site) -> None:
    site.add("taro@example.com", scope="sender:shop.example.com")
    plugin = site.plugin()

    for sender in ("a@shop.example.com", "B@SHOP.Example.COM"):
        assert suppressed(plugin, "taro@example.com", mail(sender)), sender
    for sender in ("a@example.com", "a@x.shop.example.com", "", "postmaster", "a@[192.0.2.1]"):
        assert not suppressed(plugin, "taro@example.com", mail(sender)), sender


def test_an_entry_for_a_stream_holds_for_no_other(site: Site) -> None:
    site.add("taro@example.com", scope="stream:bulk")
    plugin = site.plugin()

    assert suppressed(plugin, "taro@example.com", mail(stream="bulk"))
    assert not suppressed(plugin, "taro@example.com", mail(stream="default"))
    assert not suppressed(plugin, "taro@example.com", mail(stream=""))


def test_a_sender_and_a_stream_of_one_name_are_two_scopes(site: Site) -> None:
    site.add("taro@example.com", scope="stream:example.com")
    plugin = site.plugin()

    assert not suppressed(plugin, "taro@example.com", mail("a@example.com"))


def test_an_entry_ends_when_its_time_has_come(site: Site) -> None:
    site.add("taro@example.com", "info@*", expires=int(NOW) + 60)
    plugin = site.plugin()

    site.now = NOW + 59
    assert suppressed(plugin, "taro@example.com")
    assert suppressed(plugin, "info@example.net")
    site.now = NOW + 60
    assert not suppressed(plugin, "taro@example.com")
    assert not suppressed(plugin, "info@example.net")


def test_an_exempt_stream_gets_through_for_that_reason_only(site: Site) -> None:
    site.add("taro@example.com", "jiro@example.com", reason="unsubscribe")
    site.add("jiro@example.com", reason="bounce")
    plugin = site.plugin(exempt={"unsubscribe": ["transactional"]})

    assert not suppressed(plugin, "taro@example.com", mail(stream="transactional"))
    assert suppressed(plugin, "taro@example.com", mail(stream="bulk"))
    assert suppressed(plugin, "jiro@example.com", mail(stream="transactional"))
    assert site.events[-1].reason == "bounce: everywhere"


# What only the whole message tells.


def whole(plugin: Suppression, *addresses: str, at_rcpt: str = "default") -> Message:
    """A message whose recipients have passed RCPT."""
    message = mail(stream=at_rcpt)
    for address in addresses:
        assert ask(plugin, address, message) is None
    return message


def addresses(message: Message) -> list[str]:
    return [recipient.address for recipient in message.recipients]


def test_a_stream_that_the_header_tells_is_looked_at_again(site: Site) -> None:
    site.add("taro@example.com", scope="stream:bulk", reason="unsubscribe")
    plugin = site.plugin()
    message = whole(plugin, "taro@example.com", "jiro@example.com")

    message.stream = "bulk"
    assert plugin.message(message) is None

    assert addresses(message) == ["jiro@example.com"]
    assert [event.recipient for event in site.events] == ["taro@example.com"]
    assert site.events[0].stream == "bulk"
    assert site.events[0].reason == "unsubscribe: stream:bulk"


def test_if_nobody_is_left_the_message_is_discarded(site: Site) -> None:
    site.add("taro@example.com", "jiro@example.com", scope="stream:bulk")
    plugin = site.plugin()
    message = whole(plugin, "taro@example.com", "jiro@example.com")

    message.stream = "bulk"

    assert plugin.message(message) == Discard("suppressed")
    # They stay with the message, so that the gateway can say what became of them.
    assert addresses(message) == ["taro@example.com", "jiro@example.com"]
    assert len(site.events) == 2


def test_a_stream_that_stopped_being_exempt_is_looked_at_again(site: Site) -> None:
    site.add("taro@example.com", reason="unsubscribe")
    plugin = site.plugin(exempt={"unsubscribe": ["default"]})
    message = whole(plugin, "taro@example.com", "jiro@example.com")

    message.stream = "bulk"
    assert plugin.message(message) is None

    assert addresses(message) == ["jiro@example.com"]


def test_what_another_plugin_has_added_or_changed_is_looked_up(site: Site) -> None:
    site.add("taro@example.com", "jiro@example.com", "hanako@example.com")
    plugin = site.plugin()
    message = whole(plugin, "a@example.com", "b@example.com")

    message.add_recipient("taro@example.com")
    message.recipients[0].address = "jiro@example.com"
    assert plugin.message(message) is None

    assert addresses(message) == ["b@example.com"]


def test_a_copy_for_other_recipients_is_looked_up(site: Site) -> None:
    plugin = site.plugin()
    message = whole(plugin, "taro@example.com", "jiro@example.com")
    site.add("taro@example.com")

    copy = message.copy()
    assert plugin.message(copy) is None

    assert addresses(copy) == ["jiro@example.com"]


def test_a_sender_that_another_plugin_has_changed_counts(site: Site) -> None:
    site.add("taro@example.com", scope="sender:bounces.example.com")
    plugin = site.plugin()
    message = whole(plugin, "taro@example.com", "jiro@example.com")

    message.sender = "a@bounces.example.com"
    assert plugin.message(message) is None

    assert addresses(message) == ["jiro@example.com"]


def test_recipients_are_looked_up_once_where_once_is_enough(site: Site) -> None:
    plugin = site.plugin()
    message = whole(plugin, "taro@example.com")
    # Nothing but a second look-up would see this.
    site.add("taro@example.com")

    message.stream = "bulk"
    assert plugin.message(message) is None

    assert addresses(message) == ["taro@example.com"]
    assert site.events == []


def test_what_depends_on_the_stream_can_wait_for_the_whole_message(site: Site) -> None:
    site.add("taro@example.com", reason="unsubscribe")
    site.add("jiro@example.com", scope="stream:bulk")
    site.add("hanako@example.com", reason="bounce")
    plugin = site.plugin(exempt={"unsubscribe": ["transactional"]}, streams_known="message")

    assert suppressed(plugin, "hanako@example.com", mail(stream="bulk"))
    reset = whole(plugin, "taro@example.com", "jiro@example.com", at_rcpt="bulk")
    reset.stream = "transactional"
    assert plugin.message(reset) is None
    assert addresses(reset) == ["taro@example.com", "jiro@example.com"]

    news = whole(plugin, "taro@example.com", "jiro@example.com", "a@b.example", at_rcpt="bulk")
    assert plugin.message(news) is None
    assert addresses(news) == ["a@b.example"]


def test_a_recipient_that_rcpt_did_not_see_is_looked_up(site: Site) -> None:
    """A plugin further up has accepted it, which ends the stage."""
    site.add("taro@example.com")
    plugin = site.plugin()
    message = whole(plugin, "jiro@example.com")
    message.recipients.append(Recipient("taro@example.com", message=message))

    assert plugin.message(message) is None

    assert addresses(message) == ["jiro@example.com"]


# When the database cannot be used.


def test_a_database_that_is_gone_is_a_failure_and_not_an_empty_list(site: Site) -> None:
    site.add("taro@example.com")
    plugin = site.plugin()
    for path in site.path.parent.iterdir():
        path.rename(site.folder / path.name)

    site.now += 1
    for _ in range(2):
        with pytest.raises(DatabaseError, match="No such file"):
            ask(plugin, "taro@example.com")

    for path in site.folder.glob("suppression.db*"):
        path.rename(site.path.parent / path.name)
    assert suppressed(plugin, "taro@example.com")


def test_a_database_that_was_replaced_is_the_one_that_is_asked(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site.add("taro@example.com")
    plugin = site.plugin()
    other = Site(tmp_path_factory.mktemp("other"))
    other.add("jiro@example.com")

    for path in site.path.parent.iterdir():
        path.unlink()
    other.path.rename(site.path)
    site.now += 1

    assert suppressed(plugin, "jiro@example.com")
    assert not suppressed(plugin, "taro@example.com")


def test_a_plugin_that_has_not_started_lets_nothing_through() -> None:
    with pytest.raises(AssertionError):
        ask(Suppression(SuppressionConfig()), "taro@example.com")


# The file.


def test_the_file_adds_to_what_the_configuration_lists(site: Site) -> None:
    (site.folder / "list.txt").write_text(
        "\ufeff# People who asked to get nothing more\n"
        "\n"
        "Taro@example.com\r\n"
        "  hanako@example.com   # by telephone\n"
        "@Example.org\n"
        "@.example.net\n"
        "abuse@*\n"
        "a#b@example.com\n"
        "ichiro@日本語.jp",
        encoding="utf-8",
    )
    plugin = site.plugin(addresses=["jiro@example.com"], file="list.txt")

    for address in (
        "taro@example.com",
        "hanako@example.com",
        "anyone@example.org",
        "anyone@mail.example.net",
        "abuse@example.com",
        "a#b@example.com",
        "ichiro@日本語.jp",
        "jiro@example.com",
    ):
        assert suppressed(plugin, address), address
    assert not suppressed(plugin, "a@example.com")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"no address", "'no address' is not an address; expected user@domain"),
        (b"example.com", "'example.com' is not an address"),
        (b"@", "'' is not a domain"),
        (b"@exa mple.com", "is not a domain"),
        (b"@a@example.com", "is not a domain"),
        (b"taro@", "is not a domain"),
        (b"taro@example..com", "is not a domain"),
        (b"ta ro@example.com", "is not an address"),
        (b"taro@example.com, hanako@example.com", "is not an address"),
        (b"taro@example.com,hanako@example.com", "is not an address"),
        (b"ta\x00ro@example.com", "is not an address"),
        (b"\xff@example.com", "is not UTF-8"),
        (b"*@*", "would suppress all mail"),
    ],
)
def test_a_bad_line_is_an_error_that_names_file_and_line(
    site: Site, line: bytes, text: str
) -> None:
    path = site.folder / "list.txt"
    path.write_bytes(b"# a list\n\ntaro@example.com\n" + line + b"\n@example.org\n")

    with pytest.raises(ValueError) as caught:
        site.plugin(file="list.txt")

    assert str(caught.value).startswith(f"{path}:4: ")
    assert text in str(caught.value)


def test_a_file_that_is_missing_is_an_error(site: Site) -> None:
    with pytest.raises(ValueError, match=r"list\.txt: cannot be read: No such file"):
        site.plugin(file="list.txt")


def test_a_changed_file_is_read_again(site: Site) -> None:
    path = site.folder / "list.txt"
    path.write_text("taro@example.com\n")
    plugin = site.plugin(addresses=["jiro@example.com"], file="list.txt")
    assert suppressed(plugin, "taro@example.com")

    replace(path, "@example.org\n")
    site.now += 1

    assert suppressed(plugin, "anyone@example.org")
    assert not suppressed(plugin, "taro@example.com")
    assert suppressed(plugin, "jiro@example.com")


def test_a_file_that_was_written_in_place_is_read_again(site: Site) -> None:
    path = site.folder / "list.txt"
    path.write_text("taro@example.com\n")
    plugin = site.plugin(file="list.txt")
    assert not suppressed(plugin, "jiro@example.com")

    path.write_text("jiro@example.com\n")
    os.utime(path, (1, 1))
    site.now += 1

    assert suppressed(plugin, "jiro@example.com")


def test_the_file_is_looked_at_once_a_second(site: Site) -> None:
    path = site.folder / "list.txt"
    path.write_text("taro@example.com\n")
    plugin = site.plugin(file="list.txt")
    assert not suppressed(plugin, "jiro@example.com")

    replace(path, "jiro@example.com\n")
    site.now += 0.9
    assert not suppressed(plugin, "jiro@example.com")

    site.now += 0.1
    assert suppressed(plugin, "jiro@example.com")


def test_a_clock_that_was_set_back_does_not_stop_the_looking(site: Site) -> None:
    path = site.folder / "list.txt"
    path.write_text("taro@example.com\n")
    plugin = site.plugin(file="list.txt")
    assert not suppressed(plugin, "jiro@example.com")

    replace(path, "jiro@example.com\n")
    site.now -= 3600

    assert suppressed(plugin, "jiro@example.com")


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_broken_new_version_keeps_the_old_list_and_is_logged_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    path = site.folder / "list.txt"
    path.write_text("taro@example.com\n")
    plugin = site.plugin(file="list.txt")

    replace(path, "hanako@example.com\nnonsense\n")
    for _ in range(3):
        site.now += 1
        assert suppressed(plugin, "taro@example.com")
        assert not suppressed(plugin, "hanako@example.com")

    (error,) = errors(caplog)
    assert f"{path}:2: 'nonsense' is not an address" in error

    replace(path, "hanako@example.com\n")
    site.now += 1
    assert suppressed(plugin, "hanako@example.com")
    assert not suppressed(plugin, "taro@example.com")


def test_a_deleted_file_keeps_the_old_list_until_it_is_back(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    path = site.folder / "list.txt"
    path.write_text("taro@example.com\n")
    plugin = site.plugin(file="list.txt")

    path.unlink()
    for _ in range(3):
        site.now += 1
        assert suppressed(plugin, "taro@example.com")

    (error,) = errors(caplog)
    assert f"{path}: cannot be read: No such file" in error

    path.write_text("hanako@example.com\n")
    site.now += 1
    assert suppressed(plugin, "hanako@example.com")
    assert not suppressed(plugin, "taro@example.com")


def test_an_empty_list_suppresses_nothing(site: Site) -> None:
    assert not suppressed(site.plugin(), "taro@example.com")


# The configuration.


@pytest.mark.parametrize(
    "config",
    [
        {"addresses": ["example.com"]},
        {"addresses": ["taro@"]},
        {"addresses": ["*@*"]},
        {"domains": ["taro@example.com"]},
        {"domains": ["@example.com"]},
        {"domains": ["*.example.com"]},
        {"domains": [""]},
        {"action": "drop"},
        {"address": ["taro@example.com"]},
        {"actions": {"boredom": "reject"}},
        {"actions": {"bounce": "drop"}},
        {"exempt": {"boredom": ["bulk"]}},
        {"learn": {"bounces": {"after": 0}}},
        {"learn": {"bounces": {"status": ["5"]}}},
        {"learn": {"bounces": {"status": ["2.1.1"]}}},
        {"learn": {"complaint_scope": "nowhere"}},
        {"hygiene": {"misspelled": "correct"}},
        {"hygiene": {"known": ["a@b"]}},
        {"hygiene": {"timeout": "1m"}},
        {"hygiene": {"timeout": 0}},
    ],
)
def test_a_wrong_configuration_is_an_error(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SuppressionConfig.model_validate(config)
