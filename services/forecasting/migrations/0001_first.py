"""The first tables of forecasting."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "forecasting_0001"
down_revision = None
branch_labels = None
depends_on = None

_COUNTER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "chunks",
        sa.Column("number", _COUNTER, primary_key=True, autoincrement=True),
        sa.Column("series", sa.String, nullable=False),
        sa.Column("last_time", sa.BigInteger, nullable=False),
        sa.Column("observations", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_chunks_last_time", "chunks", ["last_time"])
    op.create_table(
        "models",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("series_group", sa.String, nullable=False),
        sa.Column("trained_at", sa.BigInteger, nullable=False),
        sa.Column("card", sa.LargeBinary, nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("file", sa.String, nullable=False),
        sa.Column("ledger_transaction", sa.String, nullable=False),
    )
    op.create_index("ix_models_series_group", "models", ["series_group"])
