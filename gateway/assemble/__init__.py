"""Where concrete classes meet: configuration bytes become store, upstream CAs, profiles and endpoints."""

from gateway.assemble.gateway import Gateway, Prepared, open_gateway, require_store

__all__ = ["Gateway", "Prepared", "open_gateway", "require_store"]
