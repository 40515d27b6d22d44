from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.bounces import token
from plugins.bounces.token import DAY, FIXED

SECRET = bytes(range(32))
ORIGIN = token.origin("shop.example.com", "bulk")
HEAD = f"06F8K2N4QXW7A{token.stamp(7, 20_778)}{ORIGIN}"

_LOCAL = st.text(string.ascii_letters + string.digits + "._+=~'-", min_size=1, max_size=20)
_LABEL = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
ADDRESSES = st.builds(
    lambda local, labels: f"{local}@{'.'.join(labels)}",
    _LOCAL,
    st.lists(_LABEL, min_size=1, max_size=3),
)


def written(recipient: str) -> str:
    return token.write(HEAD, SECRET, recipient)


def test_a_token_says_what_was_put_into_it() -> None:
    found = token.read(written("hanako=example.net"))
    assert found is not None
    assert (found.message_id, found.key, found.day) == ("06F8K2N4QXW7A", 7, 20_778)
    assert (found.recipient, found.recipient_hash) == ("hanako@example.net", "")
    assert found.origin == ORIGIN
    assert token.sign(found.signed, SECRET) == found.signature


def test_the_form_never_changes() -> None:
    """Mail that was sent long ago comes back to it."""
    assert written("hanako=example.net") == "06F8K2N4QXW7A7m9am2ms32sf5knfv-hanako=example.net"
    assert token.recipient_hash("Hanako@Example.NET", SECRET) == "pqsy29f6"


@given(ADDRESSES)
def test_an_address_that_has_room_comes_back_as_it_was(address: str) -> None:
    name = token.verp(address)
    if ".." in address:
        assert name is None
        return
    assert name is not None
    found = token.read(written(name))
    if len(HEAD) + 9 + len(name) > 64:
        assert found is None
    else:
        assert found is not None
        assert found.recipient == address


@given(ADDRESSES, st.booleans())
def test_upper_and_lower_case_make_no_difference(address: str, upper: bool) -> None:
    name = token.verp(address)
    if name is None or len(HEAD) + 9 + len(name) > 64:
        return
    text = written(name)
    found = token.read(text.upper() if upper else text.lower())
    assert found is not None
    assert found.message_id == "06F8K2N4QXW7A"
    assert token.sign(found.signed, SECRET) == found.signature


@given(st.integers(0, 60), st.sampled_from(token._ALPHABET + "=.-@"))
def test_a_token_that_was_changed_is_not_signed(place: int, character: str) -> None:
    text = written("hanako=example.net")
    place %= len(text)
    changed = f"{text[:place]}{character}{text[place + 1 :]}"
    found = token.read(changed)
    if changed.lower() != text.lower() and found is not None:
        assert token.sign(found.signed, SECRET) != found.signature


@given(st.text(max_size=80))
def test_anything_else_is_no_token(text: str) -> None:
    found = token.read(text)
    assert found is None or token.sign(found.signed, SECRET) != found.signature


@pytest.mark.parametrize(
    "address",
    [
        "a..b@docomo.example.jp",  # would be no local part of ours
        '"a b"@example.net',
        "a%b@example.net",
        "a!b@example.net",
        "花子@example.net",
        "hanako@例え.jp",
        "hanako@[192.0.2.1]",
        "hanako",
        "@example.net",
    ],
)
def test_an_address_that_could_be_damaged_on_its_way_does_not_stand_in_it(address: str) -> None:
    assert token.verp(address) is None


def test_addresses_of_japanese_carriers_stand_in_it() -> None:
    assert token.verp("hanako.@ezweb.example.jp") == "hanako.=ezweb.example.jp"
    assert token.verp(".-hanako_@softbank.example.jp") == ".-hanako_=softbank.example.jp"


def test_a_hash_is_the_same_for_every_way_to_write_an_address() -> None:
    expected = token.recipient_hash("hanako@例え.jp", SECRET)
    for address in ("HANAKO@例え.jp", "hanako@xn--r8jz45g.jp", "Hanako@XN--R8JZ45G.JP"):
        assert token.recipient_hash(address, SECRET) == expected
    assert token.recipient_hash("taro@例え.jp", SECRET) != expected
    assert token.recipient_hash("hanako@例え.jp", bytes(32)) != expected


def test_a_token_with_a_hash_names_nobody() -> None:
    found = token.read(written(token.recipient_hash("hanako@example.net", SECRET)))
    assert found is not None
    assert (found.recipient, len(found.recipient_hash)) == ("", 8)


def test_characters_are_those_of_any_keyboard_and_no_two_look_alike() -> None:
    text = written(token.recipient_hash("hanako@example.net", SECRET))
    assert re.fullmatch(r"[0-9A-Za-hj-km-np-tv-z-]+", text)
    assert len(text) == 13 + FIXED + 8


@pytest.mark.parametrize("day", [0, 1, 20_778, 32_767])
@pytest.mark.parametrize("key", [1, 31])
def test_days_and_keys_come_back(key: int, day: int) -> None:
    head = f"ID{token.stamp(key, day)}{ORIGIN}"
    found = token.read(token.write(head, SECRET, "a=b"))
    assert found is not None
    assert (found.message_id, found.key, found.day) == ("ID", key, day)


def test_a_token_grows_old_by_whole_days() -> None:
    found = token.read(written("a=b"))
    assert found is not None
    midnight = (20_778 + 1) * DAY
    assert not found.older_than(30 * DAY, midnight + 30 * DAY)
    assert found.older_than(30 * DAY, midnight + 30 * DAY + 1)
