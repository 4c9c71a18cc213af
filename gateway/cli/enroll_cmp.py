"""Enrolls by CMP as a device does, and renews its certificate (RFC 9483 §4.1)."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic, sleep

from gateway.asn1.cmp import FailInfo
from gateway.cli.enrollment import POLL_SECONDS, Enrolled, Server, Steps, Wanted, find_leaf, verified_chain
from gateway.cli.options import fail
from gateway.cmp import P10CR_ID, BodyType, CertAnswer, ErrorAnswer, PkiConf, PkiStatus, PollAnswer, StatusInfo
from gateway.errors import Rejection
from gateway.model import Extension
from gateway.pki import crmf_writer, extensions
from gateway.pki.certificate import Certificate
from gateway.pki.certificate_hash import needs_hash_algorithm
from gateway.pki.csr import build_csr
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import format_name
from gateway.wire.cmp import requests
from gateway.wire.cmp.client import Identity, MacIdentity, Received, Sent, decode_answer, encode_message, pinned
from gateway.wire.cmp.protection import SignatureProtector

MEDIA_TYPE = "application/pkixcmp"
WITH_HASH_ALGORITHM = 3
"""pvno of messages with hashAlg (RFC 9810 §7)."""


@dataclass(frozen=True, slots=True)
class Device:
    """Who asks: by a shared secret, or by a certificate with its key, which it may have renewed.

    `signers` are the certificates, DER, that may sign answers.
    """

    secret: Callable[[], MacIdentity] | None = field(default=None, repr=False)
    certificates: tuple[bytes, ...] = ()
    key: PrivateKey | None = field(default=None, repr=False)
    renews: Certificate | None = None
    signers: tuple[bytes, ...] = ()

    def identify(self) -> Identity:
        """Return what protects its messages."""
        if self.secret is not None:
            return self.secret()
        if self.key is None:
            raise ValueError("a device has a secret or a key")
        return SignatureProtector.create(self.certificates, self.key)


@dataclass(slots=True)
class Conversation:
    """One transaction with a server (RFC 9483 §3.1)."""

    server: Server
    identity: Identity
    device: Device
    pvno: int
    last: Sent | None = None
    theirs: bytes | None = None
    """The server's nonce, which our next message repeats."""
    earlier: tuple[bytes, ...] = ()

    def ask(self, body: bytes, pvno: int | None = None) -> Received:
        """Send one message and return the verified answer; ends the command when it is none, or an error."""
        sent = encode_message(
            body,
            self.identity,
            now=datetime.now(UTC),
            transaction_id=self.last.transaction_id if self.last else None,
            recipient_nonce=self.theirs,
            earlier_nonces=self.earlier,
            pvno=pvno or self.pvno,
        )
        secret = self.identity.secret if isinstance(self.identity, MacIdentity) else None
        known = self.device.signers
        try:
            received = decode_answer(self._send(sent), sent, secret=secret, trusts=pinned(*known), known=known)
        except Rejection as error:
            fail(f"{sent.type.operation}: what the server answered is refused: {error.cause}")
        self.last, self.theirs = sent, received.header.sender_nonce
        self.earlier = (*self.earlier, sent.sender_nonce)
        if isinstance(received.body, ErrorAnswer):
            fail(f"The server refused: {describe(received.body.status, received.fail_info)}")
        return received

    def _send(self, sent: Sent) -> bytes:
        with closing(self.server.connect()) as connection:
            try:
                connection.request("POST", self.server.url.path or "/", sent.message, {"Content-Type": MEDIA_TYPE})
                response = connection.getresponse()
                data, media_type = response.read(), response.getheader("Content-Type", "")
            except (OSError, http.client.HTTPException) as error:
                fail(f"{sent.type.operation}: {self.server.url.geturl()} does not answer: {error}")
        if response.status != 200 or media_type != MEDIA_TYPE:
            said = data[:300].decode("utf-8", "replace").strip() if media_type.startswith("text/") else media_type
            fail(f"{sent.type.operation}: the server answered {response.status}: {said}")
        return data


def describe(status: StatusInfo, fail_info: frozenset[FailInfo]) -> str:
    """Return what a status says: the names of its bits, and its text."""
    named = " ".join(sorted(info.name for info in fail_info)) or status.status.name
    return f"{named}: {status.text}" if status.text else named


