"""What was paid of bills."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "metering_0002"
down_revision = "metering_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bill_payments",
        sa.Column("bill", sa.String, primary_key=True),
        sa.Column("payment", sa.String, nullable=False),
        sa.Column("captured_minor", sa.BigInteger, nullable=False),
        sa.Column("refunded_minor", sa.BigInteger, nullable=False),
    )
