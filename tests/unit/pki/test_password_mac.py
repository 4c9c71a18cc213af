import hashlib
import hmac

import pytest
from pyasn1.codec.der import decoder, encoder
from pyasn1_alt_modules import rfc4210, rfc5280, rfc8018

from gateway.asn1.cmp import OID_DH_BASED_MAC, OID_KEM_BASED_MAC, OID_PASSWORD_BASED_MAC, OID_PBMAC1
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der
from gateway.pki.password_mac import MacWindows, compute_mac, fresh_mac, is_mac, parse_mac, read_mac, verify_mac

SHA1, SHA256, SHA512 = "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.3"
HMAC_SHA1_OPENSSL, HMAC_SHA1, HMAC_SHA256 = "1.3.6.1.5.5.8.1.2", "1.2.840.113549.2.7", "1.2.840.113549.2.9"
SALT = bytes(range(16))
LEGACY = MacWindows(hmac_sha1=True)


def algorithm(oid: str, *parameters: bytes) -> bytes:
    return der.sequence(der.oid(oid), *parameters)


def pbm(salt: bytes = SALT, owf: str = SHA256, iterations: int = 500, mac: str = HMAC_SHA256) -> bytes:
    parameters = der.sequence(der.octet_string(salt), algorithm(owf), der.integer(iterations), algorithm(mac))
    return algorithm(OID_PASSWORD_BASED_MAC, parameters)


def pbmac1(
    salt: bytes = SALT,
    iterations: int = 2000,
    length: int | None = 32,
    prf: str | None = HMAC_SHA256,
    mac: str = HMAC_SHA256,
    derivation: str = "1.2.840.113549.1.5.12",
) -> bytes:
    optional = [] if length is None else [der.integer(length)]
    optional += [] if prf is None else [algorithm(prf, der.null())]
    pbkdf2 = der.sequence(der.octet_string(salt), der.integer(iterations), *optional)
    return algorithm(OID_PBMAC1, der.sequence(algorithm(derivation, pbkdf2), algorithm(mac, der.null())))


def test_password_based_mac_is_the_iterated_digest_of_secret_and_salt() -> None:
    key = b"secret" + SALT
    for _ in range(500):
        key = hashlib.sha256(key).digest()
    assert compute_mac(parse_mac(pbm(), MacWindows()), b"secret", b"data") == hmac.digest(key, b"data", "sha256")


@pytest.mark.parametrize("oid", [HMAC_SHA1_OPENSSL, HMAC_SHA1])
def test_hmac_sha1_of_openssl_is_computed_where_it_is_taken(oid: str) -> None:
    key = b"secret" + SALT
    for _ in range(500):
        key = hashlib.sha256(key).digest()
    assert compute_mac(parse_mac(pbm(mac=oid), LEGACY), b"secret", b"data") == hmac.digest(key, b"data", "sha1")


def test_pbmac1_is_pbkdf2() -> None:
    key = hashlib.pbkdf2_hmac("sha256", b"secret", SALT, 2000, 32)
    assert compute_mac(parse_mac(pbmac1(), MacWindows()), b"secret", b"data") == hmac.digest(key, b"data", "sha256")


def test_pbmac1_without_key_length_derives_what_the_hmac_takes() -> None:
    key = hashlib.pbkdf2_hmac("sha256", b"secret", SALT, 2000, 64)
    parameters = parse_mac(pbmac1(length=None, mac="1.2.840.113549.2.11"), MacWindows())
    assert compute_mac(parameters, b"secret", b"data") == hmac.digest(key, b"data", "sha512")


