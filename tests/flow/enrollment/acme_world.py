"""ACME's state machines on the world of the enrollment tests: real store and corridor, a faulty CA, validation as a test says."""

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gateway.acme import (
    Account,
    AccountRequest,
    Authorization,
    ExternalAccount,
    ExternalAccountPolicy,
    ExternalBinding,
    Order,
    OrderRequest,
)
from gateway.audit import AuditEvent
from gateway.config.acme import AcmeEndpoint
from gateway.config.policy import PolicyConfig
from gateway.errors import Reason
from gateway.model import ChallengeType, Identifier, IdentifierType, ProfileName, Protocol, SanKind
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.identifiers import to_san
from gateway.pki.names import parse_name_text
from gateway.ra.acme.authority import AcmeAuthority
from gateway.ra.acme.terms import AcmeTiming
from gateway.ra.credentials.acme_order import AcmeOrderCredential
from gateway.ra.profile import AcmeTerms, Profile, Snapshot
from gateway.ra.timing import Timing
from gateway.store.interfaces import Store
from gateway.validation.interfaces import Validated, ValidationFailed, ValidationTask
from tests.flow.enrollment.world import PROFILE, QUICK, Clock, World, device_key

OTHER = ProfileName("short")
SOURCE = "192.0.2.7"
NONCE_KEY = b"n" * 32
ACME_QUICK = AcmeTiming(poll_wait=1.0, look_every=0.02, request_wait=2.0)
POLICY: dict[str, Any] = {
    "subject": {"allow_empty": True},
    "san": {
        "dns": {"patterns": [r"([a-z0-9-]+\.)*example\.com"], "wildcards": True, "max": 100},
        "ip": {"networks": ["192.0.2.0/24"]},
        "permanent_identifier": {"patterns": [".*"]},
        "max": 100,
    },
    "eku": {"allow": ["serverAuth", "clientAuth"], "default": ["serverAuth"]},
    "validity": {"default": "90d", "max": "100d", "backdate": "1h"},
}


def as_read(value: Any) -> Any:
    """What the configuration's reader hands on: lists as tuples."""
    if isinstance(value, dict):
        return {key: as_read(one) for key, one in value.items()}
    return tuple(map(as_read, value)) if isinstance(value, list | tuple) else value


def dns(*names: str) -> tuple[Identifier, ...]:
    return tuple(Identifier(IdentifierType.DNS, name) for name in names)


@dataclass
class Room:
    """A Validation that proves what a test lets it."""

    good: bool = True
    vouched: bool = False
    refuses: dict[str, Reason] = field(default_factory=dict)
    caa: ValidationFailed | None = None
    validated: Validated = field(default_factory=Validated)
    tasks: list[ValidationTask] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    asks_nobody: bool = False

    async def validate(self, task: ValidationTask, now: datetime) -> Validated:
        self.tasks.append(task)
        if not self.good:
            raise ValidationFailed(Reason.VALIDATION_INCORRECT, "it did not match", final=True)
        return self.validated

    async def check_caa(
        self, identifier: Identifier, challenge: ChallengeType | None, account_url: str, *, wildcard: bool
    ) -> None:
        if self.caa is not None:
            raise self.caa

    async def vouch(self, identifier: Identifier, source: str, *, account: str = "", external_account: str | None = None) -> bool:
        self.asked.append(identifier.value)
        if identifier.value in self.refuses:
            raise ValidationFailed(self.refuses[identifier.value], "not this one")
        return self.vouched


