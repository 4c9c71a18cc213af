"""The ACME endpoint alone, over TLS and without, before state machines that say what they are told."""

import asyncio
import secrets
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, cast

from gateway.acme import (
    Account,
    AccountRequest,
    AccountStatus,
    Authorization,
    AuthorizationStatus,
    Challenge,
    Order,
    OrderPage,
    OrderStatus,
    RenewalInfo,
)
from gateway.audit import AuditEvent
from gateway.errors import Reason, Rejection
from gateway.model import ChallengeType, Identifier, IdentifierType, ProfileName
from gateway.pki.jwk import CLASSICAL_ALGORITHMS
from gateway.ra.acme.authority import AcmeAuthority
from gateway.ra.profile import Snapshot
from gateway.web.acme.endpoint import AcmeEndpoint
from gateway.web.floods import FloodCounter
from gateway.web.generation import AcmeService, Generation
from gateway.web.listener import Admission, ConnectionCaps
from gateway.web.middleware import BodyLimits
from gateway.web.proxies import Proxies
from gateway.web.server import HttpLimits, HttpServer
from gateway.web.tls import server_context
from gateway.wire.acme.objects import DirectoryTerms, encode_directory
from gateway.wire.acme.urls import Urls
from tests.flow.acme.client import Client
from tests.flow.acme.signing import Key
from tests.flow.est.front import FLEET, files
from tests.flow.scep.service import listening

BASE = "https://localhost/acme/corp"
ALIAS = "https://acme.example.com/acme"
PROFILE = ProfileName("corp")
LIMITS = HttpLimits(request_line=4096, header=16384, body=BodyLimits(32768, timedelta(seconds=2)), in_flight=8)
CONNECTIONS = ConnectionCaps(100, 100)
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NAME = Identifier(IdentifierType.DNS, "www.example.com")
CHALLENGE = Challenge("c1", ChallengeType.HTTP_01, "token-1")
AUTHORIZATION = Authorization(
    "z1", "", PROFILE, NAME, False, False, AuthorizationStatus.PENDING, (CHALLENGE,), NOW, datetime(2100, 1, 1, tzinfo=UTC)
)
ORDER = Order(
    id="o1",
    account="",
    directory=PROFILE,
    profile=PROFILE,
    asked_profile=None,
    status=OrderStatus.PENDING,
    identifiers=(NAME,),
    authorizations=("z1",),
    not_before=None,
    not_after=None,
    replaces=None,
    replaces_sha256=None,
    created_at=NOW,
    expires_at=datetime(2100, 1, 1, tzinfo=UTC),
)
SERVICE = AcmeService(
    profile=PROFILE,
    base=BASE,
    aliases=(ALIAS,),
    directories={base: encode_directory(Urls(base), DirectoryTerms()) for base in (BASE, ALIAS)},
    terms_of_service=None,
    cors_origins=("*",),
    algorithms=CLASSICAL_ALGORITHMS,
    padded_csr=False,
    alternate_chains=(),
    retry_after=21600,
    failure_limit=None,
)


