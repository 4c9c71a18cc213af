"""Credentials in the Authorization header: its parts, and what a refusal invites clients to send (RFC 9110 §11)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Protocol, runtime_checkable

from gateway.ra.credentials.interfaces import CredentialProvider

MAX_AUTHORIZATION = 8704
"""Longest header that is looked at: the longest token and its scheme."""
_SCHEME = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) +([!-~][ -~]*)", re.ASCII)


@runtime_checkable
class HttpScheme(Protocol):
    """A credential that clients send in the Authorization header."""

    def www_authenticate(self, now: datetime) -> str:
        """Return one challenge for WWW-Authenticate (RFC 9110 §11.6.1)."""


@runtime_checkable
class Composite(Protocol):
    """A credential that is made of others."""

    @property
    def parts(self) -> tuple[CredentialProvider, ...]:
        """The credentials that all have to be good."""


def read_authorization(header: str | None, scheme: str) -> str | None:
    """Return what the header says for `scheme`, which is in lower case; None where it has another scheme or none."""
    if header is None or len(header) > MAX_AUTHORIZATION:
        return None
    match = _SCHEME.fullmatch(header.strip(" "))
    return match[2] if match is not None and match[1].lower() == scheme else None


def www_authenticate(credentials: Iterable[CredentialProvider], now: datetime) -> tuple[str, ...]:
    """Return a challenge for each HTTP scheme that these credentials take, in their order; empty where they take none."""
    return tuple(dict.fromkeys(scheme.www_authenticate(now) for scheme in _schemes(credentials)))


def takes_authorization(credentials: Iterable[CredentialProvider]) -> bool:
    """Say whether one of these credentials comes in the Authorization header."""
    return next(_schemes(credentials), None) is not None


def _schemes(credentials: Iterable[CredentialProvider]) -> Iterator[HttpScheme]:
    for credential in credentials:
        if isinstance(credential, HttpScheme):
            yield credential
        elif isinstance(credential, Composite):
            yield from _schemes(credential.parts)
