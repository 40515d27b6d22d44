"""OpenSSL's contexts for connections to next hops: which certificates, versions and ciphers."""

from __future__ import annotations

import ssl
from functools import cached_property

from gateway.configuration.relay import RelayTls

_WEAK = "DEFAULT:@SECLEVEL=0"
"""Whatever OpenSSL can do by itself: any cipher is better than none."""


class Contexts:
    """Made when they are first needed: reading the system's certificates takes a while.

    Each raises OSError if a file of the configuration cannot be read any more.
    """

    def __init__(self, config: RelayTls) -> None:
        self._config = config

    @cached_property
    def opportunistic(self) -> ssl.SSLContext:
        """Takes any certificate, and weak ciphers where no others are configured."""
        return self._for_servers(_unverified(), _WEAK)

    @cached_property
    def encrypted(self) -> ssl.SSLContext:
        """Takes any certificate."""
        return self._for_servers(_unverified())

    @cached_property
    def verified(self) -> ssl.SSLContext:
        """Takes certificates that the configured authorities vouch for; else the system's."""
        if self._config.ca is None:
            return self.public
        context = _verified()
        context.load_verify_locations(self._config.ca)
        return self._for_servers(context)

    @cached_property
    def public(self) -> ssl.SSLContext:
        """Takes certificates that the system's authorities vouch for, or the configured ones."""
        return self._for_servers(self._trusting_all())

    @cached_property
    def web(self) -> ssl.SSLContext:
        """As `public`, for web servers: no certificate of ours is shown to them."""
        return self._trusting_all()

    def _trusting_all(self) -> ssl.SSLContext:
        context = _verified()
        context.load_default_certs()
        if self._config.ca is not None:
            context.load_verify_locations(self._config.ca)
        return context

    def _for_servers(self, context: ssl.SSLContext, ciphers: str = "DEFAULT") -> ssl.SSLContext:
        config = self._config
        context.set_ciphers(config.ciphers or ciphers)
        if config.minimum == "1.3":
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        if config.client is not None:
            context.load_cert_chain(config.client.certificate, config.client.key)
        return context


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _verified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # A host's name stands among the alternative names (RFC 9525 2).
    context.hostname_checks_common_name = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
