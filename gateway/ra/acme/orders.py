"""Orders and authorizations before anything is issued: judged, bounded, counted, written (RFC 8555 §7.4, §7.5, RFC 9773 §5)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from gateway.acme import (
    Account,
    Authorization,
    AuthorizationRequest,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    ExternalAccountPolicy,
    Order,
    OrderPage,
    OrderRequest,
    OrderStatus,
    Problem,
)
from gateway.errors import Reason, Rejection
from gateway.model import AskedValidity, ChallengeType, Identifier, IdentifierType, ProfileName, Protocol
from gateway.ra.acme import journal
from gateway.ra.acme.accounts import check_terms, new_id
from gateway.ra.acme.names import (
    base_of,
    challenges_for,
    is_below,
    judge_names,
    refuse,
    unprovable,
)
from gateway.ra.acme.renewal import Renewals
from gateway.ra.acme.terms import Busy, Means, check_bound, directory, find_policy, full, trust_mode, validation
from gateway.ra.policy.validity import judge_validity
from gateway.ra.profile import AcmeTerms, Profile, Snapshot
from gateway.store.acme import NewOrder
from gateway.store.interfaces import QuotaTake
from gateway.validation.interfaces import Validation, ValidationFailed

PAGE = 50
"""Orders on one page of an account's list."""
TOKEN_BYTES = 16
"""Random octets of a token (RFC 8555 §8: at least 128 bits)."""
AT_ONCE = 8
"""Names of one order that are asked about outside at the same time."""
LEFT_AT_LEAST = timedelta(hours=1)
"""A valid authorization that ends sooner serves no further order: its client could not finish in time."""

REPLACEMENTS = (10, 86400)
"""Orders that replace one certificate when that is due, and in how many seconds: no other limit counts them (RFC 9773 §5)."""
_PROVED = frozenset({"standard", "prevalidated", "none"})
"""Trust modes under which names that nobody vouches for are proved by challenges."""
_BY_CHALLENGE = frozenset({"standard", "prevalidated", "attestation"})
"""Trust modes under which something was shown that may serve again."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one name of an order needs: an authorization of `base`, which its ancestor may be."""

    identifier: Identifier
    base: Identifier
    wildcard: bool
    subdomains: bool


@dataclass(frozen=True, slots=True)
class _Order:
    """Everything that is known of an order before it is written."""

    account: Account
    profile: Profile
    terms: AcmeTerms
    policy: ExternalAccountPolicy
    source: str
    now: datetime
    expires_at: datetime