def enroll(server: Server, steps: Steps, device: Device, wanted: Wanted, *, pkcs10: bool = False) -> Enrolled:
    """Enroll one device, or renew its certificate; ends the command where the server refuses.

    `pkcs10` asks by p10cr, for upstream CAs that take nothing else.
    """
    with steps.step("identity") as saw:
        identity = device.identify()
        saw("shared secret" if isinstance(identity, MacIdentity) else "signature")
    if device.renews is not None:
        wanted = replace(wanted, subject=device.renews.subject, sans=device.renews.sans)
    with steps.step("key"):
        key = generate_private_key(wanted.key.value)
    conversation = Conversation(server, identity, device, pvno=2)
    answer, extra = _ask_until_answered(conversation, steps, _body(device, wanted, key, pkcs10=pkcs10), wanted)
    if answer.certificate is None:
        fail("The server answered without a certificate.")
    leaf = find_leaf((answer.certificate,), public_key_der(key))
    with steps.step("certConf") as saw:
        confirmed = requests.cert_conf(leaf.der, answer.cert_req_id)
        received = conversation.ask(confirmed, WITH_HASH_ALGORITHM if needs_hash_algorithm(leaf.der) else None)
        if not isinstance(received.body, PkiConf):
            fail("The server does not acknowledge that the certificate is confirmed.")
        saw("pkiconf")
    with steps.step("certificate") as saw:
        chain = verified_chain(leaf, (*answer.ca_pubs, *extra))
        saw(f"{format_name(leaf.subject)}, serial {leaf.serial:x}, valid until {leaf.not_after:%Y-%m-%d %H:%M}Z")
    return Enrolled(key, leaf, chain)


def _body(device: Device, wanted: Wanted, key: PrivateKey, *, pkcs10: bool) -> bytes:
    """Return ir, or kur where a certificate is renewed, or p10cr."""
    if pkcs10:
        return requests.p10cr(build_csr(key, wanted.subject.der, wanted.sans))
    sans = Extension(extensions.SUBJECT_ALT_NAME, False, extensions.encode_sans(wanted.sans)) if wanted.sans else None
    template = crmf_writer.encode_cert_template(
        subject=wanted.subject.der, public_key=public_key_der(key), wanted=() if sans is None else (sans,)
    )
    old = device.renews
    controls = () if old is None else (crmf_writer.old_cert_id(old.issuer_der, old.serial),)
    request = crmf_writer.encode_cert_request(0, template, controls)
    message = crmf_writer.encode_cert_req_msg(request, crmf_writer.prove_by_signature(request, key))
    return requests.enrollment(BodyType.IR if old is None else BodyType.KUR, (message,))


def _ask_until_answered(
    conversation: Conversation, steps: Steps, body: bytes, wanted: Wanted
) -> tuple[CertAnswer, tuple[bytes, ...]]:
    """Send the request, and ask until it does not wait any more (RFC 9483 §4.4); returns the certificates beside it too."""
    type_ = BodyType(body[0] & 0x1F)
    give_up = monotonic() + wanted.wait
    asked, pause = body, POLL_SECONDS
    while True:
        with steps.step(type_.operation if asked is body else "pollReq") as saw:
            received = conversation.ask(asked)
            match received.body:
                case PollAnswer(check_after=seconds):
                    saw(f"check after {seconds} s")
                    pause = max(POLL_SECONDS, float(seconds))
                case CertAnswer(status=status):
                    saw(status.status.name)
                case _:
                    pass
        match received.body:
            case CertAnswer(status=StatusInfo(status=PkiStatus.REJECTION) as refused):
                fail(f"The server refused: {describe(refused, received.fail_info)}")
            case CertAnswer(status=StatusInfo(status=PkiStatus.WAITING)) | PollAnswer():
                asked = requests.poll_req(P10CR_ID if type_ is BodyType.P10CR else 0)
            case CertAnswer() as answer:
                return answer, received.extra_certs
            case _:
                fail("The server answered something else than a certificate.")
        if monotonic() + pause > give_up:
            fail("The request is still pending: see `pki-gateway requests list`.")
        sleep(pause)
