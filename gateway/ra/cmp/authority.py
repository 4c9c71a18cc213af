"""What a CMP endpoint asks: one message is judged and answered, whatever its body is (RFC 9810 §5.1, RFC 9483 §3.5).

A message goes through these steps, and each may refuse it: version; who protected it; header; what the path is for; then its
body, by its own rules. Whoever protected it is known by then and no more: what he may do is asked for each body, of the profile
that the message is for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from gateway.cmp import (
    Answer,
    AnswerBody,
    BodyType,
    CertId,
    ClientError,
    Confirmation,
    Enrollment,
    General,
    MacSender,
    Message,
    Nested,
    NestedAnswer,
    PkiConf,
    Poll,
    Revocations,
    Sender,
    SignatureSender,
)
from gateway.errors import MalformedMessage, Reason, Rejection, StoreUnavailable
from gateway.metrics import worker as metrics
from gateway.model import ProfileName, Protocol, Rejected, Unavailable
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.cmp import answers, journal
from gateway.ra.cmp.confirmation import Confirmations
from gateway.ra.cmp.enrollment import Enrollments
from gateway.ra.cmp.general import GeneralMessages
from gateway.ra.cmp.headers import (
    ENROLLMENTS,
    FOLLOWING,
    check_header,
    check_operation,
    check_recipient_nonce,
    check_version,
    named_profile,
)
from gateway.ra.cmp.means import Derivations, Exchange, Means, identity_of
from gateway.ra.cmp.nonces import Nonces
from gateway.ra.cmp.revocation import RevocationRequests
from gateway.ra.cmp.revocation import refusal as refused_revocation
from gateway.ra.cmp.senders import find_sender
from gateway.ra.cmp.standing import Standing, find_standing
from gateway.ra.profile import CmpTerms, Profile, Snapshot
from gateway.ra.strangers import FLOODS, Strangers
from gateway.store.cmp import CmpRecords
from gateway.store.interfaces import Ledger

log = structlog.get_logger(__name__)

RETRY_AFTER = 5
"""Seconds after which a client may try again where the gateway itself is what fails."""
_IN_ERROR = frozenset(
    {
        Reason.UNSUPPORTED_VERSION,
        Reason.BAD_MESSAGE_CHECK,
        Reason.WRONG_INTEGRITY,
        Reason.UNSUPPORTED_ALGORITHM,
        Reason.BAD_TIME,
        Reason.MALFORMED,
        Reason.BAD_NONCE,
        Reason.BAD_RECIPIENT_NONCE,
        Reason.UNKNOWN_PROFILE,
        Reason.ENDPOINT_CLOSED,
    }
)
"""What is wrong with a header or a protection is said in an error message, of whatever type the body is (RFC 9483 §3.6.4)."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A message as it came: whose path, what the path is for, who sent it on."""

    snapshot: Snapshot
    addressed: ProfileName
    message: Message
    operation: str | None
    source: str
    now: datetime
    via: SignatureSender | None = None


