"""Which certificates are a signer's own."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.model import Name
from gateway.pki.names import parse_name_text
from gateway.ra.look_up import may_see
from tests.unit.ra.test_renewal import ROW, SIGNER

OTHER_KEY = b"x" * 32


@pytest.mark.parametrize(
    ("subject", "row", "seen"),
    [
        pytest.param("CN=gate-1,O=Corp", {"subject": "CN=gate-1,O=Corp"}, True, id="both"),
        pytest.param("CN=gate-1,O=Corp", {"subject": "CN=gate-2,O=Corp"}, True, id="key"),
        pytest.param("CN=gate-1,O=Corp", {"subject": "CN=gate-1,O=Corp", "public_key_sha256": OTHER_KEY}, True, id="subject"),
        pytest.param("CN=gate-1,O=Corp", {"subject": "CN=gate-1", "public_key_sha256": OTHER_KEY}, False, id="less-subject"),
        pytest.param("CN=gate-1,O=Corp", {"subject": "", "public_key_sha256": OTHER_KEY}, False, id="no-subject"),
        pytest.param("", {"subject": "", "public_key_sha256": OTHER_KEY}, False, id="empty-subjects"),
        pytest.param("", {"subject": ""}, True, id="empty-subjects-of-one-key"),
        pytest.param(
            r"CN=gate-1\,O=Corp", {"subject": "CN=gate-1,O=Corp", "public_key_sha256": OTHER_KEY}, False, id="looks-alike"
        ),
    ],
)
def test_own(subject: str, row: dict[str, Any], seen: bool) -> None:
    signer = replace(SIGNER, subject=parse_name_text(subject) if subject else Name((), b"0\x00"))
    assert may_see(signer, replace(ROW, **row)) is seen
