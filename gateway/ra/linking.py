"""Whether a request belongs to the TLS connection that it came by (RFC 7030 §3.5, RFC 7894 §3.3)."""

from __future__ import annotations

import hmac

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, EnrollmentRequest, Linking, Protocol, Requester
from gateway.ra.profile import LinkingMode

_IN_CHALLENGE = (CredentialKind.STATIC, CredentialKind.ONE_TIME, CredentialKind.INTUNE_JWS)
_NOTHING = Linking(unavailable="its connection says nothing of itself")


def check_linking(mode: LinkingMode, request: EnrollmentRequest, requester: Requester) -> None:
    """Check what ties a request to its connection, once it is known who asks.

    A registration authority brings what others have signed, over a connection of its own: it is exempt (RFC 7030 §3.7). A
    challengePassword that proved who asks was a secret and no link. Raises Rejection BAD_PROOF_OF_POSSESSION for a link that is
    missing where it is required, that is another connection's, or that cannot be checked (RFC 7030 §3.5: it must be, if present).
    """
    if request.protocol is not Protocol.EST or mode == "off" or requester.proved_by(CredentialKind.RA_CERTIFICATE):
        return
    linking = request.linking or _NOTHING
    presented = linking.presented
    if presented is not None and presented == request.challenge and requester.proved_by(*_IN_CHALLENGE):
        presented = None
    if presented is None:
        if mode == "require":
            why = linking.unavailable or "it has neither estIdentityLinking nor challengePassword"
            raise _refused(requester, "must be tied", why)
        return
    if linking.expected is None:
        raise _refused(requester, "cannot be tied", linking.unavailable or "it says nothing of itself")
    if not hmac.compare_digest(_comparable(presented), _comparable(linking.expected)):
        raise _refused(requester, "is not tied", "it was made for another one")


def _comparable(text: str) -> bytes:
    """Return base64 without its line breaks, which some encoders write after the last character."""
    return text.strip("\r\n").encode("utf-8", "surrogatepass")


def _refused(requester: Requester, what: str, why: str) -> Rejection:
    detail = f"the request {what} to its TLS connection: {why}"
    return Rejection(Reason.BAD_PROOF_OF_POSSESSION, detail, f"{detail} ({requester.identity})")
