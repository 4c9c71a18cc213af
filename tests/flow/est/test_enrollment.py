"""EST end to end: certificates for those who prove who they are, over every way by which they may come (RFC 7030)."""

import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pytest

from gateway.pki.certificate import der_to_pem, parse_certificate
from gateway.pki.keys import generate_private_key, public_key_der
from gateway.pki.names import format_name
from gateway.ra.credentials.passwords import hash_password
from gateway.wire.est import messages
from gateway.wire.est.client import basic_authorization, get_request, post_request
from gateway.wire.est.renewal_info import format_certificate_id
from tests.flow.est.connection import Connection, decoded
from tests.flow.est.fleet import EstFleet, Holder, Settings, Wanted, serving
from tests.flow.scep.fleet import static, write_secret
from tests.flow.scep.other_ca import OtherCA
from tests.flow.scep.raw import RawAnswer
from tests.flow.scep.service import make_folder

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
MAKER = OtherCA.create("Maker")
DEVICE_KEY = generate_private_key("ec-p256")
DEVICE = Holder("device", MAKER.issue(DEVICE_KEY, "CN=device-1"), DEVICE_KEY)
PASSWORD = "correct horse battery staple"
LOGIN = {"Authorization": basic_authorization("device-1", PASSWORD)}
BASIC = {"type": "basic", "users": {"file": "secrets/users"}}
MAKERS = {"type": "tls_certificate", "anchors": "ca/maker.pem"}
RENEWAL = {"messages": ["simplereenroll"]}
PROFILES: dict[str, Settings] = {
    "factory": {
        "credentials": [MAKERS, BASIC],
        "renewal": {"from": ["factory"], "window": "400d"} | RENEWAL,
        "est": {"default": True, "renewal_info": True},
    },
    "slow": {"credentials": [BASIC], "approval": "manual", "est": {"label": "ca:2"}},
    "linked": {"credentials": [BASIC], "est": {"pop_linking": "require"}},
    "codes": {"credentials": [static("codes")], "est": {"pop_linking": "if_present"}},
}


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[EstFleet]:
    folder = make_folder(tmp_path / "s")
    (folder / "ca/maker.pem").write_bytes(MAKER.pem)
    write_secret(folder / "secrets/users", f"device-1:{hash_password(PASSWORD.encode())}\n".encode())
    async with serving(folder, PROFILES) as fleet:
        yield fleet


async def fetch(fleet: EstFleet, operation: str, label: str | None = None) -> RawAnswer:
    connection = await fleet.connect()
    answer = await connection.ask(get_request(operation, label))
    connection.close()
    return answer


def tie(wanted: Wanted, attribute: str, text: str) -> Wanted:
    """Return the request with a text in one of its attributes; without a name as it is."""
    return replace(wanted, **{attribute: text}) if attribute else wanted  # type: ignore[arg-type]


def names(certificate: bytes) -> tuple[str, str]:
    parsed = parse_certificate(certificate)
    return format_name(parsed.subject), format_name(parsed.issuer)


async def test_ca_certificates_are_the_whole_chain(fleet: EstFleet) -> None:
    answer = decoded(messages.CACERTS, await fetch(fleet, messages.CACERTS))
    chain = list(map(parse_certificate, answer.certificates))
    assert chain[-1].subject == chain[-1].issuer
    assert all(one.issuer == above.subject for one, above in pairwise(chain))
    labelled = decoded(messages.CACERTS, await fetch(fleet, messages.CACERTS, "factory"))
    assert labelled.certificates == answer.certificates


async def test_attributes_are_told(fleet: EstFleet) -> None:
    assert decoded(messages.CSRATTRS, await fetch(fleet, messages.CSRATTRS, "ca:2")).csrattrs


@pytest.mark.parametrize(
    ("holder", "headers"), [pytest.param(DEVICE, {}, id="makers-certificate"), pytest.param(None, LOGIN, id="password")]
)
@pytest.mark.parametrize("label", [None, "factory"], ids=["default", "label"])
@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["tls-1.2", "tls-1.3"])
async def test_enrollment(
    fleet: EstFleet, holder: Holder | None, headers: dict[str, str], label: str | None, version: ssl.TLSVersion
) -> None:
    wanted = Wanted()
    connection = await fleet.connect(holder, version=version)
    answer = decoded(messages.SIMPLEENROLL, await connection.ask(post_request(messages.SIMPLEENROLL, wanted.csr, label), headers))
    connection.close()
    assert answer.status == 200, answer
    [leaf] = answer.certificates
    assert parse_certificate(leaf).public_key.der == public_key_der(wanted.key)
    assert names(leaf)[0] == "CN=device-1"


