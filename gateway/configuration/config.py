"""gateway.yaml as frozen, typed objects. Whatever is wrong in it is said with its line."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)

from gateway.configuration.endpoint import Endpoint, EndpointField, NameserverField
from gateway.configuration.entry import PluginEntry, read_entries
from gateway.configuration.key_pair import KeyPair
from gateway.configuration.network import Network, parse_network
from gateway.configuration.quantity import Duration, Size, Time
from gateway.configuration.relay import Relay
from gateway.configuration.retry import Retry, StreamSection
from gateway.configuration.section import Section, listing, size_field, time_field
from gateway.configuration.validation import check, nearest
from gateway.configuration.yaml_document import ConfigError, Problem, YamlDocument, parse, read
from gateway.hooks.condition import DEFAULT_STREAM, Streams, check_header_name
from gateway.hooks.paths import SiteFile, SitePath

__all__ = [
    "Config",
    "ConfigError",
    "Endpoint",
    "Listen",
    "Log",
    "PluginEntry",
    "Problem",
    "load_config",
]


LONGEST_HOLD = 999_999_999
"""Seconds that FUTURERELEASE can express (RFC 4865)."""


def _hostname(value: str) -> str:
    if not value.isascii():
        try:
            ascii_name = value.encode("idna").decode("ascii")
        except UnicodeError:
            ascii_name = "gw.example.com"
        raise ValueError(f'"{value}" must be written in ASCII: {ascii_name}')
    label = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    if len(value) > 253 or not re.fullmatch(rf"{label}(?:\.{label})*", value):
        raise ValueError(f'"{value}" is no host name; for example: hostname: gw.example.com')
    if value.rpartition(".")[2].isdigit():
        raise ValueError(
            f'"{value}" is an address; a host name is needed, for example gw.example.com'
        )
    return value


def _workers(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError("expected auto or a number of processes from 1")


def _hold(value: float) -> float:
    if value and not 1 <= value <= LONGEST_HOLD:
        raise ValueError("must be from 1s to 11574d, as FUTURERELEASE can say it, or 0")
    return value


def _writable_file(path: Path) -> Path:
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected the name of a file")
    if not path.parent.is_dir():
        raise ValueError(f"no such folder: {path.parent}")
    return path


def _folder(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; expected the name of a folder")
    return path


class Spool(Section):
    """Where accepted mail waits."""

    path: Annotated[SitePath, AfterValidator(_folder)] = Field(
        Path("var/spool"), description="The folder of the queue.", validate_default=True
    )
    reserve: Size = size_field(
        "64MiB", "Room on the disk that new mail leaves free, for the work on accepted mail."
    )

    @property
    def limits(self) -> Path:
        """The file of the limits that all processes share."""
        return self.path / "limits"

    @property
    def logins(self) -> Path:
        """The file of failed logins that all processes share."""
        return self.path / "logins"


class Tls(KeyPair):
    """TLS for the connections of clients."""

    mode: Literal["starttls", "implicit"] = Field(
        "starttls", description="starttls: after the command; implicit: from the first octet."
    )


class Listen(Section):
    """One address that clients connect to."""

    address: EndpointField = Field(description="IP address and port.", examples=["127.0.0.1:2525"])
    allow: tuple[Network, ...] = listing(
        "Who may relay without a login: IP networks or addresses; nobody, if left out.",
        "[127.0.0.0/8]",
    )
    tls: Tls | None = Field(None, description="TLS for clients; none, if left out.")
    users: SiteFile | None = Field(
        None, description="The file of users who may log in.", examples=["users.yaml"]
    )
    plaintext_auth: bool = Field(
        False, description="Allow AUTH without TLS, so that passwords pass in the clear."
    )

    @model_validator(mode="after")
    def _login_possible(self) -> Listen:
        if self.users is not None and self.tls is None and not self.plaintext_auth:
            raise ValueError("nobody could log in: users needs tls, or plaintext_auth: true")
        return self


class Limits(Section):
    """What one client may ask for."""

    message_size: Size = size_field("50MiB", "The largest message, in octets.", ge=1)
    memory: Size = size_field(
        "256MiB",
        "What messages of more than 1 MiB may take of memory at a time, in all workers together.",
    )
    recipients: int = Field(1000, description="Recipients of one message.", ge=1)
    line_length: Size = size_field(
        "998", "The longest line of a message, without its line end.", ge=998, le=1 << 20
    )
    hops: int = Field(50, description="Received fields before mail counts as looping.", ge=1)
    connections: int = Field(10000, description="Connections at a time, per worker.", ge=1)
    connections_per_client: int = Field(
        1000, description="Connections of one client address at a time, per worker.", ge=1
    )
    command_timeout: Time = time_field("5m", "How long a client may be silent between commands.")
    data_timeout: Time = time_field("10m", "How long a client may be silent within a message.")
    data_rate: Size = size_field(
        "500",
        "The slowest that a client may send a message, in octets a second; it may be slower for no "
        "longer than data_timeout.",
        ge=1,
    )
    message_timeout: Time = time_field(
        "1h",
        "How long a client may take for a message, from connecting or from its last message on.",
    )
    errors: int = Field(20, description="Protocol errors before a connection is closed.", ge=1)
    login_failures: int = Field(
        5,
        description="Failed logins from one address, or as one user, before the next waits.",
        ge=1,
    )
    login_pause: Time = time_field(
        "15m", "How long the next login from such an address waits at most; as such a user, 1m."
    )
    hold: Annotated[Duration, AfterValidator(_hold)] | None = time_field(
        "30d",
        "How long a client may have mail kept before it goes out (RFC 4865); 0 or null for not at "
        "all.",
    )


class Dns(Section):
    """Where names are looked up."""

    nameservers: tuple[NameserverField, ...] = listing(
        "IP addresses, with a port or without; the system's, if left out.", "[127.0.0.1]"
    )
    timeout: Time = time_field("10s", "How long one answer may take.")
    loopback: bool = Field(
        False,
        description="Believe addresses of this machine itself when the DNS gives them; for tests.",
    )
    authenticated: bool | None = Field(
        None,
        description="Believe the name servers when they say that an answer is authenticated "
        "(DNSSEC), which DANE needs; left out, only those on this machine.",
    )


class Http(Section):
    """The HTTP service, for what plugins offer to browsers and other programs."""

    address: EndpointField = Field(description="IP address and port.", examples=["127.0.0.1:8025"])
    tls: KeyPair | None = Field(None, description="TLS from the first octet; none, if left out.")
    proxies: tuple[Network, ...] = Field(
        tuple(map(parse_network, ("127.0.0.0/8", "::1"))),
        description="Proxies whose X-Forwarded-For and -Proto are believed: IP networks or "
        "addresses.",
        json_schema_extra={"default": ["127.0.0.0/8", "::1"]},
        examples=["[10.0.0.5]"],
        strict=False,
    )
    metrics: tuple[Network, ...] = Field(
        tuple(map(parse_network, ("127.0.0.0/8", "::1"))),
        description="Who may read /metrics: IP networks or addresses.",
        json_schema_extra={"default": ["127.0.0.0/8", "::1"]},
        examples=["[127.0.0.0/8, 10.0.0.9]"],
        strict=False,
    )
    max_body: Size = size_field("64KiB", "The largest body of a request, in octets.")
    timeout: Time = time_field("30s", "How long a client may take to send a request, or be idle.")


class Log(Section):
    """What is written about the work."""

    format: Literal["text", "json"] = Field("text", description="text, or JSON in lines.")
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important kind of line that is written."
    )
    file: Annotated[SitePath, AfterValidator(_writable_file)] | None = Field(
        None,
        description="The log file; standard error, if left out.",
        examples=["/var/log/gateway.log"],
    )


class Config(Section):
    """The configuration of a mail gateway."""

    hostname: Annotated[str, AfterValidator(_hostname)] = Field(
        default_factory=socket.getfqdn,
        description="The gateway's name in banner, EHLO and Received; the system's, if left out.",
        examples=["gw.example.com"],
        validate_default=True,
    )
    workers: Annotated[
        Literal["auto"] | int,
        BeforeValidator(_workers),
        WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]}),
    ] = Field("auto", description="Worker processes; auto is one per core.")
    spool: Spool = Field(default_factory=Spool, description="Where accepted mail waits.")
    listen: tuple[Listen, ...] = Field(
        description="The addresses that clients connect to.",
        examples=["[{address: 127.0.0.1:2525, allow: [127.0.0.0/8]}]"],
        strict=False,
        min_length=1,
    )
    limits: Limits = Field(default_factory=Limits, description="What one client may ask for.")
    relay: Relay = Field(default_factory=Relay, description="Where mail goes.")
    retry: Retry = Field(default_factory=Retry, description="When mail is tried again.")
    dns: Dns = Field(default_factory=Dns, description="Where names are looked up.")
    http: Http | None = Field(None, description="The HTTP service; none, if left out.")
    log: Log = Field(default_factory=Log, description="What is written about the work.")
    campaign_header: Annotated[str, AfterValidator(check_header_name)] | None = Field(
        "X-Campaign",
        description="The header field that names the campaign of a message, for reports; "
        "null for none.",
    )
    release_header: Annotated[str, AfterValidator(check_header_name)] | None = Field(
        "X-Deliver-At",
        description="The header field that says when a message is to go out, within limits.hold; "
        "null for none.",
    )
    streams: Mapping[str, StreamSection] = Field(
        default_factory=dict, description="Kinds of mail by name; the first that matches is taken."
    )
    plugins: tuple[PluginEntry, ...] = Field(
        (), description="The plugins, in the order in which mail meets them.", strict=False
    )
    shutdown_timeout: Time = time_field(
        "30s", "How long work in progress may take to finish at the end."
    )

    _document: YamlDocument = PrivateAttr(
        default_factory=lambda: YamlDocument(Path("gateway.yaml"), {})
    )

    @property
    def document(self) -> YamlDocument:
        """The file that this was read from, for problems that are found later."""
        return self._document

    @property
    def path(self) -> Path:
        """The file that this was read from."""
        return self._document.file

    @property
    def base(self) -> Path:
        """The folder of the file, that relative paths in it start from."""
        return self._document.file.absolute().parent

    @property
    def worker_count(self) -> int:
        """The number of worker processes."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else self.workers

    @cached_property
    def compiled_streams(self) -> Streams:
        """The streams, ready to sort messages."""
        return Streams(self.streams)


