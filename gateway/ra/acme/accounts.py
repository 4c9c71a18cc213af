"""Accounts: found by key, bound to external accounts, changed, given another key, ended (RFC 8555 §7.3)."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlsplit

from gateway.acme import (
    Account,
    AccountChange,
    AccountRequest,
    AccountStatus,
    ExternalAccount,
    ExternalBinding,
    KeyChange,
)
from gateway.audit import AuditEvent
from gateway.errors import Reason, Rejection
from gateway.model import ProfileName
from gateway.pki.jws import verify_mac
from gateway.ra.acme import journal
from gateway.ra.acme.terms import KeyInUse, Means, check_account, directory, full
from gateway.ra.policy.texts import email_problem
from gateway.ra.profile import AcmeTerms, Snapshot
from gateway.store.interfaces import QuotaTake

ID_BYTES = 16
"""Random octets of the IDs of accounts, orders, authorizations and challenges (RFC 8555 §10.5)."""
MAX_CONTACTS = 10

_REFUSED_BINDINGS = {
    Reason.CREDENTIAL_USED: "the external account has all the accounts that it may have",
    Reason.CREDENTIAL_REVOKED: "the external account was revoked",
    Reason.CREDENTIAL_EXPIRED: "the external account has expired",
}
_NO_KEY = b"\x00" * 32


def new_id() -> str:
    """Return an unguessable ID, base64url."""
    return secrets.token_urlsafe(ID_BYTES)


class Accounts:
    """The accounts of all directories, as one worker sees them."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def find(self, profile: ProfileName, id: str) -> Account:
        """Return an account of a directory, whatever its status. Raises Rejection UNKNOWN_ACCOUNT."""
        account = await self._means.records.find_account(id)
        if account is None or account.profile != profile:
            raise Rejection(Reason.UNKNOWN_ACCOUNT, "there is no such account")
        return account

    async def create(
        self, snapshot: Snapshot, profile: ProfileName, request: AccountRequest, source: str
    ) -> tuple[Account, bool]:
        """Return the account of a key, and whether it is new; of one that exists everything else in the request is ignored.

        Raises Rejection for one that is over, and for all that keeps a new one from being made (RFC 8555 §7.3, §7.3.1, §7.3.4).
        """
        _, terms = directory(snapshot, profile)
        records = self._means.records
        known = await records.find_account_by_key(profile, request.thumbprint)
        if known is not None:
            check_account(known, profile)
            return known, False
        if request.only_existing:
            raise Rejection(Reason.UNKNOWN_ACCOUNT, "no account has this key")
        now = self._means.clock()
        agreed = _agreed(terms, request.terms_agreed)
        check_contact(request.contact)
        bound = await self._bound(terms, profile, request.binding, now)
        account = Account(
            id=new_id(),
            profile=profile,
            status=AccountStatus.VALID,
            thumbprint=request.thumbprint,
            jwk=request.jwk,
            contact=request.contact,
            terms=agreed,
            external_account=None if bound is None else bound.kid,
            binding=request.binding.text if bound is not None and request.binding is not None else None,
            source=source,
            created_at=now,
        )
        quotas = _quotas(terms, profile, source)
        detail = f"external account {bound.kid}" if bound else ""
        event = self._event("acme.account.created", account, source, snapshot, detail)
        added = await records.add_account(account, quotas, event)
        if isinstance(added, Reason):
            if added is Reason.RATE_LIMITED:
                raise full(quotas, "new accounts of this address")
            raise Rejection(added, _REFUSED_BINDINGS.get(added, "the account cannot be created"))
        check_account(added, profile)
        return added, added.id == account.id

    async def change(self, snapshot: Snapshot, account: Account, change: AccountChange, source: str) -> Account:
        """Change contact or agreement, or end the account; whatever else was sent is ignored (RFC 8555 §7.3.2, §7.3.6)."""
        _, terms = directory(snapshot, account.profile)
        records = self._means.records
        if change.deactivate:
            event = self._event("acme.account.deactivated", account, source, snapshot)
            return _still(await records.update_account(account.id, event, status=AccountStatus.DEACTIVATED))
        if change.contact is not None:
            check_contact(change.contact)
        agreed = _terms_url(terms) if change.terms_agreed else None
        contact = change.contact if change.contact != account.contact else None
        if contact is None and agreed in {None, account.terms}:
            return account
        event = self._event("acme.account.updated", account, source, snapshot)
        return _still(await records.update_account(account.id, event, contact=contact, terms=agreed))

    async def change_key(self, snapshot: Snapshot, account: Account, change: KeyChange, source: str) -> Account:
        """Give an account another key; its orders and authorizations stay (RFC 8555 §7.3.5). Raises KeyInUse."""
        if change.old_thumbprint != account.thumbprint:
            raise Rejection(Reason.MALFORMED, "oldKey is not the key of this account")
        if change.thumbprint == account.thumbprint:
            raise KeyInUse(account.id)
        event = self._event(
            "acme.account.key_changed", account, source, snapshot, f"from {account.thumbprint} to {change.thumbprint}"
        )
        changed = await self._means.records.change_account_key(
            account.id, account.thumbprint, change.thumbprint, change.jwk, event
        )
        if changed is None:
            raise Rejection(Reason.ACCOUNT_DEACTIVATED, "the account was ended, or has another key, by now")
        if changed.id != account.id:
            raise KeyInUse(changed.id)
        return changed

    async def _bound(
        self, terms: AcmeTerms, profile: ProfileName, binding: ExternalBinding | None, now: datetime
    ) -> ExternalAccount | None:
        """Return the external account that a binding proves; where none are bound, it is ignored (RFC 8555 §7.3.4)."""
        wanted = terms.config.external_account
        if wanted == "off":
            return None
        if binding is None:
            if wanted == "required":
                raise Rejection(Reason.EXTERNAL_ACCOUNT_REQUIRED, "accounts here must be bound to an external account")
            return None
        found = await self._means.records.find_external_account(binding.kid)
        if found is not None and found.profile != profile:
            found = None
        # A key that nobody has takes as long as any other.
        key = _NO_KEY if found is None else found.key
        proved = verify_mac(binding.algorithm, key, binding.signing_input, binding.mac)
        if found is None or not proved:
            cause = f"external account {binding.kid!r} " + (
                "is not known here" if found is None else "was not proved: another MAC"
            )
            raise Rejection(Reason.CREDENTIAL_INVALID, "the external account binding is not valid", cause)
        if found.revoked_at is not None:
            raise Rejection(Reason.CREDENTIAL_REVOKED, _REFUSED_BINDINGS[Reason.CREDENTIAL_REVOKED])
        if found.expires_at is not None and found.expires_at <= now:
            raise Rejection(Reason.CREDENTIAL_EXPIRED, _REFUSED_BINDINGS[Reason.CREDENTIAL_EXPIRED])
        return found

    def _event(self, name: str, account: Account, source: str, snapshot: Snapshot, detail: str = "") -> AuditEvent:
        return replace(
            journal.change(name, account.id, account.profile, self._means.clock(), source=source, detail=detail),
            generation=snapshot.generation,
        )


