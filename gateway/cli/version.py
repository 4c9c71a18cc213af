"""`pki-gateway version`."""

from __future__ import annotations

import platform
from importlib.metadata import version as distribution_version

from gateway.cli.options import FormatOption, OutputFormat, print_json


def version(format: FormatOption = OutputFormat.TABLE) -> None:
    """Print the version."""
    number = distribution_version("pki-gateway")
    if format is OutputFormat.JSON:
        print_json({"version": number, "python": platform.python_version()})
    else:
        print(f"pki-gateway {number}")
