"""CMP's state machine on the world of the enrollment tests: real store, corridor, codecs and protection, a faulty CA."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, TypeVarTuple

from gateway.asn1.cmp import FailInfo
from gateway.cmp import Answer, BodyType, CertAnswer, GeneralInfo, SharedSecret
from gateway.config.cmp import CmpEndpoint
from gateway.config.credentials import VendorCertificateCredential as VendorConfig
from gateway.config.policy import PolicyConfig
from gateway.model import Grant, ProfileName, Protocol, RequestForm, RevocationReason
from gateway.pki.certificate import Issuer, build_certificate, der_to_pem, new_serial, parse_certificate, self_signed_ca
from gateway.pki.cms import Signer
from gateway.pki.crl import build_crl
from gateway.pki.crmf_writer import (
    RA_VERIFIED,
    encode_cert_req_msg,
    encode_cert_request,
    encode_cert_template,
    old_cert_id,
    prove_by_signature,
)
from gateway.pki.csr import build_csr
from gateway.pki.extensions import eku_oid
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.pki.trust import TrustAnchors
from gateway.ra.client_path import ClientCertificates
from gateway.ra.cmp.authority import CmpAuthority
from gateway.ra.credentials.cmp_secret import CmpSecretCredential
from gateway.ra.credentials.ra_certificate import RaCertificateCredential
from gateway.ra.credentials.vendor_certificate import VendorCertificateCredential
from gateway.ra.profile import CmpTerms, Profile, RenewalRule, Snapshot
from gateway.ra.renewal import RenewalCredential
from gateway.store.interfaces import CertificateFilter, InventoryRow
from gateway.wire.cmp import requests
from gateway.wire.cmp.answers import encode_answer
from gateway.wire.cmp.client import Identity, MacIdentity, Received, Sent, decode_answer, encode_message, pinned
from gateway.wire.cmp.messages import decode_message
from gateway.wire.cmp.protection import Protector, SignatureProtector
from tests.contract.store.rows import event
from tests.flow.enrollment.world import PROFILE, QUICK, FaultyCA, World

OTHER = ProfileName("other")
"""Another tenant's profile on the same gateway, with the same CA."""
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
FOURTH = ProfileName("closed")
"""A profile that does not open CMP."""
SOURCE = "192.0.2.7"
NONCE_KEY = b"n" * 32
DAY = timedelta(days=1)
MAKER, FOREIGN = "Maker", "Somebody"
RIGHTS = ("enroll", "update", "revoke", "forward")


class CmpCA(FaultyCA):
    """A CA that takes CRMF as well, and takes what it revokes."""

    accepts = frozenset(RequestForm)


@cache
def key_of(name: str) -> PrivateKey:
    """One key a name."""
    assert name
    return generate_private_key("ec-p256")


@cache
def ca_of(name: str) -> bytes:
    """The certificate of a CA beside the gateway's."""
    now = datetime.now(UTC).replace(microsecond=0)
    return self_signed_ca(key_of(name), f"CN={name}", now - 1000 * DAY, now + 4000 * DAY)


def certify(
    ca: str,
    key: str,
    subject: str,
    *,
    ekus: tuple[str, ...] = (),
    ended: bool = False,
    usages: tuple[str, ...] = ("digitalSignature",),
) -> bytes:
    """A certificate of such a CA."""
    now = datetime.now(UTC).replace(microsecond=0)
    end = now - DAY if ended else now + 300 * DAY
    grant = Grant(parse_name_text(subject).der, (), usages, tuple(map(eku_oid, ekus)), now - 30 * DAY, end)
    return build_certificate(Issuer.from_certificate(ca_of(ca), key_of(ca)), new_serial(), grant, public_key_der(key_of(key)))


def anchors(ca: str, *revoked: bytes) -> TrustAnchors:
    """Trust in such a CA, by its CRL."""
    now = datetime.now(UTC).replace(microsecond=0)
    issuer = Issuer.from_certificate(ca_of(ca), key_of(ca))
    entries = [(parse_certificate(c).serial, now - DAY, RevocationReason.KEY_COMPROMISE) for c in revoked]
    crl = build_crl(issuer, 1, now - DAY, now + 300 * DAY, entries)
    return TrustAnchors.parse(der_to_pem(ca_of(ca)), der_to_pem(crl, "X509 CRL"))