class Orders:
    """The orders and authorizations of all directories, as one worker sees them."""

    def __init__(self, means: Means, renewals: Renewals) -> None:
        self._means = means
        self._renewals = renewals

    async def create(self, snapshot: Snapshot, account: Account, request: OrderRequest, source: str) -> Order:
        """Judge an order by all that is known before there is a key, and write it with the authorizations that it needs.

        Raises IdentifiersRejected, Rejection, RateLimited, Busy.
        """
        home, home_terms = directory(snapshot, account.profile)
        check_terms(home_terms, account)
        profile, terms = _asked_profile(snapshot, home, home_terms, request.profile)
        for demanding in (home_terms, terms):
            check_bound(demanding, account)
        now = self._means.clock()
        _, policy = await find_policy(self._means.records, account, profile.name, now)
        _check_count(terms, policy, len(request.identifiers))
        judge_names(profile.policy, policy, request.identifiers)
        _check_validity(profile, policy, request, now)
        replaced = await self._renewals.replaced(snapshot, home_terms, account, request, now)
        about = _Order(account, profile, terms, policy, source, now, now + terms.config.order_lifetime)
        authorizations, new = await self._authorizations(about, request)
        ends = [about.expires_at, *[row.expires_at for row in authorizations]]
        order = Order(
            id=new_id(),
            account=account.id,
            directory=account.profile,
            profile=profile.name,
            asked_profile=request.profile,
            status=OrderStatus.PENDING,
            identifiers=request.identifiers,
            authorizations=tuple([row.id for row in authorizations]),
            not_before=request.not_before,
            not_after=request.not_after,
            replaces=None if request.replaces is None else request.replaces.text,
            replaces_sha256=replaced.sha256,
            created_at=now,
            expires_at=min(ends),
            source=source,
        )
        event = journal.change(
            "acme.order.created",
            account.id,
            profile.name,
            now,
            source=source,
            transaction_id=order.id,
            identifiers=order.identifiers,
            decision="pending",
            generation=snapshot.generation,
            detail=f"replaces {order.replaces}" if order.replaces else "",
        )
        if replaced.due and replaced.sha256 is not None:
            quotas: tuple[QuotaTake, ...] = (QuotaTake(f"acme:replaces:{replaced.sha256.hex()}", *REPLACEMENTS),)
        else:
            quotas = _quotas(account, *([home] if profile is home else [home, profile]))
        added = await self._means.records.add_order(NewOrder(order, new, quotas, event))
        return _added(added, quotas)

    async def find(self, account: Account, id: str) -> Order:
        """Return an order of this very account and directory. Raises Rejection UNKNOWN_TRANSACTION."""
        order = await self._means.records.find_order(id)
        if order is None or order.account != account.id or order.directory != account.profile:
            raise Rejection(Reason.UNKNOWN_TRANSACTION, "there is no such order")
        return as_of(order, self._means.clock())

    async def page(self, account: Account, after: str | None) -> OrderPage:
        """Return one page of an account's orders (RFC 8555 §7.1.2.1)."""
        ids = await self._means.records.list_orders(account.id, after, PAGE + 1)
        return OrderPage(ids[:PAGE], ids[PAGE - 1] if len(ids) > PAGE else None)

    async def authorize(self, snapshot: Snapshot, account: Account, request: AuthorizationRequest, source: str) -> Authorization:
        """Add an authorization that no order needs yet (RFC 8555 §7.4.1); it serves orders where the profile reuses them."""
        profile, terms = directory(snapshot, account.profile)
        check_terms(terms, account)
        check_bound(terms, account)
        if terms.config.authorization_reuse is None:
            raise Rejection(Reason.NOT_AUTHORIZED, "this directory takes orders only: its authorizations serve one order each")
        identifier = request.identifier
        if identifier.wildcard:
            raise Rejection(Reason.MALFORMED, "a wildcard is authorized by an order (RFC 8555 §7.4.1)")
        now = self._means.clock()
        _, policy = await find_policy(self._means.records, account, profile.name, now)
        if request.subdomains and (identifier.type is not IdentifierType.DNS or not _may_prove_domains(terms, policy)):
            raise Rejection(Reason.NOT_AUTHORIZED, "this directory authorizes no subdomains of that")
        if not request.subdomains:
            judge_names(profile.policy, policy, (identifier,))
        about = _Order(account, profile, terms, policy, source, now, now + terms.config.order_lifetime)
        wanted = _Wanted(identifier, identifier, False, request.subdomains)
        row = (await self._make(about, (wanted,)))[0]
        event = journal.change(
            "acme.authorization.created",
            account.id,
            profile.name,
            now,
            source=source,
            transaction_id=row.id,
            identifiers=(identifier,),
            decision="pending",
            generation=snapshot.generation,
        )
        quotas = _quotas(account, profile)
        if (refused := await self._means.records.add_authorization(row, quotas, event)) is not None:
            _added(refused, quotas)
        return row

    async def find_authorization(self, account: Account, id: str) -> Authorization:
        """Return an authorization of this very account. Raises Rejection UNKNOWN_TRANSACTION."""
        row = await self._means.records.find_authorization(id)
        if row is None or row.account != account.id:
            raise Rejection(Reason.UNKNOWN_TRANSACTION, "there is no such authorization")
        return row

    async def relinquish(self, snapshot: Snapshot, account: Account, id: str, source: str) -> Authorization:
        """End an authorization, valid or not yet, and the orders that need it (RFC 8555 §7.5.2); one that is over stays so."""
        row = await self.find_authorization(account, id)
        now = self._means.clock()
        event = journal.change(
            "acme.authorization.deactivated",
            account.id,
            row.profile,
            now,
            source=source,
            transaction_id=row.id,
            identifiers=(row.identifier,),
            generation=snapshot.generation,
        )
        ended = await self._means.records.deactivate_authorization(row.id, now, event)
        return ended or await self.find_authorization(account, id)

    async def _authorizations(
        self, about: _Order, request: OrderRequest
    ) -> tuple[list[Authorization], tuple[Authorization, ...]]:
        """Return the authorizations of an order, each once, and those of them that are new."""
        wanted = [_want(about, identifier, request.ancestors) for identifier in request.identifiers]
        usable = await self._reusable(about, wanted)
        found: dict[_Wanted, Authorization | None] = {}
        for one in wanted:
            found[replace(one, identifier=one.base)] = next((row for row in usable if covers(row, one.identifier)), None)
        # Several names below one ancestor need one authorization; what is ordered beside its wildcard needs two.
        missing = [one for one in _distinct(wanted) if found[replace(one, identifier=one.base)] is None]
        new = await self._make(about, missing)
        made = {replace(one, identifier=one.base): row for one, row in zip(missing, new, strict=True)}
        rows = [found[key] or made[key] for key in found]
        return list({row.id: row for row in rows}.values()), new

    async def _reusable(self, about: _Order, wanted: Sequence[_Wanted]) -> tuple[Authorization, ...]:
        reuse = about.terms.config.authorization_reuse
        if reuse is None or trust_mode(about.terms, about.policy) not in _BY_CHALLENGE:
            return ()
        bases = list(dict.fromkeys([base_of(one.identifier) for one in wanted]))
        rows = await self._means.records.find_valid_authorizations(about.account.id, about.profile.name, bases, about.now)
        return tuple([row for row in rows if _serves_again(row, reuse, about)])

    async def _make(self, about: _Order, wanted: Sequence[_Wanted]) -> tuple[Authorization, ...]:
        """Return new authorizations, valid from birth where a trust mode vouches for the name. Raises IdentifiersRejected."""
        if not wanted:
            return ()
        judge = validation(about.terms, about.policy)
        vouched = await self._vouched(about, judge, wanted)
        mode = trust_mode(about.terms, about.policy)
        refused: list[tuple[Identifier, Reason, str]] = []
        rows = []
        for one, good in zip(wanted, vouched, strict=True):
            offered = challenges_for(
                about.terms.config, mode, about.policy, one.base, wildcard=one.wildcard, subdomains=one.subdomains
            )
            if not offered and not good:
                refused.append(unprovable(one.identifier))
            else:
                rows.append(_new_authorization(about, one, offered, good))
        if refused:
            raise refuse(refused)
        return tuple(rows)

    async def _vouched(self, about: _Order, judge: Validation, wanted: Sequence[_Wanted]) -> list[bool]:
        """Ask the trust mode about each name as it was ordered. Raises IdentifiersRejected, and Busy for what takes too long."""
        gate = asyncio.Semaphore(AT_ONCE)
        refused: list[tuple[Identifier, Reason, str]] = []

        async def ask(one: _Wanted) -> bool:
            if one.subdomains:
                return False
            identifier = one.identifier
            async with gate:
                try:
                    return await judge.vouch(
                        identifier, about.source, account=about.account.id, external_account=about.account.external_account
                    )
                except ValidationFailed as failure:
                    refused.append((identifier, failure.reason, failure.detail))
                    return False

        if len(wanted) == 1:
            answers = [await ask(wanted[0])]
        else:
            try:
                async with asyncio.timeout(self._means.timing.request_wait):
                    answers = list(await asyncio.gather(*(ask(one) for one in wanted)))
            except TimeoutError:
                raise Busy(Reason.OVERLOADED, self._means.timing.retry) from None
        if refused:
            raise refuse(refused)
        return answers


