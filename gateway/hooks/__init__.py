"""The public plugin API: everything that a plugin may use of the gateway, and nothing else."""

from gateway.attempt import (
    Attempt,
    Credentials,
    Delivery,
    Disposition,
    Hop,
    Outcome,
    Route,
    Source,
    TlsLevel,
)
from gateway.configuration.quantity import Duration, Size
from gateway.events import Event
from gateway.hooks.actions import Accept, Action, Delay, Discard, Quarantine, Reject, Tempfail
from gateway.hooks.api import API_VERSION
from gateway.hooks.condition import Condition, When
from gateway.hooks.key_file import KeyFile, SecretKey
from gateway.hooks.paths import SiteFile, SitePath
from gateway.hooks.plugin import Context, Login, Plugin
from gateway.hooks.spec import hookimpl
from gateway.limits import Cell, Lease, Limits, Rate, RateField, Take
from gateway.mail.address import domain_name
from gateway.mail.guard import ForbiddenChangeError
from gateway.mail.headers import Headers
from gateway.mail.message import Client, Message, MessageSealedError, Recipient
from gateway.mail.text_part import TextPart, TextPartError
from gateway.resolver import NoSuchDomainError, ResolutionError, Resolver

__all__ = [
    "API_VERSION",
    "Accept",
    "Action",
    "Attempt",
    "Cell",
    "Client",
    "Condition",
    "Context",
    "Credentials",
    "Delay",
    "Delivery",
    "Discard",
    "Disposition",
    "Duration",
    "Event",
    "ForbiddenChangeError",
    "Headers",
    "Hop",
    "KeyFile",
    "Lease",
    "Limits",
    "Login",
    "Message",
    "MessageSealedError",
    "NoSuchDomainError",
    "Outcome",
    "Plugin",
    "Quarantine",
    "Rate",
    "RateField",
    "Recipient",
    "Reject",
    "ResolutionError",
    "Resolver",
    "Route",
    "SecretKey",
    "SiteFile",
    "SitePath",
    "Size",
    "Source",
    "Take",
    "Tempfail",
    "TextPart",
    "TextPartError",
    "TlsLevel",
    "When",
    "domain_name",
    "hookimpl",
]
