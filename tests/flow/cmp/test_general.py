"""genm: what is told, and that nothing else is (RFC 9810 §5.3.19, RFC 9483 §4.3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pyasn1.codec.der.decoder import decode
from pyasn1_alt_modules import rfc4211, rfc5280, rfc9480

from gateway.asn1 import cmp as asn1
from gateway.asn1.cmp import FailInfo
from gateway.assemble.cmp_template import encode_request_template
from gateway.cmp import General, GeneralInfo
from gateway.config.policy import PolicyConfig
from gateway.model import Grant, UpstreamCAName
from gateway.pki import der
from gateway.pki.certificate import CA_KEY_USAGE, Issuer, build_certificate, new_serial, parse_certificate
from gateway.pki.crl import build_crl
from gateway.pki.keys import public_key_der
from gateway.store.interfaces import CRLRow
from gateway.wire.cmp import requests
from tests.contract.store.rows import event
from tests.flow.cmp.cmp_world import DAY, CmpWorld, Told, ca_of, genm, key_of, maker_device

NOW = datetime.now(UTC).replace(microsecond=0)


def infos(told: Told) -> tuple[GeneralInfo, ...]:
    assert isinstance(told.received.body, General), told.received
    return told.received.body.infos


async def ask(world: CmpWorld, oid: str, value: bytes | None = None) -> GeneralInfo:
    [info] = infos(await world.send(genm(oid, value), maker_device()))
    return info


async def test_ca_certificates(world: CmpWorld) -> None:
    info = await ask(world, asn1.OID_CA_CERTS)
    assert info.value is not None
    found, rest = decode(info.value, asn1Spec=rfc9480.CaCertsValue())
    assert (len(found), rest) == (1, b"")
    assert der.content(der.SEQUENCE, info.value) == world.ca.chain()[0]


async def test_who_asks_nothing_is_told_nothing(world: CmpWorld) -> None:
    assert infos(await world.send(requests.genm(()), maker_device())) == ()


async def test_nothing_is_asked_twice(world: CmpWorld) -> None:
    """A CRL may be as long as a message: a short question does not get sixteen of them."""
    asked = requests.genm([GeneralInfo(asn1.OID_CURRENT_CRL), GeneralInfo(asn1.OID_CA_CERTS), GeneralInfo(asn1.OID_CURRENT_CRL)])
    assert (await world.send(asked, await world.secret())).failed == {FailInfo.BAD_REQUEST}


async def test_what_is_not_known_is_named(world: CmpWorld) -> None:
    asked = (GeneralInfo("1.2.3.4"), GeneralInfo(asn1.OID_SUPP_LANG_TAGS), GeneralInfo("1.2.3.5", der.null()))
    language, unknown = infos(await world.send(requests.genm(asked), maker_device()))
    assert language.value == der.sequence(der.utf8_string("en"))
    assert unknown == GeneralInfo(asn1.OID_UNSUPPORTED_OIDS, der.sequence(der.oid("1.2.3.4"), der.oid("1.2.3.5")))


@pytest.mark.parametrize(
    ("oid", "first"),
    [
        pytest.param(asn1.OID_SIGN_KEY_PAIR_TYPES, "1.2.840.113549.1.1.1", id="signing"),
        pytest.param(asn1.OID_ENC_KEY_PAIR_TYPES, "1.2.840.113549.1.1.1", id="encryption"),
    ],
)
async def test_kinds_of_keys(world: CmpWorld, oid: str, first: str) -> None:
    info = await ask(world, oid)
    assert info.value is not None
    body = der.content(der.SEQUENCE, info.value)
    found = [decode(body[start:end], asn1Spec=rfc5280.AlgorithmIdentifier())[0] for _, start, _, end in der.elements(body)]
    kinds = [str(each["algorithm"]) for each in found]
    assert kinds[0] == first
    assert len(kinds) == (1 if oid == asn1.OID_ENC_KEY_PAIR_TYPES else 5)


async def test_preferred_cipher(world: CmpWorld) -> None:
    info = await ask(world, asn1.OID_PREFERRED_SYMM_ALG)
    assert info.value == der.sequence(der.oid("2.16.840.1.101.3.4.1.42"))


async def test_no_certificate_to_encrypt_to(world: CmpWorld) -> None:
    assert (await ask(world, asn1.OID_CA_PROT_ENC_CERT)).value is None


# The next root


NEW, OLD = ca_of("New root"), ca_of("Old root")


def cross(issuer: str, subject: str) -> bytes:
    """The root `subject` certified by the root `issuer`."""
    parsed = parse_certificate(ca_of(subject))
    grant = Grant(parsed.subject.der, (), CA_KEY_USAGE, (), parsed.not_before, parsed.not_after)
    made = Issuer.from_certificate(ca_of(issuer), key_of(issuer))
    return build_certificate(made, new_serial(), grant, public_key_der(key_of(subject)), is_ca=True)


NEW_WITH_OLD, OLD_WITH_NEW = cross("Old root", "New root"), cross("New root", "Old root")


@pytest.mark.parametrize("order", [(NEW_WITH_OLD, OLD_WITH_NEW), (OLD_WITH_NEW, NEW_WITH_OLD)], ids=["in order", "the other way"])
async def test_the_next_root(world: CmpWorld, order: tuple[bytes, ...]) -> None:
    world.corp.terms = {"root_update": (NEW, *order)}
    info = await ask(world, asn1.OID_ROOT_CA_CERT, OLD)
    assert info.oid == asn1.OID_ROOT_CA_KEY_UPDATE
    assert info.value is not None
    found, rest = decode(info.value, asn1Spec=rfc9480.RootCaKeyUpdateValue())
    assert rest == b""
    assert found["newWithOld"].isValue
    assert found["oldWithNew"].isValue
    assert info.value == der.sequence(NEW, der.context(0, NEW_WITH_OLD), der.context(1, OLD_WITH_NEW))
    older = await ask(world, asn1.OID_CA_KEY_UPDATE_INFO)
    assert older.value == der.sequence(OLD_WITH_NEW, NEW_WITH_OLD, NEW)


@pytest.mark.parametrize(
    ("update", "asked"),
    [
        pytest.param((), OLD, id="no root is next"),
        pytest.param((NEW, NEW_WITH_OLD), NEW, id="it has the new one"),
        pytest.param((NEW, NEW_WITH_OLD), ca_of("Stranger"), id="another root"),
    ],
)
async def test_no_next_root(world: CmpWorld, update: tuple[bytes, ...], asked: bytes) -> None:
    world.corp.terms = {"root_update": update}
    assert await ask(world, asn1.OID_ROOT_CA_CERT, asked) == GeneralInfo(asn1.OID_ROOT_CA_KEY_UPDATE)


# Templates


async def test_a_template_of_the_policy(world: CmpWorld) -> None:
    policy = PolicyConfig.model_validate(
        {
            "subject": {"require": ("CN",), "override": {"O": "Example"}},
            "key": {"rsa": None, "ec": ("P-384",), "eddsa": ()},
            "eku": {"allow": ("clientAuth",), "default": ("clientAuth",)},
            "san": {"require": True, "dns": {"patterns": (r".*\.example",)}},
        }
    )
    template = encode_request_template(policy)
    assert template is not None
    found, rest = decode(template, asn1Spec=rfc9480.CertReqTemplateContent())
    assert rest == b""
    assert len(found["certTemplate"]["extensions"]) >= 2
    assert str(found["keySpec"][0]["type"]) == "1.3.6.1.5.5.7.5.1.11"
    assert isinstance(found["certTemplate"], rfc4211.CertTemplate)
    world.corp.terms = {"request_template": template}
    assert (await ask(world, asn1.OID_CERT_REQ_TEMPLATE)).value == template


async def test_an_rsa_key_is_told_by_its_size() -> None:
    policy = PolicyConfig.model_validate({"key": {"rsa": {"min_bits": 3072, "max_bits": 4096}, "ec": (), "eddsa": ()}})
    template = encode_request_template(policy)
    assert template is not None
    found, _ = decode(template, asn1Spec=rfc9480.CertReqTemplateContent())
    assert str(found["keySpec"][0]["type"]) == "1.3.6.1.5.5.7.5.1.12"
    assert template.endswith(der.integer(3072))


async def test_no_template(world: CmpWorld) -> None:
    assert (await ask(world, asn1.OID_CERT_REQ_TEMPLATE)).value is None


# CRLs


async def put_crl(world: CmpWorld) -> bytes:
    issuer = Issuer.from_certificate(world.ca.chain()[0], world.ca._key)
    crl = build_crl(issuer, 1, NOW - DAY, NOW + DAY, [])
    row = CRLRow(UpstreamCAName(world.ca.name), 1, crl, NOW - DAY, NOW + DAY)
    assert await world.store.put_crl(row, event("crl.signed"))
    return crl


def source(world: CmpWorld, *, issuer: bytes | None = None, than: datetime | None = None) -> bytes:
    name = der.context(4, issuer or parse_certificate(world.ca.chain()[0]).subject.der)
    time = b"" if than is None else der.time(than)
    return der.sequence(der.sequence(der.context(1, der.sequence(name)), time))


async def test_the_current_crl(world: CmpWorld) -> None:
    assert (await ask(world, asn1.OID_CURRENT_CRL)).value is None
    crl = await put_crl(world)
    assert (await ask(world, asn1.OID_CURRENT_CRL)).value == crl


async def test_a_crl_that_is_newer_than_the_clients(world: CmpWorld) -> None:
    crl = await put_crl(world)
    question = source(world)
    decode(question, asn1Spec=rfc9480.CRLStatusListValue())
    assert await ask(world, asn1.OID_CRL_STATUS_LIST, question) == GeneralInfo(asn1.OID_CRLS, der.sequence(crl))
    older = source(world, than=NOW - 2 * DAY)
    assert (await ask(world, asn1.OID_CRL_STATUS_LIST, older)).value == der.sequence(crl)
    point = der.sequence(der.sequence(der.context(0, der.context(0, der.context(6, b"http://crl.example/1", constructed=False)))))
    decode(point, asn1Spec=rfc9480.CRLStatusListValue())
    assert (await ask(world, asn1.OID_CRL_STATUS_LIST, point)).value == der.sequence(crl)


async def test_no_crl_of_others_and_none_that_the_client_has(world: CmpWorld) -> None:
    await put_crl(world)
    for question in (source(world, than=NOW - timedelta(hours=1)), source(world, issuer=parse_certificate(NEW).subject.der)):
        assert await ask(world, asn1.OID_CRL_STATUS_LIST, question) == GeneralInfo(asn1.OID_CRLS)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(der.null(), id="no list"),
        pytest.param(der.sequence(), id="an empty list"),
        pytest.param(der.sequence(der.sequence()), id="no source"),
        pytest.param(der.sequence(der.sequence(der.null())), id="another source"),
        pytest.param(der.sequence(*[der.sequence()] * 17), id="too many"),
    ],
)
async def test_questions_that_cannot_be_read(world: CmpWorld, value: bytes) -> None:
    told = await world.send(genm(asn1.OID_CRL_STATUS_LIST, value), maker_device())
    assert told.failed == {asn1.FailInfo.BAD_DATA_FORMAT}
