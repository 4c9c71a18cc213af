"""The gateway as a client of any ACME CA (RFC 8555)."""
