"""Configuration files: whatever is in one, errors are one line each and name a place in it."""

from __future__ import annotations

import re
from pathlib import Path

from fuzz.target import Target, law
from gateway.configuration.config import ConfigError, load_config
from gateway.configuration.yaml_document import Problem, decode, parse

_FILE = Path("/nowhere/gateway.yaml")
_ROOT = Path(__file__).parents[1]


def check(data: bytes) -> None:
    """Reads octets as gateway.yaml.

    Raises:
        BrokenLawError: an error is not one line, or has no place.
    """
    try:
        text = decode(_FILE, data)
        parse(_FILE, text)
    except ConfigError as error:
        _check(error, data)
        return
    try:
        load_config(_FILE, text)
    except ConfigError as error:
        _check(error, data)


def _check(error: ConfigError, data: bytes) -> None:
    law(error.problems, "an error that says nothing")
    lines = (
        data.count(b"\n") + data.count(b"\r") + len(data.decode("utf-8", "replace").splitlines())
    )
    for problem in error.problems:
        law(isinstance(problem, Problem), "no problem")
        law(not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", str(problem)), "not one line")
        law(problem.line <= lines + 1, "a line that is not there")


def _examples() -> list[bytes]:
    texts = [path.read_text() for path in sorted((_ROOT / "docs").rglob("*.md"))]
    texts += [path.read_text() for path in sorted((_ROOT / "plugins").glob("*/README.md"))]
    return [
        block.encode()
        for text in texts
        for block in re.findall(r"(?ms)^```yaml\n(.*?)^```", text)
        if len(block) < 4096
    ]


def target() -> Target:
    """gateway.yaml."""
    found = [
        b"listen: [{address: 127.0.0.1:2525, allow: [127.0.0.0/8]}]\n",
        b"listen:\n  - &a {address: '[::1]:25'}\n  - <<: *a\n    address: 127.0.0.1:26\n",
        b"hostname: gw.example.com\nlisten: [{address: 0.0.0.0:25}]\nlimits: {message_size: 10MB}\n"
        b"streams: {bulk: {when: {header: {Precedence: bulk}}, priority: low}}\n"
        b"plugins:\n  - suppression: {file: x.txt, when: {stream: bulk}, timeout: 5s}\n",
        *_examples(),
    ]
    tokens = [
        *(
            b"&a ",
            b"*a",
            b"<<: ",
            b"!!python/object:os.system ",
            b"!!binary ",
            b"|\n",
            b">-\n",
            b"- ",
        ),
        *(
            b"? ",
            b": ",
            b"{",
            b"}",
            b"[",
            b"]",
            b"\t",
            b"---\n",
            b"...\n",
            b"%YAML 1.1\n",
            b"#",
            b"~",
        ),
        *(b"0x", b"1e999", b".inf", b".nan", b"2026-01-01", b"0o7", b"1:30", b"yes", b'"\\u2028"'),
        *(b"listen:", b"limits:", b"plugins:", b"when:", b"streams:", b"relay:", b"10MiB", b"5m"),
        *(b'"\\ud800"', b'"\\0"', b"'", b'"', b"&a [*a]", b"\xef\xbb\xbf", b"9" * 5000),
    ]
    return Target("yaml", check, found, tokens)
