"""`pki-gateway test-enroll`: enroll as a real client does, and show each step with its time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from http.client import HTTP_PORT
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from gateway.cli import enroll_acme, enroll_cmp, enroll_est, enroll_scep
from gateway.cli.client import AdminClient
from gateway.cli.enrollment import DeviceKey, Enrolled, Server, Steps, Wanted, make_folder, write
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
from gateway.config.schema import ProfileConfig
from gateway.config.schema import Server as ServerConfig
from gateway.config.upstream_checks import accepted_forms
from gateway.model import RequestForm, SanKind, SubjectAltName
from gateway.pki import base64url
from gateway.pki.certificate import parse_certificate, pem_to_ders
from gateway.pki.extensions import make_san
from gateway.pki.keys import load_private_key
from gateway.pki.names import parse_name_text
from gateway.pki.trust import check_pair
from gateway.wire.acme.client import ExternalKey
from gateway.wire.cmp.client import MacIdentity
from gateway.wire.est.client import ROOT, basic_authorization


class EnrollProtocol(StrEnum):
    """What can be spoken."""

    SCEP = "scep"
    EST = "est"
    ACME = "acme"
    CMP = "cmp"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a profile is served, and what its configuration says of that."""

    url: str
    certificates: bytes | None = None
    """The server's own certificates, PEM."""
    links: bool = False
    http_port: int | None = None
    """Where the server looks for http-01, if not at port 80."""
    names: tuple[str, ...] = ()
    """DNS names that are this machine to the server."""
    signers: bytes | None = None
    """The certificates that sign CMP answers, PEM."""
    pkcs10: bool = False
    """Its CA takes PKCS#10 alone, so CMP clients ask by p10cr."""


