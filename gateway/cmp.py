"""The vocabulary of CMP's messages, frozen: headers, protection, bodies that ask and bodies that answer (RFC 9810 §5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from types import MappingProxyType

from gateway.errors import Reason
from gateway.model import (
    AskedValidity,
    CertificateRequest,
    Name,
    NameBinding,
    Outcome,
    ProfileName,
    RequestId,
    RevocationReason,
    SignerCertificate,
)

P10CR_ID = -1
"""certReqId of what answers a p10cr (RFC 9483 §4.1.4), and of a pollReq for a whole message (RFC 9810 §5.3.22)."""


class PkiStatus(IntEnum):
    """PKIStatus (RFC 9810 §5.2.3)."""

    ACCEPTED = 0
    GRANTED_WITH_MODS = 1
    REJECTION = 2
    WAITING = 3
    REVOCATION_WARNING = 4
    REVOCATION_NOTIFICATION = 5
    KEY_UPDATE_WARNING = 6


class BodyType(IntEnum):
    """PKIBody: the tag of the alternative (RFC 9810 §5.1.2)."""

    IR = 0
    IP = 1
    CR = 2
    CP = 3
    P10CR = 4
    POPDECC = 5
    POPDECR = 6
    KUR = 7
    KUP = 8
    KRR = 9
    KRP = 10
    RR = 11
    RP = 12
    CCR = 13
    CCP = 14
    CKUANN = 15
    CANN = 16
    RANN = 17
    CRLANN = 18
    PKICONF = 19
    NESTED = 20
    GENM = 21
    GENP = 22
    ERROR = 23
    CERTCONF = 24
    POLLREQ = 25
    POLLREP = 26

    @property
    def operation(self) -> str:
        """Its name in the RFC (`ir`, `certConf`), which logs, metrics, ledger and the renewal rule use."""
        return _OPERATIONS.get(self, self.name.lower())


_OPERATIONS: Mapping[BodyType, str] = MappingProxyType(
    {
        BodyType.CERTCONF: "certConf",
        BodyType.PKICONF: "pkiconf",
        BodyType.POLLREQ: "pollReq",
        BodyType.POLLREP: "pollRep",
    }
)


PATH_OPERATIONS: Mapping[str, BodyType] = MappingProxyType(
    {
        "initialization": BodyType.IR,
        "certification": BodyType.CR,
        "keyupdate": BodyType.KUR,
        "pkcs10": BodyType.P10CR,
        "revocation": BodyType.RR,
        "getcacerts": BodyType.GENM,
        "getrootupdate": BodyType.GENM,
        "getcertreqtemplate": BodyType.GENM,
        "getcrls": BodyType.GENM,
        "nested": BodyType.NESTED,
    }
)
"""What the last segment of a path says that its messages are (RFC 9483 §6.1, RFC 9811 §3.1)."""


@dataclass(frozen=True, slots=True)
class GeneralInfo:
    """One InfoTypeAndValue; `value` is the element, DER, None where it is absent (RFC 9810 §5.1.1, §5.3.19)."""

    oid: str
    value: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Header:
    """A PKIHeader (RFC 9810 §5.1.1). `sender` and `recipient` are GeneralNames, DER; a name where it is a directoryName.

    `implicit_confirm` is None where absent, False where its value is not NULL. `confirm_wait_time` and `cert_profiles` are what
    generalInfo says; `general_info` holds all of it as received. `message_time` None: absent.
    """

    pvno: int
    sender: bytes = field(repr=False)
    sender_name: Name | None
    recipient: bytes = field(repr=False)
    recipient_name: Name | None = None
    message_time: datetime | None = None
    sender_kid: bytes | None = None
    transaction_id: bytes | None = None
    sender_nonce: bytes | None = None
    recipient_nonce: bytes | None = None
    implicit_confirm: bool | None = None
    confirm_wait_time: datetime | None = None
    cert_profiles: tuple[str, ...] = ()
    general_info: tuple[GeneralInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Protection:
    """PKIProtection and what it covers: `covered` is the DER of ProtectedPart with header and body as received (§5.1.3)."""

    algorithm: bytes = field(repr=False)
    """AlgorithmIdentifier, DER."""
    covered: bytes = field(repr=False)
    value: bytes = field(repr=False)
    """The octets of the BIT STRING."""


class Possession(IntEnum):
    """How a CertReqMsg proves possession of its key: the tag of ProofOfPossession (RFC 4211 §4), and NONE where it is absent."""

    NONE = -1
    RA_VERIFIED = 0
    SIGNATURE = 1
    KEY_ENCIPHERMENT = 2
    KEY_AGREEMENT = 3


@dataclass(frozen=True, slots=True)
class PublicKeyMac:
    """PKMACValue of a poposkInput: proves that who knows the shared secret has the key (RFC 4211 §4.4).

    `covered` is the SubjectPublicKeyInfo, `algorithm` the AlgorithmIdentifier (PBMParameter), DER both.
    """

    algorithm: bytes = field(repr=False)
    covered: bytes = field(repr=False)
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CertId:
    """Names a certificate (RFC 4211 §6.5); `issuer` is its Name, DER."""

    issuer: bytes = field(repr=False)
    serial: int


@dataclass(frozen=True, slots=True)
class CertRequestMessage:
    """One CertReqMsg (RFC 4211 §3), or the PKCS#10 of a p10cr; a signature of its own was verified.

    `request.form` says which. Without a key in the template `wants_key` is True: the server is asked to draw one, of
    `wanted_key` (an AlgorithmIdentifier or SubjectPublicKeyInfo without key bits, DER) where it says so (RFC 9483 §4.1.6), and
    `request.public_key` is a placeholder. `authenticated_sender` and `public_key_mac` are what a poposkInput was signed with.
    """

    request: CertificateRequest
    cert_req_id: int
    possession: Possession
    possession_problem: str = ""
    """Why its signature proves nothing; empty: it does, or it has none. Refused as badPOP in the answer's own body."""
    authenticated_sender: bytes | None = field(default=None, repr=False)
    public_key_mac: PublicKeyMac | None = None
    encrypted_certificate: bool = False
    """subsequentMessage encrCert: the certificate is to come encrypted to its own key (RFC 9810 §5.2.8.3.2)."""
    wants_key: bool = False
    wanted_key: bytes | None = field(default=None, repr=False)
    old_cert_id: CertId | None = None
    issuer: bytes | None = field(default=None, repr=False)
    """The issuer that the template names, a Name in DER."""
    reg_token: str | None = field(default=None, repr=False)
    authenticator: str | None = field(default=None, repr=False)
    validity: AskedValidity | None = None
    """The times that the template asks for."""
    problem: Reason | None = None
    """What is wrong with the template itself: version, serialNumber or signingAlg set, a control that is not understood."""


