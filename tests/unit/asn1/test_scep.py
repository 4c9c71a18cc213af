import pytest

from gateway.asn1.scep import FailInfo, MessageType, PkiStatus


def test_codes_are_the_standards() -> None:
    """RFC 8894 §3.2.1.2 to §3.2.1.4."""
    assert {m.name: int(m) for m in MessageType} == {
        "CERT_REP": 3,
        "RENEWAL_REQ": 17,
        "PKCS_REQ": 19,
        "CERT_POLL": 20,
        "GET_CERT": 21,
        "GET_CRL": 22,
    }
    assert [int(s) for s in PkiStatus] == [0, 2, 3]
    assert [int(f) for f in FailInfo] == [0, 1, 2, 3, 4]


def test_update_req_is_no_message_type() -> None:
    """CVE-2026-30836: an obsolete type reached signing without a challenge."""
    with pytest.raises(ValueError, match="18"):
        MessageType(18)
