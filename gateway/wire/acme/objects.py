"""Objects as clients see them: JSON, compact, in the order of the standard's examples (RFC 8555 §7.1, RFC 9773 §4.2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from gateway.acme import Account, Authorization, AuthorizationStatus, Challenge, ChallengeStatus, Order, OrderStatus, RenewalInfo
from gateway.model import ChallengeType, Identifier
from gateway.pki.certificate import der_to_pem
from gateway.wire.acme.problems import stored_problem
from gateway.wire.acme.urls import KEY_CHANGE, NEW_ACCOUNT, NEW_AUTHZ, NEW_NONCE, NEW_ORDER, RENEWAL_INFO, REVOKE_CERT, Urls

MEDIA_JSON = "application/json"
MEDIA_PEM_CHAIN = "application/pem-certificate-chain"
MEDIA_PKIX_CERT = "application/pkix-cert"

_OVER = frozenset({AuthorizationStatus.VALID, AuthorizationStatus.INVALID})
_EXPIRING = frozenset({AuthorizationStatus.PENDING, AuthorizationStatus.VALID})


@dataclass(frozen=True, slots=True)
class DirectoryTerms:
    """What a directory says of itself (RFC 8555 §7.1.1, draft-ietf-acme-profiles §3, RFC 9444 §4); empty and False is left out.

    `profiles` are descriptions or URLs by name; without `pre_authorization` newAuthz is not named; `surprise` is a name that
    changes, so that clients learn to pass over what they
    do not know.
    """

    terms_of_service: str | None = None
    website: str | None = None
    caa_identities: tuple[str, ...] = ()
    external_account_required: bool = False
    profiles: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    subdomains: bool = False
    pre_authorization: bool = True
    surprise: str | None = None


def encode_directory(urls: Urls, terms: DirectoryTerms) -> bytes:
    """Return the directory below `urls.base` (RFC 8555 §7.1.1, RFC 9773 §4.1)."""
    document: dict[str, object] = {
        "newNonce": f"{urls.base}/{NEW_NONCE}",
        "newAccount": f"{urls.base}/{NEW_ACCOUNT}",
        "newOrder": f"{urls.base}/{NEW_ORDER}",
        "revokeCert": f"{urls.base}/{REVOKE_CERT}",
        "keyChange": f"{urls.base}/{KEY_CHANGE}",
        "renewalInfo": f"{urls.base}/{RENEWAL_INFO}",
    }
    if terms.pre_authorization:
        document["newAuthz"] = f"{urls.base}/{NEW_AUTHZ}"
    if terms.surprise is not None:
        document[terms.surprise] = "https://www.rfc-editor.org/rfc/rfc8555#section-7.1.1"
    document["meta"] = _meta(terms)
    return _json(document)


def _meta(terms: DirectoryTerms) -> dict[str, object]:
    meta: dict[str, object] = {
        "termsOfService": terms.terms_of_service,
        "website": terms.website,
        "caaIdentities": list(terms.caa_identities) or None,
        "externalAccountRequired": terms.external_account_required,
        "profiles": dict(terms.profiles) or None,
        "subdomainAuthAllowed": terms.subdomains or None,
    }
    return {name: value for name, value in meta.items() if value is not None}


def encode_account(account: Account, urls: Urls) -> bytes:
    """Return an account (RFC 8555 §7.1.2); of the external account only what was verified."""
    document: dict[str, object] = {"status": account.status.value}
    if account.contact:
        document["contact"] = list(account.contact)
    if account.terms is not None:
        document["termsOfServiceAgreed"] = True
    document["orders"] = urls.orders(account.id)
    if account.binding is not None:
        document["externalAccountBinding"] = json.loads(account.binding)
    return _json(document)


def encode_orders(orders: Iterable[str], urls: Urls) -> bytes:
    """Return one page of an account's orders, by ID (RFC 8555 §7.1.2.1)."""
    return _json({"orders": [urls.order(order) for order in orders]})


