"""From what was decided to what goes back: bodies, statuses and remarks (RFC 9810 §5.2.3, §5.3, RFC 9483 §3.6)."""

from __future__ import annotations

from functools import lru_cache

from gateway.cmp import Answer, AnswerBody, BodyType, CertAnswer, ErrorAnswer, PkiStatus, StatusInfo
from gateway.errors import Rejection
from gateway.model import Outcome, Rejected, Remarks, Unavailable
from gateway.pki.certificate import recall_certificate
from gateway.ra.cmp.means import Exchange, Means

ANSWERED_BY = {BodyType.IR: BodyType.IP, BodyType.CR: BodyType.CP, BodyType.P10CR: BodyType.CP, BodyType.KUR: BodyType.KUP}
"""Which body answers an enrollment (RFC 9810 §5.3)."""


def answer(means: Means, exchange: Exchange, body: AnswerBody, outcome: Outcome | None = None) -> Answer:
    """Return an answer to a message, to be protected as the message was."""
    return Answer(
        body=body,
        protect_for=exchange.sender,
        sender_nonce=means.nonces.make(exchange.profile.name, exchange.transaction, exchange.sender),
        transaction_id=exchange.transaction if exchange.message.header.transaction_id is None else None,
        request_id=getattr(outcome, "request_id", None),
        outcome=outcome,
    )


def rejection(refused: Rejected | Unavailable | Rejection) -> StatusInfo:
    """Return the status that says why something was refused, in public words."""
    text = "try again later" if isinstance(refused, Unavailable) else refused.detail
    return StatusInfo(PkiStatus.REJECTION, refused.reason, text)


def error(refused: Rejected | Unavailable | Rejection) -> ErrorAnswer:
    """Return the body of an error message (RFC 9483 §3.6.4)."""
    return ErrorAnswer(rejection(refused))


def refusal(type: BodyType, cert_req_id: int, refused: Rejected) -> CertAnswer:
    """Return the body that refuses an enrollment, of the type that would have granted it (RFC 9483 §4.1)."""
    return CertAnswer(ANSWERED_BY[type], cert_req_id, rejection(refused))


def as_outcome(error: Rejection, actor: str = "", *, counted: bool = False) -> Rejected:
    """Return a refusal as an outcome, with what the log may say of it."""
    return Rejected(error.reason, error.detail, Remarks(requester=actor, cause=error.cause, counted=counted))


def issuing_chain(chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the CA certificates above a certificate, without the root: who does not know that cannot learn to trust it here."""
    return _split(chain)[0]


def roots(chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the self-issued ones of a chain."""
    return _split(chain)[1]


@lru_cache(maxsize=64)
def _split(chain: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    self_issued = [recall_certificate(der).self_issued for der in chain]
    below = tuple([der for der, is_root in zip(chain, self_issued, strict=True) if not is_root])
    return below, tuple([der for der, is_root in zip(chain, self_issued, strict=True) if is_root])
