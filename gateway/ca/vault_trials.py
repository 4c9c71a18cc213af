"""Tries what Vault or OpenBao would do for the gateway: node, clock, login, chain, rights, role; nothing is issued.

A finding that is good and has advice is a warning.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.ca.interfaces import NotSent, Trial, Unavailable, UpstreamError
from gateway.ca.vault_answers import Denied, member, read_answer, read_certificates
from gateway.ca.vault_auth import VaultSession
from gateway.ca.vault_role import Role, read_role
from gateway.ca.verify import CLOCK_TOLERANCE

WITHIN = 5.0
SOON = timedelta(days=7)
"""A given token that ends within that and cannot be renewed is spoken of."""
_HEALTH = "/v1/sys/health?standbyok=true&perfstandbyok=true"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the CA is in Vault; every part is quoted for a URL."""

    mount: str
    sign_path: str
    role: str | None
    issuer: str
    verbatim: bool


async def read_health(session: VaultSession) -> Mapping[str, Any]:
    """Return what a node says of itself, asked without a token; raises NotSent, Unavailable where it cannot sign."""
    answer = await session.read_openly(_HEALTH, namespaced=False)
    if answer.status != 200:
        said = {501: "is not initialized", 503: "is sealed"}.get(answer.status, f"answered {answer.status}")
        raise Unavailable(f"Vault {said}")
    return answer.json()


async def fetch_chain(session: VaultSession, place: Place) -> tuple[bytes, ...]:
    """Return an issuer's certificate and what stands above it, DER, asked without a token; raises NotSent."""
    answer = await session.read_openly(f"/v1/{place.mount}/issuer/{place.issuer}/json")
    data = member(read_answer(answer), "data")
    try:
        certificates = (*read_certificates(data, "certificate"), *read_certificates(data, "ca_chain"))
    except ValueError as error:
        raise NotSent("the CA gave a chain that is no PEM") from error
    if not certificates:
        raise NotSent("the CA gave no certificate of its own")
    return tuple(dict.fromkeys(certificates))


async def try_vault(session: VaultSession, place: Place, pinned: tuple[bytes, ...], now: datetime) -> tuple[Trial, ...]:
    """Return one finding for each thing; what comes after the node or the login needs them."""
    return tuple([trial async for trial in _trials(session, place, pinned, now)])


async def _trials(session: VaultSession, place: Place, pinned: tuple[bytes, ...], now: datetime) -> AsyncIterator[Trial]:
    try:
        health = await read_health(session)
    except UpstreamError as error:
        advice = "check `url`, `connection.anchors` and the network; a sealed Vault needs its operator"
        yield Trial("connection", good=False, finding=str(error), advice=advice)
        return
    yield Trial("connection", good=True, finding=f"Vault or OpenBao {_word(health.get('version'))} is unsealed")
    yield _try_clock(health, now)
    yield await _try_chain(session, place, pinned)
    try:
        token = await session.describe_token(WITHIN)
    except UpstreamError as error:
        yield Trial("login", good=False, finding=str(error), advice="check `auth` and the policy of the login")
        return
    yield _judge_token(token)
    async for trial in _try_rights(session, place):
        yield trial
    if place.role is not None:
        yield await _try_role(session, place)


def _try_clock(health: Mapping[str, Any], now: datetime) -> Trial:
    told = health.get("server_time_utc")
    if isinstance(told, bool) or not isinstance(told, int) or not 0 < told < 4_102_444_800:
        return Trial("clock", good=True, finding="Vault tells no time")
    apart = abs(datetime.fromtimestamp(told, UTC) - now)
    finding = f"the clocks are {apart.total_seconds():.0f} s apart"
    if apart < CLOCK_TOLERANCE:
        return Trial("clock", good=True, finding=finding)
    advice = "certificates with dates more than five minutes off are refused: have both machines follow the same time"
    return Trial("clock", good=False, finding=finding, advice=advice)


async def _try_chain(session: VaultSession, place: Place, pinned: tuple[bytes, ...]) -> Trial:
    try:
        chain = await fetch_chain(session, place)
    except UpstreamError as error:
        return Trial("chain", good=False, finding=str(error), advice="check `mount` and `issuer`")
    if chain[:1] == pinned[:1]:
        return Trial("chain", good=True, finding=f"the issuer {place.issuer} has the certificate that `chain` begins with")
    if chain[-1] in pinned:
        finding = f"the issuer {place.issuer} is another than `chain` begins with, below the same CA"
        return Trial("chain", good=True, finding=finding, advice="put its certificate in front of `chain`")
    finding = f"the issuer {place.issuer} does not chain to `chain`: what it issues will be refused"
    advice = "compare with `pki-gateway upstream chain`, then correct `chain` or `issuer`"
    return Trial("chain", good=False, finding=finding, advice=advice)


