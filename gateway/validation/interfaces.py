"""What proves control of an identifier, and what an attempt to prove it ends with (RFC 8555 §8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

from gateway.errors import Reason
from gateway.model import ChallengeType, Identifier


@dataclass(frozen=True, slots=True)
class ValidationTask:
    """One challenge to be checked.

    `identifier` is the authorization's, never with `*.`; `thumbprint` that of the account's key (RFC 7638, base64url) at the time
    of the attempt, `account_url` as the account's own Location, `source` the address that the account asked from. `payload` is
    what the client sent with the challenge (device-attest-01), already bounded. `wildcard` and `subdomains` say what it will
    stand for.
    """

    type: ChallengeType
    identifier: Identifier
    token: str
    thumbprint: str
    account_url: str
    source: str
    wildcard: bool = False
    subdomains: bool = False
    payload: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}), repr=False)


@dataclass(frozen=True, slots=True)
class Validated:
    """Control is proved.

    `attested_key` is the SHA-256 of the attested SubjectPublicKeyInfo; `claims` what the device attested.
    """

    attested_key: bytes | None = None
    claims: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    by_challenge: bool = True
    """False where nothing had to be shown: it serves the orders of now, and none when something has to be."""


class ValidationFailed(Exception):
    """Control is not proved.

    `reason` is one of the VALIDATION_* reasons, CAA or BAD_ATTESTATION; `detail` is public and never echoes what was fetched;
    `cause` is for the log. `final`: trying again cannot help.
    """

    def __init__(self, reason: Reason, detail: str, cause: str = "", *, final: bool = False) -> None:
        super().__init__(f"{reason}: {cause or detail}")
        self.reason = reason
        self.detail = detail
        self.cause = cause or detail
        self.final = final


class Validation(Protocol):
    """How one profile has control of identifiers proved, compiled from its configuration."""

    @property
    def asks_nobody(self) -> bool:
        """Whether `validate` decides by itself, so that there is nothing to wait for, and nothing to try again."""

    async def validate(self, task: ValidationTask, now: datetime) -> Validated:
        """Make one attempt; bounded in time, size and number of connections. Raises ValidationFailed.

        CAA records are judged as well, where the profile has it so.
        """

    async def check_caa(
        self, identifier: Identifier, challenge: ChallengeType | None, account_url: str, *, wildcard: bool
    ) -> None:
        """Judge CAA records of a DNS name as the profile says (RFC 8659, RFC 8657).

        Raises ValidationFailed: VALIDATION_CAA where they forbid it, VALIDATION_DNS where they cannot be looked up.
        `challenge` is None for a name that a trust mode stands for.
        """

    async def vouch(self, identifier: Identifier, source: str, *, account: str = "", external_account: str | None = None) -> bool:
        """Say whether a trust mode without challenges (prevalidated names, client address, webhook) stands for the name.

        `identifier` is as it was ordered, a wildcard with its `*.`; False: it is to be proved by a challenge. Raises
        ValidationFailed where the name is refused.
        """
