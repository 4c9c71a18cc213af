"""The stages of one SCEP enrollment, each timed by itself in this process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.timing import median_microseconds
from gateway.config.policy import PolicyConfig
from gateway.model import CertificateRequest, CredentialKind, Requester
from gateway.pki.certificate import Issuer, build_certificate, new_serial, pem_to_ders, self_signed_ca
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key, load_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.ra.policy import decide
from gateway.wire.scep import client
from gateway.wire.scep.identity import RaIdentity
from gateway.wire.scep.pkimessage import decode_pki_message, decode_request, encode_success, verify_signature

TESTDATA = Path(__file__).parent.parent / "testdata" / "scep"


def stage_microseconds() -> dict[str, float]:
    """Return the median time of each stage by name, in the order of the walk."""
    now = datetime.now(UTC).replace(microsecond=0)
    [ra_certificate] = pem_to_ders((TESTDATA / "ra.pem").read_bytes())
    ra = RaIdentity.create(ra_certificate, load_private_key((TESTDATA / "ra.key").read_bytes()), ())
    device = generate_private_key("rsa-2048")
    name = parse_name_text("CN=bench")
    signer = client.self_signed_signer(device, name.der, now - timedelta(hours=1), now + timedelta(days=1))
    csr = build_csr(device, name.der, challenge_password="not-checked-here")
    sent = client.encode_request(csr, signer, ra.certificate.der, transaction=client.transaction_id(public_key_der(device)))

    message = decode_pki_message(sent.message)
    request = decode_request(message, ra)
    assert isinstance(request, CertificateRequest)
    requester = Requester("static:bench", CredentialKind.STATIC)
    policy = PolicyConfig()
    grant = decide(policy, request, requester, now, None).grant
    assert grant is not None
    ca_key = generate_private_key("ec-p256")
    root = self_signed_ca(ca_key, "CN=Bench CA", now - timedelta(hours=1), now + timedelta(days=3650))
    issuer = Issuer.from_certificate(root, ca_key)
    leaf = build_certificate(issuer, new_serial(), grant, request.public_key.der)
    stages: dict[str, Callable[[], object]] = {
        "decode message": lambda: decode_pki_message(sent.message),
        "verify its signature": lambda: verify_signature(message, ra, now),
        "decrypt (RSA-2048), decode CSR, verify possession": lambda: decode_request(message, ra),
        "decide": lambda: decide(policy, request, requester, now, None),
        "sign certificate (P-256 CA)": lambda: build_certificate(issuer, new_serial(), grant, request.public_key.der),
        "encrypt and sign reply (RSA-2048)": lambda: encode_success(message, ra, (leaf,)),
    }
    return {stage: median_microseconds(work) for stage, work in stages.items()}