@dataclass(frozen=True, slots=True)
class Enrollment:
    """The body of ir, cr, kur and p10cr."""

    type: BodyType
    requests: tuple[CertRequestMessage, ...]


@dataclass(frozen=True, slots=True)
class CertStatus:
    """One CertStatus of a certConf (RFC 9810 §5.3.18); `digest_algorithm` is hashAlg, an AlgorithmIdentifier in DER."""

    cert_hash: bytes
    cert_req_id: int
    accepted: bool = True
    text: str = ""
    digest_algorithm: bytes | None = None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The body of certConf; none: the client rejects what it got."""

    statuses: tuple[CertStatus, ...]


@dataclass(frozen=True, slots=True)
class RevocationDetails:
    """One RevDetails (RFC 9810 §5.3.9); what the template does not say is None.

    `reason` None with `revive` is removeFromCRL; `problem` says what is wrong with the entry extensions or the template.
    """

    issuer: bytes | None = field(default=None, repr=False)
    serial: int | None = None
    subject: bytes | None = field(default=None, repr=False)
    public_key: bytes | None = field(default=None, repr=False)
    reason: RevocationReason | None = RevocationReason.UNSPECIFIED
    revive: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Revocations:
    """The body of rr."""

    details: tuple[RevocationDetails, ...]


@dataclass(frozen=True, slots=True)
class Poll:
    """The body of pollReq; `P10CR_ID` asks for a p10cr's certificate, or for a whole message."""

    cert_req_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class General:
    """The body of genm and of genp."""

    infos: tuple[GeneralInfo, ...]


@dataclass(frozen=True, slots=True)
class Nested:
    """The body of nested: whole PKIMessages, DER (RFC 9810 §5.1.3.4)."""

    messages: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientError:
    """The body of an error that a client reports; public text of its own."""

    text: str


