"""Which key is drawn for a CMP client and who can open it; certificates for keys that cannot sign (RFC 9483 §4.1.6)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pyasn1.codec.der.decoder import decode
from pyasn1_alt_modules import rfc9480

from gateway.cmp import CertRequestMessage, Header, MacSender, Possession, Sender, SharedSecret, SignatureSender
from gateway.config.cmp import CmpEndpoint
from gateway.errors import Reason, Rejection
from gateway.model import CertificateRequest, Issued, IssuedWithKey, ProfileName, RequestForm, RequestId
from gateway.pki import der
from gateway.pki.certificate import parse_certificate, to_signer
from gateway.pki.cms import Signer
from gateway.pki.key_package import KeyGenerationAuthority
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.pki.public_keys import describe_public_key
from gateway.ra.cmp.encrypted_certificates import plan_encryption, seal_for
from gateway.ra.cmp.key_generation import WantedKey, plan_key
from gateway.ra.profile import CmpTerms

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = SharedSecret("1", ProfileName("corp"), b"ref", b"shared", NOW, NOW, "test")
RSA = der.sequence(der.oid("1.2.840.113549.1.1.1"), der.null())
P384 = der.sequence(der.oid("1.2.840.10045.2.1"), der.oid("1.3.132.0.34"))
USAGES = ("digital_signature", "key_encipherment", "key_agreement")
NO_USAGE = dict.fromkeys(("content_commitment", "data_encipherment", "key_cert_sign", "crl_sign", *USAGES), False)


@cache
def key(spec: str) -> PrivateKey:
    return generate_private_key(spec)


@cache
def certificate(spec: str, *usages: str) -> bytes:
    own = key(spec)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, spec)])
    made = x509.CertificateBuilder(name, name, own.public_key(), 7, NOW, NOW + timedelta(days=1))
    usage = x509.KeyUsage(**{**NO_USAGE, **dict.fromkeys(usages, True)}, encipher_only=False, decipher_only=False)
    made = made.add_extension(usage, critical=True)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
    return made.sign(cast("Any", own), SHA256()).public_bytes(Encoding.DER)


def terms(*, draws: bool = True, **settings: Any) -> CmpTerms:
    pair = {"certificate": "a.pem", "key": {"file": "a.key"}}
    generation = {"key_generation": {"keys": ("ec-p256", "ec-p384", "rsa-2048"), "signer": pair}} if draws else {}
    config = CmpEndpoint.model_validate({"signer": pair, **generation, **settings})
    signer = Signer.create(certificate("ec-p256", "digital_signature"), key("ec-p256"))
    return CmpTerms(config, key_authority=KeyGenerationAuthority.create(signer) if draws else None)


def header(pvno: int = 3) -> Header:
    return Header(pvno, b"", None, b"")


def asked(spec: str = "ec-p256", **fields: Any) -> CertRequestMessage:
    request = CertificateRequest(
        form=RequestForm.CRMF,
        der=b"",
        digest=b"",
        subject=parse_name_text("CN=device"),
        public_key=describe_public_key(public_key_der(key(spec))),
    )
    return CertRequestMessage(request, 0, fields.pop("possession", Possession.NONE), **fields)


def signed_by(spec: str, *usages: str) -> SignatureSender:
    return SignatureSender(to_signer(parse_certificate(certificate(spec, *usages))))


async def recipient_of(wanted: WantedKey) -> str:
    """The kind of recipient that a drawn key is sealed to."""
    pkcs8 = key("ec-p256").private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    issued = Issued(certificate("ec-p256", "digital_signature"), (), RequestId("1"))
    sealed, rest = decode(await wanted.seal(IssuedWithKey(issued, pkcs8)), rfc9480.EncryptedKey())
    assert rest == b""
    return str(sealed["envelopedData"]["recipientInfos"][0].getName())


@pytest.mark.parametrize(
    ("sender", "recipient"),
    [
        pytest.param(signed_by("rsa-2048", "digital_signature", "key_encipherment"), "ktri", id="rsa"),
        pytest.param(signed_by("ec-p256", "digital_signature", "key_agreement"), "kari", id="ec"),
        pytest.param(MacSender(SECRET, b""), "pwri", id="secret"),
    ],
)
async def test_the_key_is_sealed_to_whoever_protected_the_request(sender: Sender, recipient: str) -> None:
    assert await recipient_of(plan_key(terms(), header(), asked(wants_key=True), sender)) == recipient


@pytest.mark.parametrize(
    ("strictness", "wraps"), [pytest.param("rfc4210", False, id="rfc4210"), pytest.param("lightweight", True, id="lightweight")]
)
def test_below_a_secret_lightweight_clients_have_key_wrap(strictness: str, wraps: bool) -> None:
    wanted = plan_key(terms(strictness=strictness), header(), asked(wants_key=True), MacSender(SECRET, b""))
    assert cast("Any", wanted.recipient).wraps is wraps


@pytest.mark.parametrize(("pvno", "bare"), [(2, True), (3, False)])
def test_clients_of_version_2_get_the_key_bare(pvno: int, bare: bool) -> None:
    assert plan_key(terms(), header(pvno), asked(wants_key=True), MacSender(SECRET, b"")).bare is bare


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        pytest.param(None, "ec-p256", id="whatever"),
        pytest.param(RSA, "rsa-2048", id="rsa"),
        pytest.param(P384, "ec-p384", id="ec"),
    ],
)
def test_the_kind_is_the_one_that_the_template_names(wanted: bytes | None, kind: str) -> None:
    assert plan_key(terms(), header(), asked(wants_key=True, wanted_key=wanted), MacSender(SECRET, b"")).kind == kind


@pytest.mark.parametrize(
    ("settings", "sender", "wanted", "reason"),
    [
        pytest.param({"draws": False}, MacSender(SECRET, b""), None, Reason.BAD_TEMPLATE, id="none-are-drawn"),
        pytest.param({}, MacSender(SECRET, b""), der.sequence(der.oid("1.3.101.112")), Reason.BAD_TEMPLATE, id="another-kind"),
        pytest.param({}, signed_by("rsa-2048", "digital_signature"), None, Reason.UNSUPPORTED_ALGORITHM, id="rsa-signs"),
        pytest.param({}, signed_by("ec-p256", "digital_signature"), None, Reason.UNSUPPORTED_ALGORITHM, id="ec-signs"),
    ],
)
def test_what_cannot_be_drawn_or_sent_is_refused_first(
    settings: dict[str, Any], sender: Sender, wanted: bytes | None, reason: Reason
) -> None:
    with pytest.raises(Rejection) as refused:
        plan_key(terms(**settings), header(), asked(wants_key=True, wanted_key=wanted), sender)
    assert refused.value.reason is reason


OFFERED = {"encrypted_certificates": True}
LATER = {"possession": Possession.KEY_ENCIPHERMENT, "encrypted_certificate": True}


@pytest.mark.parametrize(
    ("spec", "pvno", "form"),
    [
        pytest.param("rsa-2048", 2, "encryptedValue", id="rsa-to-version-2"),
        pytest.param("rsa-2048", 3, "envelopedData", id="rsa-to-version-3"),
        pytest.param("ec-p256", 3, "envelopedData", id="ec-to-version-3"),
    ],
)
def test_a_certificate_is_sealed_in_the_form_of_the_version(spec: str, pvno: int, form: str) -> None:
    seal = plan_encryption(terms(**OFFERED), header(pvno), asked(spec, **LATER))
    assert seal is not None
    sealed = seal.seal(certificate(spec))
    assert certificate(spec) not in sealed
    assert decode(sealed, rfc9480.EncryptedKey())[0].getName() == form


@pytest.mark.parametrize("possession", [Possession.SIGNATURE, Possession.RA_VERIFIED, Possession.NONE])
def test_other_proofs_need_no_encryption(possession: Possession) -> None:
    assert plan_encryption(terms(**OFFERED), header(), asked(possession=possession)) is None


@pytest.mark.parametrize(
    ("settings", "spec", "pvno", "fields", "reason"),
    [
        pytest.param({}, "rsa-2048", 3, {}, Reason.BAD_PROOF_OF_POSSESSION, id="not-offered"),
        pytest.param(OFFERED, "rsa-2048", 3, {"encrypted_certificate": False}, Reason.BAD_PROOF_OF_POSSESSION, id="challenge"),
        pytest.param(OFFERED, "ec-p256", 2, {}, Reason.UNSUPPORTED_ALGORITHM, id="ec-to-version-2"),
        pytest.param(OFFERED, "ed25519", 3, {}, Reason.UNSUPPORTED_ALGORITHM, id="a-key-that-only-signs"),
    ],
)
def test_what_cannot_be_sealed_is_refused_first(
    settings: dict[str, Any], spec: str, pvno: int, fields: dict[str, Any], reason: Reason
) -> None:
    with pytest.raises(Rejection) as refused:
        plan_encryption(terms(**settings), header(pvno), asked(spec, **{**LATER, **fields}))
    assert refused.value.reason is reason


def test_a_broken_key_is_refused() -> None:
    with pytest.raises(Rejection) as refused:
        seal_for(header(), b"\x30\x00")
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM
