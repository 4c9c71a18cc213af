"""What Full PKI Requests may say, and in which words they are answered and refused (RFC 5272)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pyasn1.codec.der.decoder import decode
from pyasn1.codec.der.encoder import encode
from pyasn1_alt_modules import rfc2986, rfc6402

from gateway.asn1 import cmc as asn1
from gateway.asn1 import cms as asn1_cms
from gateway.asn1.cmc import CmcFailInfo, CmcStatus
from gateway.errors import MalformedMessage, Reason
from gateway.model import Pending, Rejected, RequestId, Unavailable
from gateway.pki import cms, der
from gateway.pki.certificate import der_to_pem, parse_certificate, self_signed_ca
from gateway.pki.cms import Signer
from gateway.pki.csr import build_csr
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.wire.est import cmc
from gateway.wire.est.cmc import CmcRefusal, CmcRequest
from gateway.wire.est.cmc_errors import FAIL_INFO, UNSERVED_CONTROLS
from tests.unit.wire.est.cmc_messages import (
    CSR,
    KEY,
    NONCE,
    REQUEST_PART,
    TRANSACTION,
    control,
    pki_data,
    read_response,
    sign_by_certificate,
    sign_by_key_id,
    tcr,
)

NOW = datetime.now(UTC).replace(microsecond=0)
RA_KEY = generate_private_key("rsa-2048")
RA = Signer.create(self_signed_ca(RA_KEY, "CN=RA", NOW, NOW + timedelta(days=1)), RA_KEY)
OTHER_KEY = generate_private_key("ec-p256")
OTHER = self_signed_ca(OTHER_KEY, "CN=client", NOW, NOW + timedelta(days=1))
OWN = self_signed_ca(KEY, "CN=first request", NOW, NOW + timedelta(days=1))
DATA = der.octet_string(b"state of the client")
OURS = b"nonce-of-server!"
UNKNOWN = "1.3.6.1.4.1.99999.1"


def read(message: bytes, client: bytes | None = None) -> CmcRequest:
    return cmc.decode_request(message, client)


def spki(key: PrivateKey = RA_KEY) -> bytes:
    return public_key_der(key)


ACCEPTED: list[object] = [
    pytest.param(lambda: (sign_by_key_id(pki_data()), None), id="by-the-key-of-the-request"),
    pytest.param(lambda: (sign_by_key_id(pki_data(), key_id=usual_key_id(KEY)), None), id="by-the-usual-identifier"),
    pytest.param(lambda: (sign_by_certificate(pki_data(), OWN, KEY), None), id="by-a-certificate-of-the-same-key"),
    pytest.param(lambda: (sign_by_certificate(pki_data(), OTHER, OTHER_KEY), OTHER), id="by-the-tls-client"),
    pytest.param(
        lambda: (sign_by_key_id(pki_data(), OTHER_KEY, parse_certificate(OTHER).subject_key_id or b""), OTHER),
        id="by-the-tls-client's-identifier",
    ),
]


def usual_key_id(key: PrivateKey) -> bytes:
    """Method 1 of RFC 5280 §4.2.1.2."""
    loaded = load_der_public_key(public_key_der(key))
    return x509.SubjectKeyIdentifier.from_public_key(loaded).digest  # type: ignore[arg-type]


@pytest.mark.parametrize("make", ACCEPTED)
def test_a_signer_that_is_known(make: Callable[[], tuple[bytes, bytes | None]]) -> None:
    message, client = make()
    request = read(message, client)
    assert request.csr.der == CSR
    assert request.body_part == REQUEST_PART


def test_a_message_of_another_library() -> None:
    data = rfc6402.PKIData()
    data["controlSequence"][0]["bodyPartID"] = 2
    data["controlSequence"][0]["attrType"] = asn1.OID_TRANSACTION_ID
    data["controlSequence"][0]["attrValues"][0] = TRANSACTION
    tagged = rfc6402.TaggedRequest()
    tagged["tcr"]["bodyPartID"] = 0xFFFFFFFF
    tagged["tcr"]["certificationRequest"] = decode(CSR, asn1Spec=rfc2986.CertificationRequest())[0]
    data["reqSequence"][0] = tagged
    data["cmsSequence"].clear()
    data["otherMsgSequence"].clear()
    request = read(sign_by_key_id(encode(data)))
    assert (request.csr.der, request.body_part, request.echo.transaction_id) == (CSR, 0xFFFFFFFF, TRANSACTION)


REFUSED: list[object] = [
    pytest.param(lambda: sign_by_key_id(pki_data(), OTHER_KEY), CmcFailInfo.BAD_MESSAGE_CHECK, [0], id="signed-by-another-key"),
    pytest.param(
        lambda: sign_by_certificate(pki_data(), OTHER, OTHER_KEY), CmcFailInfo.BAD_MESSAGE_CHECK, [0], id="another-certificate"
    ),
    pytest.param(lambda: sign_by_certificate(pki_data(), OWN, OTHER_KEY), CmcFailInfo.BAD_MESSAGE_CHECK, [0], id="stolen-name"),
    pytest.param(lambda: sign_by_key_id(pki_data(), key_id=b"other"), CmcFailInfo.BAD_MESSAGE_CHECK, [0], id="other-identifier"),
    pytest.param(lambda: unsigned(pki_data()), CmcFailInfo.BAD_MESSAGE_CHECK, [0], id="unsigned"),
    pytest.param(lambda: altered(sign_by_key_id(pki_data())), CmcFailInfo.BAD_MESSAGE_CHECK, [0], id="altered"),
    pytest.param(lambda: sign_by_key_id(pki_data(())), CmcFailInfo.BAD_REQUEST, [0], id="no-request"),
    pytest.param(
        lambda: sign_by_key_id(pki_data((tcr(), tcr(part=8)))), CmcFailInfo.BAD_REQUEST, [REQUEST_PART, 8], id="two-requests"
    ),
    pytest.param(lambda: sign_by_key_id(pki_data((tcr(forged()),))), CmcFailInfo.POP_FAILED, [REQUEST_PART], id="forged-request"),
    pytest.param(
        lambda: sign_by_key_id(pki_data((tcr(der.sequence()),))), CmcFailInfo.BAD_REQUEST, [REQUEST_PART], id="broken-request"
    ),
    pytest.param(
        lambda: sign_by_key_id(pki_data(controls=(control(3, UNKNOWN, NONCE),))),
        CmcFailInfo.BAD_REQUEST,
        [3],
        id="unknown-control",
    ),
    pytest.param(
        lambda: sign_by_key_id(
            pki_data(controls=(control(3, asn1.OID_POP_LINK_RANDOM, NONCE), control(4, asn1.OID_POP_LINK_WITNESS_V2, NONCE)))
        ),
        CmcFailInfo.POP_FAILED,
        [3, 4],
        id="two-controls-of-one-fault",
    ),
    pytest.param(
        lambda: sign_by_key_id(pki_data(controls=(control(3, asn1.OID_RECIPIENT_NONCE, NONCE),))),
        CmcFailInfo.BAD_REQUEST,
        [3],
        id="recipient-nonce-in-a-first-message",
    ),
    pytest.param(
        lambda: sign_by_key_id(pki_data(controls=(control(3, asn1.OID_QUERY_PENDING, NONCE),))),
        CmcFailInfo.BAD_REQUEST,
        [3],
        id="query-pending",
    ),
    *(
        pytest.param(
            lambda oid=oid: sign_by_key_id(pki_data(controls=(control(3, oid, NONCE),))), fault, [3], id=f"control-{oid[16:]}"
        )
        for oid, fault in UNSERVED_CONTROLS.items()
    ),
]


def unsigned(content: bytes) -> bytes:
    inside = der.sequence(der.oid(asn1.OID_PKI_DATA), der.context(0, der.octet_string(content)))
    body = der.sequence(der.integer(3), der.set_of(), inside, der.set_of())
    return der.sequence(der.oid(asn1_cms.OID_SIGNED_DATA), der.context(0, body))


def altered(message: bytes) -> bytes:
    """The same message with another body part."""
    return message.replace(tcr(), tcr(part=REQUEST_PART + 1))


def forged() -> bytes:
    """A request of KEY's that another key has signed."""
    other = build_csr(OTHER_KEY, parse_name_text("CN=device-1").der)
    return other.replace(public_key_der(OTHER_KEY), public_key_der(KEY))


