"""Certificates of orders, with their chains, and the end of certificates (RFC 8555 §7.4.2, §7.6)."""

from __future__ import annotations

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki.certificate import parse_certificate
from gateway.ra.acme.authority import AcmeAuthority
from gateway.web.acme.requests import Asked
from gateway.web.acme.responses import Reply
from gateway.wire.acme.objects import MEDIA_PEM_CHAIN, MEDIA_PKIX_CERT, encode_chain
from gateway.wire.acme.requests import check_empty, parse_revocation

ISSUER = "up"
"""Last part of the URL of a certificate's issuer."""


class Certificates:
    """Answers for certificates of every profile, for the whole life of one worker."""

    def __init__(self, authority: AcmeAuthority) -> None:
        self._authority = authority

    async def certificate(self, asked: Asked, accept: str) -> Reply:
        """Return a chain as strict PEM, leaf first; the leaf alone, DER, to who asks for nothing but that (RFC 8555 §7.4.2)."""
        check_empty(asked.signed)
        order, which = asked.at.ids[0], asked.at.ids[1] if len(asked.at.ids) > 1 else "0"
        leaf, *chain = await self._authority.certificate(asked.snapshot, asked.service.profile, asked.owner, order)
        if which == ISSUER and chain:
            return Reply(body=chain[0], media_type=MEDIA_PKIX_CERT)
        chains = (tuple(chain), *await self._alternates(asked, order, chain))
        number = int(which) if which.isdecimal() and len(which) < 3 else -1
        if not 0 <= number < len(chains) or str(number) != which:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, "there is no such chain")
        others = tuple((asked.urls.certificate(order, other), "alternate") for other in range(len(chains)) if other != number)
        if _wants_leaf(accept):
            up = ((f"{asked.urls.certificate(order)}/{ISSUER}", "up"),) if chain else ()
            return Reply(body=leaf, media_type=MEDIA_PKIX_CERT, links=others + up)
        return Reply(body=encode_chain((leaf, *chains[number])), media_type=MEDIA_PEM_CHAIN, links=others)

    async def _alternates(self, asked: Asked, order: str, chain: list[bytes]) -> tuple[tuple[bytes, ...], ...]:
        """Return further chains above the CA that issued: those of the profile that the order was for."""
        services = asked.generation.acme
        if not chain or not any(service.alternate_chains for service in services.values()):
            return ()
        found = await self._authority.find_order(asked.snapshot, asked.service.profile, asked.owner, order, wait=False)
        service = services.get(found.profile)
        if service is None:
            return ()
        issuer = parse_certificate(chain[0]).public_key.sha256
        return tuple(
            other for other in service.alternate_chains if other and parse_certificate(other[0]).public_key.sha256 == issuer
        )

    async def revoke(self, asked: Asked) -> Reply:
        """Revoke for an account or for the certificate's own key; 200 without a body (RFC 8555 §7.6)."""
        request = parse_revocation(asked.payload)
        if not request.certificate:
            raise MalformedMessage("revocation needs a certificate")
        signer = asked.key.spki_sha256 if asked.account is None else asked.account
        await self._authority.revoke(asked.snapshot, asked.service.profile, signer, request, asked.source)
        return Reply(changed=True, facts={"cause": request.reason.name.lower()})


def _wants_leaf(accept: str) -> bool:
    """Whether a client takes application/pkix-cert and not the PEM that RFC 8555 makes the default."""
    kinds = {entry.partition(";")[0].strip().lower() for entry in accept.split(",")}
    return MEDIA_PKIX_CERT in kinds and not kinds & {MEDIA_PEM_CHAIN, "application/*", "*/*"}
