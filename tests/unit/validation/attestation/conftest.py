"""One server that trusts three makers, and one that is like each of them but is not trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from gateway.errors import Reason
from gateway.model import ChallengeType, Identifier, IdentifierType
from gateway.pki.keys import PrivateKey, public_key_der
from gateway.validation.attestation import DeviceAttestation
from gateway.validation.interfaces import Validated, ValidationFailed, ValidationTask
from tests.attesting import NOW, Maker, envelope

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ"
THUMBPRINT = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
KEY_AUTHORIZATION = f"{TOKEN}.{THUMBPRINT}"


@dataclass(frozen=True)
class Bench:
    """Judges attestations for one challenge."""

    apple: Maker = field(default_factory=lambda: Maker.create("Fruit"))
    tpm: Maker = field(default_factory=lambda: Maker.create("Chips"))
    step: Maker = field(default_factory=lambda: Maker.create("Keys"))

    @property
    def attestation(self) -> DeviceAttestation:
        return DeviceAttestation(self.apple.anchors, self.tpm.anchors, self.step.anchors)

    def task(self, value: str, attested: object, kind: IdentifierType, payload: Mapping[str, object] | None) -> ValidationTask:
        return ValidationTask(
            ChallengeType.DEVICE_ATTEST_01,
            Identifier(kind, value),
            TOKEN,
            THUMBPRINT,
            "https://acme.test/acct/1",
            "192.0.2.1",
            payload=envelope(attested) if payload is None else payload,
        )

    def judge(
        self,
        value: str,
        attested: object,
        kind: IdentifierType = IdentifierType.PERMANENT_IDENTIFIER,
        *,
        at: datetime = NOW,
        payload: Mapping[str, object] | None = None,
    ) -> Validated:
        return self.attestation.judge(self.task(value, attested, kind, payload), at)

    def refusal(
        self,
        value: str,
        attested: object,
        kind: IdentifierType = IdentifierType.PERMANENT_IDENTIFIER,
        *,
        at: datetime = NOW,
        payload: Mapping[str, object] | None = None,
    ) -> str:
        """Return what the client is told; every refusal is final and of one reason."""
        with pytest.raises(ValidationFailed) as caught:
            self.judge(value, attested, kind, at=at, payload=payload)
        assert caught.value.reason is Reason.BAD_ATTESTATION
        assert caught.value.final
        return caught.value.detail


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench()


def key_hash(key: PrivateKey) -> bytes:
    return hashlib.sha256(public_key_der(key)).digest()
