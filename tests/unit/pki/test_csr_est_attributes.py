"""The attributes of a CSR that only EST reads (RFC 7030 §4.4.1, RFC 7894 §3)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der, keys
from gateway.pki.csr import (
    CHALLENGE_PASSWORD,
    EST_LINKING_ATTRIBUTES,
    MAX_CAPABILITIES,
    MAX_CHALLENGE_BYTES,
    MAX_KEY_ID_BYTES,
    MAX_LINKING_BYTES,
    EstAttributes,
    parse_csr,
    read_est_attributes,
)

KeyOf = Callable[[str], keys.PrivateKey]
AA = "1.2.840.113549.1.9.16.2."
OTP, REVOCATION, LINKING, KEY_ID, ASYMMETRIC_KEY_ID = (AA + n for n in ("56", "57", "58", "37", "54"))
CAPABILITIES = "1.2.840.113549.1.9.15"
CHANGE_SUBJECT_NAME = "1.3.6.1.5.5.7.7.36"
AES_128_CBC, AES_256_CBC = "2.16.840.1.101.3.4.1.2", "2.16.840.1.101.3.4.1.42"


def attribute(oid: str, *values: bytes) -> bytes:
    return der.sequence(der.oid(oid), der.set_of(*values))


def csr_with(key: keys.PrivateKey, *attributes: bytes, signature: bytes | None = None, subject: bytes = b"\x30\x00") -> bytes:
    info = der.sequence(der.integer(0), subject, keys.public_key_der(key), der.context(0, *attributes))
    signed = keys.sign(key, info) if signature is None else signature
    return der.sequence(info, keys.signature_algorithm(key, "sha256"), der.bit_string(signed))


def read(key: keys.PrivateKey, *attributes: bytes) -> EstAttributes:
    return read_est_attributes(parse_csr(csr_with(key, *attributes)).der)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param([], EstAttributes(), id="none"),
        pytest.param([attribute(CHALLENGE_PASSWORD, der.utf8_string("x"))], EstAttributes(), id="what every protocol reads"),
        pytest.param([attribute(REVOCATION, der.utf8_string("x"))], EstAttributes(), id="revocationChallenge is not used"),
        pytest.param([attribute(OTP, der.utf8_string("é1"))], EstAttributes(otp_challenge="é1"), id="otpChallenge"),
        pytest.param([attribute(OTP, der.printable_string("1"))], EstAttributes(otp_challenge="1"), id="as PrintableString"),
        pytest.param([attribute(OTP, der.utf8_string(""))], EstAttributes(), id="an empty one is none"),
        pytest.param([attribute(OTP)], EstAttributes(), id="one that libest copied without a value"),
        pytest.param(
            [attribute(LINKING, der.utf8_string("YQ=="))], EstAttributes(identity_linking="YQ=="), id="estIdentityLinking"
        ),
        pytest.param([attribute(KEY_ID, der.octet_string(b"k1"))], EstAttributes(decrypt_key_id=b"k1"), id="symmetric key"),
        pytest.param(
            [attribute(ASYMMETRIC_KEY_ID, der.octet_string(b"k2"))],
            EstAttributes(asymmetric_decrypt_key_id=b"k2"),
            id="AsymmetricDecryptKeyIdentifier",
        ),
        pytest.param(
            [
                attribute(
                    CAPABILITIES,
                    der.sequence(der.sequence(der.oid(AES_256_CBC)), der.sequence(der.oid(AES_128_CBC), der.null())),
                )
            ],
            EstAttributes(smime_capabilities=(AES_256_CBC, AES_128_CBC)),
            id="SMIMECapabilities, with and without parameters",
        ),
        pytest.param([attribute(CAPABILITIES, der.sequence())], EstAttributes(smime_capabilities=()), id="none that it can"),
    ],
)
def test_attributes(attributes: list[bytes], expected: EstAttributes, key_of: KeyOf) -> None:
    assert read(key_of("ec-p256"), *attributes) == expected


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param([attribute(OTP, der.integer(1))], id="otpChallenge is no text"),
        pytest.param([attribute(OTP, der.utf8_string("a"), der.utf8_string("b"))], id="two one-time passwords"),
        pytest.param([attribute(OTP, der.tlv(12, b"\xff"))], id="otpChallenge is no UTF-8"),
        pytest.param([attribute(OTP, der.utf8_string("x" * (MAX_CHALLENGE_BYTES + 1)))], id="otpChallenge is huge"),
        pytest.param([attribute(LINKING, der.utf8_string("x" * (MAX_LINKING_BYTES + 1)))], id="estIdentityLinking is huge"),
        pytest.param([attribute(LINKING, der.octet_string(b"x"))], id="estIdentityLinking is no text"),
        pytest.param([attribute(KEY_ID, der.utf8_string("k"))], id="DecryptKeyIdentifier is no OCTET STRING"),
        pytest.param([attribute(KEY_ID, der.octet_string(b""))], id="DecryptKeyIdentifier is empty"),
        pytest.param([attribute(KEY_ID)], id="DecryptKeyIdentifier has no value"),
        pytest.param([attribute(KEY_ID, der.octet_string(b"a"), der.octet_string(b"b"))], id="two key identifiers"),
        pytest.param([attribute(KEY_ID, der.octet_string(bytes(MAX_KEY_ID_BYTES + 1)))], id="DecryptKeyIdentifier is huge"),
        pytest.param([attribute(ASYMMETRIC_KEY_ID, der.sequence())], id="AsymmetricDecryptKeyIdentifier is no OCTET STRING"),
        pytest.param([attribute(CAPABILITIES)], id="SMIMECapabilities has no value"),
        pytest.param([attribute(CAPABILITIES, der.oid(AES_128_CBC))], id="SMIMECapabilities is no list"),
        pytest.param([attribute(CAPABILITIES, der.sequence(der.oid(AES_128_CBC)))], id="a capability is no SEQUENCE"),
        pytest.param([attribute(CAPABILITIES, der.sequence(der.sequence()))], id="a capability is empty"),
        pytest.param(
            [attribute(CAPABILITIES, der.sequence(der.sequence(der.oid(AES_128_CBC), der.null(), der.null())))],
            id="a capability has three members",
        ),
        pytest.param(
            [attribute(CAPABILITIES, der.sequence(*[der.sequence(der.oid(AES_128_CBC))] * (MAX_CAPABILITIES + 1)))],
            id="too many capabilities",
        ),
        pytest.param([attribute(CAPABILITIES, der.sequence(), der.sequence())], id="two lists of capabilities"),
    ],
)
def test_attributes_that_are_refused(attributes: list[bytes], key_of: KeyOf) -> None:
    with pytest.raises(MalformedMessage):
        read(key_of("ec-p256"), *attributes)


@pytest.mark.parametrize("value", [der.sequence(), der.null()], ids=["a request", "anything"])
def test_names_cannot_be_changed(value: bytes, key_of: KeyOf) -> None:
    with pytest.raises(Rejection) as refused:
        read(key_of("ec-p256"), attribute(CHANGE_SUBJECT_NAME, value))
    assert refused.value.reason is Reason.RENEWAL_REFUSED


def test_secrets_are_not_shown(key_of: KeyOf) -> None:
    found = read(key_of("ec-p256"), attribute(OTP, der.utf8_string("0tp")), attribute(LINKING, der.utf8_string("l1nk")))
    assert "0tp" not in repr(found)
    assert "l1nk" not in repr(found)


def test_a_request_that_is_signed_again_for_another_connection_has_the_same_digest(key_of: KeyOf) -> None:
    key = key_of("ec-p256")

    def digest(*attributes: bytes) -> bytes:
        return parse_csr(csr_with(key, *attributes), linking=EST_LINKING_ATTRIBUTES).digest

    def linked(oid: str, text: str) -> bytes:
        return digest(attribute(oid, der.utf8_string(text)))

    plain = digest()
    assert {linked(oid, text) for oid in (CHALLENGE_PASSWORD, LINKING) for text in ("one", "two")} == {plain}
    assert linked(OTP, "one") != plain
    assert linked(KEY_ID, "one") != plain, "a private key for another is another request"


@pytest.mark.parametrize("signature", [b"", b"\x00" * 70, b"not a signature"], ids=["empty", "zeros", "text"])
def test_a_csr_that_asks_for_a_key_need_not_be_signed(signature: bytes, key_of: KeyOf) -> None:
    data = csr_with(key_of("ec-p256"), signature=signature)
    request = parse_csr(data, proof=False)
    assert (request.der, request.signature_digest) == (data, "none")
    with pytest.raises(Rejection) as refused:
        parse_csr(data)
    assert refused.value.reason in {Reason.BAD_PROOF_OF_POSSESSION, Reason.MALFORMED}


def test_a_placeholder_of_a_key_may_be_broken(key_of: KeyOf) -> None:
    data = csr_with(key_of("rsa-2048"))
    modulus = data.index(b"\x02\x82\x01\x01\x00")
    broken = data[:modulus] + b"\x04" + data[modulus + 1 :]
    key = parse_csr(broken, proof=False).public_key
    assert (key.algorithm, key.bits) == ("unknown", 0)
    assert key.der in broken
    with pytest.raises(MalformedMessage):
        parse_csr(broken)
