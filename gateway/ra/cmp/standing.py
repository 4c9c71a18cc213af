"""Who a sender is at a profile, whatever the message asks for: nobody is served for a signature that verifies alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.cmp import Sender, SignatureSender
from gateway.errors import Reason, Rejection
from gateway.model import SignerCertificate
from gateway.pki.certificate import recall_certificate
from gateway.pki.trust import TrustAnchors
from gateway.ra.cmp.means import identity_of
from gateway.ra.credentials.ra_certificate import RaCertificateCredential
from gateway.ra.credentials.vendor_certificate import VendorCertificateCredential
from gateway.ra.profile import Profile
from gateway.store.interfaces import InventoryRow, Ledger


@dataclass(frozen=True, slots=True)
class Standing:
    """What a sender is called, and why it is known: `row` its own certificate, `may` the rights of a registration authority."""

    identity: str
    row: InventoryRow | None = None
    may: frozenset[str] | None = None


async def find_standing(ledger: Ledger, profile: Profile, sender: Sender, now: datetime) -> Standing:
    """Return who protected a message: a shared secret's holder, a registration authority, the holder of a certificate of ours,
    of a fleet that moves here, or of a maker's.

    Raises Rejection SIGNER_NOT_TRUSTED, CREDENTIAL_EXPIRED or CREDENTIAL_REVOKED for a certificate that is none of these, and
    StoreUnavailable.
    """
    if not isinstance(sender, SignatureSender):
        # Found in this profile, in force, and proved when the message was verified.
        return Standing(sender.identity)
    refusal: Rejection | None = None
    for find in (_registration_authority, _own, _migrated, _vendor):
        try:
            standing = await find(ledger, profile, sender, now)
        except Rejection as error:
            if error.reason is Reason.CREDENTIAL_REVOKED:
                raise
            refusal = refusal or error
            continue
        if standing is not None:
            return standing
    if refusal is not None and refusal.reason is Reason.CREDENTIAL_EXPIRED:
        raise refusal
    cause = refusal.cause if refusal is not None else "it was not issued here, and is no registration authority's or maker's"
    raise Rejection(Reason.SIGNER_NOT_TRUSTED, "the signer of the message is not trusted here", cause)


async def _registration_authority(_ledger: Ledger, profile: Profile, sender: SignatureSender, now: datetime) -> Standing | None:
    """Return a registration authority with all that those entries of the profile let it do that name it."""
    may: frozenset[str] = frozenset()
    identity = None
    for provider in profile.credentials:
        if isinstance(provider, RaCertificateCredential):
            found = await provider.recognise(sender.signer, sender.chain, now)
            if found is not None:
                identity, may = found, may | provider.may
    return None if identity is None else Standing(identity, may=may)


async def _own(ledger: Ledger, profile: Profile, sender: SignatureSender, now: datetime) -> Standing | None:
    """Return the holder of a certificate of this profile, or of one whose certificates are renewed here."""
    signer = sender.signer
    row = await ledger.find_certificate(signer.sha256)
    if row is None:
        return None
    renewed = profile.renewal.from_profiles if profile.renewal is not None else frozenset()
    if row.profile != profile.name and row.profile not in renewed:
        raise _refused(f"it was issued under profile {row.profile}")
    if signer.public_key.sha256 in profile.own_keys or signer.public_key.sha256 != row.public_key_sha256:
        raise _refused("its key is the gateway's own or not the inventory's")
    if row.revoked_at is not None:
        cause = f"revoked at {row.revoked_at.isoformat()}"
        raise Rejection(Reason.CREDENTIAL_REVOKED, "the certificate has been revoked", cause)
    grace = profile.renewal.grace if profile.renewal is not None and row.profile in renewed else timedelta(0)
    _check_time(signer, now, grace)
    return Standing(identity_of(sender), row=row)


async def _migrated(_ledger: Ledger, profile: Profile, sender: SignatureSender, now: datetime) -> Standing | None:
    anchors: TrustAnchors | None = profile.renewal.anchors if profile.renewal is not None else None
    if anchors is None or profile.renewal is None:
        return None
    certificate = recall_certificate(sender.signer.der)
    if certificate.is_ca or certificate.public_key.sha256 in profile.own_keys:
        raise _refused("it is a CA certificate, or its key is the gateway's own")
    anchors.verify(certificate, now, profile.renewal.grace)
    return Standing(identity_of(sender))


async def _vendor(_ledger: Ledger, profile: Profile, sender: SignatureSender, now: datetime) -> Standing | None:
    refusal: Rejection | None = None
    for provider in profile.credentials:
        if isinstance(provider, VendorCertificateCredential):
            try:
                return Standing(await provider.recognise(sender.signer, sender.chain, now))
            except Rejection as error:
                refusal = refusal or error
    if refusal is not None:
        raise refusal
    return None


def _check_time(signer: SignerCertificate, now: datetime, grace: timedelta) -> None:
    if now < signer.not_before:
        raise _refused("it is not valid yet")
    # What is moved is `now`: notAfter may be the last second that there is.
    if now - grace > signer.not_after:
        ended = f"it ended {signer.not_after.isoformat()}"
        raise Rejection(Reason.CREDENTIAL_EXPIRED, "the certificate has expired", ended)


def _refused(cause: str) -> Rejection:
    return Rejection(Reason.SIGNER_NOT_TRUSTED, "the signer of the message is not trusted here", cause)
