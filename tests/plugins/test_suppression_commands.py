from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from plugins.suppression import Suppression, SuppressionConfig
from plugins.suppression.entry import Entry
from plugins.suppression.inventory import Inventory
from plugins.suppression.transfer import SHOWN
from plugins.suppression.writer import FIRST_BATCH
from tests.plugins.suppression_site import NOW, Site, ask, entry

TARO = "taro@example.com"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def run(site: Site, *arguments: str, status: int = 0, stdin: bytes = b"", **config: Any) -> Result:
    """Runs `gateway suppression` with these arguments."""
    settings = SuppressionConfig.model_validate(config, context={"base": site.folder})
    command = Suppression(settings).commands(site.context("command"))
    assert isinstance(command, click.Group)
    result = CliRunner().invoke(command, arguments, input=stdin)
    assert result.exit_code == status, (result.output, result.exception)
    return result


def content(site: Site) -> list[Entry]:
    with Inventory(site.path) as inventory:
        return list(inventory.entries())


# add and remove.


def test_add_puts_addresses_domains_and_patterns_on_the_list(site: Site) -> None:
    result = run(site, "add", "Taro@Example.com", "@例え.jp", "@.example.org", "Info@*")
    assert result.stdout == "4 entries added\n"
    assert content(site) == sorted(
        [
            entry("taro@example.com"),
            entry("@xn--r8jz45g.jp"),
            entry("@.example.org"),
            entry("info@*"),
        ]
    )


@pytest.mark.parametrize(
    ("options", "scope"),
    [
        ([], ""),
        (["--scope", "everywhere"], ""),
        (["--scope", "sender:Shop.example.com"], "sender:shop.example.com"),
        (["--sender-domain", "Shop.example.com"], "sender:shop.example.com"),
        (["--scope", "stream:bulk"], "stream:bulk"),
        (["--stream", "bulk"], "stream:bulk"),
    ],
)
def test_add_takes_scope_reason_end_and_note(site: Site, options: list[str], scope: str) -> None:
    run(site, "add", TARO, *options, "--reason", "invalid", "--expires", "90d", "--note", "電話で")
    assert content(site) == [
        entry(TARO, scope, "invalid", expires=int(NOW) + 90 * 86400, note="電話で")
    ]


def test_add_says_what_was_there_already(site: Site) -> None:
    run(site, "add", TARO, "--expires", "1d")
    assert run(site, "add", TARO, "jiro@example.com", "--expires", "1d").stdout == (
        "1 entry added, 1 there already\n"
    )
    assert run(site, "add", TARO).stdout == "0 entries added, 1 changed\n"
    assert json.loads(run(site, "add", TARO, "--json").stdout) == {
        "rows": 1,
        "new": 0,
        "changed": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["example.com"], 2, "'example.com' is not an address; expected user@domain"),
        ([TARO, "*@*"], 2, "would suppress all mail"),
        ([], 2, "Missing argument"),
        ([TARO, "--reason", "bored"], 2, "'bored' is not one of 'complaint', 'unsubscribe'"),
        ([TARO, "--scope", "bulk"], 2, "expected everywhere, sender:DOMAIN or stream:NAME"),
        ([TARO, "--sender-domain", "a@b"], 2, "'a@b' is not a domain"),
        ([TARO, "--stream", "a\nb"], 2, "is no scope"),
        ([TARO, "--stream", "a", "--sender-domain", "b"], 2, "say one of --scope"),
        ([TARO, "--note", "a\nb"], 2, "expected one line of text"),
        ([TARO, "--expires", "soon"], 1, "expected a date such as 2031-12-31"),
        ([TARO, "--expires", "2001-01-01"], 1, "2001-01-01 is past"),
    ],
)
def test_what_add_cannot_take_is_one_clear_line(
    site: Site, arguments: list[str], status: int, text: str
) -> None:
    result = run(site, "add", *arguments, status=status)
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert text in result.stderr.splitlines()[-1]
    assert not site.path.exists() or content(site) == []


def test_remove_says_how_many(site: Site) -> None:
    site.add(TARO, reason="bounce")
    site.add(TARO, reason="complaint")
    site.add(TARO, scope="stream:bulk")
    site.add("@example.com")

    assert run(site, "remove", TARO, "--stream", "bulk").stdout == "1 entry removed\n"
    assert run(site, "remove", TARO, "--reason", "bounce", "--json").stdout == '{"removed": 1}\n'
    assert run(site, "remove", "Taro@Example.com", "@example.com").stdout == "2 entries removed\n"
    assert run(site, "remove", TARO).stdout == "0 entries removed\n"
    assert content(site) == []


def test_remove_takes_what_has_ended(site: Site) -> None:
    site.add("a@example.com", "b@example.com", expires=int(NOW))
    site.add(TARO)
    assert run(site, "remove", "--ended").stdout == "2 entries removed\n"
    assert [one.address for one in content(site)] == [TARO]


