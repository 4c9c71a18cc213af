"""Accounts, orders, authorizations, nonces and incidents of ACME."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "acme_accounts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("thumbprint", sa.Text(), nullable=False),
        sa.Column("jwk", sa.Text(), nullable=False),
        sa.Column("contact", sa.Text(), nullable=False),
        sa.Column("terms", sa.Text(), nullable=True),
        sa.Column("external_account", sa.Text(), nullable=True),
        sa.Column("binding", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acme_accounts")),
        sa.UniqueConstraint("profile", "thumbprint", name=op.f("uq_acme_accounts_profile_thumbprint")),
    )
    op.create_index(op.f("ix_acme_accounts_created_at"), "acme_accounts", ["created_at"], unique=False)
    op.create_table(
        "acme_authorizations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("identifier", sa.Text(), nullable=False),
        sa.Column("wildcard", sa.Integer(), nullable=False),
        sa.Column("subdomains", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("challenges", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("trying", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("attested_key", sa.LargeBinary(), nullable=True),
        sa.Column("claims", sa.Text(), nullable=True),
        sa.Column("caa_checked_at", sa.BigInteger(), nullable=True),
        sa.Column("kept_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acme_authorizations")),
    )
    op.create_index(
        op.f("ix_acme_authorizations_account_identifier"), "acme_authorizations", ["account", "identifier"], unique=False
    )
    op.create_index(op.f("ix_acme_authorizations_kept_until"), "acme_authorizations", ["kept_until"], unique=False)
    op.create_index(
        "ix_acme_authorizations_trying",
        "acme_authorizations",
        ["next_at"],
        unique=False,
        sqlite_where=sa.text("trying IS NOT NULL"),
        postgresql_where=sa.text("trying IS NOT NULL"),
    )
    op.create_table(
        "acme_external_accounts",
        sa.Column("kid", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("max_accounts", sa.Integer(), nullable=True),
        sa.Column("max_certificates", sa.Integer(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("accounts", sa.Integer(), nullable=False),
        sa.Column("certificates", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_acme_external_accounts")),
    )
    op.create_index(op.f("ix_acme_external_accounts_created_at"), "acme_external_accounts", ["created_at"], unique=False)
    op.create_table(
        "acme_incident_certificates",
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", "incident", name=op.f("pk_acme_incident_certificates")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_acme_incident_certificates_incident"), "acme_incident_certificates", ["incident"], unique=False)
    op.create_table(
        "acme_incidents",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("explanation_url", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("certificates", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acme_incidents")),
    )
    op.create_index(op.f("ix_acme_incidents_created_at"), "acme_incidents", ["created_at"], unique=False)
    op.create_table(
        "acme_order_authorizations",
        sa.Column("authorization_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("authorization_id", "order_id", name=op.f("pk_acme_order_authorizations")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_acme_order_authorizations_order_id"), "acme_order_authorizations", ["order_id"], unique=False)
    op.create_table(
        "acme_orders",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("directory", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("asked_profile", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("identifiers", sa.Text(), nullable=False),
        sa.Column("authorizations", sa.Text(), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=True),
        sa.Column("not_after", sa.BigInteger(), nullable=True),
        sa.Column("replaces", sa.Text(), nullable=True),
        sa.Column("replaces_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("csr", sa.LargeBinary(), nullable=True),
        sa.Column("csr_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("public_key_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("certificate", sa.LargeBinary(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("counted_for", sa.Text(), nullable=True),
        sa.Column("kept_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acme_orders")),
    )
    op.create_index(op.f("ix_acme_orders_account_created_at_id"), "acme_orders", ["account", "created_at", "id"], unique=False)
    op.create_index(op.f("ix_acme_orders_created_at"), "acme_orders", ["created_at"], unique=False)
    op.create_index(op.f("ix_acme_orders_kept_until"), "acme_orders", ["kept_until"], unique=False)
    op.create_index(
        "ix_acme_orders_open",
        "acme_orders",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("status IN ('pending', 'ready')"),
        postgresql_where=sa.text("status IN ('pending', 'ready')"),
    )
    op.create_index(
        "ix_acme_orders_processing",
        "acme_orders",
        ["next_at"],
        unique=False,
        sqlite_where=sa.text("status = 'processing'"),
        postgresql_where=sa.text("status = 'processing'"),
    )
    op.create_index(
        "ix_acme_orders_replaces",
        "acme_orders",
        ["replaces_sha256"],
        unique=True,
        sqlite_where=sa.text("replaces_sha256 IS NOT NULL AND status <> 'invalid'"),
        postgresql_where=sa.text("replaces_sha256 IS NOT NULL AND status <> 'invalid'"),
    )
