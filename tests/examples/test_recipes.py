"""The recipes do what they say: each as it stands in the document, in a gateway."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import psycopg
import pytest
from aiohttp import web
from click.testing import CliRunner

from gateway.events import Event
from gateway.hooks.lifecycle import context_of
from gateway.spool.emitter import emit_nothing
from gateway.testing import NextHop
from tests.assembly import Client, below_trace, until
from tests.conftest import DebianProgram
from tests.examples.recipe import FILES, ROOT, Cook, entry_of
from tests.examples.web_service import Service
from tests.plugins.personalization_databases import PASSWORD, DatabaseServer, postgresql


async def _log_in(client: Client, user: str) -> None:
    secret = base64.b64encode(f"\0{user}\0secret".encode()).decode()
    assert (await client.say(f"AUTH PLAIN {secret}")).startswith("235")


def test_every_recipe_has_an_entry_and_a_test() -> None:
    source = Path(__file__).read_text()
    assert len(FILES) == 12
    for file in FILES:
        name = Path(file).stem
        assert isinstance(entry_of(name), dict)
        assert f'cook("{name}"' in source, name


# Add a header field.


async def test_the_header_field_is_added_and_what_a_client_put_there_is_gone(cook: Cook) -> None:
    async with cook("mark_environment") as recipe:
        content = b"X-Environment: live\r\nX-Odd:   a \r\nSubject: Hi\r\n\r\nHello \r\n"
        assert (await recipe.gateway.submit("b@example.net", content=content)).startswith("250")
        assert await recipe.delivered() == (
            b"X-Odd:   a \r\nSubject: Hi\r\nX-Environment: staging\r\n\r\nHello \r\n"
        )


# Reject by a rule.


async def test_a_login_sends_from_its_own_domains_only(cook: Cook) -> None:
    async with cook("own_senders") as recipe, recipe.gateway.client() as client:
        assert (await client.say("MAIL FROM:<a@else.example.com>")).startswith("250")
        await client.say("RSET")
        await _log_in(client, "shop")
        reply = await client.say("MAIL FROM:<a@else.example.com>")
        assert reply == "550 5.7.1 shop may not send from else.example.com"
        for sender in ("a@shop.example.com", "a@NEWS.example.com", ""):
            assert (await client.say(f"MAIL FROM:<{sender}>")).startswith("250")
            await client.say("RSET")


# Look something up in a database.


async def test_only_customers_get_mail(cook: Cook, tmp_path: Path) -> None:
    file = tmp_path / "customers.db"
    database = sqlite3.connect(file)
    database.execute("CREATE TABLE customers (email TEXT)")
    database.execute("INSERT INTO customers VALUES ('ada@example.net')")
    database.commit()
    database.close()
    async with cook("customers_only") as recipe, recipe.gateway.client() as client:
        await client.say("MAIL FROM:<a@example.com>")
        assert (await client.say("RCPT TO:<Ada@example.net>")).startswith("250")
        reply = await client.say("RCPT TO:<eve@example.net>")
        assert reply == "550 5.1.1 No customer has this address"
        file.write_bytes(b"no database " * 100)
        assert (await client.say("RCPT TO:<ada@example.net>")).startswith("451")


@pytest.fixture(scope="module")
def shop(debian_program: DebianProgram) -> Iterator[DatabaseServer]:
    with postgresql(debian_program) as server:
        server.execute(
            "CREATE TABLE customers (email TEXT)",
            "INSERT INTO customers VALUES ('ada@example.net')",
        )
        yield server


async def test_only_customers_get_mail_with_a_server(cook: Cook, shop: DatabaseServer) -> None:
    url = f"postgresql://gateway:{quote(PASSWORD, safe='')}@127.0.0.1:{shop.url.port}/shop"
    cooked = cook("customers_only_async", database=url)
    async with cooked as recipe, recipe.gateway.client() as client:
        await client.say("MAIL FROM:<a@example.com>")
        assert (await client.say("RCPT TO:<Ada@example.net>")).startswith("250")
        reply = await client.say("RCPT TO:<eve@example.net>")
        assert reply == "550 5.1.1 No customer has this address"
        # The server ends the connection: one recipient waits, for the next there is a new one.
        shop.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename='gateway'"
        )
        assert (await client.say("RCPT TO:<ada@example.net>")).startswith("451")
        assert (await client.say("RCPT TO:<ada@example.net>")).startswith("250")
        connection = recipe.instance.connection
        assert isinstance(connection, psycopg.AsyncConnection)
    assert connection.closed


# Ask an HTTP service.


async def test_the_service_lets_mail_go_or_holds_it(cook: Cook, service: Service) -> None:
    async with cook("ask_service", url=service.url) as recipe:
        assert (await recipe.gateway.submit("b@example.net")).startswith("250")
        await recipe.delivered()
        assert service.bodies == [
            {"sender": "a@example.com", "recipients": ["b@example.net"], "subject": "test"}
        ]

        async def hold(request: web.Request) -> web.StreamResponse:
            return web.json_response({"hold": True})

        service.answer = hold
        assert (await recipe.gateway.submit("b@example.net")).startswith("250")
        (row,) = await until(recipe.gateway.rows, "the message that is held")
        assert row.state == "held"


async def _fail(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500)


async def _babble(request: web.Request) -> web.StreamResponse:
    return web.Response(text="no JSON")


async def _misunderstand(request: web.Request) -> web.StreamResponse:
    return web.json_response(["hold"])


async def _hesitate(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


@pytest.mark.parametrize("answer", [_fail, _babble, _misunderstand, _hesitate])
@pytest.mark.parametrize("needed", [True, False])
async def test_without_an_answer_mail_waits_or_goes_on(
    cook: Cook, service: Service, answer: Any, needed: bool
) -> None:
    service.answer = answer
    async with cook("ask_service", url=service.url, needed=needed, patience=0.3) as recipe:
        reply = await recipe.gateway.submit("b@example.net")
        if needed:
            assert reply == "451 4.7.1 The content cannot be examined now"
            assert recipe.gateway.rows() == []
        else:
            assert reply.startswith("250")
            await recipe.delivered()


# Remember something in a file.


async def test_the_first_mail_is_noted_and_the_second_is_not(cook: Cook) -> None:
    async with cook("first_mail") as recipe:
        gateway = recipe.gateway

        def delivered() -> list[Event]:
            return [event for event in gateway.events() if event.type == "delivered"]

        await gateway.submit("Bob@example.net")
        (first,) = await until(delivered, "the first")
        assert first.notes == {"first": "yes"}
        observe = recipe.plugin.hooks["observe"]
        observe([first])
        observe([first])
        await gateway.submit("bob@example.net")
        second = (await until(lambda: delivered()[1:], "the second"))[0]
        assert second.notes == {}


# Count across all workers.


async def test_a_quota_is_for_a_login_and_a_day(cook: Cook) -> None:
    async with cook("daily_quota", messages=2) as recipe:
        limits, clock = recipe.gateway.limits, 0.0

        async def send(user: str | None) -> str:
            async with recipe.gateway.client() as client:
                if user:
                    await _log_in(client, user)
                await client.begin()
                return await client.data(b"Subject: x\r\n\r\n")

        recipe.instance.clock = lambda: clock
        for _ in range(2):
            assert (await send("shop")).startswith("250")
        assert await send("shop") == "451 4.7.1 shop has sent its messages of today"
        assert (await send("crm")).startswith("250")
        assert (await send(None)).startswith("250")
        assert [cell.key.rpartition("/")[2] for cell in limits.cells("daily_quota/", clock)] == [
            "crm",
            "shop",
        ]
        clock = 86_399.0
        assert (await send("shop")).startswith("451")
        clock = 86_400.0
        assert (await send("shop")).startswith("250")


# Send events elsewhere.


async def test_events_are_posted_and_a_failure_makes_them_come_again(
    cook: Cook, service: Service
) -> None:
    async with cook("webhook", url=service.url) as recipe:
        assert recipe.instance.observes == ("delivered", "bounced", "expired")
        observe = recipe.plugin.hooks["observe"]
        events = [
            Event("delivered", 1.5, "ID1", notes={"campaign": "春"}),
            Event("bounced", 2, "ID2"),
        ]
        await observe(events)
        assert [Event.from_json(json.dumps(one)) for one in service.bodies[0]] == events
        assert service.headers[0]["Authorization"] == "Bearer change-me"
        service.answer = _fail
        with pytest.raises(Exception, match="500"):
            await observe(events)
        keys = {headers["Idempotency-Key"] for headers in service.headers}
        assert len(service.headers) == 2
        assert len(keys) == 1


# Route by a header field.


async def test_the_header_chooses_the_way_and_does_not_arrive(cook: Cook) -> None:
    async with NextHop() as partner:
        routes = {"partner": [partner.address]}
        async with cook("route_by_header", routes=routes) as recipe:
            submit = recipe.gateway.submit
            content = b"Subject: x\r\nX-Route: partner\r\n\r\nHello\r\n"
            assert (await submit("b@example.net", content=content)).startswith("250")
            (message,) = await partner.wait(1)
            assert below_trace(message.content) == b"Subject: x\r\n\r\nHello\r\n"
            assert recipe.hop.messages == []
            await submit("b@example.net")
            await recipe.delivered()
            reply = await submit("b@example.net", content=b"X-Route: nowhere\r\n\r\n")
            assert reply == "550 5.7.1 There is no such X-Route"
        assert len(partner.messages) == 1


# Slow down what you choose.


async def test_a_campaign_waits_and_others_go_on(cook: Cook) -> None:
    async with cook("campaign_rate", rate="1/h") as recipe:
        gateway = recipe.gateway
        spring = b"Subject: x\r\nX-Campaign: spring\r\n\r\nHello\r\n"
        await gateway.submit("b@example.net", content=spring)
        await recipe.delivered(1)
        await gateway.submit("b@example.net", content=spring)

        def waiting() -> list[Any]:
            return [row for row in gateway.rows() if "spring: 1/h" in str(row)]

        (row,) = await until(waiting, "the delay")
        assert row.state in ("deferred", "scheduled")
        await gateway.submit("b@example.net")
        assert b"X-Campaign" not in await recipe.delivered(2)
        assert len(recipe.hop.messages) == 2


# Hold mail for a person.


async def test_mail_to_many_is_held_and_goes_out_when_released(cook: Cook) -> None:
    async with cook("second_look", recipients=2) as recipe:
        gateway = recipe.gateway
        few = [f"u{number}@example.net" for number in range(2)]
        assert (await gateway.submit(*few)).startswith("250")
        await recipe.delivered(1)
        assert (await gateway.submit(*few, "one@example.net")).startswith("250")
        rows = await until(gateway.rows, "what is held")
        assert {row.state for row in rows} == {"held"}
        assert "3 recipients, somebody has to look" in str(rows[0])
        assert len(recipe.hop.messages) == 1


# A page and a command.


async def test_the_page_and_the_command_show_the_same_counts(cook: Cook) -> None:
    streams = "streams: {bulk: {when: {sender: 'news@*'}}}"
    async with cook("today", more=f"http: {{address: '127.0.0.1:0'}}\n{streams}") as recipe:
        gateway = recipe.gateway
        for sender in ("news@example.com", "a@example.com", "news@example.com"):
            await gateway.submit("b@example.net", sender=sender)
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await recipe.plugin.hooks["http"]()({}, receive, send)
        assert [message.get("status") for message in sent] == [200, None]
        assert json.loads(sent[1]["body"]) == {"bulk": 2, "default": 1}
        name = recipe.plugin.entry.name
        context = context_of(
            name, gateway.config, "command", gateway.resolver, gateway.limits, emit_nothing
        )
        command = recipe.plugin.hooks["commands"](context)
        assert isinstance(command, click.Command)
        result = CliRunner().invoke(command)
        assert result.output == "         2  bulk\n         1  default\n"


# The code of all of them.


@pytest.mark.parametrize("arguments", [["ruff", "check"], ["ruff", "format", "--diff"]])
def test_the_recipes_are_written_as_they_should_be(tmp_path: Path, arguments: list[str]) -> None:
    _write(tmp_path)
    done = _run(*arguments, "--isolated", "--line-length=100", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_the_recipes_are_typed(tmp_path: Path) -> None:
    """In one run, for the interface of the gateway is read each time."""
    _write(tmp_path)
    done = _run(
        *("mypy", "--strict", f"--config-file={ROOT / 'pyproject.toml'}", "--warn-unreachable"),
        *(f"--cache-dir={os.environ.get('MYPY_CACHE_DIR') or tmp_path / 'cache'}",),
        *(str(tmp_path / Path(file).name) for file in FILES),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _write(folder: Path) -> None:
    for file, text in FILES.items():
        (folder / Path(file).name).write_text(text)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
