"""The certificates that the gateway shows: dates, names, chain, and who may read the keys."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from gateway.configuration.config import Config
from gateway.configuration.key_pair import KeyPair
from gateway.doctor.finding import Finding, note, ok, problem, warning
from gateway.doctor.site import Site

SOON = timedelta(days=14)


def examine(site: Site) -> Iterator[Finding]:
    """What is to be said of each certificate in gateway.yaml."""
    pairs = list(_pairs(site.config))
    if not pairs:
        yield note(
            "no certificate is configured: clients send mail and passwords in the clear",
            "listen: [{address: …, tls: {certificate: …, key: …}}]",
        )
    now = datetime.fromtimestamp(site.started, UTC)
    for place, pair, hostname in pairs:
        yield from examined(place, pair, hostname, now)


def _pairs(config: Config) -> Iterator[tuple[str, KeyPair, str]]:
    """Where each pair stands, and the name that it should have; '' where that is not known."""
    seen = set()
    for listen in config.listen:
        if listen.tls is not None and listen.tls.certificate not in seen:
            seen.add(listen.tls.certificate)
            yield f"listen {listen.address}", listen.tls, config.hostname
    if config.http is not None and config.http.tls is not None:
        yield "http", config.http.tls, ""
    if config.relay.tls.client is not None:
        yield "relay.tls.client", config.relay.tls.client, ""


def examined(place: str, pair: KeyPair, hostname: str, now: datetime) -> Iterator[Finding]:
    """What is to be said of one certificate. That the key fits was seen when it was loaded."""
    try:
        chain = x509.load_pem_x509_certificates(pair.certificate.read_bytes())
    except (OSError, ValueError) as error:
        yield problem(f"{place}: {pair.certificate} cannot be read: {error}", "correct the file")
        return
    leaf = chain[0]
    end = min(one.not_valid_after_utc for one in chain)
    renew = "renew it, and: systemctl reload mail-gateway"
    if now < leaf.not_valid_before_utc:
        begin = leaf.not_valid_before_utc
        yield problem(f"{place}: the certificate is valid from {begin:%Y-%m-%d}", "set the clock")
    elif now >= end:
        yield problem(f"{place}: the certificate has ended on {end:%Y-%m-%d}", renew)
    elif now >= end - SOON:
        yield warning(f"{place}: the certificate ends on {end:%Y-%m-%d}", renew)
    else:
        yield ok(f"{place}: the certificate is valid until {end:%Y-%m-%d}")
    names = names_of(leaf)
    if hostname and not any(fits(name, hostname) for name in names):
        yield warning(
            f"{place}: the certificate is for {', '.join(sorted(names)) or 'no name'}, "
            f"and not for {hostname}: clients that verify go away",
            f"get one that has {hostname}",
        )
    yield from _chain(place, chain)
    mode = pair.key.stat().st_mode
    if mode & stat.S_IRWXO:
        yield problem(f"{place}: everybody may read the key {pair.key}", f"chmod o= {pair.key}")


def names_of(certificate: x509.Certificate) -> set[str]:
    """The host names and addresses that a certificate is for (RFC 9525: never the subject)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return set()
    names = {name.lower() for name in extension.value.get_values_for_type(x509.DNSName)}
    return names | {str(one) for one in extension.value.get_values_for_type(x509.IPAddress)}


def fits(name: str, hostname: str) -> bool:
    """Whether a name in a certificate stands for a host; `*` is one label (RFC 9525 6.3)."""
    host = hostname.lower().rstrip(".")
    if name.startswith("*."):
        return host.partition(".")[2] == name[2:] != ""
    return name == host


def _chain(place: str, chain: list[x509.Certificate]) -> Iterator[Finding]:
    for certificate, issuer in pairwise(chain):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            yield warning(
                f"{place}: the certificates in the file are no chain: "
                f"{issuer.subject.rfc4514_string()} did not issue "
                f"{certificate.subject.rfc4514_string()}",
                "the file has the certificate, then the one of its issuer, and so on",
            )
            return
    if chain[0].issuer == chain[0].subject:
        yield note(
            f"{place}: the certificate is signed by itself: clients encrypt, and cannot verify"
        )
    elif len(chain) == 1:
        yield warning(
            f"{place}: the file has no chain, only the certificate: clients that verify may not "
            "know its issuer",
            "append the issuer's certificate (fullchain.pem of certbot)",
        )
