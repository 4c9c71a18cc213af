"""EST profiles of many kinds side by side in one service, and TLS clients of every kind to talk to them."""

from __future__ import annotations

import base64
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gateway.asn1 import cms as asn1_cms
from gateway.asn1.cmc import OID_PKI_DATA
from gateway.asn1.est import OID_EST_IDENTITY_LINKING, OID_OTP_CHALLENGE
from gateway.model import SanKind
from gateway.pki import cms, der
from gateway.pki.certificate import der_to_pem, pem_to_ders
from gateway.pki.csr import CHALLENGE_PASSWORD, EXTENSION_REQUEST
from gateway.pki.extensions import SUBJECT_ALT_NAME, encode_extension, encode_sans, make_san
from gateway.pki.keys import (
    PrivateKey,
    generate_private_key,
    load_private_key,
    public_key_der,
    serialize_private_key,
    sign,
    signature_algorithm,
)
from gateway.pki.names import parse_name_text
from gateway.pki.signed_content import content_info, sign_content
from gateway.wire.est import messages
from gateway.wire.est.client import EstAnswer, EstRequest, post_request
from tests.flow.est.connection import Connection, decoded
from tests.flow.scep.fleet import challenge_file, write_secret
from tests.flow.scep.other_ca import OtherCA
from tests.flow.scep.raw import RawAnswer
from tests.flow.scep.service import Device, Service, make_folder, start_service

Settings = Mapping[str, Any]

LISTENER = {"listen": "127.0.0.1:3", "certificate": "tls/server.pem", "key": {"file": "secrets/tls.key"}}
ENROLLING = (messages.SIMPLEENROLL, messages.SERVERKEYGEN, messages.FULLCMC)
OPERATIONS = (*ENROLLING, messages.SIMPLEREENROLL)
PROXY = "127.0.0.2"
"""Where a proxy connects from, of HAProxy's kind."""
NO_ANSWER = RawAnswer(0, {}, b"")
"""The connection was closed, or never came to be."""


def write_est_fleet(folder: Path, profiles: Mapping[str, Settings], server: Settings | None = None) -> None:
    """Write a configuration with these profiles: each is `demo` without credentials and renewal, and with its own settings.

    Every profile has EST; `scep: True` leaves it SCEP too. `est` of a profile are settings of its EST endpoint.
    """
    path = folder / "profiles.yaml"
    config = yaml.safe_load(path.read_text())
    base = config["profiles"].pop("demo")
    for name, settings in profiles.items():
        profile = deepcopy(base)
        del profile["credentials"], profile["renewal"]
        profile |= {key: value for key, value in settings.items() if key not in {"est", "scep"}}
        scep = {"scep": profile["endpoints"]["scep"]} if settings.get("scep") else {}
        profile["endpoints"] = {**scep, "est": dict(settings.get("est", {}))}
        config["profiles"][name] = profile
        write_secret(folder / challenge_file(name), secrets.token_hex(16).encode())
    config["server"] |= {"https_mtls": LISTENER} | dict(server or {})
    path.write_text(yaml.safe_dump(config, sort_keys=False))


@dataclass(frozen=True)
class Holder:
    """A certificate and its key, by what it is; `beside` is what its holder sends beside it."""

    name: str
    certificate: bytes
    key: PrivateKey = field(repr=False)
    beside: tuple[bytes, ...] = ()


def own_ca(folder: Path, name: str = "issuing") -> OtherCA:
    """Return a CA of the gateway with its key."""
    [certificate] = pem_to_ders((folder / "ca" / f"{name}.pem").read_bytes())
    return OtherCA(certificate, load_private_key((folder / "secrets" / f"{name}.key").read_bytes()))


def write_pair(
    folder: Path, name: str, *, ekus: tuple[str, ...] = ("cmcRA",), issuer: str = "issuing", dns: str = ""
) -> dict[str, Any]:
    """Write a certificate of one of the gateway's CAs, with its key; return the pair as the configuration names it."""
    key = generate_private_key("ec-p256")
    certificate = own_ca(folder, issuer).issue(key, f"CN={name}", usage=("digitalSignature",), ekus=ekus, san=dns)
    (folder / "ca" / f"{name}.pem").write_bytes(der_to_pem(certificate))
    write_secret(folder / "secrets" / f"{name}.key", serialize_private_key(key))
    return {"certificate": f"ca/{name}.pem", "key": {"file": f"secrets/{name}.key"}}


def own_holder(folder: Path, name: str, certificate: str, key: str) -> Holder:
    """Return a pair of the gateway's own, from its files."""
    leaf = pem_to_ders((folder / certificate).read_bytes())[0]
    return Holder(name, leaf, load_private_key((folder / key).read_bytes()))


def attribute(oid: str, text: str) -> bytes:
    """Return a CSR attribute that is a text, of the longest kind that fits."""
    return der.sequence(der.oid(oid), der.set_of(der.directory_string(text)))