async def test_a_password_is_asked_for(fleet: EstFleet) -> None:
    raw = await fleet.send(None, "factory", messages.SIMPLEENROLL, Wanted())
    assert (raw.status, raw.headers["www-authenticate"]) == (401, 'Basic realm="pki-gateway", charset="UTF-8"')
    assert (await fleet.send(None, "factory", messages.SIMPLEENROLL, Wanted(), LOGIN)).status == 200


async def test_the_same_request_gets_the_same_certificate(fleet: EstFleet) -> None:
    wanted = Wanted()
    answers = [decoded("simpleenroll", await fleet.send(DEVICE, "factory", "simpleenroll", wanted)) for _ in range(3)]
    assert len({answer.certificates for answer in answers}) == 1
    other = decoded("simpleenroll", await fleet.send(DEVICE, "factory", "simpleenroll", Wanted()))
    assert other.certificates != answers[0].certificates
    assert await fleet.certificates() == 2


@pytest.mark.parametrize("rekeys", [True, False], ids=["rekey", "renew"])
async def test_renewal(fleet: EstFleet, rekeys: bool) -> None:
    first = await fleet.enroll(DEVICE, "factory", Wanted())
    wanted = Wanted(key=generate_private_key("ec-p256") if rekeys else first.key)
    second = await fleet.enroll(first, "factory", wanted, operation=messages.SIMPLEREENROLL)
    assert second.certificate != first.certificate
    assert names(second.certificate) == names(first.certificate)
    assert parse_certificate(second.certificate).public_key.der == public_key_der(wanted.key)


async def test_a_renewal_under_another_name(fleet: EstFleet) -> None:
    first = await fleet.enroll(DEVICE, "factory", Wanted())
    raw = await fleet.send(first, "factory", messages.SIMPLEREENROLL, Wanted("CN=device-2"))
    assert (raw.status, raw.body) == (403, b"a renewal keeps subject and subject alternative names\n")


async def test_when_to_renew(fleet: EstFleet) -> None:
    certificate = parse_certificate((await fleet.enroll(DEVICE, "factory", Wanted())).certificate)
    name = format_certificate_id(certificate.authority_key_id or b"", certificate.serial)
    raw = await fetch(fleet, f"renewal-info/{name}")
    assert (raw.status, raw.media_type) == (200, "application/json")
    assert set(json.loads(raw.body)["suggestedWindow"]) == {"start", "end"}
    assert (await fetch(fleet, f"renewal-info/{name[:-4]}AAAA")).status == 404
    assert (await fetch(fleet, f"renewal-info/{name}", "linked")).status == 404


async def test_a_request_that_waits(fleet: EstFleet) -> None:
    """The same device asks again over other connections, with a CSR signed anew for each, until it is approved."""
    wanted = Wanted(key=generate_private_key("ec-p256"))
    for _ in range(2):
        raw = await ask_linked(fleet, "ca:2", wanted)
        assert raw.status == 202
        assert int(raw.headers["retry-after"]) > 0
    [waiting] = await fleet.service.run("GET", "/v1/requests")
    await fleet.service.run("POST", f"/v1/requests/{waiting['id']}/approve")
    answer = decoded(messages.SIMPLEENROLL, await ask_linked(fleet, "ca:2", wanted))
    assert answer.status == 200
    assert parse_certificate(answer.certificates[0]).public_key.der == public_key_der(wanted.key)


async def ask_linked(fleet: EstFleet, label: str, wanted: Wanted) -> RawAnswer:
    """Ask over a connection of its own, to which the CSR is tied."""
    connection = await fleet.connect()
    linked = Wanted(wanted.subject, wanted.key, link=connection.binding)
    answer = await connection.ask(post_request(messages.SIMPLEENROLL, linked.csr, label), LOGIN)
    connection.close()
    return answer


@pytest.mark.parametrize(
    ("version", "attribute", "status", "said"),
    [
        pytest.param(TLS_1_2, "link", 200, "", id="est-identity-linking"),
        pytest.param(TLS_1_2, "password", 200, "", id="challenge-password"),
        pytest.param(TLS_1_2, "", 400, "", id="not-linked"),
        pytest.param(TLS_1_3, "link", 400, "connect with TLS 1.2", id="tls-1.3"),
    ],
)
async def test_links_that_are_required(fleet: EstFleet, version: ssl.TLSVersion, attribute: str, status: int, said: str) -> None:
    connection = await fleet.connect(version=version)
    wanted = tie(Wanted(), attribute, connection.binding)
    raw = await connection.ask(post_request(messages.SIMPLEENROLL, wanted.csr, "linked"), LOGIN)
    connection.close()
    assert raw.status == status, raw
    assert said in raw.body.decode()


