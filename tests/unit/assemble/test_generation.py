"""One generation from a configuration with every key: each reaches the part of the service that it is meant for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from pydantic import BaseModel

from gateway.assemble import Gateway, open_gateway
from gateway.assemble.generation import Parts, build
from gateway.assemble.judgement import judge
from gateway.config import credentials
from gateway.config.cmp import CmpConfirmation, CmpEndpoint, CmpKeyGeneration, CmpMac
from gateway.config.credentials import Ocsp
from gateway.config.est import EstEndpoint, ServerKeygen
from gateway.config.fields import RaPair
from gateway.config.schema import GatewayConfig, LegacyAlgorithms, Proxy, RenewalAnchors, ScepEndpoint, Server
from gateway.config.shape import models, walk
from gateway.config.view import redact
from gateway.errors import ConfigurationError, Reason, Rejection
from gateway.model import CredentialKind, Name, ProfileName
from gateway.pki import cms
from gateway.pki.certificate import Certificate, parse_certificate, pem_to_ders
from gateway.pki.names import normalize_name
from gateway.ra.credentials import intune_jws
from gateway.ra.credentials.passwords import ScryptPool
from gateway.validation.ocsp import OcspClient
from gateway.web.generation import FailureLimit
from gateway.wire.scep.identity import Algorithms
from tests.unit.assemble.installation import NOW, Installation

DEMO, SENSORS, KIOSKS, LAPTOPS = map(ProfileName, ("demo", "sensors", "kiosks", "laptops"))
RAS = ("ca/ra", "ca/cmp", "previous", "signing", "encrypting", "cmp", "drawing")
OURS = (*RAS, "mtls", "tls/server", "next", "newest", "ca/issuing", "ca/root")
OTHERS = ("former", "maker", "mdm", "towers")


@pytest.fixture
def whole(installation: Installation) -> Installation:
    installation.use_every_key()
    return installation


@pytest.fixture
async def gateway(whole: Installation) -> AsyncIterator[Gateway]:
    opened = await open_gateway(*whole.read(), worker="w1", generation=1, clock=lambda: NOW)
    yield opened
    await opened.close()


def certificate(installation: Installation, name: str) -> Certificate:
    return parse_certificate(pem_to_ders((installation.folder / f"{name}.pem").read_bytes())[0])


@pytest.mark.parametrize(
    "model",
    [
        *(Server, Proxy, ScepEndpoint, EstEndpoint, ServerKeygen, RaPair, LegacyAlgorithms, RenewalAnchors, Ocsp),
        *(credentials.IntuneJwsCredential, credentials.TlsCertificateCredential, credentials.RaCertificateCredential),
        *(CmpEndpoint, CmpMac, CmpConfirmation, CmpKeyGeneration),
        *(credentials.CmpSecretCredential, credentials.VendorCertificateCredential),
        *(credentials.BasicCredential, credentials.DigestCredential, credentials.BearerCredential, credentials.AllOfCredential),
    ],
    ids=lambda model: model.__name__,
)
def test_the_configuration_has_every_key(whole: Installation, model: type[BaseModel]) -> None:
    shown = {key for node in walk(GatewayConfig, whole.data) if model in models(node.annotation) for key in node.data or ()}
    assert shown >= model.model_fields.keys() - {"limits"}


def test_it_may_start(whole: Installation) -> None:
    found = judge(*whole.read(), NOW)
    assert found.problems == ()
    assert found.expiring == ()
    assert {warning.field.rpartition(".")[2] for warning in found.warnings} == {
        "md5",
        "des",
        "allow_md5_signature",
        "credentials[2]",
    }


def test_the_ra_of_an_endpoint(gateway: Gateway, whole: Installation) -> None:
    demo, sensors = gateway.generation.scep[DEMO].identity, gateway.generation.scep[SENSORS].identity
    assert demo.algorithms == Algorithms(sha1=True, md5=True, triple_des=True, single_des=True)
    assert [pair.certificate for pair in demo.pairs] == [certificate(whole, "ca/ra"), certificate(whole, "previous")]
    assert demo.certificates == (certificate(whole, "ca/ra").der,)
    assert (demo.signing_time_skew, demo.password) == (timedelta(hours=1), None)
    assert (sensors.algorithms, sensors.signing_time_skew) == (Algorithms(), None)
    assert sensors.password == b"sensors-0123456789abcdef"


def test_a_split_ra(gateway: Gateway, whole: Installation) -> None:
    kiosks = gateway.generation.scep[KIOSKS].identity
    assert kiosks.certificate == certificate(whole, "signing")
    assert [pair.certificate for pair in kiosks.pairs] == [certificate(whole, "encrypting")]
    assert kiosks.certificates == (certificate(whole, "signing").der, certificate(whole, "encrypting").der)


def test_what_the_endpoint_answers(gateway: Gateway, whole: Installation) -> None:
    demo, kiosks = gateway.generation.scep[DEMO], gateway.generation.scep[KIOSKS]
    assert {b"GetNextCACert", b"SHA-1", b"DES3", b"Renewal"} <= set(demo.capabilities.split())
    assert not {b"GetNextCACert", b"SHA-1", b"DES3", b"Renewal"} & set(kiosks.capabilities.split())
    assert demo.next_ca is not None
    signed = cms.parse_signed_data(demo.next_ca)
    assert signed.content is not None
    assert cms.parse_signed_data(signed.content).certificates == (certificate(whole, "next").der,)
    assert kiosks.next_ca is None
    assert cms.parse_signed_data(demo.ca_chain).certificates == demo.identity.chain
    assert (demo.requires_client_certificate, kiosks.requires_client_certificate) == (False, True)
    assert (demo.failure_limit, kiosks.failure_limit) == (FailureLimit(1000, timedelta(hours=1)), None)


async def test_whom_a_profile_trusts(gateway: Gateway, whole: Installation) -> None:
    profiles = gateway.generation.snapshot.profiles
    assert {name for name, profile in profiles.items() if profile.client_trust is not None} == {KIOSKS}
    trust, renewal = profiles[KIOSKS].client_trust, profiles[DEMO].renewal
    assert trust is not None
    with pytest.raises(Rejection) as refused:
        await trust.check(None, NOW)
    assert refused.value.reason is Reason.CREDENTIAL_MISSING
    assert renewal is not None
    assert renewal.anchors is not None
    assert renewal.anchors.certificates == (certificate(whole, "former"),)
    assert renewal.anchors.without_crl(NOW) == ()
    assert profiles[KIOSKS].renewal is None


def test_providers_are_asked_in_the_order_of_their_cost(gateway: Gateway) -> None:
    profiles = gateway.generation.snapshot.profiles
    kinds = {name: [provider.kind for provider in profile.credentials] for name, profile in profiles.items()}
    assert kinds[LAPTOPS] == [CredentialKind.INTUNE_JWS, CredentialKind.ONE_TIME]
    assert kinds[DEMO] == [
        CredentialKind.STATIC,
        CredentialKind.CMP_SECRET,
        CredentialKind.ONE_TIME,
        CredentialKind.BASIC,
        CredentialKind.CERTIFICATE,
        CredentialKind.ACME_ORDER,
    ]


def test_own_keys_and_names(gateway: Gateway, whole: Installation) -> None:
    profile = gateway.generation.snapshot.profiles[LAPTOPS]
    keys = {name: certificate(whole, name).public_key.sha256 for name in (*OURS, *OTHERS)}
    assert {name for name, digest in keys.items() if digest in profile.own_keys} == set(OURS)
    names: dict[str, Name] = {name: certificate(whole, name).subject for name in (*OURS, *OTHERS)}
    reserved = {name for name, subject in names.items() if normalize_name(subject) in profile.reserved_names}
    assert reserved == set(OURS) - {"mtls", "tls/server"}


async def test_every_ra_key_is_proved(gateway: Gateway) -> None:
    for probe in gateway.probes():
        await probe.check()


def test_nothing_secret_is_shown(whole: Installation) -> None:
    config, sources = whole.read()
    shown = json.dumps(redact(config))
    assert sources.secrets
    for secret in sources.secrets.values():
        assert secret.decode() not in shown
        assert secret.decode().splitlines()[-1] not in shown
    scep = redact(config)["profiles"]["demo"]["endpoints"]["scep"]
    assert scep["previous_ra"] == [{"certificate": "previous.pem", "key": {"file": "previous.key"}}]
    assert "0123456789abcdef" not in repr(config)


async def test_a_profile_of_signed_challenges_alone_takes_no_other(whole: Installation) -> None:
    (credential, _) = whole.data["profiles"]["laptops"]["credentials"]
    for others, exclusive in ((True, False), (False, True)):
        whole.data["profiles"]["laptops"]["credentials"] = [{**credential, "with_other_challenges": others}]
        gateway = await open_gateway(*whole.read(), worker=f"w{others}", generation=1, clock=lambda: NOW)
        (provider,) = gateway.generation.snapshot.profiles[LAPTOPS].credentials
        assert isinstance(provider, intune_jws.IntuneJwsCredential)
        assert provider._exclusive is exclusive
        await gateway.close()


def test_what_cannot_be_built_is_refused(whole: Installation) -> None:
    whole.write("mdm.pem", b"junk")
    parts = Parts(None, None, lambda: NOW, "w1", ScryptPool(1), OcspClient())  # type: ignore[arg-type]  # nothing is stored
    with pytest.raises(ConfigurationError, match=r"profiles\.laptops\.credentials\[0\]\.anchors"):
        build(*whole.read(), 1, parts)