@dataclass(frozen=True)
class Wanted:
    """A request for a certificate, as its CSR says it."""

    subject: str = "CN=device-1"
    key: PrivateKey = field(default_factory=lambda: generate_private_key("ec-p256"), repr=False)
    dns: str = ""
    password: str | None = None
    """challengePassword."""
    otp: str | None = None
    """otpChallenge (RFC 7894 §3.1)."""
    link: str | None = None
    """estIdentityLinking (RFC 7894 §3.3)."""
    attributes: tuple[bytes, ...] = ()

    @property
    def csr(self) -> bytes:
        texts = ((CHALLENGE_PASSWORD, self.password), (OID_OTP_CHALLENGE, self.otp), (OID_EST_IDENTITY_LINKING, self.link))
        found = [attribute(oid, text) for oid, text in texts if text is not None]
        if self.dns:
            san = encode_extension(SUBJECT_ALT_NAME, False, encode_sans((make_san(SanKind.DNS, self.dns),)))
            found.append(der.sequence(der.oid(EXTENSION_REQUEST), der.set_of(der.sequence(san))))
        asked = der.context(0, *sorted((*found, *self.attributes)))
        info = der.sequence(der.integer(0), parse_name_text(self.subject).der, public_key_der(self.key), asked)
        return der.sequence(info, signature_algorithm(self.key), der.bit_string(sign(self.key, info)))

    @property
    def pki_data(self) -> bytes:
        """The CSR in a PKIData that its own key signs (RFC 5272 §3.2.1)."""
        tagged = der.context(0, der.integer(1), self.csr)
        data = der.sequence(der.sequence(), der.sequence(tagged), der.sequence(), der.sequence())
        signer = Device(self.key, self.subject).own_signer()
        return content_info(asn1_cms.OID_SIGNED_DATA, sign_content(OID_PKI_DATA, data, signer))

    def body(self, operation: str) -> bytes:
        return self.pki_data if operation == messages.FULLCMC else self.csr


def granted(operation: str, answer: RawAnswer) -> EstAnswer | None:
    """Return what an answer gives away: a certificate, a key, or the promise of one. None for a refusal of 4xx."""
    if answer.status == 0:
        return None
    taken = decoded(operation, answer)
    assert answer.status < 500, (operation, answer)
    return taken if answer.status < 400 or taken.key is not None or _has_issued(taken) else None


def _has_issued(answer: EstAnswer) -> bool:
    """Whether there is more than one certificate: a Full PKI Response has its signer's always."""
    return len(answer.certificates) > (answer.cmc_response is not None)


@dataclass
class EstFleet:
    """The service, and one kept-alive connection to its mTLS listener for each TLS client."""

    service: Service
    folder: Path
    connections: dict[str, Connection] = field(default_factory=dict)
    refused_by_tls: set[str] = field(default_factory=set)
    """Names of holders whom the listener lets nowhere near HTTP, whatever the profile."""
    by_proxy: bool = False
    """Requests come through a listed proxy, which verifies no client certificate and hands over every one."""

    def context(self, holder: Holder | None = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
        """Return what a TLS client needs; TLS 1.2, so that a handshake that fails does so at once."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca" / "root.pem"))
        context.maximum_version = version
        if holder is not None:
            pair = self.folder.parent / "client.pem"
            pair.touch(0o600)
            chain = b"".join(der_to_pem(certificate) for certificate in (holder.certificate, *holder.beside))
            pair.write_bytes(serialize_private_key(holder.key) + chain)
            context.load_cert_chain(pair)
        return context

    async def connect(self, holder: Holder | None = None, **options: Any) -> Connection:
        """Open a connection of its own to the mTLS listener."""
        return await Connection.open(self.service.mtls_port, self.context(holder, **options))

    async def send(
        self,
        holder: Holder | None,
        profile: str,
        operation: str,
        wanted: Wanted,
        headers: Mapping[str, str] | None = None,
    ) -> RawAnswer:
        """Ask for a certificate over the holder's connection; status 0 where TLS lets nobody in."""
        if self.by_proxy:
            return await self._send_by_proxy(holder, post_request(operation, wanted.body(operation), profile), headers or {})
        name = holder.name if holder else ""
        if name in self.refused_by_tls:
            return NO_ANSWER
        request = post_request(operation, wanted.body(operation), profile)
        for _ in range(2):
            try:
                connection = self.connections.get(name) or await self.connect(holder)
            except (ssl.SSLError, ConnectionError):
                self.refused_by_tls.add(name)
                break
            self.connections[name] = connection
            answer = await connection.ask(request, headers)
            if answer.status:
                return answer
            self.connections.pop(name).close()
        return NO_ANSWER

    async def _send_by_proxy(self, holder: Holder | None, request: EstRequest, headers: Mapping[str, str]) -> RawAnswer:
        connection = self.connections.get(PROXY)
        if connection is None:
            connection = await Connection.open(self.service.tls_port, self.context(), source=PROXY)
            self.connections[PROXY] = connection
        shown = {"X-SSL-Client-Cert": base64.b64encode(holder.certificate).decode()} if holder else {}
        answer = await connection.ask(request, {**headers, "X-Forwarded-Proto": "https", **shown})
        if answer.headers.get("connection") == "close":
            self.connections.pop(PROXY).close()
        return answer

    async def enroll(
        self,
        holder: Holder | None,
        profile: str,
        wanted: Wanted,
        headers: Mapping[str, str] | None = None,
        operation: str = messages.SIMPLEENROLL,
    ) -> Holder:
        """Enroll, which must succeed."""
        answer = decoded(operation, await self.send(holder, profile, operation, wanted, headers))
        assert answer.status == 200, (profile, answer)
        return Holder(f"{wanted.subject} of {profile}", answer.certificates[0], wanted.key)

    async def certificates(self) -> int:
        return len(await self.service.run("GET", "/v1/certificates", limit=10000))

    async def close(self) -> None:
        for connection in self.connections.values():
            connection.close()
        await self.service.close()


@asynccontextmanager
async def serving(folder: Path, profiles: Mapping[str, Settings], server: Settings | None = None) -> AsyncIterator[EstFleet]:
    """Serve these profiles from a folder that `make_folder` has begun."""
    if not folder.exists():
        make_folder(folder)
    write_est_fleet(folder, profiles, server)
    fleet = EstFleet(await start_service(folder), folder)
    try:
        yield fleet
    finally:
        await fleet.close()


def issued_signer(holder: Holder) -> cms.Signer:
    """Return what signs CMS messages with a holder's key."""
    return cms.Signer.create(holder.certificate, holder.key)
