"""Devices that prove what they are and get a certificate for the key that they attested, and no other (device-attest-01)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import cbor2
import pytest
import pytest_asyncio

from gateway.asn1 import attestation as oids
from gateway.model import ChallengeType, IdentifierType, SanKind
from gateway.pki.certificate import Certificate
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import format_name, parse_name_text
from gateway.wire.acme.client import Trial
from tests.attesting import MODULE_TYPE, AppleDevice, Maker, Parts, Tpm, YubiKey, envelope
from tests.flow.acme.driver import Driver, account, device, dns
from tests.flow.acme.site import Site, start_site
from tests.flow.scep.service import make_folder

MAKERS = {name: Maker.create(name) for name in ("apple", "tpm", "step")}
MODULE = f"MODULE-0001/{MODULE_TYPE}"
POLICY = {
    "subject": {"template": "CN={attested.permanent_identifier},OU={attested.format}", "allow_empty": True},
    "san": {
        "dns": {"patterns": [r"([a-z0-9-]+\.)*demo\.test"]},
        "permanent_identifier": {"patterns": ["[A-Za-z0-9-]+"]},
        "hardware_module": {"patterns": [r"[A-Z0-9-]+/2\.23\.133\.1\.2"]},
    },
    "eku": {"allow": ["clientAuth"], "default": ["clientAuth"]},
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = make_folder(tmp_path_factory.mktemp("attest") / "s")
    roots = {}
    for name, maker in MAKERS.items():
        (folder / "ca" / f"{name}.pem").write_bytes(maker.pem)
        roots[name] = f"ca/{name}.pem"
    plain = {key: value for key, value in POLICY.items() if key != "subject"} | {"subject": {"allow_empty": True}}
    attested = {"mode": "attestation", "attestation": roots}
    reused = {"authorization_reuse": "1h", "validation": attested, "policy": plain}
    only_tpm = {"validation": {"mode": "attestation", "attestation": {"tpm": roots["tpm"]}}, "policy": plain}
    devices = {"validation": attested, "policy": POLICY}
    mixed = {"validation": {"challenges": ["http-01", "device-attest-01"], "attestation": roots}, "policy": plain}
    named = {"validation": attested, "policy": plain}
    site = await start_site(folder, devices=devices, named=named, reused=reused, tpms=only_tpm, mixed=mixed)
    yield site
    await site.close()


@pytest_asyncio.fixture(loop_scope="module")
async def driver(site: Site) -> AsyncIterator[Driver]:
    async with account(site, "devices") as driver:
        yield driver


def attesting(make: Callable[[Trial], Parts]) -> Callable[[Trial], Mapping[str, object] | None]:
    """Respond to device-attest-01 with what `make` attests."""
    return lambda trial: envelope(make(trial)) if trial.type is ChallengeType.DEVICE_ATTEST_01 else None


def apple(made: AppleDevice, **fields: Any) -> Callable[[Trial], Mapping[str, object] | None]:
    return attesting(lambda trial: made.attest(trial.token, **fields))


def signed(made: YubiKey | Tpm, **fields: Any) -> Callable[[Trial], Mapping[str, object] | None]:
    return attesting(lambda trial: made.attest(trial.authorization, **fields))


def csr(key: PrivateKey, subject: str = "", *names: tuple[SanKind, str]) -> bytes:
    return build_csr(key, parse_name_text(subject).der, tuple(make_san(kind, value) for kind, value in names))


def subject(leaf: Certificate) -> str:
    return format_name(leaf.subject)


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_apple_device(driver: Driver) -> None:
    made = AppleDevice(MAKERS["apple"])
    leaf = await driver.issue(device(made.serial), csr(made.key, f"CN={made.serial}"), apple(made))
    assert subject(leaf) == f"CN={made.serial},OU=apple"
    assert leaf.public_key.der == public_key_der(made.key)
    assert leaf.sans == ()


async def test_an_apple_device_by_its_udid(driver: Driver) -> None:
    made = AppleDevice(MAKERS["apple"])
    leaf = await driver.issue(device(made.udid), csr(made.key), apple(made))
    assert made.udid in subject(leaf)


async def test_a_yubikey(driver: Driver) -> None:
    made = YubiKey(MAKERS["step"])
    leaf = await driver.issue(device("16023607"), csr(made.key), signed(made))
    assert leaf.public_key.der == public_key_der(made.key)
    assert "16023607" in subject(leaf)


@pytest.mark.parametrize("kind", ["ec-p256", "rsa-2048"])
async def test_a_tpm(driver: Driver, kind: str) -> None:
    made = Tpm(MAKERS["tpm"], key=generate_private_key(kind))
    leaf = await driver.issue(device("TPM-SERIAL-0001"), csr(made.key), signed(made))
    assert leaf.public_key.der == public_key_der(made.key)


async def test_names_of_devices_are_certified_where_they_are_asked_for(site: Site) -> None:
    made = Tpm(MAKERS["tpm"])
    ordered = (*device("TPM-SERIAL-0001"), *device(MODULE, IdentifierType.HARDWARE_MODULE))
    names = [(SanKind.PERMANENT_IDENTIFIER, "TPM-SERIAL-0001"), (SanKind.HARDWARE_MODULE, MODULE)]
    async with account(site, "named") as driver:
        leaf = await driver.issue(ordered, csr(made.key, "", *names), signed(made))
        assert {(san.kind, san.value) for san in leaf.sans} == set(names)
        leaf = await driver.issue(ordered, csr(made.key, "", names[0]), signed(made))
        assert [(san.kind, san.value) for san in leaf.sans] == names[:1]


async def test_a_host_that_is_a_device(site: Site) -> None:
    """Names of hosts by http-01 and of devices by attestation in one order; the key is the attested one."""
    made = Tpm(MAKERS["tpm"])

    def respond(trial: Trial) -> Mapping[str, object] | None:
        if trial.type is ChallengeType.DEVICE_ATTEST_01:
            return envelope(made.attest(trial.authorization))
        site.responder.tokens[trial.token] = trial.authorization
        return {}

    ordered = (*dns("tpm.demo.test"), *device("TPM-SERIAL-0001"))
    names = [(SanKind.DNS, "tpm.demo.test"), (SanKind.PERMANENT_IDENTIFIER, "TPM-SERIAL-0001")]
    async with account(site, "mixed") as driver:
        order = await driver.run(driver.client.order(ordered))
        offered = {}
        for url in order.document["authorizations"]:
            document = (await driver.run(driver.client.post(url, None))).document
            offered[document["identifier"]["type"]] = {each["type"] for each in document["challenges"]}
            await driver.run(driver.client.authorize(url, respond))
        assert offered == {"dns": {"http-01"}, "permanent-identifier": {"device-attest-01"}}
        software = csr(generate_private_key("ec-p256"), "", *names)
        refusal = await driver.refused(driver.client.finalize(order, software))
        assert refusal.type == "badCSR"
        document = await driver.run(driver.client.finalize(order, csr(made.key, "", *names)))
        assert document["status"] == "valid"


async def test_another_key_than_the_attested_one_is_refused(driver: Driver) -> None:
    """And the order stays ready for the right one."""
    made = AppleDevice(MAKERS["apple"])
    order = await driver.run(driver.client.order(device(made.serial)))
    [url] = order.document["authorizations"]
    await driver.run(driver.client.authorize(url, apple(made)))
    refusal = await driver.refused(driver.client.finalize(order, csr(generate_private_key("ec-p384"))))
    assert (refusal.status, refusal.type) == (400, "badCSR")
    assert "attested" in refusal.detail
    assert (await driver.run(driver.client.post(order.location, None))).document["status"] == "ready"
    assert (await driver.run(driver.client.finalize(order, csr(made.key))))["status"] == "valid"


async def test_two_devices_that_attest_different_keys_get_nothing(site: Site) -> None:
    one, other = Tpm(MAKERS["tpm"]), Tpm(MAKERS["tpm"], permanent="TPM-SERIAL-0002")
    makers = {"TPM-SERIAL-0001": one, "TPM-SERIAL-0002": other}
    respond = attesting(lambda trial: makers[trial.identifier.value].attest(trial.authorization))
    async with account(site, "named") as driver:
        order = await driver.run(driver.client.order((*device("TPM-SERIAL-0001"), *device("TPM-SERIAL-0002"))))
        for url in order.document["authorizations"]:
            await driver.run(driver.client.authorize(url, respond))
        for made in (one, other):
            assert (await driver.refused(driver.client.finalize(order, csr(made.key)))).type == "badCSR"


NAMES: dict[str, tuple[SanKind, str]] = {
    "another-identifier": (SanKind.PERMANENT_IDENTIFIER, "C02XL0OTHER0"),
    "with-an-assigner": (SanKind.PERMANENT_IDENTIFIER, "C02XL0ATTEST/1.2.3"),
    "a-module": (SanKind.HARDWARE_MODULE, MODULE),
    "a-host": (SanKind.DNS, "www.demo.test"),
}


@pytest.mark.parametrize("name", list(NAMES))
async def test_names_that_were_not_ordered_are_refused(driver: Driver, name: str) -> None:
    made = AppleDevice(MAKERS["apple"])
    order = await driver.run(driver.client.order(device(made.serial)))
    await driver.run(driver.client.authorize(order.document["authorizations"][0], apple(made)))
    refusal = await driver.refused(driver.client.finalize(order, csr(made.key, "", NAMES[name])))
    assert refusal.type == "badCSR"


# Attestations that prove nothing

APPLE, TPM, YUBIKEY = AppleDevice(MAKERS["apple"]), Tpm(MAKERS["tpm"]), YubiKey(MAKERS["step"])
BROKEN: dict[str, tuple[str, Callable[[Trial], Mapping[str, object] | None]]] = {
    "no-attestation": (APPLE.serial, lambda _: {}),
    "no-text": (APPLE.serial, lambda _: {"attObj": 7}),
    "no-cbor": (APPLE.serial, lambda _: {"attObj": "AAAA"}),
    "too-large": (APPLE.serial, lambda _: {"attObj": "A" * 45000}),
    "another-format": (APPLE.serial, attesting(lambda trial: APPLE.attest(trial.token) | {"fmt": "packed"})),
    "apple-without-freshness": (APPLE.serial, apple(APPLE, left_out=(oids.OID_APPLE_NONCE,))),
    "apple-of-another-token": (APPLE.serial, attesting(lambda _: APPLE.attest("another"))),
    "apple-of-another-device": ("C02XL0OTHER0", apple(APPLE)),
    "apple-of-another-maker": (APPLE.serial, apple(AppleDevice(Maker.create("apple")))),
    "step-of-another-device": ("1", signed(YUBIKEY)),
    "step-of-another-account": ("16023607", attesting(lambda trial: YUBIKEY.attest(f"{trial.token}.other"))),
    "tpm-of-another-account": ("TPM-SERIAL-0001", attesting(lambda trial: TPM.attest(f"{trial.token}.other"))),
    "tpm-of-another-maker": ("TPM-SERIAL-0001", signed(Tpm(Maker.create("tpm")))),
    "tpm-without-identifier": ("TPM-SERIAL-0001", signed(Tpm(MAKERS["tpm"], permanent=None))),
}


@pytest.mark.parametrize("name", list(BROKEN))
async def test_attestations_that_prove_nothing(driver: Driver, name: str) -> None:
    """The challenge is over at once: there is no second attempt, and nothing of what was sent is repeated."""
    identifier, respond = BROKEN[name]
    order = await driver.run(driver.client.order(device(identifier)))
    document = await driver.failed(driver.client.authorize(order.document["authorizations"][0], respond))
    assert document["status"] == "invalid"
    [challenge] = document["challenges"]
    assert challenge["status"] == "invalid"
    assert challenge["error"]["type"] == "urn:ietf:params:acme:error:badAttestationStatement"
    assert challenge["error"]["detail"]
    assert "packed" not in challenge["error"]["detail"]
    ended = (await driver.run(driver.client.post(order.location, None))).document
    assert ended["status"] == "invalid"
    assert (await driver.refused(driver.client.finalize(order, csr(APPLE.key)))).type == "orderNotReady"


async def test_formats_without_roots_are_refused(site: Site) -> None:
    async with account(site, "tpms") as driver:
        order = await driver.run(driver.client.order(device(APPLE.serial)))
        document = await driver.failed(driver.client.authorize(order.document["authorizations"][0], apple(APPLE)))
        assert "those that are: tpm" in document["challenges"][0]["error"]["detail"]
        assert await driver.issue(device("TPM-SERIAL-0001"), csr(TPM.key, "CN=TPM-SERIAL-0001"), signed(TPM))


@pytest.mark.parametrize("value", ["C02XL0ATTEST/x", "/1.2.3", "C02XL0ATTEST/1.2.3/4", "", "C02\u0007"])
async def test_identifiers_of_another_form_are_malformed(driver: Driver, value: str) -> None:
    assert (await driver.refused(driver.client.order(device(value)))).type == "malformed"


async def test_identifiers_that_policy_does_not_know_are_refused(site: Site) -> None:
    async with account(site, "demo") as driver:
        refusal = await driver.refused(driver.client.order(device(APPLE.serial)))
        assert refusal.type in {"rejectedIdentifier", "unsupportedIdentifier"}


async def test_hosts_are_no_devices(driver: Driver) -> None:
    """In mode `attestation` there is no challenge by which a host could be proved."""
    refusal = await driver.refused(driver.client.order(dns("www.demo.test")))
    assert refusal.type in {"rejectedIdentifier", "unsupportedIdentifier"}


async def test_an_authorization_that_is_used_again_keeps_its_key(site: Site) -> None:
    """The device attests once an hour; another key needs another attestation."""
    made = Tpm(MAKERS["tpm"])
    async with account(site, "reused") as driver:
        await driver.issue(device("TPM-SERIAL-0001"), csr(made.key, "CN=TPM-SERIAL-0001"), signed(made))
        again = await driver.run(driver.client.order(device("TPM-SERIAL-0001")))
        assert again.document["status"] == "ready"
        other = csr(generate_private_key("ec-p256"), "CN=TPM-SERIAL-0001")
        assert (await driver.refused(driver.client.finalize(again, other))).type == "badCSR"
        assert (await driver.run(driver.client.finalize(again, csr(made.key, "CN=TPM-SERIAL-0001"))))["status"] == "valid"


async def test_the_same_device_by_another_account(site: Site, driver: Driver) -> None:
    """A statement that a TPM or a YubiKey made for one account is of no use to another one."""
    seen: list[Mapping[str, object]] = []

    def spy(trial: Trial) -> Mapping[str, object]:
        seen.append(envelope(YUBIKEY.attest(trial.authorization)))
        return seen[-1]

    await driver.issue(device("16023607"), csr(YUBIKEY.key), spy)
    async with account(site, "devices") as thief:
        order = await thief.run(thief.client.order(device("16023607")))
        document = await thief.failed(thief.client.authorize(order.document["authorizations"][0], lambda _: seen[0]))
        assert document["challenges"][0]["error"]["type"].endswith(":badAttestationStatement")


async def test_what_was_attested_is_neither_in_the_log_nor_in_the_answers(
    site: Site, driver: Driver, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = replace(APPLE, udid="00008110-0123456789ABCDEF")
    order = await driver.run(driver.client.order(device(sent.serial)))
    [url] = order.document["authorizations"]
    document = await driver.run(driver.client.authorize(url, apple(sent)))
    assert sent.udid not in str(document)
    assert "attObj" not in str(document)
    shown = capsys.readouterr()
    assert cbor2.dumps("attStmt").hex() not in shown.out + shown.err
