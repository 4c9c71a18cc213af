"""What a CA shows of itself to everybody, judged against what is pinned; none of it is ever trusted."""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.ca.interfaces import NotSent, Trial
from gateway.errors import Rejection
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.names import format_name

MAX_SHOWN = 32
"""Certificates that are looked at; a CA has a few."""
SOON = timedelta(days=14)
"""A certificate of ours that ends within that is spoken of."""


def ca_certificates(shown: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the CA certificates among those shown, DER, each below its issuer; raises NotSent for what cannot be read."""
    if len(shown) > MAX_SHOWN:
        raise NotSent(f"the CA shows {len(shown)} certificates, too many to be its own")
    try:
        authorities = [c for c in map(parse_certificate, dict.fromkeys(shown)) if c.is_ca]
    except Rejection as error:
        raise NotSent("the CA shows a certificate that cannot be read") from error
    return tuple(certificate.der for certificate in _in_order(authorities))


def _in_order(authorities: list[Certificate]) -> list[Certificate]:
    """Issuing CAs first: the fewer of the others a CA has above it, the later it comes."""
    issuers = {certificate.subject.der: certificate.issuer_der for certificate in authorities}

    def height(certificate: Certificate) -> int:
        above, name = 0, certificate.subject.der
        while above < len(authorities) and name in issuers and issuers[name] != name:
            above, name = above + 1, issuers[name]
        return above

    return sorted(authorities, key=height, reverse=True)


def try_chain(pinned: tuple[bytes, ...], shown: tuple[bytes, ...]) -> Trial:
    """Say whether the issuing CA that is pinned is among what the CA shows."""
    if pinned[0] in shown:
        return Trial("chain", good=True, finding="the CA shows the issuing CA that is pinned")
    advice = "compare with `pki-gateway upstream chain`, then correct `chain`"
    return Trial("chain", good=False, finding="the CA does not show the issuing CA that is pinned", advice=advice)


def try_dates(subject: str, what: str, certificate: bytes, now: datetime) -> Trial:
    """Say whether a certificate, DER, is in force, and for long enough; `what` is what it is in words."""
    parsed = parse_certificate(certificate)
    named = f"{what} {format_name(parsed.subject)}"
    if now < parsed.not_before:
        return Trial(subject, good=False, finding=f"{named} is not valid yet", advice="check the clock of this machine")
    if now >= parsed.not_after:
        return Trial(subject, good=False, finding=f"{named} ended at {parsed.not_after:%Y-%m-%dT%H:%M:%SZ}", advice="renew it")
    advice = "renew it soon" if parsed.not_after - now < SOON else ""
    return Trial(subject, good=True, finding=f"{named} is good until {parsed.not_after:%Y-%m-%dT%H:%M:%SZ}", advice=advice)


def public_text(text: str) -> str:
    """Return what a CA says in words as one short line that clients may see."""
    line = "".join(c if c.isprintable() else " " for c in text).strip()
    return line[:200]
