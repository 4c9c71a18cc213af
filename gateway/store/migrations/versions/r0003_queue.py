"""Requests and revocations that wait for a CA that cannot be reached."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ledger", sa.Column("queued_at", sa.BigInteger(), nullable=True))
    op.add_column("ledger", sa.Column("sent_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "pending_revocations",
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("upstream_ca", sa.Text(), nullable=False),
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("reason", sa.Integer(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_pending_revocations")),
    )
    op.create_index(op.f("ix_pending_revocations_next_at"), "pending_revocations", ["next_at"], unique=False)
