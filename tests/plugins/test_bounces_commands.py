from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from tests.plugins.bounces_site import DOMAIN, FOLDER, HANAKO, ID, NOW, Site, path_of, report


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def run(site: Site, *arguments: str, stdin: bytes = b"", status: int = 0, **config: Any) -> Result:
    """Runs `gateway bounces` with these arguments."""
    command = site.plugin("command", **config).commands(site.context("command"))
    assert isinstance(command, click.Group)
    result = CliRunner().invoke(command, arguments, input=stdin)
    assert result.exit_code == status, (result.output, result.exception)
    return result


# classify.


def test_classify_says_what_would_become_of_a_bounce(site: Site) -> None:
    path = path_of(site.plugin(), stream="bulk")
    result = run(site, "classify", stdin=report("postfix", path).replace(b"\r\n", b"\n"))
    assert result.stdout == (
        "delivery report from mx1.example.net\n"
        "bounced  hanako@example.net  no-such-user (hard)\n"
        f"  message:  {ID}\n"
        "  sender:   news@shop.example.com\n"
        "  stream:   bulk\n"
        "  source:   dsn\n"
        "  campaign: week-47\n"
        "  code:     550 5.1.1\n"
        "  reason:   550 5.1.1 <hanako@example.net>: Recipient address rejected: User unknown in "
        "virtual mailbox table\n"
    )
    assert site.events == []


def test_classify_needs_no_return_path_and_no_keys(site: Site) -> None:
    result = run(site, "classify", str(FOLDER / "exim.eml"))
    assert result.stdout == (
        "delivery report from exim.example.net\n"
        "  failed  hanako@example.net  no-such-user (hard)\n"
        "    said: 550 5.1.1 <hanako@example.net>: Recipient unknown\n"
        "held: a delivery report that names no return path of ours\n"
    )
    assert not site.keys.exists()
    without = run(site, "classify", str(FOLDER / "exim.eml"), campaign_header=None)
    assert without.stdout == result.stdout


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("human", "held: no report and no automatic reply: a person has to read it"),
        ("bounce-of-bounce", "dropped: it is the bounce of a bounce"),
        ("vacation", "  reason:   I am away and will read your message in December."),
        ("arf", "  reason:   abuse"),
        ("relayed", "  reason:   250 2.0.0 Ok"),
    ],
)
def test_classify_of_other_mail(site: Site, name: str, last: str) -> None:
    path = path_of(site.plugin())
    result = run(site, "classify", stdin=report(name, path))
    assert result.stdout.splitlines()[-1] == last


def test_classify_can_be_told_where_it_came_to(site: Site) -> None:
    path = path_of(site.plugin(), "taro@example.org")
    content = report("html-only", "nobody@example.com")
    assert "held: " in run(site, "classify", stdin=content).stdout
    result = run(site, "classify", "--to", path, "-", stdin=content)
    assert "bounced  taro@example.org  authentication (soft)" in result.stdout


def test_classify_in_json(site: Site) -> None:
    path = path_of(site.plugin())
    data = json.loads(run(site, "classify", "--json", stdin=report("softbank", path)).stdout)
    assert (data["kind"], data["decision"], data["why"]) == ("delivery report", "events", "")
    (event,) = data["events"]
    assert (event["type"], event["message_id"], event["recipient"]) == ("bounced", ID, HANAKO)
    assert data["findings"] == [
        {
            "action": "failed",
            "recipient": HANAKO,
            "original": "",
            "status": "",
            "code": 0,
            "class": "no-such-user",
            "said": "理由: 宛先のメールアドレスが存在しません。",
        }
    ]
    held = json.loads(run(site, "classify", "--json", stdin=report("human", path)).stdout)
    assert (held["decision"], held["events"], held["findings"]) == ("held", [], [])
    assert held["why"].startswith("no report")


def test_classify_of_a_file_that_is_not_there(site: Site) -> None:
    result = run(site, "classify", "missing.eml", status=1)
    assert result.stderr == "Error: missing.eml: No such file or directory\n"


# explain.


@pytest.mark.parametrize(
    ("reply", "lines"),
    [
        ("550 5.1.1 user unknown", ["no-such-user (hard)", "by its text, 'user unknown'"]),
        ("452 4.2.2 sorry", ["mailbox-full (soft)", "by its code, 4.2.2"]),
        ("421 bye", ["server (soft)", "by its code, 421"]),
        ("550 sorry", ["other (soft)", "no rule matches"]),
        ("メールボックスが一杯です", ["mailbox-full (soft)", "by its text"]),
    ],
)
def test_explain_says_what_a_reply_means_and_why(site: Site, reply: str, lines: list[str]) -> None:
    shown = run(site, "explain", reply).stdout.splitlines()
    assert shown[0] == lines[0]
    assert lines[1] in shown[1]