@pytest.mark.parametrize(("make", "fail_info", "parts"), REFUSED)
def test_refused_in_cmcs_own_words(make: Callable[[], bytes], fail_info: CmcFailInfo, parts: Sequence[int]) -> None:
    with pytest.raises(CmcRefusal) as refused:
        read(make())
    response = read_response(cmc.encode_unread(refused.value, RA, OURS), spki())
    assert (response.status, response.fail_info) == (CmcStatus.FAILED, fail_info)
    assert list(response.parts) == list(parts)
    assert response.text == refused.value.detail
    assert response.certificates == (RA.certificate,)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(der.context(1, der.sequence(der.integer(9), der.sequence())), id="crmf"),
        pytest.param(der.context(2, der.integer(9), der.oid(UNKNOWN), der.null()), id="other"),
    ],
)
def test_other_kinds_of_request_are_not_supported(request_: bytes) -> None:
    with pytest.raises(CmcRefusal) as refused:
        read(sign_by_key_id(pki_data((tcr(), request_))))
    response = read_response(cmc.encode_unread(refused.value, RA, OURS), spki())
    assert (response.status, response.parts, response.fail_info) == (CmcStatus.NO_SUPPORT, [9], None)


MALFORMED: list[object] = [
    pytest.param(b"", id="empty"),
    pytest.param(CSR, id="simple-request"),
    pytest.param(der.sequence(), id="empty-sequence"),
    pytest.param(sign_by_key_id(pki_data(), content_type=asn1.OID_PKI_RESPONSE), id="a-response"),
    pytest.param(sign_by_key_id(b""), id="no-content"),
    pytest.param(sign_by_key_id(der.sequence(der.sequence(), der.sequence())), id="two-lists"),
    pytest.param(sign_by_key_id(pki_data() + b"\0"), id="trailing-bytes"),
    pytest.param(sign_by_key_id(pki_data((tcr(), tcr()))), id="identifiers-twice"),
    pytest.param(sign_by_key_id(pki_data((tcr(part=0),))), id="identifier-0"),
    pytest.param(sign_by_key_id(pki_data((tcr(part=-1),))), id="identifier-negative"),
    pytest.param(sign_by_key_id(pki_data((tcr(part=1 << 32),))), id="identifier-too-large"),
    pytest.param(sign_by_key_id(pki_data((tcr(part=1 << 4096),))), id="identifier-huge"),
    pytest.param(sign_by_key_id(pki_data((der.sequence(der.integer(7), CSR),))), id="request-without-tag"),
    pytest.param(sign_by_key_id(pki_data(tcr(part=n) for n in range(1, 100))), id="too-many-requests"),
    pytest.param(sign_by_key_id(pki_data(controls=(control(n, UNKNOWN) for n in range(10, 50)))), id="too-many-controls"),
    pytest.param(
        sign_by_key_id(pki_data(controls=(control(1, asn1.OID_SENDER_NONCE, NONCE), control(2, asn1.OID_SENDER_NONCE, NONCE)))),
        id="two-nonces",
    ),
    pytest.param(sign_by_key_id(pki_data(controls=(control(1, asn1.OID_SENDER_NONCE, NONCE, TRANSACTION),))), id="two-values"),
    pytest.param(sign_by_key_id(pki_data(controls=(control(1, asn1.OID_SENDER_NONCE, TRANSACTION),))), id="nonce-no-string"),
    pytest.param(
        sign_by_key_id(pki_data(controls=(control(1, asn1.OID_SENDER_NONCE, der.octet_string(bytes(300))),))), id="long-nonce"
    ),
    pytest.param(sign_by_key_id(pki_data(controls=(der.sequence(der.integer(1)),))), id="broken-control"),
    pytest.param(sign_by_key_id(pki_data(cms_objects=der.null() * 100)), id="too-many-objects"),
]


