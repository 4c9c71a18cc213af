"""What devices say of their keys in CSRs and CMP requests, judged (draft-ietf-lamps-csr-attestation-29 §6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

from gateway.asn1.attestation import (
    OID_ATTESTATION,
    OID_TCG_AIK_CERTIFICATE,
    OID_TCG_ATTEST_CERTIFY,
    OID_YUBICO_ATTESTATION,
)
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import CertificateRequest
from gateway.model import Evidence as Statement
from gateway.pki import der
from gateway.pki.certificate import parse_certificate
from gateway.pki.trust import TrustAnchors
from gateway.validation.attestation.chain import MAX_CERTIFICATES, ordered, verify_certificates
from gateway.validation.attestation.evidence import Evidence
from gateway.validation.attestation.step import read_attested_certificate
from gateway.validation.attestation.tpm import CertifiedKey, judge_certified_key

_GENERATED = b"\xffTCG"
"""TPM_GENERATED_VALUE, by which a TPMS_ATTEST begins (TPM 2.0 Library, Part 2, §6.2)."""


class RequestAttestation:
    """Judges the statements of one request; a format without roots is refused.

    There is no nonce: a statement is as good as the key that it names, and whoever asks proves that he has that key.
    """

    __slots__ = ("_roots",)

    def __init__(self, tpm: TrustAnchors | None, step: TrustAnchors | None) -> None:
        roots = {OID_TCG_ATTEST_CERTIFY: tpm, OID_YUBICO_ATTESTATION: step}
        self._roots = MappingProxyType(roots)

    def judge(self, request: CertificateRequest, now: datetime) -> Mapping[str, str] | None:
        """Return what is attested of the request's key; None where nothing is, by a statement of a kind that is known.

        No I/O; a few milliseconds. Statements of other kinds are passed over (§6). Raises Rejection BAD_ATTESTATION for one that
        is broken, not trusted, or about another key.
        """
        claims: Mapping[str, str] | None = None
        for statement in request.evidence:
            found = self._judge(statement, request.public_key.sha256, now)
            claims = found if claims is None else claims
        return claims

    def _judge(self, statement: Statement, key: bytes, now: datetime) -> Mapping[str, str] | None:
        if statement.type == OID_ATTESTATION:
            raise _bad("the attestation of the request cannot be read")
        if statement.type not in _JUDGES:
            return None
        anchors = self._roots[statement.type]
        if anchors is None:
            raise _bad("attestations of this format are not taken here")
        name, judge = _JUDGES[statement.type]
        try:
            evidence = judge(statement, anchors, now)
        except MalformedMessage as error:
            raise Rejection(Reason.BAD_ATTESTATION, error.detail, error.cause) from None
        except Rejection as error:
            if error.reason is Reason.BAD_ATTESTATION:
                raise
            raise Rejection(Reason.BAD_ATTESTATION, f"the attestation cannot be used: {error.detail}", error.cause) from None
        if evidence.key != key:
            raise _bad("the attestation is about another key than the request's")
        return MappingProxyType({"format": name, **evidence.claims, **_identifiers(evidence)})


def _identifiers(evidence: Evidence) -> dict[str, str]:
    """Return who the device is, where the attestation says so in one way."""
    found = {"permanent_identifier": evidence.permanent, "hardware_module": evidence.modules}
    return {name: next(iter(values)) for name, values in found.items() if len(values) == 1}


def _judge_tpm(statement: Statement, anchors: TrustAnchors, now: datetime) -> Evidence:
    """Read Tcg-csr-tpm-certify: tpmSAttest, signature and tpmTPublic, the last of which may not be left out here."""
    fields = der.elements(body := der.content(der.SEQUENCE, statement.statement), limit=3)
    if [tag for tag, *_ in fields] != [der.OCTET_STRING] * 3:
        raise MalformedMessage("the attestation is not attest, signature and public area of a TPM")
    info, signature, area = [body[start:end] for _, _, start, end in fields]
    chain = ordered(*_attestation_key(statement.certificates))
    info = info if info[:4] == _GENERATED else _without_size(info)
    return judge_certified_key(CertifiedKey(info, signature, _without_size(area), chain), anchors, now)


def _attestation_key(certificates: tuple[bytes, ...]) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the certificate of the attestation key, which may stand anywhere, and the others."""
    if len(certificates) > MAX_CERTIFICATES:
        raise MalformedMessage(f"the attestation has more than {MAX_CERTIFICATES} certificates")
    for number, one in enumerate(certificates):
        if OID_TCG_AIK_CERTIFICATE in (parse_certificate(one).ekus or ()):
            return one, certificates[:number] + certificates[number + 1 :]
    raise _bad("the attestation has no certificate of an attestation key")


def _without_size(data: bytes) -> bytes:
    """Return what a TPM2B holds, as tpm2-tools write it; the bare structure as it is, whose first number is never its size."""
    return data[2:] if int.from_bytes(data[:2]) == len(data) - 2 else data


def _judge_certificate(statement: Statement, anchors: TrustAnchors, now: datetime) -> Evidence:
    if len(statement.certificates) >= MAX_CERTIFICATES:
        raise MalformedMessage(f"the attestation has more than {MAX_CERTIFICATES} certificates")
    return read_attested_certificate(verify_certificates(anchors, ordered(statement.statement, statement.certificates), now))


_JUDGES: Mapping[str, tuple[str, Callable[[Statement, TrustAnchors, datetime], Evidence]]] = MappingProxyType(
    {OID_TCG_ATTEST_CERTIFY: ("tpm", _judge_tpm), OID_YUBICO_ATTESTATION: ("step", _judge_certificate)}
)


def _bad(detail: str) -> Rejection:
    return Rejection(Reason.BAD_ATTESTATION, detail)
