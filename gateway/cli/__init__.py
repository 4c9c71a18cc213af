"""The pki-gateway commands."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as distribution_version

import typer

from gateway.cli import audit, certs, challenge, config, crl, policy, requests, store
from gateway.cli.doctor import doctor
from gateway.cli.init import init
from gateway.cli.options import FormatOption, OutputFormat, print_json
from gateway.cli.serve import serve
from gateway.cli.status import status
from gateway.cli.test_enroll import test_enroll
from gateway.logging import LogFormat, configure_logging

app = typer.Typer(
    name="pki-gateway",
    help="Registration authority: devices enroll by SCEP, one policy decides, the CA that the profile names signs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)

app.command()(init)
app.command()(serve)
app.add_typer(config.app, name="config", help="Check, show and compare the configuration.")
app.add_typer(challenge.app, name="challenge", help="One-time challenges.")
app.add_typer(requests.app, name="requests", help="Enrollments that wait for a person.")
app.add_typer(certs.app, name="certs", help="The inventory of certificates.")
app.add_typer(crl.app, name="crl", help="Certificate revocation lists.")
app.add_typer(policy.app, name="policy", help="What the certificate policy says.")
app.add_typer(store.app, name="store", help="The store: schema, backup, check, keys.")
app.add_typer(audit.app, name="audit", help="The audit trail.")
app.command()(doctor)
app.command(name="test-enroll")(test_enroll)
app.command()(status)


@app.command()
def version(format: FormatOption = OutputFormat.TABLE) -> None:
    """Print the version."""
    number = distribution_version("pki-gateway")
    if format is OutputFormat.JSON:
        print_json({"version": number, "python": sys.version.split()[0]})
    else:
        print(f"pki-gateway {number}")


def main() -> None:
    """Run the command line; exit status 0 done, 1 failed, 2 usage, 3 configuration."""
    # Commands print their answer on standard output, alone; whatever is logged meanwhile goes to standard error.
    configure_logging(LogFormat.CONSOLE, "warning")
    try:
        app()
    except BrokenPipeError:
        # The reader of our output went away, as `head` does: not an error, and nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
