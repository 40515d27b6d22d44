"""The configuration of the plugin."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import cached_property
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from gateway.hooks import Duration, SitePath, domain_name
from plugins.tracking.endpoints_config import EndpointsConfig
from plugins.tracking.parameters import FIELDS, unknown_fields

_GLOB = re.compile(r"[a-z0-9_*?.\[\]:-]+", re.ASCII)
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*", re.ASCII)
_PLACEHOLDER = re.compile(r"[!-~]{4,100}")
_MAILBOX = re.compile(r"[A-Za-z0-9!#$'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+", re.ASCII)


def _base_url(text: str) -> str:
    text = text.rstrip("/")
    example = "expected a URL such as https://t.example.com or https://www.example.com/t"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(f"{text!r} is no base URL; {example}") from None
    plain = not (parts.username or parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme.lower() not in ("http", "https") or not plain:
        raise ValueError(f"{text!r} is no base URL; {example}")
    if not _PATH.fullmatch(parts.path) or text.endswith(("?", "#")):
        raise ValueError(f"{text!r} is no base URL; {example}")
    host = f"[{ip_address(host)}]" if ":" in host else domain_name(host)
    return f"{parts.scheme.lower()}://{host}{'' if port is None else f':{port}'}{parts.path}"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _glob(text: str) -> str:
    try:
        labels = [one if one.isascii() else domain_name(one) for one in text.lower().split(".")]
    except ValueError:
        labels = []
    name = ".".join(labels)
    if not _GLOB.fullmatch(name):
        raise ValueError(f"{text!r} is no host; expected one such as example.com or *.example.com")
    return name


BaseUrl = Annotated[str, AfterValidator(_base_url)]
HostGlob = Annotated[str, AfterValidator(_glob)]


class DomainConfig(BaseModel):
    """What is different for mail from one domain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: BaseUrl = Field(description="Where this domain's links lead to.")


class UnsubscribeConfig(BaseModel):
    """How recipients can unsubscribe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    headers: bool = Field(
        default=True, description="Add List-Unsubscribe and List-Unsubscribe-Post (RFC 8058)."
    )
    existing: Literal["keep", "replace"] = Field(
        default="keep",
        description="What happens to a List-Unsubscribe field that the message has already.",
    )
    mailto: str | None = Field(
        default=None, description="An address that is offered as well, as user@example.com."
    )
    placeholder: str | None = Field(
        default="%%unsubscribe_url%%",
        description="Text in the body that becomes the URL to unsubscribe at; null: none.",
    )

    @field_validator("mailto")
    @classmethod
    def _check_mailto(cls, address: str | None) -> str | None:
        if address is not None and not _MAILBOX.fullmatch(address):
            raise ValueError(f"{address!r} is not an address; expected user@example.com")
        return address

    @field_validator("placeholder")
    @classmethod
    def _check_placeholder(cls, text: str | None) -> str | None:
        if text is not None and not _PLACEHOLDER.fullmatch(text):
            raise ValueError("the placeholder must have 4 to 100 ASCII characters and no space")
        return text


class TrackingConfig(EndpointsConfig):
    """What is tracked, and how; `EndpointsConfig` says what the HTTP endpoints do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: BaseUrl = Field(
        description="Where tracked links lead to: the public URL of the plugin's endpoints.",
        examples=["https://t.example.com"],
    )
    allow_http: bool = Field(
        default=False, description="Take a base_url without TLS that is not on this machine."
    )
    domains: dict[str, DomainConfig] = Field(
        default={},
        description="Other settings by the domain in From; a subdomain takes its parent's.",
    )
    clicks: bool = Field(default=True, description="Rewrite the links in HTML.")
    opens: bool = Field(default=True, description="Add an image to HTML.")
    text_links: bool = Field(default=False, description="Rewrite the links in plain text too.")
    keep_visible_urls: bool = Field(
        default=False,
        description="Leave a link alone whose text is a URL of the host that it leads to.",
    )
    only_hosts: tuple[HostGlob, ...] = Field(
        default=(), description="Rewrite only links to these hosts: example.com, *.example.com."
    )
    exclude_hosts: tuple[HostGlob, ...] = Field(
        default=(), description="Leave links to these hosts alone."
    )
    parameters: dict[str, str] = Field(
        default={},
        description="Query parameters to add to links, with {campaign}, {stream}, {variant} and "
        "{link} in the values.",
    )
    parameter_hosts: tuple[HostGlob, ...] = Field(
        default=(), description="Add them only to links to these hosts."
    )
    unsubscribe: UnsubscribeConfig = Field(
        default=UnsubscribeConfig(), description="How recipients can unsubscribe."
    )
    keys: SitePath | None = Field(
        default=None,
        description="The file of secret keys; default: keys.json in the plugin's data folder.",
    )
    token_lifetime: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None,
        description="After how long links and images of a message stop to work; null: never.",
    )

    @field_validator("domains")
    @classmethod
    def _check_domains(cls, domains: dict[str, DomainConfig]) -> dict[str, DomainConfig]:
        return {domain_name(name): settings for name, settings in domains.items()}

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, parameters: dict[str, str]) -> dict[str, str]:
        for name, value in parameters.items():
            if not name:
                raise ValueError("a parameter needs a name")
            for field in unknown_fields(value):
                known = ", ".join(f"{{{one}}}" for one in FIELDS)
                raise ValueError(f"{name}: there is no {{{field}}}; known are {known}")
        return parameters

    @model_validator(mode="after")
    def _check_encryption(self) -> TrackingConfig:
        for url in self.base_urls:
            if url.startswith("http:") and not self.allow_http and not _is_loopback(url):
                raise ValueError(f"{url} has no TLS; use https, or set allow_http: true")
        return self

    @cached_property
    def base_urls(self) -> tuple[str, ...]:
        """All base URLs, without a slash at the end."""
        return (self.base_url, *[domain.base_url for domain in self.domains.values()])

    def base_url_of(self, domain: str) -> str:
        """The base URL for mail from a domain (lower case, A-labels)."""
        while domain:
            if domain in self.domains:
                return self.domains[domain].base_url
            domain = domain.partition(".")[2]
        return self.base_url


def host_pattern(globs: tuple[str, ...]) -> re.Pattern[str]:
    """What matches the hosts that any of the globs names, in full."""
    return re.compile("|".join(translate(glob) for glob in globs))
