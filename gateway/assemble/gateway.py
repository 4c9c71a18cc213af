"""Opens a whole gateway in this process: for a worker that serves, or for one command of an operator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from gateway.assemble.generation import Parts, build, prove_identity
from gateway.assemble.operations import Operations
from gateway.audit import AuditHead, append_head, parse_audit_key
from gateway.ca.crl import CrlPublisher
from gateway.ca.verify import verify_issued
from gateway.config.load import Sources
from gateway.config.schema import GatewayConfig
from gateway.model import UpstreamCAName
from gateway.ra.administration import Administration
from gateway.ra.authority import RegistrationAuthority
from gateway.store.interfaces import Store
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore, check_usable
from gateway.web.generation import Generation
from gateway.web.ops import Probe

log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    """Return the time; the one clock of everything that runs."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Gateway:
    """All that works together; `wanted` is set when recovery should look at the ledger at once."""

    config: GatewayConfig
    sources: Sources
    store: Store
    generation: Generation
    authority: RegistrationAuthority
    operations: Operations
    publishers: Mapping[UpstreamCAName, CrlPublisher]
    worker: str
    clock: Callable[[], datetime]
    wanted: asyncio.Event

    async def recover(self) -> None:
        """Take up ledger rows whose worker died, and ask upstream CAs about what they accepted."""
        self.wanted.clear()
        await self.authority.recover(self.generation.snapshot)

    async def expire(self) -> None:
        """Delete what only had to be kept until now."""
        count = await self.store.expire(self.clock())
        if count:
            log.info("expired rows deleted", count=count)

    def probes(self) -> tuple[Probe, ...]:
        """Return what must work before requests are taken: a durable write, and each RA key."""
        return (Probe("store", self.store.ping), Probe("ra keys", self._prove_identities))

    async def _prove_identities(self) -> None:
        for service in self.generation.scep.values():
            await asyncio.to_thread(prove_identity, service.identity)

    async def close(self) -> None:
        """Close upstream CAs and store."""
        try:
            for ca in self.generation.snapshot.upstream_cas.values():
                await ca.close()
        finally:
            await self.store.close()


async def open_gateway(
    config: GatewayConfig,
    sources: Sources,
    *,
    worker: str,
    generation: int,
    clock: Callable[[], datetime] = utc_now,
) -> Gateway:
    """Open store, keys and CAs.

    `worker` names this process in the ledger and must never be used by another one. Raises ConfigurationError,
    StoreRefused and StoreUnavailable.
    """
    keys = KeyRing.parse(sources.secret(config.store.key))
    store = SqliteStore(
        sources.resolve(config.store.path),
        keys,
        parse_audit_key(sources.secret(config.audit.key)),
        worker,
        _head_writer(config, sources),
        head_interval=config.audit.head_interval.total_seconds(),
        clock=clock,
    )
    parts = Parts(store, keys, clock, worker)
    built = build(config, sources, generation, parts)
    await store.start()
    try:
        for ca in built.generation.snapshot.upstream_cas.values():
            await ca.start()
    except BaseException:
        await store.close()
        raise
    wanted = asyncio.Event()
    snapshot = built.generation.snapshot
    administration = Administration(store, lambda: snapshot, clock, verify_issued, parts.challenge_macs, wanted.set)
    return Gateway(
        config=config,
        sources=sources,
        store=store,
        generation=built.generation,
        authority=RegistrationAuthority(store, store, clock, worker, verify_issued),
        operations=Operations(administration, lambda: built.generation, built.publishers, keys.newest_id),
        publishers=built.publishers,
        worker=worker,
        clock=clock,
        wanted=wanted,
    )


def require_store(config: GatewayConfig, sources: Sources) -> None:
    """Raise StoreRefused unless there is a store of this schema and these keys: nothing that serves creates one."""
    keys = KeyRing.parse(sources.secret(config.store.key))
    check_usable(sources.resolve(config.store.path), keys, parse_audit_key(sources.secret(config.audit.key)))


def _head_writer(config: GatewayConfig, sources: Sources) -> Callable[[AuditHead], None]:
    """Return what signed audit heads go to: the log, and a file where one is configured. Runs on a thread of the store.

    It raises OSError where the file takes none: the store offers the head again.
    """
    path = sources.resolve(config.audit.heads) if config.audit.heads else None

    def write(head: AuditHead) -> None:
        try:
            if path is not None and not append_head(path, head):
                return
        except OSError:
            log.info("audit head", head=head.to_json())
            raise
        log.info("audit head", head=head.to_json())

    return write
