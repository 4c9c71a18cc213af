"""The ACME endpoint (RFC 8555, RFC 9773)."""
