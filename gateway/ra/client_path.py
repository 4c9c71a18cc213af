"""Certificates of TLS clients as credentials: the path that makes one known, and its revocation, judged on every request."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.errors import Reason, Rejection
from gateway.model import EnrollmentRequest
from gateway.pki.certificate import Certificate, recall_certificate
from gateway.pki.extensions import eku_oid
from gateway.pki.path_building import Path, find_paths
from gateway.pki.trust import TrustAnchors
from gateway.store.interfaces import InventoryRow, Ledger

MAX_KNOWN = 4096
"""Certificates whose paths one credential remembers."""

_CLIENT_AUTH = eku_oid("clientAuth")


class RevocationCheck(Protocol):
    """Asks somebody else whether certificates are revoked."""

    async def check(self, leaf: Certificate, path: Path, now: datetime) -> None:
        """Return when neither `leaf` nor what leads from it to a trust anchor is revoked, as far as is to be known.

        `path` holds the CAs above it, issuing CA first. Raises Rejection CREDENTIAL_REVOKED, or UPSTREAM_UNAVAILABLE when nobody
        vouches and that is not to be accepted.
        """


@dataclass(frozen=True, slots=True)
class KnownClient:
    """A TLS client whose certificate stands below the anchors and is not revoked; `row` where it was issued here."""

    certificate: Certificate
    row: InventoryRow | None


class ClientCertificates:
    """Knows the TLS clients of one credential: below its anchors, for clients, able to sign, not ours, not revoked.

    TLS has proved no more than that the client holds the key. Paths are remembered by the SHA-256 of the certificate, for the
    life of this object and thus one generation; when one of their certificates ends they are sought anew. Revocation is judged
    each time, by inventory, by the CRLs of the anchors and by `revocation`. `own_keys` are the SHA-256 of the
    SubjectPublicKeyInfo of the gateway's RA, TLS and CA keys: they authenticate nobody.
    """

    def __init__(
        self, anchors: TrustAnchors, ledger: Ledger, own_keys: frozenset[bytes], revocation: RevocationCheck | None = None
    ) -> None:
        self._anchors = anchors
        self._ledger = ledger
        self._own_keys = own_keys
        self._revocation = revocation
        self._known: dict[bytes, tuple[Path, ...]] = {}

    async def recognise(
        self, certificate: Certificate, sent: tuple[bytes, ...], now: datetime, *, signed: bool = False
    ) -> KnownClient:
        """Return the client; `sent` are the certificates that came beside its own and help to find a path.

        `signed`: its key signed the message, and need not be a TLS client's. Raises Rejection NOT_AUTHORIZED (SIGNER_NOT_TRUSTED
        where it `signed`), CREDENTIAL_EXPIRED, CREDENTIAL_REVOKED or UPSTREAM_UNAVAILABLE, and StoreUnavailable.
        """
        try:
            self._check_purpose(certificate, signed=signed)
            paths = self._find_paths(certificate, sent, now)
        except Rejection as error:
            if signed and error.reason is Reason.NOT_AUTHORIZED:
                raise Rejection(Reason.SIGNER_NOT_TRUSTED, "the signer of the message is not trusted here", error.cause) from None
            raise
        # By issuer and serial number: the bytes of a signature can be changed so that it still verifies.
        row = await self._ledger.find_issued(certificate.issuer_der, certificate.serial)
        if row is not None and row.revoked_at is not None:
            raise Rejection(
                Reason.CREDENTIAL_REVOKED,
                "the certificate has been revoked" if signed else "the TLS client certificate has been revoked",
                f"serial {certificate.serial:x} was revoked at {row.revoked_at.isoformat()}",
            )
        await self._check_revocation(certificate, paths, now)
        return KnownClient(certificate, row)

    def _check_purpose(self, certificate: Certificate, *, signed: bool) -> None:
        if certificate.public_key.sha256 in self._own_keys:
            raise _refused("its key is the gateway's own")
        problem = signing_problem(certificate) if signed else purpose_problem(certificate)
        if problem:
            raise _refused(problem)

    def _find_paths(self, certificate: Certificate, sent: tuple[bytes, ...], now: datetime) -> tuple[Path, ...]:
        known = self._known.get(certificate.sha256)
        if known is not None and _all_valid(certificate, known, now):
            return known
        try:
            paths = find_paths(self._anchors, certificate, sent, now)
        except Rejection as error:
            self._known.pop(certificate.sha256, None)
            if error.reason in {Reason.NOT_AUTHORIZED, Reason.CREDENTIAL_EXPIRED}:
                raise
            raise _refused(error.cause) from None
        while len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[certificate.sha256] = paths
        return paths

    async def _check_revocation(self, certificate: Certificate, paths: tuple[Path, ...], now: datetime) -> None:
        """Accept one path of which nothing is revoked; what the last of them says is raised, a revocation before all else."""
        refusal: Rejection | None = None
        for path in paths:
            found = self._anchors.revocation(certificate, path, now)
            if found is None and self._revocation is not None:
                found = await _answer(self._revocation, certificate, path, now)
            if found is None:
                return
            if refusal is None or refusal.reason is not Reason.CREDENTIAL_REVOKED:
                refusal = found
        raise refusal or _refused("it has no path")


def purpose_problem(certificate: Certificate) -> str:
    """Say why a certificate is none of a TLS client; empty when it is one. A proxy may let through what TLS here would not."""
    if not certificate.is_ca and certificate.ekus is not None and _CLIENT_AUTH not in certificate.ekus:
        return "its extended key usage lacks clientAuth"
    return signing_problem(certificate)


def signing_problem(certificate: Certificate) -> str:
    """Say why a certificate is none of somebody who signs messages of his own; empty when it is one."""
    if certificate.is_ca:
        return "it is a CA certificate"
    if certificate.key_usage is not None and "digitalSignature" not in certificate.key_usage:
        return "its key usage does not let it sign"
    return ""


async def _answer(source: RevocationCheck, certificate: Certificate, path: Path, now: datetime) -> Rejection | None:
    try:
        await source.check(certificate, path, now)
    except Rejection as error:
        return error
    return None


def _all_valid(certificate: Certificate, paths: tuple[Path, ...], now: datetime) -> bool:
    if not certificate.not_before <= now <= certificate.not_after:
        return False
    return all(ca.not_before <= now <= ca.not_after for path in paths for ca in path)


def client_certificate(request: EnrollmentRequest) -> Certificate | None:
    """Return the certificate that the TLS client holds the key of, None where it showed none.

    Raises Rejection NOT_AUTHORIZED for one that cannot be read.
    """
    data = request.client_certificate
    if data is None:
        return None
    try:
        return recall_certificate(data)
    except Rejection as error:
        raise _refused(f"it cannot be read: {error.cause}") from None


def certificate_id(certificate: Certificate) -> str:
    """Return SHA-256 of the signed part, in hex: an ECDSA signature has a twin that verifies, and would make two of one."""
    return hashlib.sha256(certificate.tbs).hexdigest()


def _refused(cause: str) -> Rejection:
    return Rejection(Reason.NOT_AUTHORIZED, "the client's certificate is not accepted here", cause)