@pytest.mark.parametrize(
    "identifier",
    [
        pytest.param(pbm(iterations=99), id="too few iterations"),
        pytest.param(pbm(iterations=10_001), id="too many iterations"),
        pytest.param(pbm(iterations=-500), id="negative iterations"),
        pytest.param(pbm(salt=bytes(7)), id="short salt"),
        pytest.param(pbm(salt=bytes(129)), id="long salt"),
        pytest.param(pbm(owf=SHA1), id="SHA-1 as one-way function"),
        pytest.param(pbm(owf="1.2.840.113549.2.5"), id="MD5 as one-way function"),
        pytest.param(pbm(mac=HMAC_SHA1_OPENSSL), id="HMAC-SHA1"),
        pytest.param(pbm(mac=HMAC_SHA1), id="HMAC-SHA1 by its other name"),
        pytest.param(pbm(mac="1.3.6.1.5.5.8.1.1"), id="HMAC-MD5"),
        pytest.param(pbmac1(iterations=999), id="PBMAC1 with too few iterations"),
        pytest.param(pbmac1(iterations=100_001), id="PBMAC1 with too many iterations"),
        pytest.param(pbmac1(salt=bytes(7)), id="PBMAC1 with a short salt"),
        pytest.param(pbmac1(length=8), id="PBMAC1 with a short key"),
        pytest.param(pbmac1(length=1 << 30), id="PBMAC1 with a huge key"),
        pytest.param(pbmac1(prf=None), id="PBMAC1 with the default PRF, HMAC-SHA1"),
        pytest.param(pbmac1(prf="1.2.840.113549.2.99"), id="PBMAC1 with an unknown PRF"),
        pytest.param(pbmac1(mac=HMAC_SHA1), id="PBMAC1 with HMAC-SHA1"),
        pytest.param(pbmac1(derivation="1.3.6.1.4.1.11591.4.11"), id="PBMAC1 with scrypt"),
        pytest.param(algorithm(OID_DH_BASED_MAC, der.null()), id="Diffie-Hellman"),
        pytest.param(algorithm(OID_KEM_BASED_MAC, der.null()), id="KEM"),
        pytest.param(algorithm("1.2.840.10045.4.3.2"), id="a signature"),
        pytest.param(pbm(salt=bytes(600)), id="large"),
    ],
)
def test_nothing_is_derived_outside_of_the_windows(identifier: bytes) -> None:
    with pytest.raises(Rejection) as caught:
        parse_mac(identifier, MacWindows())
    assert caught.value.reason is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize(
    "identifier",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(algorithm(OID_PASSWORD_BASED_MAC), id="no parameters"),
        pytest.param(algorithm(OID_PASSWORD_BASED_MAC, der.null()), id="NULL"),
        pytest.param(algorithm(OID_PASSWORD_BASED_MAC, der.sequence(der.octet_string(SALT))), id="a salt alone"),
        pytest.param(pbm() + b"\0", id="trailing bytes"),
        pytest.param(pbm(iterations=1 << 70), id="a count of more than 64 bits"),
        pytest.param(pbmac1(iterations=1 << 70), id="PBMAC1 with such a count"),
        pytest.param(algorithm(OID_PBMAC1, der.sequence(der.null(), der.null())), id="PBMAC1 of other members"),
        pytest.param(pbm().replace(der.oid(HMAC_SHA256), der.oid(HMAC_SHA256)[:-1] + b"\x89"), id="a broken OID"),
    ],
)
def test_broken_parameters(identifier: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_mac(identifier, MacWindows())


@pytest.mark.parametrize(
    ("identifier", "mac"),
    [
        pytest.param(pbm(), True, id="PBM"),
        pytest.param(pbmac1(), True, id="PBMAC1"),
        pytest.param(algorithm(OID_DH_BASED_MAC), True, id="Diffie-Hellman"),
        pytest.param(algorithm(OID_KEM_BASED_MAC), True, id="KEM"),
        pytest.param(algorithm("1.2.840.10045.4.3.2"), False, id="ECDSA"),
        pytest.param(algorithm("1.2.3.4"), False, id="unknown"),
    ],
)
def test_macs_are_told_from_signatures(identifier: bytes, *, mac: bool) -> None:
    assert is_mac(identifier) is mac


def test_only_the_whole_mac_verifies() -> None:
    parameters = read_mac(pbm())
    value = compute_mac(parameters, b"secret", b"data")
    assert verify_mac(parameters, b"secret", b"data", value)
    assert not verify_mac(parameters, b"secret", b"data", value[:-1])
    assert not verify_mac(parameters, b"secret", b"data", b"")
    assert not verify_mac(parameters, b"Secret", b"data", value)
    assert not verify_mac(parameters, b"secret", b"Data", value)


def test_answers_have_a_salt_of_their_own() -> None:
    (first, parameters), (second, _) = fresh_mac(), fresh_mac()
    assert first != second
    assert (parameters.pbmac1, parameters.iterations, len(parameters.salt)) == (False, 1000, 16)
    decoded, rest = decoder.decode(first, asn1Spec=rfc5280.AlgorithmIdentifier())
    pbm_parameter, _ = decoder.decode(decoded["parameters"], asn1Spec=rfc4210.PBMParameter())
    assert (rest, encoder.encode(decoded)) == (b"", first)
    assert (bytes(pbm_parameter["salt"]), int(pbm_parameter["iterationCount"])) == (parameters.salt, 1000)
    assert str(pbm_parameter["mac"]["algorithm"]) == HMAC_SHA256


@pytest.mark.parametrize(
    ("asked", "mac"),
    [
        pytest.param(pbm(mac=HMAC_SHA1_OPENSSL), "sha1", id="HMAC-SHA1 of OpenSSL"),
        pytest.param(pbm(owf=SHA512, iterations=100), "sha256", id="PBM"),
        pytest.param(pbm(mac="1.2.840.113549.2.10"), "sha384", id="HMAC-SHA384"),
        pytest.param(pbmac1(), "sha256", id="PBMAC1"),
        pytest.param(pbmac1(mac="1.2.840.113549.2.11"), "sha512", id="PBMAC1 with HMAC-SHA512"),
    ],
)
def test_answers_are_protected_in_kind(asked: bytes, mac: str) -> None:
    like = parse_mac(asked, LEGACY)
    encoded, made = fresh_mac(like)
    assert read_mac(encoded) == made
    assert (made.pbmac1, made.mac, made.digest) == (like.pbmac1, mac, "sha256")
    assert made.salt != like.salt


def test_pbmac1_of_answers_is_der() -> None:
    encoded, made = fresh_mac(read_mac(pbmac1()))
    decoded, rest = decoder.decode(encoded, asn1Spec=rfc5280.AlgorithmIdentifier())
    parameters, after = decoder.decode(decoded["parameters"], asn1Spec=rfc8018.PBMAC1_params())
    pbkdf2, _ = decoder.decode(parameters["keyDerivationFunc"]["parameters"], asn1Spec=rfc8018.PBKDF2_params())
    assert (rest, after, encoder.encode(decoded)) == (b"", b"", encoded)
    assert (int(pbkdf2["iterationCount"]), int(pbkdf2["keyLength"])) == (made.iterations, 32)


def test_salts_stay_out_of_representations() -> None:
    assert "salt" not in repr(read_mac(pbm()))
