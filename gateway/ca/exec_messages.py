"""The JSON objects that the gateway and a signing program exchange (docs/upstream-exec.md)."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from gateway.ca.interfaces import IssueRequest, NotSent, UnknownResult, UpstreamIssued, UpstreamPending, UpstreamRejected
from gateway.errors import Rejection
from gateway.model import Grant, RequestForm, RevocationReason
from gateway.pki.certificate import der_to_pem, pem_to_ders
from gateway.pki.extensions import encode_sans
from gateway.pki.names import attribute_name, format_name, parse_name

VERSION = 1
"""Of this contract; a program refuses a version that it does not know."""
MAX_REFERENCE = 1024
MAX_MESSAGE = 500
MAX_RETRY_AFTER = 7 * 86400
MAX_CHAIN = 8
CRL_REASON_NAMES = {
    RevocationReason.UNSPECIFIED: "unspecified",
    RevocationReason.KEY_COMPROMISE: "keyCompromise",
    RevocationReason.CA_COMPROMISE: "cACompromise",
    RevocationReason.AFFILIATION_CHANGED: "affiliationChanged",
    RevocationReason.SUPERSEDED: "superseded",
    RevocationReason.CESSATION_OF_OPERATION: "cessationOfOperation",
    RevocationReason.CERTIFICATE_HOLD: "certificateHold",
    RevocationReason.PRIVILEGE_WITHDRAWN: "privilegeWithdrawn",
    RevocationReason.AA_COMPROMISE: "aACompromise",
}
"""CRLReason as RFC 5280 §5.3.1 spells it."""


class Found(Enum):
    """Answers that carry nothing."""

    NONE = "none"
    REVOKED = "revoked"


Answer = UpstreamIssued | UpstreamPending | Found


class AnswerError(Exception):
    """The output is not an answer of the contract; the text says what is wrong with it."""


def encode(message: dict[str, Any]) -> bytes:
    """Return the message as one line of ASCII JSON."""
    return json.dumps(message, ensure_ascii=True).encode("ascii") + b"\n"


def describe_issue(operation: str, request: IssueRequest, deadline: datetime) -> dict[str, Any]:
    """Return the object for `issue` and `find`: both carry the whole request."""
    return {
        **_head(operation, deadline),
        "request_id": request.request_id,
        "profile": request.profile,
        **_describe_request(request),
        "public_key": _pem(request.public_key, "PUBLIC KEY"),
        "grant": describe_grant(request.grant),
    }


def _describe_request(request: IssueRequest) -> dict[str, Any]:
    """Return the device's own request: a PKCS#10, or the CertReqMsg of a CMP message (RFC 4211 §3), which is no CSR."""
    if request.form is RequestForm.CRMF:
        return {"form": "crmf", "csr": None, "crmf": _b64(request.request)}
    return {"form": "pkcs10", "csr": _pem(request.request, "CERTIFICATE REQUEST"), "crmf": None}


def describe_poll(request: IssueRequest, reference: str, deadline: datetime) -> dict[str, Any]:
    """Return the object for `poll`."""
    return {**describe_issue("poll", request, deadline), "reference": reference}


def describe_revocation(
    certificate: bytes, serial: int, reason: RevocationReason, when: datetime, deadline: datetime
) -> dict[str, Any]:
    """Return the object for `revoke`."""
    return {
        **_head("revoke", deadline),
        "certificate": _pem(certificate, "CERTIFICATE"),
        "serial": f"{serial:x}",
        "reason": CRL_REASON_NAMES[reason],
        "reason_code": reason.value,
        "revoked_at": _time(when),
    }


