"""What every upstream CA does, whatever is behind it."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.ca.bootstrap import Hierarchy
from gateway.ca.interfaces import Capability, UpstreamError, UpstreamIssued
from gateway.ca.verify import verify_issued
from gateway.model import Extension, RequestForm, RevocationReason
from gateway.pki.certificate import parse_certificate
from gateway.pki.keys import generate_private_key
from tests.contract.ca.conftest import Lab, NewRequest, judge


async def issue(lab: Lab, new_request: NewRequest, **kwargs: object) -> UpstreamIssued:
    request = lab.numbered(new_request(**kwargs))
    issued = await lab.ca.issue(request)
    assert isinstance(issued, UpstreamIssued)
    verify_issued(request, parse_certificate(issued.certificate), issued.chain, lab.ca.chain(), datetime.now(UTC))
    return issued


async def test_issued_certificate_holds_the_grant_and_nothing_of_the_request(
    lab: Lab, new_request: NewRequest, hierarchy: Hierarchy, tmp_path: Path
) -> None:
    issued = await issue(lab, new_request)
    text = judge(tmp_path, hierarchy, issued)
    assert "Subject: O=Example AG,CN=Gerät 7/3\\, Süd" in text
    assert "DNS:device-7.example.org, IP Address:192.0.2.7, URI:urn:example:7, othername: UPN::device@example.org" in text
    assert "wished" not in text
    assert "CA:FALSE" in text
    assert "Digital Signature, Key Agreement" in text
    assert "TLS Web Client Authentication, TLS Web Server Authentication" in text
    assert issued.chain == lab.ca.chain()


async def test_no_two_certificates_share_a_serial(lab: Lab, new_request: NewRequest) -> None:
    serials = [parse_certificate((await issue(lab, new_request)).certificate).serial for _ in range(3)]
    assert len(set(serials)) == 3
    assert all(0 < serial < 2**159 and serial.bit_length() > 64 for serial in serials)


async def test_requests_at_once(lab: Lab, new_request: NewRequest) -> None:
    issued = await asyncio.gather(*(issue(lab, new_request) for _ in range(4)))
    assert len({one.certificate for one in issued}) == 4


async def test_granted_extension_is_certified(lab: Lab, new_request: NewRequest, hierarchy: Hierarchy, tmp_path: Path) -> None:
    extension = Extension("1.3.6.1.4.1.99999.7", False, b"\x0c\x05hello")
    issued = await issue(lab, new_request, extensions=(extension,))
    assert "1.3.6.1.4.1.99999.7" in judge(tmp_path, hierarchy, issued)


async def test_grant_without_names_and_usages(lab: Lab, new_request: NewRequest) -> None:
    issued = await issue(lab, new_request, sans=(), key_usage=(), ekus=())
    leaf = parse_certificate(issued.certificate)
    assert (leaf.sans, leaf.key_usage, leaf.ekus) == ((), None, None)


async def test_rsa_request(lab: Lab, new_request: NewRequest) -> None:
    await issue(lab, new_request, key=generate_private_key("rsa-2048"))


async def test_find_tells_before_and_after(lab: Lab, new_request: NewRequest) -> None:
    assert Capability.FIND in lab.ca.capabilities
    request = lab.numbered(new_request())
    assert await lab.ca.find(request) is None
    issued = await lab.ca.issue(request)
    found = await lab.ca.find(request)
    # The embedded CA keeps no record: what the ledger does not hold was never delivered.
    assert found is None if lab.count is None else found == issued


async def test_the_same_request_again_is_the_same_certificate(lab: Lab, new_request: NewRequest) -> None:
    request = lab.numbered(new_request())
    first, second = await lab.ca.issue(request), await lab.ca.issue(request)
    assert isinstance(first, UpstreamIssued)
    assert isinstance(second, UpstreamIssued)
    one, two = parse_certificate(first.certificate), parse_certificate(second.certificate)
    assert (one.serial, one.public_key, one.not_after) == (two.serial, two.public_key, two.not_after)
    if lab.count is not None:
        assert lab.count() == 1


@pytest.mark.parametrize("reason", [RevocationReason.CA_COMPROMISE, RevocationReason.PRIVILEGE_WITHDRAWN], ids=lambda r: r.name)
async def test_revoking_twice_is_success(lab: Lab, new_request: NewRequest, reason: RevocationReason) -> None:
    issued = await issue(lab, new_request)
    serial = parse_certificate(issued.certificate).serial
    for _ in range(2):
        await lab.ca.revoke(issued.certificate, serial, reason, datetime.now(UTC))


async def test_hold_is_taken_off_twice_where_the_ca_can(lab: Lab, new_request: NewRequest) -> None:
    issued = await issue(lab, new_request)
    serial, now = parse_certificate(issued.certificate).serial, datetime.now(UTC)
    if Capability.REVIVE not in lab.ca.capabilities:
        with pytest.raises(UpstreamError):
            await lab.ca.revive(issued.certificate, serial, now)
        return
    await lab.ca.revoke(issued.certificate, serial, RevocationReason.CERTIFICATE_HOLD, now)
    for _ in range(2):
        await lab.ca.revive(issued.certificate, serial, now)


async def test_chain_and_limits(lab: Lab, chain: tuple[bytes, ...]) -> None:
    now = datetime.now(UTC)
    assert lab.ca.chain() == chain
    limit = lab.ca.not_after_limit(now)
    assert limit is not None
    assert now + timedelta(days=3000) < limit <= parse_certificate(chain[0]).not_after
    assert RequestForm.PKCS10 in lab.ca.accepts
    assert (lab.ca.new_serial() is not None) == (Capability.CHOOSES_SERIAL in lab.ca.capabilities)
