"""The fixtures, in runs of pytest of their own: with and without pytest-asyncio."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

PLUGIN = """
from pydantic import BaseModel
from gateway.hooks import Plugin, hookimpl

class Config(BaseModel):
    text: str

class Footer(Plugin[Config]):
    @hookimpl
    def start(self, context):
        self.context = context

    @hookimpl
    async def message(self, message):
        if self.config.text == "raise":
            raise KeyError("customers")
        if self.config.text == "subject":
            message.headers.change("Subject", "changed")
        message.headers.add("X-Time", f"{self.context.clock():.0f}")
        for text in await self.context.resolver.txt("example.com"):
            message.headers.add("X-Text", text)
        for part in message.text_parts("text/plain"):
            part.text += f"\\n-- \\n{self.config.text}\\n"

    @hookimpl
    def stop(self):
        if self.config.text == "stop":
            raise KeyError("stop")
"""

HEAD = """
from footer import Config, Footer
from gateway.testing import mail
ZONES = {"TXT": ['"hello"']}
"""


def run(
    folder: Path, test: str, *options: str, asyncio: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs a test of a plugin as its author does."""
    (folder / "footer.py").write_text(PLUGIN)
    (folder / "test_footer.py").write_text(HEAD + test)
    plugins = registered()
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"),
            *plugins,
            *([] if asyncio else ["-p", "no:asyncio"]),
            *("-p", "no:xdist", *options, "test_footer.py"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def registered() -> list[str]:
    """What names the fixtures to pytest where no entry point does."""
    points = entry_points(group="pytest11")
    if any(point.value == "gateway.pytest_plugin" for point in points):
        return []
    return ["-p", "gateway.pytest_plugin"]


def test_synchronous_tests_need_no_asyncio(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
def test_footer(gateway, clock, fake_dns):
    fake_dns.zones["example.com"] = ZONES
    made = gateway(Footer(Config(text="Example Inc.")))
    result = made.send(mail("Hello"))
    assert result.message.text == "Hello\\n\\n-- \\nExample Inc.\\n"
    result.changes.only("text/plain", "header:X-Time", "header:X-Text")
    assert result.message.headers.get("X-Text") == "hello"
    clock.move(60)
    assert made.send().message.headers.get("X-Time") == "1780315260"
    other = gateway((Footer, {"text": "other"}))
    assert other.send().message.headers.get("X-Time") == "1780315260"
    assert fake_dns.queries["example.com", "TXT"] == 2
""",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_what_an_author_sees_of_a_plugin_that_is_wrong(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
import pytest

@pytest.fixture(autouse=True)
def zones(fake_dns):
    fake_dns.zones["example.com"] = ZONES

def test_subject(gateway):
    gateway(Footer(Config(text="subject"))).send().changes.only("text/plain", "header:X-*")

def test_raises(gateway):
    gateway(Footer(Config(text="raise"))).send()

def test_text(gateway):
    assert gateway(Footer(Config(text="x"))).send().message.text == "Hello\\n"

def test_refused(gateway):
    gateway(Footer(Config(text="x"))).send(to="a@localhost b").message

def test_settings(gateway):
    gateway((Footer, {"texd": "x"}))

def test_stop(gateway):
    assert gateway(Footer(Config(text="stop"))).send().accepted
""".replace('"header:X-*"', '"header:X-Time", "header:X-Text"'),
    )
    assert done.returncode == 1
    shown = done.stdout
    assert "6 passed" not in shown
    assert "5 failed, 1 passed, 1 error" in shown, shown
    assert (
        "only text/plain, header:X-Time, header:X-Text may change, but so did header:Subject:"
        in shown
    )
    assert "- Subject: Hello\n" in shown
    assert "+ Subject: changed\n" in shown
    # The line of the plugin that raised, and what it raised.
    assert 'raise KeyError("customers")' in shown
    assert "plugin footer failed in message: raised KeyError: 'customers'" in shown
    assert "C: RCPT TO:<a@localhost b>" in shown
    assert "plugin footer failed in stop" in shown
    assert 'texd: unknown key; did you mean "text"?' in shown
    # No frame of the kit's own.
    assert "gateway/testing" not in shown


def test_a_running_gateway(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
async def test_delivery(running_gateway, next_hop, fake_dns, clock):
    fake_dns.zones["example.com"] = ZONES
    async with running_gateway(Footer(Config(text="Example Inc."))) as gateway:
        await gateway.send(mail("Hello"))
        (received,) = await next_hop.wait(1)
        assert gateway.clock is clock
        assert b"Example Inc." in received.content
        assert b"X-Text: hello" in received.content
""",
        "-o",
        "asyncio_mode=auto",
        "-o",
        "asyncio_default_fixture_loop_scope=function",
        asyncio=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("loaded", ["gateway.hooks", "gateway.testing", "pydantic", "asyncio"])
def test_it_costs_other_tests_nothing(loaded: str) -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import gateway.pytest_plugin; "
        f"sys.exit({loaded!r} in set(sys.modules) - before)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
