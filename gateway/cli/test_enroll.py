"""`pki-gateway test-enroll`: enroll as a real client does, and show each step with its time."""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated
from urllib.parse import SplitResult, quote, urlsplit

import typer
from rich.console import Console

from gateway.asn1.scep import PkiStatus
from gateway.cli.challenge import draw
from gateway.cli.options import (
    CommandError,
    ConfigOption,
    ExitCode,
    FormatOption,
    OutputFormat,
    argument,
    fail,
    print_json,
    with_exit_codes,
)
from gateway.cli.serve import mtls_url
from gateway.model import Name, SanKind, SubjectAltName
from gateway.pki.certificate import Certificate, der_to_pem, parse_certificate, pem_to_ders
from gateway.pki.cms import Signer
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import (
    PrivateKey,
    generate_private_key,
    load_private_key,
    public_key_der,
    serialize_private_key,
)
from gateway.pki.names import format_name, parse_name_text
from gateway.pki.trust import check_pair, verify_chain
from gateway.wire.scep import client as scep
from gateway.wire.scep.operations import MEDIA_PKI_MESSAGE, PKI_OPERATION
from gateway.wire.scep.pkimessage import MessageType

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
class ScepServer:
    """A SCEP server as a client sees it; `tls` is there for https."""

    url: SplitResult
    tls: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str, trust: Path | None, client: tuple[Path, Path] | None = None) -> ScepServer:
        """Read where the server is, PEM anchors for https, and a client's PEM certificate and key; all may be usage errors."""
        with argument("--url"):
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
                raise ValueError(f"{url} is no http or https URL")
        with argument("--trust"):
            anchors = "".join(der_to_pem(der).decode("ascii") for der in pem_to_ders(trust.read_bytes())) if trust else None
            tls = ssl.create_default_context(cadata=anchors) if parts.scheme == "https" else None
        if client is not None:
            with argument("--client-cert"):
                _show_client(tls, *client)
        return cls(parts, tls)

    def call(self, operation: str, body: bytes | None = None, message: str = "") -> tuple[bytes, str]:
        """Return body and media type of one operation; ends the command when the server does not answer 200."""
        target = f"{self.url.path}?operation={operation}" + (f"&message={quote(message, safe='')}" if message else "")
        connection = self._connect()
        try:
            connection.request(
                "GET" if body is None else "POST", target, body, {"Content-Type": MEDIA_PKI_MESSAGE} if body else {}
            )
            response = connection.getresponse()
            data, media_type = response.read(), response.getheader("Content-Type", "")
        except (OSError, http.client.HTTPException) as error:
            fail(f"{operation}: {self.url.geturl()} does not answer: {error}")
        finally:
            connection.close()
        if response.status != 200:
            fail(f"{operation}: the server answered {response.status}: {data[:300].decode('utf-8', 'replace').strip()}")
        return data, media_type

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self.url.hostname or "localhost", self.url.port
        if self.tls is None:
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=self.tls)


def _show_client(tls: ssl.SSLContext | None, certificate: Path, key: Path) -> None:
    """Let TLS show a client certificate, which may have its chain behind it. Raises OSError, Rejection and ValueError."""
    if tls is None:
        raise ValueError("only https shows a client certificate")
    check_pair(pem_to_ders(certificate.read_bytes())[0], load_private_key(key.read_bytes()))
    try:
        tls.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise ValueError(f"TLS cannot use the pair: {error.reason}") from error


class EnrollProtocol(StrEnum):
    """What can be spoken."""

    SCEP = "scep"


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

    @property
    def decrypts(self) -> bool:
        """Whether replies can be encrypted to the key; else the challenge is their password (RFC 8894 §3.1)."""
        return self.key.value.startswith("rsa-")


