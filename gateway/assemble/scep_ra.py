"""Builds the RA of one SCEP endpoint from its files, with a place for everything that is wrong (RFC 8894 §2.1.2)."""

from __future__ import annotations

from collections.abc import Iterator
from time import thread_time

from gateway.ca.key_source import read_key
from gateway.config.credentials import StaticCredential
from gateway.config.document import ConfigurationFaults, DataPath, Problem
from gateway.config.fields import KeySource
from gateway.config.load import Sources
from gateway.config.policy import RuleMode
from gateway.config.schema import ProfileConfig, ScepEndpoint
from gateway.errors import KeyUnavailable, Rejection
from gateway.pki import cms
from gateway.pki.algorithms import verify_signature
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.keys import PrivateKey, sign, signature_algorithm
from gateway.pki.trust import check_pair
from gateway.wire.scep.identity import Algorithms, RaIdentity

Pair = tuple[bytes, PrivateKey]

_TEST_DATA = b"pki-gateway test signature"


def build_ra(
    where: DataPath, profile: ProfileConfig, endpoint: ScepEndpoint, sources: Sources, chain: tuple[bytes, ...]
) -> RaIdentity:
    """Build the RA of the endpoint at `where`; raises ConfigurationFaults where its certificates and keys do not serve."""
    faults: list[Problem] = []
    pairs: dict[DataPath, Pair] = {}
    for path, at_key, certificate, key in _pair_files(endpoint):
        pair = _read_pair((*where, *path), (*where, *at_key), certificate, key, sources, faults)
        if pair is not None:
            pairs[path] = pair
    if faults:
        raise ConfigurationFaults(*faults)
    (main, *_), encryption = pairs.values(), pairs.get(_ENCRYPTION)
    previous = tuple(pair for path, pair in pairs.items() if path[0] == "previous_ra")
    try:
        identity = RaIdentity.create(
            *main,
            chain,
            _algorithms(endpoint),
            encryption=encryption,
            previous=previous,
            password=_password(profile, sources) if endpoint.pwri else None,
            signing_time_skew=endpoint.signing_time_skew,
            stopwatch=thread_time,  # of this thread alone: a generation is built beside threads that serve
            any_curve=profile.policy.key.mode != RuleMode.ENFORCE,
        )
        prove_identity(identity)
    except ValueError as error:
        raise ConfigurationFaults(Problem((*where, *_place(str(error))), str(error))) from error
    return identity


_MAIN: DataPath = ("ra_certificate",)
_ENCRYPTION: DataPath = ("ra_encryption", "certificate")


def _pair_files(endpoint: ScepEndpoint) -> Iterator[tuple[DataPath, DataPath, str, KeySource]]:
    """Yield where certificate and key are named, and their files: the current pair first."""
    yield _MAIN, ("ra_key",), endpoint.ra_certificate, endpoint.ra_key
    if endpoint.ra_encryption is not None:
        yield _ENCRYPTION, ("ra_encryption", "key"), endpoint.ra_encryption.certificate, endpoint.ra_encryption.key
    for number, pair in enumerate(endpoint.previous_ra):
        yield ("previous_ra", number, "certificate"), ("previous_ra", number, "key"), pair.certificate, pair.key


def _read_pair(
    at_certificate: DataPath, at_key: DataPath, file: str, source: KeySource, sources: Sources, faults: list[Problem]
) -> Pair | None:
    leaf = key = None
    try:
        leaf = pem_to_ders(sources.file(file))[0]
        parse_certificate(leaf)
    except (Rejection, ValueError):
        leaf = None
        faults.append(Problem(at_certificate, f"{file} does not hold a readable PEM certificate"))
    try:
        key = read_key(source, sources)
        if leaf is not None:
            check_pair(leaf, key)
    except ValueError as error:
        faults.append(Problem(at_key, f"{source}: {error}"))
        return None
    return None if leaf is None else (leaf, key)


def _place(sentence: str) -> DataPath:
    """Return the certificate that `RaIdentity.create` speaks of: it counts previous ones from 1."""
    if sentence.startswith("the SCEP RA encryption "):
        return _ENCRYPTION
    words = sentence.removeprefix("the previous SCEP RA ").split(" ", 1)
    return ("previous_ra", int(words[0]) - 1, "certificate") if words[0].isdecimal() else _MAIN


def _algorithms(endpoint: ScepEndpoint) -> Algorithms:
    legacy = endpoint.legacy
    return Algorithms(sha1=legacy.sha1, md5=legacy.md5, triple_des=legacy.triple_des, single_des=legacy.des)


def _password(profile: ProfileConfig, sources: Sources) -> bytes:
    """Return the one static challenge of a profile; that it has one was checked when the file was read."""
    (credential,) = (c for c in profile.credentials if isinstance(c, StaticCredential))
    return sources.secret(credential.challenge)


def prove_identity(identity: RaIdentity) -> None:
    """Sign with every RA key that signs and verify under its certificate; raises ValueError when that fails."""
    signers = (identity.signer, *(pair.signer for pair in identity.pairs if pair.signer is not None))
    for signer in {signer.certificate: signer for signer in signers}.values():
        prove_signer(signer)


def prove_signer(signer: cms.Signer) -> None:
    """Sign with a key and verify under its certificate; raises ValueError when that fails."""
    certificate, algorithm = parse_certificate(signer.certificate), signature_algorithm(signer.key)
    try:
        verify_signature(certificate.public_key.der, algorithm, sign(signer.key, _TEST_DATA), _TEST_DATA)
    except Rejection as error:
        raise ValueError("a test signature of the RA key does not verify under the RA certificate") from error
    except KeyUnavailable as error:
        raise ValueError(str(error)) from error


def read_next_ca(path: DataPath, file: str, sources: Sources) -> tuple[bytes, ...]:
    """Return the certificates that GetNextCACert gives out, DER; raises ConfigurationFaults (RFC 8894 §4.7.1)."""
    try:
        ders = pem_to_ders(sources.file(file))
        certificates = tuple(map(parse_certificate, ders))
    except (Rejection, ValueError) as error:
        raise ConfigurationFaults(Problem(path, f"{file} does not hold readable PEM certificates")) from error
    if not any(certificate.is_ca for certificate in certificates):
        raise ConfigurationFaults(Problem(path, f"{file} holds no CA certificate: clients look for the CA that comes next"))
    return ders
