"""CRLs and CA certificates over HTTP, where certificates point to (RFC 5280 §4.2.1.13, §4.2.2.1; RFC 4387, RFC 9111)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import format_datetime

from aiohttp import web

from gateway.model import UpstreamCAName
from gateway.web.generation import Generation, Publication, SignedCrl
from gateway.web.middleware import plain

CERTIFICATE_MAX_AGE = 86400
"""Seconds that a CA certificate may be cached; its URL serves another one after a rollover."""
CRL_MAX_AGE = 3600
"""Seconds that a CRL may be cached at the longest: it is replaced at once when something is revoked."""
RETRY_WITHOUT_CRL = 10
"""Seconds after which a client should ask again for a CRL that is about to be signed."""


class RevocationEndpoint:
    """`/crl/{ca}.crl` and `/ca/{ca}.crt`."""

    def __init__(self, current: Callable[[], Generation], clock: Callable[[], datetime]) -> None:
        self._current = current
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/crl/{ca}.crl", self.get_crl), web.get("/ca/{ca}.crt", self.get_certificate)]

    async def get_crl(self, request: web.Request) -> web.Response:
        """Return the newest CRL; cacheable for an hour, never beyond its nextUpdate."""
        publication = self._publication(request)
        if publication is None or publication.crl is None:
            return plain(404, "there is no such CRL")
        crl = await publication.crl.current()
        if crl is None:
            return plain(503, "there is no CRL yet", retry_after=RETRY_WITHOUT_CRL)
        tag = f"{crl.number}-{int(crl.this_update.timestamp())}"
        return _cached(request, crl.der, "application/pkix-crl", tag, self._crl_headers(crl))

    async def get_certificate(self, request: web.Request) -> web.Response:
        """Return the issuing CA's certificate (AIA caIssuers, RFC 5280 §4.2.2.1)."""
        publication = self._publication(request)
        if publication is None:
            return plain(404, "there is no such CA")
        headers = {"Cache-Control": f"public, max-age={CERTIFICATE_MAX_AGE}"}
        return _cached(request, publication.certificate, "application/pkix-cert", publication.certificate_sha256[:32], headers)

    def _publication(self, request: web.Request) -> Publication | None:
        return self._current().publications.get(UpstreamCAName(request.match_info["ca"]))

    def _crl_headers(self, crl: SignedCrl) -> dict[str, str]:
        now = self._clock()
        max_age = max(0, min(CRL_MAX_AGE, int((crl.next_update - now).total_seconds())))
        return {
            "Cache-Control": f"public, max-age={max_age}, must-revalidate",
            "Last-Modified": format_datetime(crl.this_update, usegmt=True),
            "Expires": format_datetime(now + timedelta(seconds=max_age), usegmt=True),
        }


def _cached(request: web.Request, body: bytes, media_type: str, etag: str, headers: dict[str, str]) -> web.Response:
    """Return `body`, or 304 when the client has it already (RFC 9110 §13.1.2)."""
    sent = request.if_none_match or ()
    unchanged = any(tag.value in {etag, "*"} for tag in sent)
    response = web.Response(status=304) if unchanged else web.Response(body=body, content_type=media_type)
    response.headers.update(headers)
    response.etag = etag
    return response
