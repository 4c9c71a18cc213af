"""The very bytes that clients of the field sent, replayed to an RA that has the key of the recording."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.asn1 import scep as asn1
from gateway.pki import cms, der
from tests.flow.scep.field import TESTDATA, running

REQUESTS = [
    "scepclient-2.1.0-enroll",
    "strongswan-5.9.8-enroll",
    "strongswan-5.9.8-enroll-pss-3des",
    "sscep-0.10-enroll",
    "jscep-f2bae83-enroll",
]


async def test_recorded_requests_are_granted(tmp_path: Path) -> None:
    async with running(tmp_path / "s") as field:
        client = await field.client("recorded")
        for name in REQUESTS:
            status, body, _ = await client.post((TESTDATA / f"{name}-request.der").read_bytes())
            assert status == 200
            received = cms.parse_signed_data(body).signers[0].attributes
            assert received[asn1.OID_PKI_STATUS] == (der.printable_string("0"),), (name, received.get(asn1.OID_FAIL_INFO_TEXT))


@pytest.mark.parametrize("name", ["scepclient-2.1.0-renew", "sscep-0.10-renew", "strongswan-5.9.8-renew"])
async def test_recorded_renewals_of_strangers_are_refused(tmp_path: Path, name: str) -> None:
    """Their certificates were never issued here, and the challenge inside proves nothing for another key or in a renewal."""
    async with running(tmp_path / "s") as field:
        client = await field.client("recorded")
        _, body, _ = await client.post((TESTDATA / f"{name}-request.der").read_bytes())
        received = cms.parse_signed_data(body).signers[0].attributes
        assert received[asn1.OID_PKI_STATUS] == (der.printable_string("2"),)
        assert await field.service.run("GET", "/v1/certificates") == []
