"""certConf and pollReq: how a transaction that another message began comes to its end (RFC 9810 §5.3.18, §5.3.22)."""

from __future__ import annotations

import hashlib
import hmac

from gateway.cmp import P10CR_ID, Answer, BodyType, CertStatus, Confirmation, PkiConf, Poll, PollAnswer
from gateway.errors import Reason, Rejection
from gateway.model import Issued, Pending, Protocol, Rejected, RequestForm, Unavailable
from gateway.pki.certificate_hash import certificate_hash
from gateway.pki.crmf import parse_cert_req_msg
from gateway.ra.cmp import answers
from gateway.ra.cmp.encrypted_certificates import LATER, CertificateSeal, seal_for
from gateway.ra.cmp.enrollment import enrolled
from gateway.ra.cmp.headers import ENROLLMENTS
from gateway.ra.cmp.key_generation import CMP_2021
from gateway.ra.cmp.means import Exchange, Means
from gateway.ra.requests import ConfirmRequest, PollRequest
from gateway.store.interfaces import LedgerRow, LedgerState

_TYPES = {type.operation: type for type in ENROLLMENTS}


class Confirmations:
    """What a sender says of its own transaction; another's is one that there is not."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def confirm(self, exchange: Exchange, body: Confirmation) -> Answer:
        """Record that the client took its certificate, or revoke the one that it did not want (RFC 9810 §5.3.18).

        Raises Rejection UNKNOWN_TRANSACTION, ALREADY_CONFIRMED, CREDENTIAL_REVOKED, UNKNOWN_CERTIFICATE or UNSUPPORTED_MESSAGE,
        and StoreUnavailable.
        """
        row = await self._row(exchange)
        if row.state is LedgerState.CONFIRMED:
            raise Rejection(Reason.ALREADY_CONFIRMED, "this certificate was confirmed already")
        if row.state is LedgerState.REVOKED:
            raise Rejection(Reason.CREDENTIAL_REVOKED, "the certificate of this transaction was revoked")
        if row.certificate is None:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "this transaction has no certificate to confirm")
        accepted = _accepts(exchange, body, row, row.certificate)
        outcome = await self._means.authority.confirm(
            exchange.snapshot,
            ConfirmRequest(
                profile=exchange.profile.name,
                protocol=Protocol.CMP,
                operation=exchange.operation,
                transaction_id=exchange.transaction_id,
                requester_key=exchange.requester_key,
                certificate_sha256=_sha256(row.certificate),
                accepted=accepted,
                source=exchange.source,
                row=row,
            ),
        )
        if isinstance(outcome, Rejected | Unavailable):
            return answers.answer(self._means, exchange, answers.error(outcome), outcome)
        return answers.answer(self._means, exchange, PkiConf())

    async def poll(self, exchange: Exchange, body: Poll) -> Answer:
        """Say what became of a request, or when to ask again (RFC 9483 §4.4).

        Raises Rejection UNKNOWN_TRANSACTION or UNSUPPORTED_MESSAGE, and StoreUnavailable.
        """
        row = await self._row(exchange)
        type = _TYPES[row.operation]
        expected = P10CR_ID if type is BodyType.P10CR else 0
        if body.cert_req_ids != (expected,):
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, f"the certReqId of this transaction is {expected}")
        outcome = await self._means.authority.poll(
            exchange.snapshot,
            PollRequest(
                profile=exchange.profile.name,
                protocol=Protocol.CMP,
                operation=exchange.operation,
                transaction_id=exchange.transaction_id,
                requester_key=exchange.requester_key,
                source=exchange.source,
            ),
        )
        if isinstance(outcome, Pending | Unavailable):
            return answers.answer(self._means, exchange, PollAnswer(expected, max(1, outcome.retry_after)), outcome)
        seal = _seal(exchange, row) if isinstance(outcome, Issued) else None
        # What was granted when the row was opened; the poll cannot ask for it again.
        implicit = seal is None and await self._is_implicit(row)
        return enrolled(self._means, exchange, type, expected, outcome, seal, implicit=implicit)

    async def _is_implicit(self, row: LedgerRow) -> bool:
        now = await self._means.ledger.get_row(row.id)
        return now is not None and now.confirm_by is None

    async def _row(self, exchange: Exchange) -> LedgerRow:
        row = await self._means.ledger.find_transaction(
            exchange.profile.name, Protocol.CMP, exchange.transaction_id, exchange.requester_key
        )
        if row is None or row.operation not in _TYPES:
            raise Rejection(Reason.UNKNOWN_TRANSACTION, "there is no such transaction of this sender")
        return row


def _accepts(exchange: Exchange, body: Confirmation, row: LedgerRow, certificate: bytes) -> bool:
    """Say whether the client accepts its certificate; one that it does not speak of it rejects (RFC 9810 §5.3.18)."""
    if not body.statuses:
        return False
    if len(body.statuses) != 1:
        raise Rejection(Reason.UNSUPPORTED_MESSAGE, "one certificate is confirmed at a time")
    status = body.statuses[0]
    if status.cert_req_id != (P10CR_ID if _TYPES[row.operation] is BodyType.P10CR else 0):
        raise Rejection(Reason.UNSUPPORTED_MESSAGE, "the certReqId is none of this transaction")
    if not _is_hash_of(exchange, status, certificate):
        raise Rejection(Reason.UNKNOWN_CERTIFICATE, "the certHash is not that of the certificate")
    return status.accepted


def _is_hash_of(exchange: Exchange, status: CertStatus, certificate: bytes) -> bool:
    if status.digest_algorithm is not None and exchange.message.header.pvno < CMP_2021:
        raise Rejection(Reason.UNKNOWN_CERTIFICATE, "hashAlg is of version 3 (RFC 9810 §5.3.18)")
    return hmac.compare_digest(certificate_hash(certificate, status.digest_algorithm), status.cert_hash)


def _seal(exchange: Exchange, row: LedgerRow) -> CertificateSeal | None:
    """Return how a certificate is encrypted whose request asked for that; never is it handed out in the clear instead."""
    if row.form is not RequestForm.CRMF or parse_cert_req_msg(row.request).possession not in LATER:
        return None
    return seal_for(exchange.message.header, row.public_key)


def _sha256(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()
