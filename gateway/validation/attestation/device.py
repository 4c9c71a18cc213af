"""device-attest-01 of one profile: which formats it takes, and whether an attestation is about the identifier (§5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import IdentifierType
from gateway.pki.trust import TrustAnchors
from gateway.validation.attestation.apple import judge_apple
from gateway.validation.attestation.evidence import Evidence
from gateway.validation.attestation.statement import Claim, Statement, decode_payload
from gateway.validation.attestation.step import judge_step
from gateway.validation.attestation.tpm import judge_tpm
from gateway.validation.interfaces import Validated, ValidationFailed, ValidationTask
from gateway.wire.acme.challenges import key_authorization

_JUDGES: Mapping[str, Callable[[Statement, TrustAnchors, Claim], Evidence]] = MappingProxyType(
    {"apple": judge_apple, "tpm": judge_tpm, "step": judge_step}
)
_CLAIMS = MappingProxyType(
    {IdentifierType.PERMANENT_IDENTIFIER: "permanent_identifier", IdentifierType.HARDWARE_MODULE: "hardware_module"}
)


class DeviceAttestation:
    """Judges attestations; a format without roots is refused, and nobody's roots are built in."""

    __slots__ = ("_roots",)

    def __init__(self, apple: TrustAnchors | None, tpm: TrustAnchors | None, step: TrustAnchors | None) -> None:
        roots = {"apple": apple, "tpm": tpm, "step": step}
        self._roots = MappingProxyType({name: anchors for name, anchors in roots.items() if anchors is not None})

    def judge(self, task: ValidationTask, now: datetime) -> Validated:
        """Return the attested key and what was attested beside it.

        No I/O; a few milliseconds. Raises ValidationFailed BAD_ATTESTATION, which another attempt cannot mend.
        """
        try:
            statement = decode_payload(task.payload)
            evidence = self._judge_statement(statement, task, now)
            proved = _match(evidence, task)
        except MalformedMessage as error:
            raise ValidationFailed(Reason.BAD_ATTESTATION, error.detail, error.cause, final=True) from None
        except Rejection as error:
            # A certificate or a key that cannot be used is told as that of an attestation.
            detail = error.detail if error.reason is Reason.BAD_ATTESTATION else f"the attestation cannot be used: {error.detail}"
            raise ValidationFailed(Reason.BAD_ATTESTATION, detail, error.cause, final=True) from None
        return Validated(evidence.key, MappingProxyType({"format": statement.format, **evidence.claims, **proved}))

    def _judge_statement(self, statement: Statement, task: ValidationTask, now: datetime) -> Evidence:
        anchors, judge = self._roots.get(statement.format), _JUDGES.get(statement.format)
        if anchors is None or judge is None:
            taken = ", ".join(self._roots) or "none"
            raise Rejection(Reason.BAD_ATTESTATION, f"attestations of this format are not taken here; those that are: {taken}")
        return judge(statement, anchors, Claim(task, key_authorization(task.token, task.thumbprint), now))


def _match(evidence: Evidence, task: ValidationTask) -> dict[str, str]:
    """Say which identifier was proved: octet for octet what was attested, for serial numbers may differ by case alone (§3.2)."""
    kind, value = task.identifier.type, task.identifier.value
    if kind not in _CLAIMS:
        raise Rejection(Reason.BAD_ATTESTATION, "a device attests no names of hosts")
    attested = evidence.permanent if kind is IdentifierType.PERMANENT_IDENTIFIER else evidence.modules
    if not attested:
        raise Rejection(Reason.BAD_ATTESTATION, f"the attestation has no {kind} of the device")
    if value not in attested:
        raise Rejection(Reason.BAD_ATTESTATION, f"the attestation is about another {kind} than the order's")
    return {_CLAIMS[kind]: value}
