"""Who is asking: the profile's credential providers, one after the other (RFC 8894 §2.3 and §2.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from gateway.errors import Reason, Rejection
from gateway.model import UNLIMITED_NOT_AFTER, CredentialKind, EnrollmentRequest, Protocol, Requester, Reservation
from gateway.ra.credentials.http_schemes import takes_authorization
from gateway.ra.credentials.interfaces import CredentialProvider
from gateway.ra.linking import check_linking
from gateway.ra.profile import Profile
from gateway.store.interfaces import TRANSACTION

_EST_ONLY = frozenset(
    {
        CredentialKind.TLS_CERTIFICATE,
        CredentialKind.BASIC,
        CredentialKind.DIGEST,
        CredentialKind.BEARER,
        CredentialKind.ALL_OF,
    }
)
"""What connection and HTTP header prove; messages of other protocols come over anybody's connection."""
_CMP_ONLY = frozenset({CredentialKind.CMP_SECRET, CredentialKind.VENDOR_CERTIFICATE})
"""What the protection of a CMP message proves."""
_ASKED_FIRST = frozenset({CredentialKind.CERTIFICATE, CredentialKind.RA_CERTIFICATE})
_NOT_AMONG_OTHERS = _ASKED_FIRST | {CredentialKind.ACME_ORDER}
"""An order proves nothing to another protocol than ACME, which itself takes nothing else."""
_AMBIENT = frozenset(
    {
        CredentialKind.TLS_CERTIFICATE,
        CredentialKind.RA_CERTIFICATE,
        CredentialKind.VENDOR_CERTIFICATE,
        CredentialKind.ALL_OF,
    }
)
_NOT_RECOGNISED = frozenset({Reason.NOT_AUTHORIZED, Reason.CREDENTIAL_EXPIRED, Reason.SIGNER_NOT_TRUSTED})


async def authenticate(profile: Profile, request: EnrollmentRequest, now: datetime) -> Requester:
    """Return the requester of the first provider that recognises the request; nothing is used up.

    Certificates are asked first: clients leave their spent challenge in a renewal (scepclient, sscep, strongSwan). What calls
    itself a renewal is proved by a certificate only. A challenge that one provider does not know goes on to the next; so does a
    TLS client certificate that does not serve, which clients show unasked, but not one that was revoked.

    Raises Rejection: a provider's own, CREDENTIAL_MISSING when there is nothing to look at, NOT_AUTHORIZED;
    and StoreUnavailable.
    """
    if request.profile != profile.name:
        raise Rejection(Reason.NOT_AUTHORIZED, "the request is for another profile")
    unknown: Rejection | None = None
    for provider in _providers(profile, request):
        try:
            requester = await provider.authenticate(request, now)
        except Rejection as rejection:
            if not _goes_on(provider, rejection):
                raise
            unknown = _join(unknown, rejection)
            continue
        if requester is not None:
            check_linking(profile.linking, request, _checked(provider, requester))
            return _in_transaction(request, requester) if request.protocol is Protocol.CMP else requester
    raise _refusal(profile, request, unknown)


def _goes_on(provider: CredentialProvider, rejection: Rejection) -> bool:
    if rejection.reason is Reason.CREDENTIAL_INVALID:
        return True
    return provider.kind in _AMBIENT and rejection.reason in _NOT_RECOGNISED


def _providers(profile: Profile, request: EnrollmentRequest) -> Iterator[CredentialProvider]:
    """Yield the providers that may speak for this request; a certificate that is renewed only where the profile renews.

    Raises Rejection BAD_PROOF_OF_POSSESSION before a challenge is looked at in a message that another key has signed.
    """
    if request.protocol is Protocol.ACME:
        yield from (p for p in profile.credentials if p.kind is CredentialKind.ACME_ORDER)
        return
    if request.protocol is Protocol.CMP:
        yield from _by_message(profile, request)
        return
    is_est = request.protocol is Protocol.EST
    # by SCEP a registration authority has devices renew as if it was their first time
    if is_est or (request.protocol is Protocol.SCEP and not request.is_renewal):
        yield from (p for p in profile.credentials if p.kind is CredentialKind.RA_CERTIFICATE)
    if profile.renewal is not None:
        yield from [p for p in profile.credentials if p.kind is CredentialKind.CERTIFICATE]
    if not request.is_renewal:
        _check_signer(request)
        others = [p for p in profile.credentials if p.kind not in _NOT_AMONG_OTHERS | _CMP_ONLY]
        yield from [p for p in others if is_est or p.kind not in _EST_ONLY]


