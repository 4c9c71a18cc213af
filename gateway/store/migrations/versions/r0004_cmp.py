"""Shared secrets of CMP clients, and until when certificates must be confirmed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ledger", sa.Column("confirm_by", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_ledger_unconfirmed",
        "ledger",
        ["confirm_by"],
        unique=False,
        sqlite_where=sa.text("state = 'delivered' AND confirm_by IS NOT NULL"),
        postgresql_where=sa.text("state = 'delivered' AND confirm_by IS NOT NULL"),
    )
    op.create_table(
        "cmp_secrets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("reference", sa.LargeBinary(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("max_uses", sa.Integer(), nullable=False),
        sa.Column("binding", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cmp_secrets")),
    )
    op.create_index(op.f("ix_cmp_secrets_created_at"), "cmp_secrets", ["created_at"], unique=False)
    op.create_index(op.f("ix_cmp_secrets_expires_at"), "cmp_secrets", ["expires_at"], unique=False)
    op.create_index(op.f("ix_cmp_secrets_profile_reference"), "cmp_secrets", ["profile", "reference"], unique=False)