def as_of(order: Order, now: datetime) -> Order:
    """Return an order as it is at a time: one that nobody finalized until its end is invalid, before the store says so."""
    if order.status in {OrderStatus.PENDING, OrderStatus.READY} and order.expires_at <= now:
        return replace(order, status=OrderStatus.INVALID, error=Problem(Reason.MALFORMED, "the order has expired"))
    return order


def covers(row: Authorization, identifier: Identifier) -> bool:
    """Say whether an authorization stands for a name, whatever its status (RFC 8555 §7.1.3, RFC 9444 §4)."""
    base = base_of(identifier)
    if row.subdomains and identifier.type is IdentifierType.DNS and row.identifier.type is IdentifierType.DNS:
        return is_below(base.value, row.identifier.value)
    return row.identifier == base and row.wildcard == identifier.wildcard


def _asked_profile(snapshot: Snapshot, home: Profile, terms: AcmeTerms, asked: str | None) -> tuple[Profile, AcmeTerms]:
    """Return the profile that an order is for: the directory's, or one that it names (draft-ietf-acme-profiles §4)."""
    if asked is None:
        return home, terms
    profile = snapshot.profiles.get(ProfileName(asked)) if asked in terms.config.profiles else None
    if profile is None or profile.acme is None or Protocol.ACME not in profile.endpoints:
        raise Rejection(Reason.UNKNOWN_ACME_PROFILE, "this directory offers no such profile")
    return profile, profile.acme


def _check_count(terms: AcmeTerms, policy: ExternalAccountPolicy, count: int) -> None:
    most = min(terms.config.max_identifiers, policy.max_identifiers or terms.config.max_identifiers)
    if count > most:
        raise Rejection(Reason.POLICY_SAN, f"the order has {count} identifiers, at most {most} are allowed")


def _check_validity(profile: Profile, policy: ExternalAccountPolicy, request: OrderRequest, now: datetime) -> None:
    """Refuse times that would be refused later (RFC 8555 §7.4)."""
    if request.not_before is None and request.not_after is None:
        return
    asked = AskedValidity(request.not_before, request.not_after, now)
    end = profile.upstream_ca.not_after_limit(now)
    _, verdicts = judge_validity(profile.policy.validity, now, None, end, asked, policy.max_validity)
    broken = [v for v in verdicts if not v.passed and v.mode == "enforce"]
    if broken:
        raise Rejection(broken[0].reason, broken[0].message)


