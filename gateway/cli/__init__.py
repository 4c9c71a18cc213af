"""The pki-gateway commands."""