def _by_message(profile: Profile, request: EnrollmentRequest) -> Iterator[CredentialProvider]:
    """Yield what the protection of a CMP message may prove: a shared secret nothing but itself, and never an update."""
    proof = request.proof
    if proof is None:
        return
    if proof.secret is not None:
        if not request.is_renewal:
            yield from (p for p in profile.credentials if p.kind is CredentialKind.CMP_SECRET)
        return
    yield from (p for p in profile.credentials if p.kind is CredentialKind.RA_CERTIFICATE)
    if profile.renewal is not None and proof.updates is None:
        yield from (p for p in profile.credentials if p.kind is CredentialKind.CERTIFICATE)
    if not request.is_renewal:
        yield from (p for p in profile.credentials if p.kind is CredentialKind.VENDOR_CERTIFICATE)


def _in_transaction(request: EnrollmentRequest, requester: Requester) -> Requester:
    """Let a transaction of CMP serve one request of its sender (RFC 9810 §5.1.1), once that may have what it asks for.

    Raises Rejection NOT_AUTHORIZED for who vouches for another's proof of possession and is no registration authority
    (raVerified, RFC 9810 §5.2.8.4).
    """
    proof = request.proof
    if proof is None:
        raise Rejection(Reason.NOT_AUTHORIZED, "not authorized", "the message proves nothing")
    if not proof.possession_verified and requester.kind is not CredentialKind.RA_CERTIFICATE:
        raise Rejection(Reason.NOT_AUTHORIZED, "only a registration authority may say that possession was proved (raVerified)")
    taken = Reservation(TRANSACTION, proof.transaction.hex(), proof.kept_until or UNLIMITED_NOT_AFTER)
    return replace(requester, reservations=(*requester.reservations, taken))


def _check_signer(request: EnrollmentRequest) -> None:
    """Refuse a message that is signed by another key than the one to be certified, unless it renews the signer's certificate.

    Whoever captured an encrypted request, its challenge inside, could sign it anew and have it (RFC 8894 §2.3: the first request
    is signed by the key that it asks a certificate for).
    """
    signer = request.signer
    if signer is not None and signer.public_key.sha256 != request.csr.public_key.sha256:
        raise Rejection(
            Reason.BAD_PROOF_OF_POSSESSION,
            "the message is signed by another key than the one to be certified, and is no renewal of the signer's certificate",
        )


def _checked(provider: CredentialProvider, requester: Requester) -> Requester:
    if requester.kind is not provider.kind or not requester.identity:
        raise Rejection(Reason.NOT_AUTHORIZED, "not authorized", f"provider {provider.kind} returned a requester of another kind")
    return requester


def _join(earlier: Rejection | None, later: Rejection) -> Rejection:
    """Return one refusal with the cause of each provider, for the log; what was sent on purpose outweighs what came along."""
    if earlier is None:
        return later
    came_along = earlier.reason is Reason.CREDENTIAL_INVALID and later.reason is not Reason.CREDENTIAL_INVALID
    telling = earlier if came_along else later
    return Rejection(telling.reason, telling.detail, f"{earlier.cause}; {later.cause}")


def _refusal(profile: Profile, request: EnrollmentRequest, unknown: Rejection | None) -> Rejection:
    """Return the last word; it invites a client that sent no Authorization header to send one where that would help."""
    if request.protocol is not Protocol.EST or request.is_renewal:
        return unknown or _missing(request)
    if request.authorization is None and takes_authorization(profile.credentials):
        return Rejection(Reason.CREDENTIAL_MISSING, "a credential is required", unknown.cause if unknown else "")
    return unknown or _missing(request)


def _missing(request: EnrollmentRequest) -> Rejection:
    if request.protocol is Protocol.CMP:
        return _unknown_sender(request)
    if request.is_renewal:
        return Rejection(Reason.NOT_AUTHORIZED, "this profile does not renew by such a message")
    if request.protocol is Protocol.ACME:
        return Rejection(Reason.CREDENTIAL_MISSING, "an order is required")
    if request.protocol is Protocol.EST:
        return Rejection(Reason.CREDENTIAL_MISSING, "a credential is required", "it has none of a kind that this profile takes")
    if request.challenge:
        return Rejection(Reason.CREDENTIAL_INVALID, "the challenge is not valid", "this profile takes no challenge")
    return Rejection(Reason.CREDENTIAL_MISSING, "a challenge is required")


def _unknown_sender(request: EnrollmentRequest) -> Rejection:
    if request.proof is None or request.proof.secret is not None:
        return Rejection(Reason.NOT_AUTHORIZED, "this profile takes no such message under a shared secret")
    if request.is_renewal:
        return Rejection(Reason.NOT_AUTHORIZED, "this profile does not update certificates")
    return Rejection(Reason.SIGNER_NOT_TRUSTED, "the signer of the message is not trusted here")
