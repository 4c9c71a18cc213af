"""Requests and policies for tests of single rules."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.config.policy import PolicyConfig
from gateway.model import CertificateRequest, CredentialKind, Decision, PublicKey, Requester, RequestForm, SanKind, SubjectAltName
from gateway.pki.extensions import make_san
from gateway.pki.names import parse_name_text
from gateway.ra.policy import decide
from gateway.ra.policy.subject import ComparableName

EC = PublicKey(b"ec", b"e" * 32, "ec", 256, "P-256")
RSA = PublicKey(b"rsa", b"r" * 32, "rsa", 2048)
REQUEST = CertificateRequest(RequestForm.PKCS10, b"der", b"d" * 32, parse_name_text("CN=gate-1"), EC)
REQUESTER = Requester("one_time:1", CredentialKind.ONE_TIME)
OPEN: dict[str, Any] = {
    "subject": {"patterns": {"CN": "[a-z0-9.-]+"}},
    "san": {"dns": {"patterns": [r"([a-z0-9-]+\.)*corp\.example"]}},
}


@dataclass(frozen=True)
class Bench:
    """Judges one request that differs from a plain one by what a test names."""

    now: datetime = datetime(2027, 3, 4, 5, 6, 7, 890, tzinfo=UTC)
    ec: PublicKey = EC
    rsa: PublicKey = RSA
    requester: Requester = REQUESTER

    def policy(self, **sections: Any) -> PolicyConfig:
        return PolicyConfig.model_validate(OPEN | sections, strict=False)

    def request(self, subject: str = "CN=gate-1", *sans: SubjectAltName | tuple[str, str], **fields: Any) -> CertificateRequest:
        names = tuple(san if isinstance(san, SubjectAltName) else make_san(SanKind(san[0]), san[1]) for san in sans)
        return replace(REQUEST, subject=parse_name_text(subject), sans=names, **fields)

    def decide(
        self,
        policy: PolicyConfig | None = None,
        request: CertificateRequest = REQUEST,
        requester: Requester = REQUESTER,
        ca_not_after: datetime | None = None,
        ca_not_before: datetime | None = None,
        reserved_names: frozenset[ComparableName] = frozenset(),
    ) -> Decision:
        return decide(
            policy or self.policy(),
            request,
            requester,
            self.now,
            ca_not_after,
            ca_not_before=ca_not_before,
            reserved_names=reserved_names,
        )


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench()
