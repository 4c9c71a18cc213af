"""Object identifiers of what ACME proves and certifies (RFC 8737 §3, RFC 4043 §2, RFC 4108 §5)."""

from __future__ import annotations

OID_ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.31"
"""id-pe-acmeIdentifier, the extension of tls-alpn-01."""
OID_PERMANENT_IDENTIFIER = "1.3.6.1.5.5.7.8.3"
"""id-on-permanentIdentifier."""
OID_HARDWARE_MODULE_NAME = "1.3.6.1.5.5.7.8.4"
"""id-on-hardwareModuleName."""
