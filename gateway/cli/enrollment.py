"""What `test-enroll` does in any protocol: steps with their times, keys of devices, and a server as its clients see it."""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from time import monotonic
from urllib.parse import SplitResult, urlsplit

from rich.console import Console

from gateway.cli.options import argument, fail
from gateway.model import Name, SubjectAltName
from gateway.pki.certificate import Certificate, der_to_pem, parse_certificate, pem_to_ders
from gateway.pki.keys import PrivateKey, load_private_key, serialize_private_key
from gateway.pki.names import format_name
from gateway.pki.trust import check_pair, verify_chain

TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 2.0


@dataclass
class Steps:
    """What was done so far, each step with its time in milliseconds."""

    quiet: bool
    done: list[dict[str, object]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time one step; the block may say what it saw. A failure names the step."""
        seen: list[str] = []
        begun = monotonic()
        try:
            yield seen.append
        except BaseException:
            self._show(name, monotonic() - begun, "failed")
            raise
        self._show(name, monotonic() - begun, "; ".join(seen))

    def _show(self, name: str, seconds: float, text: str) -> None:
        self.done.append({"step": name, "milliseconds": round(seconds * 1000, 1), "result": text})
        if not self.quiet:
            Console(highlight=False, markup=False).print(f"{name:<24} {seconds * 1000:8.1f} ms  {text}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Server:
    """A server as a client sees it; `tls` is there for https."""

    url: SplitResult
    tls: ssl.SSLContext | None

    @classmethod
    def parse(
        cls, url: str, trust: Path | None, client: tuple[Path, Path] | None = None, certificates: bytes | None = None
    ) -> Server:
        """Read where the server is, PEM anchors for https, and a client's PEM certificate and key; all may be usage errors.

        Without anchors `certificates` are trusted, PEM, which are the server's own.
        """
        with argument("--url"):
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
                raise ValueError(f"{url} is no http or https URL")
        with argument("--trust"):
            anchors = "".join(der_to_pem(der).decode("ascii") for der in pem_to_ders(trust.read_bytes())) if trust else None
            tls = _trusting(anchors, certificates) if parts.scheme == "https" else None
        if client is not None:
            with argument("--client-cert"):
                _show_client(tls, *client)
        return cls(parts, tls)

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that is not open yet."""
        host, port = self.url.hostname or "localhost", self.url.port
        if self.tls is None:
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=self.tls)


def _trusting(anchors: str | None, certificates: bytes | None) -> ssl.SSLContext:
    """Return a context that trusts the anchors, or else what this machine trusts and the server's own certificates."""
    tls = ssl.create_default_context(cadata=anchors)
    if anchors is None and certificates is not None:
        tls.load_verify_locations(cadata=b"".join(pem_to_ders(certificates)))
        tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return tls


def _show_client(tls: ssl.SSLContext | None, certificate: Path, key: Path) -> None:
    """Let TLS show a client certificate, which may have its chain behind it. Raises OSError, Rejection and ValueError."""
    if tls is None:
        raise ValueError("only https shows a client certificate")
    check_pair(pem_to_ders(certificate.read_bytes())[0], load_private_key(key.read_bytes()))
    try:
        tls.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise ValueError(f"TLS cannot use the pair: {error.reason}") from error


class DeviceKey(StrEnum):
    """Keys of a device."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    EC_P521 = "ec-p521"
    ED25519 = "ed25519"
    ML_DSA_44 = "ml-dsa-44"
    ML_DSA_65 = "ml-dsa-65"
    ML_DSA_87 = "ml-dsa-87"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for, read whole before the first step."""

    subject: Name
    sans: tuple[SubjectAltName, ...]
    key: DeviceKey
    wait: float


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a device has at the end."""

    key: PrivateKey
    certificate: Certificate
    chain: tuple[Certificate, ...]


def find_leaf(certificates: tuple[bytes, ...], public_key: bytes) -> Certificate:
    """Return the certificate of our key; ends the command when there is none."""
    leaf = next((c for c in map(parse_certificate, certificates) if c.public_key.der == public_key), None)
    if leaf is None:
        fail("The server answered without a certificate for our key.")
    return leaf


def verified_chain(certificate: Certificate, authorities: tuple[bytes, ...]) -> tuple[Certificate, ...]:
    """Return what stands above a certificate, among what the server sent; ends the command when the chain does not hold now."""
    known = {c.subject.der: c for c in map(parse_certificate, authorities) if c.is_ca}
    chain: list[Certificate] = []
    issuer = known.get(certificate.issuer_der)
    while issuer is not None and issuer not in chain:
        chain.append(issuer)
        issuer = known.get(issuer.issuer_der)
    if not chain:
        issued = f"{format_name(certificate.subject)} was issued by {format_name(certificate.issuer)}"
        fail(f"The certificate {issued}, whose certificate the server does not send.")
    verify_chain(certificate, tuple(chain), datetime.now(UTC))
    return tuple(chain)


def make_folder(out: Path) -> None:
    """Make the folder, or see that files can be put into it. Raises OSError and ValueError."""
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(out, os.W_OK | os.X_OK):
        raise ValueError(f"{out} cannot be written to")


def write(out: Path, device: Enrolled) -> None:
    """Write device.key, device.pem and chain.pem."""
    key_file = out / "device.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(serialize_private_key(device.key))
    (out / "device.pem").write_bytes(der_to_pem(device.certificate.der))
    (out / "chain.pem").write_bytes(b"".join(der_to_pem(c.der) for c in device.chain))
