"""The commands `keygen`, `dns` and `check`, with real files and a DNS server on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import dns.rdatatype
import dns.zone
import pytest
import yaml
from click.testing import CliRunner, Result
from dns.rdtypes.ANY.TXT import TXT

from gateway.hooks import Resolver
from gateway.testing import Failure, FakeDns
from plugins.dkim import Dkim, DkimConfig
from plugins.dkim.key import read_private_key
from plugins.dkim.validity import parse_instant
from tests.conftest import DebianProgram
from tests.plugins.dkim_keys import KeyPair, context, ed25519_key, rsa_key

TODAY = "2026-11-21T12:00:00Z"


class Site:
    """A folder with a configuration, and the commands of its plugin."""

    def __init__(self, folder: Path, *keys: Mapping[str, object], **other: object) -> None:
        self.folder = folder
        self.today = TODAY
        rsa_key().write(folder / "rsa.pem")
        ed25519_key().write(folder / "ed25519.pem")
        entries = [
            {"domain": "example.com", "selector": "s1", "file": "rsa.pem", **k} for k in keys
        ]
        self.config = DkimConfig.model_validate(
            {"keys": entries, **other}, context={"base": folder}
        )
        self.address = "127.0.0.1:1"

    def run(self, *words: str | Path) -> Result:
        """Runs a command; must not be called where an event loop runs."""
        resolver = Resolver([self.address], 2.0)
        made = context(self.folder, resolver, lambda: parse_instant(self.today), "command")
        command = Dkim(self.config).commands(made)
        return CliRunner().invoke(command, [str(word) for word in words])

    async def check(self, *words: str) -> Result:
        """Runs `check` in a thread, beside the loop of the DNS server."""
        return await asyncio.to_thread(self.run, "check", *words)


def zone_of(text: str, domain: str) -> dict[str, str]:
    """The TXT records in the lines of a zone file, by name."""
    lines = re.findall(r"^[^;\s]\S*\. IN TXT (?:\([^)]*\)|.*)$", text, re.MULTILINE)
    head = "@ 60 IN SOA ns. mail. 1 1 1 1 1\n@ 60 IN NS ns.\n"
    zone = dns.zone.from_text(head + "\n".join(lines) + "\n", f"{domain}.", relativize=False)
    return {
        name.to_text(omit_final_dot=True): b"".join(data.strings).decode()
        for name, _, data in zone.iterate_rdatas(dns.rdatatype.TXT)
        if isinstance(data, TXT)
    }


def quoted(text: str) -> str:
    return " ".join(f'"{text[start : start + 200]}"' for start in range(0, len(text), 200))


# keygen


def test_keygen_makes_a_key_and_says_what_to_do_with_it(tmp_path: Path) -> None:
    site = Site(tmp_path)

    result = site.run("keygen", "Example.COM")

    assert result.exit_code == 0, result.output
    file = tmp_path / "keys/example.com/202611a.pem"
    assert file.stat().st_mode & 0o777 == 0o600
    key = read_private_key(file)
    assert (key.public.type, key.public.bits) == ("rsa", 2048)
    (value,) = re.findall(r"value  (.*)", result.stdout)
    assert "   name   202611a._domainkey.example.com\n   type   TXT\n" in result.stdout
    zone = zone_of(result.stdout, "example.com")
    assert zone == {"202611a._domainkey.example.com": value}
    (line,) = re.findall(r"^        (- .*)$", result.stdout, re.MULTILINE)
    assert line == "- {domain: example.com, selector: 202611a, file: keys/example.com/202611a.pem}"
    made = Site(tmp_path, *yaml.safe_load(line)).run("dns", "--json")
    assert json.loads(made.stdout)[0]["value"] == value
    assert "gateway dkim check example.com" in result.stdout


def test_keygen_makes_a_key_of_each_type(tmp_path: Path) -> None:
    result = Site(tmp_path).run("keygen", "日本語.jp", "news", "--type", "both", "--bits", "3072")

    assert result.exit_code == 0, result.output
    folder = tmp_path / "keys/xn--wgv71a119e.jp"
    assert sorted(path.name for path in folder.iterdir()) == ["news-ed25519.pem", "news.pem"]
    assert read_private_key(folder / "news.pem").public.bits == 3072
    assert read_private_key(folder / "news-ed25519.pem").public.type == "ed25519"
    entries = yaml.safe_load("\n".join(re.findall(r"^        - .*$", result.stdout, re.MULTILINE)))
    assert [entry["selector"] for entry in entries] == ["news", "news-ed25519"]
    assert list(zone_of(result.stdout, "xn--wgv71a119e.jp")) == [
        "news._domainkey.xn--wgv71a119e.jp",
        "news-ed25519._domainkey.xn--wgv71a119e.jp",
    ]


def test_keygen_takes_the_first_letter_that_is_free(tmp_path: Path) -> None:
    site = Site(tmp_path, {"selector": "202611b"})

    made = [site.run("keygen", "example.com", "--type", "ed25519") for _ in range(2)]

    assert [result.exit_code for result in made] == [0, 0]
    names = sorted(path.name for path in (tmp_path / "keys/example.com").iterdir())
    assert names == ["202611a.pem", "202611c.pem"]
    for letter in "bdefghijklmnopqrstuvwxyz":
        (tmp_path / f"keys/example.com/202611{letter}.pem").touch()
    result = site.run("keygen", "example.com", "--type", "ed25519")
    assert result.exit_code == 1
    assert result.stderr == (
        "gateway: example.com has keys 202611a to 202611z already; name a selector\n"
    )


def test_keygen_never_overwrites(tmp_path: Path) -> None:
    site = Site(tmp_path, {"selector": "used"})
    folder = tmp_path / "keys/example.com"
    folder.mkdir(parents=True)
    (folder / "s1-ed25519.pem").write_text("precious")

    result = site.run("keygen", "example.com", "s1", "--type", "both")

    assert result.exit_code == 1
    assert result.stderr == (
        f"gateway: {folder}/s1-ed25519.pem is there already; choose another selector\n"
    )
    assert [path.name for path in folder.iterdir()] == ["s1-ed25519.pem"]
    assert (folder / "s1-ed25519.pem").read_text() == "precious"
    result = site.run("keygen", "example.com", "used")
    assert (result.exit_code, result.stderr) == (
        1,
        "gateway: example.com has a key used already; choose another selector\n",
    )
    assert site.run("keygen", "example.org", "used", "--type", "ed25519").exit_code == 0


def test_keygen_into_another_folder(tmp_path: Path) -> None:
    site = Site(tmp_path)

    result = site.run("keygen", "example.com", "s1", "--type", "ed25519", "--out", tmp_path / "k")
    assert "file: k/example.com/s1.pem}" in result.stdout
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    result = site.run("keygen", "example.com", "s1", "--type", "ed25519", "--out", elsewhere)
    assert f"file: {elsewhere}/example.com/s1.pem}}" in result.stdout
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    result = site.run("keygen", "example.com", "s1", "--out", blocked / "in")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    "words",
    [
        ["a b"],
        ["example.com", "s 1"],
        ["../etc"],
        ["*.example.com"],
        ["example.com", "s1", "--bits", "1024"],
        ["example.com", "s1", "--type", "dsa"],
    ],
)
def test_keygen_refuses_what_is_wrong(tmp_path: Path, words: list[str]) -> None:
    result = Site(tmp_path).run("keygen", *words)

    assert result.exit_code == 2
    assert "Error: Invalid value" in result.stderr
    assert not (tmp_path / "keys").exists()


def test_keygen_tells_root_whose_the_files_have_to_be(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make files for others")
    user = pwd.getpwnam("nobody")
    site = Site(tmp_path)
    spool = context(tmp_path).folder.parent.parent
    os.chown(spool, user.pw_uid, -1)

    result = site.run("keygen", "example.com", "s1", "--type", "ed25519")

    assert f"chown -R nobody: {tmp_path}/keys/example.com\n" in result.stderr


# dns

KEYS: tuple[Mapping[str, object], ...] = (
    {"selector": "s1", "subdomains": True, "not_after": "2026-12-01"},
    {"selector": "s2", "subdomains": True, "not_before": "2026-12-01T00:00:00Z"},
    {"selector": "e1", "domain": ["own.example.com", "example.org"], "file": "ed25519.pem"},
    {"selector": "c1", "domain": "*.customers.example"},
)


def test_dns_prints_each_record(tmp_path: Path) -> None:
    result = Site(tmp_path, *KEYS).run("dns")

    assert result.exit_code == 0
    blocks = result.stdout.rstrip("\n").split("\n\n")
    assert blocks[0] == (
        f"   name   s1._domainkey.example.com\n   type   TXT\n   value  {rsa_key().record}"
    )
    assert [block.splitlines()[0].split()[-1] for block in blocks[:4]] == [
        *("s1._domainkey.example.com", "s2._domainkey.example.com"),
        *("e1._domainkey.own.example.com", "e1._domainkey.example.org"),
    ]
    assert blocks[4].startswith(
        "   for each domain of *.customers.example:\n   name   c1._domainkey.<domain>\n"
    )


def test_dns_prints_a_zone_file(tmp_path: Path) -> None:
    result = Site(tmp_path, *KEYS).run("dns", "--zone")

    assert zone_of(result.stdout, "com") == {
        "s1._domainkey.example.com": rsa_key().record,
        "s2._domainkey.example.com": rsa_key().record,
        "e1._domainkey.own.example.com": ed25519_key().record,
    }
    assert zone_of(result.stdout, "org") == {"e1._domainkey.example.org": ed25519_key().record}
    assert "; c1._domainkey.<domain>. IN TXT" in result.stdout


def test_dns_prints_json(tmp_path: Path) -> None:
    found = json.loads(Site(tmp_path, *KEYS).run("dns", "--json").stdout)

    assert [(key["domain"], key["name"]) for key in found] == [
        ("example.com", "s1._domainkey.example.com"),
        ("example.com", "s2._domainkey.example.com"),
        ("own.example.com", "e1._domainkey.own.example.com"),
        ("example.org", "e1._domainkey.example.org"),
        ("*.customers.example", None),
    ]
    assert (found[0]["not_before"], found[0]["not_after"]) == (None, "2026-12-01T00:00:00+00:00")
    assert (found[2]["type"], found[2]["bits"]) == ("ed25519", 256)
    assert (found[0]["type"], found[0]["bits"]) == ("rsa", 2048)
    assert found[2]["value"] == ed25519_key().record
    assert found[4]["zone"] is None


@pytest.mark.parametrize(
    ("domain", "names"),
    [
        ("example.com", ["s1._domainkey.example.com", "s2._domainkey.example.com"]),
        ("x.y.EXAMPLE.com", ["s1._domainkey.example.com", "s2._domainkey.example.com"]),
        ("own.example.com", ["e1._domainkey.own.example.com"]),
        ("one.customers.example", ["c1._domainkey.one.customers.example"]),
    ],
)
def test_dns_of_one_domain(tmp_path: Path, domain: str, names: list[str]) -> None:
    result = Site(tmp_path, *KEYS).run("dns", domain, "--json")

    assert [key["name"] for key in json.loads(result.stdout)] == names


@pytest.mark.parametrize("command", ["dns", "check"])
def test_a_domain_without_a_key(tmp_path: Path, command: str) -> None:
    result = Site(tmp_path, *KEYS).run(command, "customers.example")
    assert (result.exit_code, result.stderr) == (
        1,
        "gateway: no key is for customers.example in gateway.yaml\n",
    )
    result = Site(tmp_path).run(command)
    assert (result.exit_code, result.stderr) == (1, "gateway: there are no keys in gateway.yaml\n")


def test_the_star_is_for_every_domain(tmp_path: Path) -> None:
    result = Site(tmp_path, {"domain": "*"}).run("dns", "example.net", "--json")

    assert json.loads(result.stdout)[0]["name"] == "s1._domainkey.example.net"


# check

NO_DMARC = "no DMARC record at _dmarc.example.com: receivers do not compare signatures with From"
DMARC = {"TXT": ['"v=DMARC1; p=none"']}


@pytest.fixture
async def server() -> AsyncIterator[FakeDns]:
    async with FakeDns({"_dmarc.example.com": DMARC}) as running:
        yield running


def publish(server: FakeDns, name: str, pair: KeyPair) -> None:
    server.zones[f"{name}._domainkey.example.com"] = {"TXT": [quoted(pair.record)]}


def at(site: Site, server: FakeDns) -> Site:
    site.address = server.address
    return site


async def test_check_says_ok(tmp_path: Path, server: FakeDns) -> None:
    site = at(Site(tmp_path, {}, {"selector": "e1", "file": "ed25519.pem"}), server)
    publish(server, "s1", rsa_key())
    server.zones["e1._domainkey.example.com"] = {"CNAME": ["e1.keys.example.net."]}
    server.zones["e1.keys.example.net"] = {"TXT": [quoted(ed25519_key().record)]}

    result = await site.check()

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "ok     s1._domainkey.example.com  (RSA, 2048 bits)\n"
        "ok     e1._domainkey.example.com  (Ed25519)\n"
    )


async def test_check_says_what_is_wrong(tmp_path: Path, server: FakeDns) -> None:
    names = ("missing", "broken", "revoked", "other", "test", "s1")
    site = at(Site(tmp_path, *({"selector": name} for name in names)), server)
    server.zones["broken._domainkey.example.com"] = Failure.SERVFAIL
    server.zones["revoked._domainkey.example.com"] = {"TXT": ['"v=DKIM1; p="']}
    publish(server, "other", ed25519_key())
    test = rsa_key().record.replace("; k", "; t=y; k")
    server.zones["test._domainkey.example.com"] = {"TXT": [quoted(test)]}
    publish(server, "s1", rsa_key())

    result = await site.check()

    assert result.exit_code == 1
    assert result.stdout == (
        "wrong  missing._domainkey.example.com  (RSA, 2048 bits)\n"
        "       error: missing: there is no TXT record at missing._domainkey.example.com\n"
        "wrong  broken._domainkey.example.com  (RSA, 2048 bits)\n"
        "       error: the DNS has no answer now\n"
        "wrong  revoked._domainkey.example.com  (RSA, 2048 bits)\n"
        "       error: revoked: p= is empty\n"
        "wrong  other._domainkey.example.com  (RSA, 2048 bits)\n"
        "       error: k=ed25519 is published, and the key is rsa\n"
        "ok     test._domainkey.example.com  (RSA, 2048 bits)\n"
        "       warning: t=y: test mode; receivers treat the mail as unsigned\n"
        "ok     s1._domainkey.example.com  (RSA, 2048 bits)\n"
    )


async def test_check_prints_json(tmp_path: Path, server: FakeDns) -> None:
    site = at(Site(tmp_path, {}, {"selector": "s2"}), server)
    publish(server, "s1", rsa_key())

    result = await site.check("--json")

    assert result.exit_code == 1
    expected: list[dict[str, Any]] = [
        {"domain": "example.com", "selector": "s1", "name": "s1._domainkey.example.com"}
        | {"status": "ok", "errors": [], "warnings": []},
        {"domain": "example.com", "selector": "s2", "name": "s2._domainkey.example.com"}
        | {
            "status": "wrong",
            "errors": ["missing: there is no TXT record at s2._domainkey.example.com"],
            "warnings": [],
        },
    ]
    assert json.loads(result.stdout) == expected


async def test_check_of_keys_that_follow_each_other(tmp_path: Path, server: FakeDns) -> None:
    site = at(
        Site(
            tmp_path,
            {"selector": "old", "not_after": "2026-11-01"},
            {"selector": "now", "not_before": "2026-11-01", "not_after": "2026-11-30"},
            {"selector": "next", "not_before": "2026-11-30", "not_after": "2026-12-20"},
        ),
        server,
    )
    publish(server, "now", rsa_key())
    publish(server, "next", rsa_key())

    result = await site.check()

    soon = (
        "       warning: a key of type rsa for example.com will be missing from "
        "2026-12-20 00:00:00 UTC on; add the key that follows\n"
    )
    assert result.exit_code == 0
    assert result.stdout == (
        "ended  old._domainkey.example.com  (RSA, 2048 bits, until 2026-11-01 00:00:00 UTC)\n"
        "ok     now._domainkey.example.com  (RSA, 2048 bits, from 2026-11-01 00:00:00 UTC, "
        "until 2026-11-30 00:00:00 UTC)\n"
        + soon
        + "ok     next._domainkey.example.com  (RSA, 2048 bits, from 2026-11-30 00:00:00 UTC, "
        "until 2026-12-20 00:00:00 UTC)\n" + soon
    )


async def test_check_of_a_customers_domain(tmp_path: Path, server: FakeDns) -> None:
    site = at(Site(tmp_path, {"domain": "*.example.com"}), server)
    server.zones["s1._domainkey.one.example.com"] = {"CNAME": ["s1._domainkey.example.com."]}
    publish(server, "s1", rsa_key())

    result = await site.check()
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        "s1 for *.example.com: not checked; name one of its domains: gateway dkim check DOMAIN\n"
    )
    result = await site.check("one.example.com")
    assert (result.exit_code, result.stdout) == (
        0,
        "ok     s1._domainkey.one.example.com  (RSA, 2048 bits)\n",
    )
    assert (await site.check("two.example.com")).exit_code == 1


@pytest.mark.parametrize(
    ("record", "warning"),
    [
        (None, NO_DMARC),
        ('"v=spf1 -all"', NO_DMARC),
        ('"v=DMARC1; p=none; adkim=r"', None),
        (
            '"v=DMARC1; p=none; adkim=s"',
            "adkim=s at _dmarc.example.com: mail of subdomains is signed, but not aligned",
        ),
        ('"v=DMARC1; p"', "the DMARC record at _dmarc.example.com cannot be read"),
    ],
)
async def test_check_looks_whether_dmarc_knows_the_signature(
    tmp_path: Path, server: FakeDns, record: str | None, warning: str | None
) -> None:
    site = at(Site(tmp_path, {"subdomains": True}), server)
    publish(server, "s1", rsa_key())
    del server.zones["_dmarc.example.com"]
    if record is not None:
        server.zones["_dmarc.example.com"] = {"TXT": [record]}

    result = await site.check("--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["warnings"] == ([] if warning is None else [warning])


async def test_a_parents_dmarc_record_is_good_for_its_subdomains(
    tmp_path: Path, server: FakeDns
) -> None:
    site = at(Site(tmp_path, {"domain": "a.b.example.com"}), server)
    server.zones["s1._domainkey.a.b.example.com"] = {"TXT": [quoted(rsa_key().record)]}

    result = await site.check()

    assert result.stdout == "ok     s1._domainkey.a.b.example.com  (RSA, 2048 bits)\n"


async def test_check_of_hundreds_of_domains(tmp_path: Path, server: FakeDns) -> None:
    domains = [f"d{number}.example.com" for number in range(300)]
    site = at(Site(tmp_path, {"domain": domains, "file": "ed25519.pem"}), server)
    for domain in domains:
        server.zones[f"s1._domainkey.{domain}"] = {"TXT": [quoted(ed25519_key().record)]}

    result = await site.check()

    assert result.exit_code == 0
    assert result.stdout == "".join(
        f"ok     s1._domainkey.{domain}  (Ed25519)\n" for domain in domains
    )


# Together with OpenDKIM, and as a program.


async def test_opendkim_finds_the_published_key_right(
    debian_program: DebianProgram, tmp_path: Path, server: FakeDns
) -> None:
    testkey = debian_program("opendkim-testkey")
    result = await asyncio.to_thread(Site(tmp_path).run, "keygen", "example.com", "s1")
    for name, text in zone_of(result.stdout, "example.com").items():
        server.zones[name] = {"TXT": [quoted(text)]}
    unbound = tmp_path / "unbound.conf"
    unbound.write_text(
        'server:\n  do-not-query-localhost: no\n  module-config: "iterator"\n'
        f'forward-zone:\n  name: "."\n  forward-addr: {server.address.replace(":", "@")}\n'
    )
    configuration = tmp_path / "opendkim.conf"
    configuration.write_text(f"ResolverConfiguration {unbound}\n")

    def says(file: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [testkey, "-x", configuration, "-d", "example.com", "-s", "s1", "-k", file, "-vvv"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    right = await asyncio.to_thread(says, tmp_path / "keys/example.com/s1.pem")
    assert (right.returncode, "key OK" in right.stdout + right.stderr) == (0, True), right
    wrong = await asyncio.to_thread(says, tmp_path / "rsa.pem")
    assert (wrong.returncode, "key OK" in wrong.stdout + wrong.stderr) != (0, True), wrong


async def test_the_commands_of_a_gateway(tmp_path: Path, server: FakeDns) -> None:
    (tmp_path / "gateway.yaml").write_text(
        "hostname: gw.example.com\n"
        "listen: [{address: '127.0.0.1:2525', allow: [127.0.0.0/8]}]\n"
        f"dns: {{nameservers: ['{server.address}']}}\n"
        "plugins:\n  - dkim\n"
    )

    async def gateway(*words: str) -> tuple[int | None, str, str]:
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *words),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await program.communicate()
        return program.returncode, out.decode(), err.decode()

    status, out, err = await gateway("dkim", "keygen", "example.com", "s1")
    assert status == 0, err
    (line,) = re.findall(r"^        - .*$", out, re.MULTILINE)
    text = (tmp_path / "gateway.yaml").read_text()
    added = text.replace("- dkim\n", f"- dkim:\n      keys:\n{line}\n")
    (tmp_path / "gateway.yaml").write_text(added)

    status, out, err = await gateway("dkim", "check")
    assert (status, out.splitlines()[0]) == (
        1,
        "wrong  s1._domainkey.example.com  (RSA, 2048 bits)",
    ), err
    status, out, err = await gateway("dkim", "dns", "--json")
    server.zones["s1._domainkey.example.com"] = {"TXT": [quoted(json.loads(out)[0]["value"])]}
    status, out, err = await gateway("dkim", "check")
    assert (status, out, err) == (0, "ok     s1._domainkey.example.com  (RSA, 2048 bits)\n", "")