class AcmeWorld(World):
    """A world whose profiles open ACME; `config` and `policy` are as the file has them."""

    def __init__(self, folder: Path, ca: Any, timing: Timing = QUICK, clock: Clock | None = None) -> None:
        super().__init__(folder, ca, timing=timing, clock=clock)
        self.config: dict[str, Any] = {"finalize_wait": "3s"}
        self.others: dict[str, Any] = {}
        """What the profile `short` has otherwise."""
        self.policy: dict[str, Any] = dict(POLICY)
        self.room = Room()
        self.modes: tuple[str, ...] = ("standard",)

    async def worker(self, name: str = "w1", store: Store | None = None, timing: AcmeTiming = ACME_QUICK) -> AcmeAuthority:
        """Start a worker."""
        found = store or await self.open_store(name)
        authority = await self.start(name, found)
        return AcmeAuthority(found, found, found, authority, self.clock, name, (NONCE_KEY,), timing)

    def make_snapshot(self, **options: Any) -> Snapshot:
        configs = {PROFILE: self.config, OTHER: self.config | self.others}
        profiles = {name: self._profile(name, self._terms(config), options) for name, config in configs.items()}
        return Snapshot(1, MappingProxyType(profiles), MappingProxyType({self.ca.name: self.ca}))

    def _terms(self, config: dict[str, Any]) -> AcmeTerms:
        read = AcmeEndpoint.model_validate(as_read(config))
        return AcmeTerms(read, MappingProxyType(dict.fromkeys(self.modes, self.room)), "https://pki.test/acme/corp")  # type: ignore[arg-type]

    def _profile(self, name: ProfileName, terms: AcmeTerms, options: dict[str, Any]) -> Profile:
        settings: dict[str, Any] = {
            "name": name,
            "endpoints": frozenset({Protocol.ACME}),
            "upstream_ca": self.ca,
            "credentials": (AcmeOrderCredential(name),),
            "policy": PolicyConfig.model_validate(as_read(self.policy)),
            "renewal": None,
            "per_requester": None,
            "per_profile": None,
            "manual_approval": False,
            "retransmission_window": timedelta(hours=1),
            "acme": terms,
            **self.profile_options,
            **options,
        }
        return Profile(**settings)

    async def external(self, kid: str = "kid-1", **policy: Any) -> ExternalBinding:
        """Make an external account; returns what binds to it, its MAC made by `bind`."""
        row = ExternalAccount(
            kid=kid,
            profile=PROFILE,
            key=b"k" * 32,
            policy=ExternalAccountPolicy(**policy),
            owner="mary",
            created_at=self.clock(),
            created_by="test",
            expires_at=None,
        )
        await self.store.add_external_account(row, AuditEvent("eab.created", self.clock(), "test", "done"))
        return bind(kid)


def bind(kid: str, key: bytes = b"k" * 32) -> ExternalBinding:
    return ExternalBinding(kid, "HS256", b"signed", hmac.digest(key, b"signed", "sha256"), json.dumps({"kid": kid}))


def key_named(name: str, **changes: Any) -> AccountRequest:
    """newAccount of the key `name`."""
    asked = AccountRequest(
        jwk=json.dumps({"name": name}),
        thumbprint=f"thumbprint-of-{name}",
        contact=(),
        terms_agreed=True,
        only_existing=False,
        binding=None,
    )
    return replace(asked, **changes)


async def account(world: AcmeWorld, acme: AcmeAuthority, name: str = "alice", **changes: Any) -> Account:
    return (await acme.new_account(world.snapshot, PROFILE, key_named(name, **changes), SOURCE))[0]


def csr(*names: str, key: str = "web", subject: str = "", identifiers: Sequence[Identifier] = ()) -> bytes:
    """A CSR of the key `key` for DNS names and `identifiers`."""
    sans = [make_san(SanKind.DNS, name) for name in names] + [to_san(one) for one in identifiers]
    return build_csr(device_key(key), parse_name_text(subject).der, sans=tuple(sans))


async def prove(world: AcmeWorld, acme: AcmeAuthority, who: Account, order: Order) -> Order:
    """Prove every name of an order by its first challenge."""
    for id in order.authorizations:
        row = await acme.find_authorization(world.snapshot, PROFILE, who, id)
        await answer(world, acme, who, row)
    return await acme.find_order(world.snapshot, PROFILE, who, order.id)


async def answer(world: AcmeWorld, acme: AcmeAuthority, who: Account, row: Authorization) -> Authorization:
    return await acme.answer_challenge(world.snapshot, PROFILE, who, row.id, row.challenges[0].id, {}, SOURCE)


async def ready(world: AcmeWorld, acme: AcmeAuthority, who: Account, *names: str, **members: Any) -> Order:
    """An order whose names are all proved."""
    order = await acme.new_order(world.snapshot, PROFILE, who, OrderRequest(dns(*names), **members), SOURCE)
    return await prove(world, acme, who, order)


async def finalize(world: AcmeWorld, acme: AcmeAuthority, who: Account, order: Order, der: bytes) -> Order:
    return await acme.finalize(world.snapshot, PROFILE, who, order.id, der, SOURCE)
