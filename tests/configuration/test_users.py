# ruff: noqa: E501 - one case of a table is one line
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import argon2
import pytest

from gateway.configuration import users as users_module
from gateway.configuration.config import ConfigError
from gateway.configuration.users import Users, hash_password, load_users, save_user

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
SHOP = CHEAP.hash("open sesame")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def write(folder: Path, text: str, mode: int = 0o640) -> Path:
    file = folder / "users.yaml"
    file.write_text(text)
    file.chmod(mode)
    return file


def problems(file: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_users(file)
    return [str(problem) for problem in caught.value.problems]


def test_passwords(tmp_path: Path) -> None:
    users = load_users(write(tmp_path, f'users:\n  shop: {{password: "{SHOP}"}}\n  日本: {{password: "{CHEAP.hash("秘密")}"}}\n'))  # fmt: skip
    assert users.verify("shop", "open sesame")
    assert users.verify("日本", "秘密")
    assert not users.verify("shop", "open sesame ")
    assert not users.verify("shop", "秘密")
    assert not users.verify("Shop", "open sesame")
    assert not users.verify("nobody", "open sesame")
    assert not users.verify("", "")
    assert not users.verify("shop", "\ud800")
    assert not users.verify("shop", "x" * 100_000)


def test_no_users_at_all(tmp_path: Path) -> None:
    users = load_users(write(tmp_path, "users: {}\n"))
    assert not users.verify("shop", "open sesame")


def test_hash_password() -> None:
    made = hash_password("open sesame")
    assert made.startswith("$argon2id$")
    assert made != hash_password("open sesame")
    assert Users({"shop": made}).verify("shop", "open sesame")


class CountingUsers:
    """Users, and how often argon2 ran."""

    def __init__(self, clock: Clock) -> None:
        self.users = Users({"shop": SHOP, "crm": CHEAP.hash("xyzzy")}, clock)
        self.hashes: list[str] = []
        hasher = self.users._hasher

        class Hasher(argon2.PasswordHasher):
            def verify(inner, hashed: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]  # noqa: N805
                self.hashes.append(str(hashed))
                return bool(hasher.verify(hashed, password))

        self.users._hasher = Hasher()


def test_a_login_is_remembered_for_a_while_and_a_failure_is_not() -> None:
    clock = Clock()
    counting = CountingUsers(clock)
    assert [counting.users.verify("shop", "open sesame") for _ in range(3)] == [True] * 3
    assert len(counting.hashes) == 1
    assert [counting.users.verify("shop", "wrong") for _ in range(2)] == [False] * 2
    assert len(counting.hashes) == 3
    assert not counting.users.verify("crm", "open sesame")
    assert len(counting.hashes) == 4
    clock.now += 299
    assert counting.users.verify("shop", "open sesame")
    assert len(counting.hashes) == 4
    clock.now += 1
    assert counting.users.verify("shop", "open sesame")
    assert len(counting.hashes) == 5


def test_names_and_passwords_are_not_run_together() -> None:
    users = Users({"ab": CHEAP.hash("c"), "a": CHEAP.hash("other")})
    assert users.verify("ab", "c")
    assert not users.verify("a", "bc")


def test_what_is_remembered_is_bounded_and_holds_no_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(users_module, "_REMEMBERED_LOGINS", 2)
    users = Users({str(number): SHOP for number in range(5)})
    for number in range(5):
        assert users.verify(str(number), "open sesame")
    assert len(users._logins) == 2
    assert all(b"sesame" not in digest for digest in users._logins)


def test_an_unknown_name_costs_what_a_known_one_does() -> None:
    counting = CountingUsers(Clock())
    counting.users.verify("nobody", "x")
    (hashed,) = counting.hashes
    assert argon2.extract_parameters(hashed) == argon2.extract_parameters(SHOP)
    assert hashed != SHOP


def test_unknown_names_cost_what_the_known_ones_do_where_these_differ() -> None:
    """Each always the same, in every process; or the odd one out would tell who is known."""
    dear = argon2.PasswordHasher(time_cost=2, memory_cost=16, parallelism=1).hash("x")
    hashes = {"a": SHOP, "b": SHOP, "c": dear, "d": SHOP}

    def costs() -> list[int]:
        users = Users(hashes)
        names = [f"nobody-{number}" for number in range(400)]
        return [argon2.extract_parameters(users._nobody(name)).time_cost for name in names]

    assert costs() == costs()
    assert 50 < costs().count(2) < 150


def test_what_is_remembered_is_known_without_a_hash() -> None:
    counting = CountingUsers(Clock())
    assert not counting.users.remembers("shop", "open sesame")
    assert counting.users.verify("shop", "open sesame")
    assert counting.users.remembers("shop", "open sesame")
    assert not counting.users.remembers("shop", "open sesam")
    assert not counting.users.remembers("crm", "open sesame")
    assert not counting.users.remembers("shop", "x" * 100_000)
    assert len(counting.hashes) == 1


def test_many_threads_at_once() -> None:
    users = Users({"shop": SHOP})
    tries = [("shop", "open sesame"), ("shop", "wrong"), ("nobody", "open sesame")] * 40
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda pair: users.verify(*pair), tries))
    assert answers == [True, False, False] * 40


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("users:\n  shop: {password: hunter2}\n", 2, "users.shop.password: expected an argon2 hash, which starts with $argon2id$"),
        ("users:\n  shop: {password: 12345}\n", 2, "users.shop.password: expected text, not a number; put it in quotes"),
        ("users:\n  shop: {pasword: hunter2}\n", 2, 'users.shop.pasword: unknown key; did you mean "password"?'),
        ("users:\n  shop: hunter2\n", 2, "users.shop: expected a mapping"),
        ("users:\n  shop:\n", 2, "users.shop: expected a mapping"),
        ("users:\n  5: {password: x}\n", 2, "users[5]: "),
        ("users: [shop]\n", 1, "users: expected a mapping"),
        ('users:\n  "a\\nb": {password: x}\n', 2, "a user's name is text of one line"),
        ("user: {}\n", 1, 'user: unknown key; did you mean "users"?'),
        ("users:\n  a: {password: x}\n  a: {password: x}\n", 3, "users.a: duplicate key; first on line 2"),
        ("users: *hunter2\n", 1, "starts with * must be in quotes"),
    ],
)  # fmt: skip
def test_wrong_files(tmp_path: Path, text: str, line: int, hint: str) -> None:
    file = write(tmp_path, text)
    found = problems(file)
    assert any(problem.startswith(f"{file}:{line}: ") and hint in problem for problem in found), (
        found
    )
    assert "hunter2" not in "".join(found)
    assert "12345" not in "".join(found)


