"""Shared secrets that a store test needs, each different from the last, every field overridable."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from gateway.cmp import SharedSecret
from tests.contract.store.rows import NOW, PROFILE

_numbers = itertools.count(1)


def shared_secret(**fields: Any) -> SharedSecret:
    number = next(_numbers)
    base: dict[str, Any] = {
        "id": f"secret-{number}",
        "profile": PROFILE,
        "reference": b"reference-%d" % number,
        "secret": b"the secret %d" % number,
        "created_at": NOW,
        "expires_at": NOW + timedelta(days=1),
        "created_by": "uid:0 (root)",
    }
    return SharedSecret(**(base | fields))
