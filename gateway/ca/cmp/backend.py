"""An upstream CA that is a CMP server (RFC 9810, RFC 9483): the gateway asks it as a client or as a registration authority."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from time import monotonic

import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from gateway.asn1.cmp import OID_CA_CERTS, FailInfo
from gateway.ca.cmp.dialogue import Answer, Dialogue, Identity, Question
from gateway.ca.cmp.forward import TRANSACTION_BYTES, Forward, encode_request, transaction_of
from gateway.ca.cmp.reference import Waiting
from gateway.ca.cmp.refusals import error_of
from gateway.ca.cmp.signers import AnswerSigners
from gateway.ca.http import HttpClient
from gateway.ca.interfaces import (
    Capability,
    IssueRequest,
    NotSent,
    Trial,
    UnknownResult,
    UpstreamCA,
    UpstreamError,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.ca.local import SLOW_RSA_BITS
from gateway.ca.remote import RemoteBackend
from gateway.ca.setup import Pair, Setup, read_certificates
from gateway.ca.shown import MAX_SHOWN, ca_certificates, try_chain, try_dates
from gateway.cmp import P10CR_ID, CertAnswer, ErrorAnswer, General, GeneralInfo, PkiConf, PkiStatus, PollAnswer, Revoked
from gateway.config.document import ConfigurationFaults
from gateway.config.remote_cas import CmpCA as Config
from gateway.config.remote_cas import CmpSecret, CmpSignature
from gateway.errors import Rejection
from gateway.model import RequestForm, RevocationReason
from gateway.pki import der
from gateway.pki.certificate import parse_certificate
from gateway.pki.certificate_hash import needs_hash_algorithm
from gateway.pki.names import parse_name_text
from gateway.wire.cmp import client, requests
from gateway.wire.cmp.protection import SignatureProtector

CONFIRM_AGAIN = 30
"""Seconds until a certificate is confirmed once more whose confirmation was not answered."""
_GRANTED = frozenset({PkiStatus.ACCEPTED, PkiStatus.GRANTED_WITH_MODS})
_REVOKED = _GRANTED | {PkiStatus.REVOCATION_WARNING, PkiStatus.REVOCATION_NOTIFICATION}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CmpSettings:
    """How requests go to the server, and what it remembers of them; `identity` is our certificate, DER, where we have one."""

    forward: Forward
    poll_every: timedelta
    remembers: timedelta | None
    identity: bytes | None = None


class CmpBackend(RemoteBackend):
    """p10cr or ir, each in a transaction of its own that request and key name; implicit confirmation is asked for.

    Where the server does not grant it, what came is confirmed (certConf) before it is delivered: until the server has answered
    that, the request is pending, with the certificate in its reference. What waits at the server is asked for by pollReq.
    """

    def __init__(self, setup: Setup, http: HttpClient, dialogue: Dialogue, settings: CmpSettings) -> None:
        super().__init__(setup)
        self._http = http
        self._dialogue = dialogue
        self._settings = settings
        self._now = setup.clock
        if settings.forward != "p10cr":
            self.accepts = frozenset(RequestForm)
        self.capabilities = Capability.POLL | Capability.REVOKE | Capability.REVIVE | Capability.CHOOSES_VALIDITY
        if settings.remembers is not None:
            self.capabilities |= Capability.REPEATABLE

    async def start(self) -> None:
        """Make the pool of connections."""
        await self._http.open()

    async def close(self) -> None:
        """Close them."""
        await self._http.close()

    async def issue(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending:
        """Send the request; one in doubt only while the server remembers it. Raises UpstreamError."""
        if request.in_doubt_since is not None and not self._is_remembered(request.in_doubt_since):
            raise UnknownResult("the CA is not known to remember a transaction for so long: sent again it could be issued twice")
        until = monotonic() + request.timeout
        body = encode_request(request, self._settings.forward)
        question = Question(body, transaction_of(request), changes=True, enrolls=True)
        answer = await self._dialogue.ask(question, request.timeout)
        return await self._judge(request, answer, until)

    def _is_remembered(self, since: datetime) -> bool:
        remembers = self._settings.remembers
        return remembers is not None and self._now() < since + remembers

    async def poll(self, request: IssueRequest, reference: str) -> UpstreamIssued | UpstreamPending:
        """Send a pollReq, or the certConf that was not answered; neither makes another certificate. Raises UpstreamError."""
        waiting, until = Waiting.from_text(reference), monotonic() + request.timeout
        if waiting.certificate is not None:
            return await self._confirm(request, waiting, waiting.certificate, until)
        body = requests.poll_req(waiting.cert_req_id)
        question = Question(body, transaction_of(request), after=waiting.nonce, earlier=waiting.first)
        answer = await self._dialogue.ask(question, request.timeout)
        said = answer.received.body
        if isinstance(said, ErrorAnswer) and said.status.status is not PkiStatus.WAITING:
            refusal = error_of(answer.received.fail_info, said.status.text)
            # of the certificate it says nothing, only of the question
            raise UnknownResult(str(refusal)) if isinstance(refusal, UpstreamRejected) else refusal
        return await self._judge(request, answer, until, waiting)

    async def _judge(
        self, request: IssueRequest, answer: Answer, until: float, polled: Waiting | None = None
    ) -> UpstreamIssued | UpstreamPending:
        """Say what an answer to a request means, or to a pollReq; `until` is when the caller gives up."""
        received, every = answer.received, int(self._settings.poll_every.total_seconds())
        body, nonce = received.body, received.header.sender_nonce
        first = answer.nonce if polled is None else polled.first
        match body:
            case PollAnswer():
                after = body.check_after if body.check_after > 0 else every
                return UpstreamPending(Waiting(body.cert_req_id, nonce, first).to_text(), after)
            case CertAnswer() if body.status.status is PkiStatus.WAITING:
                return UpstreamPending(Waiting(body.cert_req_id, nonce, first).to_text(), every)
            case ErrorAnswer() if body.status.status is PkiStatus.WAITING:  # the whole answer is late (RFC 9483 §4.4)
                number = P10CR_ID if polled is None else polled.cert_req_id
                return UpstreamPending(Waiting(number, nonce, first).to_text(), every)
            case CertAnswer() if body.status.status in _GRANTED and body.certificate is not None:
                _check_readable(body.certificate)
                if received.header.implicit_confirm:
                    return self._issued(body.certificate)
                return await self._confirm(request, Waiting(body.cert_req_id, nonce, first), body.certificate, until)
            case CertAnswer() if body.status.status in _GRANTED:
                raise UnknownResult("the CMP server granted a certificate and did not send it in clear")
            case CertAnswer() | ErrorAnswer():
                raise error_of(received.fail_info, body.status.text)
            case _:
                raise UnknownResult("the CMP server answered with a message of another kind")

    def _issued(self, certificate: bytes) -> UpstreamIssued:
        return UpstreamIssued(certificate, self.chain())

    async def _confirm(
        self, request: IssueRequest, waiting: Waiting, certificate: bytes, until: float
    ) -> UpstreamIssued | UpstreamPending:
        """Tell the server that the certificate came, which it may revoke otherwise; one for another key is not taken.

        Without an answer the request stays pending, for the same to be said again. Raises UpstreamError.
        """
        question = _confirmation(request, waiting, certificate)
        try:
            # whoever gave up waiting for us would lose what we have in hand
            answer = await self._dialogue.ask(question, max(0.1, (until - monotonic()) / 2))
        except NotSent as error:
            log.warning("a certificate could not be confirmed yet", upstream_ca=self.name, request_id=request.request_id)
            return UpstreamPending(replace(waiting, certificate=certificate).to_text(), max(CONFIRM_AGAIN, error.retry_after))
        received = answer.received
        if isinstance(received.body, PkiConf) or FailInfo.CERT_CONFIRMED in received.fail_info:
            return self._issued(certificate)
        text = received.body.status.text if isinstance(received.body, ErrorAnswer) else ""
        refusal = error_of(received.fail_info, text)
        raise UnknownResult(f"the CA issued a certificate and did not take its confirmation: {refusal}")

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        """Send an rr; raises UpstreamError."""
        await self._send_rr(certificate, serial, reason)

    async def revive(self, certificate: bytes, serial: int, when: datetime) -> None:
        """Send an rr with removeFromCRL (RFC 5280 §5.3.1); raises UpstreamError."""
        await self._send_rr(certificate, serial, None)

    async def _send_rr(self, certificate: bytes, serial: int, reason: RevocationReason | None) -> None:
        body = requests.rr(parse_certificate(certificate).issuer_der, serial, reason)
        received = (await self._dialogue.ask(Question(body, _new_transaction(), changes=True))).received
        said = received.body
        status = said.statuses[0] if isinstance(said, Revoked) else said.status if isinstance(said, ErrorAnswer) else None
        if isinstance(said, Revoked) and status is not None and status.status in _REVOKED:
            return
        if reason is not None and FailInfo.CERT_REVOKED in received.fail_info:
            return
        raise error_of(received.fail_info, status.text if status is not None else "")

    async def health(self) -> None:
        """Ask for the CA certificates, whatever the answer is; raises NotSent."""
        received = await self._ask_for_certificates()
        if isinstance(received.body, ErrorAnswer):
            refusal = error_of(received.fail_info, received.body.status.text)
            if isinstance(refusal, NotSent):
                raise refusal

    async def fetch_chain(self) -> tuple[bytes, ...]:
        """Return the CA certificates that the server shows, issuing CAs first, DER, unproved; raises NotSent."""
        return ca_certificates(_shown(await self._ask_for_certificates()))

    async def _ask_for_certificates(self) -> client.Received:
        """Send a genm for caCerts (RFC 9483 §4.3.1)."""
        body = requests.genm((GeneralInfo(OID_CA_CERTS),))
        return (await self._dialogue.ask(Question(body, _new_transaction()))).received

    async def check(self) -> tuple[Trial, ...]:
        """Try connection, protection and chain; whether the gateway may enroll only a request can tell."""
        try:
            received = await self._ask_for_certificates()
            shown = _shown(received)
        except UpstreamError as error:
            advice = "look at `url`, `connection`, `auth`, `signers` and whether the CMP server runs"
            return (Trial("connection", good=False, finding=str(error), advice=advice),)
        found = [Trial("connection", good=True, finding="the CMP server answers, and is who it should be"), _try_auth(received)]
        if shown:
            found.append(try_chain(self.chain(), shown))
        if self._settings.identity is not None:
            found.append(try_dates("signer", "the certificate that signs requests", self._settings.identity, self._now()))
        return tuple(found)


def _new_transaction() -> bytes:
    return secrets.token_bytes(TRANSACTION_BYTES)


def _confirmation(request: IssueRequest, waiting: Waiting, certificate: bytes) -> Question:
    """Return the certConf that accepts a certificate for the request's key, and rejects any other."""
    good = parse_certificate(certificate).public_key.der == request.public_key
    text = "" if good else "the certificate is for another key"
    body = requests.cert_conf(certificate, waiting.cert_req_id, accepted=good, text=text)
    pvno = 3 if needs_hash_algorithm(certificate) else 2  # hashAlg is of CMPv3
    return Question(body, transaction_of(request), after=waiting.nonce, pvno=pvno)


