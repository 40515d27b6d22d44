"""A certificate and its private key, as a section of gateway.yaml."""

from __future__ import annotations

import ssl
from typing import Self

from pydantic import Field, model_validator

from gateway.configuration.section import Section
from gateway.hooks.paths import SiteFile


class KeyPair(Section):
    """A certificate and its private key."""

    certificate: SiteFile = Field(
        description="The certificate with its chain, as PEM.", examples=["tls/cert.pem"]
    )
    key: SiteFile = Field(description="The private key, as PEM.", examples=["tls/key.pem"])

    @model_validator(mode="after")
    def _pair(self) -> Self:
        def no_password() -> str:
            raise ValueError(f"{self.key} is encrypted; a key without a passphrase is needed")

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                self.certificate, self.key, no_password
            )
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or "not PEM"
            raise ValueError(
                f"{self.certificate} and {self.key} are no pair of certificate and key: "
                f"{str(reason).replace('_', ' ').lower()}"
            ) from None
        return self
