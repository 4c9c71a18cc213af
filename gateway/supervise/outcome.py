"""What became of a reload or a restart: for log, audit trail, metrics, and the operator who waits for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.supervise.acceptance import Changes
from gateway.supervise.control import Ended

CONFIGURATION = "configuration"
"""The configuration is wrong."""
NEEDS_RESTART = "needs_restart"
"""The configuration is right, but cannot be put in force in a service that runs."""
FAILED = "failed"
"""Workers, store or supervisor could not do it; the configuration may be right."""


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
            "text": self.text,
            "fields": [{"field": c.field, "before": c.before, "after": c.after} for c in self.changes.fields],
            "contents": list(self.changes.contents),
        }
        return Ended(id, self.ok, self.reason, self.text, found)