@pytest.mark.parametrize("profile", ["factory", "linked"])
async def test_links_of_another_connection(fleet: EstFleet, profile: str) -> None:
    other = await fleet.connect()
    wanted = Wanted(link=other.binding)
    assert (await fleet.send(None, profile, messages.SIMPLEENROLL, wanted, LOGIN)).status == 400
    other.close()


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["tls-1.2", "tls-1.3"])
@pytest.mark.parametrize("attribute", ["password", "otp"])
async def test_a_challenge_is_no_link(fleet: EstFleet, attribute: str, version: ssl.TLSVersion) -> None:
    secret = (fleet.folder / "secrets/codes-challenge").read_text().strip()
    connection = await fleet.connect(version=version)
    wanted = tie(Wanted(), attribute, secret)
    raw = await connection.ask(post_request(messages.SIMPLEENROLL, wanted.csr, "codes"))
    connection.close()
    assert raw.status == 200, raw


FORMS: dict[str, tuple[str, Callable[[bytes], str]]] = {
    "rfc9440": ("Client-Cert", lambda der: f":{base64.b64encode(der).decode()}:"),
    "nginx": ("X-SSL-Client-Cert", lambda der: quote(der_to_pem(der))),
    "envoy": ("X-Forwarded-Client-Cert", lambda der: f'Hash={hashlib.sha256(der).hexdigest()};Cert="{quote(der_to_pem(der))}"'),
    "haproxy": ("X-SSL-Client-Cert", lambda der: base64.b64encode(der).decode()),
}


@pytest.mark.parametrize("form", list(FORMS))
async def test_a_proxy(tmp_path: Path, form: str) -> None:
    """What it says is judged as what TLS says: by the profile's anchors; its absence leaves nobody."""
    folder = make_folder(tmp_path / "s")
    (folder / "ca/maker.pem").write_bytes(MAKER.pem)
    proxy = {"addresses": ["127.0.0.1/32"], "client_certificate": form, "client_address": True}
    name, spell = FORMS[form]
    stranger = OtherCA.create("Stranger").issue(DEVICE_KEY, "CN=device-1")
    async with serving(folder, {"factory": {"credentials": [MAKERS]}}, {"proxies": [proxy]}) as fleet:
        connection = await Connection.open(fleet.service.port, None)
        for certificate, status in ((DEVICE.certificate, 200), (stranger, 403), (None, 403)):
            headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"} | (
                {name: spell(certificate)} if certificate else {}
            )
            raw = await connection.ask(post_request(messages.SIMPLEENROLL, Wanted().csr, "factory"), headers)
            assert raw.status == status, raw
        connection.close()
        sources = [json.loads(row)["source"] for row in await fleet.service.audit() if '"operation":"simpleenroll"' in row]
    assert set(sources) == {"203.0.113.9"}


async def test_what_proxies_say_is_not_read_from_others(fleet: EstFleet) -> None:
    for name, spell in FORMS.values():
        headers = {name: spell(DEVICE.certificate), "X-Forwarded-For": "203.0.113.9"}
        assert (await fleet.send(None, "factory", messages.SIMPLEENROLL, Wanted(), headers)).status == 401
    assert all("203.0.113.9" not in row for row in await fleet.service.audit())


async def test_certificates_of_unknown_cas_end_in_a_tls_alert(fleet: EstFleet) -> None:
    stranger = Holder("stranger", OtherCA.create("Stranger").issue(DEVICE_KEY, "CN=device-1"), DEVICE_KEY)
    assert (await fleet.send(stranger, "factory", messages.SIMPLEENROLL, Wanted())).status == 0


async def test_an_expired_certificate_is_let_in_by_tls_and_refused_with_a_reason(fleet: EstFleet) -> None:
    expired = MAKER.issue(DEVICE_KEY, "CN=device-1", begins=timedelta(days=-9), ends=timedelta(days=-1))
    raw = await fleet.send(Holder("expired", expired, DEVICE_KEY), "factory", messages.SIMPLEENROLL, Wanted())
    assert raw.status in {401, 403}
    assert await fleet.certificates() == 0
