"""The demo: ends well only when all is well, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dkim
import pytest

from examples.demo.__main__ import INTERRUPTED
from examples.demo.case import CASES, MESSAGES, Case
from examples.demo.installation import PublicKey, make_site
from examples.demo.transmission import Answers
from examples.demo.verdict import checks, queue_id_of
from gateway.testing import ReceivedMessage

ROOT = Path(__file__).parent.parent
DEADLINE = 60.0

ONE = CASES[0]


def _start(folder: Path, code: str) -> subprocess.Popen[str]:
    """The demo in a process of its own, with its temporary folder inside of `folder`."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _demo(cases: str) -> str:
    return (
        "import sys\n"
        "from dataclasses import replace\n"
        "from examples.demo.__main__ import main\n"
        "from examples.demo.case import CASES\n"
        f"sys.exit(main({cases}))\n"
    )


def _processes(folder: Path) -> Iterator[int]:
    """The processes that have the folder in their command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.fsencode(folder) in (entry / "cmdline").read_bytes():
                    yield int(entry.name)
            except OSError:
                continue


def _assert_none_left(folder: Path) -> None:
    end = time.monotonic() + DEADLINE
    while left := list(_processes(folder)):
        assert time.monotonic() < end, f"processes {left} are still there"
        time.sleep(0.05)


def test_everything_goes_as_it_must(tmp_path: Path) -> None:
    process = _start(
        tmp_path, "from runpy import run_module\nrun_module('examples.demo', run_name='__main__')"
    )
    output, errors = process.communicate(timeout=DEADLINE)
    assert (process.returncode, errors) == (0, ""), output + errors
    for case in CASES:
        assert case.title in output
    assert "✗" not in output
    assert "\x1b" not in output, "no colours where no terminal is"
    assert f"All {len(CASES)} messages went as they must." in output
    assert not list(tmp_path.iterdir()), "the temporary folder is removed"
    _assert_none_left(tmp_path)


def test_other_results_than_expected_give_status_1(tmp_path: Path) -> None:
    process = _start(
        tmp_path,
        _demo(
            "[replace(CASES[0], reply='550 '),"
            " replace(CASES[11], refused={}),"
            " replace(CASES[12], refused={}, reply='250 2.0.0 Ok: queued as '),"
            " CASES[1]]"
        ),
    )
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1, output
    assert "3 of 4 messages went otherwise than they must." in output
    assert "; must: 550" in output
    assert "<gone@example.net>: 550 5.7.1 Recipient refused; must: 250" in output
    # CASES[0] was not to arrive and did; two recipients were to get mail and did not.
    assert "✗ 3 of 4 copies arrived in all" in output
    assert not list(tmp_path.iterdir())
    _assert_none_left(tmp_path)


def test_a_gateway_that_does_not_start_gives_status_1_and_says_why(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "gateway.yaml").write_text("hostname: gw.example.com\nlisten: []\n")
    (site / "stay_inside.py").write_text("")
    folder = tmp_path / "run"
    folder.mkdir()
    code = (
        "from pathlib import Path\n"
        "from examples.demo import installation\n"
        f"installation.SITE = Path({str(site)!r})\n"
    )
    process = _start(folder, code + _demo("CASES"))
    output, errors = process.communicate(timeout=DEADLINE)
    assert (process.returncode, output) == (1, "")
    assert "the gateway did not start" in errors
    assert "gateway.yaml:2" in errors
    assert not list(folder.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_the_gateway_too(tmp_path: Path, number: signal.Signals) -> None:
    process = _start(tmp_path, _demo("CASES * 100"))
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if "is valid" in line:
                break
        assert list(_processes(tmp_path)), "the gateway runs"
        process.send_signal(number)
        process.communicate(timeout=DEADLINE)
    if number is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == INTERRUPTED
        assert not list(tmp_path.iterdir())
    _assert_none_left(tmp_path)


# What is looked at, one fault at a time.


@pytest.fixture(scope="module")
def key_and_arrival(tmp_path_factory: pytest.TempPathFactory) -> tuple[PublicKey, bytes]:
    """A key, and the first message as the gateway would hand it over."""
    folder = tmp_path_factory.mktemp("site")
    key = make_site(folder, "127.0.0.1:25")
    content = (
        b"Received: from client.example.com ([127.0.0.1])\r\n"
        b"\tby gw.example.com with ESMTP id ABC123;\r\n"
        b"\tMon, 15 Apr 2024 00:12:45 +0000\r\n" + ONE.content()
    )
    return key, _signed(folder, content)


def _signed(folder: Path, content: bytes) -> bytes:
    signature: bytes = dkim.sign(
        content,
        b"demo",
        b"example.com",
        (folder / "demo.pem").read_bytes(),
        include_headers=[b"from", b"subject"],
    )
    return signature + content


def _arrival(content: bytes, recipients: tuple[str, ...], sender: str) -> ReceivedMessage:
    return ReceivedMessage(
        sender=sender,
        parameters=(),
        recipients=tuple((recipient, ()) for recipient in recipients),
        content=content,
        pipelined=True,
        connection=1,
        helo="gw.example.com",
        peer="127.0.0.1",
    )


GOOD_ANSWERS = Answers({"hanako@example.net": "250 2.1.5 Ok"}, "250 2.0.0 Ok: queued as ABC123")


def _faults(
    key: PublicKey,
    content: bytes,
    *,
    case: Case = ONE,
    answers: Answers = GOOD_ANSWERS,
    recipients: tuple[str, ...] = ONE.recipients,
    sender: str = ONE.sender,
) -> list[str]:
    arrivals = [_arrival(content, recipients, sender)] if recipients else []
    results = checks(case, ONE.content(), answers, arrivals, key)
    return [check.text for check in results if not check.good]


def test_a_good_arrival_has_no_fault(key_and_arrival: tuple[PublicKey, bytes]) -> None:
    key, content = key_and_arrival
    assert _faults(key, content) == []
    assert queue_id_of(content) == "ABC123"


def test_a_changed_octet_is_seen_twice(key_and_arrival: tuple[PublicKey, bytes]) -> None:
    key, content = key_and_arrival
    changed = content.replace(b"2024-118203", b"2024-118204")
    assert changed != content
    signature, octets = _faults(key, changed)
    assert signature.startswith("the DKIM signature is not valid: body hash mismatch")
    assert octets == "the message was changed on its way"


def test_white_space_that_the_signature_allows_is_seen(
    key_and_arrival: tuple[PublicKey, bytes],
) -> None:
    key, content = key_and_arrival
    changed = content.replace(b"MIME-Version: 1.0", b"MIME-Version:  1.0")
    assert _faults(key, changed) == ["the message was changed on its way"]


def test_a_missing_signature_is_seen(key_and_arrival: tuple[PublicKey, bytes]) -> None:
    key, content = key_and_arrival
    unsigned = content[content.index(b"Received:") :]
    faults = _faults(key, unsigned)
    assert faults[0] == "the DKIM signature is not valid"
    assert faults[1].startswith("other fields were added than")


def test_another_key_is_seen(key_and_arrival: tuple[PublicKey, bytes], tmp_path: Path) -> None:
    _, content = key_and_arrival
    assert _faults(make_site(tmp_path, "127.0.0.1:25"), content) == [
        "the DKIM signature is not valid"
    ]


def test_a_field_too_many_is_seen(key_and_arrival: tuple[PublicKey, bytes]) -> None:
    key, content = key_and_arrival
    (fault,) = _faults(key, b"X-Extra: 1\r\n" + content)
    assert fault.startswith("other fields were added than")


def test_a_changed_sender_is_seen(key_and_arrival: tuple[PublicKey, bytes]) -> None:
    key, content = key_and_arrival
    assert _faults(key, content, sender="other@example.com") == [
        "the sender became <other@example.com>"
    ]


@pytest.mark.parametrize(
    "recipients", [(), ("other@example.net",), ("hanako@example.net", "hanako@example.net")]
)
def test_other_recipients_are_seen(
    key_and_arrival: tuple[PublicKey, bytes], recipients: tuple[str, ...]
) -> None:
    key, content = key_and_arrival
    (fault,) = _faults(key, content, recipients=recipients)
    assert fault.endswith("; must: hanako@example.net")


def test_an_arrival_of_what_was_refused_is_seen(
    key_and_arrival: tuple[PublicKey, bytes],
) -> None:
    key, content = key_and_arrival
    refused = replace(ONE, reply="550 5.7.1")
    answers = replace(GOOD_ANSWERS, message="550 5.7.1 No")
    (fault,) = _faults(key, content, case=refused, answers=answers)
    assert fault.startswith("arrived at hanako@example.net")


def test_other_replies_are_seen(key_and_arrival: tuple[PublicKey, bytes]) -> None:
    key, content = key_and_arrival
    answers = Answers({"hanako@example.net": "451 4.3.0 Later"}, "451 4.3.0 Later")
    assert _faults(key, content, answers=answers) == [
        "the client is told about <hanako@example.net>: 451 4.3.0 Later; must: 250",
        "the client is told about the message: 451 4.3.0 Later; must: 250 2.0.0 Ok: queued as ",
    ]


# The messages are what they are said to be.


def test_each_message_is_used_and_can_be_sent() -> None:
    used = {case.file for case in CASES}
    assert used == {path.name for path in MESSAGES.iterdir()}
    for name in used:
        content = (MESSAGES / name).read_bytes()
        assert content.endswith(b"\r\n")
        assert content.count(b"\n") == content.count(b"\r") == content.count(b"\r\n")


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("order-iso-2022-jp.eml", b"\x1b$B"),
        ("carrier-iso-2022-jp.eml", b"\x1b$B-j"),  # ㈱, which JIS X 0208 does not have
        ("appointment-8bit.eml", "bestätigen".encode("latin-1")),
        ("password-quoted-printable.eml", b" an=\r\n hour"),
        ("log-excerpt-dots.eml", b"\r\n\r\n.\r\n.."),
        ("newsletter-alternative.eml", b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"),
        ("invoice-attachment.eml", b"Content-Type: application/pdf"),
        ("booking-utf-8.eml", b"Content-Transfer-Encoding: base64"),
        ("reply-long-header.eml", b".example.org> <0012."),
    ],
)
def test_a_message_has_what_makes_it_hard(name: str, octets: bytes) -> None:
    assert octets in (MESSAGES / name).read_bytes()


def test_the_empty_body_is_empty() -> None:
    content = (MESSAGES / "reading-empty-body.eml").read_bytes()
    assert content.index(b"\r\n\r\n") + 4 == len(content)
