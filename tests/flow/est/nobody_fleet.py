"""Starts the fleet of `nobody`: CAs, holders of certificates good and bad, devices enrolled, codes drawn and spoilt."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from gateway.model import RevocationReason
from gateway.pki import der
from gateway.pki.certificate import der_to_pem, parse_certificate, split_signed
from gateway.pki.crl import build_crl
from gateway.pki.keys import generate_private_key
from gateway.ra.credentials.digest import digest_ha1
from gateway.ra.credentials.passwords import hash_password
from gateway.wire.est import messages
from gateway.wire.scep import client as scep
from tests.flow.est.fleet import ENROLLING, PROXY, Holder, Settings, Wanted, own_ca, own_holder, serving, write_pair
from tests.flow.est.nobody import ANCHORS, KEYGEN, OFFERED, PAIRS, PASSWORD, PROFILES, NobodyFleet, digest_response, subject_of
from tests.flow.scep.fleet import write_secret
from tests.flow.scep.other_ca import DAY, OtherCA
from tests.flow.scep.service import Client, Device, leaf_of, make_folder
from tests.golden_challenges import anchor

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@asynccontextmanager
async def running(folder: Path, *, by_proxy: bool = False) -> AsyncIterator[NobodyFleet]:
    """Serve all these profiles; the clock stands where some one-time challenges have expired.

    With `by_proxy` without the one that demands links, which no proxy can have; whoever is there enrolled without it.
    """
    make_folder(folder)
    cas = {name: OtherCA.create(name) for name in ("makers", "others", "migrants", "ras")}
    makers = _make_holders(cas)
    _write_cas(folder, cas, makers)
    usages = ("cmcRA", "clientAuth", "serverAuth")
    pair = {name: write_pair(folder, name, ekus=usages, issuer="root", dns="localhost") for name in PAIRS}
    for name in PROFILES:
        write_secret(folder / f"secrets/{name}-users", f"user-of-{name}:{hash_password(PASSWORD.encode())}\n".encode())
        ha1 = digest_ha1(f"user-of-{name}", "pki-gateway", PASSWORD)
        write_secret(folder / f"secrets/{name}-digests", f"user-of-{name}:{ha1}\n".encode())
    (folder / ANCHORS).write_bytes(anchor("ec"))
    server: dict[str, Any] = {"https_mtls": {"listen": "127.0.0.1:3", **pair["mtls"]}}
    profiles = _profiles(pair)
    if by_proxy:
        server["proxies"] = [{"addresses": [PROXY], "client_certificate": "haproxy"}]
        del profiles["linked"]
    async with serving(folder, profiles, server) as est:
        fleet = NobodyFleet(est, cas, makers)
        await _draw_codes(fleet)
        await _enroll_devices(fleet)
        for operation in ENROLLING:
            response = await digest_response(fleet, "digest", operation)
            await fleet.est.enroll(None, "digest", Wanted(), {"Authorization": response}, operation)
            fleet.used_digests[operation] = response
        fleet.holders |= {holder.name: holder for holder in _own_and_lookalikes(fleet)}
        est.by_proxy = by_proxy
        yield fleet


def _profiles(pair: Mapping[str, dict[str, Any]]) -> dict[str, Settings]:
    """Return the profiles, each with all operations that it can have."""
    found: dict[str, Settings] = {}
    for name, settings in PROFILES.items():
        est = {"cmc": pair["cmc-signer"], **OFFERED[name], **settings.get("est", {})}
        if "server_keygen" in est:
            est["server_keygen"] = {**KEYGEN, "signer": pair["keygen-signer"]}
        found[name] = {**settings, "est": est}
    return found


def _make_holders(cas: Mapping[str, OtherCA]) -> dict[str, Holder]:
    """Issue what TLS clients show: right ones under their profile's name, and those with one thing wrong."""

    def issue(name: str, ca: str, subject: str = "CN=device-1", **options: Any) -> Holder:
        key = generate_private_key("ec-p256")
        return Holder(name, cas[ca].issue(key, subject, **options), key)

    ra: dict[str, Any] = {"subject": "CN=ra-1", "ekus": ("clientAuth", "cmcRA")}
    past: dict[str, Any] = {"begins": -20 * DAY, "ends": -DAY}
    future: dict[str, Any] = {"begins": DAY}
    found = [
        issue("maker", "makers"),
        issue("other-maker", "others"),
        issue("ra", "ras", **ra),
        issue("expired maker's", "makers", **past),
        issue("maker's of tomorrow", "makers", **future),
        issue("revoked maker's", "makers"),
        issue("maker's for servers", "makers", ekus=("serverAuth",)),
        issue("maker's that may not sign", "makers", usage=("keyEncipherment",)),
        issue("expired RA", "ras", **ra, **past),
        issue("revoked RA", "ras", **ra),
        issue("RA's name without its usage", "ras", subject="CN=ra-1"),
        issue("another RA", "ras", subject="CN=ra-2", ekus=("clientAuth", "cmcRA")),
        issue("RA of a maker", "makers", **ra),
        issue("migrant", "migrants", "CN=migrant"),
        issue("expired migrant", "migrants", "CN=migrant", **past),
        issue("revoked migrant", "migrants", "CN=migrant"),
    ]
    return {holder.name: holder for holder in found}