def _check_readable(certificate: bytes) -> None:
    try:
        parse_certificate(certificate)
    except Rejection as error:
        raise UnknownResult("the CMP server granted a certificate that cannot be read") from error


def _shown(received: client.Received) -> tuple[bytes, ...]:
    """Return the certificates of a genp's caCerts, DER, or what came beside an answer that has none; raises NotSent."""
    infos = received.body.infos if isinstance(received.body, General) else ()
    values = [info.value for info in infos if info.oid == OID_CA_CERTS and info.value is not None]
    try:
        body = der.content(der.SEQUENCE, values[0]) if values else b""
        found = der.elements(body, limit=MAX_SHOWN)
    except Rejection as error:
        raise NotSent("the CMP server shows certificates that cannot be read") from error
    return tuple(body[start:end] for _, start, _, end in found) or received.extra_certs[:MAX_SHOWN]


def _try_auth(received: client.Received) -> Trial:
    if isinstance(received.body, ErrorAnswer):
        refusal = error_of(received.fail_info, received.body.status.text)
        if isinstance(refusal, NotSent):
            return Trial("auth", good=False, finding=str(refusal), advice="correct `auth`, or what the server knows of it")
    return Trial("auth", good=True, finding="the CMP server takes the protection of the gateway's messages")


def create(config: Config, setup: Setup) -> UpstreamCA:
    """Return the backend, ready for `start`; raises ConfigurationFaults."""
    # OpenSSL's server promises to keep the connection and closes it with the transaction: what was sent next would be in doubt
    http = setup.connect(config.url, config.connection, reuse=False)
    dialogue = partial(Dialogue, http, clock=setup.clock)
    identity = partial(
        Identity,
        recipient=_read_recipient(config, setup),
        signers=_read_signers(config, setup),
        nested=config.forward == "nested",
    )
    settings = CmpSettings(config.forward, config.poll_every, config.remembers)
    if isinstance(config.auth, CmpSecret):
        secret = _read_secret(config.auth, setup)
        return CmpBackend(setup, http, dialogue(identity(secret)), settings)
    pair = _read_signer(config.auth, setup)
    is_slow = isinstance(pair.key, RSAPrivateKey) and pair.key.key_size >= SLOW_RSA_BITS
    protector = SignatureProtector.create(pair.certificates, pair.key)
    settings = replace(settings, identity=pair.certificates[0])
    return CmpBackend(setup, http, dialogue(identity(protector, is_slow=is_slow)), settings)


