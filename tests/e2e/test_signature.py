"""What a real gateway signs and delivers, verified by OpenDKIM."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.smtp.content import flaw
from gateway.testing import NextHop
from tests.conftest import DebianProgram
from tests.e2e.conftest import MakeGateway
from tests.plugins.dkim_keys import ed25519_key, rsa_key
from tests.plugins.test_dkim import MESSAGES
from tests.plugins.test_dkim_opendkim import as_read_by_a_milter, verifier


@pytest.mark.parametrize("canonicalization", ["relaxed/relaxed", "simple/simple"])
async def test_opendkim_verifies_what_arrives(
    debian_program: DebianProgram,
    tmp_path: Path,
    make_gateway: MakeGateway,
    canonicalization: str,
) -> None:
    rsa = rsa_key().write(tmp_path / "rsa.pem")
    ed25519 = ed25519_key().write(tmp_path / "ed25519.pem")
    plugins = f"""
plugins:
  - dkim:
      canonicalization: {canonicalization}
      keys:
        - {{domain: example.com, selector: rsa, file: {rsa}}}
        - {{domain: example.com, selector: ed25519, file: {ed25519}}}
"""
    every = [as_read_by_a_milter(content) for content in MESSAGES.values()]
    contents = [content for content in every if flaw(content, 998) is None]
    assert len(contents) >= 8
    async with NextHop() as hop:
        gateway = make_gateway(hop.address, plugins)
        gateway.start()
        with gateway.client() as client:
            for content in contents:
                client.sendmail("a@example.com", "b@example.net", content)
        arrived = [message.content for message in await hop.wait(len(contents), 60)]
    opendkim = verifier(debian_program, tmp_path)
    for content in arrived:
        assert content.count(b"DKIM-Signature: ") == 2
        assert opendkim.verifies(content)
        assert not opendkim.verifies(content.replace(b"From: ", b"From: X", 1))