@pytest.mark.parametrize("message", MALFORMED)
def test_what_is_no_request(message: bytes) -> None:
    with pytest.raises(MalformedMessage):
        read(message)


CONTROLS = (
    control(1, asn1.OID_TRANSACTION_ID, TRANSACTION),
    control(2, asn1.OID_SENDER_NONCE, NONCE),
    control(3, asn1.OID_DATA_RETURN, DATA),
)


def test_success_brings_the_certificate_and_repeats_what_it_must() -> None:
    request = read(sign_by_key_id(pki_data(controls=CONTROLS)))
    response = read_response(cmc.encode_success(request, RA, (OTHER, OWN), OURS), spki())
    assert (response.status, response.parts, response.fail_info) == (CmcStatus.SUCCESS, [REQUEST_PART], None)
    assert response.certificates == (RA.certificate, OTHER, OWN)
    assert response.controls == {
        asn1.OID_TRANSACTION_ID: TRANSACTION,
        asn1.OID_SENDER_NONCE: der.octet_string(OURS),
        asn1.OID_RECIPIENT_NONCE: NONCE,
        asn1.OID_DATA_RETURN: DATA,
    }


def test_a_refusal_repeats_it_too() -> None:
    with pytest.raises(CmcRefusal) as refused:
        read(sign_by_key_id(pki_data(controls=(*CONTROLS, control(9, UNKNOWN)))))
    response = read_response(cmc.encode_unread(refused.value, RA, OURS), spki())
    assert response.controls[asn1.OID_RECIPIENT_NONCE] == NONCE
    assert response.controls[asn1.OID_DATA_RETURN] == DATA


