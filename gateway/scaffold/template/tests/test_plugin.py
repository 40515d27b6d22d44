"""Tests of the plugin, in a gateway in memory. See `gateway.testing`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from gateway.hooks import Event, Outcome
from gateway.scaffold.template.plugin import NewPlugin, NewPluginConfig
from gateway.testing import MemoryGateway, mail

Start = Callable[..., MemoryGateway]


def test_it_lets_mail_pass(gateway: Start) -> None:
    plugin = NewPlugin(NewPluginConfig())
    result = gateway(plugin).send(mail("Hello"))
    assert result.reply.startswith("250")
    result.changes.only(*NewPlugin.changes)


def test_start_says_that_it_is_ready(gateway: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    gateway(NewPlugin(NewPluginConfig()))
    assert "is ready" in caplog.text


def test_auth_lets_nobody_in(gateway: Start) -> None:
    plugin = NewPlugin(NewPluginConfig())
    result = gateway(plugin).send(mail("Hello"), user="shop")
    assert result.reply.startswith("535")


def test_claim_takes_mail_to_the_address(gateway: Start) -> None:
    plugin = NewPlugin(NewPluginConfig(address="me@example.com"))
    result = gateway(plugin).send(mail("Hello"), to="Me@example.com")
    assert result.reply.startswith("250")
    assert not result.messages


def test_claim_takes_no_other_mail(gateway: Start) -> None:
    plugin = NewPlugin(NewPluginConfig(address="me@example.com"))
    result = gateway(plugin).send(mail("Hello"), to="you@example.com")
    assert result.message.recipients == ["you@example.com"]


def test_message_gets_the_field(gateway: Start) -> None:
    plugin = NewPlugin(NewPluginConfig(value="no"))
    result = gateway(plugin).send(mail("Hello"))
    assert result.message.headers.get_all("X-New-Plugin") == ["no"]


def test_message_field_can_hold_ascii_only() -> None:
    with pytest.raises(ValidationError):
        NewPluginConfig(value="n\nx")


def test_seal_is_on_top(gateway: Start) -> None:
    plugin = NewPlugin(NewPluginConfig(value="no"))
    result = gateway(plugin).send(mail("Hello"))
    assert result.message.content.startswith(b"X-New-Plugin-Seal: no\r\n")


def test_route_is_left_to_the_configuration(gateway: Start) -> None:
    assert gateway(NewPlugin(NewPluginConfig())).attempt().route is None


def test_source_is_left_to_the_system(gateway: Start) -> None:
    assert gateway(NewPlugin(NewPluginConfig())).attempt().source is None


def test_admit_lets_attempts_start(gateway: Start) -> None:
    assert gateway(NewPlugin(NewPluginConfig())).attempt().made


def test_reply_means_what_it_says(gateway: Start) -> None:
    plugin = NewPlugin(NewPluginConfig())
    result = gateway(plugin).attempt(outcome="452 4.2.2 Mailbox full")
    assert isinstance(result.outcome, Outcome)
    assert result.outcome.code == 452


def test_observe_logs_events(gateway: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    event = Event("delivered", 0.0, "ID1", recipient="ada@example.net")
    plugin = NewPlugin(NewPluginConfig())
    result = gateway(plugin).observe(event)
    assert not result.again
    assert "ID1: delivered <ada@example.net>" in caplog.text


def test_http_has_a_page(gateway: Start) -> None:
    started = gateway(NewPlugin(NewPluginConfig()))
    (name,) = started.plugins
    page = started.http("GET", f"/{name}/")
    assert (page.status, page.text) == (200, "new-plugin is here\n")


def test_commands_say_that_it_is_here(gateway: Start) -> None:
    started = gateway(NewPlugin(NewPluginConfig()))
    (name,) = started.plugins
    assert started.command([name]).output == f"{name} is here\n"