def check_contact(contact: tuple[str, ...]) -> None:
    """Refuse what is no mail address: one each, without header fields (RFC 8555 §7.3, RFC 6068).

    Raises Rejection CONTACT_UNSUPPORTED for other schemes, CONTACT_INVALID for the rest.
    """
    if len(contact) > MAX_CONTACTS:
        raise Rejection(Reason.CONTACT_INVALID, f"at most {MAX_CONTACTS} contacts are kept")
    for url in contact:
        try:
            scheme = urlsplit(url).scheme
        except ValueError:
            scheme = ""
        if not scheme:
            raise Rejection(Reason.CONTACT_INVALID, "a contact is a URL, such as mailto:admin@example.com")
        if scheme != "mailto":
            raise Rejection(Reason.CONTACT_UNSUPPORTED, "only mailto contacts are taken")
        if len(url) > 320 or not url[:7].lower() == "mailto:" or email_problem(url[7:]):
            raise Rejection(Reason.CONTACT_INVALID, "a mailto contact holds one mail address and nothing else")


def check_terms(terms: AcmeTerms, account: Account) -> None:
    """Refuse an account that has not agreed to the terms of service as they are now (RFC 8555 §7.3.3)."""
    url = _terms_url(terms)
    if url is not None and account.terms != url:
        raise Rejection(Reason.TERMS_NOT_AGREED, f"the terms of service have changed: agree to {url} first")


def _agreed(terms: AcmeTerms, agreed: bool) -> str | None:
    url = _terms_url(terms)
    if url is not None and not agreed:
        raise Rejection(Reason.TERMS_NOT_AGREED, f"the terms of service must be agreed to: {url}")
    return url


def _terms_url(terms: AcmeTerms) -> str | None:
    url = terms.config.terms_of_service
    return None if url is None else str(url)


def _quotas(terms: AcmeTerms, profile: ProfileName, source: str) -> tuple[QuotaTake, ...]:
    limit = terms.config.limits.accounts_per_address
    if limit is None:
        return ()
    return (QuotaTake(f"acme:accounts:{profile}:{source}", limit.count, max(1, int(limit.window.total_seconds()))),)


def _still(account: Account | None) -> Account:
    if account is None:
        raise Rejection(Reason.ACCOUNT_DEACTIVATED, "the account is not valid any more")
    return account
