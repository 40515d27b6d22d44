from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.hooks import Context, Discard, Recipient, Reject
from plugins.suppression import Suppression, SuppressionConfig


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def suppression(base: Path | None = None, **config: object) -> Suppression:
    return Suppression(SuppressionConfig.model_validate(config, context={"base": base}))


def started(folder: Path, clock: Clock, **config: object) -> Suppression:
    plugin = suppression(folder, **config)
    plugin.start(
        Context(
            name="suppression",
            hostname="gw.example.com",
            role="worker",
            folder=folder / "data",
            base=folder,
            clock=clock,
            log=logging.getLogger("gateway.plugins.suppression"),
        )
    )
    return plugin


def suppressed(plugin: Suppression, address: str) -> bool:
    return plugin.rcpt(Recipient(address)) is not None


def replace(path: Path, text: str) -> None:
    """A new file in the place of the old one, as an editor or `mv` puts it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_a_listed_address_is_rejected_and_no_other() -> None:
    plugin = suppression(addresses=["taro@example.com"])

    assert plugin.rcpt(Recipient("taro@example.com")) == Reject("Recipient refused")
    assert plugin.rcpt(Recipient("hanako@example.com")) is None
    assert plugin.rcpt(Recipient("taro@example.org")) is None


def test_the_reply_is_a_lasting_refusal_that_says_no_reason() -> None:
    answer = suppression(addresses=["taro@example.com"]).rcpt(Recipient("taro@example.com"))

    assert isinstance(answer, Reject)
    assert (answer.code, answer.status) == (550, "5.7.1")
    assert "list" not in answer.text
    assert "suppress" not in answer.text.lower()


def test_a_listed_domain_is_refused_without_its_subdomains() -> None:
    plugin = suppression(domains=["Example.COM"])

    assert suppressed(plugin, "anyone@example.com")
    assert suppressed(plugin, "anyone@EXAMPLE.com")
    assert not suppressed(plugin, "anyone@mail.example.com")
    assert not suppressed(plugin, "anyone@notexample.com")


def test_discard_takes_the_recipient_and_drops_it() -> None:
    plugin = suppression(addresses=["taro@example.com"], action="discard")

    assert plugin.rcpt(Recipient("taro@example.com")) == Discard("suppressed")
    assert plugin.rcpt(Recipient("hanako@example.com")) is None


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
def test_spellings_of_one_address(listed: str, recipient: str) -> None:
    assert suppressed(suppression(addresses=[listed]), recipient)


@pytest.mark.parametrize(
    ("listed", "recipient"),
    [
        ("taro@example.com", "taro+news@example.com"),
        ("taro@example.com", "t.aro@example.com"),
        ("taro@example.com", "postmaster"),
        ("taro@example.com", '"taro "@example.com'),
        ("taro@example.com", "@example.com"),
    ],
)
def test_other_addresses(listed: str, recipient: str) -> None:
    assert not suppressed(suppression(addresses=[listed]), recipient)


def test_the_file_adds_to_what_the_configuration_lists(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(
        "\ufeff# People who asked to get nothing more\n"
        "\n"
        "Taro@example.com\r\n"
        "  hanako@example.com   # by telephone\n"
        "@Example.org\n"
        "a#b@example.com\n"
        "ichiro@日本語.jp",
        encoding="utf-8",
    )
    plugin = suppression(tmp_path, addresses=["jiro@example.com"], file="list.txt")

    for address in (
        "taro@example.com",
        "hanako@example.com",
        "anyone@example.org",
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
        (b"ta\x00ro@example.com", "is not an address"),
        (b"\xff@example.com", "is not UTF-8"),
    ],
)
def test_a_bad_line_is_an_error_that_names_file_and_line(
    tmp_path: Path, line: bytes, text: str
) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"# a list\n\ntaro@example.com\n" + line + b"\n@example.org\n")

    with pytest.raises(ValueError) as caught:
        suppression(tmp_path, file="list.txt")

    assert str(caught.value).startswith(f"{path}:4: ")
    assert text in str(caught.value)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"list\.txt: cannot be read: No such file"):
        suppression(tmp_path, file="list.txt")


@pytest.mark.parametrize(
    "config",
    [
        {"addresses": ["example.com"]},
        {"addresses": ["taro@"]},
        {"domains": ["taro@example.com"]},
        {"domains": ["@example.com"]},
        {"domains": [""]},
        {"action": "drop"},
        {"address": ["taro@example.com"]},
    ],
)
def test_a_wrong_configuration_is_an_error(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SuppressionConfig.model_validate(config)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "list.txt"
    path.write_text("taro@example.com\n")
    plugin = started(tmp_path, clock, addresses=["jiro@example.com"], file="list.txt")
    assert suppressed(plugin, "taro@example.com")

    replace(path, "@example.org\n")
    clock.now += 1

    assert suppressed(plugin, "anyone@example.org")
    assert not suppressed(plugin, "taro@example.com")
    assert suppressed(plugin, "jiro@example.com")


def test_a_file_that_was_written_in_place_is_read_again(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "list.txt"
    path.write_text("taro@example.com\n")
    plugin = started(tmp_path, clock, file="list.txt")
    assert not suppressed(plugin, "jiro@example.com")

    path.write_text("jiro@example.com\n")
    os.utime(path, (1, 1))
    clock.now += 1

    assert suppressed(plugin, "jiro@example.com")


def test_the_file_is_looked_at_once_a_second(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "list.txt"
    path.write_text("taro@example.com\n")
    plugin = started(tmp_path, clock, file="list.txt")
    assert not suppressed(plugin, "jiro@example.com")

    replace(path, "jiro@example.com\n")
    clock.now += 0.9
    assert not suppressed(plugin, "jiro@example.com")

    clock.now += 0.1
    assert suppressed(plugin, "jiro@example.com")


def test_a_clock_that_was_set_back_does_not_stop_the_looking(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "list.txt"
    path.write_text("taro@example.com\n")
    plugin = started(tmp_path, clock, file="list.txt")
    assert not suppressed(plugin, "jiro@example.com")

    replace(path, "jiro@example.com\n")
    clock.now -= 3600

    assert suppressed(plugin, "jiro@example.com")


def test_a_broken_new_version_keeps_the_old_list_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    path = tmp_path / "list.txt"
    path.write_text("taro@example.com\n")
    plugin = started(tmp_path, clock, file="list.txt")

    replace(path, "hanako@example.com\nnonsense\n")
    for _ in range(3):
        clock.now += 1
        assert suppressed(plugin, "taro@example.com")
        assert not suppressed(plugin, "hanako@example.com")

    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert f"{path}:2: 'nonsense' is not an address" in errors[0]

    replace(path, "hanako@example.com\n")
    clock.now += 1
    assert suppressed(plugin, "hanako@example.com")
    assert not suppressed(plugin, "taro@example.com")


def test_a_deleted_file_keeps_the_old_list_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    path = tmp_path / "list.txt"
    path.write_text("taro@example.com\n")
    plugin = started(tmp_path, clock, file="list.txt")

    path.unlink()
    for _ in range(3):
        clock.now += 1
        assert suppressed(plugin, "taro@example.com")

    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert f"{path}: cannot be read: No such file" in errors[0]

    path.write_text("hanako@example.com\n")
    clock.now += 1
    assert suppressed(plugin, "hanako@example.com")
    assert not suppressed(plugin, "taro@example.com")


def test_an_empty_list_suppresses_nothing() -> None:
    assert not suppressed(suppression(), "taro@example.com")
