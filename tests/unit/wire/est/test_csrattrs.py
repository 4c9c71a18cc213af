"""Our CsrAttrs, decoded and encoded again by an independent library."""

from __future__ import annotations

from typing import Any

import pytest
from pyasn1.codec.der import decoder, encoder
from pyasn1_alt_modules import rfc5280, rfc7030, rfc9908

from gateway.wire.est.csrattrs import Demands, Form, KeyDemand, encode_csrattrs

CN, OU = "2.5.4.3", "2.5.4.11"
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
CHALLENGE_PASSWORD, OTP_CHALLENGE = "1.2.840.113549.1.9.7", "1.2.840.113549.1.9.16.2.56"
EXTENSION_REQUEST, EXTENSION_TEMPLATE = "1.2.840.113549.1.9.14", "1.2.840.113549.1.9.16.2.62"
EC, RSA, P384 = "1.2.840.10045.2.1", "1.2.840.113549.1.1.1", "1.3.132.0.34"
KEY_USAGE, SAN, EKU = "2.5.29.15", "2.5.29.17", "2.5.29.37"

EVERYTHING = Demands(
    subject=((CN, None), (OU, "myDept"), ("2.5.4.6", "CH")),
    key=KeyDemand("ec", curve="P-384"),
    key_usage=("digitalSignature", "keyAgreement"),
    ekus=(CLIENT_AUTH,),
    san=True,
    linking=True,
    one_time_password=True,
)
SHAPES = [
    pytest.param(EVERYTHING, id="everything"),
    pytest.param(Demands(subject=((CN, None),)), id="a subject"),
    pytest.param(Demands(key=KeyDemand("ec", curve="P-256")), id="an EC key"),
    pytest.param(Demands(key=KeyDemand("rsa", bits=3072)), id="an RSA key"),
    pytest.param(Demands(key=KeyDemand("ed25519")), id="an Ed25519 key"),
    pytest.param(Demands(key=KeyDemand("ml-dsa-65")), id="an ML-DSA key"),
    pytest.param(Demands(ekus=(CLIENT_AUTH, "1.3.6.1.5.5.7.3.17")), id="usages"),
    pytest.param(Demands(san=True), id="a name"),
    pytest.param(Demands(linking=True), id="a link"),
]


def decode(data: bytes, spec: Any) -> Any:
    value, rest = decoder.decode(data, asn1Spec=spec)
    assert rest == b""
    if data[-2:] != b"\xa1\x00":  # a template without attributes: none are needed (RFC 2986 §4.1), but the library wants one
        assert encoder.encode(value) == data, "it is the one DER encoding of what it says"
    return value


def items(data: bytes | None) -> dict[str, Any]:
    """Return OIDs to None and attributes to their values, in the library's own terms."""
    assert data is not None
    found: dict[str, Any] = {}
    for item in decode(data, rfc7030.CsrAttrs()):
        chosen = item.getComponent()
        if item.getName() == "oid":
            found[str(chosen)] = None
        else:
            found[str(chosen["attrType"])] = [bytes(value) for value in chosen["attrValues"]]
    return found


def template(data: bytes | None) -> Any:
    (value,) = items(data)[str(rfc9908.id_aa_certificationRequestInfoTemplate)]
    return decode(value, rfc9908.CertificationRequestInfoTemplate())


def attributes(found: Any) -> dict[str, list[bytes]]:
    return {str(a["type"]): [bytes(value) for value in a["values"]] for a in found["attributes"]}


@pytest.mark.parametrize("demands", SHAPES)
@pytest.mark.parametrize("form", ["template", "legacy", "both"])
def test_every_shape_is_der_that_others_read(demands: Demands, form: Form) -> None:
    data = encode_csrattrs(demands, form)
    if data is None:
        assert form == "legacy", "the old form can tell neither subject nor a name without its value"
        return
    found = items(data)
    assert (str(rfc9908.id_aa_certificationRequestInfoTemplate) in found) is (form != "legacy")
    if form != "legacy":
        assert int(template(data)["version"]) == 0
        assert not {EXTENSION_REQUEST, EXTENSION_TEMPLATE} <= set(attributes(template(data)))


@pytest.mark.parametrize("form", ["template", "legacy", "both", "off"])
def test_nothing_to_tell(form: Form) -> None:
    assert encode_csrattrs(Demands(), form) is None
    assert (encode_csrattrs(EVERYTHING, form) is None) is (form == "off")


def test_list_of_the_old_form() -> None:
    found = items(encode_csrattrs(EVERYTHING, "legacy"))
    assert list(found) == [CHALLENGE_PASSWORD, OTP_CHALLENGE, EXTENSION_REQUEST, EC]
    assert found[CHALLENGE_PASSWORD] is None
    assert [str(decode(value, None)) for value in found[EC]] == [P384]
    (requested,) = found[EXTENSION_REQUEST]
    assert [(str(e["extnID"]), bool(e["critical"])) for e in decode(requested, rfc5280.Extensions())] == [
        (KEY_USAGE, True),
        (EKU, False),
    ]