@dataclass
class StubAuthority:
    """Answers with `answers` by verb, an exception is raised; `asked` is what it was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    nonces: set[str] = field(default_factory=set)
    asked: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """What a verb waits for."""
    waits: int | None = None

    def new_nonce(self) -> str:
        nonce = secrets.token_urlsafe(16)
        self.nonces.add(nonce)
        return nonce

    async def redeem_nonce(self, nonce: str) -> bool:
        if nonce not in self.nonces:
            return False
        self.nonces.remove(nonce)
        return True

    async def find_account(self, _snapshot: Snapshot, profile: ProfileName, id: str) -> Account:
        account = self.accounts.get(id)
        if account is None or account.profile != profile:
            raise Rejection(Reason.UNKNOWN_ACCOUNT, "there is no such account")
        return account

    async def new_account(
        self, snapshot: Snapshot, profile: ProfileName, request: AccountRequest, source: str
    ) -> tuple[Account, bool]:
        if "new_account" in self.answers:
            return cast("tuple[Account, bool]", self._answer("new_account", request, source))
        for known in self.accounts.values():
            if known.thumbprint == request.thumbprint:
                return known, False
        account = Account(
            id=f"a{len(self.accounts) + 1}",
            profile=profile,
            status=AccountStatus.VALID,
            thumbprint=request.thumbprint,
            jwk=request.jwk,
            contact=request.contact,
            terms=None,
            external_account=None,
            binding=None,
            source=source,
            created_at=NOW,
        )
        self.accounts[account.id] = account
        return account, True

    def retry_after(self, _subject: object) -> int | None:
        return self.waits

    def __getattr__(self, verb: str) -> Any:
        if verb.startswith("_"):
            raise AttributeError(verb)

        async def call(*args: Any, **_kwargs: Any) -> Any:
            if verb in self.gates:
                await self.gates[verb].wait()
            return self._answer(verb, *args[2:])

        return call

    def _answer(self, verb: str, *args: Any) -> Any:
        self.asked.append((verb, args))
        answer = self.answers.get(verb, DEFAULTS.get(verb))
        if isinstance(answer, Exception):
            raise answer
        return answer


DEFAULTS: dict[str, Any] = {
    "new_order": ORDER,
    "find_order": ORDER,
    "finalize": ORDER,
    "list_orders": OrderPage(("o1",), None),
    "new_authorization": AUTHORIZATION,
    "find_authorization": AUTHORIZATION,
    "deactivate_authorization": replace(AUTHORIZATION, status=AuthorizationStatus.DEACTIVATED),
    "answer_challenge": AUTHORIZATION,
    "certificate": (FLEET.issue(Key().private, "CN=www.example.com"), FLEET.certificate),
    "renewal_info": RenewalInfo(NOW, NOW + timedelta(days=1), None, 21600),
}


class Front:
    """One endpoint with its listeners."""

    def __init__(self, *, proxies: Proxies | None = None) -> None:
        self.authority = StubAuthority()
        self.rows: list[AuditEvent] = []
        self.floods = FloodCounter(self._append, lambda: datetime.now(UTC))
        self.generation = Generation(
            number=1,
            snapshot=Snapshot(1, MappingProxyType({}), MappingProxyType({})),
            scep=MappingProxyType({}),
            publications=MappingProxyType({}),
            tls=MappingProxyType({}),
            config=MappingProxyType({}),
            acme=MappingProxyType({PROFILE: SERVICE}),
            proxies=proxies or Proxies(),
        )
        authority = cast("AcmeAuthority", self.authority)
        endpoint = AcmeEndpoint(lambda: self.generation, authority, self.floods, lambda: datetime.now(UTC))
        self._server = HttpServer(endpoint.routes(), LIMITS, 2, endpoint.spell)
        self.http, self.https = listening(), listening()

    async def _append(self, events: Iterable[AuditEvent]) -> None:
        self.rows.extend(events)

    async def start(self) -> None:
        context = server_context(files()["tls/server.pem"], files()["secrets/tls.key"], "1.2")
        await self._server.start()
        self._server.listen(self.http, Admission(CONNECTIONS))
        self._server.listen(self.https, Admission(CONNECTIONS), lambda: context)

    async def close(self) -> None:
        await self._server.stop()
        for sock in (self.http, self.https):
            sock.close()

    def serve(self, **changes: Any) -> None:
        """Serve another service, as after a reload."""
        service = replace(self.generation.acme[PROFILE], **changes)
        self.generation = replace(self.generation, acme=MappingProxyType({PROFILE: service}))

    def client(self, base: str = BASE, *, encrypted: bool = True) -> Client:
        tls = ssl.create_default_context(cadata=files()["ca/root.pem"].decode()) if encrypted else None
        sock = self.https if encrypted else self.http
        return Client(int(sock.getsockname()[1]), tls, base)

    async def registered(self) -> Client:
        """A client that has an account."""
        client = self.client()
        assert (await client.register()).status == 201
        return client

    def end(self, client: Client) -> None:
        """Deactivate a client's account."""
        for id, account in self.authority.accounts.items():
            if account.thumbprint == client.key.thumbprint:
                self.authority.accounts[id] = replace(account, status=AccountStatus.DEACTIVATED)

    def asked(self, verb: str) -> list[tuple[Any, ...]]:
        return [args for name, args in self.authority.asked if name == verb]
