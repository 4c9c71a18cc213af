"""What requests say of their keys: by TPMs and YubiKeys, trusted or not, about this key or another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from gateway.asn1 import attestation as oids
from gateway.errors import Reason, Rejection
from gateway.model import CertificateRequest, Evidence
from gateway.pki import der
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.keys import PrivateKey, generate_private_key
from gateway.pki.names import parse_name_text
from gateway.validation.attestation import RequestAttestation
from tests.attesting import DAY, MAKER, NOW, Maker, Tpm, YubiKey, buffer, certify_info, public_area
from tests.unit.validation.attestation.conftest import Bench, key_hash

NAME = parse_name_text("CN=device").der
SERIAL = "TPM-SERIAL-0001"


def request(key: PrivateKey, *evidence: Evidence) -> CertificateRequest:
    return replace(parse_csr(build_csr(key, NAME)), evidence=evidence)


def said_by_tpm(tpm: Tpm, **parts: bytes) -> Evidence:
    """A statement of TPM2_Certify about the key of `tpm`; parts of it may be others."""
    area = parts.get("area", public_area(tpm.key))
    info = parts.get("info", certify_info(b"", area))
    signature = parts.get("signature", tpm.sign(info))
    statement = der.sequence(*map(der.octet_string, (parts.get("sent", info), signature, parts.get("sent_area", area))))
    certificates = (tpm.maker.certificate, parts.get("ak", tpm.certificate()))
    return Evidence(oids.OID_TCG_ATTEST_CERTIFY, statement, certificates)


def said_by_yubikey(device: YubiKey, **fields: tuple[str, ...]) -> Evidence:
    attested, above = device.attest("", **fields)["attStmt"]["x5c"]
    return Evidence(oids.OID_YUBICO_ATTESTATION, attested, (above,))


@dataclass(frozen=True)
class Judge:
    tpm: Maker
    step: Maker
    judged: RequestAttestation = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "judged", RequestAttestation(self.tpm.anchors, self.step.anchors))

    def refusal(self, asked: CertificateRequest) -> str:
        with pytest.raises(Rejection) as refused:
            self.judged.judge(asked, NOW)
        assert refused.value.reason is Reason.BAD_ATTESTATION
        return refused.value.detail


@pytest.fixture(scope="module")
def judge(bench: Bench) -> Judge:
    return Judge(bench.tpm, bench.step)


@pytest.fixture(scope="module")
def tpm(bench: Bench) -> Tpm:
    return Tpm(bench.tpm)


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "rsa-2048"])
def test_keys_of_a_tpm(judge: Judge, bench: Bench, kind: str) -> None:
    tpm = Tpm(bench.tpm, key=generate_private_key(kind))
    assert judge.judged.judge(request(tpm.key, said_by_tpm(tpm)), NOW) == {
        "format": "tpm",
        "issuer": "Chips Sub CA",
        **MAKER,
        "ak": key_hash(tpm.ak).hex(),
        "permanent_identifier": SERIAL,
        "hardware_module": tpm.module,
    }


def test_structures_with_their_sizes_in_front(judge: Judge, tpm: Tpm) -> None:
    """tpm2-tools write TPM2B_PUBLIC into files, and others TPM2B_ATTEST as the command returns it."""
    area = public_area(tpm.key)
    info = certify_info(b"", area)
    said = said_by_tpm(tpm, sent=buffer(info), sent_area=buffer(area), info=info)
    assert judge.judged.judge(request(tpm.key, said), NOW)


def test_keys_of_a_yubikey(judge: Judge, bench: Bench) -> None:
    device = YubiKey(bench.step)
    assert judge.judged.judge(request(device.key, said_by_yubikey(device)), NOW) == {
        "format": "step",
        "issuer": "Keys Sub CA",
        "serial": "16023607",
        "permanent_identifier": "16023607",
        "firmware": "5.7.4",
        "form_factor": "usb-c-keychain",
        "pin_policy": "once",
        "touch_policy": "cached",
    }


def test_a_certificate_in_a_bundle(judge: Judge, bench: Bench) -> None:
    """Others before and behind those that lead up from it, in whatever order."""
    device = YubiKey(bench.step)
    said = said_by_yubikey(device)
    mixed = replace(said, certificates=(bench.tpm.certificate, *said.certificates, bench.step.root, bench.apple.root))
    assert judge.judged.judge(request(device.key, mixed), NOW)


def test_nothing_is_said(judge: Judge, tpm: Tpm) -> None:
    assert judge.judged.judge(request(tpm.key), NOW) is None
    quote = Evidence("2.23.133.20.2", der.sequence())
    assert judge.judged.judge(request(tpm.key, quote), NOW) is None, "of a kind that says nothing about keys"
    assert judge.judged.judge(request(tpm.key, quote, said_by_tpm(tpm)), NOW), "beside one that does"


def test_a_bad_statement_beside_a_good_one(judge: Judge, tpm: Tpm, bench: Bench) -> None:
    other = said_by_tpm(Tpm(bench.tpm))
    assert judge.refusal(request(tpm.key, said_by_tpm(tpm), other)) == "the attestation is about another key than the request's"


Breaks = Callable[[Tpm, Bench], Evidence]
STATEMENTS = [
    pytest.param(
        lambda t, b: said_by_tpm(Tpm(b.tpm)), "the attestation is about another key than the request's", id="about another key"
    ),
    pytest.param(
        lambda t, b: said_by_tpm(replace(t, maker=b.step)),
        "the attestation's certificate does not lead to a root that is trusted here",
        id="of another maker",
    ),
    pytest.param(
        lambda t, b: said_by_tpm(t, ak=t.certificate(not_after=NOW - DAY / 2)),
        "the attestation's certificate does not lead to a root that is trusted here",
        id="by an attestation key that has expired",
    ),
    pytest.param(
        lambda t, b: said_by_tpm(t, ak=t.certificate(ekus=())),
        "the attestation has no certificate of an attestation key",
        id="without an attestation key",
    ),
    pytest.param(
        lambda t, b: said_by_tpm(t, signature=Tpm(b.tpm).sign(certify_info(b"", public_area(t.key)))),
        "the attestation key did not sign this",
        id="signed by another",
    ),
    pytest.param(
        lambda t, b: said_by_tpm(t, signature=t.sign(certify_info(b"", public_area(t.key)), "sha1")),
        "the attestation is signed with SHA-1",
        id="signed with SHA-1",
    ),
    pytest.param(
        lambda t, b: said_by_tpm(t, info=certify_info(b"", public_area(Tpm(b.tpm).key))),
        "the TPM certified another key",
        id="with the public area of a key that was not certified",
    ),
    pytest.param(
        lambda t, b: said_by_tpm(t, area=public_area(t.key, 0x00040060)),
        "the attested key was not made in the TPM or can leave it",
        id="about a key that can leave",
    ),
    pytest.param(
        lambda t, b: said_by_tpm(t, area=public_area(t.key, 0x00050072)),
        "the attested key is restricted: it signs for the TPM alone",
        id="about a restricted key",
    ),
    pytest.param(
        lambda t, b: replace(said_by_tpm(t), statement=der.sequence(der.octet_string(b""), der.octet_string(b""))),
        "the attestation is not attest, signature and public area of a TPM",
        id="without a public area",
    ),
    pytest.param(
        lambda t, b: replace(said_by_tpm(t), statement=der.null()), "message has another structure", id="that is none of a TPM"
    ),
    pytest.param(
        lambda t, b: replace(said_by_tpm(t), certificates=()),
        "the attestation has no certificate of an attestation key",
        id="without certificates",
    ),
    pytest.param(
        lambda t, b: replace(said_by_tpm(t), certificates=said_by_tpm(t).certificates * 5),
        "the attestation has more than 8 certificates",
        id="with too many certificates",
    ),
    pytest.param(
        lambda t, b: Evidence(oids.OID_ATTESTATION, b"?"),
        "the attestation of the request cannot be read",
        id="in a broken bundle",
    ),
]


@pytest.mark.parametrize(("make", "detail"), STATEMENTS)
def test_statements_of_tpms_that_are_refused(judge: Judge, tpm: Tpm, bench: Bench, make: Breaks, detail: str) -> None:
    assert judge.refusal(request(tpm.key, make(tpm, bench))) == detail


def test_statements_of_yubikeys_that_are_refused(judge: Judge, bench: Bench) -> None:
    device = YubiKey(bench.step)
    untrusted = "the attestation's certificate does not lead to a root that is trusted here"
    said = said_by_yubikey(device)
    assert judge.refusal(request(YubiKey(bench.step).key, said)) == "the attestation is about another key than the request's"
    assert judge.refusal(request(device.key, said_by_yubikey(replace(device, maker=bench.apple)))) == untrusted
    assert judge.refusal(request(device.key, replace(said, certificates=()))) == untrusted
    assert judge.refusal(request(device.key, replace(said, statement=bench.step.certificate))) == untrusted
    assert judge.refusal(request(device.key, replace(said, statement=der.null())))
    assert judge.refusal(request(device.key, replace(said, certificates=said.certificates * 9))).endswith(
        "more than 8 certificates"
    )


def test_a_format_without_roots(bench: Bench, tpm: Tpm) -> None:
    judged = RequestAttestation(None, bench.step.anchors)
    with pytest.raises(Rejection) as refused:
        judged.judge(request(tpm.key, said_by_tpm(tpm)), NOW)
    assert refused.value.detail == "attestations of this format are not taken here"
