"""Makes the CA of a section of the configuration as the gateway does, and requests to it."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from gateway.ca import registry
from gateway.ca.circuit import GuardedCA
from gateway.ca.claims import Claims
from gateway.ca.interfaces import IssueRequest
from gateway.ca.local import CaUrls
from gateway.ca.setup import utc_now
from gateway.config.document import ConfigurationFaults
from gateway.config.fields import Model
from gateway.config.sources import gather
from gateway.config.upstream_cas import UpstreamCAConfig
from gateway.model import Grant, ProfileName, RequestForm, RequestId, SanKind, SubjectAltName, UpstreamCAName
from gateway.pki.csr import build_csr
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import parse_name_text

NAME = UpstreamCAName("there")
BOTH = (eku_oid("serverAuth"), eku_oid("clientAuth"))
_CONFIG: TypeAdapter[UpstreamCAConfig] = TypeAdapter(UpstreamCAConfig)
_numbers = itertools.count(1)


class _Root(Model):
    upstream_ca: UpstreamCAConfig


def make_ca(section: Mapping[str, Any], *, clock: Callable[[], datetime] = utc_now, claims: Claims | None = None) -> GuardedCA:
    """Return the CA, not started; raises ConfigurationFaults, also for files that cannot be read."""
    data = {"upstream_ca": dict(section)}
    config = _CONFIG.validate_json(json.dumps(section))
    sources, problems = gather(Path("/nowhere/profiles.yaml"), "profiles.yaml", b"", data, _Root, {})
    if problems:
        raise ConfigurationFaults(*problems)
    made = registry.create(NAME, config, sources, CaUrls(), clock=clock, claims=claims)
    assert isinstance(made, GuardedCA)
    return made


@asynccontextmanager
async def opened(
    section: Mapping[str, Any], *, clock: Callable[[], datetime] = utc_now, claims: Claims | None = None
) -> AsyncIterator[GuardedCA]:
    """Give the CA while the block runs; `claims` are those of several workers."""
    made = make_ca(section, clock=clock, claims=claims)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def make_request(
    *,
    subject: str = "CN=device-7.example.org",
    sans: tuple[SubjectAltName, ...] = (make_san(SanKind.DNS, "device-7.example.org"),),
    asked: tuple[str, tuple[SubjectAltName, ...]] | None = None,
    key: PrivateKey | None = None,
    days: float = 30,
    usage: tuple[str, ...] = ("digitalSignature",),
    ekus: tuple[str, ...] = BOTH,
    identifier: str | None = None,
    timeout: float = 20,
    **more: Any,
) -> IssueRequest:
    """Return a request; `asked` are the names of the PKCS#10 where they are not the granted ones. Each has a key of its own."""
    key = key or generate_private_key("ec-p256")
    now = datetime.now(UTC).replace(microsecond=0)
    grant = Grant(parse_name_text(subject).der, sans, usage, ekus, now - timedelta(hours=1), now + timedelta(days=days), **more)
    wished, names = asked if asked is not None else (subject, sans)
    csr = build_csr(key, parse_name_text(wished).der, names)
    name = RequestId(identifier or f"01JPEER{next(_numbers):019d}")
    return IssueRequest(name, ProfileName("demo"), RequestForm.PKCS10, csr, public_key_der(key), grant, None, timeout)
