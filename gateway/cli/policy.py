"""`pki-gateway policy`: what a profile's certificate policy says about a certificate request, without enrolling."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import (
    ConfigOption,
    ExitCode,
    FormatOption,
    OutputFormat,
    argument,
    fail,
    print_json,
    print_record,
    print_records,
    with_exit_codes,
)
from gateway.config.load import read
from gateway.config.remote_cas import GroupCA
from gateway.config.schema import GatewayConfig
from gateway.config.sources import Sources
from gateway.config.upstream_cas import LocalCA, UpstreamCAConfig
from gateway.errors import Rejection
from gateway.model import CertificateRequest, CredentialKind, Decision, Grant, NameBinding, Requester, Verdict
from gateway.pki.certificate import Certificate, parse_certificate, pem_to_ders
from gateway.pki.csr import parse_csr
from gateway.pki.extensions import eku_name
from gateway.pki.names import format_name, normalize_name, parse_name, parse_name_text
from gateway.ra.policy import decide
from gateway.ra.policy.subject import ComparableName

MAX_BYTES = 1 << 20
"""Largest request file that is read."""

app = typer.Typer(no_args_is_help=True)


@app.callback()
def policy() -> None:
    """Try certificate policy."""


@app.command()
@with_exit_codes
def explain(
    profile: Annotated[str, typer.Argument(help="The profile whose policy judges.")],
    csr: Annotated[Path, typer.Argument(help="A PKCS#10 request, PEM or DER; - reads standard input.")],
    config: ConfigOption,
    requester: Annotated[str, typer.Option(help="The identity that a template's {requester} stands for.")] = "explain",
    owner: Annotated[str | None, typer.Option(help="The owner that a template's {owner} stands for.")] = None,
    subject: Annotated[str | None, typer.Option(help="Judge as if the credential were bound to this subject (RFC 4514).")] = None,
    sid: Annotated[bool, typer.Option("--sid", help="Judge as if the credential vouched for a SID.")] = False,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Print each rule's verdict on a certificate request, and what would be certified; exit status 1 when it would be refused.

    Nothing is enrolled and no server is asked. Credentials and quotas are not looked at.
    """
    with argument("--subject"):
        bound = None if subject is None else format_name(parse_name_text(subject))
    parsed, sources = read(config)
    request = _read_request(csr)
    who = Requester(requester, CredentialKind.ADMIN, NameBinding(bound), owner, vouches_for_sid=sid)
    decision = _decide(parsed, sources, profile, request, who)
    if format is OutputFormat.JSON:
        grant = _describe_grant(decision.grant) if decision.grant else None
        print_json({"profile": profile, "granted": grant is not None, "verdicts": _verdicts(decision), "grant": grant})
    else:
        _print_tables(request, decision)
    if decision.grant is None:
        raise typer.Exit(ExitCode.FAILED)


def _read_request(path: Path) -> CertificateRequest:
    """Read and verify the request. Raises CommandError with a sentence."""
    if str(path) == "-":
        data = sys.stdin.buffer.read(MAX_BYTES)
    else:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    try:
        ders = pem_to_ders(data, "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
        return parse_csr(ders[0])
    except ValueError as error:
        fail(f"{path}: {error}")
    except Rejection as rejection:
        fail(f"{path} is refused before policy is asked: {rejection.detail} ({rejection.cause})")


def _decide(config: GatewayConfig, sources: Sources, name: str, request: CertificateRequest, requester: Requester) -> Decision:
    profile = config.profiles.get(name)
    if profile is None:
        fail(f"there is no profile {name}; there are: {', '.join(config.profiles)}", ExitCode.USAGE)
    chain = _read_certificates(sources, _chain_files(config, config.upstream_cas[profile.upstream_ca]))
    return decide(
        profile.policy,
        request,
        requester,
        datetime.now(UTC),
        min(certificate.not_after for certificate in chain),
        ca_not_before=chain[0].not_before,
        reserved_names=_reserved_names(config, sources),
    )


def _reserved_names(config: GatewayConfig, sources: Sources) -> frozenset[ComparableName]:
    """Return the names of all CAs and RAs, which a server grants to nobody."""
    files = [path for upstream in config.upstream_cas.values() for path in _chain_files(config, upstream)]
    files += [profile.endpoints.scep.ra_certificate for profile in config.profiles.values() if profile.endpoints.scep]
    return frozenset(normalize_name(certificate.subject) for certificate in _read_certificates(sources, files))


def _chain_files(config: GatewayConfig, upstream: UpstreamCAConfig) -> tuple[str, ...]:
    """Return the files of a CA's certificates, issuing CA first; for a group those of all members."""
    if isinstance(upstream, GroupCA):
        return tuple(file for name in upstream.members for file in _chain_files(config, config.upstream_cas[name]))
    return (upstream.certificate, *upstream.chain) if isinstance(upstream, LocalCA) else upstream.chain


def _read_certificates(sources: Sources, files: Iterable[str]) -> list[Certificate]:
    return [parse_certificate(der) for path in files for der in pem_to_ders(sources.file(path))]


def _print_tables(request: CertificateRequest, decision: Decision) -> None:
    asked = {"asked for": format_name(request.subject) or "(no subject)", "key": _key(request), "names": _sans(request)}
    print_record(asked, OutputFormat.TABLE)
    print()
    print_records(_verdicts(decision), OutputFormat.TABLE, ("rule", "mode", "verdict", "message", "field"))
    print()
    if decision.grant is None:
        print(f"Refused: {decision.violations[0].message}")
    else:
        print("Granted:")
        print_record(_describe_grant(decision.grant), OutputFormat.TABLE)


def _verdicts(decision: Decision) -> list[dict[str, str]]:
    return [
        {"rule": v.rule, "mode": v.mode, "verdict": _verdict(v), "message": v.message, "field": v.field, "reason": v.reason.value}
        for v in decision.verdicts
    ]


def _verdict(verdict: Verdict) -> str:
    if verdict.mode == "off":
        return "off"
    if verdict.passed:
        return "ok"
    return "refused" if verdict.mode == "enforce" else "warning"


def _describe_grant(grant: Grant) -> dict[str, object]:
    return {
        "subject": format_name(parse_name(grant.subject_der)),
        "names": [f"{name.kind}:{name.value}" for name in grant.sans],
        "key_usage": list(grant.key_usage),
        "extended_key_usage": [eku_name(oid) for oid in grant.ekus],
        "not_before": grant.not_before,
        "not_after": grant.not_after,
        "extensions": [extension.oid for extension in grant.extensions],
        "modified": grant.modified,
    }


def _key(request: CertificateRequest) -> str:
    key = request.public_key
    return f"{key.algorithm} {key.curve or key.bits}"


def _sans(request: CertificateRequest) -> list[str]:
    return [f"{name.kind}:{name.value}" for name in request.sans]
