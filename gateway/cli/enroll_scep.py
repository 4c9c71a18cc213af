"""Enrolls by SCEP as a device does (RFC 8894 §4)."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from urllib.parse import quote

from gateway.asn1.scep import PkiStatus
from gateway.cli.enrollment import POLL_SECONDS, DeviceKey, Enrolled, Server, Steps, Wanted, find_leaf, verified_chain
from gateway.cli.options import fail
from gateway.pki.certificate import parse_certificate
from gateway.pki.cms import Signer
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key, public_key_der
from gateway.pki.names import format_name
from gateway.wire.scep import client as scep
from gateway.wire.scep.operations import MEDIA_PKI_MESSAGE, PKI_OPERATION
from gateway.wire.scep.pkimessage import MessageType


def decrypts(key: DeviceKey) -> bool:
    """Say whether replies can be encrypted to such a key; else the challenge is their password (RFC 8894 §3.1)."""
    return key.value.startswith("rsa-")


@dataclass(frozen=True, slots=True)
class ScepServer:
    """A SCEP server as a client sees it."""

    server: Server

    def call(self, operation: str, body: bytes | None = None, message: str = "") -> tuple[bytes, str]:
        """Return body and media type of one operation; ends the command when the server does not answer 200."""
        target = f"{self.server.url.path}?operation={operation}" + (f"&message={quote(message, safe='')}" if message else "")
        connection = self.server.connect()
        try:
            connection.request(
                "GET" if body is None else "POST", target, body, {"Content-Type": MEDIA_PKI_MESSAGE} if body else {}
            )
            response = connection.getresponse()
            data, media_type = response.read(), response.getheader("Content-Type", "")
        except (OSError, http.client.HTTPException) as error:
            fail(f"{operation}: {self.server.url.geturl()} does not answer: {error}")
        finally:
            connection.close()
        if response.status != 200:
            fail(f"{operation}: the server answered {response.status}: {data[:300].decode('utf-8', 'replace').strip()}")
        return data, media_type


@dataclass(frozen=True, slots=True)
class Conversation:
    """One transaction with a server; `password` is there where the signer's key cannot decrypt."""

    server: ScepServer
    signer: Signer
    recipient: bytes
    ra: bytes
    transaction: str
    password: bytes | None = field(repr=False)

    def ask(self, message_data: bytes, message_type: MessageType = MessageType.PKCS_REQ) -> scep.CertRep:
        """Send one message and return the verified answer; ends the command when it is none."""
        request = scep.encode_request(
            message_data,
            self.signer,
            self.recipient,
            message_type=message_type,
            transaction=self.transaction,
            password=self.password,
        )
        data, media_type = self.server.call(PKI_OPERATION, request.message)
        if media_type != MEDIA_PKI_MESSAGE:
            fail(f"PKIOperation: the server answered {media_type}, not {MEDIA_PKI_MESSAGE}")
        return scep.decode_cert_rep(data, request, self.signer, self.ra, password=self.password)


def enroll(at: Server, steps: Steps, draw_challenge: Callable[[], str], wanted: Wanted) -> Enrolled:
    """Enroll one device; ends the command where the server refuses."""
    server = ScepServer(at)
    with steps.step("GetCACaps") as saw:
        saw(" ".join(server.call("GetCACaps")[0].decode("ascii", "replace").split()))
    with steps.step("GetCACert") as saw:
        authorities = scep.decode_ca_certificates(*server.call("GetCACert"))
        recipient = scep.choose_ra_certificate(authorities)
        ra = parse_certificate(scep.choose_ra_signer(authorities))
        issuer = verified_chain(ra, authorities)[0]
        saw(f"{len(authorities)} certificates, RA {format_name(ra.subject)}")
    with steps.step("challenge"):
        secret = draw_challenge()
    with steps.step("key and CSR"):
        key = generate_private_key(wanted.key.value)
        csr = build_csr(key, wanted.subject.der, wanted.sans, challenge_password=secret)
        now = datetime.now(UTC)
        signer = scep.self_signed_signer(key, wanted.subject.der, now - timedelta(hours=1), now + timedelta(days=1))
    password = None if decrypts(wanted.key) else secret.encode()
    device = Conversation(server, signer, recipient, ra.der, scep.transaction_id(public_key_der(key)), password)
    with steps.step("PKCSReq") as saw:
        answer = device.ask(csr)
        saw(answer.status.name)
    give_up = monotonic() + wanted.wait
    while answer.status is PkiStatus.PENDING and monotonic() < give_up:
        sleep(POLL_SECONDS)
        with steps.step("CertPoll") as saw:
            names = scep.encode_issuer_and_subject(issuer.subject.der, wanted.subject.der)
            answer = device.ask(names, MessageType.CERT_POLL)
            saw(answer.status.name)
    if answer.status is PkiStatus.FAILURE and answer.fail_info is not None:
        fail(f"The server refused: {answer.fail_info.name} ({answer.fail_info.value}): {answer.fail_info_text}")
    if answer.status is PkiStatus.PENDING:
        fail("The request is still pending: see `pki-gateway requests list`.")
    with steps.step("certificate") as saw:
        leaf = find_leaf(answer.certificates, public_key_der(key))
        chain = verified_chain(leaf, authorities)
        saw(f"{format_name(leaf.subject)}, serial {leaf.serial:x}, valid until {leaf.not_after:%Y-%m-%d %H:%M}Z")
    return Enrolled(key, leaf, chain)
