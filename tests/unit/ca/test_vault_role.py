"""What a role of Vault's says, whatever its answer looks like, and what is sent to it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from gateway.ca.vault_role import VERBATIM, Role, find_conflicts, for_verbatim, make_body, read_role
from gateway.model import CertificateRequest, Extension, Grant, SanKind, SubjectAltName
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.names import parse_name_text
from tests.unit.ca.conftest import NOW, key_of

CLIENT, SERVER = eku_oid("clientAuth"), eku_oid("serverAuth")


def make_grant(subject: str = "CN=a,O=Example", sans: tuple[SubjectAltName, ...] = (), **changes: Any) -> Grant:
    usage = changes.pop("key_usage", ("digitalSignature", "keyAgreement", "keyEncipherment"))
    ekus = changes.pop("ekus", (CLIENT, SERVER))
    return Grant(parse_name_text(subject).der, sans, usage, ekus, NOW, NOW + timedelta(days=1), **changes)


def ask(subject: str = "CN=a", sans: tuple[SubjectAltName, ...] = ()) -> tuple[bytes, CertificateRequest]:
    csr = build_csr(key_of("ec-p256"), parse_name_text(subject).der, sans)
    return csr, parse_csr(csr, proof=False)


def test_an_empty_answer_is_a_role_of_defaults() -> None:
    assert read_role({}) == Role(ekus=frozenset(), key_usage=frozenset(), fixed_subjects=((), ()))


@pytest.mark.parametrize(
    ("data", "field", "value"),
    [
        pytest.param({"use_csr_sans": False}, "use_csr_sans", False, id="names from the body"),
        pytest.param({"use_csr_sans": "no"}, "use_csr_sans", True, id="text is no flag"),
        pytest.param({"no_store": 1}, "no_store", False, id="a number is no flag"),
        pytest.param(
            {"key_usage": ["DigitalSignature", " contentcommitment "]},
            "key_usage",
            {"digitalSignature", "nonRepudiation"},
            id="Go's words",
        ),
        pytest.param({"key_usage": "CertSign,CRLSign"}, "key_usage", {"keyCertSign", "cRLSign"}, id="words in one text"),
        pytest.param({"key_usage": {"a": 1}}, "key_usage", set(), id="usages of another type"),
        pytest.param({"key_usage": [7, None, ""]}, "key_usage", set(), id="usages that are no text"),
        pytest.param({"ext_key_usage": ["ClientAuth", "any"]}, "ekus", {CLIENT, "2.5.29.37.0"}, id="extended usages by name"),
        pytest.param(
            {"ext_key_usage": ["Sesame"]}, "ekus", {"the unknown usage sesame"}, id="an extended usage that nobody knows"
        ),
        pytest.param({"server_flag": True, "ext_key_usage_oids": ["1.2.3"]}, "ekus", {SERVER, "1.2.3"}, id="flags and OIDs"),
        pytest.param({"not_before_duration": 3600}, "backdating", 3600.0, id="backdating"),
        pytest.param({"not_before_duration": -1}, "backdating", 30.0, id="backdating into the future"),
        pytest.param({"not_before_duration": 1e300}, "backdating", 30.0, id="backdating beyond all time"),
        pytest.param({"not_before_duration": "1h"}, "backdating", 30.0, id="backdating as text"),
        pytest.param({"issuer_ref": ["x"]}, "issuer", "default", id="an issuer that is no text"),
        pytest.param({"serial_number_source": "json"}, "serial_number_from_csr", False, id="serial number not of the request"),
    ],
)
def test_roles_are_read(data: dict[str, object], field: str, value: object) -> None:
    assert getattr(read_role(data), field) == value


def test_verbatim_keeps_what_is_not_about_names() -> None:
    role = read_role({"no_store": True, "issuer_ref": "i", "not_before_duration": 60, "not_after": "x", "ou": ["a"]})
    assert for_verbatim(role) == Role(
        require_cn=False, no_store=True, issuer="i", backdating=60, key_usage=frozenset(), ekus=frozenset()
    )


def test_an_unknown_role_is_told_everything() -> None:
    sans = (
        make_san(SanKind.DNS, "a.example.org"),
        make_san(SanKind.EMAIL, "a@example.org"),
        make_san(SanKind.IP, "2001:db8::1"),
        make_san(SanKind.UPN, "u@example.org"),
        make_san(SanKind.SID, "S-1-5-21-7"),
        make_san(SanKind.DIRECTORY_NAME, "CN=left out"),
    )
    csr, _ = ask()
    body = make_body(csr, make_grant("serialNumber=7,UID=u,CN=a", sans), None, NOW, verbatim=False)
    assert body.pop("csr").startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
    assert body == {
        "format": "pem",
        "exclude_cn_from_sans": True,
        "not_after": "2026-05-02T12:00:00Z",
        "common_name": "a",
        "serial_number": "7",
        "user_ids": ["u"],
        "alt_names": "a.example.org,a@example.org",
        "ip_sans": ["2001:db8::1"],
        "uri_sans": ["tag:microsoft.com,2022-09-14:sid:S-1-5-21-7"],
        "other_sans": ["1.3.6.1.4.1.311.20.2.3;UTF8:u@example.org"],
    }


def test_names_that_a_role_takes_from_the_request_are_not_said_twice() -> None:
    csr, _ = ask()
    body = make_body(csr, make_grant(sans=(make_san(SanKind.UPN, "u@example.org"),)), Role(), NOW, verbatim=False)
    assert "other_sans" not in body


def test_verbatim_says_usages_in_gos_words() -> None:
    csr, _ = ask()
    grant = make_grant(key_usage=("digitalSignature", "nonRepudiation", "keyCertSign", "cRLSign"), ekus=("1.2.3",))
    body = make_body(csr, grant, VERBATIM, NOW, verbatim=True)
    assert body["key_usage"] == ["DigitalSignature", "ContentCommitment", "CertSign", "CRLSign"]
    assert body["ext_key_usage"] == []
    assert body["ext_key_usage_oids"] == ["1.2.3"]
    assert "common_name" not in body


def test_ttl_where_no_date_is_taken() -> None:
    csr, _ = ask()
    body = make_body(csr, make_grant(), read_role({"not_after_bound": "forbid"}), NOW, verbatim=False)
    assert (body["ttl"], "not_after" in body) == ("86400s", False)


@pytest.mark.parametrize(
    ("asked", "granted", "role", "words"),
    [
        pytest.param("CN=a", "CN=a,O=Example", {"organization": ["Example"]}, None, id="the role's organization"),
        pytest.param("CN=b,CN=a", "CN=b,O=Example", {"organization": ["Example"]}, None, id="the last common name"),
        pytest.param("serialNumber=7,CN=a", "CN=a", {}, "serialNumber=7,CN=a", id="a serial number that was not granted"),
        pytest.param("serialNumber=7,CN=a", "CN=a", {"serial_number_source": "json"}, None, id="a serial number not taken"),
        pytest.param("UID=u,CN=a", "CN=a", {}, "UID=u,CN=a", id="a user ID that was not granted"),
        pytest.param("", "", {"require_cn": False}, None, id="no name at all"),
        pytest.param("", "", {}, "require_cn", id="no common name"),
        pytest.param("", "CN=a", {}, None, id="common name of the body where the request has none"),
        pytest.param(
            "CN=a",
            "CN=a,L=x,ST=y,O=z",
            {"province": ["y"], "locality": ["x"], "organization": ["z"]},
            "makes",
            id="no order of Go's",
        ),
        pytest.param(
            "CN=a",
            "CN=a,O=z,L=x,ST=y",
            {"province": ["y"], "locality": ["x"], "organization": ["z"]},
            None,
            id="order of Go 1.26",
        ),
        pytest.param(
            "CN=a", "CN=a,ST=y,L=x,O=z", {"province": ["y"], "locality": ["x"], "organization": ["z"]}, None, id="order before"
        ),
    ],
)
def test_subjects(asked: str, granted: str, role: dict[str, object], words: str | None) -> None:
    usages = {"key_usage": ["DigitalSignature", "KeyAgreement", "KeyEncipherment"], "server_flag": True, "client_flag": True}
    _, csr = ask(asked)
    conflicts = find_conflicts(csr, make_grant(granted), read_role(usages | role), verbatim=False)
    assert bool(conflicts) == (words is not None), conflicts
    assert words is None or words in conflicts[0]


def test_verbatim_conflicts_of_usages_and_extensions() -> None:
    _, csr = ask("CN=a")
    strange = Extension("1.2.3.4", False, b"\x05\x00")
    marked = CertificateRequest(
        csr.form,
        csr.der,
        csr.digest,
        csr.subject,
        csr.public_key,
        key_usage=frozenset({"keyAgreement"}),
        ekus=(SERVER,),
        extensions=(strange,),
    )
    conflicts = find_conflicts(marked, make_grant("CN=a"), VERBATIM, verbatim=True)
    assert [text.split(" comes before")[0] for text in conflicts[:2]] == [
        "the request's key usage keyAgreement",
        "the request's extended key usage serverAuth",
    ]
    assert conflicts[2] == "the request's extension 1.2.3.4 would be certified, and was not granted"
    granted = make_grant("CN=a", key_usage=("keyAgreement",), ekus=(SERVER,), extensions=(strange,))
    assert find_conflicts(marked, granted, VERBATIM, verbatim=True) == ()
