"""The EST endpoint alone, on HTTP and both TLS listeners, before a registration authority that says what it is told."""

import asyncio
import base64
import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import cast

from gateway.audit import AuditEvent
from gateway.cli.init import make_files
from gateway.model import EnrollmentRequest, Issued, Outcome, ProfileName, RequestId
from gateway.pki.certificate import der_to_pem
from gateway.pki.csr import build_csr
from gateway.pki.keys import generate_private_key, serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.profile import Snapshot
from gateway.ra.requests import RenewalWindowOutcome, RenewalWindowRequest
from gateway.web.est import EstEndpoint
from gateway.web.floods import FloodCounter
from gateway.web.generation import EstService, Generation, Prepared
from gateway.web.listener import Admission, ConnectionCaps
from gateway.web.middleware import BodyLimits
from gateway.web.proxies import Proxies
from gateway.web.server import HttpLimits, HttpServer
from gateway.web.tls import mtls_context, server_context
from gateway.wire.est import messages
from tests.flow.scep.other_ca import OtherCA
from tests.flow.scep.raw import RawAnswer, parse_answer
from tests.flow.scep.service import listening

KEY = generate_private_key("ec-p256")
FLEET = OtherCA.create("Fleet")
DEVICE = FLEET.issue(KEY, "CN=device-1")
CSR = build_csr(KEY, parse_name_text("CN=device-1").der)
SIMPLEENROLL = "/.well-known/est/simpleenroll"
PKCS10 = f"Content-Type: {messages.MEDIA_PKCS10}\r\n"
LIMITS = HttpLimits(request_line=4096, header=16384, body=BodyLimits(65536, timedelta(seconds=5)), in_flight=8)
CONNECTIONS = ConnectionCaps(100, 100)


@cache
def files() -> dict[str, bytes]:
    return {file.path: file.data for file in make_files("rsa-2048", "ec-p256", 1, 2, datetime.now(UTC))}


def prepare(*ders: bytes) -> Prepared:
    return Prepared(messages.encode_certs_only(ders, True), messages.encode_certs_only(ders, False))


SERVICE = EstService(
    profile=ProfileName("corp"),
    ca_certificates=prepare(FLEET.certificate),
    csr_attributes=Prepared(b"MAA=\n", b"MAA="),
    base64_wrap="auto",
    challenges=lambda _now: (),
    failure_limit=None,
)


@dataclass
class StubAuthority:
    """Answers with what it is told to, one a request, and with a certificate when it was told nothing."""

    outcomes: list[Outcome] = field(default_factory=list)
    asked: list[EnrollmentRequest] = field(default_factory=list)
    window: RenewalWindowOutcome | None = None
    sought: list[RenewalWindowRequest] = field(default_factory=list)

    async def enroll(self, _snapshot: Snapshot, request: EnrollmentRequest) -> Outcome:
        self.asked.append(request)
        return self.outcomes.pop(0) if self.outcomes else Issued(DEVICE, (FLEET.certificate,), RequestId("r"))

    async def look_up_renewal(self, _snapshot: Snapshot, request: RenewalWindowRequest) -> RenewalWindowOutcome:
        self.sought.append(request)
        assert self.window is not None
        return self.window


class Front:
    """One endpoint with its listeners."""

    def __init__(self, folder: Path, *, service: EstService = SERVICE, proxies: Proxies | None = None) -> None:
        self.authority = StubAuthority()
        self.rows: list[AuditEvent] = []
        self.floods = FloodCounter(self._append, lambda: datetime.now(UTC))
        self._executor = ThreadPoolExecutor(1)
        self.folder = folder
        self.generation = Generation(
            number=1,
            snapshot=Snapshot(1, MappingProxyType({}), MappingProxyType({})),
            scep=MappingProxyType({}),
            publications=MappingProxyType({}),
            tls=MappingProxyType({}),
            config=MappingProxyType({}),
            est=MappingProxyType({"": service, "corp": service, "a:1": service}),
            proxies=proxies or Proxies(),
        )
        authority = cast("RegistrationAuthority", self.authority)
        self._endpoint = EstEndpoint(lambda: self.generation, authority, self.floods, self._executor, lambda: datetime.now(UTC))
        self._server = HttpServer(self._endpoint.routes(), LIMITS, drain_seconds=2)
        self.http, self.https, self.mtls = listening(), listening(), listening()

    async def _append(self, events: Iterable[AuditEvent]) -> None:
        self.rows.extend(events)

    async def start(self) -> None:
        pair = files()["tls/server.pem"], files()["secrets/tls.key"]
        plain, asking = server_context(*pair, "1.2"), mtls_context(*pair, "1.2", (FLEET.pem,))
        await self._server.start()
        self._server.listen(self.http, Admission(CONNECTIONS))
        self._server.listen(self.https, Admission(CONNECTIONS), lambda: plain)
        self._server.listen(self.mtls, Admission(CONNECTIONS), lambda: asking)

    async def close(self) -> None:
        await self._server.stop()
        self._executor.shutdown()
        for sock in (self.http, self.https, self.mtls):
            sock.close()

    def serve(self, **changes: object) -> None:
        """Serve another service, as after a reload."""
        service = replace(self.generation.est[""], **changes)  # type: ignore[arg-type]
        self.generation = replace(self.generation, est=MappingProxyType(dict.fromkeys(self.generation.est, service)))

    def client_context(self, version: ssl.TLSVersion | None = None, certificate: bytes | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=files()["ca/root.pem"].decode())
        if version is not None:
            context.maximum_version = version
        if certificate is not None:
            path = self.folder / "client.pem"
            path.write_bytes(serialize_private_key(KEY) + der_to_pem(certificate))
            context.load_cert_chain(path)
        return context

    async def ask(self, request: bytes, context: ssl.SSLContext | None = None, *, mtls: bool = False) -> RawAnswer:
        """Send one request over TLS and read until the server closes."""
        sock = self.mtls if mtls else self.https
        return await converse(sock.getsockname()[1], request, context or self.client_context())

    async def ask_http(self, request: bytes) -> RawAnswer:
        return await converse(self.http.getsockname()[1], request, None)


async def converse(port: int, request: bytes, context: ssl.SSLContext | None) -> RawAnswer:
    return parse_answer(await exchange_bytes(port, request, context))


async def exchange_bytes(port: int, request: bytes, context: ssl.SSLContext | None) -> bytes:
    """Send `request`, which must ask for the connection to be closed, and return all that comes until it is."""
    name = "localhost" if context else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    writer.write(request)
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


@dataclass(frozen=True)
class TwoConnections:
    """What a client saw of two connections, the second with the session of the first."""

    bindings: tuple[str, str]
    reused: bool


def converse_twice(front: Front, request: bytes, version: ssl.TLSVersion) -> TwoConnections:
    """Send the same request over two connections with a client certificate, the second of which asks to resume the first."""
    context = front.client_context(version, DEVICE)
    bindings: list[str] = []
    session: ssl.SSLSession | None = None
    reused = False
    for _ in range(2):
        raw = socket.create_connection(front.mtls.getsockname(), 10)
        with context.wrap_socket(raw, server_hostname="localhost", session=session) as tls:
            bindings.append(base64.b64encode(tls.get_channel_binding("tls-unique") or b"").decode())
            tls.sendall(request)
            while tls.recv(65536):
                pass
            session, reused = tls.session, bool(tls.session_reused)
    return TwoConnections((bindings[0], bindings[1]), reused)
