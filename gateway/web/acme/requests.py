"""From a POST to what it asks for: JWS, nonce, key, signature, URL, in this order (RFC 8555 §6.2-6.5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from gateway.acme import Account, AccountStatus
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki.jwk import JsonWebKey, load_jwk, load_jwk_text
from gateway.ra.acme.authority import AcmeAuthority
from gateway.ra.profile import Snapshot
from gateway.web.generation import AcmeService, Generation
from gateway.wire.acme.jws import MEDIA_JOSE, SignedRequest, check_signature, check_url, parse_request
from gateway.wire.acme.problems import BAD_NONCE_DETAIL
from gateway.wire.acme.urls import Urls, read_account_url


class Signer(Enum):
    """Whose signature a resource takes (RFC 8555 §6.2)."""

    ACCOUNT = "an account, named by kid"
    KEY = "a key, brought as jwk"
    EITHER = "an account or a certificate's key"


@dataclass(frozen=True, slots=True)
class Addressed:
    """Where a request was sent: to whose directory, below which URL, for which object.

    `path` is what the URL has after the directory's folder, as it came; `ids` are the variable parts of it.
    """

    service: AcmeService
    urls: Urls
    path: str
    ids: tuple[str, ...] = ()
    cursor: str | None = None

    @property
    def bases(self) -> tuple[str, ...]:
        """All folders that the directory has."""
        return self.service.base, *self.service.aliases


@dataclass(frozen=True, slots=True)
class Asked:
    """One request whose sender is known: `key` made its signature, for `url`; `account` is None where it has none here."""

    generation: Generation
    at: Addressed
    source: str
    signed: SignedRequest
    key: JsonWebKey = field(repr=False)
    account: Account | None

    @property
    def snapshot(self) -> Snapshot:
        """What is in force for this request."""
        return self.generation.snapshot

    @property
    def service(self) -> AcmeService:
        """Whose directory it was sent to."""
        return self.at.service

    @property
    def urls(self) -> Urls:
        """Makes URLs as this client knows them."""
        return self.at.urls

    @property
    def payload(self) -> bytes:
        """What was signed, JSON or nothing."""
        return self.signed.payload

    @property
    def owner(self) -> Account:
        """The account whose key signed."""
        if self.account is None:
            raise TypeError("this resource is asked for by accounts only")
        return self.account

    def account_url(self, account: Account) -> str:
        """Return the URL of an account, below the canonical folder wherever it is asked for: it never changes (§7.3)."""
        return Urls(self.service.base).account(account.id)


class RequestReader:
    """Reads POSTs for the whole life of one worker."""

    def __init__(self, authority: AcmeAuthority) -> None:
        self._authority = authority

    async def read(self, generation: Generation, at: Addressed, signer: Signer, body: bytes, source: str) -> Asked:
        """Verify one POST.

        The nonce is used up as soon as the JWS can be read, whatever becomes of it then. Raises Rejection and StoreUnavailable.
        """
        service = at.service
        signed = parse_request(body, service.algorithms)
        _check_signer(signed, signer)
        if not await self._authority.redeem_nonce(signed.nonce):
            raise Rejection(Reason.BAD_NONCE, BAD_NONCE_DETAIL)
        key, account = await self._find_key(generation, at, signed)
        check_signature(signed, key, service.algorithms)
        urls = _signed_for(at, signed)
        if account is not None and account.status is not AccountStatus.VALID:
            raise Rejection(Reason.ACCOUNT_DEACTIVATED, f"the account is {account.status}")
        reached = Addressed(service, urls, at.path, at.ids, at.cursor)
        return Asked(generation, reached, source, signed, key, account)

    async def _find_key(self, generation: Generation, at: Addressed, signed: SignedRequest) -> tuple[JsonWebKey, Account | None]:
        """Return the key that should have signed; keys of accounts are loaded once (`pki.jwk` remembers them)."""
        if signed.jwk is not None:
            return load_jwk(signed.jwk), None
        id = read_account_url(signed.kid or "", at.bases)
        if id is None:
            raise Rejection(Reason.UNKNOWN_ACCOUNT, "the kid of the JWS is no account of this directory")
        account = await self._authority.find_account(generation.snapshot, at.service.profile, id)
        return load_jwk_text(account.jwk), account


def _check_signer(signed: SignedRequest, signer: Signer) -> None:
    """Refuse a key where an account has to sign, and the other way round."""
    if (signed.kid is None and signer is Signer.ACCOUNT) or (signed.jwk is None and signer is Signer.KEY):
        raise MalformedMessage(f"the JWS has to be signed by {signer.value}")


def _signed_for(at: Addressed, signed: SignedRequest) -> Urls:
    """Return the folder that the client knows; raises Rejection NOT_AUTHORIZED where it signed for another URL (§6.4).

    What the client sent is compared with what is configured, and never with its own Host header.
    """
    for base in at.bases:
        if signed.url == f"{base}/{at.path}":
            return Urls(base)
    check_url(signed, f"{at.urls.base}/{at.path}")
    return at.urls


def is_jose(content_type: str | None) -> bool:
    """Say whether a body is called a JWS; parameters are passed over (RFC 8555 §6.2)."""
    return (content_type or "").partition(";")[0].strip().lower() == MEDIA_JOSE
