"""Runs the recipes of the document."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.testing import NextHop
from tests.assembly import Assembly, configure, write_plugin
from tests.examples.recipe import FILES, Cook, Recipe, entry_of
from tests.examples.web_service import Service


@pytest.fixture
def cook(tmp_path: Path) -> Cook:
    """Runs a recipe; `settings` replace those in the document, `more` is further configuration."""

    @asynccontextmanager
    async def start(name: str, more: str = "", **settings: Any) -> AsyncIterator[Recipe]:
        file = tmp_path / "site" / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(FILES[f"site/{name}.py"])
        body = "@hookimpl\ndef auth(self, login):\n  return Accept()"
        login = write_plugin(tmp_path, "login", body)
        entries = [{login: {}}, {f"./site/{name}.py": entry_of(name) | settings}]
        async with NextHop() as hop:
            text = json.dumps({"plugins": entries})[1:-1]
            relay = f"relay: {{via: ['{hop.address}']}}"
            config = configure(tmp_path, f"{relay}\n{more}\n{text}\n")
            async with Assembly(config, plaintext_auth=True) as gateway:
                yield Recipe(gateway, hop)

    return start


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async def agree(request: web.Request) -> web.StreamResponse:
        return web.json_response({"hold": False})

    service = Service(agree)
    application = web.Application()
    application.router.add_post("/", service.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield service
    await runner.cleanup()
