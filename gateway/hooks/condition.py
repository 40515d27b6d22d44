"""`when:` in `gateway.yaml`: which mail a plugin sees, and which stream a message belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from gateway.attempt import Delivery
from gateway.configuration.network import Network, NetworkSet
from gateway.mail.address import domain_of
from gateway.mail.message import Client, Message, Recipient

DEFAULT_STREAM = "default"
PRIORITIES = {"low": 0, "normal": 1, "high": 2}

Carrier: TypeAlias = Message | Delivery
Subject: TypeAlias = Client | Message | Recipient | Delivery
_Test: TypeAlias = Callable[[Any], bool]


def _as_tuple(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("an empty list matches nothing; name at least one value")
        return tuple(value)
    return (value,)


def _check_address(pattern: str) -> str:
    if pattern == "<>":
        return ""
    if "@" not in pattern and "*" not in pattern and pattern.lower() not in ("", "postmaster"):
        raise ValueError(
            f'"{pattern}" is no address, it has no "@"; for a domain there are the keys '
            "sender_domain and recipient_domain"
        )
    return pattern


def _check_domain(pattern: str) -> str:
    if "@" in pattern:
        raise ValueError(f'a domain has no "@"; for example: {pattern.rpartition("@")[2]}')
    # Label by label, because IDNA refuses the asterisk.
    return ".".join(domain_of(f"@{label}") for label in pattern.rstrip(".").split("."))


def check_header_name(name: str) -> str:
    """The name, if a header field can have it (RFC 5322 2.2).

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[!-9;-~]+", name):
        raise ValueError(f'"{name}" is no header name; it has no colon and no space')
    return name


_ONE_OR_MORE = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
)
Patterns = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), _ONE_OR_MORE]
_Addresses = Annotated[
    tuple[Annotated[str, AfterValidator(_check_address)], ...],
    BeforeValidator(_as_tuple),
    _ONE_OR_MORE,
]
_Domains = Annotated[
    tuple[Annotated[str, AfterValidator(_check_domain)], ...],
    BeforeValidator(_as_tuple),
    _ONE_OR_MORE,
]
_HeaderName = Annotated[str, AfterValidator(check_header_name)]


class When(BaseModel):
    """Which mail is meant. Every key that is given must match; of a key's values any may.

    Values are globs in which `*` stands for any text and `?` for one character; upper and lower
    case are the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    stream: Patterns | None = Field(None, description="Names of streams.", examples=["bulk"])
    client: Annotated[tuple[Network, ...], BeforeValidator(_as_tuple), _ONE_OR_MORE] | None = Field(
        None, description="IP addresses or networks of the client.", examples=["10.0.0.0/8"]
    )
    user: Patterns | None = Field(
        None, description="Who the client logged in as; * is any login.", examples=["shop"]
    )
    sender: _Addresses | None = Field(
        None,
        description="The envelope sender; <> is the empty one of reports.",
        examples=["*@news.example.com"],
    )
    sender_domain: _Domains | None = Field(
        None, description="The envelope sender's domain.", examples=["news.example.com"]
    )
    recipient: _Addresses | None = Field(
        None, description="A recipient.", examples=["*@example.com"]
    )
    recipient_domain: _Domains | None = Field(
        None, description="A recipient's domain.", examples=["*.example.com"]
    )
    header: Mapping[_HeaderName, Patterns] | None = Field(
        None,
        description="Header fields by name, with what one of their decoded values must be; "
        "* is any, so that the field is there.",
        examples=["{Precedence: bulk}"],
    )

    @model_validator(mode="after")
    def _not_empty(self) -> When:
        if not self.model_fields_set:
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"a condition needs at least one of the keys {known}")
        for key in self.model_fields_set:
            if not getattr(self, key):
                raise ValueError(f'"{key}" has no value, so it would match all mail')
        return self


class Stream(BaseModel):
    """A kind of mail, and how urgent it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    when: When | None = Field(
        None, description="Which mail belongs to the stream; the first that matches is taken."
    )
    priority: Literal["low", "normal", "high"] = Field(
        "normal", description="Mail of a higher priority is delivered first."
    )


