"""Which trust mode stands for which name, and which challenge can prove it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from gateway.config.acme import TrustMode
from gateway.errors import Reason
from gateway.model import ChallengeType, Identifier, IdentifierType
from gateway.validation.interfaces import Validated, ValidationFailed, ValidationTask
from gateway.validation.profile import ValidationRoom, build_validation
from tests.dns_server import DnsServer, dns_server
from tests.unit.validation.site import NOW, dns_name, ip_name, refused, settings, task, validation

DEVICE = Identifier(IdentifierType.PERMANENT_IDENTIFIER, "serial")
ATTEST = task(ChallengeType.DEVICE_ATTEST_01, DEVICE)


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


@pytest.mark.parametrize("mode", ["standard", "attestation", "none"])
async def test_modes_that_stand_for_nothing(mode: TrustMode) -> None:
    assert not await validation(mode=mode).vouch(dns_name("host.test"), "127.0.0.1")


@pytest.mark.parametrize(
    ("identifier", "good"),
    [
        (dns_name("a.corp.test"), True),
        (dns_name("a.b.corp.test"), False),
        (dns_name("a.corp.test.evil"), False),
        (dns_name("xa.corp.test"), False),
        (dns_name("*.wild.test"), True),
        (dns_name("*.corp.test"), False),
        (ip_name("10.1.2.3"), True),
        (ip_name("11.1.2.3"), False),
        (ip_name("::ffff:10.1.2.3"), False),
        (DEVICE, False),
    ],
    ids=lambda value: getattr(value, "value", value),
)
async def test_prevalidated(identifier: Identifier, good: bool) -> None:
    names = {"dns": [r"[a-w]\.corp\.test", r"\*\.wild\.test"], "ip": ["10.0.0.0/8"]}
    assert await validation(mode="prevalidated", prevalidated=names).vouch(identifier, "127.0.0.1") is good


@pytest.mark.parametrize("type", ChallengeType)
async def test_mode_none_proves_nothing_and_asks_nobody(dns: DnsServer, type: ChallengeType) -> None:
    asked = task(type, dns_name("nowhere.test"), wildcard=True)
    assert await validation(dns.address, "none").validate(asked, NOW) == Validated(by_challenge=False)
    assert dns.queries == []


def test_who_asks_nobody(dns: DnsServer) -> None:
    assert validation(dns.address, "none").asks_nobody
    assert not validation(dns.address, "none", caa={"mode": "enforce"}).asks_nobody
    assert not validation(dns.address, "standard").asks_nobody


async def test_mode_none_under_enforced_caa(dns: DnsServer) -> None:
    dns.add("nowhere.test", "CAA", '0 issue ";"')
    work = validation(dns.address, "none", caa={"mode": "enforce"}).validate(task(identifier=dns_name("nowhere.test")), NOW)
    await refused(work, Reason.VALIDATION_CAA)


HOST_ONLY = [ChallengeType.HTTP_01, ChallengeType.TLS_ALPN_01]
NAMES_ONLY = [ChallengeType.DNS_01, ChallengeType.DNS_ACCOUNT_01, ChallengeType.DNS_PERSIST_01]
UNFIT = {
    **{f"{type}_wildcard": task(type, wildcard=True) for type in HOST_ONLY},
    **{f"{type}_subdomains": task(type, subdomains=True) for type in HOST_ONLY},
    **{f"{type}_address": task(type, ip_name("127.0.0.1")) for type in NAMES_ONLY},
    **{f"{type}_device": task(type, DEVICE) for type in [*HOST_ONLY, *NAMES_ONLY]},
    "attestation_of_a_name": task(ChallengeType.DEVICE_ATTEST_01),
}


@pytest.mark.parametrize("asked", UNFIT.values(), ids=UNFIT)
async def test_challenges_that_cannot_prove_it(dns: DnsServer, asked: ValidationTask) -> None:
    failure = await refused(validation(dns.address).validate(asked, NOW), Reason.VALIDATION_UNAUTHORIZED, "proves nothing")
    assert failure.final
    assert dns.queries == []


class Judge:
    def judge(self, task: ValidationTask, now: datetime) -> Validated:
        if task.identifier != DEVICE or now != NOW:
            raise ValidationFailed(Reason.BAD_ATTESTATION, "no", final=True)
        return Validated(b"key", {"serial": "serial"})


@pytest.mark.parametrize("mode", ["standard", "attestation"])
async def test_attestation(mode: TrustMode) -> None:
    given = build_validation(settings(), mode, ValidationRoom(), attestation=Judge())
    assert await given.validate(ATTEST, NOW) == Validated(b"key", {"serial": "serial"})
    other = task(ChallengeType.DEVICE_ATTEST_01, Identifier(IdentifierType.HARDWARE_MODULE, "x/1.2.3"))
    await refused(given.validate(other, NOW), Reason.BAD_ATTESTATION)


async def test_attestation_that_nobody_judges() -> None:
    await refused(validation().validate(ATTEST, NOW), Reason.BAD_ATTESTATION)


async def test_mode_attestation_takes_nothing_else() -> None:
    given = build_validation(settings(), "attestation", ValidationRoom(), attestation=Judge())
    await refused(given.validate(task(), NOW), Reason.VALIDATION_UNAUTHORIZED, "only an attestation")


async def test_prevalidated_names_do_not_make_challenges_easier(dns: DnsServer) -> None:
    given = validation(dns.address, "prevalidated", prevalidated={"dns": [r"x\.test"]})
    await refused(given.validate(task(ChallengeType.DNS_01, dns_name("y.test")), NOW), Reason.VALIDATION_INCORRECT)


@pytest.mark.parametrize("fields", [{"servers": ["dns.test"]}, {"hosts": {"a.test": ["nowhere"]}}])
def test_settings_that_cannot_be_read(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"dns\.test|nowhere"):
        build_validation(settings(resolver=fields), "standard", ValidationRoom())