def test_explain_names_the_rule_of_the_site(site: Site) -> None:
    (site.folder / "ours.yaml").write_text("- {class: inactive, text: 'left us'}\n")
    arguments = ("explain", "550 5.1.1 Has LEFT  us", "--json")
    data = json.loads(run(site, *arguments, domain=DOMAIN, rules="ours.yaml").stdout)
    assert data == {
        "class": "inactive",
        "kind": "hard",
        "code": 550,
        "status": "5.1.1",
        "rule": "ours.yaml, rule 1",
        "matched": "left us",
    }


# address.


@pytest.mark.parametrize("form", ["all", "local", "token", "upper"])
def test_address_says_whom_a_return_path_is_for(site: Site, form: str) -> None:
    path = path_of(site.plugin(), stream="bulk")
    shown = {
        "all": path,
        "local": path.rpartition("@")[0],
        "token": path.rpartition("@")[0].removeprefix("b+"),
        "upper": path.upper(),
    }[form]
    result = run(site, "address", shown)
    recipient = HANAKO.upper() if form == "upper" else HANAKO
    assert result.stdout == (
        f"message id:     {ID}\n"
        f"recipient:      {recipient}\n"
        "sender domain:  shop.example.com\n"
        "stream:         bulk\n"
        "made:           2026-11-21\n"
        "key:            1\n"
        "valid:          yes\n"
    )


def test_address_with_a_hash_and_too_old(site: Site) -> None:
    config: dict[str, Any] = {"domain": DOMAIN, "style": "token"}
    path = path_of(site.plugin(**config))
    site.now = NOW + 40 * 86_400
    data = json.loads(run(site, "address", path, "--json", **config).stdout)
    assert (data["recipient"], len(data["recipient_hash"]), data["valid"]) == ("", 8, False)
    assert "valid:          no" in run(site, "address", path).stdout


@pytest.mark.parametrize("address", ["", "x", HANAKO, f"b+x@{DOMAIN}", f"postmaster@{DOMAIN}"])
def test_address_that_is_no_return_path(site: Site, address: str) -> None:
    site.plugin()
    result = run(site, "address", address, status=1)
    assert result.stderr == "Error: no return path of this gateway, or it was changed\n"


def test_keys_have_to_be_there(site: Site) -> None:
    for arguments in (["address", "x"], ["keys"]):
        result = run(site, *arguments, status=1)
        assert "there are no keys in" in result.stderr
        assert "the gateway makes them at its start" in result.stderr
    assert not site.keys.exists()


# keys and rotate.


def test_keys_are_listed_without_being_shown(site: Site) -> None:
    assert "key 1 signs from now on" in run(site, "rotate").stdout
    site.now += 86_400
    assert "key 2 signs from now on" in run(site, "rotate").stdout
    result = run(site, "keys")
    assert result.stdout == (
        f"{site.keys}\n"
        " id  made               use\n"
        "  1  2026-11-21 10:00Z  verifies\n"
        "  2  2026-11-22 10:00Z  signs and verifies\n"
    )
    data = json.loads(run(site, "keys", "--json").stdout)
    assert data == [
        {"id": 1, "created": "2026-11-21T10:00:00+00:00", "signs": False},
        {"id": 2, "created": "2026-11-22T10:00:00+00:00", "signs": True},
    ]
    assert json.loads(run(site, "rotate", "--json").stdout)["id"] == 3


def test_a_worker_uses_a_new_key_without_a_restart(site: Site) -> None:
    plugin = site.plugin()
    old = path_of(plugin)
    run(site, "rotate")
    site.now += 2
    new = path_of(plugin)
    for path, key in ((old, 1), (new, 2)):
        assert json.loads(run(site, "address", path, "--json").stdout)["key"] == key


def test_a_file_that_cannot_be_used_is_one_clear_line(site: Site) -> None:
    site.plugin()
    site.keys.chmod(0o644)
    for arguments in (["keys"], ["rotate"], ["address", "x"], ["classify"]):
        result = run(site, *arguments, status=1)
        assert result.stderr.startswith("Error: ")
        assert "chmod 0600" in result.stderr


def test_without_return_paths_there_are_no_commands_for_them(site: Site) -> None:
    command = site.plugin("command", campaign_header=None).commands(site.context("command"))
    assert set(command.commands) == {"classify", "explain"}


def test_keys_can_be_elsewhere(site: Site) -> None:
    run(site, "rotate", domain=DOMAIN, keys="shared/keys.json")
    assert (site.folder / "shared/keys.json").exists()
    assert not site.keys.exists()
