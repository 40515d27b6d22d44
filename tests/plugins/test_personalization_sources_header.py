from __future__ import annotations

import email.message
import email.policy
import json
from collections.abc import AsyncIterator
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hooks import Message
from plugins.personalization.sources import SourceError, Sources
from plugins.personalization.sources.config import HeaderConfig
from plugins.personalization.sources.header import HeaderSource
from plugins.personalization.sources.values import read_json
from tests.plugins.personalization_site import copies, message, started, values_of

DATA: dict[str, dict[str, Any]] = {
    "*": {"shop": "東京ストア", "offer": {"code": "A1", "until": "2024-12-31"}},
    "taro@example.com": {"name": "山田太郎様", "offer": {"code": "B2"}},
    "hanako@example.com": {"name": "花子", "points": 1200, "rate": 0.5, "vip": True, "note": None},
}
TARO = {
    "shop": "東京ストア",
    "name": "山田太郎様",
    "offer": {"code": "B2", "until": "2024-12-31"},
}


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[Sources]:
    async with started(tmp_path, {"header": {}}) as running:
        yield running


def field(text: str) -> bytes:
    return b"X-Merge-Data: " + text.encode() + b"\r\n"


async def test_each_recipient_has_what_is_common_and_its_own(sources: Sources) -> None:
    header = field(json.dumps(DATA))
    whole = message("taro@example.com", "hanako@example.com", "jiro@example.com", header=header)
    known = [await sources.values(*one) for one in copies(whole)]
    common = DATA["*"]
    assert known == [TARO, common | DATA["hanako@example.com"], common]


async def test_a_plain_object_is_for_all(sources: Sources) -> None:
    header = field('{"name": "all of you", "items": [{"n": 1}]}')
    for one in copies(message("taro@example.com", "jiro@example.com", header=header)):
        assert await sources.values(*one) == {"name": "all of you", "items": [{"n": 1}]}


async def test_without_the_field_or_an_entry_nothing_is_known(sources: Sources) -> None:
    assert await values_of(sources, "taro@example.com") == {}
    header = field('{"jiro@example.com": {"name": "J"}}')
    assert await values_of(sources, "taro@example.com", header=header) == {}


async def test_the_own_case_of_an_address_goes_first(sources: Sources) -> None:
    header = field('{"Taro@EXAMPLE.com": {"n": 1}, "taro@example.com": {"n": 2}}')
    for address, n in {"Taro@example.com": 1, "taro@Example.COM": 2, "TARO@example.com": 2}.items():
        assert await values_of(sources, address, header=header) == {"n": n}


async def test_several_fields_merge(sources: Sources) -> None:
    header = (
        field('{"*": {"a": 1, "in": {"x": 1}}, "taro@example.com": {"b": 1}}')
        + field('{"c": 3, "a": 2}')
        + field('{"taro@EXAMPLE.com": {"in": {"y": 2}}, "*": {"b": 2}}')
    )
    assert await values_of(sources, "taro@example.com", header=header) == {
        "a": 2,
        "b": 1,
        "c": 3,
        "in": {"x": 1, "y": 2},
    }


# As a mailer writes it that encodes what is not ASCII and nothing around it.
WORDS = """{"*": {"shop": "=?utf-8?b?5p2x5Lqs44K544OI44Ki?=",\r
 "offer": {"code": "A1", "until": "2024-12-31"}}, "taro@example.com":\r
 {"name": "=?utf-8?b?5bGx55Sw?= =?utf-8?b?5aSq6YOO?=\r
 =?iso-2022-jp?b?GyRCTU0bKEI=?=", "offer": {"code": "B2"}}}"""


def by_python(policy: email.policy.EmailPolicy[email.message.EmailMessage]) -> bytes:
    made = email.message.EmailMessage(policy)
    made["X-Merge-Data"] = json.dumps(DATA, ensure_ascii=False)
    made.set_content("Hello")
    return made.as_bytes(policy=policy)


def by_old_python() -> bytes:
    made = MIMEText("Hello")
    made["X-Merge-Data"] = json.dumps(DATA, ensure_ascii=False)
    return made.as_bytes(policy=email.policy.compat32.clone(linesep="\r\n"))


@pytest.mark.parametrize(
    "content",
    [
        by_python(email.policy.SMTP),
        by_python(email.policy.SMTPUTF8),
        by_old_python(),
        field(json.dumps(DATA)) + b"\r\n",
        field(json.dumps(DATA, ensure_ascii=False)) + b"\r\n",
        field(json.dumps(DATA, ensure_ascii=False).replace(" ", "\r\n ")) + b"\r\n",
        field(json.dumps(DATA, ensure_ascii=False).replace(" ", "\r\n\t")) + b"\r\n",
        field(json.dumps(DATA, indent=4).replace("\n", "\r\n ")) + b"\r\n",
        b"X-Merge-Data: %b\r\n\r\n" % json.dumps(DATA, ensure_ascii=False).encode("iso-2022-jp"),
        field(WORDS) + b"\r\n",
    ],
    ids=[
        *("python", "python-utf8", "old-python", "ascii", "utf-8", "folded", "folded-by-tabs"),
        *("indented", "iso-2022-jp", "words-in-texts"),
    ],
)  # fmt: skip
async def test_it_is_read_as_mailers_write_it(sources: Sources, content: bytes) -> None:
    whole = message("taro@example.com")
    whole.content = content
    assert await sources.values(whole, whole.recipients[0]) == TARO


