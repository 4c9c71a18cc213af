"""The parts of a file, each built by itself: what is wrong with one hides nothing of what there is to say about another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from gateway.config.credentials import AllOfCredential, CredentialConfig, SingleCredential
from gateway.config.policy import EkuRule, KeyRule, KeyUsageRule, PolicyConfig, SanRule, SubjectRule, ValidityRule
from gateway.config.schema import Audit, Endpoints, KeyAttestation, ProfileConfig, ProfileLimits, Renewal, Server, SqliteStore
from gateway.config.upstream_cas import UpstreamCAConfig

T = TypeVar("T")
_SERVER, _STORE, _AUDIT = TypeAdapter(Server), TypeAdapter(SqliteStore), TypeAdapter(Audit)
_UPSTREAM_CA: TypeAdapter[UpstreamCAConfig] = TypeAdapter(UpstreamCAConfig)
_CREDENTIAL: TypeAdapter[SingleCredential | AllOfCredential] = TypeAdapter(CredentialConfig)


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """The rules of one policy; None is a rule that is wrong."""

    key: KeyRule | None
    subject: SubjectRule | None
    san: SanRule | None
    key_usage: KeyUsageRule | None
    eku: EkuRule | None
    validity: ValidityRule | None


@dataclass(frozen=True, slots=True)
class ProfileParts:
    """The sections of one profile; None is a section that is wrong, or an optional one that is not there."""

    written: Mapping[str, Any]
    """The profile as plain data: what it refers to, and which sections it has, is judged whatever is wrong with them."""
    endpoints: Endpoints | None
    credentials: tuple[SingleCredential | AllOfCredential | None, ...]
    policy: PolicyRules
    limits: ProfileLimits | None
    renewal: Renewal | None
    key_attestation: KeyAttestation | None
    retransmission_window: timedelta | None


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a file that are right by themselves; None is a part that is wrong or missing, its name still known."""

    server: Server | None
    store: SqliteStore | None
    audit: Audit | None
    upstream_cas: Mapping[str, UpstreamCAConfig | None]
    profiles: Mapping[str, ProfileParts]


def split(data: Any) -> Parts:
    """Build each part of raw data by itself."""
    top = _mapping(data)
    return Parts(
        server=_part(_SERVER, top.get("server")),
        store=_part(_STORE, top.get("store")),
        audit=_part(_AUDIT, top.get("audit")),
        upstream_cas={name: _part(_UPSTREAM_CA, value) for name, value in _mapping(top.get("upstream_cas")).items()},
        profiles={name: _split_profile(_mapping(value)) for name, value in _mapping(top.get("profiles")).items()},
    )


def _split_profile(data: Mapping[str, Any]) -> ProfileParts:
    sections = dict(_sections(ProfileConfig, data, "endpoints", "limits", "renewal", "key_attestation", "retransmission_window"))
    rules = _mapping(data.get("policy", {}))
    judged = ("key", "subject", "san", "key_usage", "eku", "validity") if isinstance(data.get("policy", {}), dict) else ()
    credentials = data.get("credentials")
    return ProfileParts(
        written=data,
        credentials=tuple(_part(_CREDENTIAL, item) for item in credentials) if isinstance(credentials, list) else (),
        policy=PolicyRules(**{**dict.fromkeys(PolicyRules.__slots__), **dict(_sections(PolicyConfig, rules, *judged))}),
        **sections,
    )


def _sections(model: type[BaseModel], data: Mapping[str, Any], *names: str) -> Iterator[tuple[str, Any]]:
    """Yield these fields of a model, each read by itself; a field that is not there has its default."""
    for name in names:
        field, adapter = model.model_fields[name], _adapter(model, name)
        if name in data:
            yield name, _part(adapter, data[name])
        else:
            yield name, None if field.is_required() else adapter.validate_python(field.get_default(call_default_factory=True))


@cache
def _adapter(model: type[BaseModel], name: str) -> TypeAdapter[Any]:
    """Return what reads one field of a model by itself; made once, since making it takes longer than all its readings."""
    return TypeAdapter(model.model_fields[name].rebuild_annotation())


def _mapping(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, dict) else {}


def _part(adapter: TypeAdapter[T], data: Any) -> T | None:
    try:
        return adapter.validate_json(json.dumps(data))
    except ValidationError:
        return None
