"""A fleet in which everything that could be taken for proof of identity has its key in the test's hands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from gateway.asn1.scep import PkiStatus
from gateway.pki import cms, der
from gateway.pki.certificate import Certificate, der_to_pem, parse_certificate, pem_to_ders, split_signed
from gateway.pki.keys import PrivateKey, generate_private_key, load_private_key, serialize_private_key
from gateway.pki.names import format_name
from gateway.wire.scep import client as scep
from tests.flow.scep.fleet import challenge_file, static, write_fleet, write_secret
from tests.flow.scep.other_ca import OtherCA, client_context
from tests.flow.scep.service import Client, Device, Service, leaf_of, start_service

BOTH = ["RenewalReq", "PKCSReq"]
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _own(name: str) -> dict[str, Any]:
    """Enrolls with a static challenge and renews its own certificates by both messages, long after they have ended too."""
    return {"credentials": [static(name)], "renewal": {"from": [name], "messages": BOTH, "grace": "365d"}}


PROFILES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "plain": {"credentials": [static("plain")]},
        "own": _own("own"),
        "says-17": _own("says-17") | {"renewal": {"from": ["says-17"], "messages": ["RenewalReq"]}},
        "heir": {"renewal": {"from": ["own"], "messages": BOTH}},
        "manual": _own("manual") | {"approval": "manual"},
        "migrating": {
            "credentials": [static("migrating")],
            "renewal": {
                "from": ["migrating"],
                "messages": BOTH,
                "grace": "365d",
                "anchors": {"certificates": "ca/everybody.pem", "crls": "ca/everybody.crl"},
            },
        },
        "password": _own("password") | {"endpoints": {"pwri": True}},
        "rolled": _own("rolled")
        | {
            "endpoints": {
                "ra_encryption": {"certificate": "ca/ra-encryption.pem", "key": {"file": "secrets/ra-encryption.key"}},
                "previous_ra": [{"certificate": "ca/ra-previous.pem", "key": {"file": "secrets/ra-previous.key"}}],
            }
        },
        "mtls": _own("mtls") | {"endpoints": {"client_certificate": "require", "client_anchors": "ca/clients.pem"}},
    }
)
"""Profiles that differ in how they renew; `migrating` takes every CA that there is for one of an earlier fleet."""

RENEWS: Mapping[str, tuple[str, frozenset[int]]] = MappingProxyType(
    {
        "own": ("own", frozenset({17, 19})),
        "says-17": ("says-17", frozenset({17})),
        "heir": ("own", frozenset({17, 19})),
        "manual": ("manual", frozenset({17, 19})),
        "migrating": ("migrating", frozenset({17, 19})),
        "password": ("password", frozenset({17, 19})),
        "rolled": ("rolled", frozenset({17, 19})),
        "mtls": ("mtls", frozenset({17, 19})),
    }
)
"""Whose certificates each profile renews, and by which messages."""


@dataclass(frozen=True)
class Holder:
    """A certificate and its key, by what it is."""

    name: str
    certificate: bytes
    key: PrivateKey = field(repr=False)

    @property
    def signer(self) -> cms.Signer:
        return cms.Signer.create(self.certificate, self.key)

    @property
    def parsed(self) -> Certificate:
        return parse_certificate(self.certificate)


@dataclass
class SignerFleet:
    """The service, HTTP clients with and without a TLS certificate, and everybody who may try to sign."""

    service: Service
    plain: aiohttp.ClientSession
    mutual: aiohttp.ClientSession
    devices: dict[str, Holder] = field(default_factory=dict)
    others: list[Holder] = field(default_factory=list)

    def client(self, profile: str, route: str) -> Client:
        """Return a client of a profile by a route: `http`, `https with certificate` or `scep-mtls`."""
        if route == "http":
            return Client(self.plain, f"{self.service.url}/scep/{profile}")
        path = "scep-mtls" if route == "scep-mtls" else "scep"
        return Client(self.mutual, f"https://localhost:{self.service.mtls_port}/{path}/{profile}")


ROUTES = ("http", "https with certificate", "scep-mtls")


@asynccontextmanager
async def running(folder: Path, ca_key: str) -> AsyncIterator[SignerFleet]:
    """Serve the fleet and enroll one device at each profile."""
    clients, migrants = OtherCA.create("clients of TLS"), OtherCA.create("an earlier fleet")
    write_fleet(folder, PROFILES, ca_key=ca_key, server=_mtls_listener())
    _write_ras_and_tls(folder)
    own = [_own_ca(folder, name) for name in ("issuing", "root")]
    everybody = [*own, clients, migrants]
    (folder / "ca" / "clients.pem").write_bytes(clients.pem)
    (folder / "ca" / "everybody.pem").write_bytes(b"".join(ca.pem for ca in everybody))
    (folder / "ca" / "everybody.crl").write_bytes(b"".join(ca.crl() for ca in everybody))
    service = await start_service(folder)
    try:
        tls_client = Holder("client of TLS", b"", generate_private_key("rsa-2048"))
        tls_client = replace(tls_client, certificate=clients.issue(tls_client.key, "CN=client of TLS"))
        connector = aiohttp.TCPConnector(ssl=client_context(folder, tls_client.certificate, tls_client.key))
        async with aiohttp.ClientSession() as plain, aiohttp.ClientSession(connector=connector) as mutual:
            fleet = SignerFleet(service, plain, mutual)
            for profile in PROFILES:
                if "credentials" in PROFILES[profile]:
                    fleet.devices[profile] = await _enroll(fleet, profile)
            fleet.others = list(_everybody_else(folder, fleet, migrants, tls_client))
            yield fleet
    finally:
        await service.close()


def _mtls_listener() -> dict[str, Any]:
    listener = {"listen": "127.0.0.1:3", "certificate": "tls/mtls.pem", "key": {"file": "secrets/mtls.key"}}
    return {"https_mtls": listener}


def _own_ca(folder: Path, name: str) -> OtherCA:
    [certificate] = pem_to_ders((folder / "ca" / f"{name}.pem").read_bytes())
    return OtherCA(certificate, load_private_key((folder / "secrets" / f"{name}.key").read_bytes()))


def _write_ras_and_tls(folder: Path) -> None:
    """Add the second RA certificate and an earlier one, and a TLS certificate whose key could receive a reply."""
    issuing, root = _own_ca(folder, "issuing"), _own_ca(folder, "root")
    for name, usage in (("ra-encryption", ("keyEncipherment",)), ("ra-previous", ("digitalSignature", "keyEncipherment"))):
        key = generate_private_key("rsa-2048")
        certificate = issuing.issue(key, f"CN={name}", usage=usage, ekus=("certificateRequestAgent",))
        (folder / "ca" / f"{name}.pem").write_bytes(der_to_pem(certificate))
        write_secret(folder / "secrets" / f"{name}.key", serialize_private_key(key))
    tls = generate_private_key("rsa-2048")
    certificate = root.issue(tls, "CN=localhost", usage=("digitalSignature",), ekus=("serverAuth", "clientAuth"), san="localhost")
    (folder / "tls" / "mtls.pem").write_bytes(der_to_pem(certificate))
    write_secret(folder / "secrets" / "mtls.key", serialize_private_key(tls))


async def _enroll(fleet: SignerFleet, profile: str) -> Holder:
    """Enroll a device with the static challenge; where an operator must approve, he does."""
    client = fleet.client(profile, "scep-mtls" if profile == "mtls" else "http")
    await client.fetch_ra()
    device = Device(generate_private_key("rsa-2048"), f"CN=device of {profile}")
    challenge = (fleet.service.folder / challenge_file(profile)).read_text()
    request, signer = device.request(client.ra, challenge)
    if profile == "manual":
        await client.post(request.message)
        [row] = await fleet.service.run("GET", "/v1/requests", profile=profile)
        await fleet.service.run("POST", f"/v1/requests/{row['id']}/approve")
        await fleet.service.gateway.recover()
    status, body, _ = await client.post(request.message)
    assert status == 200
    signing = parse_signer(body)
    reply = scep.decode_cert_rep(body, request, signer, signing)
    assert reply.status is PkiStatus.SUCCESS, (profile, reply.fail_info_text)
    return Holder(f"device of {profile}", leaf_of(reply, device.key), device.key)


def parse_signer(body: bytes) -> bytes:
    """Return the certificate that came with a CertRep: which one it is, is not what these tests are about."""
    return cms.parse_signed_data(body).certificates[0]


def _everybody_else(folder: Path, fleet: SignerFleet, migrants: OtherCA, tls_client: Holder) -> list[Holder]:
    """Return the gateway's own certificates, what was made over its keys, and certificates that look like a device's."""
    files = {
        "RA": ("ca/ra.pem", "secrets/ra.key"),
        "second RA": ("ca/ra-encryption.pem", "secrets/ra-encryption.key"),
        "previous RA": ("ca/ra-previous.pem", "secrets/ra-previous.key"),
        "TLS": ("tls/server.pem", "secrets/tls.key"),
        "TLS for mTLS": ("tls/mtls.pem", "secrets/mtls.key"),
        "issuing CA": ("ca/issuing.pem", "secrets/issuing.key"),
        "root CA": ("ca/root.pem", "secrets/root.key"),
    }
    own = [
        Holder(name, pem_to_ders((folder / pem).read_bytes())[0], load_private_key((folder / key).read_bytes()))
        for name, (pem, key) in files.items()
    ]
    renamed = [
        Holder(f"device's certificate over the key of {holder.name}", migrants.issue(holder.key, "CN=migrant"), holder.key)
        for holder in own
    ]
    device = fleet.devices["own"]
    now = datetime.now(UTC)
    copied = scep.self_signed_signer(device.key, device.parsed.subject.der, now - timedelta(days=1), now + timedelta(days=1))
    namesake = OtherCA.create(format_name(own[5].parsed.subject).removeprefix("CN="))
    lookalike = namesake.issue(device.key, "CN=device of own")
    return [
        *own,
        *renamed,
        tls_client,
        Holder("self-signed by a device's key", copied.certificate, device.key),
        Holder("issued by somebody who calls himself the CA", lookalike, device.key),
        *_twins(fleet.devices),
    ]


def _twins(devices: Mapping[str, Holder]) -> list[Holder]:
    """Return certificates whose ECDSA signature was changed so that it still verifies, and whose digest nobody knows."""
    found = []
    for name, device in devices.items():
        body, algorithm, signature = split_signed(device.certificate)
        try:
            r, s = decode_dss_signature(signature)
        except ValueError:
            continue
        twin = der.sequence(body, algorithm, der.bit_string(encode_dss_signature(r, P256_ORDER - s)))
        found.append(Holder(f"twin of the device of {name}", twin, device.key))
    return found