def signs(certificate: bytes, key: str, *chain: bytes) -> SignatureProtector:
    """Whoever holds a certificate and its key."""
    return SignatureProtector.create((certificate, *chain), key_of(key))


@dataclass
class Told:
    """An answer as it went over the wire, and as the state machine gave it."""

    sent: Sent
    received: Received
    answer: Answer

    @property
    def failed(self) -> frozenset[FailInfo]:
        return self.received.fail_info

    @property
    def type(self) -> BodyType:
        body = self.received.body
        return body.type if isinstance(body, CertAnswer) else BodyType(decode_type(body))

    @property
    def certificate(self) -> bytes:
        assert isinstance(self.received.body, CertAnswer)
        assert self.received.body.certificate is not None, self.received
        return self.received.body.certificate

    @property
    def issued(self) -> bool:
        body = self.received.body
        return isinstance(body, CertAnswer) and (body.certificate is not None or body.encrypted_certificate is not None)


_TYPES = {
    "Revoked": BodyType.RP,
    "PkiConf": BodyType.PKICONF,
    "General": BodyType.GENP,
    "PollAnswer": BodyType.POLLREP,
    "ErrorAnswer": BodyType.ERROR,
    "Nested": BodyType.NESTED,
}


def decode_type(body: object) -> BodyType:
    return _TYPES[type(body).__name__]


@dataclass
class Tenant:
    """What a profile lets CMP clients do."""

    name: ProfileName
    config: dict[str, Any] = field(default_factory=dict)
    ras: tuple[tuple[str, frozenset[str]], ...] = ()
    """Subjects of registration authorities, each with what it may do."""
    devices: frozenset[str] | None = frozenset({"SN1"})
    makers: bool = True
    secrets: bool = True
    renewal: dict[str, Any] | None = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, Any] = field(default_factory=dict)