@with_exit_codes
def test_enroll(
    config: ConfigOption,
    profile: Annotated[str, typer.Option("--profile", help="The profile to enroll at.")],
    protocol: Annotated[EnrollProtocol, typer.Option("--protocol", help="The protocol to speak.")] = EnrollProtocol.SCEP,
    url: Annotated[str | None, typer.Option("--url", help="Where; without it as the configuration says.")] = None,
    challenge: Annotated[
        str | None, typer.Option("--challenge", help="The challenge; without it a one-time challenge is made.")
    ] = None,
    subject: Annotated[str, typer.Option("--subject", help="Subject name, RFC 4514.")] = "CN=test-enroll",
    dns: Annotated[list[str] | None, typer.Option("--dns", help="A DNS name to ask for; may be repeated.")] = None,
    key: Annotated[
        DeviceKey, typer.Option("--key", help="The kind of key; any but RSA needs a profile with pwri, and its challenge.")
    ] = DeviceKey.RSA_2048,
    trust: Annotated[Path | None, typer.Option("--trust", help="PEM anchors for https.")] = None,
    client_cert: Annotated[Path | None, typer.Option("--client-cert", help="PEM certificate to show to https_mtls.")] = None,
    client_key: Annotated[Path | None, typer.Option("--client-key", help="Its private key, PEM.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for device.key, device.pem and chain.pem.")] = None,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to poll while the request is pending.")] = 30.0,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Enroll as a real client against a running server and show each step with its time."""
    with argument("--subject"):
        name = parse_name_text(subject)
    with argument("--dns"):
        wanted = Wanted(name, tuple(make_san(SanKind.DNS, value) for value in dns or ()), key, wait)
    if not wanted.decrypts and challenge is None:
        fail(
            f"--key {key}: such a key cannot decrypt the reply: give the profile's static challenge, --challenge.", ExitCode.USAGE
        )
    if (client_cert is None) != (client_key is None):
        fail("--client-cert and --client-key go together.", ExitCode.USAGE)
    client = (client_cert, client_key) if client_cert and client_key else None
    server = ScepServer.parse(url or _configured_url(config, profile, shows_client=client is not None), trust, client)
    if out:
        with argument("--out"):
            _make_folder(out)
    steps = Steps(quiet=format is OutputFormat.JSON)
    try:
        made, leaf, chain = _enroll(server, steps, lambda: challenge or _draw(config, profile), wanted)
    finally:
        if format is OutputFormat.JSON:
            print_json({"url": server.url.geturl(), "steps": steps.done})
    if out:
        _write(out, made, leaf, chain)


def _draw(config: Path, profile: str) -> str:
    """Make a one-time challenge; where there is none to be had, one can be given."""
    try:
        return str(draw(config, profile=profile)["challenge"])
    except CommandError as error:
        if error.code is not ExitCode.USAGE:
            raise
        fail(f"{error}, or give --challenge", ExitCode.USAGE)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One transaction with a server; `password` is there where the signer's key cannot decrypt."""

    server: ScepServer
    signer: Signer
    recipient: bytes
    ra: bytes
    transaction: str
    password: bytes | None = field(repr=False)

    def ask(self, message_data: bytes, message_type: MessageType = MessageType.PKCS_REQ) -> scep.CertRep:
        """Send one message and return the verified answer; ends the command when it is none."""
        request = scep.encode_request(
            message_data,
            self.signer,
            self.recipient,
            message_type=message_type,
            transaction=self.transaction,
            password=self.password,
        )
        data, media_type = self.server.call(PKI_OPERATION, request.message)
        if media_type != MEDIA_PKI_MESSAGE:
            fail(f"PKIOperation: the server answered {media_type}, not {MEDIA_PKI_MESSAGE}")
        return scep.decode_cert_rep(data, request, self.signer, self.ra, password=self.password)


def _enroll(
    server: ScepServer, steps: Steps, draw_challenge: Callable[[], str], wanted: Wanted
) -> tuple[PrivateKey, Certificate, tuple[Certificate, ...]]:
    with steps.step("GetCACaps") as saw:
        saw(" ".join(server.call("GetCACaps")[0].decode("ascii", "replace").split()))
    with steps.step("GetCACert") as saw:
        authorities = scep.decode_ca_certificates(*server.call("GetCACert"))
        recipient = scep.choose_ra_certificate(authorities)
        ra = parse_certificate(scep.choose_ra_signer(authorities))
        issuer = _verified_chain(ra, authorities)[0]
        saw(f"{len(authorities)} certificates, RA {format_name(ra.subject)}")
    with steps.step("challenge"):
        secret = draw_challenge()
    with steps.step("key and CSR"):
        key = generate_private_key(wanted.key.value)
        csr = build_csr(key, wanted.subject.der, wanted.sans, challenge_password=secret)
        now = datetime.now(UTC)
        signer = scep.self_signed_signer(key, wanted.subject.der, now - timedelta(hours=1), now + timedelta(days=1))
    password = None if wanted.decrypts else secret.encode()
    device = Conversation(server, signer, recipient, ra.der, scep.transaction_id(public_key_der(key)), password)
    with steps.step("PKCSReq") as saw:
        answer = device.ask(csr)
        saw(answer.status.name)
    give_up = monotonic() + wanted.wait
    while answer.status is PkiStatus.PENDING and monotonic() < give_up:
        sleep(POLL_SECONDS)
        with steps.step("CertPoll") as saw:
            names = scep.encode_issuer_and_subject(issuer.subject.der, wanted.subject.der)
            answer = device.ask(names, MessageType.CERT_POLL)
            saw(answer.status.name)
    if answer.status is PkiStatus.FAILURE and answer.fail_info is not None:
        fail(f"The server refused: {answer.fail_info.name} ({answer.fail_info.value}): {answer.fail_info_text}")
    if answer.status is PkiStatus.PENDING:
        fail("The request is still pending: see `pki-gateway requests list`.")
    with steps.step("certificate") as saw:
        leaf = _find_leaf(answer.certificates, public_key_der(key))
        chain = _verified_chain(leaf, authorities)
        saw(f"{format_name(leaf.subject)}, serial {leaf.serial:x}, valid until {leaf.not_after:%Y-%m-%d %H:%M}Z")
    return key, leaf, chain


def _find_leaf(certificates: tuple[bytes, ...], public_key: bytes) -> Certificate:
    """Return the certificate of our key; ends the command when there is none."""
    leaf = next((c for c in map(parse_certificate, certificates) if c.public_key.der == public_key), None)
    if leaf is None:
        fail("The server answered SUCCESS without a certificate for our key.")
    return leaf


def _verified_chain(certificate: Certificate, authorities: tuple[bytes, ...]) -> tuple[Certificate, ...]:
    """Return what stands above a certificate, among what the server sent; ends the command when the chain does not hold now."""
    known = {c.subject.der: c for c in map(parse_certificate, authorities) if c.is_ca}
    chain: list[Certificate] = []
    issuer = known.get(certificate.issuer_der)
    while issuer is not None and issuer not in chain:
        chain.append(issuer)
        issuer = known.get(issuer.issuer_der)
    if not chain:
        issued = f"{format_name(certificate.subject)} was issued by {format_name(certificate.issuer)}"
        fail(f"The certificate {issued}, whose certificate GetCACert does not send.")
    verify_chain(certificate, tuple(chain), datetime.now(UTC))
    return tuple(chain)


def _configured_url(config: Path, profile: str, *, shows_client: bool) -> str:
    """Return where the profile is served; ends the command where it is not, or not to a client without a certificate."""
    from gateway.config.load import read

    parsed = read(config)[0]
    served = [name for name, found in parsed.profiles.items() if found.endpoints.scep is not None]
    if profile not in served:
        fail(f"There is no profile {profile} with SCEP; there are: {', '.join(served)}.", ExitCode.USAGE)
    endpoint = parsed.profiles[profile].endpoints.scep
    if endpoint is not None and endpoint.client_certificate == "require":
        if not shows_client:
            fail(f"Profile {profile} asks for a TLS client certificate: give --client-cert and --client-key.", ExitCode.USAGE)
        return f"{mtls_url(parsed.server)}/scep-mtls/{profile}"
    external = parsed.server.external_url
    return f"{external.https if shows_client else external.http}/scep/{profile}"


def _make_folder(out: Path) -> None:
    """Make the folder, or see that files can be put into it. Raises OSError and ValueError."""
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(out, os.W_OK | os.X_OK):
        raise ValueError(f"{out} cannot be written to")


def _write(out: Path, key: PrivateKey, leaf: Certificate, chain: tuple[Certificate, ...]) -> None:
    key_file = out / "device.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(serialize_private_key(key))
    (out / "device.pem").write_bytes(der_to_pem(leaf.der))
    (out / "chain.pem").write_bytes(b"".join(der_to_pem(c.der) for c in chain))
