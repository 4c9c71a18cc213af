"""Several credentials of one request, all of which must be good."""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType

from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, EnrollmentRequest, Requester
from gateway.ra.credentials.interfaces import CredentialProvider

_GUESSED = frozenset({CredentialKind.BASIC, CredentialKind.DIGEST, CredentialKind.STATIC})
"""What people choose, and others try to guess: looked at last, so that no answer tells whoever lacks the rest that a guess was
right, and nobody's guesses cost a derivation.
"""
_IN_CHALLENGE = frozenset({CredentialKind.STATIC, CredentialKind.ONE_TIME, CredentialKind.INTUNE_JWS})
_IN_HEADER = frozenset({CredentialKind.BASIC, CredentialKind.DIGEST, CredentialKind.BEARER})


class AllOfCredential:
    """Recognises requests that carry every one of its parts.

    The first part says who is asking; the names that any part binds are bound, and what any part uses up is used up.
    """

    kind = CredentialKind.ALL_OF

    def __init__(self, parts: tuple[CredentialProvider, ...]) -> None:
        """Take at least two parts, which are neither renewals nor composed themselves; raises ValueError otherwise."""
        if len(parts) < 2 or any(part.kind in {CredentialKind.ALL_OF, CredentialKind.CERTIFICATE} for part in parts):
            raise ValueError("all_of has at least two credentials, none of which is a renewal or composed itself")
        self.parts = parts

    async def authenticate(self, request: EnrollmentRequest, now: datetime) -> Requester | None:
        """Return the requester that all parts agree on.

        None where a part has nothing to look at. Raises Rejection of the first part that is not good, and StoreUnavailable.
        """
        if not all(_is_present(part.kind, request) for part in self.parts):
            return None
        found: dict[int, Requester] = {}
        for number in sorted(range(len(self.parts)), key=lambda n: self.parts[n].kind in _GUESSED):
            part = self.parts[number]
            requester = await part.authenticate(request, now)
            if requester is None:
                return None
            if requester.kind is not part.kind or not requester.identity:
                raise Rejection(Reason.NOT_AUTHORIZED, "not authorized", f"{part.kind} returned a requester of another kind")
            found[number] = requester
        return self._joined(tuple(found[number] for number in range(len(self.parts))))

    def _joined(self, found: tuple[Requester, ...]) -> Requester:
        """Return one requester; its bindings stay apart, because no one binding says what several do."""
        return Requester(
            identity="all_of:" + "+".join(requester.identity for requester in found),
            kind=self.kind,
            binding=found[0].binding,
            owner=next((requester.owner for requester in found if requester.owner), None),
            vouches_for_sid=any(requester.vouches_for_sid for requester in found),
            reservations=tuple(taken for requester in found for taken in requester.reservations),
            allowances=tuple(taken for requester in found for taken in requester.allowances),
            device=next((requester.device for requester in found if requester.device), None),
            factors=frozenset(requester.kind for requester in found),
            also_bound=tuple(requester.binding for requester in found[1:]),
            claims=MappingProxyType({key: value for requester in reversed(found) for key, value in requester.claims.items()}),
        )


def _is_present(kind: CredentialKind, request: EnrollmentRequest) -> bool:
    if kind in _IN_CHALLENGE:
        return bool(request.challenge)
    if kind in _IN_HEADER:
        return request.authorization is not None
    return request.client_certificate is not None
