"""OpenDKIM, which shares no code with the plugin or dkimpy: each verifies what the other signs."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from plugins.dkim.verification import Result
from tests.conftest import DebianProgram
from tests.plugins.dkim_keys import KeyPair, ed25519_key, plugin, rsa_key
from tests.plugins.test_dkim import CANONICALIZATIONS, MESSAGES, sealed
from tests.plugins.test_dkim_verification import verdicts

PAIRS = {"rsa": rsa_key, "ed25519": ed25519_key}


class OpenDkim:
    """Debian's opendkim, verifying files; it reads public keys from a file instead of DNS."""

    def __init__(self, program: Path, folder: Path, records: dict[str, KeyPair]) -> None:
        self._program = program
        self._folder = folder
        self._configuration = folder / "opendkim.conf"
        keys = folder / "public-keys"
        keys.write_text("".join(f"{name} {pair.record}\n" for name, pair in records.items()))
        self._configuration.write_text(f"TestPublicKeys {keys}\nMode v\nMaximumHeaders 0\n")

    def says(self, content: bytes) -> str:
        """What opendkim writes of a message: the results and its Authentication-Results field."""
        file = self._folder / "message.eml"
        file.write_bytes(content)
        command: list[str | Path] = [self._program, "-x", self._configuration, "-vv", "-t", file]
        done = subprocess.run(command, capture_output=True, check=True, timeout=30)
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    def verifies(self, content: bytes) -> bool:
        said = self.says(content)
        passed, failed = said.count("dkim=pass"), said.count("dkim=fail")
        assert passed + failed == content.count(b"DKIM-Signature: "), said
        return not failed


def as_read_by_a_milter(content: bytes) -> bytes:
    """The message with one space after the colon of each field.

    With `-t`, opendkim gives its library a header as the milter protocol used to: without the white
    space after the colon, for which the library then puts one space. So of simple header
    canonicalization it can verify only this form; dkimpy verifies the others.
    """
    header, blank, body = content.partition(b"\r\n\r\n")
    return re.sub(rb"(?m)^([!-9;-~]+):(?:[ \t]|\r\n[ \t])*", rb"\1: ", header) + blank + body


def verifier(program: DebianProgram, folder: Path) -> OpenDkim:
    records = {f"{name}._domainkey.example.com": pair() for name, pair in PAIRS.items()}
    return OpenDkim(program("opendkim"), folder, records)


@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
@pytest.mark.parametrize("algorithm", PAIRS)
@pytest.mark.parametrize("name", MESSAGES)
def test_opendkim_verifies_the_signature(
    debian_program: DebianProgram,
    tmp_path: Path,
    name: str,
    algorithm: str,
    canonicalization: str,
) -> None:
    signer = plugin(
        tmp_path,
        {"selector": algorithm},
        pairs=(PAIRS[algorithm](),),
        canonicalization=canonicalization,
    )

    content = MESSAGES[name]
    if canonicalization.startswith("simple"):
        content = as_read_by_a_milter(content)

    assert verifier(debian_program, tmp_path).verifies(sealed(signer, content))


@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
@pytest.mark.parametrize("algorithm", PAIRS)
@pytest.mark.parametrize(("old", "new"), [(b"Hello", b"Hallo"), (b"and a fold", b"and no fold")])
def test_opendkim_sees_a_change(
    debian_program: DebianProgram,
    tmp_path: Path,
    old: bytes,
    new: bytes,
    algorithm: str,
    canonicalization: str,
) -> None:
    signer = plugin(
        tmp_path,
        {"selector": algorithm},
        pairs=(PAIRS[algorithm](),),
        canonicalization=canonicalization,
    )

    content = sealed(signer, as_read_by_a_milter(MESSAGES["plain"]))
    opendkim = verifier(debian_program, tmp_path)

    assert opendkim.verifies(content)
    assert content.count(old) == 1

    assert not opendkim.verifies(content.replace(old, new))


@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
def test_opendkim_verifies_both_signatures_of_a_message(
    debian_program: DebianProgram, tmp_path: Path, canonicalization: str
) -> None:
    signer = plugin(
        tmp_path,
        {"selector": "rsa"},
        {"selector": "ed25519"},
        pairs=(rsa_key(), ed25519_key()),
        canonicalization=canonicalization,
    )

    content = sealed(signer, as_read_by_a_milter(MESSAGES["plain"]))

    assert content.count(b"DKIM-Signature: ") == 2
    assert verifier(debian_program, tmp_path).verifies(content)


@pytest.mark.parametrize("canonicalization", CANONICALIZATIONS)
def test_opendkim_verifies_a_name_with_white_space_before_its_colon(
    debian_program: DebianProgram, tmp_path: Path, canonicalization: str
) -> None:
    # RFC 5322 4.5 calls it obsolete; dkimpy does not read it.
    signer = plugin(tmp_path, {"selector": "rsa"}, canonicalization=canonicalization)
    content = b"From: news@example.com\r\nSubject : Hello\r\n\r\nHello.\r\n"

    assert verifier(debian_program, tmp_path).verifies(sealed(signer, content))


@pytest.mark.parametrize(
    ("algorithm", "canonicalization"),
    [
        *(("rsa", canonicalization) for canonicalization in CANONICALIZATIONS),
        # With simple header canonicalization, OpenDKIM 2.11 does not verify its own.
        *(("ed25519", f"relaxed/{body}") for body in ("relaxed", "simple")),
    ],
)
def test_what_opendkim_signs_is_verified(
    debian_program: DebianProgram, tmp_path: Path, algorithm: str, canonicalization: str
) -> None:
    pair = PAIRS[algorithm]()
    configuration = tmp_path / "opendkim.conf"
    configuration.write_text(
        f"Mode s\nDomain example.com\nSelector s1\nKeyFile {pair.write(tmp_path / 'key.pem')}\n"
        f"SignatureAlgorithm {algorithm}-sha256\nCanonicalization {canonicalization}\n"
        "MaximumHeaders 0\nOversignHeaders From,Subject\nRequireSafeKeys no\n"
    )
    contents = []
    for number, message in enumerate(MESSAGES.values()):
        content = as_read_by_a_milter(message)
        contents.append(content if content.endswith(b"\r\n") else content + b"\r\n")
        (tmp_path / f"{number}.eml").write_bytes(contents[-1])
    files = ",".join(str(tmp_path / f"{number}.eml") for number in range(len(contents)))
    command: list[str | Path] = [
        *(debian_program("opendkim"), "-x", configuration, "-vv", "-t", files)
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    fields = re.findall(rb"hname='DKIM-Signature' hvalue='([^']+)'", done.stdout)

    for name, field, content in zip(MESSAGES, fields, contents, strict=True):
        signed = b"DKIM-Signature: " + field.replace(b"\n", b"\r\n") + b"\r\n" + content
        (verdict,) = verdicts(signed, pair, time.time())
        assert verdict.result is Result.PASS, (name, verdict.reason)
