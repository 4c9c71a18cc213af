"""ACME's state machines around the corridor: accounts, orders, authorizations and renewal information (RFC 8555, RFC 9773)."""
