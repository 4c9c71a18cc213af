"""What the extensions of a request ask for, the same in PKCS#10 and CRMF (RFC 2985 §5.4.2, RFC 4211 §5)."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model import Evidence, Extension, SubjectAltName
from gateway.pki import evidence, extensions


@dataclass(frozen=True, slots=True)
class Requested:
    """Names, usages and constraints that are asked for, None where they are not; `others` are all other extensions.

    `evidence` is what the device says of its key.
    """

    sans: tuple[SubjectAltName, ...] = ()
    key_usage: frozenset[str] | None = None
    ekus: tuple[str, ...] | None = None
    is_ca: bool = False
    others: tuple[Extension, ...] = ()
    evidence: tuple[Evidence, ...] = ()


_NOTHING = Requested()


def read_requested(wanted: tuple[Extension, ...]) -> Requested:
    """Read the extensions of a request, no two of the same type; MalformedMessage where the content of one is broken."""
    if not wanted:
        return _NOTHING
    by_oid = {e.oid: e.value for e in wanted}
    sans, usage = by_oid.get(extensions.SUBJECT_ALT_NAME), by_oid.get(extensions.KEY_USAGE)
    ekus, constraints = by_oid.get(extensions.EXTENDED_KEY_USAGE), by_oid.get(extensions.BASIC_CONSTRAINTS)
    return Requested(
        sans=extensions.parse_sans(sans) if sans is not None else (),
        key_usage=extensions.parse_key_usage(usage) if usage is not None else None,
        ekus=extensions.parse_ekus(ekus) if ekus is not None else None,
        is_ca=constraints is not None and extensions.parse_basic_constraints(constraints)[0],
        others=tuple([e for e in wanted if e.oid not in _READ]),
        evidence=evidence.read_extensions(by_oid) if not evidence.EXTENSIONS.isdisjoint(by_oid) else (),
    )


_READ = evidence.EXTENSIONS | {
    extensions.SUBJECT_ALT_NAME,
    extensions.KEY_USAGE,
    extensions.EXTENDED_KEY_USAGE,
    extensions.BASIC_CONSTRAINTS,
}
