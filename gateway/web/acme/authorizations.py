"""Authorizations and their challenges: asked for, watched, tried, given up (RFC 8555 §7.4.1, §7.5)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from gateway.acme import Authorization, Challenge
from gateway.errors import Reason, Rejection
from gateway.ra.acme.authority import AcmeAuthority
from gateway.web.acme.requests import Asked
from gateway.web.acme.responses import Reply
from gateway.wire.acme.objects import PersistTerms, encode_authorization, encode_challenge
from gateway.wire.acme.requests import parse_authorization, parse_authorization_change, parse_challenge


class Authorizations:
    """Answers for authorizations of every profile, for the whole life of one worker."""

    def __init__(self, authority: AcmeAuthority, clock: Callable[[], datetime]) -> None:
        self._authority = authority
        self._clock = clock

    async def new_authorization(self, asked: Asked) -> Reply:
        """Make an authorization that no order needs yet, 201 (RFC 8555 §7.4.1)."""
        request = parse_authorization(asked.payload)
        authorization = await self._authority.new_authorization(
            asked.snapshot, asked.service.profile, asked.owner, request, asked.source
        )
        return self._show(asked, authorization, status=201, changed=True)

    async def authorization(self, asked: Asked) -> Reply:
        """Show an authorization, or give it up (RFC 8555 §7.5, §7.5.2)."""
        gives_up = parse_authorization_change(asked.payload)
        profile, id = asked.service.profile, asked.at.ids[0]
        if not gives_up:
            return self._show(asked, await self._authority.find_authorization(asked.snapshot, profile, asked.owner, id))
        ended = await self._authority.deactivate_authorization(asked.snapshot, profile, asked.owner, id, asked.source)
        return self._show(asked, ended, changed=True)

    async def challenge(self, asked: Asked) -> Reply:
        """Have a challenge tried now, or show it; one that is over is shown, whatever was sent (RFC 8555 §7.5.1)."""
        payload = parse_challenge(asked.payload)
        profile, (id, challenge) = asked.service.profile, asked.at.ids
        if payload is None:
            found = await self._authority.find_authorization(asked.snapshot, profile, asked.owner, id)
        else:
            found = await self._authority.answer_challenge(
                asked.snapshot, profile, asked.owner, id, challenge, payload, asked.source
            )
        shown = _find(found, challenge)
        return Reply(
            body=encode_challenge(found, shown, asked.urls, _persist_terms(asked, found)),
            # certbot takes no challenge without it
            links=((asked.urls.authorization(id), "up"),),
            retry_after=self._authority.retry_after(found),
            changed=payload is not None,
            facts={
                **_facts(found),
                "type": shown.type.value,
                "status": shown.status.value,
                "cause": None if shown.error is None else shown.error.detail,
            },
        )

    def _show(self, asked: Asked, authorization: Authorization, *, status: int = 200, changed: bool = False) -> Reply:
        return Reply(
            status,
            encode_authorization(authorization, asked.urls, self._clock(), _persist_terms(asked, authorization)),
            location=asked.urls.authorization(authorization.id) if status == 201 else None,
            retry_after=self._authority.retry_after(authorization),
            changed=changed,
            facts={**_facts(authorization), "status": authorization.status.value},
        )


def _facts(authorization: Authorization) -> dict[str, str]:
    return {"authorization": authorization.id, "names": authorization.identifier.value}


def _find(authorization: Authorization, id: str) -> Challenge:
    for challenge in authorization.challenges:
        if challenge.id == id:
            return challenge
    raise Rejection(Reason.UNKNOWN_TRANSACTION, "there is no such challenge")


def _persist_terms(asked: Asked, authorization: Authorization) -> PersistTerms | None:
    """Return what a dns-persist-01 challenge names in place of a token (draft-ietf-acme-dns-persist §3.1)."""
    profile = asked.snapshot.profiles.get(authorization.profile)
    if profile is None or profile.acme is None:
        return None
    return PersistTerms(asked.account_url(asked.owner), profile.acme.config.validation.caa.identities)
