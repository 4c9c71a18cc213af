"""CMP messages on the wire (RFC 9810, RFC 9483)."""