def _read_signer(auth: CmpSignature, setup: Setup) -> Pair:
    pair = setup.read_pair(auth.signer, "auth", "signer")
    certificate = parse_certificate(pair.certificates[0])
    if certificate.key_usage is not None and "digitalSignature" not in certificate.key_usage:
        raise setup.fault("may not sign messages: its key usage lacks digitalSignature", "auth", "signer", "certificate")
    return pair


def _read_secret(auth: CmpSecret, setup: Setup) -> client.MacIdentity:
    secret = setup.sources.secret(auth.secret)
    if not secret:
        raise setup.fault("is empty", "auth", "secret")
    return client.MacIdentity(auth.reference.encode(), secret, pbmac1=auth.mac == "pbmac1")


def _read_recipient(config: Config, setup: Setup) -> bytes:
    if config.recipient is None:
        return parse_certificate(setup.chain[0]).subject.der if setup.chain else der.sequence()
    try:
        return parse_name_text(config.recipient).der
    except (Rejection, ValueError) as error:
        raise setup.fault("is not a name such as CN=CA,O=Example", "recipient") from error


def _read_signers(config: Config, setup: Setup) -> AnswerSigners | None:
    """Return who may sign answers; None where nothing is pinned yet, and the server is only asked for its chain."""
    certificates = setup.chain
    if config.signers is not None:
        certificates, faults = read_certificates([(setup.where("signers"), config.signers)], setup.sources)
        if faults:
            raise ConfigurationFaults(*faults)
    try:
        return AnswerSigners.create(certificates) if setup.chain else None
    except ValueError as error:
        raise setup.fault(f"{config.signers or 'chain'}: {error}", "signers") from error
