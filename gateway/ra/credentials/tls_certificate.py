"""A TLS client certificate of another CA, a maker's device identity say, for a first enrollment (RFC 7030 §3.3.2)."""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType
from typing import Literal

from gateway.errors import Reason, Rejection
from gateway.model import CertificateRequest, CredentialKind, EnrollmentRequest, NameBinding, Requester
from gateway.pki.certificate import Certificate
from gateway.pki.names import attribute_oid, format_name
from gateway.ra.client_path import ClientCertificates, certificate_id, client_certificate

Names = Literal["same", "serial_number", "any"]

_SERIAL_NUMBER = attribute_oid("serialNumber")


class TlsCertificateCredential:
    """Recognises TLS clients whose certificates another CA issued.

    A certificate that was issued here is not such a one, whatever the anchors say: it renews under the renewal rule, once, and
    enrolls nothing else. `names` says what may be asked for: exactly the certificate's names, any with its serialNumber in the
    subject, or any that policy lets through. A SID is never vouched for.
    """

    kind = CredentialKind.TLS_CERTIFICATE

    def __init__(self, clients: ClientCertificates, names: Names) -> None:
        self._clients = clients
        self._names = names

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the holder of the certificate.

        None without one. Raises Rejection NOT_AUTHORIZED, CREDENTIAL_EXPIRED, CREDENTIAL_REVOKED, UPSTREAM_UNAVAILABLE or
        NAME_NOT_BOUND, and StoreUnavailable.
        """
        certificate = client_certificate(request)
        if certificate is None:
            return None
        client = await self._clients.recognise(certificate, request.client_chain, now)
        if client.row is not None:
            cause = f"it was issued here under profile {client.row.profile}: it can be renewed, under a renewal rule, and no more"
            raise Rejection(Reason.NOT_AUTHORIZED, "the TLS client certificate is not accepted for a first enrollment", cause)
        if self._names == "serial_number":
            _check_serial_number(certificate, request.csr)
        return self._requester(certificate)

    def _requester(self, certificate: Certificate) -> Requester:
        name = format_name(certificate.subject)
        identifier = certificate_id(certificate)
        same = self._names == "same"
        return Requester(
            identity=f"{self.kind}:{identifier}",
            kind=self.kind,
            binding=_own_names(certificate) if same else NameBinding(),
            owner=name or None,
            device=None if same else identifier[:32],
            claims=MappingProxyType({"certificate": name, "serial": f"{certificate.serial:x}"}),
        )


def _own_names(certificate: Certificate) -> NameBinding:
    return NameBinding(format_name(certificate.subject), frozenset((name.kind, name.value) for name in certificate.sans))


def _check_serial_number(certificate: Certificate, asked: CertificateRequest) -> None:
    """Check that the one serialNumber of the asked subject is the one of the certificate's, to the letter."""
    held = certificate.subject.values(_SERIAL_NUMBER)
    if len(held) != 1 or not held[0] or asked.subject.values(_SERIAL_NUMBER) != held:
        cause = "the subject of the TLS client certificate has no serialNumber, or several" if len(held) != 1 else ""
        raise Rejection(Reason.NAME_NOT_BOUND, "the subject must have the serialNumber of the TLS client certificate", cause)