def load_config(path: Path, text: str | None = None) -> Config:
    """Reads gateway.yaml; `text` is its content if it is already read.

    Plugins are not loaded: their settings are checked by `gateway.hooks.load`.

    Raises:
        ConfigError: with everything that is wrong in the file.
    """
    document = parse(path, read(path) if text is None else text)
    problems: list[Problem] = []
    # A section whose lines are all commented out is as one that is left out.
    data = {
        key: value
        for key, value in document.data.items()
        if value is not None or key not in Config.model_fields or _may_be_null(key)
    }
    entries = read_entries(document, data.pop("plugins", None), problems)
    # A default does not see the folder that relative paths start from; a value does.
    data.setdefault("spool", {})
    config: Config | None = None
    try:
        config = check(Config, document, data, context={"base": path.absolute().parent})
    except ConfigError as error:
        problems += error.problems
    streams = data.get("streams")
    problems += _stream_problems(document, streams if isinstance(streams, dict) else {}, entries)
    if config is not None:
        problems += _listen_problems(document, config)
    if problems or config is None:
        raise ConfigError(problems)
    config = config.model_copy(update={"plugins": tuple(entries)})
    config._document = document
    return config


def _may_be_null(key: str) -> bool:
    return type(None) in get_args(Config.model_fields[key].annotation)


