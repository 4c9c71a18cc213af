"""Outbound checks: what the gateway asks of others before it believes a request."""
