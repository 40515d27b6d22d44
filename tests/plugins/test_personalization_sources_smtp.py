"""All sources in a gateway, from SMTP to SMTP."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from aiohttp import web

from gateway.testing import NextHop
from tests.assembly import Assembly, below_trace, configure
from tests.plugins.test_personalization_sources_http import Recommendations

SITE = """
from plugins.personalization import Personalization

class Site(Personalization):
    pass
"""

RULES = """
relay: {{via: ['{via}']}}
plugins:
  - ./site.py:
      sources:
        - csv: {{file: customers.csv, rows: lines}}
        - sql: {{url: 'sqlite:///shop.db', query: 'SELECT * FROM points WHERE email IN :addresses'}}
        - http: {{url: 'http://127.0.0.1:{port}/'}}
        - header: {{}}
"""

MESSAGE = b"""\
X-Merge-Data: {"taro@x.jp": {"name": "Taro"}, "ada@x.org": {"name": "Ada"}}\r
Subject: {{ name }}\r
\r
{{ points }} {{ offers[0] }} {% for line in lines %}{{ line.item }};{% endfor %}\r
"""


def gateway(folder: Path, via: str, port: int) -> Assembly:
    (folder / "site.py").write_text(SITE)
    (folder / "customers.csv").write_text(
        "email,item\ntaro@x.jp,tea\nada@x.org,pen\ntaro@x.jp,cup\n"
    )
    with sqlite3.connect(folder / "shop.db") as database:
        database.execute("CREATE TABLE points (email, points)")
        database.executemany(
            "INSERT INTO points VALUES (?, ?)", [("taro@x.jp", 5), ("ada@x.org", 7)]
        )
    database.close()
    return Assembly(configure(folder, RULES.format(via=via, port=port)))


async def test_each_recipient_gets_its_own_values_and_nobody_those_of_another(
    tmp_path: Path,
) -> None:
    async with (
        Recommendations().running() as server,
        NextHop() as hop,
        gateway(tmp_path, hop.address, server.port) as running,
    ):
        reply = await running.submit("taro@x.jp", "ada@x.org", content=MESSAGE)
        assert reply.startswith("250 ")
        received = {one.recipients[0][0]: below_trace(one.content) for one in await hop.wait(2)}
    assert received == {
        "taro@x.jp": b"Subject: Taro\r\n\r\n5 for taro@x.jp tea;cup;\r\n",
        "ada@x.org": b"Subject: Ada\r\n\r\n7 for ada@x.org pen;\r\n",
    }


async def test_the_client_keeps_the_message_while_a_server_does_not_answer(
    tmp_path: Path,
) -> None:
    async def broken(request: web.Request) -> web.Response:
        return web.Response(status=503)

    async with (
        Recommendations().running() as server,
        NextHop() as hop,
        gateway(tmp_path, hop.address, server.port) as running,
    ):
        server.answer = broken
        reply = await running.submit("taro@x.jp", "ada@x.org", content=MESSAGE)
        assert reply == "451 4.3.0 The recipient's data cannot be had now"
        server.answer = None
        bad = MESSAGE.replace(b'"Ada"}}', b'"Ada"}')
        reply = await running.submit("taro@x.jp", content=bad)
        assert reply.startswith("550 5.6.0 X-Merge-Data is not JSON: Expecting ',' delimiter")
        assert running.rows() == []
        reply = await running.submit("taro@x.jp", content=MESSAGE)
        assert reply.startswith("250 ")
        await hop.wait(1)
    assert len(hop.messages) == 1
