# ruff: noqa: E501 - one case of a table is one line
from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.attempt import Hop
from gateway.configuration.config import Config, ConfigError, Endpoint, PluginEntry, load_config

FILE = Path("gateway.yaml")
LISTEN = "hostname: gw.example.com\nlisten: [{address: 127.0.0.1:0}]\n"


def load(text: str, file: Path = FILE) -> Config:
    return load_config(file, LISTEN + text)


def problems(text: str, file: Path = FILE) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(file, text)
    return [str(problem) for problem in caught.value.problems]


def entries(text: str) -> tuple[PluginEntry, ...]:
    return load(f"plugins:\n{text}").plugins


def write_pair(folder: Path, password: bytes | None = None) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gw.example.com")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )


def test_everything_has_a_default_except_where_to_listen() -> None:
    config = load_config(FILE, "hostname: gw.example.com\nlisten: [{address: '[::1]:2525'}]\n")
    assert config.listen[0].address == Endpoint("::1", 2525)
    assert config.listen[0].allow == ()
    assert config.worker_count == len(os.sched_getaffinity(0))
    assert config.spool.path == Path.cwd() / "var/spool"
    assert config.limits.message_size == 50 * 1024 * 1024
    assert config.limits.line_length == 998
    assert (config.limits.command_timeout, config.limits.data_timeout) == (300, 600)
    assert config.relay.via == ()
    assert config.relay.idle == 10
    assert list(config.retry.schedule) == [300, 900, 1800, 3600, 7200, 14400]
    assert config.retry.lifetime == 5 * 86400
    assert config.log.level == "info"
    assert config.log.file is None
    assert config.shutdown_timeout == 30
    assert config.plugins == ()
    assert config.path == FILE


def test_the_host_name_comes_from_the_system() -> None:
    config = Config.model_validate({"listen": [{"address": "127.0.0.1:0"}]})
    assert config.hostname


