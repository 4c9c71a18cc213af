"""Payloads of requests: JSON, bounded, to what a client asks for (RFC 8555 §7, RFC 9444 §4, RFC 9773 §5)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from gateway.acme import (
    AccountChange,
    AccountRequest,
    AuthorizationRequest,
    CertificateId,
    OrderRequest,
    RevocationRequest,
)
from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import Identifier, IdentifierType, RevocationReason
from gateway.pki import base64url
from gateway.pki.jwk import JsonWebKey
from gateway.wire.acme.ari import parse_certificate_id
from gateway.wire.acme.identifiers import compare, parse_identifiers, printable, read_identifier
from gateway.wire.acme.jws import SignedRequest, parse_binding, parse_object

MAX_CONTACTS = 10
MAX_CONTACT = 320
MAX_PROFILE = 64
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII)
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$&'*+/=^_`{|}~-]{1,64}@(?!-)[A-Za-z0-9.-]{1,253}", re.ASCII)


def check_empty(request: SignedRequest) -> None:
    """Raise MalformedMessage unless the request is POST-as-GET, whose payload is empty and not `{}` (RFC 8555 §6.3)."""
    if not request.is_read:
        raise MalformedMessage("this is read by POST-as-GET: the payload has to be empty")


# Accounts


def parse_account(payload: bytes, url: str, key: JsonWebKey) -> AccountRequest:
    """Take newAccount apart (RFC 8555 §7.3); what else clients send along is passed over.

    `key` is the one that signed it, `url` the one that it was sent to. Raises Rejection CONTACT_INVALID or CONTACT_UNSUPPORTED
    unless it only asks for an existing account, whose contact does not count.
    """
    asked = parse_object(payload)
    existing = _flag(asked, "onlyReturnExisting")
    raw = asked.get("externalAccountBinding")
    if raw is not None and not isinstance(raw, dict):
        raise MalformedMessage("externalAccountBinding is no JWS")
    return AccountRequest(
        jwk=key.text,
        thumbprint=key.thumbprint,
        contact=() if existing else _contact(asked) or (),
        terms_agreed=_flag(asked, "termsOfServiceAgreed"),
        only_existing=existing,
        binding=None if raw is None or existing else parse_binding(raw, url, key),
    )


def parse_account_change(payload: bytes) -> AccountChange:
    """Take an update of an account apart; an empty payload is a read (RFC 8555 §7.3.2, §7.3.6)."""
    if not payload:
        return AccountChange()
    asked = parse_object(payload)
    if _deactivates(asked):
        return AccountChange(deactivate=True)
    return AccountChange(_contact(asked), _flag(asked, "termsOfServiceAgreed"))


def _contact(asked: Mapping[str, Any]) -> tuple[str, ...] | None:
    raw = asked.get("contact")
    if raw is None:
        return None
    if not isinstance(raw, list) or not all(isinstance(entry, str) for entry in raw):
        raise MalformedMessage("contact is a list of URLs")
    if len(raw) > MAX_CONTACTS:
        raise Rejection(Reason.CONTACT_INVALID, f"more than {MAX_CONTACTS} contacts")
    return tuple(_check_contact(entry) for entry in raw)


def _check_contact(entry: str) -> str:
    """RFC 8555 §7.3: one mailbox, and no header fields."""
    scheme, _, mailbox = entry.partition(":")
    if scheme.lower() != "mailto":
        raise Rejection(Reason.CONTACT_UNSUPPORTED, "contacts are mailto: URLs", f"{printable(entry)!r}")
    if len(entry) > MAX_CONTACT or _MAILBOX.fullmatch(mailbox) is None:
        text = "a mailto: contact is one address, without header fields"
        raise Rejection(Reason.CONTACT_INVALID, text, f"{printable(entry)!r}")
    return entry


# Orders and authorizations


def parse_order(payload: bytes) -> OrderRequest:
    """Take newOrder apart (RFC 8555 §7.4); raises as `parse_identifiers` does."""
    asked = parse_object(payload)
    identifiers = parse_identifiers(asked.get("identifiers"))
    return OrderRequest(
        identifiers=identifiers,
        not_before=_time(asked, "notBefore"),
        not_after=_time(asked, "notAfter"),
        replaces=_replaces(asked),
        profile=_profile(asked),
        ancestors=_ancestors(asked["identifiers"]),
    )


def _replaces(asked: Mapping[str, Any]) -> CertificateId | None:
    raw = asked.get("replaces")
    if raw is None:
        return None
    try:
        return parse_certificate_id(raw if isinstance(raw, str) else "")
    except MalformedMessage as error:
        # clients that order again without it look for the word
        raise MalformedMessage("'replaces' is no identifier of a certificate", error.cause) from None


def _profile(asked: Mapping[str, Any]) -> str | None:
    raw = asked.get("profile")
    if raw is None:
        return None
    if not isinstance(raw, str) or not 0 < len(raw) <= MAX_PROFILE:
        raise Rejection(Reason.UNKNOWN_ACME_PROFILE, "there is no such profile")
    return raw


def _ancestors(raw: list[Mapping[str, Any]]) -> Mapping[Identifier, str]:
    """Return the domains that shall be proved in place of names below them (RFC 9444 §4.2)."""
    found: dict[Identifier, str] = {}
    for entry in raw:
        ancestor = entry.get("ancestorDomain")
        if ancestor is None:
            continue
        identifier = compare(read_identifier(entry))
        found[identifier] = _ancestor(identifier, ancestor)
    return MappingProxyType(found)


def _ancestor(identifier: Identifier, raw: object) -> str:
    ancestor = raw.lower() if isinstance(raw, str) and raw.isascii() else ""
    name = identifier.value.removeprefix("*.")  # what it ends with is as good a name as itself
    if identifier.type is not IdentifierType.DNS or not (name == ancestor or name.endswith(f".{ancestor}")) or not ancestor:
        raise MalformedMessage("an ancestorDomain is a domain that the identifier is below")
    return ancestor


def parse_authorization(payload: bytes) -> AuthorizationRequest:
    """Take newAuthz apart: one name, which is no wildcard (RFC 8555 §7.4.1, RFC 9444 §4.1)."""
    asked = parse_object(payload)
    raw = asked.get("identifier")
    identifier = compare(read_identifier(raw))
    if identifier.wildcard:
        raise MalformedMessage("authorizations for wildcards come with orders only")
    subdomains = _flag(raw, "subdomainAuthAllowed") if isinstance(raw, Mapping) else False
    if subdomains and identifier.type is not IdentifierType.DNS:
        raise MalformedMessage("only domains have subdomains")
    return AuthorizationRequest(identifier, subdomains)


def parse_authorization_change(payload: bytes) -> bool:
    """Return whether an authorization shall be deactivated; an empty payload is a read (RFC 8555 §7.5, §7.5.2)."""
    if not payload:
        return False
    if not _deactivates(parse_object(payload)):
        raise MalformedMessage("of an authorization nothing but its status can be changed, to deactivated")
    return True


def parse_challenge(payload: bytes) -> Mapping[str, object] | None:
    """Return what was sent to have a challenge tried, or None for POST-as-GET (RFC 8555 §7.5.1)."""
    return MappingProxyType(parse_object(payload)) if payload else None


def parse_finalize(payload: bytes, *, padded: bool = False) -> bytes:
    """Return the CSR, DER as it came, of finalize (RFC 8555 §7.4); `padded` takes other writings of base64."""
    raw = parse_object(payload).get("csr")
    if not isinstance(raw, str) or not raw:
        raise MalformedMessage("finalize needs a csr")
    try:
        return _lenient(raw) if padded else base64url.decode(raw)
    except ValueError as error:
        raise MalformedMessage("csr is not base64url without padding", str(error)) from None


def _lenient(text: str) -> bytes:
    """Return base64 or base64url, with or without padding and line breaks."""
    bare = "".join(text.split()).rstrip("=").replace("+", "-").replace("/", "_")
    try:
        data = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    return data


# Revocation


def parse_revocation(payload: bytes) -> RevocationRequest:
    """Take revokeCert apart (RFC 8555 §7.6); raises Rejection BAD_REVOCATION_REASON for a reason that there is not."""
    asked = parse_object(payload)
    raw, code = asked.get("certificate"), asked.get("reason", 0)
    if not isinstance(raw, str) or not raw:
        raise MalformedMessage("revocation needs a certificate")
    try:
        certificate = base64url.decode(raw)
    except ValueError as error:
        raise MalformedMessage("certificate is not base64url without padding", str(error)) from None
    return RevocationRequest(certificate, _reason(code))


def _reason(code: object) -> RevocationReason:
    if not isinstance(code, int) or isinstance(code, bool):
        raise MalformedMessage("reason is the number of a reason")
    try:
        return RevocationReason(code)
    except ValueError:
        raise Rejection(Reason.BAD_REVOCATION_REASON, f"there is no reason {printable(str(code), 20)}") from None


# Fields


def _flag(asked: Mapping[str, Any], name: str) -> bool:
    value = asked.get(name)
    if value is not None and not isinstance(value, bool):
        raise MalformedMessage(f"{name} is true or false")
    return value is True


def _deactivates(asked: Mapping[str, Any]) -> bool:
    status = asked.get("status")
    if status is not None and not isinstance(status, str):
        raise MalformedMessage("status is a text")
    return status == "deactivated"


def _time(asked: Mapping[str, Any], name: str) -> datetime | None:
    """Return a time of RFC 3339, in whole seconds."""
    raw = asked.get(name)
    if raw is None:
        return None
    found = _TIME.fullmatch(raw) if isinstance(raw, str) else None
    if found is None:
        raise MalformedMessage(f"{name} is no time as RFC 3339 writes it")
    try:
        at = datetime(*(int(found[group]) for group in range(1, 7)), tzinfo=UTC)  # type: ignore[misc,arg-type]  # six numbers
        return at - _offset(found)
    except (ValueError, OverflowError):
        raise MalformedMessage(f"{name} is no time that there is") from None


def _offset(found: re.Match[str]) -> timedelta:
    if found[7] is None:
        return timedelta()
    offset = timedelta(hours=int(found[8]), minutes=int(found[9]))
    return -offset if found[7] == "-" else offset
