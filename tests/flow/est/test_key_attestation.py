"""Keys that devices attest in their CSRs: certified with what was attested, refused where it is not good."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.asn1 import attestation as oids
from gateway.model import Evidence
from gateway.pki import der
from gateway.pki.certificate import parse_certificate
from gateway.pki.keys import generate_private_key
from gateway.pki.names import format_name
from gateway.ra.credentials.passwords import hash_password
from gateway.wire.est import messages
from gateway.wire.est.client import basic_authorization
from tests.attesting import Maker, Tpm, YubiKey
from tests.flow.est.connection import decoded
from tests.flow.est.fleet import EstFleet, Settings, Wanted, serving
from tests.flow.scep.fleet import write_secret
from tests.flow.scep.service import make_folder
from tests.unit.validation.attestation.test_requests import said_by_tpm, said_by_yubikey

PASSWORD = "correct horse battery staple"
LOGIN = {"Authorization": basic_authorization("device-1", PASSWORD)}
BASIC = {"type": "basic", "users": {"file": "secrets/users"}}
CHIPS, KEYS, STRANGERS = (Maker.create(name) for name in ("Chips", "Keys", "Strangers"))
ATTESTED = {"tpm_roots": "ca/tpm.pem", "step_roots": "ca/step.pem"}
PROFILES: dict[str, Settings] = {
    "named": {
        "credentials": [BASIC | {"names": "any"}],
        "key_attestation": {**ATTESTED, "require": True},
        "policy": {"subject": {"template": "CN={attested.permanent_identifier},O={attested.format}"}},
    },
    "liberal": {"credentials": [BASIC], "key_attestation": ATTESTED},
    "blind": {"credentials": [BASIC], "renewal": {"from": ["blind"], "messages": ["simplereenroll"]}},
    "keys": {
        "credentials": [BASIC],
        "key_attestation": {**ATTESTED, "require": True},
        "est": {"server_keygen": {"keys": ["ec-p256"]}},
    },
}


@pytest.fixture(scope="module")
def tpm() -> Tpm:
    return Tpm(CHIPS)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[EstFleet]:
    folder = make_folder(tmp_path / "s")
    (folder / "ca/tpm.pem").write_bytes(CHIPS.pem)
    (folder / "ca/step.pem").write_bytes(KEYS.pem)
    write_secret(folder / "secrets/users", f"device-1:{hash_password(PASSWORD.encode())}\n".encode())
    async with serving(folder, PROFILES) as fleet:
        yield fleet


def bundle(said: Evidence) -> bytes:
    """The attribute by which a PKCS#10 carries a statement."""
    statement = der.sequence(der.oid(said.type), said.statement)
    value = der.sequence(der.sequence(statement), der.sequence(*said.certificates))
    return der.sequence(der.oid(oids.OID_ATTESTATION), der.set_of(value))


def wanted_by(device: Tpm | YubiKey, said: Evidence | None = None) -> Wanted:
    said = said or (said_by_tpm(device) if isinstance(device, Tpm) else said_by_yubikey(device))
    return Wanted(key=device.key, attributes=(bundle(said),))


async def ask(fleet: EstFleet, profile: str, wanted: Wanted, operation: str = messages.SIMPLEENROLL) -> tuple[int, str]:
    """Return the status and the subject that was certified, or why not."""
    answer = await fleet.send(None, profile, operation, wanted, LOGIN)
    if answer.status != 200:
        return answer.status, answer.body.decode()
    return 200, format_name(parse_certificate(decoded(operation, answer).certificates[0]).subject)


async def test_what_was_attested_becomes_the_name(fleet: EstFleet, tpm: Tpm) -> None:
    assert await ask(fleet, "named", wanted_by(tpm)) == (200, "CN=TPM-SERIAL-0001,O=tpm")
    assert await ask(fleet, "named", wanted_by(YubiKey(KEYS))) == (200, "CN=16023607,O=step")


async def test_who_attests_nothing(fleet: EstFleet) -> None:
    status, why = await ask(fleet, "named", Wanted())
    assert (status, "wants an attestation" in why) == (403, True)
    assert (await ask(fleet, "liberal", Wanted()))[0] == 200


@pytest.mark.parametrize("profile", ["named", "liberal"])
async def test_bad_statements(fleet: EstFleet, tpm: Tpm, profile: str) -> None:
    broken = der.sequence(der.oid(oids.OID_ATTESTATION), der.set_of(der.null()))
    rows = {
        "another key": wanted_by(tpm, said_by_tpm(Tpm(CHIPS))),
        "another maker": wanted_by(Tpm(STRANGERS)),
        "another's attestation": replace(wanted_by(tpm), key=generate_private_key("ec-p256")),
        "a broken bundle": Wanted(attributes=(broken,)),
    }
    for name, wanted in rows.items():
        assert (await ask(fleet, profile, wanted))[0] == 403, name
    assert await fleet.certificates() == 0


async def test_nobody_looks(fleet: EstFleet, tpm: Tpm) -> None:
    assert (await ask(fleet, "blind", wanted_by(tpm, said_by_tpm(Tpm(STRANGERS)))))[0] == 200


async def test_a_key_of_the_servers_is_attested_by_nobody(fleet: EstFleet) -> None:
    status, why = await ask(fleet, "keys", Wanted(), messages.SERVERKEYGEN)
    assert (status, "wants an attestation" in why) == (403, True)
