"""fullcmc through the whole service: answers and refusals are CMC's own, signed by the endpoint's pair (RFC 7030 §4.3)."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from gateway.asn1 import cmc as asn1
from gateway.asn1 import cms as asn1_cms
from gateway.asn1.cmc import CmcFailInfo, CmcStatus
from gateway.asn1.est import OID_CHANGE_SUBJECT_NAME
from gateway.pki import cms, der
from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.keys import generate_private_key, public_key_der, serialize_private_key
from gateway.pki.signed_content import content_info, sign_content
from gateway.wire.est.client import EstRequest
from gateway.wire.est.messages import MEDIA_CMC_REQUEST, MEDIA_CMC_RESPONSE, decode_base64, encode_base64
from tests.flow.est.fleet import EstFleet, Holder, Settings, Wanted, own_ca, serving, write_pair
from tests.flow.scep.fleet import challenge_file, static
from tests.flow.scep.other_ca import OtherCA
from tests.flow.scep.raw import RawAnswer
from tests.flow.scep.service import make_folder
from tests.unit.wire.est.cmc_messages import NONCE, TRANSACTION, Response, control, pki_data, read_response, tcr

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATION = "fullcmc"
MAKERS, RAS = OtherCA.create("Makers"), OtherCA.create("RAs")
MAKER_KEY, RA_KEY = generate_private_key("ec-p256"), generate_private_key("ec-p256")
MAKER = Holder("device", MAKERS.issue(MAKER_KEY, "CN=device-1"), MAKER_KEY)
RA = Holder("ra", RAS.issue(RA_KEY, "CN=ra-1", ekus=("cmcRA", "clientAuth")), RA_KEY)
TWO_FAILURES = {"failures_per_address": {"count": 2, "window": "10m"}}
ALL_CONTROLS = (control(5, asn1.OID_TRANSACTION_ID, TRANSACTION), control(6, asn1.OID_SENDER_NONCE, NONCE))


def by_another(password: str) -> bytes:
    return signed(Wanted("CN=device-1", password=password), by=MAKER)


def broken_signature(password: str) -> bytes:
    message = signed(Wanted(password=password))
    return message[:-1] + bytes([message[-1] ^ 1])


def unserved_control(password: str) -> bytes:
    return signed(Wanted(password=password), (control(5, "1.3.6.1.5.5.7.7.24", der.integer(1)),))


def two_requests(password: str) -> bytes:
    wanted = Wanted(password=password)
    own = parse_certificate(OtherCA.create("unused").issue(wanted.key, wanted.subject))
    data = pki_data((tcr(wanted.csr, 7), tcr(wanted.csr, 8)), ())
    content = sign_content(asn1.OID_PKI_DATA, data, cms.Signer.create(own.der, wanted.key))
    return content_info(asn1_cms.OID_SIGNED_DATA, content)


def no_message(_: str) -> bytes:
    return der.sequence(der.integer(1))


def weak_digest(password: str) -> bytes:
    wanted = Wanted(password=password)
    own = parse_certificate(OtherCA.create("unused").issue(wanted.key, wanted.subject))
    with tempfile.NamedTemporaryFile(suffix=".pem") as pair:
        pair.write(der_to_pem(own.der) + serialize_private_key(wanted.key))
        pair.flush()
        command = ["openssl", "cms", "-sign", "-outform", "DER", "-nodetach", "-binary", "-md", "sha1", "-nosmimecap"]
        command += ["-econtent_type", asn1.OID_PKI_DATA, "-signer", pair.name]
        return subprocess.run(command, input=pki_data((tcr(wanted.csr),)), capture_output=True, check=True).stdout


def wrong_password(_: str) -> bytes:
    return signed(Wanted(password="wrong-wrong-wrong"))


COUNTED = {
    f"counted-{number}": make
    for number, make in enumerate(
        (by_another, broken_signature, unserved_control, two_requests, no_message, weak_digest, wrong_password)
    )
}
"""Each in a profile of its own: messages that are refused."""


def profiles(folder: Path) -> dict[str, Settings]:
    cmc = {"cmc": write_pair(folder, "cmc-signer")}
    for name, ca in (("makers", MAKERS), ("ras", RAS)):
        (folder / f"{name}.pem").write_bytes(ca.pem)
    maker = {"type": "tls_certificate", "anchors": "makers.pem", "names": "any"}
    ra = {"type": "ra_certificate", "anchors": "ras.pem", "subjects": ["CN=ra-1"]}
    strict = {"subject": {"require": ["O"]}}
    return {
        "cmc": {"credentials": [static("cmc")], "est": cmc},
        "strict": {"credentials": [static("strict")], "policy": strict, "est": cmc},
        "manual": {"credentials": [static("manual")], "approval": "manual", "est": cmc},
        "maker": {"credentials": [maker], "est": cmc},
        "ra": {"credentials": [ra], "est": cmc},
        "without": {"credentials": [static("without")]},
        **{name: {"credentials": [static(name)], "est": cmc, "limits": TWO_FAILURES} for name in COUNTED},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EstFleet]:
    folder = make_folder(tmp_path_factory.mktemp("cmc") / "state")
    async with serving(folder, profiles(folder)) as fleet:
        yield fleet


def secret(fleet: EstFleet, profile: str) -> str:
    return (fleet.folder / challenge_file(profile)).read_text()


def signed(wanted: Wanted, controls: Iterable[bytes] = (), by: Holder | None = None) -> bytes:
    """A Full PKI Request, signed by a holder or else by its own key."""
    data = pki_data((tcr(wanted.csr),), controls)
    if by is None:
        own = parse_certificate(OtherCA.create("unused").issue(wanted.key, wanted.subject))
        signer = cms.Signer.create(own.der, wanted.key)
    else:
        signer = cms.Signer.create(by.certificate, by.key)
    return content_info(asn1_cms.OID_SIGNED_DATA, sign_content(asn1.OID_PKI_DATA, data, signer))


async def post(
    fleet: EstFleet, profile: str, message: bytes, holder: Holder | None = None, media_type: str = MEDIA_CMC_REQUEST
) -> RawAnswer:
    connection = await fleet.connect(holder)
    body = encode_base64(message, True)
    answer = await connection.ask(
        EstRequest("POST", f"/.well-known/est/{profile}/{OPERATION}", {"Content-Type": media_type}, body)
    )
    connection.close()
    return answer


def response_of(fleet: EstFleet, answer: RawAnswer) -> Response:
    assert answer.media_type == MEDIA_CMC_RESPONSE, answer
    assert answer.headers["content-transfer-encoding"] == "base64"
    message = decode_base64(answer.body)
    signer = parse_certificate(cms.parse_signed_data(message).certificates[0])
    assert (fleet.folder / "ca" / "cmc-signer.pem").read_bytes() == der_to_pem(signer.der)
    return read_response(message, signer.public_key.der)


def issued(fleet: EstFleet, answer: RawAnswer, wanted: Wanted) -> Response:
    """A success with the certificate of this request and its whole chain."""
    assert answer.status == 200, answer
    response = response_of(fleet, answer)
    assert (response.status, response.parts) == (CmcStatus.SUCCESS, [7])
    _, leaf, *chain = map(parse_certificate, response.certificates)
    assert leaf.public_key.der == public_key_der(wanted.key)
    assert own_ca(fleet.folder).certificate in [certificate.der for certificate in chain]
    return response


def refused(fleet: EstFleet, answer: RawAnswer, status: int, fail_info: CmcFailInfo, parts: list[int]) -> Response:
    assert answer.status == status, answer
    response = response_of(fleet, answer)
    assert (response.status, response.fail_info, response.parts) == (CmcStatus.FAILED, fail_info, parts)
    assert len(response.certificates) == 1
    return response


@pytest.mark.parametrize("profile", COUNTED, ids=lambda profile: COUNTED[profile].__name__)
async def test_a_refused_message_is_a_failure_of_its_address(fleet: EstFleet, profile: str) -> None:
    password = secret(fleet, profile)
    assert 400 <= (await post(fleet, profile, COUNTED[profile](password))).status < 429
    wanted = Wanted(password=password)
    issued(fleet, await post(fleet, profile, signed(wanted)), wanted)
    assert 400 <= (await post(fleet, profile, COUNTED[profile](password))).status < 429
    answer = await post(fleet, profile, signed(Wanted(password=password)))
    assert (answer.status, answer.media_type) == (429, "text/plain"), answer


async def test_a_first_certificate(fleet: EstFleet) -> None:
    wanted = Wanted(password=secret(fleet, "cmc"))
    response = issued(fleet, await post(fleet, "cmc", signed(wanted, ALL_CONTROLS)), wanted)
    assert response.controls[asn1.OID_TRANSACTION_ID] == TRANSACTION
    assert response.controls[asn1.OID_RECIPIENT_NONCE] == NONCE
    assert len(der.content(der.OCTET_STRING, response.controls[asn1.OID_SENDER_NONCE])) == 16


async def test_a_retransmission_gets_the_same_certificate(fleet: EstFleet) -> None:
    wanted = Wanted(password=secret(fleet, "cmc"))
    answers = [await post(fleet, "cmc", signed(wanted, ALL_CONTROLS)) for _ in range(2)]
    first, second = (issued(fleet, answer, wanted).certificates for answer in answers)
    assert first == second


async def test_a_tls_client_signs(fleet: EstFleet) -> None:
    wanted = Wanted("CN=device-1")
    issued(fleet, await post(fleet, "maker", signed(wanted, by=MAKER), MAKER), wanted)


async def test_a_registration_authority_signs_for_a_device(fleet: EstFleet) -> None:
    wanted = Wanted("CN=device-7")
    issued(fleet, await post(fleet, "ra", signed(wanted, by=RA), RA), wanted)


async def test_a_signer_that_is_not_the_tls_client_is_refused(fleet: EstFleet) -> None:
    wanted = Wanted("CN=device-1", password=secret(fleet, "cmc"))
    refused(fleet, await post(fleet, "cmc", signed(wanted, by=MAKER)), 400, CmcFailInfo.BAD_MESSAGE_CHECK, [0])
    refused(fleet, await post(fleet, "maker", signed(wanted, by=RA), MAKER), 400, CmcFailInfo.BAD_MESSAGE_CHECK, [0])


@pytest.mark.parametrize("password", [None, "wrong-wrong-wrong"], ids=["none", "wrong"])
async def test_who_proves_nothing_gets_nothing(fleet: EstFleet, password: str | None) -> None:
    before = await fleet.certificates()
    answer = await post(fleet, "cmc", signed(Wanted(password=password), ALL_CONTROLS))
    response = refused(fleet, answer, 403, CmcFailInfo.BAD_IDENTITY, [7])
    assert response.controls[asn1.OID_RECIPIENT_NONCE] == NONCE
    assert await fleet.certificates() == before


async def test_another_profiles_secret_is_no_proof(fleet: EstFleet) -> None:
    wanted = Wanted(password=secret(fleet, "strict"))
    refused(fleet, await post(fleet, "cmc", signed(wanted)), 403, CmcFailInfo.BAD_IDENTITY, [7])


async def test_a_signature_alone_is_no_proof(fleet: EstFleet) -> None:
    refused(fleet, await post(fleet, "maker", signed(Wanted("CN=device-1"))), 403, CmcFailInfo.BAD_IDENTITY, [7])


async def test_policy(fleet: EstFleet) -> None:
    wanted = Wanted(password=secret(fleet, "strict"))
    response = refused(fleet, await post(fleet, "strict", signed(wanted)), 403, CmcFailInfo.BAD_REQUEST, [7])
    assert "O" in response.text


@pytest.mark.parametrize(
    ("oid", "fail_info"),
    [
        pytest.param(asn1.OID_IDENTITY_PROOF_V2, CmcFailInfo.BAD_IDENTITY, id="identity-proof"),
        pytest.param(asn1.OID_LRA_POP_WITNESS, CmcFailInfo.POP_FAILED, id="pop-witness"),
        pytest.param(asn1.OID_MOD_CERT_TEMPLATE, CmcFailInfo.BAD_REQUEST, id="modified-request"),
        pytest.param(asn1.OID_REVOKE_REQUEST, CmcFailInfo.BAD_REQUEST, id="revocation"),
        pytest.param("1.2.3.4", CmcFailInfo.BAD_REQUEST, id="unknown"),
    ],
)
async def test_other_controls(fleet: EstFleet, oid: str, fail_info: CmcFailInfo) -> None:
    before = await fleet.certificates()
    wanted = Wanted(password=secret(fleet, "cmc"))
    answer = await post(fleet, "cmc", signed(wanted, (*ALL_CONTROLS, control(9, oid, NONCE))))
    response = refused(fleet, answer, 400, fail_info, [9])
    assert response.controls[asn1.OID_TRANSACTION_ID] == TRANSACTION
    assert await fleet.certificates() == before


async def test_another_name_by_an_attribute(fleet: EstFleet) -> None:
    attribute = der.sequence(der.oid(OID_CHANGE_SUBJECT_NAME), der.set_of(der.sequence(der.sequence())))
    wanted = Wanted(password=secret(fleet, "cmc"), attributes=(attribute,))
    refused(fleet, await post(fleet, "cmc", signed(wanted)), 403, CmcFailInfo.BAD_REQUEST, [7])


async def test_what_waits_is_sent_again(fleet: EstFleet) -> None:
    wanted = Wanted("CN=patient", password=secret(fleet, "manual"))
    answer = await post(fleet, "manual", signed(wanted, ALL_CONTROLS))
    assert answer.status == 202
    assert int(answer.headers["retry-after"]) > 0
    response = response_of(fleet, answer)
    assert (response.status, response.parts) == (CmcStatus.PENDING, [7])
    assert response.pending is not None
    [row] = await fleet.service.run("GET", "/v1/requests", limit=10)
    assert response.pending[0].decode() == row["id"]
    await fleet.service.run("POST", f"/v1/requests/{row['id']}/approve")
    for _ in range(100):
        answer = await post(fleet, "manual", signed(wanted, ALL_CONTROLS))
        if answer.status != 202:
            break
        await fleet.service.gateway.authority.recover(fleet.service.gateway.generation.snapshot)
    issued(fleet, answer, wanted)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x30\x00", id="nothing"),
        pytest.param(b"not even base64 within", id="text"),
        pytest.param(Wanted().csr, id="simple-request"),
        pytest.param(content_info("1.2.840.113549.1.7.1", der.octet_string(b"data")), id="data"),
    ],
)
async def test_what_is_no_cmc_is_refused_in_plain_text(fleet: EstFleet, message: bytes) -> None:
    answer = await post(fleet, "cmc", message)
    assert answer.status == 400
    assert answer.media_type == "text/plain"


async def test_where_nothing_can_sign_answers_it_is_not_offered(fleet: EstFleet) -> None:
    assert (await post(fleet, "without", signed(Wanted()))).status == 404


@pytest.mark.parametrize("media_type", ["application/pkcs10", "application/pkcs7-mime; smime-type=certs-only"])
async def test_other_media_types(fleet: EstFleet, media_type: str) -> None:
    assert (await post(fleet, "cmc", signed(Wanted()), media_type=media_type)).status == 415


async def test_the_log_says_what_it_says_of_others(fleet: EstFleet) -> None:
    wanted = Wanted("CN=logged", password=secret(fleet, "cmc"))
    with capture_logs() as lines:
        await post(fleet, "cmc", signed(wanted))
    [line] = [line for line in lines if line["event"] == "est"]
    found: dict[str, Any] = {key: line[key] for key in ("operation", "outcome", "subject", "profile")}
    assert found == {"operation": "fullcmc", "outcome": "issued", "subject": "CN=logged", "profile": "cmc"}
