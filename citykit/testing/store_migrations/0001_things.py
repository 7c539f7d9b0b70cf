"""The table the store suite works on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "things_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "things",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
    )
