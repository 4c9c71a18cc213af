"""A whole registration authority in a folder: real store, policy and credentials, a faulty CA, a clock that can be moved."""

import asyncio
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from gateway.audit import AuditHead
from gateway.ca.interfaces import (
    Capability,
    IssueRequest,
    NotSent,
    UnknownResult,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.ca.verify import verify_issued
from gateway.config.policy import PolicyConfig
from gateway.errors import StoreUnavailable
from gateway.model import (
    EnrollmentRequest,
    Grant,
    ProfileName,
    Protocol,
    RequestForm,
    RevocationReason,
    SignerCertificate,
    UpstreamCAName,
)
from gateway.pki.certificate import Issuer, build_certificate, new_serial, parse_certificate, self_signed_ca
from gateway.pki.csr import build_csr, parse_csr
from gateway.pki.keys import PrivateKey, generate_private_key, load_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.ra.administration import Administration
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.credentials.one_time import OneTimeCredential
from gateway.ra.credentials.static import StaticCredential
from gateway.ra.profile import Profile, Quota, Snapshot
from gateway.ra.requests import PollRequest
from gateway.ra.timing import Timing
from gateway.store.interfaces import LedgerRow, LedgerState, Store
from gateway.store.keys import KeyRing
from gateway.store.sqlite import SqliteStore, migrate
from tests.contract.store.rows import audit_rows

KEYS = KeyRing((bytes(range(32)),))
AUDIT_KEY = b"a" * 32
PROFILE = ProfileName("corp")
CA_NAME = UpstreamCAName("issuing")
SECRET = "static-secret-of-corp"
FIND = Capability.FIND
POLL = Capability.POLL
REVOKE = Capability.REVOKE

QUICK = Timing(
    answer_within=5.0,
    issue_within=5.0,
    find_for=0.2,
    find_pause=0.02,
    store_patience=0.3,
    look_every=0.02,
    renew_every=0.05,
)


class Clock:
    """The time of day, and as much more as a test wants."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, by: timedelta) -> None:
        self.ahead += by


@cache
def device_key(name: str) -> PrivateKey:
    """The key of this device: always the same, in every process."""
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(name.encode()).digest()) >> 8, ec.SECP256R1())


def macs(challenge: str) -> tuple[bytes, ...]:
    return KEYS.macs("challenge", challenge.encode())


class FaultyCA:
    """A CA that remembers what it issued in a folder, so that it outlives any process, and errs as it is told.

    `faults` are taken one a call of `issue`, `find_faults` one a call of `find`.
    """

    accepts = frozenset({RequestForm.PKCS10})
    NO_CAPABILITIES = Capability.NONE

    def __init__(self, folder: Path, capabilities: Capability = Capability.NONE, name: UpstreamCAName = CA_NAME) -> None:
        self.name = name
        self.capabilities = capabilities
        self.queue = timedelta(0)
        self.down = False
        """Nothing reaches it."""
        self.faults: list[str] = []
        self.find_faults: list[str] = []
        self.calls: list[str] = []
        self.revoked: list[int] = []
        self.revoke_faults: list[str] = []
        self.gate = asyncio.Event()
        self.reached = asyncio.Event()
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._key, self._root = _open_ca(folder)
        self._issuer = Issuer.from_certificate(self._root, self._key)

    async def start(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""

    def new_serial(self) -> int | None:
        return None

    def issued(self) -> list[bytes]:
        """Everything that this CA ever issued."""
        return [path.read_bytes() for path in sorted(self._folder.glob("*.der"))]

    def issued_for(self, id: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self._folder.glob(f"{id}-*.der"))]

    async def issue(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending:
        self.calls.append(f"issue {request.request_id}")
        self.reached.set()
        await asyncio.sleep(0)
        self._refuse_while_down()
        fault = self.faults.pop(0) if self.faults else ""
        match fault:
            case "rejected":
                raise UpstreamRejected("the CA does not like you")
            case "not sent":
                raise NotSent("connection refused", 7)
            case "lost before":
                raise UnknownResult("connection reset before it was read")
            case "stall":
                await asyncio.sleep(3600)
            case "gate":
                await self.gate.wait()
            case "pending":
                return UpstreamPending(f"ref-{request.request_id}", 30)
            case "garbage":
                self._sign(request)
                return UpstreamIssued(b"<html>Bad Gateway</html>", ())
            case "wrong key":
                other = generate_private_key("ec-p256")
                return self._answer(self._sign(replace(request, public_key=public_key_der(other))))
            case "other's certificate":
                return self._answer(self.issued()[0])
            case "wrong name":
                grant = replace(request.grant, subject_der=parse_name_text("CN=somebody else").der)
                return self._answer(self._sign(replace(request, grant=grant)))
            case _:
                pass
        certificate = self._sign(request)
        await asyncio.sleep(0)
        if fault == "lost after":
            raise UnknownResult("connection reset after it was read")
        if fault == "crash":
            raise RuntimeError("a bug in the backend")
        return self._answer(certificate)

    async def poll(self, request: IssueRequest, reference: str) -> UpstreamIssued | UpstreamPending:
        self.calls.append(f"poll {reference}")
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "pending":
            return UpstreamPending(reference, 30)
        if fault == "unreachable":
            raise NotSent("connection refused")
        if fault == "rejected":
            raise UpstreamRejected("the CA thought about it and says no")
        if fault == "gate":
            self.reached.set()
            await self.gate.wait()
        certificate = self._sign(request)
        if fault == "lost after":
            raise UnknownResult("connection reset after it was read")
        return self._answer(certificate)

    async def find(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending | None:
        self.calls.append(f"find {request.request_id}")
        await asyncio.sleep(0)
        self._refuse_while_down()
        if self.find_faults and self.find_faults.pop(0):
            raise UnknownResult("the CA does not answer")
        found = self.issued_for(request.request_id)
        return self._answer(found[0]) if found else None

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        self.calls.append(f"revoke {serial:x}")
        await asyncio.sleep(0)
        self._refuse_while_down()
        match self.revoke_faults.pop(0) if self.revoke_faults else "":
            case "rejected":
                raise UpstreamRejected("the CA does not know it")
            case "lost after":
                self.revoked.append(serial)
                raise UnknownResult("connection reset after it was read")
            case "stall":
                await asyncio.sleep(3600)
            case _:
                self.revoked.append(serial)

    def _refuse_while_down(self) -> None:
        if self.down:
            raise NotSent("connection refused", 7)

    def chain(self) -> tuple[bytes, ...]:
        return (self._root,)

    async def inspect(self, certificate: bytes) -> None:
        """Find nothing wrong."""

    def not_after_limit(self, now: datetime) -> datetime | None:
        return None

    async def crl(self) -> bytes | None:
        return None

    def sign(self, grant: Grant, public_key: bytes) -> bytes:
        """Issue past the books, as somebody at the CA's own console would."""
        return build_certificate(self._issuer, new_serial(), grant, public_key)

    def _sign(self, request: IssueRequest) -> bytes:
        serial = new_serial()
        der = build_certificate(self._issuer, serial, request.grant, request.public_key)
        path = self._folder / f"{request.request_id}-{serial:040x}.der"
        with path.open("wb") as out:
            out.write(der)
            out.flush()
            os.fsync(out.fileno())
        return der

    def _answer(self, certificate: bytes) -> UpstreamIssued:
        return UpstreamIssued(certificate, (self._root,), "handle")


def _open_ca(folder: Path) -> tuple[PrivateKey, bytes]:
    """Open the CA's key and certificate, made on first use."""
    key_path, root_path = folder / "key.pem", folder / "root.crt"
    if not key_path.exists():
        key = generate_private_key("ec-p256")
        now = datetime.now(UTC).replace(microsecond=0)
        root_path.write_bytes(self_signed_ca(key, "CN=Test CA", now - timedelta(days=1), now + timedelta(days=4000)))
        key_path.write_bytes(serialize_private_key(key))
    return load_private_key(key_path.read_bytes()), root_path.read_bytes()


class World:
    """One store, one CA, and as many workers as a test starts."""

    def __init__(self, folder: Path, ca: Any, *, timing: Timing = QUICK, clock: Clock | None = None) -> None:
        self.folder = folder
        self.ca = ca
        self.timing = timing
        self.clock = clock or Clock()
        self.heads: list[AuditHead] = []
        self.stores: list[SqliteStore] = []
        self.path = folder / "gateway.db"
        self.profile_options: dict[str, Any] = {}
        self._static = StaticCredential(PROFILE, SECRET.encode())
        if not self.path.exists():
            migrate(self.path, KEYS, AUDIT_KEY)

    async def open_store(self, worker: str) -> SqliteStore:
        store = SqliteStore(self.path, KEYS, AUDIT_KEY, worker, self.heads.append)
        await store.start()
        self.stores.append(store)
        return store

    async def start(self, worker: str = "w1", store: Store | None = None, timing: Timing | None = None) -> RegistrationAuthority:
        store = store or await self.open_store(worker)
        return RegistrationAuthority(store, store, self.clock, worker, verify_issued, timing or self.timing)

    @property
    def store(self) -> SqliteStore:
        return self.stores[0]

    @property
    def snapshot(self) -> Snapshot:
        return self.make_snapshot()

    def make_snapshot(self, **options: Any) -> Snapshot:
        settings: dict[str, Any] = {
            "name": PROFILE,
            "endpoints": frozenset({Protocol.SCEP}),
            "upstream_ca": self.ca,
            "credentials": (self._static, OneTimeCredential(PROFILE, self.store, macs)),
            "policy": PolicyConfig(),
            "renewal": None,
            "per_requester": None,
            "per_profile": None,
            "manual_approval": False,
            "retransmission_window": timedelta(hours=1),
            **self.profile_options,
            **options,
        }
        profile = Profile(**settings)
        return Snapshot(1, MappingProxyType({PROFILE: profile}), MappingProxyType({self.ca.name: self.ca}))

    def administration(self, store: Store | None = None) -> Administration:
        return Administration(store or self.store, lambda: self.snapshot, self.clock, verify_issued, macs)

    def request(self, name: str = "device", **changes: Any) -> EnrollmentRequest:
        return make_request(self.clock(), name, **changes)

    def poll(self, request: EnrollmentRequest, **changes: Any) -> PollRequest:
        asked = PollRequest(
            profile=request.profile,
            protocol=request.protocol,
            operation="CertPoll",
            transaction_id=request.transaction_id,
            requester_key=request.requester_key,
            source="192.0.2.7",
        )
        return replace(asked, **changes)

    async def rows(self, states: Iterable[LedgerState] = tuple(LedgerState)) -> tuple[LedgerRow, ...]:
        return await self.store.list_rows(frozenset(states), None, 1000)

    async def events(self) -> list[str]:
        """The names of all audit events so far."""
        return [event["event"] for event in await self.audit()]

    async def audit(self) -> list[Mapping[str, Any]]:
        return [json.loads(row.body) for row in audit_rows(self.store)]

    async def lapse(self) -> None:
        """Let every lease run out."""
        self.clock.advance(self.timing.lease + timedelta(seconds=1))

    async def close(self) -> None:
        for store in self.stores:
            await store.close()


def make_request(
    now: datetime,
    name: str = "device",
    *,
    key: str = "",
    challenge: str | None = SECRET,
    transaction: str = "transaction-1",
    operation: str = "PKCSReq",
    signer: SignerCertificate | None = None,
    profile: ProfileName = PROFILE,
) -> EnrollmentRequest:
    """A request of the device `name`; `key` names its key, the same as the device's unless said."""
    csr = parse_csr(_csr(name, key or name))
    return EnrollmentRequest(
        profile=profile,
        protocol=Protocol.SCEP,
        operation=operation,
        transaction_id=transaction,
        csr=csr,
        challenge=challenge,
        signer=signer,
        source="192.0.2.7",
    )


@cache
def _csr(name: str, key: str) -> bytes:
    return build_csr(device_key(key), parse_name_text(f"CN={name}").der)


def public_key_of(certificate: bytes) -> bytes:
    return parse_certificate(certificate).public_key.der


ONE_AN_HOUR = Quota(1, timedelta(hours=1))


class FlakyStore:
    """A store whose next writes fail as told: `before` they happen, or `after`, when it says that they did not."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.faults: dict[str, list[str]] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            faults = self.faults.get(name, [])
            fault = faults.pop(0) if faults else ""
            if fault == "before":
                raise StoreUnavailable("the disk is full")
            result = await method(*args, **kwargs)
            if fault == "after":
                raise StoreUnavailable("the disk did not answer in time")
            return result

        return call
