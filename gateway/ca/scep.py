"""An upstream CA that is a SCEP server (RFC 8894): the devices' requests go on as they came, signed by the gateway."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import cast

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from gateway.asn1.scep import FailInfo, MessageType, PkiStatus
from gateway.ca.http import HttpClient, Response, check_status, refuse_unavailable
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
from gateway.ca.setup import Setup, read_certificates
from gateway.ca.shown import ca_certificates, public_text, try_chain, try_dates
from gateway.config.document import ConfigurationFaults
from gateway.config.remote_cas import ScepCA as Config
from gateway.errors import Rejection
from gateway.pki import cms
from gateway.pki.certificate import parse_certificate
from gateway.pki.csr import parse_csr
from gateway.wire.scep import client, operations
from gateway.wire.scep.pkimessage import find_certificate

CIPHER = "aes-128-cbc"
DIGEST = "sha256"
"""What every server must have (RFC 8894 §2.9); what it says of itself in clear is not asked."""
QUIET = timedelta(seconds=30)
"""After that what was sent has reached the server, if it ever does: a transaction unknown before may still be on its way."""
MIN_RSA_BITS = 2048

_CAPS = f"?operation={operations.GET_CA_CAPS}"
_CERTIFICATES = f"?operation={operations.GET_CA_CERT}"
_OPERATION = f"?operation={operations.PKI_OPERATION}"
_NEEDED = {"AES": "AES", "POSTPKIOperation": "requests by POST", "SHA-256": "SHA-256"}
"""Words of GetCACaps, each of which SCEPStandard implies (RFC 8894 §3.5.2)."""


@dataclass(frozen=True, slots=True)
class Recipients:
    """The server's own certificates, pinned: what requests are encrypted to, and all that may sign answers, DER."""

    encryption: bytes = field(repr=False)
    signers: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ScepSettings:
    """How the server is asked; `challenge` is what every request must bring."""

    signer: cms.Signer = field(repr=False)
    recipients: Recipients
    challenge: str | None = field(repr=False)
    poll_every: timedelta
    remembers: timedelta | None
    quiet: timedelta = QUIET


