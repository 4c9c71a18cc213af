"""What `openssl cmp` is refused: messages without protection, of strangers, changed on the way, and recorded ones sent again."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.pki import der
from tests.flow.scep.other_ca import OtherCA
from tests.interop.cmp_site import CmpClient, CmpSite, refused

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]


@pytest.fixture
def device(cmp_site: CmpSite, tmp_path: Path) -> CmpClient:
    return CmpClient(tmp_path, cmp_site)


def test_unprotected(device: CmpClient) -> None:
    options = ("-unprotected_requests", "-newkey", device.new_key(), "-subject", "/CN=ossl-unprotected")
    assert "badMessageCheck" in refused(device, "ir", *options)


@pytest.mark.parametrize(
    ("reference", "secret"),
    [pytest.param(None, "wrong", id="wrong-secret"), pytest.param("unknown", None, id="unknown-reference")],
)
def test_wrong_secret(device: CmpClient, reference: str | None, secret: str | None) -> None:
    good = device.site.new_secret()
    by = ("-ref", reference or good[0], "-secret", f"pass:{secret or good[1]}")
    options = ("-newkey", device.new_key(), "-subject", "/CN=ossl-wrong", "-unprotected_errors")
    assert "badMessageCheck" in refused(device, "ir", *by, *options)


def test_a_secret_serves_once(device: CmpClient) -> None:
    secret = device.site.new_secret("demo")
    assert device.cmp("ir", *device.by_secret(secret), "-newkey", device.new_key(), "-subject", "/CN=ossl-once"), device.said
    refused(device, "ir", *device.by_secret(secret), "-newkey", device.new_key(), "-subject", "/CN=ossl-once-more")


def test_a_secret_that_was_revoked(device: CmpClient) -> None:
    made = json.loads(device.site.server.cli("cmp-secret", "create", "demo", "--format", "json").stdout)
    device.site.server.cli("cmp-secret", "revoke", made["id"])
    by = device.by_secret((made["reference"], made["secret"]))
    refused(device, "ir", *by, "-newkey", device.new_key(), "-subject", "/CN=ossl-revoked-secret", "-unprotected_errors")


def test_foreign_certificates(device: CmpClient) -> None:
    stranger = device.write_pair("stranger", OtherCA.create("somebody"), "CN=ossl-stranger")
    refused(device, "cr", *stranger, "-newkey", device.new_key(), "-subject", "/CN=ossl-stranger")


def test_tampered(cmp_site: CmpSite, device: CmpClient) -> None:
    """One bit of a recorded request, in its template: the protection does not cover it any more."""
    options = (*device.by_secret(), "-newkey", device.new_key(), "-subject", "/CN=ossl-tampered", "-reqout", "req.der conf.der")
    assert device.cmp("ir", *options), device.said
    message = (device.folder / "req.der").read_bytes()
    changed = message.replace(b"ossl-tampered", b"ossl-tampereE")
    assert changed != message
    status, answer = post(cmp_site, changed)
    assert status == 200
    assert body_type(answer) == 23
    assert len(cmp_site.certificates("ossl-tampered")) == 1


def post(cmp_site: CmpSite, message: bytes, path: str = "/.well-known/cmp/p/demo") -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", cmp_site.server.http_port, timeout=20)) as connection:
        connection.request("POST", path, message, {"Content-Type": "application/pkixcmp"})
        reply = connection.getresponse()
        return reply.status, reply.read()


def body_type(message: bytes) -> int:
    return der.elements(der.content(der.SEQUENCE, message))[1][0] & 0x1F


def test_replay_of_recorded_requests(cmp_site: CmpSite, device: CmpClient) -> None:
    """What was confirmed is not given again; its transaction is not used for another certificate."""
    options = (*device.by_secret(), "-newkey", device.new_key(), "-subject", "/CN=ossl-replayed")
    assert device.cmp("ir", *options, "-reqout", "req.der conf.der"), device.said
    for name, body in (("req.der", 1), ("conf.der", 23)):
        status, answer = post(cmp_site, (device.folder / name).read_bytes())
        assert (status, body_type(answer)) == (200, body), name
        assert device.certificate.public_bytes(Encoding.DER) not in answer
    assert len(cmp_site.certificates("ossl-replayed")) == 1
    assert "transactionIdInUse" in refused(device, "ir", *options, "-reqin", "req.der conf.der")


def test_a_request_whose_answer_was_lost(cmp_site: CmpSite, device: CmpClient) -> None:
    """The same message again, before it was confirmed, gets the same certificate; openssl then goes on where it stopped."""
    options = (*device.by_secret(), "-newkey", device.new_key(), "-subject", "/CN=ossl-lost")
    assert device.cmp("ir", *options, "-disable_confirm", "-reqout", "req.der"), device.said
    first = device.certificate
    assert device.cmp("ir", *options, "-disable_confirm", "-reqin", "req.der"), device.said
    assert device.certificate == first
    assert len(cmp_site.certificates("ossl-lost")) == 1


def test_the_same_transaction_by_a_new_message(cmp_site: CmpSite, device: CmpClient) -> None:
    """Option -reqin_new_tid protects a recorded request anew: another transaction, for which a secret of one use is used up."""
    options = (*device.by_secret(cmp_site.new_secret()), "-newkey", device.new_key(), "-subject", "/CN=ossl-new-tid")
    assert device.cmp("ir", *options, "-reqout", "req.der conf.der"), device.said
    refused(device, "ir", *options, "-reqin", "req.der conf.der", "-reqin_new_tid")
    assert len(cmp_site.certificates("ossl-new-tid")) == 1
