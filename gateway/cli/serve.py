"""`pki-gateway serve`: the supervisor, its workers, and what to try first."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import structlog
import typer

from gateway.cli.options import CommandError, ConfigOption, ExitCode, program, with_exit_codes
from gateway.config.defaults import DEMO_DOMAIN, DEMO_LOGIN_FILE, DEMO_PROFILE, DEMO_ROOT_FILE, DEMO_USER
from gateway.config.schema import GatewayConfig, Server
from gateway.config.sources import Sources
from gateway.errors import ConfigurationError
from gateway.logging import LogFormat, configure_logging

if TYPE_CHECKING:
    from gateway.assemble.judgement import Judgement


log = structlog.get_logger(__name__)


class LogLevel(StrEnum):
    """What is logged: this and what weighs more."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@with_exit_codes
def serve(
    config: ConfigOption,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Worker processes; default: server.workers.")] = None,
    log_format: Annotated[LogFormat | None, typer.Option(help="Default: console on a terminal, else json.")] = None,
    log_level: Annotated[LogLevel, typer.Option(help="The least that is logged.")] = LogLevel.INFO,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not print URLs and example commands.")] = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight."""
    from gateway.assemble import require_store
    from gateway.config.load import read
    from gateway.supervise.activation import ActivationError, take_inherited
    from gateway.supervise.notify import ServiceManager
    from gateway.supervise.observers import Observer, WhenServing
    from gateway.supervise.plan import Plan
    from gateway.supervise.process import WorkerRefusedError, worker_count
    from gateway.supervise.service import run_service
    from gateway.supervise.sockets import BindError, bind_all

    configure_logging(log_format, log_level.value)
    observers: list[Observer] = [ServiceManager.take()]
    parsed, sources = read(config)
    judged = check_identities(parsed, sources)
    server = parsed.server
    try:
        mtls = server.https_mtls.listen if server.https_mtls else None
        admin = sources.resolve(server.admin_socket)
        sockets = bind_all(server.http, server.https.listen, admin, mtls, server.monitoring, take_inherited())
    except (BindError, ActivationError) as error:
        raise CommandError(str(error)) from error
    require_store(parsed, sources)
    count = worker_count(workers or server.workers)
    formatted = log_format and log_format.value
    level = log_level.value
    plan = Plan(config, parsed, sources, sockets, count, formatted, level, certificates=judged.certificates, crls=judged.crls)
    if not quiet:
        observers.append(WhenServing(lambda: announce(describe_service(parsed, config, count))))
    try:
        asyncio.run(run_service(plan, observers))
    except WorkerRefusedError as error:
        raise CommandError(str(error), ExitCode(error.code) if error.code in {1, 3} else ExitCode.FAILED) from error
    finally:
        sockets.close()


def check_identities(config: GatewayConfig, sources: Sources) -> Judgement:
    """Refuse keys and certificates that cannot serve, all at once; log warnings; return what was found."""
    from gateway.assemble.judgement import judge
    from gateway.supervise.acceptance import log_warnings

    judged = judge(config, sources, datetime.now(UTC))
    if judged.problems:
        raise ConfigurationError(tuple(map(str, judged.problems)))
    log_warnings(judged)
    return judged


def announce(text: str) -> None:
    """Print it; a standard output that takes nothing, on a full disk or with its reader gone, is no fault of the service."""
    try:
        print(text, flush=True)
    except OSError as error:
        log.warning("what is served cannot be printed", cause=error.strerror)
        # What is left in the buffer would fail again at the end, and change the exit status.
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def describe_service(config: GatewayConfig, path: Path, workers: int) -> str:
    """Return the URLs of every open endpoint, and commands that enroll a first certificate.

    Only commands are indented by four spaces, so that they can be told apart.
    """
    url = config.server.external_url
    lines = [f"pki-gateway serves with {workers} worker{'s' if workers > 1 else ''}; Ctrl-C ends it.", ""]
    endpoints = {name: profile.endpoints.scep for name, profile in config.profiles.items() if profile.endpoints.scep}
    scep = [name for name, endpoint in endpoints.items() if endpoint.client_certificate == "off"]
    for name in endpoints:
        if name in scep:
            lines += [f"  SCEP   {url.http}/scep/{name}", f"  SCEP   {url.https}/scep/{name}"]
        else:
            lines.append(f"  SCEP   {mtls_url(config.server)}/scep-mtls/{name}, with a TLS client certificate")
    est = {name: profile.endpoints.est for name, profile in config.profiles.items() if profile.endpoints.est}
    for name, service in est.items():
        lines.append(f"  EST    {url.https}/.well-known/est/{service.label or name}")
        if service.default:
            lines.append(f"  EST    {url.https}/.well-known/est")
    acme = [name for name, profile in config.profiles.items() if profile.endpoints.acme]
    lines += [f"  ACME   {url.https}/acme/{name}/directory" for name in acme]
    cmp = {name: profile.endpoints.cmp for name, profile in config.profiles.items() if profile.endpoints.cmp}
    lines += [f"  CMP    {url.http}/{cmp_path}" for name, endpoint in cmp.items() for cmp_path in endpoint.paths(name)]
    for name, upstream in config.upstream_cas.items():
        if upstream.type == "local" and upstream.crl:
            lines.append(f"  CRL    {url.http}/crl/{name}.crl")
        lines.append(f"  CA     {url.http}/ca/{name}.crt")
    lines += [f"  Admin  {path.absolute().parent / config.server.admin_socket}", ""]
    if scep:
        profile = DEMO_PROFILE if DEMO_PROFILE in scep else scep[0]
        lines += _first_enrollment(f"{url.http}/scep/{profile}", profile, path)
    if DEMO_PROFILE in est and (path.parent / DEMO_LOGIN_FILE).exists():
        lines += _first_est_enrollment(f"{url.https}/.well-known/est/{est[DEMO_PROFILE].label or DEMO_PROFILE}", path)
    if DEMO_PROFILE in acme and (path.parent / DEMO_ROOT_FILE).exists():
        lines += _first_acme_enrollment(config, path)
    if DEMO_PROFILE in cmp and (path.parent / DEMO_ROOT_FILE).exists():
        lines += _first_cmp_enrollment(config.server, path)
    return "\n".join(lines)


def mtls_url(server: Server) -> str:
    """Return the base URL for clients with a certificate.

    It is the name that clients know and the port of https_mtls; without that listener a proxy asks for certificates.
    """
    if server.https_mtls is None:
        return server.external_url.https
    host = urlsplit(server.external_url.https).hostname or ""
    return f"https://{f'[{host}]' if ':' in host else host}:{server.https_mtls.listen.port}"


def _first_enrollment(url: str, profile: str, path: Path) -> list[str]:
    """Commands for another terminal, in this folder; each can be copied as it is."""
    called, folder = shlex.join(program()), shlex.quote(str(path.parent / "device"))
    return [
        "Enroll a first device, from another terminal:",
        f"    export PKI_GATEWAY_CONFIG={shlex.quote(str(path))}",
        f"    {called} test-enroll --protocol scep --profile {profile}",
        "",
        "The same with strongSwan (apt-get install strongswan-pki libstrongswan-standard-plugins libstrongswan-extra-plugins):",
        f"    mkdir -p {folder}",
        f"    pki --scepca --url {url} --caout {folder}/ca.der --raout {folder}/ra.der --force",
        f"    pki --gen --type rsa --size 2048 --outform der > {folder}/device.key",
        f"    pki --scep --url {url} --in {folder}/device.key --dn 'CN=device-1' \\",
        f'      --password "$({called} challenge new {profile})" \\',
        f"      --cacert-enc {folder}/ra.der --cacert-sig {folder}/ca-1.der --cacert {folder}/ca.der > {folder}/device.der",
        f"    openssl x509 -inform DER -in {folder}/device.der -noout -subject -issuer -dates",
        "",
    ]


def _first_acme_enrollment(config: GatewayConfig, path: Path) -> list[str]:
    """Commands as above, for names that the demo takes for this machine."""
    endpoint = config.profiles[DEMO_PROFILE].endpoints.acme
    port = endpoint.validation.http01_port if endpoint is not None else None
    called, folder = shlex.join(program()), shlex.quote(str(path.parent / "device"))
    root, url = (
        shlex.quote(str(path.parent / DEMO_ROOT_FILE)),
        f"{config.server.external_url.https}/acme/{DEMO_PROFILE}/directory",
    )
    return [
        "By ACME, for a name that is this machine:",
        f"    export PKI_GATEWAY_CONFIG={shlex.quote(str(path))}",
        f"    {called} test-enroll --protocol acme --profile {DEMO_PROFILE} --dns www.{DEMO_DOMAIN}",
        "",
        "The same with certbot (apt-get install certbot):",
        f"    mkdir -p {folder}",
        f"    REQUESTS_CA_BUNDLE={root} certbot certonly --standalone --http-01-port {port or 80} --server {url} \\",
        f"      --domain certbot.{DEMO_DOMAIN} --agree-tos --register-unsafely-without-email --non-interactive \\",
        f"      --config-dir {folder}/certbot --work-dir {folder}/certbot --logs-dir {folder}/certbot",
        f"    openssl x509 -in {folder}/certbot/live/certbot.{DEMO_DOMAIN}/cert.pem -noout -subject -issuer -dates",
        "",
    ]


def _first_cmp_enrollment(server: Server, path: Path) -> list[str]:
    """Commands as above; OpenSSL's client is told host and path apart."""
    called, folder = shlex.join(program()), shlex.quote(str(path.parent / "device"))
    root, host = shlex.quote(str(path.parent / DEMO_ROOT_FILE)), urlsplit(server.external_url.http).netloc
    return [
        "By CMP:",
        f"    export PKI_GATEWAY_CONFIG={shlex.quote(str(path))}",
        f"    {called} test-enroll --protocol cmp --profile {DEMO_PROFILE}",
        "",
        "The same with openssl:",
        f"    mkdir -p {folder}",
        f"    openssl rand -hex 16 > {folder}/cmp.secret",
        f"    {called} cmp-secret create {DEMO_PROFILE} --reference device-3 --secret-file {folder}/cmp.secret",
        f"    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {folder}/cmp.key",
        f"    openssl cmp -cmd ir -server {host} -path .well-known/cmp/p/{DEMO_PROFILE} \\",
        f"      -ref device-3 -secret file:{folder}/cmp.secret -newkey {folder}/cmp.key -subject /CN=device-3 \\",
        f"      -certout {folder}/cmp.pem -extracertsout {folder}/cmp-ca.pem",
        f"    openssl verify -CAfile {root} -untrusted {folder}/cmp-ca.pem {folder}/cmp.pem",
        "",
    ]


def _first_est_enrollment(url: str, path: Path) -> list[str]:
    """Commands as above, for the folder that `init` wrote."""
    called, folder = shlex.join(program()), shlex.quote(str(path.parent / "device"))
    root, password = (shlex.quote(str(path.parent / name)) for name in (DEMO_ROOT_FILE, DEMO_LOGIN_FILE))
    return [
        "By EST:",
        f"    export PKI_GATEWAY_CONFIG={shlex.quote(str(path))}",
        f"    {called} test-enroll --protocol est --profile {DEMO_PROFILE} --user {DEMO_USER} --password-file {password}",
        "",
        "The same with curl and openssl:",
        f"    mkdir -p {folder}",
        f"    openssl req -new -newkey rsa:2048 -nodes -keyout {folder}/est.key -subj /CN=device-2 -outform DER \\",
        f"      | openssl base64 > {folder}/est.b64",
        f'    curl --fail --silent --show-error --cacert {root} --user "{DEMO_USER}:$(cat {password})" \\',
        f"      --header 'Content-Type: application/pkcs10' --data-binary @{folder}/est.b64 {url}/simpleenroll \\",
        f"      | openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out {folder}/est.pem",
        f"    openssl x509 -in {folder}/est.pem -noout -subject -issuer -dates",
        "",
    ]
