"""Opens a whole gateway in this process: for a worker that serves, or for one command of an operator."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import structlog

from gateway.assemble.acme_operations import AcmeOperations
from gateway.assemble.cmp import cmp_signers
from gateway.assemble.cmp_operations import CmpOperations
from gateway.assemble.continuity import CrlDuty, Lasting
from gateway.assemble.crl_tasks import CrlTasks
from gateway.assemble.departures import find_departures, find_left_behind
from gateway.assemble.est import est_signers
from gateway.assemble.generation import Built, Parts, build, prove_identity
from gateway.assemble.operations import Operations, ServiceCommands
from gateway.assemble.scep_ra import prove_signer
from gateway.assemble.succession import Succession
from gateway.audit import AuditHead, append_head, parse_audit_key
from gateway.ca.crl import CrlPublisher
from gateway.ca.verify import verify_issued
from gateway.config.load import Sources, parse
from gateway.config.schema import GatewayConfig
from gateway.errors import ConfigurationError
from gateway.model import UpstreamCAName
from gateway.ra.acme.administration import AcmeAdministration
from gateway.ra.acme.authority import AcmeAuthority
from gateway.ra.administration import Administration
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.cmp.administration import CmpAdministration
from gateway.ra.cmp.authority import CmpAuthority
from gateway.ra.cmp.confirmations import Confirmations
from gateway.ra.credentials.passwords import ScryptPool
from gateway.ra.recovery import ROWS_A_PASS
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore, check_usable
from gateway.validation.ocsp import OcspClient
from gateway.web.derivations import Derivations
from gateway.web.generation import Generation
from gateway.web.ops import Probe
from gateway.wire.cmp.messages import decode_message

log = structlog.get_logger(__name__)

GIVE_WAY = 0.0005
"""Seconds that the building of a generation may keep the event loop waiting at a time."""
CPYTHON_GIVES_WAY = 0.005


def utc_now() -> datetime:
    """Return the time; the one clock of everything that runs."""
    return datetime.now(UTC)


class Prepared:
    """A generation that is built and proved, and whose upstream CAs are open: to be committed, or discarded."""

    def __init__(self, built: Built, succession: Succession) -> None:
        self._built = built
        self._succession = succession
        self._committed = False

    @property
    def generation(self) -> Generation:
        """What would be in force."""
        return self._built.generation

    def take(self) -> Built:
        """Return what is to be put in force; afterwards there is nothing left to discard."""
        self._committed = True
        return self._built

    async def discard(self) -> None:
        """Close what was opened for it. Does nothing after it was committed, or a second time."""
        if not self._committed:
            await self._succession.close_one(self._built)


class Gateway:
    """All that works together in one worker; `wanted` is set when recovery should look at the ledger at once.

    What a configuration says is in `generation` alone, which `commit` replaces by one assignment; all else lasts as long as
    the worker, so that nothing is forgotten with a configuration: neither counts nor leases nor work that goes on.
    """

    def __init__(self, parts: Parts, succession: Succession, service: ServiceCommands | None = None) -> None:
        self.store = parts.store
        self.worker = parts.worker
        self.clock = parts.clock
        self.wanted = asyncio.Event()
        self.authority = RegistrationAuthority(self.store, self.store, self.clock, self.worker, verify_issued)
        self.acme = AcmeAuthority(
            self.store, self.store, self.store, self.authority, self.clock, self.worker, parts.acme_nonce_keys()
        )
        self._derivations = ThreadPoolExecutor(1, thread_name_prefix="cmp-mac")
        self.cmp = CmpAuthority(
            self.authority,
            self.store,
            self.store,
            self.clock,
            parts.cmp_nonce_keys(),
            decode_message,
            Derivations(self._derivations),
        )
        self._confirmations = Confirmations(self.store, self.store, self.clock, self.worker)
        self._parts = parts
        self._succession = succession
        self._crls = CrlTasks(lambda: succession.current.lasting.crls)
        administration = Administration(
            self.store, lambda: self.generation.snapshot, self.clock, verify_issued, parts.challenge_macs, self.wanted.set
        )
        acme = AcmeOperations(AcmeAdministration(self.store, lambda: self.generation.snapshot, self.clock))
        cmp = CmpOperations(CmpAdministration(self.store, lambda: self.generation.snapshot, self.clock))
        more = (*acme.rows(), *cmp.rows())
        self.operations = Operations(
            administration, lambda: self.generation, self._publishers, parts.keys.newest_id, service, more
        )

    @property
    def generation(self) -> Generation:
        """What is in force; whoever works under it reads it once."""
        return self._succession.current.generation

    @property
    def config(self) -> GatewayConfig:
        """The configuration in force."""
        return self._succession.current.config

    async def prepare(self, sources: Sources, number: int) -> Prepared:
        """Build and prove a generation on a thread and start the upstream CAs that are new in it; nothing of it is in force.

        Dates, and what takes a restart, are for the supervisor to judge. Raises ConfigurationError; then, and when the caller
        is cancelled, nothing is left behind.
        """
        current = self._succession.current
        # What goes on in the next generation must not be closed meanwhile.
        with current.generation.snapshot.occupancy, _requests_first():
            built = await asyncio.to_thread(_build, sources, number, self._parts, current.lasting)
            departures = find_departures(current.config.upstream_cas, built.config.upstream_cas)
            if behind := await find_left_behind(departures, self.store):
                raise ConfigurationError(behind)
            await self._succession.open(built)
        return Prepared(built, self._succession)

    def commit(self, prepared: Prepared) -> None:
        """Put a generation in force for everything that begins after this call."""
        built = prepared.take()
        self._succession.put_in_force(built)
        for duty in built.lasting.crls.values():
            duty.follow()
        self._crls.wake()

    async def publish_crls(self) -> None:
        """Publish the CRLs of local CAs in force and fetch those of others, until cancelled; failures are tried again."""
        await self._crls.run()

    async def recover(self) -> None:
        """Take up ledger rows whose worker died, ask upstream CAs about what they accepted, and send what waits for them."""
        self.wanted.clear()
        while await self.authority.recover(self.generation.snapshot) >= ROWS_A_PASS:
            pass

    async def tell_revocations(self) -> None:
        """Tell upstream CAs of revocations that they could not be told of at once."""
        await self.authority.tell_revocations(self.generation.snapshot)

    async def end_confirmations(self) -> None:
        """Revoke or keep certificates that their CMP clients did not confirm in time, and tell their CAs."""
        snapshot = self.generation.snapshot
        with snapshot.occupancy:
            revoked = await self._confirmations.pass_over(snapshot)
        if revoked:
            await self.authority.tell_revocations(snapshot)

    async def validate(self) -> None:
        """Take up validations and orders of ACME that are due and that nobody works on."""
        generation = self.generation
        if generation.acme:
            # What runs on in tasks of its own outlasts a generation: it is judged by the one it began with.
            with generation.snapshot.occupancy:
                await self.acme.run_due(generation.snapshot)

    async def expire(self) -> None:
        """Delete what only had to be kept until now."""
        count = await self.store.expire(self.clock()) + await self.store.expire_acme(self.clock())
        if count:
            log.info("expired rows deleted", count=count)

    def probes(self) -> tuple[Probe, ...]:
        """Return what must work before requests are taken: a durable write, and each RA key and certificate in force."""
        return (
            Probe("store", self.store.ping),
            Probe("ra keys", self._prove_identities),
            Probe("ra certificates", self._check_dates),
        )

    async def _prove_identities(self) -> None:
        generation = self.generation
        for service in generation.scep.values():
            await asyncio.to_thread(prove_identity, service.identity)
        terms = (profile.cmp for profile in generation.snapshot.profiles.values())
        for signer in (*est_signers(generation.est.values()), *cmp_signers(generation.cmp.values(), terms)):
            await asyncio.to_thread(prove_signer, signer)

    async def _check_dates(self) -> None:
        now = self.clock()
        scep, cmp = self.generation.scep.values(), {service.profile: service for service in self.generation.cmp.values()}.values()
        ended = [service.describe_end() for service in scep if not service.is_valid(now)]
        ended += [service.describe_end() for service in cmp if not service.is_valid(now)]
        if ended:
            raise ValueError("; ".join(ended))

    def _publishers(self) -> Mapping[UpstreamCAName, CrlPublisher]:
        duties = self._succession.current.lasting.crls
        return {name: duty.publisher for name, duty in duties.items() if isinstance(duty, CrlDuty)}

    async def close(self) -> None:
        """Close upstream CAs and store."""
        try:
            await self._succession.close()
        finally:
            self._parts.passwords.close()
            self._derivations.shutdown(wait=False)
            await self._parts.ocsp.close()
            await self.store.close()


@contextmanager
def _requests_first() -> Iterator[None]:
    """Have a thread that computes give way to the event loop after half a millisecond.

    It ends with CPython's own measure, not with what it found: two of these may overlap.
    """
    sys.setswitchinterval(GIVE_WAY)
    try:
        yield
    finally:
        sys.setswitchinterval(CPYTHON_GIVES_WAY)


def _build(sources: Sources, number: int, parts: Parts, before: Lasting) -> Built:
    return build(parse(sources), sources, number, parts, before)


async def open_gateway(
    config: GatewayConfig,
    sources: Sources,
    *,
    worker: str,
    generation: int,
    clock: Callable[[], datetime] = utc_now,
    service: ServiceCommands | None = None,
) -> Gateway:
    """Open store, keys and CAs.

    `worker` names this process in the ledger and must never be used by another one; `service` takes an operator's
    orders to all processes, where this is one of several. Raises ConfigurationError, StoreRefused and StoreUnavailable.
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
    parts = Parts(store, keys, clock, worker, ScryptPool(password_places(config)), OcspClient())
    first = build(config, sources, generation, parts)
    await store.start()
    succession = Succession(first)
    try:
        await succession.open(first)
    except BaseException:
        await store.close()
        raise
    return Gateway(parts, succession, service)


def password_places(config: GatewayConfig) -> int:
    """Return how many passwords this worker may check at once, so that all of them together take one a core."""
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // (cores if config.server.workers == "cores" else config.server.workers))


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
