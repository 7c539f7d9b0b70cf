"""Decisions on their way to the ledger; which voucher a device came with, which token a code gave, what a password cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "identity_0002"
down_revision = "identity_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "intents",
        sa.Column("request_id", sa.String, primary_key=True),
        sa.Column("rpc", sa.String, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("function", sa.String, nullable=False),
        sa.Column("arguments", sa.String, nullable=False),
        sa.Column("details", sa.String, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.add_column("devices", sa.Column("voucher", sa.String))
    op.add_column("codes", sa.Column("token", sa.String))
    op.create_index("ix_codes_token", "codes", ["token"])
    op.add_column("people", sa.Column("password_cost", sa.String, nullable=False, server_default="scrypt:16384:8:1"))
