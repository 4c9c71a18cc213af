"""Who is asking: the profile's credential providers, one after the other (RFC 8894 §2.3 and §2.4)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, EnrollmentRequest, Requester
from gateway.ra.credentials.interfaces import CredentialProvider
from gateway.ra.profile import Profile


async def authenticate(profile: Profile, request: EnrollmentRequest, now: datetime) -> Requester:
    """Return the requester of the first provider that recognises the request; nothing is used up.

    Certificates are asked first: clients leave their spent challenge in a renewal (scepclient, sscep, strongSwan). What calls
    itself a renewal is proved by a certificate only. A challenge that one provider does not know goes on to the next.

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
            if rejection.reason is not Reason.CREDENTIAL_INVALID:
                raise
            unknown = _join(unknown, rejection)
            continue
        if requester is not None:
            return _checked(provider, requester)
    raise unknown or _missing(request)


def _providers(profile: Profile, request: EnrollmentRequest) -> Iterator[CredentialProvider]:
    """Yield the providers that may speak for this request; a certificate only where the profile renews.

    Raises Rejection BAD_PROOF_OF_POSSESSION before a challenge is looked at in a message that another key has signed.
    """
    if profile.renewal is not None:
        yield from [p for p in profile.credentials if p.kind is CredentialKind.CERTIFICATE]
    if not request.is_renewal:
        _check_signer(request)
        yield from [p for p in profile.credentials if p.kind is not CredentialKind.CERTIFICATE]


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
    """Return one refusal with the cause of each provider, for the log."""
    cause = f"{earlier.cause}; {later.cause}" if earlier else later.cause
    return Rejection(Reason.CREDENTIAL_INVALID, later.detail, cause)


def _missing(request: EnrollmentRequest) -> Rejection:
    if request.is_renewal:
        return Rejection(Reason.NOT_AUTHORIZED, "this profile does not renew by such a message")
    if request.challenge:
        return Rejection(Reason.CREDENTIAL_INVALID, "the challenge is not valid", "this profile takes no challenge")
    return Rejection(Reason.CREDENTIAL_MISSING, "a challenge is required")
