"""Every template in the README gives what the README says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gateway.hooks import Client, Message
from plugins.personalization import Personalization, PersonalizationConfig
from plugins.personalization.filters import FILTERS, RAW_FILTERS, RAW_TESTS, TESTS

README = (Path(__file__).parents[2] / "plugins/personalization/README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
TEXTS = [text for language, text in BLOCKS if language == "text"]
CONFIGURATIONS = [yaml.safe_load(text) for language, text in BLOCKS if language == "yaml"]
PAIRS = [
    (text, TEXTS[number + 1]) for number, text in enumerate(TEXTS) if text.startswith("X-Merge")
]


@pytest.mark.parametrize(("sent", "received"), PAIRS)
async def test_a_message_in_the_readme_becomes_what_is_shown(sent: str, received: str) -> None:
    settings = CONFIGURATIONS[0]["plugins"][0]["personalization"]
    plugin = Personalization(PersonalizationConfig.model_validate(settings))
    message = Message("ID1", "shop@example.com", Client("127.0.0.1"))
    message.content = sent.replace("\n", "\r\n").encode()
    message.add_recipient("taro@example.net")
    assert await plugin.message(message) is None
    assert "X-Merge-Data" not in message.headers
    (part,) = message.text_parts()
    assert f"Subject: {message.headers.get('Subject')}\n\n{part.text}" == received


def test_there_are_examples() -> None:
    assert len(PAIRS) == 3


def test_every_filter_and_every_key_is_in_the_readme() -> None:
    names = {"d", "e", "count"}  # short for others
    for name in {*FILTERS, *RAW_FILTERS} - names:
        assert re.search(rf"`{name}(\(|`)", README), name
    for name in PersonalizationConfig.model_fields:
        assert f"| `{name}` |" in README, name
    (complete,) = [
        settings
        for document in CONFIGURATIONS
        for plugin in document["plugins"]
        for settings in plugin.values()
        if set(settings) >= set(PersonalizationConfig.model_fields)
    ]
    assert PersonalizationConfig.model_validate(complete).locale == "ja"


def test_the_filters_and_tests_that_the_readme_names_are_there() -> None:
    table = README[README.index("### Filters") : README.index("Dates and numbers take")]
    named = set(re.findall(r"`(\w+)(?=\(|`)", table)) - {"short", "medium", "long", "full"}
    assert named <= {*FILTERS, *RAW_FILTERS}
    (line,) = re.findall(r"^Tests after `is`: (.*)$", README, re.MULTILINE)
    assert set(re.findall(r"`(\w+)", line)) <= {*TESTS, *RAW_TESTS}