def test_without_nonce_none_is_sent() -> None:
    request = read(sign_by_key_id(pki_data()))
    assert read_response(cmc.encode_success(request, RA, (), OURS), spki()).controls == {}


def test_pending_says_when_to_come_again() -> None:
    request = read(sign_by_key_id(pki_data()))
    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    response = read_response(cmc.encode_pending(request, RA, Pending(RequestId("01ABC"), 60), at, OURS), spki())
    assert (response.status, response.parts) == (CmcStatus.PENDING, [REQUEST_PART])
    assert response.pending == (b"01ABC", "20300102030405Z")


@pytest.mark.parametrize(
    ("outcome", "fail_info", "text"),
    [
        pytest.param(Rejected(Reason.POLICY_EKU, "serverAuth: no"), CmcFailInfo.UNSUPPORTED_EXT, "serverAuth", id="eku"),
        pytest.param(Rejected(Reason.CREDENTIAL_MISSING, "who are you?"), CmcFailInfo.BAD_IDENTITY, "who are", id="nobody"),
        pytest.param(Unavailable(Reason.STORE_UNAVAILABLE, 5), CmcFailInfo.TRY_LATER, "not available now", id="later"),
    ],
)
def test_refusals_of_the_registration_authority(outcome: Rejected | Unavailable, fail_info: CmcFailInfo, text: str) -> None:
    request = read(sign_by_key_id(pki_data()))
    response = read_response(cmc.encode_refusal(request, RA, outcome, OURS), spki())
    assert (response.status, response.fail_info, response.parts) == (CmcStatus.FAILED, fail_info, [REQUEST_PART])
    assert response.text.startswith(text)


def test_every_reason_has_its_fail_info() -> None:
    assert FAIL_INFO.keys() == set(Reason)


def test_openssl_verifies_an_answer(openssl: Callable[..., bytes], tmp_path: Path) -> None:
    request = read(sign_by_key_id(pki_data()))
    message = cmc.encode_success(request, RA, (OTHER,), OURS)
    anchor = tmp_path / "ra.pem"
    anchor.write_bytes(der_to_pem(RA.certificate))
    content = openssl("cms", "-verify", "-inform", "DER", "-CAfile", str(anchor), "-purpose", "any", "-binary", data=message)
    assert content == cms.parse_signed_data(message).content


def test_a_sha1_signature_is_refused(openssl: Callable[..., bytes], tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    own.write_bytes(der_to_pem(OWN) + serialize_private_key(KEY))
    message = openssl(
        *("cms", "-sign", "-outform", "DER", "-nodetach", "-binary", "-md", "sha1"),
        *("-econtent_type", asn1.OID_PKI_DATA, "-signer", str(own), "-nosmimecap"),
        data=pki_data(),
    )
    with pytest.raises(CmcRefusal) as refused:
        read(message)
    assert (refused.value.reason, refused.value.fail_info) == (Reason.UNSUPPORTED_ALGORITHM, CmcFailInfo.BAD_ALG)


def test_openssl_signs_a_request(openssl: Callable[..., bytes], tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    own.write_bytes(der_to_pem(OWN) + serialize_private_key(KEY))
    message = openssl(
        *("cms", "-sign", "-outform", "DER", "-nodetach", "-binary", "-stream", "-md", "sha256"),
        *("-econtent_type", asn1.OID_PKI_DATA, "-signer", str(own), "-keyid"),
        data=pki_data(),
    )
    assert read(message).csr.der == CSR
