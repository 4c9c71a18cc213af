"""The audit trail: one HMAC chain of events under `audit.key`, and signed heads that show a cut tail."""

from gateway.audit.chain import (
    GENESIS,
    MAX_PROBLEMS,
    AuditHead,
    AuditReport,
    append_head,
    link,
    parse_audit_key,
    parse_heads,
    sign_head,
    verify_chain,
    verify_head,
)
from gateway.audit.events import AuditEvent, canonical_body

__all__ = [
    "GENESIS",
    "MAX_PROBLEMS",
    "AuditEvent",
    "AuditHead",
    "AuditReport",
    "append_head",
    "canonical_body",
    "link",
    "parse_audit_key",
    "parse_heads",
    "sign_head",
    "verify_chain",
    "verify_head",
]
