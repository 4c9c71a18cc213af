"""What `pki-gateway upstream test` tries of an ACME CA; nothing is ordered."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

from gateway.ca.acme.dns import DynamicUpdates, HookRecords, Records
from gateway.ca.acme.session import AcmeSession, loop_time, tell
from gateway.ca.exec import DEFAULT_ENVIRONMENT
from gateway.ca.interfaces import Trial, UpstreamError
from gateway.config.remote_cas import AcmeCA

TRIAL_SECONDS = 15.0


async def try_acme(session: AcmeSession, config: AcmeCA, records: Records | None) -> tuple[Trial, ...]:
    """Try the account, the profile and the way to DNS."""
    return tuple([trial async for trial in _try(session, config, records)])


async def _try(session: AcmeSession, config: AcmeCA, records: Records | None) -> AsyncIterator[Trial]:
    try:
        await session.open(loop_time() + TRIAL_SECONDS)
    except UpstreamError as error:
        advice = "compare `account_key`, `terms_agreed` and `external_account` with what the CA wants"
        yield Trial("account", good=False, finding=str(error), advice=advice)
    else:
        yield Trial("account", good=True, finding=f"the CA knows the account {session.client.kid}")
    if config.profile is not None:
        yield _try_profile(session, config.profile)
    if isinstance(records, DynamicUpdates):
        yield await _try_updates(records)
    elif isinstance(records, HookRecords):
        yield _try_hook(records)


def _try_profile(session: AcmeSession, profile: str) -> Trial:
    """Look whether the CA has the profile (draft-ietf-acme-profiles §3)."""
    offered = session.meta.get("profiles")
    names = sorted(map(tell, offered)) if isinstance(offered, dict) else []
    if profile in names:
        return Trial("profile", good=True, finding=f"the CA has the profile {profile}")
    told = f"it has: {', '.join(names[:20])}" if names else "it has no profiles"
    return Trial("profile", good=False, finding=f"the CA has no profile {profile}; {told}", advice="correct `profile`")


async def _try_updates(records: DynamicUpdates) -> Trial:
    try:
        await records.check()
    except UpstreamError as error:
        advice = "compare server, zone and TSIG key with what the DNS server has"
        return Trial("dns", good=False, finding=str(error), advice=advice)
    return Trial("dns", good=True, finding="the DNS server answers what is signed with the TSIG key")


def _try_hook(records: HookRecords) -> Trial:
    program = records.command[0]
    if shutil.which(program, path=DEFAULT_ENVIRONMENT["PATH"]) is not None:
        return Trial("dns", good=True, finding=f"{program} can be run")
    finding = f"{program} is not a program that this user may run"
    return Trial("dns", good=False, finding=finding, advice="install it, or correct `command`")
