"""Who may log in: a YAML file of names and argon2 hashes."""

from __future__ import annotations

import hmac
import os
import secrets
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from stat import S_IMODE, S_IRWXO
from threading import Lock
from time import monotonic
from typing import Annotated, Any

import argon2
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from gateway.configuration.validation import check
from gateway.configuration.yaml_document import ConfigError, Problem, decode, parse

_REMEMBERED_SECONDS = 300.0
_REMEMBERED_LOGINS = 10_000
_MAX_PASSWORD = 4096


def _hash(value: SecretStr) -> SecretStr:
    try:
        argon2.extract_parameters(value.get_secret_value())
    except argon2.exceptions.InvalidHashError:
        raise ValueError("expected an argon2 hash, which starts with $argon2id$") from None
    return value


class _User(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    password: Annotated[SecretStr, AfterValidator(_hash)] = Field(
        description="An argon2 hash of the password", examples=['"$argon2id$v=19$..."']
    )


class _UsersFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    users: dict[str, _User] = Field(
        description="The users by name", examples=['{shop: {password: "$argon2id$v=19$..."}}']
    )


class Users:
    """The users of one file.

    A login that succeeded is remembered for five minutes, as an HMAC under a key that only this
    object knows, because argon2 is slow by intent and clients connect often.
    """

    def __init__(self, hashes: Mapping[str, str], clock: Callable[[], float] = monotonic) -> None:
        self._hashes = dict(hashes)
        self._hasher = argon2.PasswordHasher()
        ordered = sorted(self._hashes.values())
        self._nobodies = [_unknown(like) for like in ordered] or [_unknown(None)]
        self._secret = sha256("".join(ordered).encode()).digest()
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._logins: OrderedDict[bytes, float] = OrderedDict()
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"Users({len(self._hashes)})"

    def verify(self, name: str, password: str) -> bool:
        """Says whether a user has this password.

        Takes tens of milliseconds of CPU unless the login is remembered, for unknown names too:
        call it in a thread. May be called from several threads.
        """
        if len(password) > _MAX_PASSWORD:
            return False
        octets = password.encode("utf-8", "surrogatepass")
        digest = self._digest(name, octets)
        if self._is_remembered(digest):
            return True
        try:
            self._hasher.verify(self._hashes.get(name) or self._nobody(name), octets)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
        if name not in self._hashes:
            return False
        with self._lock:
            self._logins[digest] = self._clock() + _REMEMBERED_SECONDS
            self._logins.move_to_end(digest)
            if len(self._logins) > _REMEMBERED_LOGINS:
                self._logins.popitem(last=False)
        return True

    def remembers(self, name: str, password: str) -> bool:
        """Whether a user has logged in with this password a short while ago. Quick."""
        if len(password) > _MAX_PASSWORD:
            return False
        return self._is_remembered(self._digest(name, password.encode("utf-8", "surrogatepass")))

    def _digest(self, name: str, password: bytes) -> bytes:
        login = len(name).to_bytes(4, "big") + name.encode("utf-8", "surrogatepass") + password
        return hmac.digest(self._key, login, "sha256")

    def _nobody(self, name: str) -> str:
        """A hash for an unknown name.

        Where hashes differ in what they cost, so do unknown names, each always in the same way and
        in all processes: nobody can tell by the time whether a name is known.
        """
        digest = hmac.digest(self._secret, name.encode("utf-8", "surrogatepass"), "sha256")
        return self._nobodies[int.from_bytes(digest, "big") % len(self._nobodies)]

    def _is_remembered(self, digest: bytes) -> bool:
        with self._lock:
            until = self._logins.get(digest)
            if until is None:
                return False
            if until > self._clock():
                return True
            del self._logins[digest]
            return False


def _unknown(like: str | None) -> str:
    """A hash of no password that costs as much to verify as a real one."""
    if like is None:
        like = (
            f"$argon2id$v={argon2.low_level.ARGON2_VERSION}$m={argon2.DEFAULT_MEMORY_COST},"
            f"t={argon2.DEFAULT_TIME_COST},p={argon2.DEFAULT_PARALLELISM}$$"
        )
    settings = like.rsplit("$", 2)[0]
    salt, digest = (
        b64encode(os.urandom(octets)).decode().rstrip("=")
        for octets in (argon2.DEFAULT_RANDOM_SALT_LENGTH, argon2.DEFAULT_HASH_LENGTH)
    )
    return f"{settings}${salt}${digest}"


def load_users(path: Path) -> Users:
    """Reads a users file: `users: {name: {password: "$argon2id$..."}}`.

    Raises:
        ConfigError: with everything that is wrong, also that everyone on the machine may read the
            file or write to it.
    """
    try:
        with path.open("rb") as file:
            others = os.fstat(file.fileno()).st_mode & S_IRWXO
            content = file.read()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError([Problem(path, 0, "", f"cannot be read: {reason}")]) from None
    if others:
        message = f"every user of this machine has access to it; expected: chmod 640 {path}"
        raise ConfigError([Problem(path, 0, "", message)])
    document = parse(path, decode(path, content))
    names = document.data.get("users")
    problems = [
        document.problem(("users", name), "a user's name is text of one line", key=True)
        for name in (names if isinstance(names, dict) else ())
        if isinstance(name, str) and not (name and name.isprintable())
    ]
    found: _UsersFile | None = None
    try:
        found = check(_UsersFile, document, document.data)
    except ConfigError as error:
        problems += error.problems
    if problems or found is None:
        raise ConfigError(problems)
    return Users({name: user.password.get_secret_value() for name, user in found.users.items()})


def hash_password(password: str) -> str:
    """Makes the hash that stands in a users file. Takes tens of milliseconds of CPU."""
    return argon2.PasswordHasher().hash(password)


def save_user(path: Path, name: str, password_hash: str) -> bool:
    """Writes a user into a users file, which is made if it is not there, for its owner only.

    Returns whether the user was there before. Owner and mode stay as they are; comments do not.

    Raises:
        ConfigError: the file is there and is no users file.
        OSError: it cannot be written.
    """
    users: dict[str, Any] = {}
    if path.exists():
        load_users(path)
        users = yaml.safe_load(path.read_text("utf-8-sig"))["users"]
    changed = name in users
    users[name] = {"password": password_hash}
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        if path.exists():
            before = path.stat()
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fchmod(file.fileno(), S_IMODE(before.st_mode))
        yaml.safe_dump({"users": users}, file, allow_unicode=True, sort_keys=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return changed
