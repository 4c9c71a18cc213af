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

REVISIONS = ("0001", "0002", "0003", "0004")
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
    Column("queued_at", BigInteger),
    Column("sent_at", BigInteger),
    Column("confirm_by", BigInteger),
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
_UNCONFIRMED = text("state = 'delivered' AND confirm_by IS NOT NULL")
Index("ix_ledger_unconfirmed", ledger.c.confirm_by, sqlite_where=_UNCONFIRMED, postgresql_where=_UNCONFIRMED)
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

pending_revocations = Table(
    "pending_revocations",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("upstream_ca", Text, nullable=False),
    Column("serial", Text, nullable=False),
    Column("reason", Integer, nullable=False),
    Column("revoked_at", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("next_at", BigInteger, nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("cause", Text, nullable=False),
)
"""Revocations that their CA has not been told of yet; one goes when it was, or when the certificate has ended."""

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

cmp_secrets = Table(
    "cmp_secrets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("profile", Text, nullable=False),
    Column("reference", LargeBinary, nullable=False),
    Column("secret", LargeBinary, nullable=False),  # sealed
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("created_by", Text, nullable=False),
    Column("max_uses", Integer, nullable=False),
    Column("binding", Text, nullable=False),
    Column("owner", Text),
    Column("revoked_at", BigInteger),
)
"""Shared secrets of CMP clients by their reference numbers; of one number at most one is in force in a profile."""

Index(None, cmp_secrets.c.profile, cmp_secrets.c.reference)

acme_external_accounts = Table(
    "acme_external_accounts",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("profile", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),  # sealed
    Column("policy", Text, nullable=False),
    Column("max_accounts", Integer),
    Column("max_certificates", Integer),
    Column("owner", Text),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("created_by", Text, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("accounts", Integer, nullable=False),
    Column("certificates", Integer, nullable=False),
)
"""Keys of external account binding, with what is bound to them and was issued under them."""

acme_accounts = Table(
    "acme_accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("profile", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("thumbprint", Text, nullable=False),
    Column("jwk", Text, nullable=False),
    Column("contact", Text, nullable=False),
    Column("terms", Text),
    Column("external_account", Text),
    Column("binding", Text),
    Column("source", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    UniqueConstraint("profile", "thumbprint"),
)
"""ACME accounts; they are never deleted, so that a key that was deactivated stays so."""

acme_orders = Table(
    "acme_orders",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account", Text, nullable=False),
    Column("directory", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("asked_profile", Text),
    Column("status", Text, nullable=False),
    Column("identifiers", Text, nullable=False),
    Column("authorizations", Text, nullable=False),
    Column("not_before", BigInteger),
    Column("not_after", BigInteger),
    Column("replaces", Text),
    Column("replaces_sha256", LargeBinary),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("expires_at", BigInteger, nullable=False),
    Column("error", Text),
    Column("csr", LargeBinary),  # sealed
    Column("csr_sha256", LargeBinary),
    Column("public_key_sha256", LargeBinary),
    Column("request_id", Text),
    Column("certificate", LargeBinary),
    Column("source", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("lease_until", BigInteger),
    Column("next_at", BigInteger),
    Column("attempts", Integer, nullable=False),
    Column("counted_for", Text),
    Column("kept_until", BigInteger, nullable=False, index=True),
)
"""ACME orders; `counted_for` is the external account that its certificate is counted for."""

Index(None, acme_orders.c.account, acme_orders.c.created_at, acme_orders.c.id)
_PROCESSING = acme_orders.c.status == text("'processing'")
Index("ix_acme_orders_processing", acme_orders.c.next_at, sqlite_where=_PROCESSING, postgresql_where=_PROCESSING)
_OPEN = text("status IN ('pending', 'ready')")
Index("ix_acme_orders_open", acme_orders.c.expires_at, sqlite_where=_OPEN, postgresql_where=_OPEN)
_REPLACING = text("replaces_sha256 IS NOT NULL AND status <> 'invalid'")
Index(
    "ix_acme_orders_replaces",
    acme_orders.c.replaces_sha256,
    unique=True,
    sqlite_where=_REPLACING,
    postgresql_where=_REPLACING,
)

acme_authorizations = Table(
    "acme_authorizations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("identifier", Text, nullable=False),
    Column("wildcard", Integer, nullable=False),
    Column("subdomains", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("challenges", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("trying", Text),
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger),
    Column("worker", Text, nullable=False),
    Column("lease_until", BigInteger),
    Column("source", Text, nullable=False),
    Column("payload", LargeBinary),  # sealed
    Column("attested_key", LargeBinary),
    Column("claims", Text),
    Column("caa_checked_at", BigInteger),
    Column("kept_until", BigInteger, nullable=False, index=True),
)
"""Authorizations with their challenges: one row, because a challenge never changes without its authorization."""

Index(None, acme_authorizations.c.account, acme_authorizations.c.identifier)
_TRYING = acme_authorizations.c.trying.is_not(None)
Index("ix_acme_authorizations_trying", acme_authorizations.c.next_at, sqlite_where=_TRYING, postgresql_where=_TRYING)

acme_order_authorizations = Table(
    "acme_order_authorizations",
    metadata,
    Column("authorization_id", Text, nullable=False),
    Column("order_id", Text, nullable=False, index=True),
    PrimaryKeyConstraint("authorization_id", "order_id"),
    sqlite_with_rowid=False,
)
"""Which orders need an authorization."""

acme_incidents = Table(
    "acme_incidents",
    metadata,
    Column("id", Text, primary_key=True),
    Column("explanation_url", Text),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("created_by", Text, nullable=False),
    Column("certificates", Integer, nullable=False),
)
"""What happened that certificates should be replaced for at once."""

acme_incident_certificates = Table(
    "acme_incident_certificates",
    metadata,
    Column("sha256", LargeBinary, nullable=False),
    Column("incident", Text, nullable=False, index=True),
    PrimaryKeyConstraint("sha256", "incident"),
    sqlite_with_rowid=False,
)
"""Which certificates an incident concerns."""