@pytest.mark.parametrize(
    "arguments",
    [[], [TARO, "--ended"], ["--ended", "--reason", "bounce"], ["--ended", "--stream", "a"]],
)
def test_remove_wants_to_know_what(site: Site, arguments: list[str]) -> None:
    site.add(TARO, expires=1)
    run(site, "remove", *arguments, status=2)
    assert len(content(site)) == 1


# check.


def test_check_says_why(site: Site) -> None:
    site.add(TARO, scope="sender:shop.example.com", reason="unsubscribe", note="by phone")
    site.add("@.example.com", expires=int(NOW) + 86400, reason="invalid")
    site.add("t*@*", expires=int(NOW), reason="bounce")
    (site.folder / "list.txt").write_text("taro@example.com\n")

    result = run(
        site, "check", "Taro@example.com", status=1, domains=["example.com"], file="list.txt"
    )

    assert result.stdout == (
        "taro@example.com: suppressed\n"
        "  @example.com  manual  everywhere  gateway.yaml\n"
        "  taro@example.com  manual  everywhere  list.txt\n"
        "  @.example.com  invalid  everywhere"
        "  since 2023-11-14T22:13:20Z  until 2023-11-15T22:13:20Z  command\n"
        "  t*@*  bounce  everywhere"
        "  since 2023-11-14T22:13:20Z  until 2023-11-14T22:13:20Z  command (has ended)\n"
        "  taro@example.com  unsubscribe  sender:shop.example.com"
        "  since 2023-11-14T22:13:20Z  command: by phone\n"
    )


@pytest.mark.parametrize(
    ("arguments", "suppressed"),
    [
        ([], True),
        (["--sender", "news@shop.example.com"], True),
        (["--sender", "Shop.example.com"], True),
        (["--sender", "news@bank.example.com"], False),
        (["--sender", "<>"], False),
        (["--sender", "news@shop.example.com", "--stream", "bulk"], True),
        (["--sender", "news@shop.example.com", "--stream", "transactional"], False),
        (["--stream", "bulk"], True),
    ],
)
def test_check_answers_as_rcpt_does(site: Site, arguments: list[str], suppressed: bool) -> None:
    site.add(TARO, scope="sender:shop.example.com", reason="unsubscribe")
    exempt = {"unsubscribe": ["transactional"]}

    result = run(site, "check", TARO, *arguments, status=int(suppressed), exempt=exempt)

    state = "suppressed" if suppressed else "not suppressed"
    assert result.stdout.splitlines()[0] == f"{TARO}: {state}"
    assert len(result.stdout.splitlines()) == 2  # what does not apply is shown too


def test_check_of_several_addresses_in_json(site: Site) -> None:
    site.add("taro@gmail.com", reason="complaint", note="x")
    result = run(
        site,
        *("check", "t.a.r.o@gmail.com", "jiro@example.com", "--json"),
        status=1,
        gmail_dots=True,
        addresses=["t*ro@gmail.com"],
    )
    first, second = map(json.loads, result.stdout.splitlines())
    assert second == {"address": "jiro@example.com", "suppressed": False, "entries": []}
    assert (first["address"], first["suppressed"]) == ("t.a.r.o@gmail.com", True)
    assert first["entries"] == [
        {
            "address": "t*ro@gmail.com",
            "scope": "everywhere",
            "reason": "manual",
            "expires": None,
            "added": None,
            "source": "gateway.yaml",
            "note": "",
            "applies": True,
        },
        {
            "address": "taro@gmail.com",
            "scope": "everywhere",
            "reason": "complaint",
            "expires": None,
            "added": "2023-11-14T22:13:20Z",
            "source": "command",
            "note": "x",
            "applies": True,
        },
    ]


def test_check_and_rcpt_agree_whatever_is_ignored(site: Site) -> None:
    site.add("t.aro+a@gmail.com", "jiro+a@example.com", "info@*")
    addresses = ["taro@gmail.com", "ta.ro+b@googlemail.com", "jiro@example.com", "info+x@a.jp"]
    configs: list[dict[str, Any]] = [{}, {"gmail_dots": True}, {"subaddresses": True}]
    for config in configs:
        plugin = site.plugin(**config)
        for address in addresses:
            status = int(ask(plugin, address) is not None)
            run(site, "check", address, status=status, **config)


def test_check_that_cannot_tell_says_so_by_its_status(site: Site) -> None:
    site.path.parent.mkdir()
    site.path.write_bytes(b"nonsense" * 1000)
    assert "is damaged" in run(site, "check", TARO, status=2).stderr


# list and stats.


