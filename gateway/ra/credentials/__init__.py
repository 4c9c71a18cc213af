"""Credential providers: what proves who is asking."""
