"""One message to a CMP server and its answer: protected, sent by HTTP, believed where the server protected it (RFC 9811)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from gateway.ca.cmp.refusals import name_of
from gateway.ca.cmp.signers import AnswerSigners
from gateway.ca.http import HttpClient, check_status
from gateway.errors import Rejection
from gateway.pki.certificate import Certificate
from gateway.wire.cmp import client, requests

MEDIA_TYPE = "application/pkixcmp"
"""Of requests and answers (RFC 9811 §3.4)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the gateway is to the server, and who the server is to it."""

    protection: client.Identity = field(repr=False)
    """What protects our messages; answers may be protected under the same secret."""
    recipient: bytes = field(repr=False)
    """The server's name, DER."""
    signers: AnswerSigners | None
    """None: what answers is only shown, and not believed."""
    is_slow: bool = False
    """Whether its signature takes longer than the loop may stand still."""
    nested: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """One message: `body` is a PKIBody, DER, `after` the nonce of the answer before it.

    `changes` says that the server may act by it, so that a lost answer leaves a doubt.
    """

    body: bytes = field(repr=False)
    transaction: bytes
    after: bytes | None = None
    earlier: bytes | None = None
    """Our own first nonce of this transaction, which the answer to a poll may repeat."""
    pvno: int = 2
    changes: bool = False
    enrolls: bool = False
    """Whether it asks for a certificate: with implicit confirmation, and in a nested message where that is the way."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came, and the nonce of the message that it answers."""

    received: client.Received
    nonce: bytes


class Dialogue:
    """Asks one CMP server."""

    def __init__(self, http: HttpClient, identity: Identity, clock: Callable[[], datetime]) -> None:
        self._http = http
        self._identity = identity
        self._now = clock

    async def ask(self, question: Question, within: float | None = None) -> Answer:
        """Return what the server answers, protected by it; raises UpstreamError for anything else.

        A refusal that nothing protects is believed where TLS says who sent it, and is no answer otherwise.
        """
        encode = partial(self._encode, question)
        sent = await asyncio.to_thread(encode) if self._identity.is_slow else encode()
        headers = {"Content-Type": MEDIA_TYPE}
        if question.changes:
            response = await self._http.change("POST", "", headers=headers, body=sent.message, within=within)
        else:
            response = await self._http.read("", method="POST", headers=headers, body=sent.message, within=within)
        check_status(response, "CMP", believed=self._http.is_private)
        if response.media_type != MEDIA_TYPE:
            raise response.failed("the CMP server answered with what is no CMP message")
        try:
            received = await self._decode(response.body, sent)
        except Rejection as error:
            cause = f"the CMP server answered with what is no answer to the request: {error.detail}"
            raise response.failed(cause) from error
        if not (received.protected or self._http.is_private or self._identity.signers is None):
            raise response.failed(f"the CMP server refused, and nothing protects what it said ({name_of(received.fail_info)})")
        return Answer(received, sent.sender_nonce)

    def _encode(self, question: Question) -> client.Sent:
        identity = self._identity
        encode = partial(
            client.encode_message,
            identity=identity.protection,
            now=self._now(),
            recipient=identity.recipient,
            transaction_id=question.transaction,
            recipient_nonce=question.after,
            earlier_nonces=() if question.earlier is None else (question.earlier,),
            pvno=question.pvno,
        )
        sent = encode(question.body, implicit_confirm=question.enrolls)
        if not (identity.nested and question.enrolls):
            return sent
        # RFC 9483 §5.2.2.1: what wraps one message has its transactionID and its nonce
        wrapped = encode(requests.nested((sent.message,)), sender_nonce=sent.sender_nonce)
        return replace(sent, message=wrapped.message)

    async def _decode(self, data: bytes, sent: client.Sent) -> client.Received:
        """Read an answer and check who protected it; a derivation under the secret takes as long as the server wants."""
        protection, signers = self._identity.protection, self._identity.signers
        secret = protection.secret if isinstance(protection, client.MacIdentity) else None
        now = self._now()
        work = partial(
            client.decode_answer,
            data,
            sent,
            secret=secret,
            trusts=_anybody if signers is None else lambda signer, beside: signers.authorize(signer, beside, now),
            known=() if signers is None else signers.pinned,
        )
        return work() if secret is None else await asyncio.to_thread(work)


def _anybody(_signer: Certificate, _beside: tuple[bytes, ...]) -> bool:
    return True
