"""Names and places that hold where the file says nothing; plain values, so that a command learns them without the models."""

from __future__ import annotations

ADMIN_SOCKET = "run/admin.sock"
"""Where the server listens for its own commands, seen from the configuration file's folder."""
MONITORING_PORT = 9464
"""Where metrics and probes are served; the port that OpenTelemetry's exporters for Prometheus listen on."""
MONITORING = f"127.0.0.1:{MONITORING_PORT}"
UPSTREAM_CALL_SECONDS = 90
"""The longest that one call to an upstream CA may take; after it the result is unknown."""
DEMO_PROFILE = "demo"
"""The playground that `init` writes: a profile of this name is served on loopback only."""
DEMO_USER = "demo"
"""Its user for EST."""
DEMO_ROOT_FILE = "ca/root.pem"
"""Its root, which clients trust."""
DEMO_DOMAIN = "demo.test"
"""Names below it are this machine to its ACME endpoint."""
DEMO_LOGIN_FILE = "secrets/demo-est-password"
"""Where `init` leaves that user's password, seen from the configuration file's folder; the service does not read it."""
