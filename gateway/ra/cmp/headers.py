"""What a PKIHeader must be before its body is looked at (RFC 9810 §5.1.1, RFC 9483 §3.1, §3.5)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.cmp import BodyType

PATH_OPERATIONS: Mapping[str, BodyType] = MappingProxyType(
    {
        "initialization": BodyType.IR,
        "certification": BodyType.CR,
        "keyupdate": BodyType.KUR,
        "pkcs10": BodyType.P10CR,
        "revocation": BodyType.RR,
        "getcacerts": BodyType.GENM,
        "getrootupdate": BodyType.GENM,
        "getcertreqtemplate": BodyType.GENM,
        "getcrls": BodyType.GENM,
        "nested": BodyType.NESTED,
    }
)
"""What the last segment of a path says that its messages are (RFC 9483 §6.1, RFC 9811 §3.1)."""