def test_list_shows_entries(site: Site) -> None:
    assert run(site, "list").stderr == "The list is empty.\n"
    site.add(TARO, "jiro@example.com", reason="bounce", note="gone")
    site.add(TARO, scope="stream:bulk")

    assert run(site, "list", "--reason", "bounce").output == (
        "jiro@example.com  bounce  everywhere  since 2023-11-14T22:13:20Z  command: gone\n"
        "taro@example.com  bounce  everywhere  since 2023-11-14T22:13:20Z  command: gone\n"
        "2 entries.\n"
    )
    assert run(site, "list", "--stream", "bulk").stdout.startswith("taro@example.com  manual")
    assert len(run(site, "list", "--limit", "1").stdout.splitlines()) == 1
    rows = [json.loads(line) for line in run(site, "list", "--json").stdout.splitlines()]
    assert [row["scope"] for row in rows] == ["everywhere", "everywhere", "stream:bulk"]


def test_stats_counts_by_reason_and_scope(site: Site) -> None:
    site.add(TARO, "jiro@example.com", reason="bounce")
    site.add(TARO, scope="sender:shop.example.com", reason="unsubscribe", expires=1)

    table = json.loads(run(site, "stats", "--json").stdout)

    assert table["bounce"] == {"everywhere": 2, "sender domains": 0, "streams": 0, "ended": 0}
    assert table["total"] == {"everywhere": 2, "sender domains": 1, "streams": 0, "ended": 1}
    lines = run(site, "stats").stdout.splitlines()
    assert lines[0].split() == ["everywhere", "sender", "domains", "streams", "ended"]
    assert lines[2].split() == ["unsubscribe", "0", "1", "0", "1"]
    assert lines[-1].split() == ["total", "2", "1", "0", "1"]


@pytest.mark.parametrize("arguments", [["list"], ["stats"], ["export"], ["check", TARO]])
def test_looking_does_not_make_a_list(site: Site, arguments: list[str]) -> None:
    """Workers that have lost theirs refuse mail, and must not find an empty one."""
    run(site, *arguments)
    assert not site.path.exists()


# import and export.


def write(site: Site, text: str, encoding: str = "utf-8") -> str:
    path = site.folder / "list.csv"
    path.write_bytes(text.encode(encoding))
    return str(path)


def test_import_of_a_plain_list(site: Site) -> None:
    file = write(site, "# old\nTaro@example.com\n@example.org # closed\n")
    result = run(site, "import", file, "--reason", "invalid", "--stream", "bulk", "--expires", "1d")
    assert result.output == "2 entries added\n"
    assert content(site) == [
        entry(address, "stream:bulk", "invalid", expires=int(NOW) + 86400, source="import")
        for address in ("@example.org", TARO)
    ]


def test_import_from_standard_input(site: Site) -> None:
    text = "address,note\ntaro@example.com,電話①\n"
    run(site, "import", "-", "--encoding", "Shift_JIS", "--note", "x", stdin=text.encode("cp932"))
    assert [(one.address, one.note) for one in content(site)] == [(TARO, "電話①")]


def test_nothing_is_imported_if_a_row_is_bad(site: Site) -> None:
    file = write(site, "taro@example.com\nnonsense\njiro@example.com\n@\n")
    result = run(site, "import", file, status=1)
    assert result.stderr.splitlines() == [
        "line 2: 'nonsense' is not an address; expected user@domain",
        "line 4: '' is not a domain name",
        "Error: nothing was imported: 2 rows are wrong; mend the file, or say --skip-bad",
    ]
    assert content(site) == []


def test_many_bad_rows_are_counted(site: Site) -> None:
    file = write(site, "a@example.com\n" + "nonsense\n" * (SHOWN + 5))
    lines = run(site, "import", file, status=1).stderr.splitlines()
    assert len(lines) == SHOWN + 2
    assert lines[-2] == "and 5 more"
    assert f"{SHOWN + 5} rows are wrong" in lines[-1]


def test_bad_rows_can_be_skipped(site: Site) -> None:
    file = write(site, "taro@example.com\nnonsense\njiro@example.com\ntaro@example.com\n")
    result = run(site, "import", file, "--skip-bad")
    assert result.stderr == "line 2: 'nonsense' is not an address; expected user@domain\n"
    assert result.stdout == "2 entries added, 1 bad row\n"
    again = run(site, "import", file, "--skip-bad", "--json")
    assert json.loads(again.stdout) == {"rows": 2, "new": 0, "changed": 0, "bad": 1}


@pytest.mark.parametrize(
    ("text", "arguments", "status", "problem"),
    [
        ("email\n", [], 1, "line 1: there is no column 'email'; expected address"),
        ("a@b.jp\n", ["--encoding", "klingon"], 2, "there is no encoding 'klingon'"),
        ("a@b.jp\n", ["--encoding", "base64"], 2, "there is no encoding 'base64'"),
        ("a@b.jp\n", ["--expires", "soon"], 1, "'soon' is no end"),
        ("a@b.jp\n", ["--scope", "bulk"], 2, "'bulk' is no scope"),
    ],
)
def test_an_import_that_cannot_be(
    site: Site, text: str, arguments: list[str], status: int, problem: str
) -> None:
    result = run(site, "import", write(site, text), *arguments, status=status)
    assert problem in result.stderr.splitlines()[-1]
    assert not site.path.exists() or content(site) == []


