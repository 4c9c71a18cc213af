"""What step-ca is told to certify: names in the token, and the whole grant for a provisioner's template (step-ca, templates)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from gateway.model import CertificateRequest, Grant, SanKind
from gateway.pki.extensions import (
    EXTENDED_KEY_USAGE,
    KEY_USAGE,
    SUBJECT_ALT_NAME,
    eku_oid,
    encode_ekus,
    encode_key_usage,
    encode_sans,
)
from gateway.pki.names import attribute_oid, parse_name

_COMMON_NAME = attribute_oid("CN")
_PLAIN = {SanKind.DNS: "dns", SanKind.IP: "ip", SanKind.EMAIL: "email", SanKind.URI: "uri"}
"""Kinds of names that step-ca's own templates have."""
_NO_SUBJECT = "none"
"""`sub` of a token may not be empty."""


class CannotCertify(Exception):
    """What was granted is not what step-ca would certify; the text says why."""


@dataclass(frozen=True, slots=True)
class TokenNames:
    """`sub` and `sans` of a token: a request may have no common name and no names but these."""

    subject: str
    sans: list[str]


def describe_names(csr: CertificateRequest, grant: Grant, *, from_template: bool) -> TokenNames:
    """Return what a token names.

    The default template certifies what the token names, so the token names what was granted, and step-ca refuses requests for
    anything else. With the template of the gateway's the token names what the request asks for, only to be let through. Raises
    CannotCertify.
    """
    if from_template:
        names = csr.subject.values(_COMMON_NAME) or parse_name(grant.subject_der).values(_COMMON_NAME)
        return TokenNames(names[0] if names and names[0] else _NO_SUBJECT, [san.value for san in csr.sans if san.kind in _PLAIN])
    attributes = [attribute for rdn in parse_name(grant.subject_der).rdns for attribute in rdn]
    if [attribute.oid for attribute in attributes] != [_COMMON_NAME]:
        raise CannotCertify("its default template certifies a subject with one common name and nothing else")
    if not grant.sans:
        raise CannotCertify("its default template certifies no certificate without alternative names")
    if any(san.kind not in _PLAIN for san in grant.sans):
        raise CannotCertify("its default template certifies DNS names, addresses, e-mail addresses and URIs only")
    if grant.extensions:
        raise CannotCertify("its default template certifies no further extensions")
    if frozenset(grant.ekus) != {eku_oid("serverAuth"), eku_oid("clientAuth")}:
        raise CannotCertify("its default template certifies for serverAuth and clientAuth, both")
    usage = {"digitalSignature", "keyEncipherment"} if csr.public_key.algorithm == "rsa" else {"digitalSignature"}
    if frozenset(grant.key_usage) != usage:
        raise CannotCertify(f"its default template certifies this kind of key for {' and '.join(sorted(usage))}")
    return TokenNames(attributes[0].value, [san.value for san in grant.sans])


def describe_template_grant(grant: Grant) -> dict[str, Any]:
    """Return the claim `grant`: parts of a template as step-ca's x509util reads them; raises CannotCertify."""
    rdns = parse_name(grant.subject_der).rdns
    if any(len(rdn) > 1 for rdn in rdns):
        raise CannotCertify("it certifies no subject with several attributes in one place")
    plain = all(san.kind in _PLAIN for san in grant.sans)
    return {
        "subject": {"extraNames": [{"type": attribute.oid, "value": attribute.value} for rdn in rdns for attribute in rdn]},
        # as names wherever it can be: step-ca's own policy of names does not look into extensions
        "sans": [{"type": _PLAIN[san.kind], "value": san.value} for san in grant.sans] if plain else [],
        "extensions": [
            *([] if plain else [_extension(SUBJECT_ALT_NAME, encode_sans(grant.sans), critical=not rdns)]),
            *([_extension(KEY_USAGE, encode_key_usage(grant.key_usage), critical=True)] if grant.key_usage else []),
            *([_extension(EXTENDED_KEY_USAGE, encode_ekus(grant.ekus))] if grant.ekus else []),
            *(_extension(one.oid, one.value, critical=one.critical) for one in grant.extensions),
        ],
    }


def _extension(oid: str, value: bytes, *, critical: bool = False) -> dict[str, Any]:
    return {"id": oid, "critical": critical, "value": base64.b64encode(value).decode("ascii")}
