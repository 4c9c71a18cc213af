"""Which device a request is for, where limits count devices and no credential names one."""

from __future__ import annotations

import hashlib

from gateway.model import CertificateRequest
from gateway.pki.names import normalize_name


def digest_of_names(request: CertificateRequest) -> str:
    """Return 32 hex digits for the asked subject as names compare, and for the other names where there is no subject."""
    names: object = normalize_name(request.subject) or sorted((name.kind.value, name.value.lower()) for name in request.sans)
    return hashlib.sha256(repr(names).encode("utf-8", "surrogatepass")).hexdigest()[:32]
