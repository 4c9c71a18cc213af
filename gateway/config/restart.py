"""What a reload cannot change: sockets, processes, bounds and files that a service opens once, when it starts."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.document import DataPath, dotted
from gateway.config.schema import GatewayConfig, Server
from gateway.config.sources import Sources
from gateway.config.view import differences, redact

_LIVE: tuple[DataPath, ...] = (
    ("profiles",),
    ("upstream_cas",),
    ("server", "external_url"),
    ("server", "proxies"),
    ("server", "https", "certificate"),
    ("server", "https", "key"),
    ("server", "https_mtls", "certificate"),
    ("server", "https_mtls", "key"),
)
"""What a reload puts in force, with all that is below; the rest is fixed at the start, a key that is not named here too."""


def needs_restart(old: GatewayConfig, old_sources: Sources, new: GatewayConfig, new_sources: Sources) -> tuple[str, ...]:
    """Return a sentence for each field whose change takes a restart; empty when `new` may be put in force by a reload.

    The bytes of store.key and audit.key count too: the store is opened with them once. No secret is shown.
    """
    return (
        *_changed_listeners(old.server, new.server),
        *_changed_fields(old, new),
        *_changed_keys(old, old_sources, new, new_sources),
    )


def _changed_listeners(old: Server, new: Server) -> Iterator[str]:
    """Yield the listener that comes or goes: its socket is bound before the workers start."""
    if (old.https_mtls is None) != (new.https_mtls is None):
        yield f"server.https_mtls: is {'added' if old.https_mtls is None else 'removed'}; restart the service to change it"


def _changed_fields(old: GatewayConfig, new: GatewayConfig) -> Iterator[str]:
    live = tuple(map(dotted, _LIVE))
    if old.server.https_mtls is None or new.server.https_mtls is None:
        live = (*live, "server.https_mtls")
    for change in differences(redact(old), redact(new)):
        if not any(change.field == field or change.field.startswith((f"{field}.", f"{field}[")) for field in live):
            became = f"was {_show(change.before)} and would be {_show(change.after)}"
            yield f"{change.field}: {became}; restart the service to change it"


def _changed_keys(old: GatewayConfig, old_sources: Sources, new: GatewayConfig, new_sources: Sources) -> Iterator[str]:
    """Yield the keys whose source is the same and holds something else."""
    for field, before, after in (("store.key", old.store.key, new.store.key), ("audit.key", old.audit.key, new.audit.key)):
        if before == after and old_sources.secret(before) != new_sources.secret(after):
            yield f"{field}: the {after} holds another key; restart the service to change it"


def _show(value: object) -> str:
    return "absent" if value is None else str(value)
