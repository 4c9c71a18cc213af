"""A CMP server that does what a test says, over the gateway's own codec."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from gateway.asn1.cmp import OID_CA_CERTS
from gateway.ca.bootstrap import Hierarchy
from gateway.ca.cmp import backend
from gateway.ca.cmp.backend import CmpBackend
from gateway.ca.setup import Setup
from gateway.cmp import (
    Answer,
    AnswerBody,
    BodyType,
    CertAnswer,
    Confirmation,
    Enrollment,
    General,
    GeneralInfo,
    MacSender,
    Message,
    Nested,
    PkiConf,
    PkiStatus,
    Poll,
    PollAnswer,
    Revocations,
    Revoked,
    SharedSecret,
    StatusInfo,
)
from gateway.config.fields import SecretSource
from gateway.config.load import Sources
from gateway.config.remote_cas import CmpCA
from gateway.errors import Reason
from gateway.model import CertificateRequest, Grant, ProfileName, UpstreamCAName
from gateway.pki import cms, der
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import PrivateKey, generate_private_key, load_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.pki.password_mac import is_mac
from gateway.wire.cmp.answers import encode_answer
from gateway.wire.cmp.messages import decode_message
from gateway.wire.cmp.protection import Protector
from tests.unit.ca.answering import DROP, Asked, chain_of, http

NAME = UpstreamCAName("operator")
MEDIA = "application/pkixcmp"
SECRET, REFERENCE = b"known-to-both-of-us", "gateway-1"
ACCEPTED = StatusInfo(PkiStatus.ACCEPTED)
RA = (eku_oid("cmcRA"),)
_ENROLLMENTS = {BodyType.IR: BodyType.IP, BodyType.CR: BodyType.CP, BodyType.P10CR: BodyType.CP}


def certify(
    hierarchy: Hierarchy,
    public_key: bytes,
    subject: str,
    ekus: tuple[str, ...] = RA,
    usage: tuple[str, ...] = ("digitalSignature",),
) -> bytes:
    now = datetime.now(UTC).replace(microsecond=0)
    dates = (now - timedelta(hours=1), now + timedelta(days=30))
    grant = Grant(parse_name_text(subject).der, (), usage, ekus, *dates)
    issuer = Issuer.from_certificate(chain_of(hierarchy)[0], load_private_key(hierarchy.issuing.key))
    return build_certificate(issuer, new_serial(), grant, public_key)


@cache
def key_of(label: str, spec: str = "ec-p256") -> PrivateKey:
    return generate_private_key(spec)


@dataclass
class Server:
    """Issues all it is asked for; `waits`, `loses`, `says` and the like make it do something else."""

    hierarchy: Hierarchy
    implicit: bool = True
    waits: bool = False
    loses: frozenset[BodyType] = frozenset()
    """Messages whose answers are lost after they were dealt with."""
    says: dict[BodyType, AnswerBody] = field(default_factory=dict)
    """What it answers in place of what it would."""
    signer: tuple[bytes, PrivateKey] | None = None
    mute: bool = False
    """Its answers have no protection."""
    change: Callable[[Answer], Answer] = lambda answer: answer
    issued: dict[bytes, bytes] = field(default_factory=dict)
    count: int = 0
    seen: list[Message] = field(default_factory=list)
    wrapped: list[Message] = field(default_factory=list)

    @property
    def types(self) -> list[str]:
        return [message.type.operation for message in self.seen]

    def answer(self, asked: Asked) -> bytes:
        message = decode_message(asked.body)
        if isinstance(message.body, Nested):
            self.wrapped.append(message)
            message = decode_message(message.body.messages[0])
        assert message.body_problem is None, message.body_text
        self.seen.append(message)
        body = self._body(message)
        body = self.says.get(message.type, body)
        if message.type in self.loses:
            return DROP
        granted = self.implicit and isinstance(body, CertAnswer) and bool(message.header.implicit_confirm)
        made = Answer(body, self._sender(message), secrets.token_bytes(16), implicit_confirm=granted)
        data = encode_answer(message.header, self.change(made), self._protector(), datetime.now(UTC))
        return http(200, self._mute(data) if self.mute else data, MEDIA)

    def _protector(self) -> Protector:
        certificate, key = self.signer or (
            certify(self.hierarchy, public_key_der(key_of("server")), "CN=server"),
            key_of("server"),
        )
        return Protector.create(cms.Signer.create(certificate, key), (), strictness="lightweight")

    def _sender(self, message: Message) -> MacSender | None:
        protection = message.protection
        if protection is None or not is_mac(protection.algorithm):
            return None
        now = datetime.now(UTC)
        secret = SharedSecret("1", ProfileName("x"), message.header.sender_kid or b"", SECRET, now, now, "test")
        return MacSender(secret, protection.algorithm)

    def _mute(self, data: bytes) -> bytes:
        """Take protection, and what the header says of it, away."""
        message = der.content(der.SEQUENCE, data)
        (_, _, start, end), (_, body, _, body_end), *_ = der.elements(message)
        header = [message[at:stop] for tag, at, _, stop in der.elements(message, start, end) if tag != 0xA1]
        return der.sequence(der.sequence(*header), message[body:body_end])

    def _body(self, message: Message) -> AnswerBody:
        match message.body:
            case Enrollment(type_, (asked, *_)):
                return self._certificate(
                    _ENROLLMENTS[type_], asked.cert_req_id, message.header.transaction_id or b"", asked.request
                )
            case Poll(ids) if self.waits:
                return PollAnswer(ids[0], 7)
            case Poll(ids):
                certificate = self.issued[message.header.transaction_id or b""]
                return CertAnswer(BodyType.CP, ids[0], ACCEPTED, certificate)
            case Confirmation():
                return PkiConf()
            case Revocations():
                return Revoked((ACCEPTED,))
            case _:
                return General((GeneralInfo(OID_CA_CERTS, der.sequence(*chain_of(self.hierarchy))),))

    def _certificate(self, type_: BodyType, number: int, transaction: bytes, asked: CertificateRequest) -> CertAnswer:
        if transaction not in self.issued:
            subject, ekus = asked.subject.der, (eku_oid("clientAuth"),)
            now = datetime.now(UTC).replace(microsecond=0)
            grant = Grant(subject, asked.sans, ("digitalSignature",), ekus, now, now + timedelta(days=30))
            issuer = Issuer.from_certificate(chain_of(self.hierarchy)[0], load_private_key(self.hierarchy.issuing.key))
            self.issued[transaction] = build_certificate(issuer, new_serial(), grant, asked.public_key.der)
            self.count += 1
        if self.waits:
            return CertAnswer(type_, number, StatusInfo(PkiStatus.WAITING))
        return CertAnswer(type_, number, ACCEPTED, self.issued[transaction])


def rejection(reason: Reason, text: str = "not you") -> StatusInfo:
    return StatusInfo(PkiStatus.REJECTION, reason, text)


def secret(name: str) -> str:
    return str(SecretSource.model_validate({"file": name}, strict=False))


BY_SIGNATURE = {"type": "signature", "signer": {"certificate": "gateway.pem", "key": {"file": "gateway.key"}}}
BY_SECRET = {"type": "secret", "reference": REFERENCE, "secret": {"file": "secret"}}


def make(hierarchy: Hierarchy, url: str, files: dict[str, bytes] | None = None, **settings: Any) -> CmpBackend:
    """Return the backend, not started; raises ConfigurationFaults."""
    raw = {"type": "cmp", "url": url, "chain": ["ca.pem"], "auth": BY_SIGNATURE, **settings}
    config = CmpCA.model_validate(raw, strict=False)
    own = certify(hierarchy, public_key_der(key_of("gateway")), "CN=gateway")
    held = {secret("gateway.key"): serialize_private_key(key_of("gateway")), secret("secret"): SECRET, secret("empty"): b""}
    known = {"gateway.pem": der_to_pem(own), **(files or {})}
    setup = Setup(NAME, chain_of(hierarchy), Sources(Path("/etc/gw/profiles.yaml"), "profiles.yaml", b"", known, held))
    made = backend.create(config, setup)
    assert isinstance(made, CmpBackend)
    return made


def tampered(answer: Answer, **changes: object) -> Answer:
    return replace(answer, **changes)  # type: ignore[arg-type] # fields by name
