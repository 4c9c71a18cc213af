"""What pkilint, which is not part of this program, finds in a certificate that came back (RFC 5280 profile)."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import structlog

from gateway.errors import Reason, Rejection
from gateway.model import UpstreamCAName

PUBLIC_DETAIL = "the CA returned a certificate that is not well made"
MOST_NAMED = 5
"""Findings that are named; a certificate with more is no better known by them."""

log = structlog.get_logger(__name__)


class MissingPackage(Exception):
    """pkilint is not installed."""


class SecondOpinion:
    """Judges certificates in a thread: each takes some milliseconds. With `enforce` false what it finds is only logged."""

    def __init__(self, name: UpstreamCAName, mode: Literal["warn", "enforce"]) -> None:
        self._name = name
        self._enforce = mode == "enforce"
        self._loader, self._validator, self._severe = _load()

    async def judge(self, certificate: bytes) -> None:
        """Return where a certificate, DER, is good or is let pass; raises Rejection UPSTREAM_MISMATCH."""
        try:
            found = await asyncio.to_thread(self._find, certificate)
        except Exception as error:  # noqa: BLE001  a linter that fails has not said that the certificate is good
            found = (f"pkilint broke off: {type(error).__name__}",)
        if not found:
            return
        told = ", ".join(found[:MOST_NAMED])
        if self._enforce:
            raise Rejection(Reason.UPSTREAM_MISMATCH, PUBLIC_DETAIL, f"pkilint: {told}")
        log.warning("pkilint finds errors in a certificate of the upstream CA", upstream_ca=self._name, findings=told)

    def _find(self, certificate: bytes) -> tuple[str, ...]:
        """Return the codes of what is wrong; pkilint's messages may hold what a device has asked for."""
        document = self._loader.load_der_document(certificate, "certificate")
        return tuple(
            dict.fromkeys(
                described.finding.code
                for result in self._validator.validate(document.root)
                for described in result.finding_descriptions
                if described.finding.severity in self._severe
            )
        )


def _load() -> tuple[Any, Any, frozenset[Any]]:
    """Import pkilint and make its validator for RFC 5280, as its own `lint_pkix_cert` does. Raises MissingPackage."""
    try:
        from pkilint import loader
        from pkilint.pkix import certificate, extension, name
        from pkilint.validation import ValidationFindingSeverity as Severity
    except ImportError as error:
        raise MissingPackage("needs pkilint: pip install 'pki-gateway[pkilint]'") from error
    validator = certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )
    return loader.RFC5280CertificateDocumentLoader(), validator, frozenset({Severity.FATAL, Severity.ERROR})
