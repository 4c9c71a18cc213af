"""ir, cr, kur and p10cr: from a message whose sender is known to a request of the corridor, and back (RFC 9810 §5.3.1-6)."""

from __future__ import annotations

from dataclasses import replace

from gateway.cmp import (
    P10CR_ID,
    Answer,
    BodyType,
    CertAnswer,
    CertId,
    CertRequestMessage,
    Enrollment,
    MacSender,
    PkiStatus,
    Possession,
    SignatureSender,
    StatusInfo,
)
from gateway.errors import Reason, Rejection
from gateway.model import (
    AskedValidity,
    EnrollmentRequest,
    Issued,
    IssuedWithKey,
    KeyOutcome,
    MessageProof,
    Outcome,
    Pending,
    Protocol,
    Rejected,
    Reservation,
    SecretProof,
    SignerCertificate,
    Unavailable,
)
from gateway.pki.certificate import parse_certificate, to_signer
from gateway.ra.cmp import answers
from gateway.ra.cmp.encrypted_certificates import CertificateSeal, plan_encryption
from gateway.ra.cmp.key_generation import WantedKey, plan_key
from gateway.ra.cmp.means import Exchange, Means, transaction_key
from gateway.ra.cmp.senders import same_name, verify_key_mac
from gateway.ra.cmp.standing import find_standing
from gateway.store.interfaces import TRANSACTION