@pytest.mark.parametrize("mode", [0o644, 0o642, 0o641, 0o777])
def test_files_that_everyone_can_use_are_refused(tmp_path: Path, mode: int) -> None:
    file = write(tmp_path, "users: {}\n", mode)
    assert problems(file) == [
        f"{file}: every user of this machine has access to it; expected: chmod 640 {file}"
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read: No such file or directory" in problems(tmp_path / "none.yaml")[0]
    assert "cannot be read: Is a directory" in problems(tmp_path)[0]


def test_a_repr_shows_nothing() -> None:
    assert repr(Users({"shop": SHOP})) == "Users(1)"


def test_users_are_saved(tmp_path: Path) -> None:
    file = tmp_path / "users.yaml"
    assert not save_user(file, "shop", SHOP)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    assert not save_user(file, "日本", CHEAP.hash("秘密"))
    assert save_user(file, "shop", CHEAP.hash("xyzzy"))
    assert file.stat().st_mode & 0o777 == 0o640
    users = load_users(file)
    assert users.verify("shop", "xyzzy")
    assert users.verify("日本", "秘密")
    assert not users.verify("shop", "open sesame")
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_no_users_file_is_not_overwritten(tmp_path: Path) -> None:
    file = write(tmp_path, "hello: world\n")
    with pytest.raises(ConfigError):
        save_user(file, "shop", SHOP)
    assert file.read_text() == "hello: world\n"
