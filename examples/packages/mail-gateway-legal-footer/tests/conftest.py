"""A sender with details in two languages, and a gateway that adds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gateway.testing import MemoryGateway

from mail_gateway_legal_footer import LegalFooter, LegalFooterConfig

JA = {
    "name": "例示商店㈱",
    "address": "〒100-0001 東京都千代田区1〜2",
    "representative": "山田 花子",
    "contact": ["03-0000-0000", "info@shop.example.com"],
    "unsubscribe": "https://shop.example.com/stop?a=1&b=2",
}
EN = {
    "name": "Example <Shop> & Co.",
    "address": "1-1 Chiyoda, Tokyo",
    "contact": ["https://shop.example.com/contact"],
    "unsubscribe": "stop@shop.example.com",
}
PLAIN_JA = """\
----------------------------------------
送信者: 例示商店㈱
所在地: 〒100-0001 東京都千代田区1〜2
責任者: 山田 花子
お問い合わせ: 03-0000-0000, info@shop.example.com
メールの配信停止はこちら: https://shop.example.com/stop?a=1&b=2
"""
PLAIN_EN = """\
----------------------------------------
Sender: Example <Shop> & Co.
Address: 1-1 Chiyoda, Tokyo
Contact: https://shop.example.com/contact
To receive no more of these messages: stop@shop.example.com
"""
FROM = "news@shop.example.com"

Footed = Callable[..., MemoryGateway]


def config(language: str = "auto", /, **senders: Any) -> LegalFooterConfig:
    """The configuration of shop.example.com, or of others."""
    given = senders or {"shop.example.com": {"ja": JA, "en": EN}}
    return LegalFooterConfig.model_validate({"senders": given, "language": language})


@pytest.fixture
def footed(gateway: Callable[..., MemoryGateway]) -> Footed:
    """Makes a gateway with the plugin; its arguments are those of `config`."""

    def make(*arguments: Any, **senders: Any) -> MemoryGateway:
        return gateway(LegalFooter(config(*arguments, **senders)))

    return make
