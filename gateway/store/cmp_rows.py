"""CMP's shared secrets as columns and back, the same for every database; the secret itself is sealed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from gateway.cmp import SharedSecret
from gateway.model import NameBinding, ProfileName, SanKind
from gateway.store import tables
from gateway.store.acme_rows import micros, unseal
from gateway.store.keys import KeyRing
from gateway.store.rows import Columns, columns, from_micros, to_micros

CMP_SECRET = "cmp secret"  # noqa: S105 - a purpose
"""The purpose under which shared secrets are sealed: CMP computes with them (RFC 9810 §5.1.3.1)."""

SECRET_SELECT = f"SELECT {columns(tables.cmp_secrets, 's')} FROM cmp_secrets s "  # noqa: S608


def secret_columns(row: SharedSecret, keys: KeyRing) -> Columns:
    """Return the columns of one secret, sealed."""
    return {
        "id": row.id,
        "profile": row.profile,
        "reference": row.reference,
        "secret": keys.encrypt(CMP_SECRET, row.secret),
        "created_at": to_micros(row.created_at),
        "expires_at": to_micros(row.expires_at),
        "created_by": row.created_by,
        "max_uses": row.max_uses,
        "binding": _write_binding(row.binding),
        "owner": row.owner,
        "revoked_at": micros(row.revoked_at),
    }


def read_secret(r: Sequence[Any], keys: KeyRing | None, uses: int = 0) -> SharedSecret:
    """Read one row of SECRET_SELECT, opened where there are keys; raises StoreUnavailable where none opens it."""
    return SharedSecret(
        id=r[0],
        profile=ProfileName(r[1]),
        reference=r[2],
        secret=b"" if keys is None else unseal(keys, CMP_SECRET, r[3]) or b"",
        created_at=from_micros(r[4]),
        expires_at=from_micros(r[5]),
        created_by=r[6],
        max_uses=r[7],
        binding=_read_binding(r[8]),
        owner=r[9],
        revoked_at=None if r[10] is None else from_micros(r[10]),
        uses=uses,
    )


@lru_cache(maxsize=4)
def stand_in(keys: KeyRing) -> tuple[Any, ...]:
    """Return a row of SECRET_SELECT that is nobody's: read where none is found, so that a reference number that there is not
    takes as long as one that there is.
    """
    begins = datetime.fromtimestamp(0, UTC)
    nobody = SharedSecret("0" * 26, ProfileName(""), b"", bytes(28), begins, begins, "", binding=NameBinding(subject="CN=nobody"))
    return tuple(secret_columns(nobody, keys).values())


def _write_binding(binding: NameBinding) -> str:
    raw = {
        "subject": binding.subject,
        "sans": _write_names(binding.sans),
        "common_name": binding.common_name,
        "san_kinds": None if binding.san_kinds is None else sorted(binding.san_kinds),
        "serial_number": binding.serial_number,
        "allowed_sans": _write_names(binding.allowed_sans),
        "certified": binding.certified or None,
    }
    return json.dumps({name: value for name, value in raw.items() if value is not None})


def _read_binding(text: str) -> NameBinding:
    raw = json.loads(text)
    kinds = raw.get("san_kinds")
    return NameBinding(
        subject=raw.get("subject"),
        sans=_read_names(raw.get("sans")),
        common_name=raw.get("common_name"),
        san_kinds=None if kinds is None else frozenset(map(SanKind, kinds)),
        serial_number=raw.get("serial_number"),
        allowed_sans=_read_names(raw.get("allowed_sans")),
        certified=raw.get("certified", False),
    )


def _write_names(names: frozenset[tuple[SanKind, str]] | None) -> list[list[str]] | None:
    return None if names is None else sorted([kind.value, value] for kind, value in names)


def _read_names(raw: list[list[str]] | None) -> frozenset[tuple[SanKind, str]] | None:
    return None if raw is None else frozenset((SanKind(kind), value) for kind, value in raw)