class Enrollments:
    """Has certificates issued; who may have one, the credentials of the profile say."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def answer(self, exchange: Exchange, body: Enrollment) -> Answer:
        """Enroll and return the answer. Raises Rejection for what is refused before the corridor, and StoreUnavailable."""
        if len(body.requests) != 1:
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, "a message asks for one certificate")
        asked = body.requests[0]
        _check_template(exchange, body.type, asked)
        await self._check_possession(exchange, asked)
        seal = plan_encryption(exchange.terms, exchange.message.header, asked)
        wanted = None
        if asked.wants_key:
            wanted = plan_key(exchange.terms, exchange.message.header, asked, exchange.sender)
        implicit = seal is None and _is_implicit(exchange)
        request = _request(exchange, body.type, asked, implicit=implicit, updates=await self._updated(exchange, body.type, asked))
        if wanted is not None:
            await self._check_first_time(exchange)
            generated = await self._means.authority.generate(exchange.snapshot, request, wanted.kind)
            return await self._generated(exchange, body.type, asked, wanted, generated, implicit=implicit)
        outcome = await self._means.authority.enroll(exchange.snapshot, request)
        return enrolled(self._means, exchange, body.type, asked.cert_req_id, outcome, seal, implicit=implicit)

    async def _check_first_time(self, exchange: Exchange) -> None:
        """Refuse a request for a drawn key whose very bytes were served before.

        Asked again it would revoke the first certificate, whose key nobody can be sent twice: whoever recorded the message could
        do that. Its sender may ask again in the same transaction, by a message that is protected anew. Raises Rejection
        TRANSACTION_IN_USE, what `find_standing` does, and StoreUnavailable.
        """
        await find_standing(self._means.ledger, exchange.profile, exchange.sender, exchange.now)
        once = Reservation(TRANSACTION, exchange.message.digest.hex(), exchange.kept_until)
        if not await self._means.records.take(once, exchange.now):
            raise Rejection(Reason.TRANSACTION_IN_USE, "this very message was answered already")

    async def _generated(
        self,
        exchange: Exchange,
        type: BodyType,
        asked: CertRequestMessage,
        wanted: WantedKey,
        generated: KeyOutcome,
        *,
        implicit: bool,
    ) -> Answer:
        """Return the certificate with its key, sealed to whoever asked (RFC 9483 §4.1.6)."""
        if not isinstance(generated, IssuedWithKey):
            return enrolled(self._means, exchange, type, asked.cert_req_id, generated, None, implicit=implicit)
        sealed = await wanted.seal(generated)
        made = enrolled(self._means, exchange, type, asked.cert_req_id, generated.issued, None, implicit=implicit)
        return replace(made, body=replace(made.body, private_key=sealed)) if isinstance(made.body, CertAnswer) else made

    async def _check_possession(self, exchange: Exchange, asked: CertRequestMessage) -> None:
        """Refuse a request that does not prove possession of its key (RFC 4211 §4); a signature was verified when it was read."""
        if asked.wants_key:
            return
        if asked.possession_problem or asked.possession is Possession.NONE:
            text = "possession of the private key is not proved"
            raise Rejection(Reason.BAD_PROOF_OF_POSSESSION, text, asked.possession_problem or "there is no proof of it")
        if asked.authenticated_sender is not None and asked.authenticated_sender != exchange.message.header.sender:
            raise Rejection(Reason.BAD_PROOF_OF_POSSESSION, "the proof of possession names another sender")
        mac = asked.public_key_mac
        if mac is not None:
            good = await verify_key_mac(
                self._means, exchange.terms, exchange.sender, mac.algorithm, mac.covered, mac.value, exchange.source
            )
            if not good:
                raise Rejection(Reason.BAD_PROOF_OF_POSSESSION, "the publicKeyMAC of the proof of possession is not good")

    async def _updated(self, exchange: Exchange, type: BodyType, asked: CertRequestMessage) -> SignerCertificate | None:
        """Return the certificate that kur updates where it is another than the signer's, which registration authorities may ask.

        Raises Rejection WRONG_INTEGRITY, UNKNOWN_CERTIFICATE, BAD_TEMPLATE, and what `find_standing` does.
        """
        if type is not BodyType.KUR:
            return None
        if not isinstance(exchange.sender, SignatureSender):
            raise Rejection(Reason.WRONG_INTEGRITY, "an update is signed with the key of the certificate that it updates")
        signer, named = exchange.sender.signer, asked.old_cert_id
        old = None if named is None or _is_of(named, signer) else await self._find(exchange, named)
        updated = old or signer
        same_key = not asked.wants_key and updated.public_key.sha256 == asked.request.public_key.sha256
        if same_key and exchange.terms.config.same_key == "refuse":
            raise Rejection(Reason.BAD_TEMPLATE, "an update brings a new key")
        return old

    async def _find(self, exchange: Exchange, named: CertId) -> SignerCertificate:
        """Return a certificate that is not the signer's, for a registration authority that may update it.

        Nobody else learns whether there is such a certificate, and another profile's is one that there is not.
        """
        standing = await find_standing(self._means.ledger, exchange.profile, exchange.sender, exchange.now)
        if standing.may is None:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "oldCertID is not the signer's certificate")
        if "update" not in standing.may:
            raise Rejection(Reason.NOT_AUTHORIZED, "this registration authority may not update")
        row = await self._means.ledger.find_issued(named.issuer, named.serial)
        renewal = exchange.profile.renewal
        if row is None or renewal is None or row.profile not in renewal.from_profiles:
            cause = f"it was issued under profile {row.profile}" if row is not None else "it is not in the inventory"
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "oldCertID names no certificate that could be updated here", cause)
        return to_signer(parse_certificate(row.der))


def enrolled(
    means: Means,
    exchange: Exchange,
    type: BodyType,
    cert_req_id: int,
    outcome: Outcome,
    seal: CertificateSeal | None,
    *,
    implicit: bool,
) -> Answer:
    """Return the answer to an enrollment, and to the poll that ends one (RFC 9483 §4.1, §4.4)."""
    match outcome:
        case Issued():
            return _issued(means, exchange, type, cert_req_id, outcome, seal, implicit=implicit)
        case Pending():
            waiting = StatusInfo(PkiStatus.WAITING)
            return answers.answer(means, exchange, CertAnswer(answers.ANSWERED_BY[type], cert_req_id, waiting), outcome)
        case Rejected():
            return answers.answer(means, exchange, answers.refusal(type, cert_req_id, outcome), outcome)
        case Unavailable():
            return answers.answer(means, exchange, answers.error(outcome), outcome)


def _issued(
    means: Means,
    exchange: Exchange,
    type: BodyType,
    cert_req_id: int,
    issued: Issued,
    seal: CertificateSeal | None,
    *,
    implicit: bool,
) -> Answer:
    by_secret = isinstance(exchange.sender, MacSender)
    status = PkiStatus.GRANTED_WITH_MODS if issued.modified else PkiStatus.ACCEPTED
    body = CertAnswer(
        type=answers.ANSWERED_BY[type],
        cert_req_id=cert_req_id,
        status=StatusInfo(status),
        certificate=issued.certificate if seal is None else None,
        encrypted_certificate=None if seal is None else seal.seal(issued.certificate),
        # Whoever gets them by a shared secret may trust them (RFC 9810 §5.3.2): only where the secret vouches for them.
        ca_pubs=answers.roots(issued.chain) if by_secret and type is BodyType.IR else (),
    )
    made = answers.answer(means, exchange, body, issued)
    return replace(
        made,
        implicit_confirm=implicit,
        confirm_wait=None if implicit else exchange.terms.config.confirmation.wait,
        extra_certs=(*answers.issuing_chain(issued.chain), *exchange.terms.extra_certificates),
    )


def _check_template(exchange: Exchange, type: BodyType, asked: CertRequestMessage) -> None:
    expected = P10CR_ID if type is BodyType.P10CR else 0
    if asked.cert_req_id != expected:
        raise Rejection(Reason.UNSUPPORTED_MESSAGE, f"the certReqId of this request is {expected}")
    if asked.problem is not None:
        raise Rejection(asked.problem, "the template asks for what a client cannot choose, or what is not understood")
    if exchange.lightweight and type is not BodyType.KUR and asked.issuer is not None:
        chain = exchange.terms.ca_certificates or exchange.profile.upstream_ca.chain()
        if chain and not same_name(asked.issuer, parse_certificate(chain[0]).subject.der):
            raise Rejection(Reason.BAD_TEMPLATE, "the template names another issuer than the CA of this profile")


def _is_implicit(exchange: Exchange) -> bool:
    """Whether the client need not confirm: it asks for that, and may (RFC 9810 §5.1.1.1)."""
    return bool(exchange.message.header.implicit_confirm) and exchange.terms.config.confirmation.implicit == "allow"


def _is_of(named: CertId, signer: SignerCertificate) -> bool:
    return named.serial == signer.serial and same_name(named.issuer, signer.issuer_der)


def _request(
    exchange: Exchange, type: BodyType, asked: CertRequestMessage, *, implicit: bool, updates: SignerCertificate | None
) -> EnrollmentRequest:
    sender = exchange.sender
    by_key = sender if isinstance(sender, SignatureSender) else None
    proof = MessageProof(
        secret=_secret_proof(sender) if isinstance(sender, MacSender) else None,
        transaction=transaction_key(exchange),
        chain=by_key.chain if by_key else (),
        possession_verified=asked.possession is not Possession.RA_VERIFIED,
        confirm_by=None if implicit else exchange.now + exchange.terms.config.confirmation.wait,
        kept_until=exchange.kept_until,
        updates=updates,
    )
    return EnrollmentRequest(
        profile=exchange.profile.name,
        protocol=Protocol.CMP,
        operation=type.operation,
        transaction_id=exchange.transaction_id,
        csr=asked.request,
        challenge=None,
        signer=by_key.signer if by_key else None,
        source=exchange.source,
        is_renewal=type is BodyType.KUR,
        proof=proof,
        validity=_validity(exchange, asked),
    )


def _validity(exchange: Exchange, asked: CertRequestMessage) -> AskedValidity | None:
    """Return the times that were asked for, as of the client's own clock where that is behind ours (OpenSSL's -days)."""
    if asked.validity is None:
        return None
    said = exchange.message.header.message_time or exchange.now
    return replace(asked.validity, asked_at=min(said, exchange.now))


def _secret_proof(sender: MacSender) -> SecretProof:
    secret = sender.secret
    return SecretProof(
        id=secret.id,
        binding=secret.binding,
        owner=secret.owner,
        max_uses=secret.max_uses,
        expires_at=secret.expires_at,
        created_at=secret.created_at,
        profile=secret.profile,
    )
