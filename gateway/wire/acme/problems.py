"""From Reason to problem document: its type and HTTP status (RFC 8555 §6.7, RFC 7807, RFC 9773 §7.4)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from gateway.acme import Problem
from gateway.errors import Reason
from gateway.model import Identifier

MEDIA_PROBLEM = "application/problem+json"
NAMESPACE = "urn:ietf:params:acme:error:"
MAX_DETAIL = 500
BAD_NONCE_DETAIL = "JWS has an invalid anti-replay nonce"
"""acme.sh tries again after this sentence, and no other."""


class Spelling(NamedTuple):
    """How a reason is spelled: the type, without its namespace, and the status where it is the whole answer."""

    type: str
    status: int


SPELLINGS: Mapping[Reason, Spelling] = MappingProxyType(
    {
        # the message
        Reason.MALFORMED: Spelling("malformed", 400),
        Reason.TOO_LARGE: Spelling("malformed", 413),
        Reason.UNSUPPORTED_MESSAGE: Spelling("malformed", 400),
        Reason.UNSUPPORTED_ALGORITHM: Spelling("badSignatureAlgorithm", 400),
        Reason.BAD_SIGNATURE: Spelling("malformed", 400),
        Reason.DECRYPTION_FAILED: Spelling("malformed", 400),
        Reason.BAD_PROOF_OF_POSSESSION: Spelling("badCSR", 400),
        Reason.BAD_TIME: Spelling("malformed", 400),
        Reason.BAD_NONCE: Spelling("badNonce", 400),
        # where it was addressed to
        Reason.UNKNOWN_PROFILE: Spelling("malformed", 404),
        Reason.ENDPOINT_CLOSED: Spelling("malformed", 404),
        Reason.UNKNOWN_TRANSACTION: Spelling("malformed", 404),
        Reason.UNKNOWN_CERTIFICATE: Spelling("malformed", 404),
        # who asked
        Reason.CREDENTIAL_MISSING: Spelling("unauthorized", 403),
        Reason.CREDENTIAL_INVALID: Spelling("unauthorized", 403),
        Reason.CREDENTIAL_EXPIRED: Spelling("unauthorized", 403),
        Reason.CREDENTIAL_USED: Spelling("unauthorized", 403),
        Reason.CREDENTIAL_REVOKED: Spelling("unauthorized", 403),
        Reason.CREDENTIAL_MALFORMED: Spelling("malformed", 400),
        Reason.CREDENTIAL_SIGNATURE: Spelling("unauthorized", 403),
        Reason.CREDENTIAL_NOT_YET_VALID: Spelling("unauthorized", 403),
        Reason.CREDENTIAL_AUDIENCE: Spelling("unauthorized", 403),
        Reason.CREDENTIAL_VERSION: Spelling("unauthorized", 403),
        Reason.RENEWAL_REFUSED: Spelling("unauthorized", 403),
        Reason.NOT_AUTHORIZED: Spelling("unauthorized", 403),
        Reason.NOT_COMPLIANT: Spelling("unauthorized", 403),
        Reason.SIGNER_NOT_TRUSTED: Spelling("unauthorized", 403),
        Reason.UNKNOWN_ACCOUNT: Spelling("accountDoesNotExist", 400),
        Reason.ACCOUNT_DEACTIVATED: Spelling("unauthorized", 401),
        Reason.ACCOUNT_KEY: Spelling("badPublicKey", 400),
        Reason.ACCOUNT_KEY_IN_USE: Spelling("malformed", 409),
        Reason.EXTERNAL_ACCOUNT_REQUIRED: Spelling("externalAccountRequired", 403),
        Reason.TERMS_NOT_AGREED: Spelling("userActionRequired", 403),
        Reason.CONTACT_INVALID: Spelling("invalidContact", 400),
        Reason.CONTACT_UNSUPPORTED: Spelling("unsupportedContact", 400),
        # what was asked for: names are judged before anything is proved, the rest with the CSR
        Reason.UNSUPPORTED_IDENTIFIER: Spelling("unsupportedIdentifier", 400),
        Reason.POLICY_SAN: Spelling("rejectedIdentifier", 403),
        Reason.UNKNOWN_ACME_PROFILE: Spelling("invalidProfile", 400),
        Reason.POLICY_VALIDITY: Spelling("malformed", 400),
        Reason.ORDER_NOT_READY: Spelling("orderNotReady", 403),
        Reason.ALREADY_REPLACED: Spelling("alreadyReplaced", 409),
        Reason.BAD_CSR: Spelling("badCSR", 400),
        Reason.NAME_NOT_BOUND: Spelling("badCSR", 400),
        Reason.POLICY_KEY: Spelling("badCSR", 400),
        Reason.POLICY_SUBJECT: Spelling("badCSR", 400),
        Reason.POLICY_KEY_USAGE: Spelling("badCSR", 400),
        Reason.POLICY_EKU: Spelling("badCSR", 400),
        Reason.POLICY_EXTENSION: Spelling("badCSR", 400),
        Reason.DENIED: Spelling("unauthorized", 403),
        Reason.ALREADY_REVOKED: Spelling("alreadyRevoked", 400),
        Reason.BAD_REVOCATION_REASON: Spelling("badRevocationReason", 400),
        # what was to be proved
        Reason.VALIDATION_DNS: Spelling("dns", 400),
        Reason.VALIDATION_CONNECTION: Spelling("connection", 400),
        Reason.VALIDATION_TLS: Spelling("tls", 400),
        Reason.VALIDATION_INCORRECT: Spelling("incorrectResponse", 403),
        Reason.VALIDATION_UNAUTHORIZED: Spelling("unauthorized", 403),
        Reason.VALIDATION_CAA: Spelling("caa", 403),
        Reason.BAD_ATTESTATION: Spelling("badAttestationStatement", 400),
        # CMP's own, which no request of this protocol comes to
        Reason.BAD_MESSAGE_CHECK: Spelling("malformed", 400),
        Reason.WRONG_INTEGRITY: Spelling("malformed", 400),
        Reason.BAD_RECIPIENT_NONCE: Spelling("malformed", 400),
        Reason.UNSUPPORTED_VERSION: Spelling("malformed", 400),
        Reason.BAD_TEMPLATE: Spelling("malformed", 400),
        Reason.INFORMATION_MISSING: Spelling("malformed", 400),
        Reason.TRANSACTION_IN_USE: Spelling("malformed", 400),
        Reason.ALREADY_CONFIRMED: Spelling("malformed", 400),
        # how much
        Reason.RATE_LIMITED: Spelling("rateLimited", 429),
        Reason.OVERLOADED: Spelling("serverInternal", 503),
        # beyond the client
        Reason.UPSTREAM_REJECTED: Spelling("unauthorized", 403),
        Reason.UPSTREAM_UNAVAILABLE: Spelling("serverInternal", 503),
        Reason.UPSTREAM_TIMEOUT: Spelling("serverInternal", 503),
        Reason.UPSTREAM_MISMATCH: Spelling("serverInternal", 500),
        Reason.STORE_UNAVAILABLE: Spelling("serverInternal", 503),
        Reason.INTERNAL: Spelling("serverInternal", 500),
    }
)

_COMPOUND = Spelling("compound", 403)
"""Several identifiers, refused for different reasons."""


def spell(reason: Reason, identifiers: Sequence[tuple[Identifier, Reason, str]] = ()) -> Spelling:
    """Return type and status for `reason`, or for what is wrong with single identifiers, where that says more."""
    types = {SPELLINGS[single].type for _, single, _ in identifiers}
    if len(types) > 1:
        return _COMPOUND
    return SPELLINGS[identifiers[0][1]] if identifiers else SPELLINGS[reason]


def problem_of(
    reason: Reason,
    detail: str,
    *,
    status: int | None = None,
    identifiers: Sequence[tuple[Identifier, Reason, str]] = (),
    algorithms: Sequence[str] = (),
    instance: str | None = None,
) -> dict[str, object]:
    """Return a problem document as JSON members, flat ones first.

    `status` stands in place of the reason's own; None of a problem inside an object. A single refused identifier is named by a
    subproblem too, because the document itself never names one (RFC 8555 §6.7.1).
    """
    spelled = spell(reason, identifiers)
    document: dict[str, object] = {"type": NAMESPACE + spelled.type, "detail": sentence(detail)}
    document["status"] = spelled.status if status is None else status
    if instance is not None:
        document["instance"] = instance
    if algorithms:
        document["algorithms"] = list(algorithms)
    if identifiers:
        document["subproblems"] = [_subproblem(*single) for single in identifiers]
    return document


def encode_problem(
    reason: Reason,
    detail: str,
    *,
    status: int | None = None,
    identifiers: Sequence[tuple[Identifier, Reason, str]] = (),
    algorithms: Sequence[str] = (),
    instance: str | None = None,
) -> tuple[int, bytes]:
    """Return HTTP status and body of a refusal, of media type `MEDIA_PROBLEM`; see `problem_of`."""
    document = problem_of(reason, detail, status=status, identifiers=identifiers, algorithms=algorithms, instance=instance)
    code = spell(reason, identifiers).status if status is None else status
    return code, json.dumps(document, separators=(",", ":")).encode("ascii")


def stored_problem(problem: Problem) -> dict[str, object]:
    """Return the problem of an order or of a challenge, as it stands inside the object."""
    return problem_of(problem.reason, problem.detail, identifiers=problem.identifiers)


def _subproblem(identifier: Identifier, reason: Reason, detail: str) -> dict[str, object]:
    return {
        "type": NAMESPACE + SPELLINGS[reason].type,
        "detail": sentence(detail),
        "identifier": {"type": identifier.type.value, "value": identifier.value},
    }


def sentence(detail: str) -> str:
    """Return public text as one printable line."""
    return "".join(c if c.isprintable() else " " for c in detail[:MAX_DETAIL])
