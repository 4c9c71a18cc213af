"""A configuration as it may be shown, and what differs between two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.config.document import DataPath, dotted
from gateway.config.schema import GatewayConfig

HIDDEN = "(hidden)"


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not the same; None stands for a value that is not there."""

    field: str
    before: Any
    after: Any


def redact(config: GatewayConfig) -> dict[str, Any]:
    """Return the whole configuration with its defaults, as JSON-like data fit for eyes and logs.

    Secrets are shown as where they come from. Values that an exec CA's environment spells out are hidden: they may be secrets.
    """
    shown: dict[str, Any] = config.model_dump(mode="json", by_alias=True)
    for upstream_ca in shown["upstream_cas"].values():
        if "environment" in upstream_ca:
            upstream_ca["environment"] = {
                name: HIDDEN if isinstance(value, str) else value for name, value in upstream_ca["environment"].items()
            }
    result: dict[str, Any] = _without_unset_sources(shown)
    return result


def differences(before: Any, after: Any) -> tuple[Difference, ...]:
    """Return every leaf that differs between two redacted configurations, sorted by field."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    return tuple(
        Difference(field, old.get(field), new.get(field))
        for field in sorted(old.keys() | new.keys())
        if old.get(field) != new.get(field)
    )


def _without_unset_sources(value: Any) -> Any:
    """Show a secret's source by the one key that it has."""
    if isinstance(value, list):
        return [_without_unset_sources(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() - {"pkcs11"} == {"file", "env", "credential", "allow_group_world"}:
        return {name: _without_unset_sources(item) for name, item in value.items() if item}
    return {name: _without_unset_sources(item) for name, item in value.items()}


def _leaves(value: Any, path: DataPath = ()) -> Iterator[tuple[str, Any]]:
    """Yield every value under its dotted path; lists of plain values are one value, so that an insertion shows as one change."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, (*path, name))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(item, (*path, number))
    else:
        yield dotted(path), value
