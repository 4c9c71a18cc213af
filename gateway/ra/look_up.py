"""What the holder of a certificate may see: its CA's chain and CRL, and certificates of its own (RFC 8894 §3.3.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

from gateway.errors import Reason, Rejection
from gateway.model import Name, Protocol, SignerCertificate
from gateway.pki.certificate import parse_certificate
from gateway.pki.names import format_name, normalize_name, parse_name
from gateway.pki.renewal_window import opening_window, past_window
from gateway.ra.hints import Hints
from gateway.ra.journal import Trail
from gateway.ra.profile import Profile, Snapshot
from gateway.ra.requests import Found, LookUpRequest, RenewalWindow, RenewalWindowRequest, Sought
from gateway.store.interfaces import Inventory, InventoryRow, Ledger

MAX_SIGNED_CRL = 1048576
"""Longest CRL, in bytes, that is wrapped into an answer of a protocol: each asking makes it anew."""


class LookUp:
    """Answers GetCert and GetCRL of signers that this profile certified.

    A query that could not be read comes with an empty issuer. It costs what every other one does and ends in the one refusal of
    all that is not found: what a client can tell apart here would tell it whether its envelope was deciphered.
    """

    def __init__(self, ledger: Ledger, inventory: Inventory, clock: Callable[[], datetime], hints: Hints) -> None:
        self._ledger = ledger
        self._inventory = inventory
        self._clock = clock
        self._hints = hints

    async def answer(self, profile: Profile, request: LookUpRequest, trail: Trail) -> Found:
        """Return what was sought; CA certificates and unsigned CRL look-ups are public and leave no audit row.

        Raises Rejection NOT_AUTHORIZED for a signer that may see nothing, UNKNOWN_CERTIFICATE for what there is not, and
        StoreUnavailable.
        """
        if request.sought is Sought.CA_CERTIFICATES:
            trail.recorded = True
            return Found(profile.upstream_ca.chain())
        signer = await self._check_signer(profile, request, trail)
        if request.sought is Sought.CRL:
            return await self._crl(profile, request, signer)
        if signer is None:
            raise _no_signer("the query is not signed")
        return await self._certificate(profile, request, signer, trail)

    async def renewal_window(self, snapshot: Snapshot, profile: Profile, request: RenewalWindowRequest) -> RenewalWindow:
        """Say when a certificate that this profile renews should be renewed; public, and nothing but times.

        What its CA says goes before what the profile suggests, as far as the profile lets it be renewed by then.
        Raises Rejection UNKNOWN_CERTIFICATE and StoreUnavailable.
        """
        row = await self._inventory.find_serial(profile.upstream_ca.name, request.serial)
        if profile.renewal is None or row is None or row.profile not in profile.renewal.from_profiles:
            raise _not_found()
        if row.protocol == Protocol.ACME:
            raise _not_found()
        if parse_certificate(row.der).authority_key_id != request.authority_key_id:
            raise _not_found()
        if row.revoked_at is None and (hint := await self._hints.find(snapshot, row)) is not None:
            opens = hint.start if profile.renewal.window is None else max(hint.start, row.not_after - profile.renewal.window)
            if opens < hint.end:
                return RenewalWindow(opens, hint.end)
        return _suggest_window(row, profile.renewal.window)

    async def _check_signer(self, profile: Profile, request: LookUpRequest, trail: Trail) -> SignerCertificate | None:
        """Return the signer, if its certificate is of this profile and good; a certificate is no passport here either."""
        signer = request.signer
        if signer is None:
            trail.recorded = request.sought is Sought.CRL
            return None
        row = await self._ledger.find_certificate(signer.sha256)
        cause = _signer_fault(profile, signer, row, self._clock())
        if cause:
            raise _no_signer(cause)
        trail.event = replace(trail.event, actor=f"certificate:{signer.sha256.hex()}")
        return signer

    async def _certificate(self, profile: Profile, request: LookUpRequest, signer: SignerCertificate, trail: Trail) -> Found:
        row = await self._inventory.find_serial(profile.upstream_ca.name, request.serial or 0)
        of_this_ca = _is_issuer(request.issuer_der, profile)
        if row is None or not of_this_ca or row.profile != profile.name or not may_see(signer, row):
            raise _not_found()
        trail.event = replace(
            trail.event, request_id=row.request_id or "", serial=format(row.serial, "x"), subject=row.subject, sans=row.sans
        )
        return Found((row.der,))

    async def _crl(self, profile: Profile, request: LookUpRequest, signer: SignerCertificate | None) -> Found:
        crl = await self._inventory.newest_crl(profile.upstream_ca.name)
        of_this_ca = _is_issuer(request.issuer_der, profile)
        if signer is not None and not of_this_ca:
            raise _not_found()
        if crl is None:
            raise _not_found()
        if signer is not None and len(crl.der) > MAX_SIGNED_CRL:
            text = "the CRL is too long for this protocol: fetch it from its distribution point"
            raise Rejection(Reason.DENIED, text, f"the CRL has {len(crl.der)} bytes")
        return Found((crl.der,))


def _suggest_window(row: InventoryRow, window: timedelta | None) -> RenewalWindow:
    """Return the first half of the time in which it may be renewed; a revoked certificate should be replaced at once."""
    if row.revoked_at is not None:
        return RenewalWindow(*past_window(row.not_before, row.revoked_at))
    return RenewalWindow(*opening_window(row.not_before, row.not_after, window))


def _signer_fault(profile: Profile, signer: SignerCertificate, row: InventoryRow | None, now: datetime) -> str:
    """Say why this signer may see nothing, for the log; empty for one that may."""
    if row is None:
        return "the signer's certificate was not issued here"
    if row.profile != profile.name:
        return f"the signer's certificate was issued under profile {row.profile}"
    if signer.public_key.sha256 in profile.own_keys or signer.public_key.sha256 != row.public_key_sha256:
        return "the signer's key is the gateway's own or not the inventory's"
    if row.revoked_at is not None:
        return f"the signer's certificate was revoked at {row.revoked_at.isoformat()}"
    if not row.not_before <= now <= row.not_after:
        return f"the signer's certificate is valid from {row.not_before.isoformat()} to {row.not_after.isoformat()}"
    return ""


def may_see(signer: SignerCertificate, row: InventoryRow) -> bool:
    """Say whether a certificate is the signer's own: it has the same key, or the same subject, which is not empty."""
    subject = format_name(signer.subject)
    return row.public_key_sha256 == signer.public_key.sha256 or (subject != "" and row.subject == subject)


def _is_issuer(issuer_der: bytes, profile: Profile) -> bool:
    """Say whether a query names the profile's CA; an unreadable one is compared all the same, for the time that it takes."""
    own = _subject(profile.upstream_ca.chain()[0])
    try:
        asked = parse_name(issuer_der or own.der)
    except Rejection:
        return False
    return normalize_name(asked) == normalize_name(own) and issuer_der != b""


@lru_cache(maxsize=64)
def _subject(certificate: bytes) -> Name:
    return parse_certificate(certificate).subject


def _no_signer(cause: str) -> Rejection:
    return Rejection(Reason.NOT_AUTHORIZED, "the signer may not look up anything here", cause)


def _not_found() -> Rejection:
    return Rejection(Reason.UNKNOWN_CERTIFICATE, "there is nothing here that this signer may see")