def describe_grant(grant: Grant) -> dict[str, Any]:
    """Return the grant: what the certificate has to hold, and nothing else."""
    subject = parse_name(grant.subject_der)
    return {
        "rdns": [[{"oid": a.oid, "type": attribute_name(a.oid), "value": a.value} for a in rdn] for rdn in subject.rdns],
        "subject": format_name(subject),
        "subject_der": _b64(grant.subject_der),
        "sans": [{"type": san.kind.value, "value": san.value, "der": _b64(san.der)} for san in grant.sans],
        "sans_der": _b64(encode_sans(grant.sans)) if grant.sans else None,
        "key_usage": list(grant.key_usage),
        "ekus": list(grant.ekus),
        "not_before": _time(grant.not_before),
        "not_after": _time(grant.not_after),
        "extensions": [{"oid": e.oid, "critical": e.critical, "value": _b64(e.value)} for e in grant.extensions],
    }


def parse_answer(output: bytes, expected: frozenset[str]) -> Answer:
    """Read what a program wrote, where only the statuses in `expected` carry a result.

    Raises UpstreamRejected, NotSent and UnknownResult where the program says so, AnswerError where it says nothing valid.
    """
    fields = _load(output)
    status = fields.get("status")
    match status:
        case "rejected":
            raise UpstreamRejected(_message(fields, "the CA refused the request"))
        case "not_sent":
            raise NotSent(_message(fields, "the CA did not take the request"), _retry_after(fields, default=30))
        case "unknown":
            raise UnknownResult(_message(fields, "the CA does not know what became of the request"))
        case str() if status not in expected:
            raise AnswerError('"status" is none of the answers to this operation')
        case "issued":
            return _issued(fields)
        case "pending":
            return UpstreamPending(_reference(fields, required=True) or "", _retry_after(fields))
        case "none":
            return Found.NONE
        case "revoked":
            return Found.REVOKED
        case _:
            raise AnswerError('"status" is missing')


def _load(output: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(output.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise AnswerError("it is not JSON") from error
    if not isinstance(fields, dict):
        raise AnswerError("it is not a JSON object")
    return fields


def _issued(fields: dict[str, Any]) -> UpstreamIssued:
    certificates = _certificates(fields, "certificate")
    if len(certificates) != 1:
        raise AnswerError('"certificate" must hold exactly one certificate; the others belong in "chain"')
    chain = _certificates(fields, "chain") if fields.get("chain") else ()
    if len(chain) > MAX_CHAIN:
        raise AnswerError(f'"chain" holds more than {MAX_CHAIN} certificates')
    return UpstreamIssued(certificates[0], chain, _reference(fields, required=False))


def _certificates(fields: dict[str, Any], name: str) -> tuple[bytes, ...]:
    """Read PEM text, or a list of PEM texts."""
    value = fields.get(name)
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text.isascii() for text in texts):
        raise AnswerError(f'"{name}" must be PEM text')
    try:
        return tuple(der for text in texts for der in pem_to_ders(str(text).encode("ascii")))
    except (Rejection, ValueError) as error:
        raise AnswerError(f'"{name}" is not valid PEM') from error


def _reference(fields: dict[str, Any], *, required: bool) -> str | None:
    value = fields.get("reference")
    if value is None and not required:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_REFERENCE or not value.isprintable():
        raise AnswerError(f'"reference" must be printable text of at most {MAX_REFERENCE} characters')
    return value


def _retry_after(fields: dict[str, Any], default: int | None = None) -> int:
    value = fields.get("retry_after", default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_RETRY_AFTER:
        raise AnswerError(f'"retry_after" must be a whole number of seconds from 1 to {MAX_RETRY_AFTER}')
    return value


def _message(fields: dict[str, Any], default: str) -> str:
    """Return the program's own words, which clients may be told, cut to one printable line."""
    value = fields.get("message")
    if not isinstance(value, str) or not value.strip():
        return default
    return "".join(c if c.isprintable() else " " for c in value.strip())[:MAX_MESSAGE]


def _head(operation: str, deadline: datetime) -> dict[str, Any]:
    return {"version": VERSION, "operation": operation, "deadline": _time(deadline)}


def _time(when: datetime) -> str:
    return when.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _pem(data: bytes, label: str) -> str:
    return der_to_pem(data, label).decode("ascii")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
