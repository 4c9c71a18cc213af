"""dns-01, dns-account-01 and dns-persist-01: TXT records below the name (RFC 8555 §8.4 and the two drafts)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from hmac import compare_digest

from gateway.errors import Reason
from gateway.model import ChallengeType
from gateway.validation.interfaces import ValidationFailed, ValidationTask
from gateway.validation.resolve import Resolver
from gateway.wire.acme.challenges import (
    DNS_LABEL,
    PERSIST_LABEL,
    account_label,
    dns_value,
    judge_persistent,
    key_authorization,
)

MAX_RECORDS = 100
"""TXT records of one name that are looked at: clients forget to remove them, and each is compared."""


class Dns01:
    """dns-01 and dns-account-01: a record that is made for each authorization (draft-ietf-acme-dns-account-label)."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def check(self, task: ValidationTask) -> None:
        """Look the record up and compare; raises ValidationFailed."""
        label = f"{account_label(task.account_url)}." if task.type is ChallengeType.DNS_ACCOUNT_01 else ""
        name = f"{label}{DNS_LABEL}.{task.identifier.value}"
        expected = dns_value(key_authorization(task.token, task.thumbprint)).encode("ascii")
        records = await self._resolver.texts(name)
        if not records:
            raise ValidationFailed(Reason.VALIDATION_INCORRECT, f"there is no TXT record at {name}")
        if not any(compare_digest(record, expected) for record in records[:MAX_RECORDS]):
            text = f"none of the {len(records)} TXT records at {name} is the digest of the key authorization"
            raise ValidationFailed(Reason.VALIDATION_INCORRECT, text)


class DnsPersist01:
    """dns-persist-01: a record that stays and names CA and account (draft-ietf-acme-dns-persist)."""

    def __init__(self, resolver: Resolver, identities: Collection[str]) -> None:
        self._resolver = resolver
        self._identities = tuple(identities)

    async def check(self, task: ValidationTask, now: datetime) -> None:
        """Look the records up and judge them; raises ValidationFailed."""
        name = f"{PERSIST_LABEL}.{task.identifier.value}"
        records = (await self._resolver.texts(name))[:MAX_RECORDS]
        wide = task.wildcard or task.subdomains
        if not judge_persistent(records, self._identities, task.account_url, wide, now):
            needed = " with policy=wildcard" if wide else ""
            text = f"no TXT record at {name} names this CA and this account{needed}, in force"
            raise ValidationFailed(Reason.VALIDATION_INCORRECT, text)