class ScepBackend(RemoteBackend):
    """PKCSReq for first requests and renewals alike, each in a transaction of its own that request and key name.

    What waits there is asked for by CertPoll. So is what is in doubt, where the server `remembers` transactions.
    """

    def __init__(self, setup: Setup, http: HttpClient, settings: ScepSettings) -> None:
        super().__init__(setup)
        self._http = http
        self._settings = settings
        self._now = setup.clock
        self._is_slow = cast("RSAPrivateKey", settings.signer.key).key_size >= SLOW_RSA_BITS
        self.capabilities = Capability.POLL | Capability.CHOOSES_VALIDITY
        if settings.remembers is not None:
            self.capabilities |= Capability.FIND

    async def start(self) -> None:
        """Make the pool of connections."""
        await self._http.open()

    async def close(self) -> None:
        """Close them."""
        await self._http.close()

    async def issue(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending:
        """Send a PKCSReq; raises UpstreamError."""
        self._check_challenge(request)
        message = await self._encode(request, request.request, MessageType.PKCS_REQ)
        response = await self._http.change("POST", _OPERATION, headers=_headers(), body=message.message, within=request.timeout)
        return self._judge(request, await self._decode(response, message))

    async def poll(self, request: IssueRequest, _reference: str) -> UpstreamIssued | UpstreamPending:
        """Send a CertPoll, which changes nothing; raises UpstreamError."""
        answer = await self._ask(request)
        if answer.fail_info is FailInfo.BAD_CERT_ID:
            raise UnknownResult("the SCEP server does not know a transaction that it let wait")
        return self._judge(request, answer)

    async def find(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending | None:
        """Ask by CertPoll what became of a transaction; None where the server remembers none. Raises UpstreamError."""
        answer = await self._ask(request)
        since = request.in_doubt_since
        if answer.status is PkiStatus.FAILURE and (since is None or not self._is_remembered(since)):
            raise UnknownResult("the SCEP server does not know the transaction, and may have forgotten it")
        if answer.fail_info is not FailInfo.BAD_CERT_ID:
            return self._judge(request, answer)
        if since is not None and self._now() < since + self._settings.quiet:
            raise UnknownResult("the SCEP server does not know the transaction yet")
        return None

    def _is_remembered(self, since: datetime) -> bool:
        remembers = self._settings.remembers
        return remembers is not None and self._now() < since + remembers

    async def _ask(self, request: IssueRequest) -> client.CertRep:
        """Send a CertPoll; raises NotSent for an answer that says nothing."""
        try:
            subject = parse_csr(request.request, proof=False).subject.der
        except Rejection as error:
            raise UnknownResult("the request cannot be read any more") from error
        issuer = self._certificates[0].subject.der
        message = await self._encode(request, client.encode_issuer_and_subject(issuer, subject), MessageType.CERT_POLL)
        response = await self._http.read(
            _OPERATION, method="POST", headers=_headers(), body=message.message, within=request.timeout
        )
        return await self._decode(response, message)

    def _check_challenge(self, request: IssueRequest) -> None:
        """Refuse a request that does not bring the server's challenge: another one is not for its eyes."""
        challenge = self._settings.challenge
        if challenge is None:
            return
        try:
            brought = parse_csr(request.request, proof=False).challenge_password
        except Rejection as error:
            raise UpstreamRejected("the request cannot be read") from error
        if brought is None or not hmac.compare_digest(brought.encode("utf-8", "surrogatepass"), challenge.encode()):
            raise UpstreamRejected("the request does not bring the challenge that the CA wants")

    async def _encode(self, request: IssueRequest, data: bytes, message_type: MessageType) -> client.ScepRequest:
        settings = self._settings
        work = partial(
            client.encode_request,
            data,
            settings.signer,
            settings.recipients.encryption,
            message_type=message_type,
            transaction=transaction_of(request),
            cipher=CIPHER,
            digest=DIGEST,
        )
        return await asyncio.to_thread(work) if self._is_slow else work()

    async def _decode(self, response: Response, message: client.ScepRequest) -> client.CertRep:
        """Return a CertRep that the server signed; anything else raises what the request's kind raises, or says more."""
        check_status(response, "SCEP", believed=self._http.is_private)
        work = partial(self._open, response.body, message)
        try:
            return await asyncio.to_thread(work) if self._is_slow else work()
        except Rejection as error:
            raise response.failed(f"the SCEP server answered with what is no answer to the request: {error.detail}") from error

    def _open(self, body: bytes, message: client.ScepRequest) -> client.CertRep:
        settings = self._settings
        signed = cms.parse_signed_data(body)
        signer = find_certificate(settings.recipients.signers, signed.signers[0].sid) if signed.signers else None
        # one that is not pinned did not sign it, whatever the answer brings along
        expected = signer.der if signer is not None else settings.recipients.signers[0]
        return client.decode_cert_rep(body, message, settings.signer, expected)

    def _judge(self, request: IssueRequest, answer: client.CertRep) -> UpstreamIssued | UpstreamPending:
        if answer.status is PkiStatus.PENDING:
            return UpstreamPending(transaction_of(request), max(1, int(self._settings.poll_every.total_seconds())))
        if answer.status is PkiStatus.FAILURE:
            raise UpstreamRejected(_refusal(answer))
        leaf = _find_leaf(answer.certificates, request.public_key)
        if leaf is None:
            raise UnknownResult("the SCEP server answered SUCCESS without a certificate")
        return UpstreamIssued(leaf, self.chain(), transaction_of(request))

    async def health(self) -> None:
        """Ask what the server can do; raises NotSent."""
        await self._read(_CAPS)

    async def fetch_chain(self) -> tuple[bytes, ...]:
        """Return the CA certificates that the server shows, issuing CAs first, DER, unproved; raises NotSent."""
        return ca_certificates(await self._read_shown())

    async def _read(self, path: str) -> Response:
        response = await self._http.read(path)
        refuse_unavailable(response)
        if response.status != 200:
            raise NotSent(f"the SCEP server answered {response.status}")
        return response

    async def _read_shown(self) -> tuple[bytes, ...]:
        response = await self._read(_CERTIFICATES)
        try:
            return client.decode_ca_certificates(response.body, response.media_type)
        except Rejection as error:
            raise NotSent(f"what is at `url` is no SCEP server: {error.detail}") from error

    async def check(self) -> tuple[Trial, ...]:
        """Try connection, capabilities and chain; whether `signer` is taken only a request can tell."""
        try:
            words = (await self._read(_CAPS)).body[:4096].decode("ascii", "replace").split()
            shown = await self._read_shown()
        except UpstreamError as error:
            advice = "look at `url`, `connection` and whether the SCEP server runs"
            return (Trial("connection", good=False, finding=str(error), advice=advice),)
        return (
            Trial("connection", good=True, finding="the SCEP server shows what it can and its certificates"),
            _try_capabilities(words),
            try_chain(self.chain(), shown),
            self._try_recipients(shown),
            try_dates("signer", "the certificate that signs requests", self._settings.signer.certificate, self._now()),
        )

    def _try_recipients(self, shown: tuple[bytes, ...]) -> Trial:
        if self._settings.recipients.encryption in shown:
            return try_dates("ra", "the server's certificate", self._settings.recipients.encryption, self._now())
        advice = "the server has another RA certificate: get it by a safe way and put it into `ra`"
        return Trial("ra", good=False, finding="the server does not show the certificate that requests go to", advice=advice)


def transaction_of(request: IssueRequest) -> str:
    """Return the transactionID of a request: always the same for it, and never another's (RFC 8894 §3.2.1.1)."""
    return hashlib.sha256(request.request_id.encode() + b"\0" + request.public_key).hexdigest().upper()


def _headers() -> dict[str, str]:
    return {"Content-Type": operations.MEDIA_PKI_MESSAGE}


def _find_leaf(certificates: tuple[bytes, ...], public_key: bytes) -> bytes | None:
    """Return the certificate for the key; one for another is left for others to judge. None where nothing came."""
    for der in certificates:
        try:
            if parse_certificate(der).public_key.der == public_key:
                return der
        except Rejection:
            continue
    return certificates[0] if certificates else None


def _refusal(answer: client.CertRep) -> str:
    name = answer.fail_info.name.lower() if answer.fail_info is not None else "no reason"
    text = public_text(answer.fail_info_text)
    return f"the CA refused the request ({name})" + (f": {text}" if text else "")


def _try_capabilities(words: list[str]) -> Trial:
    missing = [what for word, what in _NEEDED.items() if word not in words]
    if "SCEPStandard" in words or not missing:
        return Trial("capabilities", good=True, finding="the server has what RFC 8894 demands")
    finding = f"the server does not say that it has {', '.join(missing)}, which the gateway uses"
    return Trial("capabilities", good=False, finding=finding, advice="a server before RFC 8894 may refuse all requests")


def create(config: Config, setup: Setup) -> UpstreamCA:
    """Return the backend, ready for `start`; raises ConfigurationFaults."""
    pair = setup.read_pair(config.signer, "signer")
    if not isinstance(pair.key, RSAPrivateKey) or pair.key.key_size < MIN_RSA_BITS:
        raise setup.fault(f"must be RSA of {MIN_RSA_BITS} bits and more: answers are encrypted to it", "signer", "key")
    challenge = None
    if config.challenge is not None:
        challenge = _read_challenge(setup.sources.secret(config.challenge), setup)
    settings = ScepSettings(
        signer=cms.Signer.create(pair.certificates[0], pair.key),
        recipients=_read_recipients(config, setup),
        challenge=challenge,
        poll_every=config.poll_every,
        remembers=config.remembers,
    )
    return ScepBackend(setup, setup.connect(config.url, config.connection), settings)


def _read_challenge(secret: bytes, setup: Setup) -> str:
    try:
        text = secret.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or not text:
        raise setup.fault("must be one line of printable ASCII characters", "challenge")
    return text


def _read_recipients(config: Config, setup: Setup) -> Recipients:
    """Return what requests go to; a CA that receives them itself may do so whatever its key usage says (scepserver's does)."""
    if config.ra is None:
        if not setup.chain:  # the server is only asked for its chain
            return Recipients(b"", ())
        if parse_certificate(setup.chain[0]).public_key.algorithm != "rsa":
            raise setup.fault("is needed: the issuing CA's key is not RSA, so requests cannot be encrypted to it", "ra")
        return Recipients(setup.chain[0], (setup.chain[0],))
    certificates, faults = read_certificates([(setup.where("ra"), config.ra)], setup.sources)
    if faults:
        raise ConfigurationFaults(*faults)
    try:
        return Recipients(client.choose_ra_certificate(certificates), certificates)
    except Rejection as error:
        raise setup.fault(f"{config.ra}: {error.detail}", "ra") from error