def _judge_token(token: Mapping[str, Any]) -> Trial:
    policies = token.get("policies")
    if isinstance(policies, list) and "root" in policies:
        advice = "give the gateway a login whose policy holds the paths of docs/upstream-cas.md and nothing else"
        return Trial("login", good=True, finding="the login works; it has the policy root, which may do anything", advice=advice)
    ttl = token.get("ttl")
    renewable = token.get("renewable") is True
    if isinstance(ttl, int) and 0 < ttl < SOON.total_seconds() and not renewable and token.get("path") == "auth/token/create":
        finding = f"the token ends in {ttl // 3600} h and cannot be renewed"
        return Trial("login", good=True, finding=finding, advice="use a periodic token (`-period`), or another way to log in")
    return Trial("login", good=True, finding="the login works")


async def _try_rights(session: VaultSession, place: Place) -> AsyncIterator[Trial]:
    """Ask Vault itself what the token may do (sys/capabilities-self); without some rights the gateway works less well."""
    sign, revoke, certs = place.sign_path.removeprefix("/v1/"), f"{place.mount}/revoke", f"{place.mount}/certs"
    needed = [(sign, "update", "nothing can be issued", False), (revoke, "update", "nothing can be revoked", False)]
    needed.append((certs, "list", "a request whose answer was lost is held until `pki-gateway requests resolve`", True))
    if place.role is not None:
        lost = "what it cannot certify is seen only afterwards, and a request whose answer was lost is held"
        needed.append((f"{place.mount}/roles/{place.role}", "read", lost, True))
    try:
        told = read_answer(await session.read("/v1/sys/capabilities-self", WITHIN, body={"paths": [path for path, *_ in needed]}))
    except UpstreamError as error:
        yield Trial("rights", good=True, finding=f"Vault does not say what the token may do: {error}")
        return
    data = told["data"] if isinstance(told.get("data"), dict) else told
    for path, right, lost, can_do_without in needed:
        listed = data.get(path)
        if isinstance(listed, list) and (right in listed or "root" in listed):
            yield Trial("rights", good=True, finding=f"the token may {right} {path}")
            continue
        advice = f'add to its policy: path "{path}" {{ capabilities = ["{right}"] }}'
        yield Trial("rights", good=can_do_without, finding=f"the token may not {right} {path}: {lost}", advice=advice)


async def _try_role(session: VaultSession, place: Place) -> Trial:
    try:
        answer = await session.read(f"/v1/{place.mount}/roles/{place.role}", WITHIN)
    except Denied:
        return Trial("role", good=True, finding="the role may not be read", advice="add the right to read it to the policy")
    except UpstreamError as error:
        return Trial("role", good=False, finding=str(error))
    if answer.status != 200:
        advice = f"vault write {place.mount}/roles/{place.role} …"
        return Trial("role", good=False, finding=f"there is no role {place.role} at {place.mount}", advice=advice)
    try:
        return _judge_role(read_role(member(read_answer(answer), "data")), place)
    except UpstreamError as error:
        return Trial("role", good=False, finding=str(error))


def _judge_role(role: Role, place: Place) -> Trial:
    name = f"the role {place.role}"
    if role.no_store:
        finding = f"{name} says no_store: a request whose answer was lost is held until `pki-gateway requests resolve`"
        return Trial("role", good=True, finding=finding, advice="set no_store=false, with auto-tidy for what has ended")
    if role.fixed_not_after:
        finding = f"{name} fixes not_after: what it issues is refused where another date was granted"
        return Trial("role", good=True, finding=finding, advice='set not_after=""')
    if not place.verbatim and (role.use_csr_common_name or role.use_csr_sans):
        finding = f"{name} takes names from the request (use_csr_common_name, use_csr_sans): what a profile changes is refused"
        advice = "set use_csr_common_name=false and use_csr_sans=false: the gateway sends the granted names"
        return Trial("role", good=True, finding=finding, advice=advice)
    return Trial("role", good=True, finding=f"{name} takes names from the gateway and keeps what it issues")


def _word(value: object) -> str:
    return value[:40] if isinstance(value, str) and value.isprintable() else "of an unknown version"
