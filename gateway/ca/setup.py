"""What every backend is made from, read once and proved: its name, the pinned chain, keys for TLS, the way to reach it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gateway.ca.claims import Claims, OwnClaims
from gateway.ca.http import HttpClient, HttpSettings
from gateway.config.document import ConfigurationFaults, DataPath, Problem
from gateway.config.fields import FilePath, RaPair
from gateway.config.load import Sources
from gateway.config.remote_cas import Connection
from gateway.errors import Rejection
from gateway.model import UpstreamCAName
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.keys import PrivateKey, load_private_key, serialize_private_key
from gateway.pki.trust import check_pair

_ALPN = ("http/1.1",)


def utc_now() -> datetime:
    """Return the time, aware, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with what stands above it in its file, DER, leaf first, and its key."""

    certificates: tuple[bytes, ...]
    key: PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a backend is made from beside its own section; `chain` is pinned, DER, issuing CA first, proved to hold together."""

    name: UpstreamCAName
    chain: tuple[bytes, ...]
    sources: Sources = field(repr=False)
    queue: timedelta = timedelta(0)
    """How long requests wait for the CA while it cannot be reached."""
    clock: Callable[[], datetime] = utc_now
    claims: Claims = field(default_factory=OwnClaims, repr=False)

    def where(self, *field: str | int) -> DataPath:
        """Return the place of a field of this CA in the configuration."""
        return ("upstream_cas", self.name, *field)

    def fault(self, sentence: str, *field: str | int) -> ConfigurationFaults:
        """Return what to raise for one field that is wrong."""
        return ConfigurationFaults(Problem(self.where(*field), sentence))

    def read_pair(self, pair: RaPair, *field: str | int) -> Pair:
        """Read the certificates and key that `field` names and prove that they belong together. Raises ConfigurationFaults."""
        certificates, faults = read_certificates([(self.where(*field, "certificate"), pair.certificate)], self.sources)
        if pair.key.pkcs11 is not None:
            raise self.fault("is in a token, which serves local CAs and RAs alone: CAs are shown keys from files", *field, "key")
        try:
            key = load_private_key(self.sources.secret(pair.key))
            if certificates:
                check_pair(certificates[0], key)
        except ValueError as error:
            raise ConfigurationFaults(*faults, Problem(self.where(*field, "key"), f"{pair.key}: {error}")) from error
        if faults:
            raise ConfigurationFaults(*faults)
        return Pair(certificates, key)

    def connect(self, url: str, connection: Connection, *, reuse: bool = True) -> HttpClient:
        """Return a client of one CA's HTTP interface, not yet open; raises ConfigurationFaults for anchors or keys of no use."""
        return HttpClient(
            HttpSettings(
                base_url=url,
                tls=self._tls(connection) if url.startswith("https://") else None,
                connect_timeout=connection.connect_timeout.total_seconds(),
                timeout=connection.timeout.total_seconds(),
                concurrency=connection.concurrency,
                reuse=reuse,
            )
        )

    def _tls(self, connection: Connection) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks names and certificates
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(_ALPN)
        if connection.anchors is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            self._load_anchors(context, connection.anchors)
        if connection.client_certificate is not None:
            self._load_identity(context, connection.client_certificate)
        return context

    def _load_anchors(self, context: ssl.SSLContext, file: FilePath) -> None:
        anchors, faults = read_certificates([(self.where("connection", "anchors"), file)], self.sources)
        if faults:
            raise ConfigurationFaults(*faults)
        # an issuing CA alone may be pinned, without its root
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            context.load_verify_locations(cadata=b"".join(anchors))
        except ssl.SSLError as error:
            raise self.fault(f"{file} holds what TLS cannot use as an anchor", "connection", "anchors") from error

    def _load_identity(self, context: ssl.SSLContext, files: RaPair) -> None:
        pair = self.read_pair(files, "connection", "client_certificate")
        try:
            load_identity(context, self.sources.file(files.certificate), serialize_private_key(pair.key))
        except ssl.SSLError as error:
            sentence = "cannot be used for TLS on this machine: the key is too short, or its kind is not spoken here"
            raise self.fault(sentence, "connection", "client_certificate", "certificate") from error


def load_identity(context: ssl.SSLContext, certificates: bytes, key: bytes) -> None:
    """Load PEM from memory: OpenSSL's API takes file names only, so both go through a file that no other process sees."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(key + b"\n" + certificates)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def read_certificates(files: Iterable[tuple[DataPath, FilePath]], sources: Sources) -> tuple[tuple[bytes, ...], list[Problem]]:
    """Read PEM files in order and say which cannot be read; what stands in two (a bundle and the chain) is taken once."""
    found: dict[bytes, None] = {}
    faults = []
    for path, file in files:
        try:
            ders = pem_to_ders(sources.file(file))
            for der in ders:
                parse_certificate(der)
            found.update(dict.fromkeys(ders))
        except (Rejection, ValueError):
            faults.append(Problem(path, f"{file} does not hold readable PEM certificates"))
    return tuple(found), faults
