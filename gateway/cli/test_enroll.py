"""`pki-gateway test-enroll`: enroll as a real client does, and show each step with its time."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated
from urllib.parse import SplitResult, quote, urlsplit

import typer
from rich.console import Console

from gateway.asn1.scep import PkiStatus
from gateway.cli.client import AdminClient
from gateway.cli.options import ConfigOption, FormatOption, OutputFormat, fail, print_json, with_exit_codes
from gateway.model import SanKind
from gateway.pki.certificate import Certificate, der_to_pem, parse_certificate
from gateway.pki.cms import Signer
from gateway.pki.csr import build_csr
from gateway.pki.extensions import make_san
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der, serialize_private_key
from gateway.pki.names import format_name, parse_name_text
from gateway.pki.trust import verify_chain
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
    """A SCEP server as a client sees it; `trust` are PEM certificates for https."""

    url: SplitResult
    trust: bytes

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
        if self.url.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        context = ssl.create_default_context(cadata=self.trust.decode("ascii") if self.trust else None)
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)


@with_exit_codes
def test_enroll(
    config: ConfigOption,
    profile: Annotated[str, typer.Option("--profile", help="The profile to enroll at.")],
    protocol: Annotated[str, typer.Option("--protocol", help="The protocol to speak: scep.")] = "scep",
    url: Annotated[str | None, typer.Option("--url", help="Where; without it external_url.http of the configuration.")] = None,
    challenge: Annotated[
        str | None, typer.Option("--challenge", help="The challenge; without it a one-time challenge is made.")
    ] = None,
    subject: Annotated[str, typer.Option("--subject", help="Subject name, RFC 4514.")] = "CN=test-enroll",
    dns: Annotated[list[str] | None, typer.Option("--dns", help="A DNS name to ask for; may be repeated.")] = None,
    trust: Annotated[Path | None, typer.Option("--trust", help="PEM anchors for https.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for device.key, device.pem and chain.pem.")] = None,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to poll while the request is pending.")] = 30.0,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Enroll as a real client against a running server and show each step with its time."""
    if protocol != "scep":
        fail(f"test-enroll does not speak {protocol}; it speaks: scep")
    steps = Steps(quiet=format is OutputFormat.JSON)
    base = url or _configured_url(config, profile)
    server = ScepServer(urlsplit(base), trust.read_bytes() if trust else b"")
    try:
        key, leaf, chain = _enroll(server, steps, lambda: challenge or _draw_challenge(config, profile), subject, dns or [], wait)
    finally:
        if format is OutputFormat.JSON:
            print_json({"url": base, "steps": steps.done})
    if out:
        _write(out, key, leaf, chain)


def _enroll(
    server: ScepServer, steps: Steps, draw: Callable[[], str], subject: str, dns: list[str], wait: float
) -> tuple[PrivateKey, Certificate, tuple[Certificate, ...]]:
    with steps.step("GetCACaps") as saw:
        saw(" ".join(server.call("GetCACaps")[0].decode("ascii", "replace").split()))
    with steps.step("GetCACert") as saw:
        authorities = scep.decode_ca_certificates(*server.call("GetCACert"))
        ra = scep.choose_ra_certificate(authorities)
        saw(f"{len(authorities)} certificates, RA {format_name(parse_certificate(ra).subject)}")
    with steps.step("challenge"):
        secret = draw()
    with steps.step("key and CSR"):
        key = generate_private_key("rsa-2048")
        name = parse_name_text(subject)
        csr = build_csr(key, name.der, tuple(make_san(SanKind.DNS, value) for value in dns), challenge_password=secret)
        now = datetime.now(UTC)
        signer = scep.self_signed_signer(key, name.der, now - timedelta(hours=1), now + timedelta(days=1))
    transaction = scep.transaction_id(public_key_der(key))
    with steps.step("PKCSReq") as saw:
        answer = _exchange(server, scep.encode_request(csr, signer, ra, transaction=transaction), signer, ra)
        saw(answer.status.name)
    issuer = _issuing_ca(authorities, ra)
    give_up = monotonic() + wait
    while answer.status is PkiStatus.PENDING and monotonic() < give_up:
        sleep(POLL_SECONDS)
        with steps.step("CertPoll") as saw:
            names = scep.encode_issuer_and_subject(issuer.subject.der, name.der)
            poll = scep.encode_request(names, signer, ra, message_type=MessageType.CERT_POLL, transaction=transaction)
            answer = _exchange(server, poll, signer, ra)
            saw(answer.status.name)
    if answer.status is PkiStatus.FAILURE and answer.fail_info is not None:
        fail(f"The server refused: {answer.fail_info.name} ({answer.fail_info.value}): {answer.fail_info_text}")
    if answer.status is PkiStatus.PENDING:
        fail("The request is still pending: see `pki-gateway requests list`.")
    with steps.step("certificate") as saw:
        leaf, chain = _check(answer.certificates, authorities, public_key_der(key))
        saw(f"{format_name(leaf.subject)}, serial {leaf.serial:x}, valid until {leaf.not_after:%Y-%m-%d %H:%M}Z")
    return key, leaf, chain


def _exchange(server: ScepServer, request: scep.ScepRequest, signer: Signer, ra: bytes) -> scep.CertRep:
    data, media_type = server.call(PKI_OPERATION, request.message)
    if media_type != MEDIA_PKI_MESSAGE:
        fail(f"PKIOperation: the server answered {media_type}, not {MEDIA_PKI_MESSAGE}")
    return scep.decode_cert_rep(data, request, signer, ra)


def _issuing_ca(authorities: tuple[bytes, ...], ra: bytes) -> Certificate:
    parsed = parse_certificate(ra)
    candidates = [c for c in map(parse_certificate, authorities) if c.subject.der == parsed.issuer_der]
    return candidates[0] if candidates else parsed


def _check(
    certificates: tuple[bytes, ...], authorities: tuple[bytes, ...], public_key: bytes
) -> tuple[Certificate, tuple[Certificate, ...]]:
    """Return leaf and chain; ends the command when the key is not ours or the chain does not hold."""
    parsed = [parse_certificate(c) for c in certificates]
    leaf = next((c for c in parsed if c.public_key.der == public_key), None)
    if leaf is None:
        fail("The server answered SUCCESS without a certificate for our key.")
    known = {c.subject.der: c for c in map(parse_certificate, authorities) if c.is_ca}
    chain: list[Certificate] = []
    issuer = known.get(leaf.issuer_der)
    while issuer is not None and issuer not in chain:
        chain.append(issuer)
        issuer = known.get(issuer.issuer_der)
    verify_chain(leaf, tuple(chain), datetime.now(UTC))
    return leaf, tuple(chain)


def _configured_url(config: Path, profile: str) -> str:
    from gateway.config.load import read

    return f"{read(config)[0].server.external_url.http}/scep/{profile}"


def _draw_challenge(config: Path, profile: str) -> str:
    return str(AdminClient(config).post("/v1/challenges", profile=profile)["challenge"])


def _write(out: Path, key: PrivateKey, leaf: Certificate, chain: tuple[Certificate, ...]) -> None:
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_file = out / "device.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(serialize_private_key(key))
    (out / "device.pem").write_bytes(der_to_pem(leaf.der))
    (out / "chain.pem").write_bytes(b"".join(der_to_pem(c.der) for c in chain))