async def test_a_value_cannot_become_part_of_the_object_around_it(sources: Sources) -> None:
    """A customer may be called what decodes to quotes and braces."""
    evil = "=?utf-8?q?=22=7D=2C_=22jiro@x.jp=22=3A_=7B=22admin=22=3Atrue=2C=22n=22=3A=22?="
    header = field(json.dumps({"taro@x.jp": {"name": evil}, "jiro@x.jp": {"name": "Jiro"}}))
    assert await values_of(sources, "jiro@x.jp", header=header) == {"name": "Jiro"}
    known = await values_of(sources, "taro@x.jp", header=header)
    assert known == {"name": '"}, "jiro@x.jp": {"admin":true,"n":"'}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not JSON: Expecting value at character 1"),
        ("hello", "is not JSON: Expecting value at character 1"),
        ('{"a": 1 1}', "at character 9"),
        ('{"a":\r\n "b" "c"}', "is not JSON: Expecting ',' delimiter at character 11"),
        ("=?utf-8?b?eyJhIjogMSAxfQ==?=", "at character 9"),
        ("[1]", "is not a JSON object"),
        ('"text"', "is not a JSON object"),
        ("\ufeff{}", "is not JSON: Unexpected UTF-8 BOM (decode using utf-8-sig) at character 1"),
        ('{"a": NaN}', "is not JSON: NaN is no number"),
        ('{"a": %s}' % ("9" * 5000), "is not JSON"),
        ("[" * 100_000, "is not JSON: too many lists"),
        ('{"a":' * 900 + "1" + "}" * 900, "inside of each other"),
        ('{"a":' * 900 + '"=?utf-8?q?x?="' + "}" * 900, "inside of each other"),
        ('{"taro@x.jp": 1}', "expected a mapping"),
        ('{"*": []}', "expected a mapping, not a list"),
        ('{"taro@x.jp": {}, "name": {}}', "mixes recipients with values"),
        ('{"*": {}, "hanako": {}}', "mixes recipients with values"),
        ('{"a": "\\ud800"}', "a: half of a surrogate pair"),
        ('{"a": "%s"}' % ("x" * 2000), "is larger than 1000 octets"),
    ],
)  # fmt: skip
async def test_what_cannot_be_read_is_refused_for_good(
    tmp_path: Path, text: str, reason: str
) -> None:
    size = "1000" if "larger" in reason else "1MiB"
    async with started(tmp_path, {"header": {"name": "X-Vars", "size": size}}) as sources:
        header = field(text).replace(b"X-Merge-Data", b"X-Vars")
        with pytest.raises(SourceError) as refused:
            await values_of(sources, "taro@x.jp", header=header)
    assert refused.value.text.startswith("X-Vars ")
    assert reason in refused.value.text
    assert not refused.value.temporary


async def test_all_fields_together_may_not_be_too_large(tmp_path: Path) -> None:
    async with started(tmp_path, {"header": {"size": "1000"}}) as sources:
        half = field(json.dumps({"a": "x" * 600}))
        assert await values_of(sources, "taro@x.jp", header=half)
        with pytest.raises(SourceError, match="is larger than 1000 octets"):
            await values_of(sources, "taro@x.jp", header=half + half)


async def test_a_message_for_many_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = HeaderSource(HeaderConfig())
    parsed: list[int] = []

    def counted(text: str) -> Any:
        parsed.append(len(text))
        return read_json(text)

    monkeypatch.setattr("plugins.personalization.sources.header.read_json", counted)
    addresses = [f"customer{number}@example.com" for number in range(100)]
    header = field(json.dumps({one: {"n": one, "text": "x" * 20} for one in addresses}))
    for id_ in ("ID1", "ID2"):
        for part, recipient in copies(message(*addresses, header=header, id=id_)):
            values = await source.values(part, recipient)
            assert values is not None
            assert values["n"] == recipient.address
    assert len(parsed) == 2


async def test_a_changed_field_is_not_mixed_up_with_the_old_one(sources: Sources) -> None:
    def whole(n: int) -> Message:
        return message("a@x.jp", header=field(json.dumps({"n": n, "text": "x" * 2000})))

    for n in (1, 2, 1):
        changed = whole(n)
        assert (await sources.values(changed, changed.recipients[0]))["n"] == n


async def test_what_is_kept_is_bounded() -> None:
    source = HeaderSource(HeaderConfig())
    for number in range(100):
        header = field(json.dumps({"n": number, "text": "x" * 100_000}))
        whole = message("a@x.jp", header=header, id=f"ID{number}")
        values = await source.values(whole, whole.recipients[0])
        assert values is not None
        assert values["n"] == number
    assert len(source._kept) < 45
    await source.stop()
    assert len(source._kept) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(alphabet=st.characters(codec="utf-8"), max_size=5), inner)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["name", "名前", "items", "=?x"]), JSON))
async def test_any_json_in_ascii_comes_out_as_it_was(values: dict[str, Any]) -> None:
    if "=?" in json.dumps(list(values.values())):
        return
    source = HeaderSource(HeaderConfig())
    header = field(json.dumps({"*": values}))
    whole = message("taro@example.com", header=header)
    assert await source.values(whole, whole.recipients[0]) == (values or None)


@given(st.binary(max_size=200))
async def test_no_octets_make_it_fail_otherwise(octets: bytes) -> None:
    source = HeaderSource(HeaderConfig())
    clean = octets.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
    complaints = []
    for value in (clean, b'{"a": "' + clean + b'"}', b"=?utf-8?q?" + clean + b"?="):
        whole = message("taro@example.com", header=b"X-Merge-Data: " + value + b"\r\n")
        try:
            await source.values(whole, whole.recipients[0])
        except SourceError as refusal:
            complaints.append(refusal)
    assert not any(one.temporary or not one.text.isprintable() for one in complaints)