Request = Enrollment | Confirmation | Revocations | Poll | General | Nested | ClientError


@dataclass(frozen=True, slots=True)
class Message:
    """A PKIMessage that was read; nothing of it is verified but the signatures that its requests bring themselves.

    `body` None: of a type that is never a request here, or one that this server does not serve.
    """

    header: Header
    type: BodyType
    body: Request | None
    protection: Protection | None
    extra_certs: tuple[bytes, ...] = field(repr=False)
    digest: bytes
    """SHA-256 of ProtectedPart: the same for each sending of the same message."""
    body_problem: Reason | None = None
    """Why a body was not read whose header could be: it is refused in CMP's own words."""
    body_text: str = ""


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """A shared secret as it was made (`pki-gateway cmp-secret create`); `reference` is what senderKID names it by."""

    id: str
    profile: ProfileName
    reference: bytes
    secret: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime
    created_by: str
    max_uses: int = 1
    """Certificates that it is good for."""
    binding: NameBinding = field(default_factory=NameBinding)
    owner: str | None = None
    revoked_at: datetime | None = None
    uses: int = 0
    """Certificates that it was used for, where secrets are listed."""


@dataclass(frozen=True, slots=True)
class MacSender:
    """Whoever knows a shared secret; `parameters` is the AlgorithmIdentifier that the message came with, DER."""

    secret: SharedSecret
    parameters: bytes = field(repr=False)

    @property
    def identity(self) -> str:
        """What ledger, inventory and audit call it."""
        return f"cmp_secret:{self.secret.id}"


@dataclass(frozen=True, slots=True)
class SignatureSender:
    """Whoever holds the key of a certificate; whether that is trusted, and for what, is not said here."""

    signer: SignerCertificate
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    """The certificates that came beside it, DER."""


Sender = MacSender | SignatureSender


@dataclass(frozen=True, slots=True)
class StatusInfo:
    """PKIStatusInfo (RFC 9810 §5.2.3): `reason` becomes PKIFailureInfo, `text` is public."""

    status: PkiStatus
    reason: Reason | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class CertAnswer:
    """The body of ip, cp and kup with one CertResponse.

    `certificate` DER, or `encrypted_certificate` an EnvelopedData (or, to old clients, EncryptedValue) element in its place;
    `private_key` the EnvelopedData of a key that was drawn (RFC 9483 §4.1.6).
    """

    type: BodyType
    cert_req_id: int
    status: StatusInfo
    certificate: bytes | None = field(default=None, repr=False)
    encrypted_certificate: bytes | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)
    ca_pubs: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Revoked:
    """The body of rp, one status for each certificate that was named."""

    statuses: tuple[StatusInfo, ...]
    cert_ids: tuple[CertId, ...] = ()


@dataclass(frozen=True, slots=True)
class PkiConf:
    """The body of pkiconf."""


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """The body of pollRep."""

    cert_req_id: int
    check_after: int
    """Seconds."""
    text: str = ""


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """The body of error."""

    status: StatusInfo


@dataclass(frozen=True, slots=True)
class NestedAnswer:
    """The body of nested: each answer of a batch with the header that it answers (RFC 9483 §5.2.2.2)."""

    answers: tuple[tuple[Header, Answer], ...] = field(repr=False)


AnswerBody = CertAnswer | Revoked | PkiConf | General | PollAnswer | ErrorAnswer | NestedAnswer


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with, before it is protected.

    `protect_for` None: nobody proved who he is, the CMP signer protects it all the same (RFC 9483 §3.6.4). A MacSender gets a MAC
    under the same secret with a salt of its own, everybody else a signature. `extra_certs` go beside the signer's chain.
    """

    body: AnswerBody
    protect_for: Sender | None
    sender_nonce: bytes
    implicit_confirm: bool = False
    confirm_wait: timedelta | None = None
    extra_certs: tuple[bytes, ...] = field(default=(), repr=False)
    transaction_id: bytes | None = None
    """Where the request has none; None: the request's own (RFC 4210 §5.1.1)."""
    request_id: RequestId | None = None
    outcome: Outcome | None = field(default=None, repr=False)
    """What became of it, for log and metrics; None where it was done or told."""
