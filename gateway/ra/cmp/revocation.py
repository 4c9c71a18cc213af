"""rr: who may have which certificate revoked, or taken off hold (RFC 9810 §5.3.9, RFC 9483 §4.2)."""

from __future__ import annotations

from gateway.cmp import Answer, CertId, MacSender, PkiStatus, RevocationDetails, Revocations, Revoked, SignatureSender, StatusInfo
from gateway.errors import Reason, Rejection
from gateway.model import Protocol, Rejected, Reservation, RevocationReason, Unavailable
from gateway.pki.certificate import parse_certificate
from gateway.ra.cmp import answers
from gateway.ra.cmp.means import Exchange, Means, transaction_key
from gateway.ra.cmp.senders import same_name
from gateway.ra.cmp.standing import Standing
from gateway.ra.requests import Acknowledged, RevokeRequest
from gateway.store.interfaces import TRANSACTION, InventoryRow


class RevocationRequests:
    """Revokes certificates of the profile that was asked, and of no other, for their holders, for registration authorities that
    may, and for the shared secrets that got them.
    """

    def __init__(self, means: Means) -> None:
        self._means = means

    async def answer(self, exchange: Exchange, standing: Standing, body: Revocations) -> Answer:
        """Revoke and return the answer. Raises Rejection for what is refused before the corridor, and StoreUnavailable."""
        if len(body.details) != 1:
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, "a message revokes one certificate")
        asked = body.details[0]
        row = await self._find(exchange, asked)
        authorized = _authorize(exchange, standing, row)
        if asked.revive and standing.may is None:
            # Whoever has stolen a key or a secret must not take its certificate off hold again.
            raise Rejection(Reason.NOT_AUTHORIZED, "only a registration authority takes certificates off hold")
        _check_state(row, asked)
        taken = Reservation(TRANSACTION, transaction_key(exchange).hex(), exchange.kept_until)
        if not await self._means.records.take(taken, exchange.now):
            raise Rejection(Reason.TRANSACTION_IN_USE, "this transactionID was used for another request")
        outcome = await self._means.authority.revoke(
            exchange.snapshot,
            RevokeRequest(
                profile=exchange.profile.name,
                protocol=Protocol.CMP,
                operation=exchange.operation,
                transaction_id=exchange.transaction_id,
                requester_key=exchange.requester_key,
                certificate_sha256=row.sha256,
                reason=asked.reason or RevocationReason.UNSPECIFIED,
                source=exchange.source,
                authorized=authorized,
                revive=asked.revive,
            ),
        )
        return self._told(exchange, row, outcome)

    def _told(self, exchange: Exchange, row: InventoryRow, outcome: Acknowledged | Rejected | Unavailable) -> Answer:
        if isinstance(outcome, Unavailable):
            return answers.answer(self._means, exchange, answers.error(outcome), outcome)
        if isinstance(outcome, Rejected):
            return answers.answer(self._means, exchange, refusal(outcome, CertId(row.issuer_der, row.serial)), outcome)
        body = Revoked((StatusInfo(PkiStatus.ACCEPTED),), (CertId(row.issuer_der, row.serial),))
        return answers.answer(self._means, exchange, body)

    async def _find(self, exchange: Exchange, asked: RevocationDetails) -> InventoryRow:
        """Return the certificate that is named; another profile's is one that there is not."""
        if asked.issuer is None or asked.serial is None:
            raise Rejection(Reason.INFORMATION_MISSING, "issuer and serialNumber name the certificate that is to be revoked")
        if asked.problem:
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, asked.problem)
        if asked.reason is None and not asked.revive:
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, "the reason of the revocation cannot be read")
        row = await self._means.ledger.find_issued(asked.issuer, asked.serial)
        if row is None or row.profile != exchange.profile.name:
            raise _unknown("it is not in the inventory" if row is None else f"it was issued under profile {row.profile}")
        certificate = parse_certificate(row.der)
        if asked.subject is not None and not same_name(asked.subject, certificate.subject.der):
            raise _unknown("it has another subject")
        if asked.public_key is not None and asked.public_key != certificate.public_key.der:
            raise _unknown("it has another key")
        return row


def refusal(refused: Rejected, *named: CertId) -> Revoked:
    """Return the rp that refuses a revocation."""
    return Revoked((answers.rejection(refused),), named)


def _authorize(exchange: Exchange, standing: Standing, row: InventoryRow) -> str:
    """Return who is entitled to revoke this very certificate; raises Rejection NOT_AUTHORIZED or UNKNOWN_CERTIFICATE.

    Whoever may enroll, or may revoke in another profile, may not therefore revoke here.
    """
    if standing.may is not None:
        if "revoke" not in standing.may:
            raise Rejection(Reason.NOT_AUTHORIZED, "this registration authority may not revoke")
        return standing.identity
    if isinstance(exchange.sender, MacSender):
        if row.requester != exchange.sender.identity:
            raise _unknown("another credential got it")
        if exchange.sender.secret.max_uses != 1:
            # Many devices have it, and none of them may revoke what another one got.
            raise Rejection(Reason.NOT_AUTHORIZED, "a shared secret of several uses revokes nothing")
        return standing.identity
    if standing.row is None or not isinstance(exchange.sender, SignatureSender):
        raise Rejection(Reason.NOT_AUTHORIZED, "a certificate is revoked by its holder", "the signer's is not of this gateway")
    if standing.row.sha256 != row.sha256 and standing.row.public_key_sha256 != row.public_key_sha256:
        raise _unknown("it is not the signer's")
    return standing.identity


def _check_state(row: InventoryRow, asked: RevocationDetails) -> None:
    on_hold = row.revocation_reason is RevocationReason.CERTIFICATE_HOLD
    if asked.revive:
        if not on_hold:
            reason = Reason.UNKNOWN_CERTIFICATE if row.revoked_at is None else Reason.ALREADY_REVOKED
            raise Rejection(reason, "this certificate is not on hold")
    elif row.revoked_at is not None:
        raise Rejection(Reason.ALREADY_REVOKED, "this certificate was revoked already")


def _unknown(cause: str) -> Rejection:
    return Rejection(Reason.UNKNOWN_CERTIFICATE, "there is no such certificate of this sender", cause)
