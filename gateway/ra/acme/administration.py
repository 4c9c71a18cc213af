"""What operators do about ACME: external accounts, accounts, orders, incidents; each act has its audit row."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from gateway.acme import Account, AccountStatus, ExternalAccount, ExternalAccountPolicy, Incident, Order, OrderStatus
from gateway.audit import AuditEvent
from gateway.config.patterns import LinearPattern, PatternError
from gateway.errors import Reason, Rejection
from gateway.model import ProfileName, Protocol
from gateway.ra.profile import AcmeTerms, Snapshot
from gateway.ra.transactions import new_request_id
from gateway.store.acme import AcmeRecords, Affected

KEY_BYTES = 32
"""Of a key that is drawn here, as long as the hash of HS256 (RFC 7518 §3.2)."""
MIN_KEY_BYTES = 16
MAX_KEY_BYTES = 512
MAX_PATTERNS = 1000
MAX_URL = 2048
_KID = re.compile(r"[A-Za-z0-9:._-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NewExternalAccount:
    """What an operator asks for; without `kid` and `key` both are drawn."""

    profile: str
    policy: ExternalAccountPolicy
    owner: str | None = None
    ttl: timedelta | None = None
    kid: str | None = None
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """How many certificates an incident would concern, and the subjects of some of them."""

    certificates: int
    subjects: tuple[str, ...]


class AcmeAdministration:
    """An operator's commands; `actor` names whoever gave one, as the kernel or the command line knows them.

    Refusals are Rejections whose `detail` says to an operator what to do; every method may raise StoreUnavailable.
    """

    def __init__(self, records: AcmeRecords, snapshot: Callable[[], Snapshot], clock: Callable[[], datetime]) -> None:
        self._records = records
        self._snapshot = snapshot
        self._clock = clock

    async def create_external_account(self, wanted: NewExternalAccount, actor: str) -> ExternalAccount:
        """Make a key that binds accounts of a profile (RFC 8555 §7.3.4), and return it with its secret, this once.

        Raises Rejection where the profile binds no accounts, a bound cannot be read or met, or the key ID exists.
        """
        terms = self._terms(wanted.profile)
        if terms.config.external_account == "off":
            raise _denied("this profile binds no external accounts: set `external_account` of its acme endpoint")
        now = self._clock()
        _check_policy(wanted.policy, terms)
        row = ExternalAccount(
            kid=wanted.kid or new_request_id(now),
            profile=ProfileName(wanted.profile),
            key=_check_key(wanted.key) if wanted.key is not None else secrets.token_bytes(KEY_BYTES),
            policy=wanted.policy,
            owner=wanted.owner,
            created_at=now,
            created_by=actor,
            expires_at=None if wanted.ttl is None else now + wanted.ttl,
        )
        if wanted.kid is not None and not _KID.fullmatch(wanted.kid):
            raise _denied("the ID of a key is up to 128 letters, digits, and any of . _ : -")
        if wanted.kid is not None and await self._records.find_external_account(wanted.kid) is not None:
            raise _denied("there is an external account with this ID already")
        detail = f"external account {row.kid}"
        await self._records.add_external_account(row, self._event("acme.external_account.created", actor, row.profile, detail))
        return row

    async def list_external_accounts(self, profile: str | None, limit: int) -> tuple[ExternalAccount, ...]:
        """Return external accounts, newest first."""
        return await self._records.list_external_accounts(profile, limit)

    async def revoke_external_account(self, kid: str, actor: str) -> ExternalAccount:
        """Revoke an external account: its accounts order nothing more. Raises Rejection UNKNOWN_TRANSACTION."""
        row = await self._records.find_external_account(kid)
        event = self._event("acme.external_account.revoked", actor, row.profile if row else "", f"external account {kid}")
        revoked = await self._records.revoke_external_account(kid, self._clock(), event)
        if revoked is None:
            raise _unknown("there is no external account with this ID that is not revoked")
        return revoked

    async def list_accounts(self, profile: str | None, limit: int, offset: int) -> tuple[Account, ...]:
        """Return accounts, newest first."""
        return await self._records.list_accounts(profile, limit, offset)

    async def revoke_account(self, id: str, actor: str) -> Account:
        """End an account for good, with what is pending of it; its certificates stay. Raises Rejection UNKNOWN_TRANSACTION."""
        account = await self._records.find_account(id)
        if account is None:
            raise _unknown("there is no account with this ID")
        event = self._event("acme.account.revoked", actor, account.profile, f"account {id}")
        ended = await self._records.update_account(id, event, status=AccountStatus.REVOKED)
        if ended is None:
            raise _denied("the account is over already")
        return ended

    async def list_orders(self, profile: str | None, status: OrderStatus | None, limit: int) -> tuple[Order, ...]:
        """Return orders of all accounts, newest first."""
        return await self._records.search_orders(profile, status, limit)

    async def preview_incident(self, affected: Affected) -> Preview:
        """Say which certificates an incident would concern."""
        _check_affected(affected)
        return Preview(*await self._records.count_affected(affected, self._clock()))

    async def declare_incident(self, affected: Affected, explanation_url: str | None, actor: str) -> Incident:
        """Tell the clients of these certificates to renew now (RFC 9773 §4.2); raises Rejection where none is concerned."""
        _check_affected(affected)
        _check_url(explanation_url)
        now = self._clock()
        count, _ = await self._records.count_affected(affected, now)
        if not count:
            raise _denied("no certificate that is in force fits this")
        incident = Incident(new_request_id(now), explanation_url, now, actor)
        detail = f"incident {incident.id}: {describe(affected)}; certificates: {count}"
        event = self._event("acme.incident.declared", actor, affected.profile or "", detail, affected.upstream_ca or "")
        return await self._records.declare_incident(incident, affected, now, event)

    async def list_incidents(self, limit: int) -> tuple[Incident, ...]:
        """Return incidents, newest first."""
        return await self._records.list_incidents(limit)

    async def withdraw_incident(self, id: str, actor: str) -> None:
        """Forget an incident: its certificates are renewed in their time again. Raises Rejection UNKNOWN_TRANSACTION."""
        event = self._event("acme.incident.withdrawn", actor, "", f"incident {id}")
        if not await self._records.withdraw_incident(id, event):
            raise _unknown("there is no incident with this ID")

    def _terms(self, name: str) -> AcmeTerms:
        profile = self._snapshot().profiles.get(ProfileName(name))
        if profile is None:
            raise Rejection(Reason.UNKNOWN_PROFILE, "there is no such profile")
        if profile.acme is None:
            raise _denied("this profile does not open acme")
        return profile.acme

    def _event(self, event: str, actor: str, profile: str, detail: str, upstream_ca: str = "") -> AuditEvent:
        return AuditEvent(
            event=event,
            at=self._clock(),
            actor=actor,
            decision="done",
            protocol=Protocol.ADMIN,
            profile=profile,
            upstream_ca=upstream_ca,
            detail=detail,
            generation=self._snapshot().generation,
        )


def describe(affected: Affected) -> str:
    """Say in words which certificates are meant."""
    said = []
    if affected.profile is not None:
        said.append(f"profile {affected.profile}")
    if affected.upstream_ca is not None:
        said.append(f"upstream CA {affected.upstream_ca}")
    if affected.serials is not None:
        said.append(f"{len(affected.serials)} serial numbers")
    if affected.public_key_sha256 is not None:
        said.append(f"public key {affected.public_key_sha256.hex()}")
    return ", ".join(said)


def _check_affected(affected: Affected) -> None:
    if affected == Affected():
        raise _denied("name a profile, an upstream CA, serial numbers or a key")


def _check_policy(policy: ExternalAccountPolicy, terms: AcmeTerms) -> None:
    """Refuse what no account could ever meet, or what would open more than the profile does."""
    if len(policy.dns) + len(policy.ip) > MAX_PATTERNS:
        raise _denied(f"at most {MAX_PATTERNS} names and networks")
    for text in policy.dns:
        _check_pattern(text)
    for text in policy.ip:
        _check_network(text)
    if policy.challenges is not None and policy.challenges.isdisjoint(terms.config.validation.challenges):
        raise _denied(f"this profile offers {', '.join(terms.config.validation.challenges)} only")
    if policy.mode is not None and policy.mode not in terms.validations:
        raise _denied(f"mode {policy.mode} is not possible here: this profile can do {', '.join(sorted(terms.validations))}")
    if policy.mode == "none" and not policy.dns and not policy.ip:
        raise _denied("mode none needs the names that it is for: --dns or --ip")
    if policy.max_validity is not None and policy.max_validity < timedelta(minutes=1):
        raise _denied("a validity of less than a minute is none")


def _check_pattern(text: str) -> None:
    try:
        LinearPattern.compile(text)
    except PatternError as error:
        hint = f"; for all names below it: .*{text[1:].replace('.', chr(92) + '.')}" if text.startswith("*.") else ""
        raise Rejection(Reason.POLICY_SAN, f"{text} is no regular expression: {error}{hint}") from error


def _check_network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise Rejection(Reason.POLICY_SAN, f"{text} is no network: {error}") from error


def _check_key(key: bytes) -> bytes:
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise _denied(f"a key has {MIN_KEY_BYTES} to {MAX_KEY_BYTES} octets")
    return key


def _check_url(url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable or len(url) > MAX_URL or not (url.isascii() and url.isprintable()) or " " in url:
        raise _denied("the explanation is an https URL")


def _denied(text: str) -> Rejection:
    return Rejection(Reason.DENIED, text)


def _unknown(text: str) -> Rejection:
    return Rejection(Reason.UNKNOWN_TRANSACTION, text)