class CmpWorld(World):
    """A gateway with two tenants, their registration authorities, makers and shared secrets."""

    def __init__(self, folder: Path, ca: CmpCA) -> None:
        super().__init__(folder, ca, timing=QUICK)
        self.corp = Tenant(PROFILE, ras=(("CN=ra1", frozenset(RIGHTS)),))
        self.other = Tenant(OTHER, ras=(("CN=ra2", frozenset(RIGHTS)),))
        self.revoked: tuple[bytes, ...] = ()
        """Of makers' and registration authorities' certificates."""
        now = datetime.now(UTC).replace(microsecond=0)
        root = self_signed_ca(key_of("cmp root"), "CN=CMP Root", now - DAY, now + 300 * DAY)
        grant = Grant(parse_name_text("CN=cmp signer").der, (), ("digitalSignature",), (), now - DAY, now + 30 * DAY)
        issuer = Issuer.from_certificate(root, key_of("cmp root"))
        self.signer = build_certificate(issuer, new_serial(), grant, public_key_der(key_of("cmp signer")))
        self.protector = Protector.create(Signer.create(self.signer, key_of("cmp signer")), (), strictness="rfc4210")

    async def begin(self) -> None:
        self.ra = await self.start()
        self.cmp = CmpAuthority(self.ra, self.store, self.store, self.clock, (NONCE_KEY,), decode_message, Derivations())

    def endpoint(self, tenant: Tenant) -> CmpEndpoint:
        signer = {"certificate": "cmp.pem", "key": {"file": "cmp.key"}}
        return CmpEndpoint.model_validate({"signer": signer, **tenant.config})

    def profile(self, tenant: Tenant) -> Profile:
        rule = None if tenant.renewal is None else self._rule(tenant)
        renews = None if rule is None else RenewalCredential(rule, self.store)
        clients = ClientCertificates(anchors("RA CA", *self.revoked), self.store, frozenset())
        credentials: list[Any] = [RaCertificateCredential(clients, (subject,), may, renews) for subject, may in tenant.ras]
        if renews is not None:
            credentials.append(renews)
        if tenant.secrets:
            credentials.append(CmpSecretCredential(tenant.name))
        if tenant.makers:
            config = VendorConfig.model_validate(
                {"type": "vendor_certificate", "anchors": "makers.pem", "names": "any", "any_device": tenant.devices is None}
            )
            makers = ClientCertificates(anchors(MAKER, *self.revoked), self.store, frozenset())
            credentials.append(VendorCertificateCredential(makers, config, tenant.devices))
        settings: dict[str, Any] = {
            "name": tenant.name,
            "endpoints": frozenset({Protocol.CMP}),
            "upstream_ca": self.ca,
            "credentials": tuple(credentials),
            "policy": PolicyConfig.model_validate({"subject": {"allow_empty": True}}),
            "renewal": rule,
            "per_requester": None,
            "per_profile": None,
            "manual_approval": False,
            "retransmission_window": timedelta(hours=1),
            "cmp": CmpTerms(self.endpoint(tenant), self.ca.chain(), **tenant.terms),
        }
        return Profile(**(settings | tenant.options))

    def _rule(self, tenant: Tenant) -> RenewalRule:
        values: dict[str, Any] = {
            "from_profiles": frozenset({tenant.name}),
            "messages": frozenset({"kur"}),
            "window": None,
            "grace": timedelta(0),
        }
        return RenewalRule(**(values | (tenant.renewal or {})))

    @property
    def snapshot(self) -> Snapshot:
        profiles = {tenant.name: self.profile(tenant) for tenant in (self.corp, self.other)}
        profiles[FOURTH] = replace(profiles[PROFILE], name=FOURTH, endpoints=frozenset({Protocol.SCEP}), cmp=None)
        return Snapshot(1, MappingProxyType(profiles), MappingProxyType({self.ca.name: self.ca}))

    async def secret(
        self, reference: str = "ref", profile: ProfileName = PROFILE, *, ttl: timedelta = DAY, **values: Any
    ) -> MacIdentity:
        """Make a shared secret; `ttl` may have passed."""
        text = secrets.token_hex(16).encode()
        now = self.clock()
        made = SharedSecret(
            id=f"id-{reference}-{profile}",
            profile=profile,
            reference=reference.encode(),
            secret=text,
            created_at=now - 2 * DAY,
            expires_at=now + ttl,
            created_by="test",
            **values,
        )
        assert await self.store.add_secret(made, event("cmp_secret.created"))
        return MacIdentity(reference.encode(), text)

    async def end_secret(self, reference: str = "ref", profile: ProfileName = PROFILE) -> None:
        assert await self.store.revoke_secret(f"id-{reference}-{profile}", self.clock(), event("cmp_secret.revoked"))

    async def send(
        self,
        body: bytes,
        identity: Identity | None,
        *,
        profile: ProfileName = PROFILE,
        path: str | None = None,
        tamper: Callable[[bytes], bytes] | None = None,
        **header: Any,
    ) -> Told:
        """Send one message and verify its answer as a client does."""
        sent = encode_message(body, identity, **({"now": self.clock()} | header))
        return await self.deliver(sent, identity, profile=profile, path=path, tamper=tamper)

    async def deliver(
        self,
        sent: Sent,
        identity: Identity | None,
        *,
        profile: ProfileName = PROFILE,
        path: str | None = None,
        tamper: Callable[[bytes], bytes] | None = None,
    ) -> Told:
        """Send a message that was made before."""
        message = decode_message(tamper(sent.message) if tamper else sent.message)
        answer = await self.cmp.answer(self.snapshot, profile, message, path, SOURCE)
        data = encode_answer(message.header, answer, self.protector, self.clock())
        secret = identity.secret if isinstance(identity, MacIdentity) else None
        received = decode_answer(data, sent, secret=secret, trusts=pinned(self.signer))
        assert received.protected
        return Told(sent, received, answer)

    async def follow(self, told: Told, body: bytes, identity: Identity | None, **header: Any) -> Told:
        """Go on with a transaction."""
        values = {
            "transaction_id": told.sent.transaction_id,
            "recipient_nonce": told.received.header.sender_nonce,
            "earlier_nonces": (told.sent.sender_nonce,),
        }
        return await self.send(body, identity, **(values | header))

    async def confirm(self, told: Told, identity: Identity | None, **header: Any) -> Told:
        return await self.follow(told, requests.cert_conf(told.certificate), identity, **header)

    async def device(self, name: str = "device", profile: ProfileName = PROFILE, reference: str = "") -> SignatureProtector:
        """Enroll and confirm by a shared secret of its own; the device then signs with its certificate."""
        identity = await self.secret(reference or f"ref-{name}", profile)
        told = await self.send(ir(name), identity, profile=profile)
        assert (await self.confirm(told, identity, profile=profile)).type is BodyType.PKICONF
        return signs(told.certificate, name)

    async def inventory(self) -> tuple[InventoryRow, ...]:
        return await self.store.list_certificates(CertificateFilter())

    async def certificates(self) -> dict[bytes, bool]:
        """Every certificate that there is, and whether it is revoked."""
        return {row.sha256: row.revoked_at is not None for row in await self.inventory()}


