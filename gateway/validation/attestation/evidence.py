"""What a verified attestation says, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.pki.certificate import Certificate
from gateway.pki.names import attribute_oid

_COMMON_NAME = attribute_oid("CN")


@dataclass(frozen=True, slots=True)
class Evidence:
    """`key` is the SHA-256 of the attested SubjectPublicKeyInfo; `permanent` and `modules` the identifiers that it may stand for.

    Identifiers are spelled as in orders: `value` or `value/assigner`, and `serial/type` of a hardware module.
    """

    key: bytes
    claims: Mapping[str, str] = field(default_factory=dict)
    permanent: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()


def described(certificate: Certificate) -> dict[str, str]:
    """Return who attests: the common name of the CA above the attestation's certificate, where it has one."""
    names = certificate.issuer.values(_COMMON_NAME)
    return {"issuer": names[0]} if len(names) == 1 and names[0].isprintable() else {}
