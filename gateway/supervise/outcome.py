"""What became of a reload or a restart: for log, audit trail, metrics, and the operator who waits for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from gateway.supervise.acceptance import Changes
from gateway.supervise.control import Ended, cut

CONFIGURATION = "configuration"
"""The configuration is wrong."""
NEEDS_RESTART = "needs_restart"
"""The configuration is right, but cannot be put in force in a service that runs."""
FAILED = "failed"
"""Workers, store or supervisor could not do it; the configuration may be right."""


MAX_FOUND = 1_000_000
"""Bytes of the fields, and of the names of contents, that an operator is shown."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`generation` is what is in force now; `reason` is empty when it was done; `text` is sentences for an operator."""

    ok: bool
    generation: int
    text: str
    reason: str = ""
    changes: Changes = field(default_factory=lambda: Changes((), ()))

    def answer(self, id: int) -> Ended:
        """Return the answer to whoever asked."""
        found: dict[str, Any] = {
            "generation": self.generation,
            "fields": _fitting([{"field": c.field, "before": c.before, "after": c.after} for c in self.changes.fields]),
            "contents": _fitting(self.changes.contents),
        }
        more = len(self.changes.names) - len(found["fields"]) - len(found["contents"])
        text = f"{cut(self.text)}; {more} more differences are not shown" if more else cut(self.text)
        return Ended(id, self.ok, self.reason, text, found)


def _fitting(rows: Sequence[Any]) -> list[Any]:
    """Return as many as fit into a message, beside the rest of it."""
    lengths = accumulate(len(json.dumps(row)) + 2 for row in rows)
    return [row for row, length in zip(rows, lengths, strict=True) if length <= MAX_FOUND]
