"""The schema, once for every database; migrations lead to it and a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

REVISIONS = ("0001",)
"""Every schema revision that this program knows, oldest first."""

SCHEMA = REVISIONS[-1]
"""The revision that this program reads and writes."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Times are microseconds since 1970 UTC: exact, sortable and the same in every database.
# Serial numbers are lower-case hex without leading zeros: they are wider than any integer column.

ledger = Table(
    "ledger",
    metadata,
    Column("id", Text, primary_key=True),
    Column("request_key", LargeBinary, nullable=False),
    Column("profile", Text, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("transaction_id", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("requester_key", LargeBinary, nullable=False),
    Column("owner", Text),
    Column("source", Text, nullable=False),
    Column("form", Text, nullable=False),
    Column("request", LargeBinary, nullable=False),  # sealed: a CSR may hold a challengePassword
    Column("public_key", LargeBinary, nullable=False),
    Column("public_key_sha256", LargeBinary, nullable=False),
    Column("subject", Text, nullable=False),
    Column("sans", Text, nullable=False),
    Column("granted", Text, nullable=False),
    Column("upstream_ca", Text, nullable=False),
    Column("serial", Text),
    Column("generation", BigInteger, nullable=False),
    Column("renews", LargeBinary),
    Column("state", Text, nullable=False),
    Column("waiting_for", Text, nullable=False),
    Column("sent", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("poll_at", BigInteger),
    Column("upstream_reference", Text),
    Column("attempts", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("reason", Text),
    Column("detail", Text),
    Column("chain_sha256", LargeBinary),
    Column("quota_slots", Text, nullable=False),
)
"""One row an enrollment; the certificate is in `inventory`, the chain once for all in `chains`."""

Index(None, ledger.c.profile, ledger.c.protocol, ledger.c.transaction_id)
_UNFINISHED = ledger.c.state.in_(("open", "pending", "unknown"))
Index(
    "ix_ledger_unfinished",
    ledger.c.state,
    ledger.c.lease_until,
    sqlite_where=_UNFINISHED,
    postgresql_where=_UNFINISHED,
)
_RENEWAL = ledger.c.renews.is_not(None)
Index("ix_ledger_renews", ledger.c.renews, sqlite_where=_RENEWAL, postgresql_where=_RENEWAL)

request_keys = Table(
    "request_keys",
    metadata,
    Column("request_key", LargeBinary, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("answer_kept", BigInteger, nullable=False),
    Column("kept_until", BigInteger, nullable=False, index=True),
)
"""Which row answers a retransmission: for `answer_kept` from its last change on, at least until `kept_until`."""

reservations = Table(
    "reservations",
    metadata,
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("request_id", Text, nullable=False, index=True),
    Column("expires_at", BigInteger, nullable=False, index=True),
    PrimaryKeyConstraint("kind", "name"),
)
"""What serves once and was taken."""

quota_uses = Table(
    "quota_uses",
    metadata,
    Column("name", Text, nullable=False),
    Column("slot", BigInteger, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    PrimaryKeyConstraint("name", "slot"),
)
"""Uses of a quota, added up in slots; `slot` is the end of the slot."""

inventory = Table(
    "inventory",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("upstream_ca", Text, nullable=False),
    Column("issuer_der", LargeBinary, nullable=False),
    Column("serial", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("owner", Text),
    Column("request_id", Text),
    Column("request_sha256", LargeBinary, nullable=False),
    Column("public_key_sha256", LargeBinary, nullable=False),
    Column("subject", Text, nullable=False),
    Column("sans", Text, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False, index=True),
    Column("issued_at", BigInteger, nullable=False, index=True),
    Column("revoked_at", BigInteger),
    Column("revocation_reason", Integer),
    Column("renews", LargeBinary),
    Column("renewed_by", LargeBinary),
    UniqueConstraint("upstream_ca", "serial"),
    UniqueConstraint("request_id"),
)
"""Every certificate; one request never has two."""

_REVOKED = inventory.c.revoked_at.is_not(None)
_COMPROMISED = inventory.c.revocation_reason == text("1")
Index("ix_inventory_compromised", inventory.c.public_key_sha256, sqlite_where=_COMPROMISED, postgresql_where=_COMPROMISED)
Index(
    "ix_inventory_revoked",
    inventory.c.upstream_ca,
    inventory.c.revoked_at,
    sqlite_where=_REVOKED,
    postgresql_where=_REVOKED,
)

chains = Table(
    "chains",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("certificates", LargeBinary, nullable=False),
)
"""Certificate chains, each stored once: four bytes of length before each certificate."""

challenges = Table(
    "challenges",
    metadata,
    Column("id", Text, primary_key=True),
    Column("profile", Text, nullable=False),
    Column("mac", LargeBinary, nullable=False, unique=True),
    Column("key_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("created_by", Text, nullable=False),
    Column("subject", Text),
    Column("sans", Text),
    Column("owner", Text),
    Column("revoked_at", BigInteger),
)
"""One-time challenges by their HMAC; `key_id` names the store key that made it."""

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("held_until", BigInteger, nullable=False),
)
"""Who does what only one worker may do, and until when."""

crls = Table(
    "crls",
    metadata,
    Column("upstream_ca", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("this_update", BigInteger, nullable=False),
    Column("next_update", BigInteger, nullable=False),
    Column("covers", BigInteger, nullable=False),
)
"""The newest CRL of each CA; `covers` is the count of revocations that it was made from."""

revocations = Table(
    "revocations",
    metadata,
    Column("upstream_ca", Text, primary_key=True),
    Column("revoked", BigInteger, nullable=False),
)
"""How many revocations were ever recorded for a CA: tells a stale CRL without trusting clocks."""

audit = Table(
    "audit",
    metadata,
    Column("chain", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("chain", "seq"),
)
"""The audit chain; a database that many nodes share has one chain a node."""

sealed = Table(
    "sealed",
    metadata,
    Column("purpose", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    PrimaryKeyConstraint("purpose", "name"),
)
"""Values that must be recovered, sealed under a store key: the checks of both keys, and secrets that a protocol computes with."""

pulse = Table(
    "pulse",
    metadata,
    Column("worker", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
)
"""The last proof of each worker that a durable write works."""
