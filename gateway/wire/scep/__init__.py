"""SCEP messages on the wire (RFC 8894)."""