@pytest.mark.parametrize(
    ("key", "oid", "values"),
    [
        pytest.param(KeyDemand("rsa", bits=4096), RSA, [b"\x02\x02\x10\x00"], id="RSA: the size"),
        pytest.param(KeyDemand("ec", curve="P-384"), EC, [b"\x06\x05\x2b\x81\x04\x00\x22"], id="EC: the curve"),
        pytest.param(KeyDemand("ed25519"), "1.3.101.112", [], id="Ed25519: nothing else"),
    ],
)
def test_key_in_the_old_form(key: KeyDemand, oid: str, values: list[bytes]) -> None:
    assert items(encode_csrattrs(Demands(key=key), "legacy")) == {oid: values}


def test_both_forms_stand_side_by_side() -> None:
    both, legacy, alone = (items(encode_csrattrs(EVERYTHING, form)) for form in ("both", "legacy", "template"))
    assert both == legacy | alone


def test_subject_of_the_template() -> None:
    found = template(encode_csrattrs(EVERYTHING, "template"))["subject"]["rdnSequence"]
    told = [(str(a["type"]), bytes(a["value"]) if a["value"].isValue else None) for rdn in found for a in rdn]
    assert told == [(CN, None), (OU, b"\x0c\x06myDept"), ("2.5.4.6", b"\x13\x02CH")]


def test_parts_of_the_template_without_demands_are_absent() -> None:
    found = template(encode_csrattrs(Demands(ekus=(CLIENT_AUTH,)), "template"))
    assert not found["subject"].isValue
    assert not found["subjectPKInfo"].isValue
    assert list(attributes(found)) == [EXTENSION_REQUEST]


@pytest.mark.parametrize(
    ("key", "algorithm", "parameters"),
    [
        pytest.param(KeyDemand("ec", curve="P-384"), EC, b"\x06\x05\x2b\x81\x04\x00\x22", id="EC"),
        pytest.param(KeyDemand("rsa", bits=3072), RSA, b"\x05\x00", id="RSA"),
        pytest.param(KeyDemand("ml-dsa-65"), "2.16.840.1.101.3.4.3.18", None, id="ML-DSA"),
    ],
)
def test_key_of_the_template(key: KeyDemand, algorithm: str, parameters: bytes | None) -> None:
    found = template(encode_csrattrs(Demands(key=key), "template"))["subjectPKInfo"]
    assert str(found["algorithm"]["algorithm"]) == algorithm
    assert (bytes(found["algorithm"]["parameters"]) if found["algorithm"]["parameters"].isValue else None) == parameters
    assert found["subjectPublicKey"].isValue is (key.algorithm == "rsa"), "a placeholder for RSA alone"


@pytest.mark.parametrize("bits", [2048, 3072, 4096, 2049])
def test_rsa_placeholder_has_the_size_that_is_wanted(bits: int) -> None:
    found = template(encode_csrattrs(Demands(key=KeyDemand("rsa", bits=bits)), "template"))["subjectPKInfo"]
    numbers = decode(found["subjectPublicKey"].asOctets(), None)
    assert (int(numbers[0]).bit_length(), int(numbers[1])) == (bits, 65537)


def test_extensions_of_the_template_whose_values_are_all_known() -> None:
    found = attributes(template(encode_csrattrs(Demands(ekus=(CLIENT_AUTH,), linking=True), "template")))
    assert set(found) == {EXTENSION_REQUEST, CHALLENGE_PASSWORD}
    assert found[CHALLENGE_PASSWORD] == [], "the value is the client's"
    (value,) = found[EXTENSION_REQUEST]
    assert [str(e["extnID"]) for e in decode(value, rfc5280.Extensions())] == [EKU]


def test_extensions_of_the_template_with_one_for_the_client_to_fill_in() -> None:
    found = attributes(template(encode_csrattrs(EVERYTHING, "template")))
    assert set(found) == {EXTENSION_TEMPLATE, CHALLENGE_PASSWORD, OTP_CHALLENGE}
    (value,) = found[EXTENSION_TEMPLATE]
    told = [(str(e["extnID"]), e["extnValue"].isValue) for e in decode(value, rfc9908.ExtensionReqTemplate())]
    assert told == [(SAN, False), (KEY_USAGE, True), (EKU, True)]


@pytest.mark.parametrize(
    "demands",
    [
        pytest.param(Demands(key=KeyDemand("ec")), id="EC without a curve"),
        pytest.param(Demands(key=KeyDemand("ec", curve="P-42")), id="an unknown curve"),
        pytest.param(Demands(key=KeyDemand("dsa")), id="an unknown algorithm"),
        pytest.param(Demands(subject=(("2.5.4.6", "Switzerland"),)), id="a value that cannot be"),
        pytest.param(Demands(key_usage=("everything",)), id="an unknown bit"),
    ],
)
def test_what_cannot_be_told(demands: Demands) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        encode_csrattrs(demands, "both")