def test_a_full_file(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (tmp_path / "users.yaml").touch()
    (tmp_path / "gateway.yaml").write_text(
        """
hostname: gw.example.com
workers: 3
spool: {path: queue}
listen:
  - address: 127.0.0.1:2525
    allow: [127.0.0.0/8, 192.0.2.1, "2001:db8::/32"]
  - address: "[::1]:465"
    tls: {mode: implicit, certificate: cert.pem, key: key.pem}
    users: users.yaml
relay:
  via: ["smtp.example.com:587", "[2001:db8::1]:25", relay.example.net]
  idle: 90s
limits: {message_size: 10MB, line_length: 64KiB, data_timeout: 0.5h}
retry: {schedule: [1, 1m, 1h, 1d], jitter: 0}
dns: {nameservers: [192.0.2.53, "192.0.2.54:5353", "2001:db8::53", "[2001:db8::54]:53"]}
log: {format: json, level: debug, file: gateway.log}
"""
    )
    config = load_config(tmp_path / "gateway.yaml")
    assert config.worker_count == 3
    assert config.spool.path == tmp_path / "queue"
    assert config.listen[0].allow == (
        IPv4Network("127.0.0.0/8"),
        IPv4Network("192.0.2.1/32"),
        IPv6Network("2001:db8::/32"),
    )
    tls = config.listen[1].tls
    assert tls is not None
    assert (tls.mode, tls.certificate) == ("implicit", tmp_path / "cert.pem")
    assert config.listen[1].users == tmp_path / "users.yaml"
    assert config.relay.via == (
        Hop("smtp.example.com", 587),
        Hop("2001:db8::1", 25),
        Hop("relay.example.net", 25),
    )
    assert config.relay.idle == 90
    assert config.limits.message_size == 10_000_000
    assert config.limits.line_length == 65536
    assert config.limits.data_timeout == 1800
    assert list(config.retry.schedule) == [1, 60, 3600, 86400]
    assert [str(server) for server in config.dns.nameservers] == [
        "192.0.2.53:53",
        "192.0.2.54:5353",
        "[2001:db8::53]:53",
        "[2001:db8::54]:53",
    ]
    assert config.log.file == tmp_path / "gateway.log"
    assert config.base == tmp_path


def test_sections_whose_lines_are_commented_out_are_left_out() -> None:
    assert load("limits:\n  # hops: 3\nplugins:\nstreams:\nlog:\n").limits.hops == 50


def test_the_objects_are_frozen() -> None:
    config = load("")
    with pytest.raises(ValueError, match="frozen"):
        config.hostname = "other.example.com"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        config.limits.hops = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("spol: {}", 'spol: unknown key; did you mean "spool"?'),
        ("Workers: 2", 'Workers: unknown key; did you mean "workers"?'),
        ("zzz: 1", "zzz: unknown key; known keys are hostname, workers, spool, listen,"),
        ("zzz:", "zzz: unknown key; known keys are hostname"),
        ("5: x", "[5]: a key must be text, not a number; put it in quotes"),
        ("limits: {hop: 3}", 'limits.hop: unknown key; did you mean "hops"?'),
        ("limits: 3", "limits: expected a mapping, for example {key: value}, not a number"),
        ("limits: {hops: many}", "limits.hops: expected a whole number, for example 10, not text"),
        ("limits: {hops: '3'}", "limits.hops: expected a whole number, for example 10, not text"),
        ("limits: {hops: 1.5}", "limits.hops: expected a whole number, for example 10, not a number"),
        ("limits: {hops: yes}", "limits.hops: expected a whole number, for example 10, not true"),
        ("limits: {hops: 0}", "limits.hops: must be greater than or equal to 1"),
        ("limits: {line_length: 997}", "limits.line_length: must be greater than or equal to 998"),
        ("limits: {line_length: 2MiB}", "limits.line_length: must be less than or equal to 1048576"),
        ("limits: {message_size: 5 parsecs}", 'unknown unit "parsecs"; expected a size, for example'),
        ("limits: {message_size: -1}", "limits.message_size: expected a size, for example 50MiB"),
        ("limits: {message_size: [1]}", "limits.message_size: expected a size, for example 50MiB"),
        ("limits: {data_timeout: soon}", "expected a duration, for example 30s, 5m, 4h or 5d"),
        ("limits: {data_timeout: 5 minutes}", 'unknown unit "minutes"; expected a duration'),
        ("limits: {data_timeout: 0}", "must be longer than nothing, for example 30s"),
        ("workers: 0", "workers: expected auto or a number of processes from 1"),
        ("workers: true", "workers: expected auto or a number of processes from 1"),
        ("workers: all", "workers: expected auto or a number of processes from 1"),
        ("retry: {schedule: []}", "retry.schedule: expected at least 1; for example: [5m, 15m, 1h]"),
        ("retry: {schedule: 5m}", "retry.schedule: expected a list, for example [a, b], not text"),
        ("retry: {schedule: [5m, x]}", "retry.schedule[1]: expected a duration"),
        ("retry: {jitter: 0.6}", "retry.jitter: must be less than or equal to 0.5"),
        ("retry: {jitter: .nan}", "retry.jitter: must be"),
        ("relay: {via: smtp.example.com:25}", 'for example: ["smtp.example.com:25"]'),
        ("relay: {via: ['a:b']}", "the port must be a number from 1 to 65535; for example"),
        ("relay: {via: [25]}", "relay.via[0]: expected a host and a port"),
        ("dns: {nameservers: [dns.example.com]}", '"dns.example.com" is no endpoint'),
        ("log: {level: warn}", "expected 'debug', 'info', 'warning' or 'error'; did you mean \"warning\"?"),
        ("log: {format: 3}", "log.format: expected 'text' or 'json', not a number"),
        ("log: {file: /nowhere/at/all.log}", "log.file: no such folder: /nowhere/at"),
        ("log: {file: /}", "log.file: / is a folder; expected the name of a file"),
        (f"spool: {{path: {'x' * 300}}}", "cannot be reached: File name too long"),
        ("spool: {path: 3}", "spool.path: expected the path of a file"),
        ("spool: {path: /dev/null}", "spool.path: /dev/null is a file; expected the name of a folder"),
        ("shutdown_timeout: -3s", "shutdown_timeout: expected a duration"),
        ("plugins: {dkim: {}}", "write each one after a dash: `- dkim: {}`"),
        ("plugins: [3]", "plugins[0]: expected the name of a plugin, or its name and settings"),
        ("plugins: ['']", "plugins[0]: expected the name of a plugin"),
        ("plugins: [{}]", "plugins[0]: expected the name of a plugin"),
        ("plugins: [{3: {}}]", "plugins[0]: expected the name of a plugin"),
        ("plugins: [a: 3]", "plugins[0].a: expected the plugin's settings as a mapping, not a number"),
        ("plugins: [a: {on_error: pass}]", "plugins[0].a.on_error: expected 'tempfail', 'skip' or"),
        ("plugins: [a: {timeout: 0s}]", "plugins[0].a.timeout: must be longer than nothing"),
        ("plugins: [a: {when: {}}]", "plugins[0].a.when: a condition needs at least one of the keys"),
        ("plugins: [a: {when: {strem: b}}]", 'a.when.strem: unknown key; did you mean "stream"?'),
        ("plugins: [a: {when: {stream: b}}]", 'there is no stream "b"; known streams are default'),
        ("plugins: [a: {when: {stream: defalt}}]", 'no stream "defalt"; did you mean "default"?'),
        ("streams: [bulk]", "streams: expected a mapping"),
        ("streams: {Bulk: {when: {user: a}}}", "streams.Bulk: a stream's name has lower-case"),
        ("streams: {bulk: {}}", "streams.bulk.when: missing; which mail belongs to the stream"),
        ("streams: {bulk: {when: }}", "streams.bulk.when: missing; which mail belongs"),
        ("streams: {default: {when: {user: a}}}", "streams.default.when: default is what no other"),
        ("streams: {a: {when: {stream: b}}}", "streams.a.when.stream: a stream cannot ask for"),
        ("streams: {a: {when: {user: a}, priority: 3}}", "streams.a.priority: expected 'low',"),
        ("streams: {a: {when: {sender: }}}", 'streams.a.when: "sender" has no value'),
        ("streams: {a: {when: {sender: []}}}", "streams.a.when.sender: an empty list matches nothing"),
        ("streams: {a: {when: {sender: 3}}}", "when.sender: expected text, not a number"),
        ("streams: {a: {when: {sender: example.com}}}", "it has no \"@\"; for a domain there are the keys"),
        ("streams: {a: {when: {sender_domain: '@b.example'}}}", 'has no "@"; for example: b.example'),
        ("streams: {a: {when: {client: 10.0.0.1/8}}}", "the network is 10.0.0.0/8, the one address"),
        ("streams: {a: {when: {header: {'A:': b}}}}", "it has no colon and no space"),
        ("streams: {a: {when: {header: {A: no}}}}", "expected text, not true or false; put it in quotes"),
        ("streams: {a: {when: {header: A}}}", "when.header: expected a mapping"),
    ],
)  # fmt: skip
def test_wrong_values_are_said_with_what_would_be_right(line: str, hint: str) -> None:
    found = problems(f"# a comment\n\n{LISTEN}{line}\n")
    assert len(found) == 1, found
    assert found[0].startswith("gateway.yaml:5: ")
    assert hint in found[0]


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("listen:\n  - adress: 127.0.0.1:25\n", 2, 'listen[0].adress: unknown key; did you mean "address"?'),
        ("listen:\n  - {}\n", 2, "listen[0].address: missing; IP address and port; for example: 127.0.0.1:2525"),
        ("hostname: gw.example.com\n", 1, "listen: missing; The addresses that clients connect to; for example: ["),
        ("workers: 1\nlisten: []\n", 2, "listen: expected at least 1; for example: ["),
        ("workers: 1\nlisten: 127.0.0.1:25\n", 2, "listen: expected a list"),
        ("listen:\n  - address: 25\n", 2, "expected an IP address and a port, for example 127.0.0.1:2525, not a number"),
        ("listen:\n  - address: localhost:25\n", 2, '"localhost:25" is no endpoint; expected an IP address and a port'),
        ("listen:\n  - address: 127.0.0.1\n", 2, '"127.0.0.1" has no port; expected'),
        ("listen:\n  - address: '::1:25'\n", 2, "or [::1]:25"),
        ("listen:\n  - address: 127.0.0.1:70000\n", 2, "a port is a number up to 65535"),
        ("listen:\n  - address: 127.0.0.1:25\n    allow: [10.0.0.5/8]\n", 3, "listen[0].allow[0]: \"10.0.0.5/8\" has host bits set; the network is 10.0.0.0/8, the one address is 10.0.0.5"),
        ("listen:\n  - address: 127.0.0.1:25\n    allow:\n      - here\n", 4, '"here" is no IP network; for example: 10.0.0.0/8'),
        ("listen:\n  - address: 127.0.0.1:25\n    allow: 10.0.0.0/8\n", 3, "listen[0].allow: expected a list"),
        ("listen:\n  - address: 127.0.0.1:25\n    tls:\n      key: /dev/null\n      certificate: none.pem\n", 5, "listen[0].tls.certificate: no such file: "),
        ("listen:\n  - address: 127.0.0.1:25\n    tls: {certificate: /, key: /dev/null}\n", 3, "/ is a folder; expected a file"),
        ("listen:\n  - address: 127.0.0.1:25\n    tls: {certificate: /dev/null, key: /dev/null}\n", 3, "are no pair of certificate and key"),
        ("listen:\n  - address: 127.0.0.1:25\n    tls: {}\n", 3, "listen[0].tls.certificate: missing; The certificate with its chain, as PEM; for example: tls/cert.pem"),
        ("listen:\n  - address: 127.0.0.1:25\n    users: /dev/null\n", 2, "nobody could log in: users needs tls, or plaintext_auth: true"),
        ("listen:\n  - address: 127.0.0.1:25\n  - address: 127.0.0.1:25\n", 3, "127.0.0.1:25 is already taken by listen[0]"),
        ("listen: [{address: 127.0.0.1:25}]\nhostname: my_host\n", 2, "hostname: \"my_host\" is no host name; for example: hostname: gw.example.com"),
        ("listen: [{address: 127.0.0.1:25}]\nhostname: 192.0.2.1\n", 2, "is an address; a host name is needed"),
        ("listen: [{address: 127.0.0.1:25}]\nhostname: 例え.jp\n", 2, "must be written in ASCII: xn--r8jz45g.jp"),
        ("listen: [{address: 127.0.0.1:25}]\nhostname: 5\n", 2, "hostname: expected text, not a number; put it in quotes; for example: gw.example.com"),
        ("listen: [{address: 127.0.0.1:25}]\nplugins:\n  - footer:\n    text: x\n", 4, 'plugins[0].text: an entry has one name; indent what belongs to "footer" further than it'),
        ("listen: [{address: 127.0.0.1:25}]\nplugins:\n  - footer:\n      when:\n        user: a\n        sender: b\n", 6, 'footer.when.sender: "b" is no address'),
    ],
)  # fmt: skip
def test_problems_have_the_line_of_what_is_wrong(text: str, line: int, hint: str) -> None:
    prefix = "" if "hostname" in text else "hostname: gw.example.com\n"
    found = problems(prefix + text)
    matching = [problem for problem in found if hint in problem]
    assert matching, found
    assert matching[0].startswith(f"gateway.yaml:{line + prefix.count(chr(10))}: ")