class CmpAuthority:
    """The state machine of CMP around `RegistrationAuthority`; one serves one worker for its whole life.

    Nothing is kept here between messages: a transaction is its row in the ledger, and the nonces that go on with it are proved by
    their own octets, so that every worker may answer every message.
    """

    def __init__(
        self,
        authority: RegistrationAuthority,
        ledger: Ledger,
        records: CmpRecords,
        clock: Callable[[], datetime],
        nonce_keys: tuple[bytes, ...],
        decode: Callable[[bytes], Message],
        derivations: Derivations,
    ) -> None:
        """Take the store's parts; the first of `nonce_keys`, 32 bytes each and the same in all workers, makes nonces.

        `decode` reads the messages that come nested (wire/cmp); it raises MalformedMessage.
        """
        means = Means(authority, ledger, records, clock, Nonces(nonce_keys), decode, derivations)
        self._means = means
        self._strangers = Strangers()
        self._enrollments = Enrollments(means)
        self._confirmations = Confirmations(means)
        self._revocations = RevocationRequests(means)
        self._general = GeneralMessages(means)

    async def answer(
        self, snapshot: Snapshot, profile: ProfileName, message: Message, operation: str | None, source: str
    ) -> Answer:
        """Judge one message and return its answer; never raises for anything that it met there.

        `profile` is whose path it came by, `operation` what follows that, one of `PATH_OPERATIONS`, `source` its client.
        """
        return await self._answer(_Arrival(snapshot, profile, message, operation, source, self._means.clock()))

    async def _answer(self, arrival: _Arrival) -> Answer:
        exchange: Exchange | None = None
        try:
            try:
                exchange = await self._identify(arrival)
                return await self._judge(exchange, arrival)
            except Rejection as refused:
                return await self._refuse(arrival, exchange, refused)
        except StoreUnavailable as error:
            log.error("the store is unavailable; nothing is granted", cause=str(error))  # noqa: TRY400
            metrics.count_audit_write_failure()
            return self._fail(arrival, exchange, Reason.STORE_UNAVAILABLE)
        except Exception:
            log.exception("a CMP message failed for a reason that nobody foresaw")
            return self._fail(arrival, exchange, Reason.INTERNAL)

    async def _identify(self, arrival: _Arrival) -> Exchange:
        """Return the message with its sender, and the profile that judges both."""
        message = arrival.message
        check_version(message.header)
        profile, terms = self._profile(arrival)
        sender = await find_sender(self._means, profile, terms, message, arrival.source, arrival.now)
        return Exchange(
            snapshot=arrival.snapshot,
            profile=profile,
            terms=terms,
            message=message,
            sender=sender,
            # Without a transactionID the same message again is still the same transaction.
            transaction=_transaction(message),
            source=arrival.source,
            now=arrival.now,
            via=arrival.via,
        )

    def _profile(self, arrival: _Arrival) -> tuple[Profile, CmpTerms]:
        """Return the profile that a message is for: the path's, or the one of those that it lets a certProfile name.

        What goes on with a transaction may leave certProfile out: its recipNonce says which profile it was begun at.
        """
        addressed, terms = _open_profile(arrival.snapshot, arrival.addressed)
        header, names = arrival.message.header, terms.config.cert_profiles
        asked = named_profile(header)
        if asked is not None:
            if asked not in names:
                raise Rejection(Reason.UNKNOWN_PROFILE, "there is no such certProfile")
            return _open_profile(arrival.snapshot, ProfileName(names[asked]))
        if arrival.message.type in FOLLOWING and names:
            for name in sorted(set(names.values())):
                if self._means.nonces.is_of(header.recipient_nonce, ProfileName(name), _transaction(arrival.message)):
                    return _open_profile(arrival.snapshot, ProfileName(name))
        return addressed, terms

    async def _judge(self, exchange: Exchange, arrival: _Arrival) -> Answer:
        message = exchange.message
        check_header(message.header, message.type, exchange.terms.config, exchange.now)
        if message.body_problem is not None:
            raise Rejection(message.body_problem, message.body_text or "the body of the message cannot be read")
        check_operation(message, arrival.operation)
        await self._check_forwarder(exchange)
        body = message.body
        if body is None:
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, f"{message.type.operation} is not served here")
        if isinstance(body, Enrollment):
            return await self._enrollments.answer(exchange, body)
        if isinstance(body, Nested):
            return await self._unwrap(exchange, arrival.addressed, body)
        # What enrolls is judged by the credentials of the profile; everything else by who its sender is there.
        standing = await find_standing(self._means.ledger, exchange.profile, exchange.sender, exchange.now)
        match body:
            case Confirmation() | Poll():
                return await self._continue(exchange, body)
            case Revocations():
                return await self._revocations.answer(exchange, standing, body)
            case General():
                return await self._general.answer(exchange, body)
            case ClientError():
                return await self._note_error(exchange, standing, body)

    async def _continue(self, exchange: Exchange, body: Confirmation | Poll) -> Answer:
        header = exchange.message.header
        check_recipient_nonce(header, self._means.nonces, exchange.profile.name, exchange.transaction, exchange.sender)
        if isinstance(body, Poll):
            return await self._confirmations.poll(exchange, body)
        return await self._confirmations.confirm(exchange, body)

    async def _note_error(self, exchange: Exchange, standing: Standing, body: ClientError) -> Answer:
        """Take note of what went wrong at a client; it follows an answer of ours, repeated it is bounded (RFC 9483 §3.6.2)."""
        header = exchange.message.header
        check_recipient_nonce(header, self._means.nonces, exchange.profile.name, exchange.transaction, exchange.sender)
        event = journal.client_error(
            exchange.message,
            exchange.profile.name,
            standing.identity,
            body.text[:256],
            exchange.source,
            exchange.snapshot.generation,
            exchange.now,
        )
        if self._strangers.take_row(exchange.profile.name, exchange.source, exchange.now):
            await self._means.ledger.append_audit((event,))
        return answers.answer(self._means, exchange, PkiConf())

    # Nested messages

    async def _check_forwarder(self, exchange: Exchange) -> None:
        """Refuse what was forwarded by anybody but a registration authority that may, at the very profile that it is for."""
        if exchange.via is None:
            return
        if exchange.message.type is BodyType.NESTED:
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, "a nested message holds no other one")
        await self._forwarder(exchange, exchange.via)

    async def _forwarder(self, exchange: Exchange, sender: Sender) -> SignatureSender:
        if not isinstance(sender, SignatureSender):
            raise Rejection(Reason.WRONG_INTEGRITY, "a nested message is signed by a registration authority")
        standing = await find_standing(self._means.ledger, exchange.profile, sender, exchange.now)
        if standing.may is None or "forward" not in standing.may:
            raise Rejection(Reason.NOT_AUTHORIZED, "only a registration authority that may forward sends nested messages")
        return sender

    async def _unwrap(self, exchange: Exchange, addressed: ProfileName, body: Nested) -> Answer:
        """Answer what a registration authority forwards: one message of its own transaction with protection added, or a batch.

        Each is judged as if it had come by itself, and protected itself (RFC 9483 §5.2.2).
        """
        via = await self._forwarder(exchange, exchange.sender)
        if not 1 <= len(body.messages) <= exchange.terms.config.batch:
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, f"a nested message holds 1 to {exchange.terms.config.batch} messages")
        inner = [self._read(data) for data in body.messages]
        added = len(inner) == 1 and inner[0].header.transaction_id == exchange.message.header.transaction_id
        if len({message.header.transaction_id for message in inner}) != len(inner):
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, "each message of a batch has a transactionID of its own")
        await self._note_forwarding(exchange, inner)
        if added:
            return await self._answer_inner(exchange, addressed, inner[0], via)
        found = await asyncio.gather(*[self._answer_inner(exchange, addressed, message, via) for message in inner])
        pairs = tuple([(message.header, answer) for message, answer in zip(inner, found, strict=True)])
        return answers.answer(self._means, exchange, NestedAnswer(pairs))

    async def _note_forwarding(self, exchange: Exchange, inner: list[Message]) -> None:
        """Put on record who sends these on: the rows of each name only whoever protected it."""
        event = journal.forwarded(
            exchange.message,
            exchange.profile.name,
            identity_of(exchange.sender),
            inner,
            exchange.source,
            exchange.snapshot.generation,
            exchange.now,
        )
        await self._means.ledger.append_audit((event,))

    def _read(self, data: bytes) -> Message:
        try:
            return self._means.decode(data)
        except MalformedMessage as error:
            text = "a message of the nested one cannot be read"
            raise Rejection(Reason.MALFORMED, text, f"{text}: {error.cause}") from None

    async def _answer_inner(self, exchange: Exchange, addressed: ProfileName, message: Message, via: SignatureSender) -> Answer:
        """Answer one message of a nested one; the path is its own too, and its certProfile names what that lets it name."""
        return await self._answer(_Arrival(exchange.snapshot, addressed, message, None, exchange.source, exchange.now, via=via))

    # Refusals

    async def _refuse(self, arrival: _Arrival, exchange: Exchange | None, refused: Rejection) -> Answer:
        """Return the refusal of a message, once it is on record; what strangers send is counted beyond a bound."""
        actor = identity_of(exchange.sender) if exchange is not None else ""
        outcome = answers.as_outcome(refused, actor)
        profile = exchange.profile.name if exchange is not None else arrival.addressed
        if self._is_only_counted(exchange, outcome, profile, arrival):
            outcome = answers.as_outcome(refused, actor, counted=True)
        else:
            generation = arrival.snapshot.generation
            event = journal.refusal(arrival.message, profile, actor, refused, arrival.source, generation, arrival.now)
            await self._means.ledger.append_audit((event,))
        body = _refusal_body(arrival.message, outcome) if exchange is not None else answers.error(outcome)
        return self._unasked(arrival, exchange, body, outcome)

    def _is_only_counted(self, exchange: Exchange | None, outcome: Rejected, profile: ProfileName, arrival: _Arrival) -> bool:
        """Whether a refusal has no row of its own: anybody can make a certificate, sign with it and be refused for anything."""
        if exchange is not None and isinstance(exchange.sender, MacSender):
            return self._strangers.only_counted(outcome, profile, arrival.source, arrival.now)
        return outcome.reason in FLOODS or not self._strangers.take_row(profile, arrival.source, arrival.now)

    def _fail(self, arrival: _Arrival, exchange: Exchange | None, reason: Reason) -> Answer:
        outcome = Unavailable(reason, RETRY_AFTER)
        return self._unasked(arrival, exchange, answers.error(outcome), outcome)

    def _unasked(self, arrival: _Arrival, exchange: Exchange | None, body: AnswerBody, outcome: Rejected | Unavailable) -> Answer:
        if exchange is not None:
            return answers.answer(self._means, exchange, body, outcome)
        transaction = _transaction(arrival.message)
        missing = arrival.message.header.transaction_id is None
        return Answer(
            body=body,
            protect_for=None,
            sender_nonce=self._means.nonces.make(arrival.addressed, transaction, None),
            transaction_id=transaction if missing else None,
            outcome=outcome,
        )


def _open_profile(snapshot: Snapshot, name: ProfileName) -> tuple[Profile, CmpTerms]:
    profile = snapshot.profile(name, Protocol.CMP)
    if profile.cmp is None:
        raise Rejection(Reason.ENDPOINT_CLOSED, "this profile does not open cmp")
    return profile, profile.cmp


def _transaction(message: Message) -> bytes:
    return message.header.transaction_id or message.digest[:16]


def _refusal_body(message: Message, outcome: Rejected) -> AnswerBody:
    """Return a refusal in the body that would have granted it, once it is known what was asked (RFC 9483 §3.6.4)."""
    if outcome.reason in _IN_ERROR:
        return answers.error(outcome)
    if message.type in ENROLLMENTS and isinstance(message.body, Enrollment) and message.body.requests:
        return answers.refusal(message.type, message.body.requests[0].cert_req_id, outcome)
    if isinstance(message.body, Revocations):
        named = [CertId(d.issuer, d.serial) for d in message.body.details[:1] if d.issuer is not None and d.serial is not None]
        return refused_revocation(outcome, *named)
    return answers.error(outcome)
