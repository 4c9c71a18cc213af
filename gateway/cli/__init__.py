"""The pki-gateway commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module

import structlog
import typer

from gateway.logging import LogFormat, configure_logging

log = structlog.get_logger(__name__)

DEBUG_VARIABLE = "PKI_GATEWAY_DEBUG"
"""Set to anything, commands log what they do, and where they failed."""


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command or a group of commands is defined; `help` is a group's line in the overview."""

    module: str
    attribute: str
    help: str = ""


COMMANDS = {
    "init": Command("gateway.cli.init", "init"),
    "serve": Command("gateway.cli.serve", "serve"),
    "reload": Command("gateway.cli.reload", "reload"),
    "restart": Command("gateway.cli.restart", "restart"),
    "config": Command("gateway.cli.config", "app", "Check, show and compare the configuration."),
    "challenge": Command("gateway.cli.challenge", "app", "One-time challenges."),
    "eab": Command("gateway.cli.eab", "app", "Keys of external account binding for ACME."),
    "cmp-secret": Command("gateway.cli.cmp_secret", "app", "Shared secrets of CMP clients."),
    "acme": Command("gateway.cli.acme", "app", "Accounts and orders of ACME."),
    "incident": Command("gateway.cli.incident", "app", "Certificates that clients should renew at once."),
    "password": Command("gateway.cli.password", "app", "Passwords of EST users."),
    "requests": Command("gateway.cli.requests", "app", "Enrollments that wait for a person."),
    "certs": Command("gateway.cli.certs", "app", "The inventory of certificates."),
    "crl": Command("gateway.cli.crl", "app", "Certificate revocation lists."),
    "upstream": Command("gateway.cli.upstream", "app", "Upstream CAs: list them, try them, ask for their chains."),
    "policy": Command("gateway.cli.policy", "app", "What the certificate policy says."),
    "store": Command("gateway.cli.store", "app", "The store: schema, backup, check, keys."),
    "audit": Command("gateway.cli.audit", "app", "The audit trail."),
    "doctor": Command("gateway.cli.doctor", "doctor"),
    "test-enroll": Command("gateway.cli.test_enroll", "test_enroll"),
    "status": Command("gateway.cli.status", "status"),
    "version": Command("gateway.cli.version", "version"),
}


def build_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the application with these commands; only their modules are imported, so that each starts fast."""
    app = typer.Typer(
        name="pki-gateway",
        help="Registration authority: enrollment by SCEP, EST, ACME and CMP, judged by one policy, signed by the profile's CA.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root() -> None:
        """Registration authority: enrollment by SCEP, EST, ACME and CMP, judged by one policy, signed by the profile's CA."""

    for name in names:
        command = COMMANDS[name]
        found = getattr(import_module(command.module), command.attribute)
        if command.help:
            app.add_typer(found, name=name, help=command.help)
        else:
            app.command(name=name)(found)
    return app


def main() -> None:
    """Run the command line; exit status 0 done, 1 failed, 2 usage, 3 configuration."""
    # Commands print their answer on standard output, alone; whatever is logged meanwhile goes to standard error.
    configure_logging(LogFormat.CONSOLE, "debug" if os.environ.get(DEBUG_VARIABLE) else "warning")
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    app = build_app((first,) if first in COMMANDS else COMMANDS)
    try:
        app()
    except BrokenPipeError:
        # The reader of our output went away, as `head` does: not an error, and nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        log.debug("the command ended with an error that it does not know", exc_info=True)
        print(f"This failed unexpectedly: {type(error).__name__}: {error}; {DEBUG_VARIABLE}=1 shows where.", file=sys.stderr)
        sys.exit(1)