def test_all_problems_come_at_once_in_the_order_of_the_file() -> None:
    found = problems(
        "plugins: [3]\nlimits: {hops: x}\nlisten:\n  - {address: 1}\n  - {address: 2}\nfoo: 1\n"
    )
    assert [problem.split(":")[1] for problem in found] == ["1", "2", "4", "5", "6"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_config(tmp_path / "none.yaml")


def test_a_key_with_a_passphrase_is_refused_without_asking(tmp_path: Path) -> None:
    write_pair(tmp_path, b"secret")
    text = "hostname: a.b\nlisten: [{address: 127.0.0.1:0, tls: {certificate: cert.pem, key: key.pem}}]"
    (found,) = problems(text, tmp_path / "gateway.yaml")
    assert "is encrypted; a key without a passphrase is needed" in found


def test_entries_have_names_of_their_own() -> None:
    found = entries(
        "  - footer\n  - footer: {text: b}\n  - ./site/footer.py: {when: {user: a}}\n"
        "  - ./site/legal.py:Legal:\n  - other: {timeout: 1m, on_error: skip, x: 1}\n"
    )
    assert [entry.name for entry in found] == ["footer", "footer#2", "footer#3", "legal", "other"]
    assert [entry.reference for entry in found][2:4] == [
        "./site/footer.py",
        "./site/legal.py:Legal",
    ]
    assert [entry.line for entry in found] == [4, 5, 6, 7, 8]
    assert found[1].settings == {"text": "b"}
    assert found[2].when is not None
    assert (found[0].timeout, found[0].on_error, found[0].when) == (10, "tempfail", None)
    assert (found[4].timeout, found[4].on_error, found[4].settings) == (60, "skip", {"x": 1})


def test_settings_are_not_in_a_repr() -> None:
    config = load("plugins: [{db: {password: hunter2}}]")
    assert "hunter2" not in repr(config)
    assert "hunter2" not in repr(config.plugins[0])
    assert "hunter2" not in repr(config.document)


@pytest.mark.parametrize(
    "text",
    [
        "plugins: [{db: hunter2}]",
        "plugins: [{db: {when: [hunter2]}}]",
        "plugins: hunter2",
        "hunter2",
    ],
)
def test_errors_do_not_show_what_may_be_a_secret(text: str) -> None:
    assert "hunter2" not in "".join(problems(LISTEN + text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:25", ("127.0.0.1", 25)),
        ("[0::1]:0", ("::1", 0)),
        ("0.0.0.0:587", ("0.0.0.0", 587)),
    ],
)
def test_endpoints(text: str, expected: tuple[str, int]) -> None:
    endpoint = Endpoint.parse(text)
    assert (endpoint.host, endpoint.port) == expected
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text", ["", ":25", "*:25", "[::1]", "::1:25", "1.2.3.4:x", "1.2.3.4:65536"]
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(ValueError):
        Endpoint.parse(text)


def test_a_config_can_be_made_without_a_file() -> None:
    data: dict[str, Any] = {"hostname": "a.example", "listen": [{"address": "127.0.0.1:0"}]}
    assert Config.model_validate(data).document.file == Path("gateway.yaml")
