"""One worker in this process: the real store, CA, registration authority and servers on loopback ports of their own."""

import re
import socket
import threading
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from gateway.assemble import Gateway, open_gateway
from gateway.cli.init import make_files, write_directory
from gateway.config.load import read
from gateway.model import SanKind
from gateway.pki import cms
from gateway.pki.certificate import parse_certificate
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text
from gateway.supervise.endpoints import Endpoints
from gateway.tracing import Tracer
from gateway.wire.scep import client as scep
from gateway.wire.scep import pkimessage
from gateway.wire.scep.client import CertRep, ScepRequest
from gateway.wire.scep.pkimessage import MessageType
from tests.contract.store.rows import audit_rows

DAY = timedelta(days=1)
KEY = generate_private_key("rsa-2048")
OTHER_KEY = generate_private_key("rsa-2048")


_EST = re.compile(r"^      (?:est:|- type: basic)[^\n]*\n(?:        [^\n]*\n)*", re.MULTILINE)
"""The EST endpoint of `demo`, of which there is one without a label only, and the credential that comes by it alone."""


@dataclass
class MovableClock:
    """The real time, moved by `ahead`."""

    ahead: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Service:
    """What a test talks to."""

    folder: Path
    gateway: Gateway
    endpoints: Endpoints
    clock: MovableClock
    http: socket.socket
    https: socket.socket
    admin: Path
    sockets: list[socket.socket] = field(default_factory=list)
    https_mtls: socket.socket | None = None

    @property
    def port(self) -> int:
        return int(self.http.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_port(self) -> int:
        return int(self.https.getsockname()[1])

    @property
    def mtls_port(self) -> int:
        assert self.https_mtls is not None
        return int(self.https_mtls.getsockname()[1])

    @property
    def static_challenge(self) -> str:
        return (self.folder / "secrets" / "demo-scep-challenge").read_text().strip()

    async def run(self, method: str, path: str, **arguments: object) -> Any:
        """Run an operator's operation and return its body."""
        from gateway.web.admin import AdminRequest

        answer = await self.gateway.operations.run(AdminRequest(method, path, arguments, "uid:0 (root)"))
        assert answer.status == 200, answer.body
        return answer.body

    async def new_challenge(self, profile: str = "demo", **arguments: object) -> str:
        made = await self.run("POST", "/v1/challenges", profile=profile, **arguments)
        assert isinstance(made, dict)
        return str(made["challenge"])

    async def audit(self) -> list[str]:
        return [row.body for row in audit_rows(self.gateway.store)]

    async def close(self) -> None:
        if not self.sockets:
            return
        await self.endpoints.close()
        await self.gateway.authority.drain(5)
        await self.gateway.close()
        while self.sockets:
            self.sockets.pop().close()


def listening(family: int = socket.AF_INET, address: object = ("127.0.0.1", 0)) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind(address)  # type: ignore[arg-type]
    sock.listen(128)
    return sock


def without_est(text: str) -> str:
    """Return the configuration that `init` writes without EST, so that `demo` can be copied."""
    return _EST.sub("", text)


def make_folder(folder: Path, ra_key: str = "rsa-2048", ca_key: str = "ec-p256", now: datetime | None = None) -> Path:
    """Write what `init` writes, but for EST, for a test that adds files of its own before it starts the service."""
    write_directory(folder, make_files(ra_key, ca_key, 1, 2, now or datetime.now(UTC)))
    path = folder / "profiles.yaml"
    path.write_text(without_est(path.read_text()))
    return folder


def merge(into: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Merge settings into a part of the configuration; lists are replaced."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            merge(into.setdefault(name, {}), value)
        else:
            into[name] = value


def configure(folder: Path, *, server: Mapping[str, Any] | None = None, **profiles: Mapping[str, Any]) -> None:
    """Merge settings into `server` and into profiles by name; a profile that is new begins as a copy of `demo`."""
    path = folder / "profiles.yaml"
    config = yaml.safe_load(path.read_text())
    merge(config["server"], server or {})
    demo = deepcopy(config["profiles"]["demo"])
    for name, settings in profiles.items():
        merge(config["profiles"].setdefault(name, deepcopy(demo)), settings)
    path.write_text(yaml.safe_dump(config, sort_keys=False))


async def start_service(
    folder: Path,
    *,
    edit: dict[str, str] | None = None,
    demo: Mapping[str, Any] | None = None,
    worker: str = "test:1",
    ra_key: str = "rsa-2048",
    drain: float = 5,
    tracer: Tracer | None = None,
) -> Service:
    """Start a service in `folder`; `edit` replaces text in profiles.yaml before it is read, `demo` adds to profile `demo`."""
    config = folder / "profiles.yaml"
    if not config.exists():
        make_folder(folder, ra_key)
    if demo:
        configure(folder, demo=demo)
    for old, new in (edit or {}).items():
        text = config.read_text()
        assert old in text, old
        config.write_text(text.replace(old, new))
    parsed, sources = read(config)
    clock = MovableClock()
    gateway = await open_gateway(parsed, sources, worker=worker, generation=1, clock=clock)
    endpoints = Endpoints(gateway, drain, tracer=tracer)
    path = folder / f"{worker.replace(':', '-')}.sock"
    http, https, admin = listening(), listening(), listening(socket.AF_UNIX, str(path))
    https_mtls = listening() if parsed.server.https_mtls else None
    await endpoints.open(http, https, admin, https_mtls)
    sockets = [sock for sock in (http, https, admin, https_mtls) if sock is not None]
    return Service(folder, gateway, endpoints, clock, http, https, path, sockets, https_mtls)


@dataclass(frozen=True)
class Device:
    """A SCEP client with a key and a signer certificate."""

    key: PrivateKey = KEY
    subject: str = "CN=device-1"
    signer: cms.Signer | None = None
    sans: tuple[tuple[SanKind, str], ...] = ()

    def csr(self, challenge: str | None) -> bytes:
        sans = tuple(make_san(kind, value) for kind, value in self.sans)
        return build_csr(self.key, parse_name_text(self.subject).der, sans, challenge)

    def own_signer(self) -> cms.Signer:
        now = datetime.now(UTC)
        return self.signer or scep.self_signed_signer(self.key, parse_name_text(self.subject).der, now - DAY, now + DAY)

    def renewing(self, certificate: bytes, key: PrivateKey) -> "Device":
        """Return the device that signs with its old certificate and asks for a certificate of `key`."""
        return replace(self, key=key, signer=cms.Signer.create(certificate, self.key))

    def request(
        self,
        ra: bytes,
        challenge: str | None,
        *,
        message_type: MessageType = MessageType.PKCS_REQ,
        transaction: str | None = None,
        cipher: str = "aes-256-cbc",
        digest: str = "sha256",
        oaep: bool = False,
        message_data: bytes | None = None,
        password: bytes | None = None,
        signing_time: datetime | None = None,
    ) -> tuple[ScepRequest, cms.Signer]:
        signer = self.own_signer()
        request = scep.encode_request(
            self.csr(challenge) if message_data is None else message_data,
            signer,
            ra,
            message_type=message_type,
            transaction=transaction or scep.transaction_id(public_key_der(self.key)),
            cipher=cipher,
            digest=digest,
            oaep=oaep,
            password=password,
            signing_time=signing_time,
        )
        return request, signer


@dataclass
class Client:
    """Speaks SCEP over HTTP to one profile."""

    session: aiohttp.ClientSession
    url: str
    ra: bytes = b""
    """What requests are encrypted to."""
    ra_signer: bytes = b""
    """What answers must be signed by."""
    password: bytes | None = None
    """What answers are encrypted under where the device's key cannot decrypt."""

    async def fetch_ra(self) -> bytes:
        async with self.session.get(self.url, params={"operation": "GetCACert"}) as reply:
            found = scep.decode_ca_certificates(await reply.read(), reply.headers["Content-Type"])
        self.ra = scep.choose_ra_certificate(found)
        self.ra_signer = scep.choose_ra_signer(found)
        return self.ra

    async def post(self, message: bytes) -> tuple[int, bytes, str]:
        async with self.session.post(f"{self.url}?operation=PKIOperation", data=message) as reply:
            return reply.status, await reply.read(), reply.headers["Content-Type"]

    async def send(self, request: ScepRequest, signer: cms.Signer) -> CertRep:
        status, body, media_type = await self.post(request.message)
        assert (status, media_type) == (200, "application/x-pki-message"), body
        return self.read(body, request, signer)

    def read(self, body: bytes, request: ScepRequest, signer: cms.Signer, *, accept_md5: bool = False) -> CertRep:
        """Verify and decrypt a CertRep."""
        return scep.decode_cert_rep(
            body, request, signer, self.ra_signer or self.ra, password=self.password, accept_md5=accept_md5
        )

    async def enroll(self, device: Device, challenge: str | None, **options: object) -> CertRep:
        request, signer = device.request(self.ra, challenge, **options)  # type: ignore[arg-type]
        return await self.send(request, signer)


def leaf_of(reply: CertRep, key: PrivateKey = KEY) -> bytes:
    """Return the one certificate for `key`."""
    wanted = public_key_der(key)
    [leaf] = [der for der in reply.certificates if parse_certificate(der).public_key.der == wanted]
    return leaf


def record_threads(monkeypatch: pytest.MonkeyPatch, *names: str) -> dict[str, threading.Thread]:
    """Return, filled as they run, in which thread each of these functions of the codec worked."""
    threads: dict[str, threading.Thread] = {}

    def recording(name: str, done: Callable[..., object]) -> Callable[..., object]:
        def work(*arguments: object) -> object:
            threads[name] = threading.current_thread()
            return done(*arguments)

        return work

    for name in names:
        monkeypatch.setattr(pkimessage, name, recording(name, getattr(pkimessage, name)))
    return threads