def _want(about: _Order, identifier: Identifier, ancestors: Mapping[Identifier, str]) -> _Wanted:
    """Return what a name needs; an ancestor is taken where the directory has it so, and it is to be proved (RFC 9444 §4.2)."""
    ancestor = ancestors.get(identifier) if _may_prove_domains(about.terms, about.policy) else None
    base = base_of(identifier)
    if ancestor is None:
        return _Wanted(identifier, base, identifier.wildcard, False)
    if identifier.type is not IdentifierType.DNS or not is_below(base.value, ancestor) or "." not in ancestor:
        text = "ancestorDomain is not a domain above the name"
        raise refuse([(identifier, Reason.MALFORMED, text)])
    return _Wanted(identifier, Identifier(IdentifierType.DNS, ancestor), False, True)


def _may_prove_domains(terms: AcmeTerms, policy: ExternalAccountPolicy) -> bool:
    """Say whether a domain may be proved for all names below it: somebody who vouches does so for single names."""
    return terms.config.subdomains and trust_mode(terms, policy) in _PROVED


def _distinct(wanted: Iterable[_Wanted]) -> list[_Wanted]:
    return list({replace(one, identifier=one.base): one for one in wanted}.values())


def _serves_again(row: Authorization, reuse: timedelta, about: _Order) -> bool:
    """Say whether a valid authorization is fresh enough, and proved by a challenge that would be offered now.

    Whoever vouched for a name is asked again: the account may be elsewhere by now.
    """
    if row.expires_at < about.now + min(LEFT_AT_LEAST, about.terms.config.order_lifetime):
        return False
    proof = next((c for c in row.challenges if c.status is ChallengeStatus.VALID), None)
    if row.caa_checked_at is None or proof is None or proof.validated_at is None or proof.validated_at + reuse <= about.now:
        return False
    offered = challenges_for(
        about.terms.config,
        trust_mode(about.terms, about.policy),
        about.policy,
        row.identifier,
        wildcard=row.wildcard,
        subdomains=row.subdomains,
    )
    return proof.type in offered


def _new_authorization(about: _Order, wanted: _Wanted, offered: tuple[ChallengeType, ...], vouched: bool) -> Authorization:
    """Return an authorization; one that is valid from birth shows one challenge, as done (RFC 8555 §7.1.4)."""
    challenges = tuple([_new_challenge(type_) for type_ in offered])
    if vouched:
        shown = challenges[0] if challenges else _new_challenge(ChallengeType.HTTP_01)
        challenges = (replace(shown, status=ChallengeStatus.VALID, validated_at=about.now),)
    return Authorization(
        id=new_id(),
        account=about.account.id,
        profile=about.profile.name,
        identifier=wanted.base,
        wildcard=wanted.wildcard,
        subdomains=wanted.subdomains,
        status=AuthorizationStatus.VALID if vouched else AuthorizationStatus.PENDING,
        challenges=challenges,
        created_at=about.now,
        expires_at=about.expires_at,
        source=about.source,
    )


def _new_challenge(type_: ChallengeType) -> Challenge:
    token = "" if type_ is ChallengeType.DNS_PERSIST_01 else secrets.token_urlsafe(TOKEN_BYTES)
    return Challenge(id=new_id(), type=type_, token=token)


def _quotas(account: Account, *profiles: Profile) -> tuple[QuotaTake, ...]:
    """Return what an order is counted for: by the directory, and by the profile that it is for."""
    quotas = []
    for profile in profiles:
        if profile.acme is None:
            continue
        limits, key = profile.acme.config.limits, f"acme:orders:{profile.name}"
        counted = [(f"{key}:account:{account.id}", limits.orders_per_account), (key, limits.orders)]
        if account.external_account is not None:
            counted.append((f"{key}:external:{account.external_account}", limits.orders_per_external_account))
        quotas += [
            QuotaTake(name, one.count, max(1, int(one.window.total_seconds()))) for name, one in counted if one is not None
        ]
    return tuple(quotas)


def _added(added: Order | Reason, quotas: tuple[QuotaTake, ...]) -> Order:
    """Return the order that was written, or say why none was."""
    match added:
        case Order():
            return added
        case Reason.RATE_LIMITED:
            raise full(quotas, "new orders")
        case Reason.ALREADY_REPLACED:
            raise Rejection(added, "the certificate in 'replaces' has been replaced by another order already")
        case Reason.CREDENTIAL_REVOKED:
            raise Rejection(added, "the external account of this account was revoked")
        case _:
            raise Rejection(added, "the account is not valid any more")
