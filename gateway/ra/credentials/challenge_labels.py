"""What became of a signed challenge, in one word of a closed vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from gateway.errors import Reason
from gateway.model import Issued, Outcome, Pending, Rejected


class ChallengeLabel(StrEnum):
    """What became of a signed challenge; a closed set, which the log may say under its name."""

    SUCCESS = "success"
    SIGNATURE_INVALID = "signature_invalid"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_AUDIENCE = "wrong_audience"
    REPLAY = "replay"
    UNKNOWN_VERSION = "unknown_version"
    MALFORMED = "malformed"
    RATE_LIMITED = "rate_limited"
    CLAIM_MISMATCH = "claim_mismatch"
    COMPLIANCE_FAILED = "compliance_failed"


_LABELS: Mapping[Reason, ChallengeLabel] = MappingProxyType(
    {
        Reason.CREDENTIAL_SIGNATURE: ChallengeLabel.SIGNATURE_INVALID,
        Reason.CREDENTIAL_EXPIRED: ChallengeLabel.EXPIRED,
        Reason.CREDENTIAL_NOT_YET_VALID: ChallengeLabel.NOT_YET_VALID,
        Reason.CREDENTIAL_AUDIENCE: ChallengeLabel.WRONG_AUDIENCE,
        Reason.CREDENTIAL_USED: ChallengeLabel.REPLAY,
        Reason.CREDENTIAL_VERSION: ChallengeLabel.UNKNOWN_VERSION,
        Reason.CREDENTIAL_MALFORMED: ChallengeLabel.MALFORMED,
        Reason.RATE_LIMITED: ChallengeLabel.RATE_LIMITED,
        Reason.NAME_NOT_BOUND: ChallengeLabel.CLAIM_MISMATCH,
        Reason.NOT_COMPLIANT: ChallengeLabel.COMPLIANCE_FAILED,
    }
)


def challenge_label(outcome: Outcome) -> str:
    """Return what became of a signed challenge in one word; empty where it proved good and something else was refused."""
    match outcome:
        case Issued() | Pending():
            return ChallengeLabel.SUCCESS
        case Rejected(reason):
            return _LABELS.get(reason, "")
        case _:
            return ""
