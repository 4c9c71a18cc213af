"""EST messages on the wire (RFC 7030, 7894, 8951, 9908)."""
