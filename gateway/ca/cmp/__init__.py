"""The gateway as a client, and a registration authority, of any CMP server (RFC 9810, RFC 9483)."""