def _stream_problems(
    document: YamlDocument, streams: Mapping[Any, Any], entries: list[PluginEntry]
) -> list[Problem]:
    problems = []
    for name, stream in streams.items():
        path = ("streams", name)
        keys = stream if isinstance(stream, dict) else {}
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
            message = (
                "a stream's name has lower-case letters, digits, - and _, and starts with a letter"
            )
            problems.append(document.problem(path, message, key=True))
        elif name == DEFAULT_STREAM and "when" in keys:
            message = "default is what no other stream takes; it may only have a priority"
            problems.append(document.problem((*path, "when"), message, key=True))
        elif name != DEFAULT_STREAM and isinstance(stream, dict) and keys.get("when") is None:
            message = (
                "missing; which mail belongs to the stream, "
                "for example: {header: {Precedence: bulk}}"
            )
            problems.append(document.problem((*path, "when"), message))
        if isinstance(keys.get("when"), dict) and "stream" in keys["when"]:
            message = "a stream cannot ask for a stream"
            problems.append(document.problem((*path, "when", "stream"), message, key=True))
    known = [*map(str, streams), DEFAULT_STREAM]
    for entry in entries:
        for stream in (entry.when and entry.when.stream) or ():
            if stream not in known and not re.search(r"[*?]", stream):
                hint = nearest(stream, known) or "known streams are " + ", ".join(
                    dict.fromkeys(known)
                )
                message = f'there is no stream "{stream}"; {hint}'
                problems.append(document.problem((*entry.path, "when", "stream"), message))
    return problems


def _listen_problems(document: YamlDocument, config: Config) -> list[Problem]:
    problems = []
    seen: dict[Endpoint, int] = {}
    for index, listen in enumerate(config.listen):
        first = seen.setdefault(listen.address, index)
        if first != index and listen.address.port:
            message = f"{listen.address} is already taken by listen[{first}]"
            problems.append(document.problem(("listen", index, "address"), message))
    if config.http is not None and config.http.address.port and config.http.address in seen:
        address = config.http.address
        message = f"{address} is already taken by listen[{seen[address]}]"
        problems.append(document.problem(("http", "address"), message))
    return problems