def test_files_that_cannot_be_used(site: Site) -> None:
    result = run(site, "import", "missing.csv", status=1)
    assert result.stderr == "Error: missing.csv: No such file or directory\n"
    result = run(site, "import", str(site.folder), status=1)
    assert result.stderr == f"Error: {site.folder}: Is a directory\n"
    result = run(site, "export", "-o", str(site.folder / "missing/out.csv"), status=1)
    assert "No such file or directory" in result.stderr


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_export_can_be_imported_again(site: Site, options: list[str]) -> None:
    site.add('"a, b"@example.com', "info@*", "@.example.org", note='say "no", よ')
    site.add(TARO, scope="stream:bulk", reason="complaint", expires=5, added=3, source="event")
    before = content(site)

    text = run(site, "export", *options).stdout
    run(site, "remove", *(one.address for one in before))
    assert content(site) == []
    run(site, "import", "-", stdin=text.encode())

    assert content(site) == before


def test_export_into_a_file(site: Site) -> None:
    site.add(TARO, "jiro@example.com", reason="bounce")
    site.add(TARO)
    path = site.folder / "out.csv"
    assert (
        run(site, "export", "-o", str(path), "--reason", "bounce").output == "2 entries written\n"
    )
    assert path.read_text() == (
        "address,scope,reason,expires,added,source,note\n"
        "jiro@example.com,everywhere,bounce,,2023-11-14T22:13:20Z,command,\n"
        "taro@example.com,everywhere,bounce,,2023-11-14T22:13:20Z,command,\n"
    )


# In processes of their own.


def configure(folder: Path) -> list[str]:
    """A gateway.yaml in the folder, and the command that works for it."""
    (folder / "gateway.yaml").write_text(
        "hostname: gw.example.com\nspool: {path: spool}\n"
        "listen: [{address: '127.0.0.1:2525', allow: [127.0.0.0/8]}]\nplugins:\n  - suppression:\n"
    )
    config = ["-c", str(folder / "gateway.yaml")]
    return [sys.executable, "-m", "gateway", *config, "suppression"]


def rows_file(folder: Path, count: int) -> Path:
    path = folder / "rows.csv"
    with path.open("w") as file:
        file.write("address,reason,note\n")
        for number in range(count):
            file.write(
                f"user.{number * 7919 % count:06}@example{number % 97}.com,bounce,{number}\n"
            )
    return path


def test_a_large_import_is_complete(tmp_path: Path) -> None:
    command = configure(tmp_path)
    path = rows_file(tmp_path, 100_000)
    done = subprocess.run(
        [*command, "import", str(path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "100,000 entries added\n", "")
    with Inventory(tmp_path / "spool/plugins/suppression/suppression.db") as inventory:
        entries = list(inventory.entries())
    written = {tuple(line.split(",")) for line in path.read_text().splitlines()[1:]}
    assert {(one.address, one.reason, one.note) for one in entries} == written


HALF = """
import sys, time
from pathlib import Path
from plugins.suppression.database import transaction
from plugins.suppression.exchange import Defaults, read_list
from plugins.suppression.writer import Writer, put
rows, database = map(Path, sys.argv[1:])
database.parent.mkdir(parents=True)
defaults = Defaults("", "manual", None, "import", "", time.time())
writer = Writer(database)
with rows.open("rb") as file:
    entries = list(read_list(file, "utf-8", defaults, print))
writer.stage(entries)
next(writer.merge())
with transaction(writer._db):
    for entry in entries:
        put(writer._db, entry)
    print("in the middle", flush=True)
    sys.stdin.read()
"""


def test_an_import_that_is_killed_leaves_a_list_that_works(tmp_path: Path) -> None:
    command = configure(tmp_path)
    path = rows_file(tmp_path, 3 * FIRST_BATCH)
    database = tmp_path / "spool/plugins/suppression/suppression.db"
    importing = subprocess.Popen(
        [sys.executable, "-c", HALF, str(path), str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert importing.stdout is not None
    assert importing.stdout.readline() == b"in the middle\n"
    importing.kill()
    importing.communicate(timeout=60)

    # The first batch is in the list, and nothing of the transaction that did not end.
    with Inventory(database) as inventory:
        assert inventory.size() == FIRST_BATCH
    done = subprocess.run(
        [*command, "import", str(path)], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout == (f"{2 * FIRST_BATCH:,} entries added, {FIRST_BATCH:,} there already\n")