def _write_cas(folder: Path, cas: Mapping[str, OtherCA], holders: Mapping[str, Holder]) -> None:
    """Write anchors and CRLs; the gateway's own CAs stand among the anchors, which must let nobody of its own in."""
    own = [own_ca(folder, name) for name in ("issuing", "root")]
    revoked = {"makers": "revoked maker's", "ras": "revoked RA", "migrants": "revoked migrant"}
    now = datetime.now(UTC).replace(microsecond=0)
    for name, ca in cas.items():
        (folder / "ca" / f"{name}.pem").write_bytes(b"".join(one.pem for one in (ca, *own)))
        serials = [parse_certificate(holders[revoked[name]].certificate).serial] if name in revoked else []
        entries = [(serial, now - DAY, RevocationReason.KEY_COMPROMISE) for serial in serials]
        crl = der_to_pem(build_crl(ca.issuer, 1, now - DAY, now + 300 * DAY, entries), "X509 CRL")
        (folder / "ca" / f"{name}.crl").write_bytes(crl + b"".join(one.crl() for one in own))


async def _draw_codes(fleet: NobodyFleet) -> None:
    service = fleet.est.service
    expired = await service.new_challenge("one-time", ttl=60)
    service.clock.ahead = timedelta(minutes=2)
    used = await service.new_challenge("one-time")
    await fleet.est.enroll(None, "one-time", Wanted("CN=thief", password=used))
    revoked = await service.run("POST", "/v1/challenges", profile="one-time")
    await service.run("POST", f"/v1/challenges/{revoked['id']}/revoke")
    bound = await service.new_challenge("one-time", subject="CN=another")
    other = await service.new_challenge("token-and-code")
    fleet.codes = {"expired": expired, "used": used, "revoked": revoked["challenge"], "another device's": bound, "other's": other}


async def _enroll_devices(fleet: NobodyFleet) -> None:
    """Enroll a device wherever one can be, and some more that are no good any longer."""
    for profile in ("static", "basic", "renewing", "migrating", "lenient", "maker"):
        holder = await _enroll(fleet, profile, f"CN=device of {profile}")
        fleet.holders[f"device of {profile}"] = replace(holder, name=f"device of {profile}")
    fleet.holders["device by SCEP"] = await _enroll_by_scep(fleet, "by-scep", "CN=device by SCEP")
    revoked = await _enroll(fleet, "renewing", "CN=revoked device")
    await revoke(fleet, revoked)
    renewed = await _enroll(fleet, "renewing", "CN=renewed device")
    again = Wanted("CN=renewed device")
    await fleet.est.enroll(renewed, "renewing", again, operation=messages.SIMPLEREENROLL)
    fleet.holders["revoked device"] = replace(revoked, name="revoked device")
    fleet.holders["device that another key has renewed"] = replace(renewed, name="device that another key has renewed")


async def _enroll(fleet: NobodyFleet, profile: str, subject: str) -> Holder:
    right = await fleet.right(profile)
    assert right is not None
    key = generate_private_key("ec-p256")
    headers = {"Authorization": right.authorization} if isinstance(right.authorization, str) else {}
    wanted = replace(right.wanted(), subject=subject, key=key)
    return await fleet.est.enroll(right.holder, profile, wanted, headers)


async def _enroll_by_scep(fleet: NobodyFleet, profile: str, subject: str) -> Holder:
    device = Device(generate_private_key("rsa-2048"), subject)
    async with aiohttp.ClientSession() as session:
        client = Client(session, f"{fleet.est.service.url}/scep/{profile}")
        await client.fetch_ra()
        reply = await client.enroll(device, fleet.secret(profile))
    return Holder("device by SCEP", leaf_of(reply, device.key), device.key)


async def revoke(fleet: NobodyFleet, holder: Holder) -> None:
    name = hashlib.sha256(holder.certificate).hexdigest()
    await fleet.est.service.run("POST", f"/v1/certificates/{name}/revoke", reason="keyCompromise")


def _own_and_lookalikes(fleet: NobodyFleet) -> Iterator[Holder]:
    """Yield the gateway's own certificates, others' over its keys, and certificates that look like a device's."""
    folder = fleet.est.folder
    files = {
        "SCEP RA": ("ca/ra.pem", "secrets/ra.key"),
        "TLS": ("tls/server.pem", "secrets/tls.key"),
        "issuing CA": ("ca/issuing.pem", "secrets/issuing.key"),
        "root CA": ("ca/root.pem", "secrets/root.key"),
        **{name: (f"ca/{name}.pem", f"secrets/{name}.key") for name in PAIRS},
    }
    own = [own_holder(folder, name, *pair) for name, pair in files.items()]
    yield from own
    for ca in ("makers", "migrants", "ras"):
        subject = "CN=ra-1" if ca == "ras" else "CN=migrant"
        for holder in own:
            certificate = fleet.cas[ca].issue(holder.key, subject, ekus=("clientAuth", "cmcRA"))
            yield Holder(f"{ca}' certificate over the key of {holder.name}", certificate, holder.key)
    device = fleet.holders["device of renewing"]
    parsed = parse_certificate(device.certificate)
    now = datetime.now(UTC)
    copied = scep.self_signed_signer(device.key, parsed.subject.der, now - DAY, now + DAY)
    yield Holder("self-signed by a device's key", copied.certificate, device.key)
    issuing = next(holder for holder in own if holder.name == "issuing CA")
    namesake = OtherCA.create(subject_of(issuing).removeprefix("CN="))
    yield Holder("issued by a namesake of the CA", namesake.issue(device.key, "CN=device of renewing"), device.key)
    yield Holder("twin of the device of renewing", _twin(device.certificate), device.key)
    yield Holder(
        "twin of the revoked device", _twin(fleet.holders["revoked device"].certificate), fleet.holders["revoked device"].key
    )


def _twin(certificate: bytes) -> bytes:
    """Return a certificate whose ECDSA signature was changed so that it still verifies, and whose digest nobody knows."""
    body, algorithm, signature = split_signed(certificate)
    r, s = decode_dss_signature(signature)
    return der.sequence(body, algorithm, der.bit_string(encode_dss_signature(r, P256_ORDER - s)))
