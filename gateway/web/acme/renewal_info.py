"""When to renew a certificate, told to everybody who can name it (RFC 9773 §4)."""

from __future__ import annotations

from gateway.errors import Reason, Rejection
from gateway.ra.acme.authority import AcmeAuthority
from gateway.ra.profile import Snapshot
from gateway.web.acme.requests import Addressed
from gateway.web.acme.responses import Reply
from gateway.wire.acme.ari import parse_certificate_id
from gateway.wire.acme.objects import encode_renewal_info


class RenewalInformation:
    """Answers for certificates that were issued here by whatever protocol."""

    def __init__(self, authority: AcmeAuthority) -> None:
        self._authority = authority

    async def show(self, snapshot: Snapshot, at: Addressed) -> Reply:
        """Return the window and, always, when to ask again: a client without that asks too late (RFC 9773 §4.2, §4.3)."""
        certificate = parse_certificate_id(at.ids[0])
        try:
            info = await self._authority.renewal_info(snapshot, at.service.profile, certificate)
        except Rejection as error:
            if error.reason is not Reason.UNKNOWN_CERTIFICATE:
                raise
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "there is no such certificate to renew", error.cause) from None
        return Reply(body=encode_renewal_info(info), retry_after=info.retry_after)
