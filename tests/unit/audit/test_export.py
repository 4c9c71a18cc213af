"""Audit rows as JSON lines, CEF and ECS, whatever a device put into its names."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import GENESIS, AuditEvent, canonical_body, link
from gateway.audit.export import FORMATS, to_cef, to_ecs, to_jsonl
from gateway.errors import Reason
from gateway.store.interfaces import AuditRow

AT = datetime(2026, 11, 21, 12, 0, 0, 500000, tzinfo=UTC)
REFUSED = AuditEvent(
    "enrollment.rejected",
    AT,
    "static:demo",
    "refused",
    source="192.0.2.1",
    protocol="scep",
    profile="demo",
    operation="PKCSReq",
    transaction_id="t1",
    request_id="r1",
    subject="CN=a|b=c\\d",
    sans=("dns:a.example",),
    reason=Reason.POLICY_SAN,
    detail="not allowed",
)
ISSUED = AuditEvent("enrollment.issued", AT, "one_time:c1", "granted", serial="0a1b", upstream_ca="local", public_key_sha256="ff")


def row(event: AuditEvent) -> AuditRow:
    body = canonical_body(event)
    return AuditRow(7, GENESIS, link(b"k" * 32, 7, GENESIS, body), body)


def test_jsonl_holds_everything() -> None:
    line = json.loads(to_jsonl(row(REFUSED)))
    assert line["seq"] == 7
    assert line["hash"] == row(REFUSED).hash.hex()
    assert {name: value for name, value in line.items() if name not in {"seq", "hash"}} == json.loads(row(REFUSED).body)


def test_cef() -> None:
    assert to_cef(row(REFUSED)) == (
        "CEF:0|pki-gateway|pki-gateway|1|enrollment.rejected|enrollment.rejected refused|6|rt=1795262400500 outcome=failure "
        "cn1=7 cn1Label=seq suser=static:demo src=192.0.2.1 app=scep act=PKCSReq externalId=r1 reason=policy_san "
        "msg=not allowed cnt=1 cs1=demo cs1Label=profile cs2=t1 cs2Label=transaction_id cs4=CN\\=a|b\\=c\\\\d cs4Label=subject"
    )


def test_ecs() -> None:
    refused, issued = json.loads(to_ecs(row(REFUSED))), json.loads(to_ecs(row(ISSUED)))
    assert refused["@timestamp"] == AT.isoformat()
    assert refused["event"] | {"hash": ""} == {
        "kind": "event",
        "category": ["authentication"],
        "type": ["denied"],
        "action": "enrollment.rejected",
        "outcome": "failure",
        "reason": "policy_san",
        "sequence": 7,
        "hash": "",
        "module": "pki-gateway",
    }
    assert refused["source"] == {"address": "192.0.2.1", "ip": "192.0.2.1"}
    assert refused["x509"] == {"subject": {"distinguished_name": "CN=a|b=c\\d"}, "alternative_names": ["dns:a.example"]}
    assert issued["event"]["outcome"] == "success"
    assert issued["x509"] == {"serial_number": "0A1B"}
    assert issued["pki_gateway"]["upstream_ca"] == "local"


@pytest.mark.parametrize("name", FORMATS)
@given(subject=st.text(), detail=st.text(), actor=st.text())
def test_no_text_of_a_device_begins_a_line(name: str, subject: str, detail: str, actor: str) -> None:
    line = FORMATS[name](row(AuditEvent("e", AT, actor, "done", subject=subject, detail=detail)))
    assert len(line.splitlines()) == 1
    assert line.isprintable()


@given(st.text())
def test_cef_values_cannot_end_early(detail: str) -> None:
    line = to_cef(row(AuditEvent("e", AT, "a", "done", detail=detail)))
    extension = line.split("|", 7)[7]
    keys = re.findall(r"(?:^| )(\w+)(?<!\\)=", extension)
    assert keys == ["rt", "outcome", "cn1", "cn1Label", "suser", *(["msg"] if detail else []), "cnt"]
