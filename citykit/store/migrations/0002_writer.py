"""Who writes: in PostgreSQL, where several processes could. A SQLite file has its lock."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "kit_0002"
down_revision = "kit_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    op.create_table(
        "kit_writer",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("groups", sa.BigInteger, nullable=False),
    )
    op.execute('INSERT INTO kit_writer ("one", epoch, groups) VALUES (1, 0, 0)')
