"""`pki-gateway incident`: has the clients of some certificates renew at once, by their renewal information (RFC 9773 §4.2)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.client import AdminClient, quoted, require_profile
from gateway.cli.options import (
    AdminSocketOption,
    CommandError,
    ConfigOption,
    ExitCode,
    FormatOption,
    LimitOption,
    OutputFormat,
    argument,
    fail,
    print_done,
    print_record,
    print_records,
    with_exit_codes,
)

app = typer.Typer(no_args_is_help=True)

COLUMNS = ("id", "certificates", "explanation_url", "created_at", "created_by")
MAX_SERIALS_FILE = 8 << 20
MAX_KEY_FILE = 65536
_SHA256 = re.compile(r"(?:[0-9a-fA-F]{2}:?){31}[0-9a-fA-F]{2}")


@app.command()
@with_exit_codes
def declare(
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    profile: Annotated[str | None, typer.Option(help="Certificates of this profile.")] = None,
    upstream_ca: Annotated[str | None, typer.Option("--upstream-ca", help="Certificates of this CA.")] = None,
    serials: Annotated[
        Path | None, typer.Option(help="A file with serial numbers, hex, one a line; colons allowed, # begins a comment.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="A PEM file with a certificate or public key, or the SHA-256 of a public key (SPKI) in hex."),
    ] = None,
    explanation_url: Annotated[
        str | None, typer.Option(help="A page that says what happened; clients show it to their people.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only what would be done is shown.")] = False,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Move the renewal windows of certificates into the past: all that fit every option given. A dry run without --yes."""
    client = AdminClient(config, admin_socket)
    require_profile(client, profile)
    with argument("--serials"):
        numbers = None if serials is None else _read_serials(serials)
    with argument("--key"):
        digest = None if key is None else _read_key(key)
    affected = {"profile": profile, "upstream_ca": upstream_ca, "serials": numbers, "public_key_sha256": digest}
    if not any(value is not None for value in affected.values()):
        fail("Say which certificates: --profile, --upstream-ca, --serials or --key.", ExitCode.USAGE)
    if yes:
        _declare(client, affected, explanation_url, format)
    else:
        _preview(client, affected, format)


@app.command(name="list")
@with_exit_codes
def list_(
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    limit: LimitOption = 100,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """List incidents, newest first."""
    rows = AdminClient(config, admin_socket).get("/v1/incidents", limit=limit)
    print_records(rows, format, COLUMNS, empty="No incidents.")


@app.command()
@with_exit_codes
def withdraw(
    id: Annotated[str, typer.Argument(help="The incident's ID, as `incident list` shows it.")],
    config: ConfigOption,
    admin_socket: AdminSocketOption = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Forget an incident: its certificates are renewed in their time again."""
    done = AdminClient(config, admin_socket).post(f"/v1/incidents/{quoted(id)}/withdraw")
    print_done(done, format, f"Incident {id} is withdrawn.")


def _declare(client: AdminClient, affected: dict[str, Any], url: str | None, format: OutputFormat) -> None:
    made = _ask(client, "/v1/incidents", affected | {"explanation_url": url})
    if format is OutputFormat.JSON:
        print_record(made, format)
    else:
        count = made["certificates"]
        print(f"Incident {made['id']}: {_certificates(count)} to be renewed now; clients learn it when they ask next.")


def _preview(client: AdminClient, affected: dict[str, Any], format: OutputFormat) -> None:
    found = _ask(client, "/v1/incidents/preview", affected)
    if format is OutputFormat.JSON:
        print_record(found, format)
        return
    count, names = found["certificates"], found["names"]
    print(f"{_certificates(count)} to be renewed{':' if names else '.'}")
    for name in names:
        print(f"  {name!r}" if not name.isprintable() else f"  {name or '(no name)'}")
    if count > len(names):
        print(f"  … and {count - len(names)} more")
    print("Nothing was done: --yes does it.")


def _certificates(count: int) -> str:
    return f"{count} certificate" if count == 1 else f"{count} certificates"


def _ask(client: AdminClient, path: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run one operation; that nothing fits, or that an argument is none, is a usage error."""
    try:
        answer: dict[str, Any] = client.post(path, **arguments)
    except CommandError as error:
        if error.reason != "denied":
            raise
        fail(str(error), ExitCode.USAGE)
    return answer


def _read_serials(path: Path) -> list[str]:
    """Return serial numbers in hex; raises ValueError that names the line of what is none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(MAX_SERIALS_FILE + 1)
    if len(text) > MAX_SERIALS_FILE:
        raise ValueError("the file is too long; divide it")
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        serial = line.partition("#")[0].strip().replace(":", "")
        if serial and not re.fullmatch("[0-9a-fA-F]{1,64}", serial):
            raise ValueError(f"line {number} is no serial number in hex")
        if serial:
            found.append(serial)
    if not found:
        raise ValueError("the file holds no serial numbers")
    return found


def _read_key(text: str) -> str:
    """Return the SHA-256 of a public key: what is given, or that of the key in a file."""
    if _SHA256.fullmatch(text):
        return text.replace(":", "").lower()
    import hashlib

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    with Path(text).open("rb") as file:
        pem = file.read(MAX_KEY_FILE)
    key = x509.load_pem_x509_certificate(pem).public_key() if b"BEGIN CERTIFICATE-" in pem else load_pem_public_key(pem)
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