@with_exit_codes
def test_enroll(
    config: ConfigOption,
    profile: Annotated[str, typer.Option("--profile", help="The profile to enroll at.")],
    protocol: Annotated[EnrollProtocol, typer.Option("--protocol", help="The protocol to speak.")] = EnrollProtocol.SCEP,
    url: Annotated[str | None, typer.Option("--url", help="Where; without it as the configuration says.")] = None,
    challenge: Annotated[
        str | None, typer.Option("--challenge", help="The challenge; without it a one-time challenge is made.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", help="Subject name, RFC 4514; without it CN=test-enroll, by ACME none.")
    ] = None,
    dns: Annotated[list[str] | None, typer.Option("--dns", help="A DNS name to ask for; may be repeated.")] = None,
    ip: Annotated[list[str] | None, typer.Option("--ip", help="An IP address to ask for; may be repeated.")] = None,
    key: Annotated[
        DeviceKey,
        typer.Option("--key", help="The kind of key; by SCEP, any but RSA needs pwri and the static challenge."),
    ] = DeviceKey.RSA_2048,
    trust: Annotated[Path | None, typer.Option("--trust", help="PEM anchors for https.")] = None,
    client_cert: Annotated[
        Path | None, typer.Option("--client-cert", help="PEM certificate to show in TLS; by CMP, to sign with.")
    ] = None,
    client_key: Annotated[Path | None, typer.Option("--client-key", help="Its private key, PEM.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="EST: the user who asks.")] = None,
    password_file: Annotated[Path | None, typer.Option("--password-file", help="EST: a file with the user's password.")] = None,
    renew: Annotated[bool, typer.Option("--renew", help="EST and CMP: renew the certificate of --client-cert.")] = False,
    reference: Annotated[
        str | None, typer.Option("--reference", help="CMP: the reference number of a shared secret; without it one is made.")
    ] = None,
    secret_file: Annotated[Path | None, typer.Option("--secret-file", help="CMP: a file with that secret.")] = None,
    signers: Annotated[
        Path | None,
        typer.Option("--signers", help="CMP: PEM certificates that sign answers; without it as the configuration says."),
    ] = None,
    eab_kid: Annotated[
        str | None, typer.Option("--eab-kid", help="ACME: the external account that the account is bound to.")
    ] = None,
    eab_key_file: Annotated[Path | None, typer.Option("--eab-key-file", help="ACME: a file with its key, base64url.")] = None,
    order_profile: Annotated[
        str | None, typer.Option("--order-profile", help="ACME: the profile to ask for in the order; without it the directory's.")
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(
            "--http-port", min=1, max=65535, help="ACME: where http-01 is answered; without it as the configuration says."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for device.key, device.pem and chain.pem.")] = None,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to poll while the request is pending.")] = 30.0,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Enroll as a real client against a running server and show each step with its time."""
    with argument("--subject"):
        name = parse_name_text(subject if subject is not None else "" if protocol is EnrollProtocol.ACME else "CN=test-enroll")
    wanted = Wanted(name, (*_names("--dns", SanKind.DNS, dns), *_names("--ip", SanKind.IP, ip)), key, wait)
    _check_options(protocol, wanted, challenge, client_cert, client_key, user, password_file, renew=renew)
    account = _read_account(protocol, eab_kid, eab_key_file, order_profile, http_port)
    _check_cmp_options(protocol, reference, secret_file, signers, client_cert)
    client = (client_cert, client_key) if client_cert and client_key else None
    place = Place(url) if url else _find_place(config, profile, protocol, shows_client=client is not None)
    server = Server.parse(place.url, trust, None if protocol is EnrollProtocol.CMP else client, place.certificates)
    if out:
        with argument("--out"):
            make_folder(out)
    steps = Steps(quiet=format is OutputFormat.JSON)
    try:
        if protocol is EnrollProtocol.ACME:
            host = enroll_acme.LOOPBACK if place.http_port is not None else ""
            responder = enroll_acme.Responder(host, http_port or place.http_port or HTTP_PORT)
            device = enroll_acme.enroll(server, steps, account, _named(wanted, place), responder)
        elif protocol is EnrollProtocol.EST:
            shown = client_cert if renew else None
            proof = _prove(config, profile, challenge, user, password_file, shown, place, asked_by_tls=client is not None)
            with argument("--url"):
                service = enroll_est.EstServer.at(server)
            device = enroll_est.enroll(service, steps, proof, wanted)
        elif protocol is EnrollProtocol.CMP:
            asker = _identify(config, profile, place, client, reference, secret_file, signers, renew=renew)
            device = enroll_cmp.enroll(server, steps, asker, wanted, pkcs10=place.pkcs10 and not renew)
        else:
            device = _enroll_by_scep(server, steps, config, profile, challenge, wanted)
    finally:
        if format is OutputFormat.JSON:
            print_json({"url": server.url.geturl(), "steps": steps.done})
    if out:
        write(out, device)


def _names(option: str, kind: SanKind, values: list[str] | None) -> tuple[SubjectAltName, ...]:
    with argument(option):
        return tuple(make_san(kind, value) for value in values or ())


def _named(wanted: Wanted, place: Place) -> Wanted:
    """Return what is asked for with a name: an order has one, and where none is given the demo has some to try."""
    if wanted.sans:
        return wanted
    if not place.names:
        fail("--dns: an ACME order asks for names: give one that leads to this machine.", ExitCode.USAGE)
    return replace(wanted, sans=(make_san(SanKind.DNS, place.names[0]),))


def _read_account(
    protocol: EnrollProtocol, kid: str | None, key_file: Path | None, profile: str | None, http_port: int | None
) -> enroll_acme.Account:
    """Return how an ACME account is made; ends the command for options that do not go together."""
    if (kid is None) != (key_file is None):
        fail("--eab-kid and --eab-key-file go together.", ExitCode.USAGE)
    if protocol is not EnrollProtocol.ACME:
        if kid is not None or profile is not None or http_port is not None:
            fail("--eab-kid, --order-profile and --http-port go with --protocol acme.", ExitCode.USAGE)
        return enroll_acme.Account()
    if kid is None or key_file is None:
        return enroll_acme.Account(None, profile)
    with argument("--eab-key-file"):
        key = base64url.decode(key_file.read_text("ascii").strip().rstrip("="))
    return enroll_acme.Account(ExternalKey(kid, key), profile)


def _enroll_by_scep(server: Server, steps: Steps, config: Path, profile: str, challenge: str | None, wanted: Wanted) -> Enrolled:
    return enroll_scep.enroll(server, steps, lambda: challenge or _draw(config, profile, "--challenge"), wanted)


def _check_options(
    protocol: EnrollProtocol,
    wanted: Wanted,
    challenge: str | None,
    client_cert: Path | None,
    client_key: Path | None,
    user: str | None,
    password_file: Path | None,
    *,
    renew: bool,
) -> None:
    """End the command for options that do not go together."""
    if (client_cert is None) != (client_key is None):
        fail("--client-cert and --client-key go together.", ExitCode.USAGE)
    if (user is None) != (password_file is None):
        fail("--user and --password-file go together.", ExitCode.USAGE)
    if protocol is EnrollProtocol.ACME:
        if any((challenge, client_cert, user, renew)):
            fail("--challenge, --client-cert, --user and --renew prove nothing by ACME.", ExitCode.USAGE)
        return
    if protocol in {EnrollProtocol.EST, EnrollProtocol.CMP} and renew and client_cert is None:
        fail("--renew: what is renewed is the certificate of --client-cert and --client-key.", ExitCode.USAGE)
    if protocol is EnrollProtocol.CMP and any((challenge, user)):
        fail("--challenge and --user prove nothing by CMP.", ExitCode.USAGE)
    if protocol in {EnrollProtocol.EST, EnrollProtocol.CMP}:
        return
    if user is not None or renew:
        fail("--user goes with --protocol est, --renew with est or cmp.", ExitCode.USAGE)
    if challenge is None and not enroll_scep.decrypts(wanted.key):
        told = "such a key cannot decrypt the reply: give the profile's static challenge, --challenge."
        fail(f"--key {wanted.key}: {told}", ExitCode.USAGE)


def _prove(
    config: Path,
    profile: str,
    challenge: str | None,
    user: str | None,
    password_file: Path | None,
    renewed: Path | None,
    place: Place,
    *,
    asked_by_tls: bool,
) -> enroll_est.Proof:
    """Return what shows who is asking: what was given, else a one-time challenge that is made for it."""
    authorization = None
    if user is not None and password_file is not None:
        with argument("--user"):
            authorization = basic_authorization(user, password_file.read_text("utf-8").removesuffix("\n"))
    with argument("--client-cert"):
        certificate = parse_certificate(pem_to_ders(renewed.read_bytes())[0]) if renewed is not None else None
    drawn = challenge is None and authorization is None and not asked_by_tls
    if place.links and (drawn or challenge is not None):
        told = "requires that requests are tied to their connection, which takes the place of a challenge"
        fail(f"Profile {profile} {told}: give --user or --client-cert.", ExitCode.USAGE)
    if drawn:
        given = "--challenge, --user or --client-cert"
        return enroll_est.Proof(lambda: _draw(config, profile, given))
    secret = (lambda: challenge) if challenge is not None else None
    return enroll_est.Proof(secret, authorization, certificate, place.links)


def _check_cmp_options(
    protocol: EnrollProtocol, reference: str | None, secret_file: Path | None, signers: Path | None, client_cert: Path | None
) -> None:
    """End the command for options of CMP that do not go together."""
    if protocol is not EnrollProtocol.CMP and any((reference, secret_file, signers)):
        fail("--reference, --secret-file and --signers go with --protocol cmp.", ExitCode.USAGE)
    if (reference is None) != (secret_file is None):
        fail("--reference and --secret-file go together.", ExitCode.USAGE)
    if reference is not None and client_cert is not None:
        fail("--reference and --client-cert exclude each other: a message has one protection.", ExitCode.USAGE)


def _identify(
    config: Path,
    profile: str,
    place: Place,
    client: tuple[Path, Path] | None,
    reference: str | None,
    secret_file: Path | None,
    signers: Path | None,
    *,
    renew: bool,
) -> enroll_cmp.Device:
    """Return who asks by CMP: with what was given, else with a shared secret that is made for it."""
    if client is None:
        if reference is None or secret_file is None:
            return enroll_cmp.Device(lambda: _draw_secret(config, profile))
        with argument("--secret-file"):
            given = MacIdentity(reference.encode("utf-8"), secret_file.read_bytes().removesuffix(b"\n"))
        return enroll_cmp.Device(lambda: given)
    with argument("--client-cert"):
        certificates = pem_to_ders(client[0].read_bytes())
        key = load_private_key(client[1].read_bytes())
        certificate = check_pair(certificates[0], key)
    with argument("--signers"):
        pem = signers.read_bytes() if signers is not None else place.signers
        if pem is None:
            raise ValueError("with --url, the certificates that sign answers have to be given")
        known = pem_to_ders(pem)
    return enroll_cmp.Device(None, certificates, key, certificate if renew else None, known)


def _draw_secret(config: Path, profile: str) -> MacIdentity:
    """Make a shared secret; where there is none to be had, something else can be given."""
    try:
        made = AdminClient(config).create("/v1/cmp-secrets", profile=profile)
    except CommandError as error:
        if error.code is not ExitCode.USAGE:
            raise
        fail(f"{error}, or give --reference or --client-cert", ExitCode.USAGE)
    return MacIdentity(str(made["reference"]).encode("utf-8"), str(made["secret"]).encode("utf-8"))


def _draw(config: Path, profile: str, else_give: str) -> str:
    """Make a one-time challenge; where there is none to be had, something else can be given."""
    try:
        return str(AdminClient(config).create("/v1/challenges", profile=profile)["challenge"])
    except CommandError as error:
        if error.code is not ExitCode.USAGE:
            raise
        fail(f"{error}, or give {else_give}", ExitCode.USAGE)


def _find_place(config: Path, profile: str, protocol: EnrollProtocol, *, shows_client: bool) -> Place:
    """Return where the profile is served; ends the command where it is not, or not to a client without a certificate."""
    from gateway.config.load import read

    parsed, sources = read(config)
    served = [name for name, found in parsed.profiles.items() if getattr(found.endpoints, protocol) is not None]
    if profile not in served:
        spoken = protocol.upper()
        fail(f"There is no profile {profile} with {spoken}; there are: {', '.join(served)}.", ExitCode.USAGE)
    found, server = parsed.profiles[profile], parsed.server
    listeners = (server.https, server.https_mtls)
    certificates = b"\n".join(sources.file(listener.certificate) for listener in listeners if listener is not None)
    if protocol is EnrollProtocol.SCEP:
        return Place(_scep_url(profile, found, server, shows_client=shows_client), certificates)
    if found.endpoints.acme is not None and protocol is EnrollProtocol.ACME:
        validation = found.endpoints.acme.validation
        names = tuple(name.replace("*", "test-enroll") for name in validation.resolver.hosts if name.startswith("*."))
        url = f"{server.external_url.https}/acme/{profile}/directory"
        return Place(url, certificates, http_port=validation.http01_port, names=names)
    if found.endpoints.cmp is not None and protocol is EnrollProtocol.CMP:
        forms = accepted_forms(parsed.upstream_cas[found.upstream_ca], parsed.upstream_cas)
        signer = sources.file(found.endpoints.cmp.signer.certificate)
        url = f"{server.external_url.http}/.well-known/cmp/p/{profile}"
        return Place(url, certificates, signers=signer, pkcs10=RequestForm.CRMF not in forms)
    base = mtls_url(server) if shows_client and server.https_mtls is not None else server.external_url.https
    endpoint = found.endpoints.est
    label = endpoint.label if endpoint is not None and endpoint.label is not None else profile
    links = endpoint is not None and endpoint.pop_linking == "require"
    return Place(f"{base}{ROOT}/{quote(label, safe=':@!$')}", certificates, links)


def _scep_url(name: str, profile: ProfileConfig, server: ServerConfig, *, shows_client: bool) -> str:
    endpoint = profile.endpoints.scep
    if endpoint is not None and endpoint.client_certificate == "require":
        if not shows_client:
            fail(f"Profile {name} asks for a TLS client certificate: give --client-cert and --client-key.", ExitCode.USAGE)
        return f"{mtls_url(server)}/scep-mtls/{name}"
    external = server.external_url
    return f"{external.https if shows_client else external.http}/scep/{name}"