def encode_order(order: Order, urls: Urls) -> bytes:
    """Return an order (RFC 8555 §7.1.3); `finalize` always, because clients look for it in every state."""
    document: dict[str, object] = {"status": order.status.value, "expires": format_time(order.expires_at)}
    document["identifiers"] = [_identifier(each) for each in order.identifiers]
    if order.asked_profile is not None:
        document["profile"] = order.asked_profile
    if order.not_before is not None:
        document["notBefore"] = format_time(order.not_before)
    if order.not_after is not None:
        document["notAfter"] = format_time(order.not_after)
    if order.replaces is not None:
        document["replaces"] = order.replaces
    document["authorizations"] = [urls.authorization(each) for each in order.authorizations]
    document["finalize"] = urls.finalize(order.id)
    if order.status is OrderStatus.VALID:
        document["certificate"] = urls.certificate(order.id)
    if order.error is not None:
        document["error"] = stored_problem(order.error)
    return _json(document)


@dataclass(frozen=True, slots=True)
class PersistTerms:
    """What a dns-persist-01 challenge names instead of a token (draft-ietf-acme-dns-persist §3.1): records for this account are
    `account_url`'s, under one of `issuer_domains`."""

    account_url: str
    issuer_domains: tuple[str, ...]


def encode_authorization(authorization: Authorization, urls: Urls, now: datetime, persist: PersistTerms | None = None) -> bytes:
    """Return an authorization (RFC 8555 §7.1.4); one that is over lists only what was tried."""
    document: dict[str, object] = {
        "identifier": _identifier(authorization.identifier),
        "status": authorization_status(authorization, now),
        "expires": format_time(authorization.expires_at),
    }
    if authorization.wildcard:
        document["wildcard"] = True
    if authorization.subdomains:
        document["subdomainAuthAllowed"] = True
    document["challenges"] = [challenge_of(authorization, each, urls, persist) for each in _shown(authorization)]
    return _json(document)


def authorization_status(authorization: Authorization, now: datetime) -> str:
    """Return the status as it is now: one that has ended is `expired`."""
    if authorization.status in _EXPIRING and authorization.expires_at <= now:
        return "expired"
    return authorization.status.value


def _shown(authorization: Authorization) -> Sequence[Challenge]:
    if authorization.status not in _OVER:
        return authorization.challenges
    tried = [each for each in authorization.challenges if each.status.value == authorization.status.value]
    return tried or authorization.challenges


def encode_challenge(
    authorization: Authorization, challenge: Challenge, urls: Urls, persist: PersistTerms | None = None
) -> bytes:
    """Return one challenge of an authorization, as the authorization itself shows it (RFC 8555 §7.1.5, §8)."""
    return _json(challenge_of(authorization, challenge, urls, persist))


def challenge_of(
    authorization: Authorization, challenge: Challenge, urls: Urls, persist: PersistTerms | None
) -> dict[str, object]:
    """Return the members of a challenge; `validated` is there if it is valid, and `error` while it is tried again, too."""
    document: dict[str, object] = {
        "type": challenge.type.value,
        "url": urls.challenge(authorization.id, challenge.id),
        "status": challenge.status.value,
    }
    if challenge.type is not ChallengeType.DNS_PERSIST_01:
        document["token"] = challenge.token
    elif persist is not None:
        document["accounturi"] = persist.account_url
        document["issuer-domain-names"] = list(persist.issuer_domains)
    if challenge.status is ChallengeStatus.VALID and challenge.validated_at is not None:
        document["validated"] = format_time(challenge.validated_at)
    if challenge.error is not None and challenge.status is not ChallengeStatus.VALID:
        document["error"] = stored_problem(challenge.error)
    return document


def encode_renewal_info(info: RenewalInfo) -> bytes:
    """Return when to renew (RFC 9773 §4.2)."""
    document: dict[str, object] = {"suggestedWindow": {"start": format_time(info.start), "end": format_time(info.end)}}
    if info.explanation_url is not None:
        document["explanationURL"] = info.explanation_url
    return _json(document)


def encode_chain(certificates: Iterable[bytes]) -> bytes:
    """Return certificates, DER, as strict PEM and nothing between, leaf first (RFC 8555 §9.1)."""
    return b"".join(der_to_pem(certificate) for certificate in certificates)


def format_time(at: datetime) -> str:
    """Return a time as RFC 3339 has it, in whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _identifier(identifier: Identifier) -> dict[str, str]:
    return {"type": identifier.type.value, "value": identifier.value}


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode("ascii")