class Derivations:
    """Derives at once, and notes for whom."""

    def __init__(self) -> None:
        self.sources: list[str] = []

    async def begin(self, source: str, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        self.sources.append(source)
        return work(*arguments)


def cert_req_msg(
    name: str = "device",
    key: str = "",
    *,
    cert_req_id: int = 0,
    subject: str | None = None,
    proof: bytes | str | None = "signature",
    signed_by: str = "",
    old: bytes | None = None,
    **template: Any,
) -> bytes:
    """A CertReqMsg; `old` is the certificate that it updates, `proof` "signature", RA_VERIFIED, another one or None."""
    values: dict[str, Any] = {
        "subject": parse_name_text(subject if subject is not None else f"CN={name}").der,
        "public_key": public_key_der(key_of(key or name)),
    }
    controls: tuple[bytes, ...] = ()
    if old is not None:
        parsed = parse_certificate(old)
        controls = (old_cert_id(parsed.issuer_der, parsed.serial),)
    request = encode_cert_request(cert_req_id, encode_cert_template(**(values | template)), controls)
    if proof == "signature":
        proof = prove_by_signature(request, key_of(signed_by or key or name))
    assert not isinstance(proof, str)
    return encode_cert_req_msg(request, proof)


def ir(name: str = "device", key: str = "", **changes: Any) -> bytes:
    return requests.enrollment(BodyType.IR, [cert_req_msg(name, key, **changes)])


def cr(name: str = "device", key: str = "", **changes: Any) -> bytes:
    return requests.enrollment(BodyType.CR, [cert_req_msg(name, key, **changes)])


def kur(name: str = "device", key: str = "new key", **changes: Any) -> bytes:
    return requests.enrollment(BodyType.KUR, [cert_req_msg(name, key, **changes)])


def p10cr(name: str = "device", key: str = "") -> bytes:
    return requests.p10cr(build_csr(key_of(key or name), parse_name_text(f"CN={name}").der))


def rr(certificate: bytes, reason: RevocationReason | None = RevocationReason.KEY_COMPROMISE) -> bytes:
    parsed = parse_certificate(certificate)
    return requests.rr(parsed.issuer_der, parsed.serial, reason)


def genm(oid: str, value: bytes | None = None) -> bytes:
    return requests.genm((GeneralInfo(oid, value),))


def authority(subject: str = "CN=ra1", key: str = "ra", **changes: Any) -> SignatureProtector:
    """A registration authority's identity."""
    return signs(certify("RA CA", key, subject, ekus=("cmcRA",), **changes), key)


def maker_device(number: str = "SN1", key: str = "vendor", **changes: Any) -> SignatureProtector:
    """A device with its maker's certificate."""
    return signs(certify(MAKER, key, f"CN=device,serialNumber={number}", **changes), key)


__all__ = ["RA_VERIFIED"]
