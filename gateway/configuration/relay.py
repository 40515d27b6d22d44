"""Where mail goes, and how its connections are protected."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from gateway.attempt import Credentials, TlsLevel
from gateway.configuration.endpoint import HopField
from gateway.configuration.key_pair import KeyPair
from gateway.configuration.quantity import Duration
from gateway.configuration.section import Section, listing, time_field
from gateway.hooks.condition import Patterns
from gateway.hooks.paths import SiteFile
from gateway.mail.address import domain_of

Level = Annotated[TlsLevel, Field(strict=False)]
"""A level by its name."""


class Login(Section):
    """A user name and a password for a next hop; TLS is required where there is one."""

    user: str = Field(description="The user name.", examples=["gateway"], min_length=1)
    password_file: SiteFile | None = Field(
        None, description="A file with the password and nothing else.", examples=["secrets/relay"]
    )
    password_env: str | None = Field(
        None, description="The environment variable with the password.", examples=["RELAY_PASSWORD"]
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.password_file is None) == (self.password_env is None):
            raise ValueError("needs password_file or password_env, and not both")
        return self


def credentials_of(login: Login) -> Credentials:
    """Reads the password of a login where the configuration says that it is.

    Raises:
        ValueError: it is not there; the text says what would be right, and nothing of the password.
    """
    if login.password_file is None:
        place = f"the environment variable {login.password_env}"
        text = os.environ.get(login.password_env or "")
        if text is None:
            raise ValueError(f"{place} is not set; it has the password of {login.user}")
    else:
        place = str(login.password_file)
        try:
            text = login.password_file.read_text("utf-8")
        except OSError as error:
            raise ValueError(f"{place} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{place} is not UTF-8; it has the password alone") from None
        text = text.removesuffix("\n").removesuffix("\r")
    if not text or re.search(r"[\x00-\x1f\x7f]", text):
        wrong = "has several lines, or other control characters" if text else "is empty"
        raise ValueError(f"{place} {wrong}; it has the password and nothing else")
    return Credentials(login.user, text)


def _pattern(text: str) -> str:
    """A pattern of domains as domains are compared: lower case, A-labels."""
    if "@" in text:
        raise ValueError(f'a domain has no "@"; for example: {text.rpartition("@")[2]}')
    # Label by label, because IDNA refuses the asterisk.
    return ".".join(domain_of(f"@{label}") for label in text.rstrip(".").split("."))


class RouteSection(Section):
    """Where the mail of some domains goes instead."""

    via: tuple[HopField, ...] = Field(
        description="The servers, in order.",
        examples=['["10.0.0.5:25"]'],
        strict=False,
        min_length=1,
    )
    tls: Level | None = Field(
        None,
        description="none, opportunistic, required or verified; as relay.tls says, if left out.",
    )
    implicit_tls: bool = Field(False, description="TLS from the first octet, as on port 465.")
    login: Login | None = Field(None, description="What to log in with; not at all, if left out.")

    @model_validator(mode="after")
    def _login_over_tls(self) -> Self:
        if self.tls is TlsLevel.NONE and (self.login is not None or self.implicit_tls):
            key = "login" if self.login is not None else "implicit_tls"
            raise ValueError(f"{key} needs TLS, and tls: none forbids it")
        return self


def _route(value: Any) -> Any:
    """A list of servers is short for a section with them."""
    return {"via": value} if isinstance(value, list | tuple) else value


class TlsPolicy(Section):
    """The level for some mail; every key that is given must match."""

    recipient_domain: Patterns | None = Field(
        None, description="Recipients' domains, with * and ?.", examples=["*.bank.example"]
    )
    sender_domain: Patterns | None = Field(
        None, description="Senders' domains, with * and ?.", examples=["hr.example.com"]
    )
    level: Level = Field(description="none, opportunistic, required or verified.")

    @field_validator("recipient_domain", "sender_domain")
    @classmethod
    def _patterns(cls, domains: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if domains is None else tuple(map(_pattern, domains))

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.recipient_domain is None and self.sender_domain is None:
            raise ValueError("needs recipient_domain or sender_domain")
        return self


class RelayTls(Section):
    """How connections to next hops are protected."""

    level: Level = Field(
        TlsLevel.OPPORTUNISTIC,
        description="none; opportunistic: where the server offers it; required: or not at all; "
        "verified: with a certificate that is valid for the server's name.",
        json_schema_extra={"default": "opportunistic"},
    )
    policies: tuple[TlsPolicy, ...] = listing(
        "Levels for some mail; the first that matches is taken.",
        "[{recipient_domain: bank.example, level: verified}]",
    )
    ca: SiteFile | None = Field(
        None, description="Certificates to trust, as PEM; the system's, if left out."
    )
    client: KeyPair | None = Field(None, description="The certificate to show to servers.")
    minimum: Literal["1.2", "1.3"] = Field("1.2", description="The oldest version of TLS.")
    ciphers: str | None = Field(
        None,
        description="Ciphers of TLS 1.2, as OpenSSL lists them; its own choice, if left out.",
        examples=["ECDHE+AESGCM"],
    )
    mta_sts: bool = Field(True, description="Obey what receiving domains publish (RFC 8461).")
    dane: bool = Field(True, description="Obey authenticated TLSA records (RFC 7672).")

    @field_validator("ca")
    @classmethod
    def _certificates(cls, ca: SiteFile | None) -> SiteFile | None:
        if ca is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca)
            except OSError:
                raise ValueError(f"{ca} has no certificates in the form of PEM") from None
        return ca

    @field_validator("ciphers")
    @classmethod
    def _known_ciphers(cls, ciphers: str | None) -> str | None:
        if ciphers is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(ciphers)
            except ssl.SSLError:
                raise ValueError(
                    f"OpenSSL knows no ciphers {ciphers!r}; for example: ECDHE+AESGCM"
                ) from None
        return ciphers


class Relay(Section):
    """Where mail goes."""

    via: tuple[HopField, ...] = listing(
        "Smarthosts, in order; left out, mail goes to the MX of each domain.",
        '["smtp.example.com:25"]',
    )
    implicit_tls: bool = Field(
        False, description="TLS with the smarthosts from the first octet, as on port 465."
    )
    login: Login | None = Field(None, description="What to log in to the smarthosts with.")
    routes: Mapping[
        Annotated[str, AfterValidator(_pattern)],
        Annotated[RouteSection, BeforeValidator(_route)],
    ] = Field(
        {},
        description="Other ways for some recipients' domains, with * and ?; the first that matches "
        "is taken.",
        examples=['{corp.example: ["10.0.0.5:25"]}'],
    )
    tls: RelayTls = Field(
        default_factory=RelayTls, description="How connections to next hops are protected."
    )
    mx_port: int = Field(
        25, description="Where mail exchangers listen; another port is for tests.", ge=1, le=65535
    )
    connections: int = Field(20, description="Connections per next-hop site and worker.", ge=1)
    idle: Duration = time_field("10s", "How long an idle connection is kept for further mail.")
    messages_per_connection: int = Field(1000, description="Messages over one connection.", ge=1)

    @model_validator(mode="after")
    def _about_smarthosts(self) -> Self:
        for key in ("login", "implicit_tls"):
            if getattr(self, key) and not self.via:
                raise ValueError(f"{key} is for the smarthosts, and via names none")
            if getattr(self, key) and self.tls.level is TlsLevel.NONE:
                raise ValueError(f"{key} needs TLS, and tls.level: none forbids it")
        return self