def glob(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Compiles globs to a function that says whether a text matches one of them.

    `*` is any text, `?` one character, everything else itself; case is ignored.
    """
    exact: set[str] = set()
    ends: list[str] = []
    others: list[str] = []
    for pattern in {pattern.lower() for pattern in patterns}:
        rest = pattern[1:]
        if "*" not in pattern and "?" not in pattern:
            exact.add(pattern)
        elif pattern[0] == "*" and "*" not in rest and "?" not in rest:
            ends.append(rest)
        else:
            steps = {"*": ".*", "?": "."}
            others.append(
                "".join(steps.get(part) or re.escape(part) for part in re.split(r"([*?])", pattern))
            )
    texts, tails = frozenset(exact), tuple(ends)
    if not tails and not others:
        return lambda text: text.lower() in texts
    if not others:
        return lambda text: (low := text.lower()) in texts or low.endswith(tails)
    match = re.compile("|".join(f"(?:{other})" for other in others), re.DOTALL).fullmatch
    return lambda text: (
        (low := text.lower()) in texts or low.endswith(tails) or match(low) is not None
    )


def _about_client(when: When) -> list[_Test]:
    """The tests on what a client is; their subject is a Client."""
    tests: list[_Test] = []
    if when.client is not None:
        networks = NetworkSet(when.client)
        tests.append(lambda client: client.address in networks)
    if when.user is not None:
        user = glob(when.user)
        tests.append(lambda client: bool(client.user) and user(client.user))
    return tests


def _about_mail(when: When) -> list[_Test]:
    """The tests on what all recipients share; their subject is a Message or a Delivery."""
    tests: list[_Test] = []
    if when.stream is not None:
        stream = glob(when.stream)
        tests.append(lambda carrier: stream(carrier.stream))
    if when.sender is not None:
        sender = glob(when.sender)
        tests.append(lambda carrier: sender(carrier.sender))
    if when.sender_domain is not None:
        domain = glob(when.sender_domain)
        tests.append(lambda carrier: domain(domain_of(carrier.sender)))
    for name, patterns in (when.header or {}).items():
        tests.append(_about_header(name, glob(patterns)))
    return tests


def _about_header(name: str, match: Callable[[str], bool]) -> _Test:
    def test(carrier: Carrier) -> bool:
        return any(map(match, carrier.headers.get_all(name)))

    return test


def _about_recipient(when: When) -> list[_Test]:
    """The tests on one Recipient."""
    tests: list[_Test] = []
    if when.recipient is not None:
        address = glob(when.recipient)
        tests.append(lambda recipient: address(recipient.address))
    if when.recipient_domain is not None:
        domain = glob(when.recipient_domain)
        tests.append(lambda recipient: domain(recipient.domain))
    return tests


def _all(tests: tuple[_Test, ...], subject: Any) -> bool:
    for test in tests:  # noqa: SIM110 - all() over a generator costs twice as much
        if not test(subject):
            return False
    return True


class Condition:
    """A compiled `when`.

    Attributes:
        needs: what must be known before the condition can be asked: some of `client`, `user`,
            `sender`, `recipient`, `header`, `stream`. A stream brings in what it needs itself; one
            that looks at recipients or the header is known only after the final dot, and counts
            as `header`.
        by_recipient: whether recipients of one message can differ in it.
    """

    __slots__ = ("_client", "_mail", "_recipient", "by_recipient", "needs")

    def __init__(self, when: When, streams: Streams | None = None) -> None:
        self._client = tuple(_about_client(when))
        self._mail = tuple(_about_mail(when))
        self._recipient = tuple(_about_recipient(when))
        self.by_recipient = bool(self._recipient)
        needs = {key.removesuffix("_domain") for key in when.model_fields_set if getattr(when, key)}
        if when.stream is not None and streams is not None:
            matches = glob(when.stream)
            for name in streams.names:
                if matches(name):
                    needs |= streams.needs(name)
        self.needs = frozenset(needs)

    def matches(self, subject: Subject) -> bool:
        """Whether the condition holds.

        Of a message or a delivery with several recipients, one that matches is enough.

        Raises:
            TypeError: a client is asked about, and the condition is not about clients only. Saying
                no would let mail pass a plugin that should see it.
        """
        if isinstance(subject, Recipient):
            if subject.message is None:
                raise TypeError("a recipient without a message was asked about")
            return self.matches_recipient(subject.message, subject)
        if isinstance(subject, Client):
            if self._mail or self._recipient:
                raise TypeError("a condition on mail cannot be asked of a client")
            return _all(self._client, subject)
        if not (_all(self._mail, subject) and _all(self._client, subject.client)):
            return False
        if not self._recipient:
            return True
        return any(_all(self._recipient, recipient) for recipient in subject.recipients)

    def matches_recipient(self, carrier: Carrier, recipient: Recipient) -> bool:
        """Whether the condition holds for one recipient of a message or a delivery."""
        return (
            _all(self._recipient, recipient)
            and _all(self._mail, carrier)
            and _all(self._client, carrier.client)
        )


class Streams:
    """The streams of a configuration, compiled. `default` is what no other stream takes.

    Attributes:
        names: all of them, in the order of `gateway.yaml`, `default` last.
    """

    def __init__(self, streams: Mapping[str, Stream]) -> None:
        self._conditions = [
            (name, Condition(stream.when))
            for name, stream in streams.items()
            if name != DEFAULT_STREAM and stream.when is not None
        ]
        self._early = [pair for pair in self._conditions if "header" not in pair[1].needs]
        self._priorities = {name: PRIORITIES[stream.priority] for name, stream in streams.items()}
        self.names: tuple[str, ...] = (*(name for name, _ in self._conditions), DEFAULT_STREAM)

    def classify(self, message: Message, headers_known: bool) -> str:
        """Names the first stream that a message belongs to.

        Before the header is known, streams that ask for it are passed over.
        """
        for name, condition in self._conditions if headers_known else self._early:
            if condition.matches(message):
                return name
        return DEFAULT_STREAM

    def priority(self, name: str) -> int:
        """0 (low), 1 (normal) or 2 (high); a stream that a plugin made up is normal."""
        return self._priorities.get(name, PRIORITIES["normal"])

    def needs(self, name: str) -> frozenset[str]:
        """What must be known to say whether a message is in this stream and in none before it."""
        needs: set[str] = set()
        for earlier, condition in self._conditions:
            needs |= condition.needs
            if earlier == name:
                break
        if "recipient" in needs:
            needs = needs - {"recipient"} | {"header"}
        return frozenset(needs)
