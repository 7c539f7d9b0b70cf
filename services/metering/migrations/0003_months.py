"""Readings in monthly partitions, where PostgreSQL keeps them; and which months went to the archive.

Name and columns stay, so the version still running reads on; it writes to the months that are there and two more.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "metering_0003"
down_revision = "metering_0002"
branch_labels = None
depends_on = None

_AHEAD = 2
_MONTH = """
DO $$
DECLARE
  first timestamp := (SELECT date_trunc('month', to_timestamp(min(slot)) AT TIME ZONE 'UTC') FROM readings_before);
  last timestamp := (SELECT date_trunc('month', to_timestamp(max(slot)) AT TIME ZONE 'UTC') FROM readings_before);
  month timestamp := first;
BEGIN
  WHILE month <= last + interval '%s months' LOOP
    EXECUTE format(
      'CREATE TABLE %%I PARTITION OF readings FOR VALUES FROM (%%s) TO (%%s)',
      'readings_' || to_char(month, 'YYYY_MM'),
      extract(epoch FROM month AT TIME ZONE 'UTC')::bigint,
      extract(epoch FROM (month + interval '1 month') AT TIME ZONE 'UTC')::bigint
    );
    month := month + interval '1 month';
  END LOOP;
END $$
"""


def upgrade() -> None:
    number = sa.BigInteger
    op.create_table(
        "archived_months",
        sa.Column("month", sa.String, primary_key=True),
        *[sa.Column(name, number, nullable=False) for name in ("from_time", "to_time", "rows", "energy_wh")],
        sa.Column("file", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("archived_at", number, nullable=False),
    )
    op.create_table(
        "archive_erasures",
        sa.Column("meter_point", sa.String, primary_key=True),
        *[sa.Column(name, number, primary_key=True, autoincrement=False) for name in ("from_time", "to_time")],
    )
    if op.get_bind().dialect.name == "postgresql":
        _partition()


def _partition() -> None:
    op.execute("ALTER TABLE readings RENAME TO readings_before")
    op.execute("ALTER INDEX readings_pkey RENAME TO readings_before_pkey")
    op.execute(
        "CREATE TABLE readings (LIKE readings_before INCLUDING DEFAULTS, PRIMARY KEY (meter_point, slot))"
        " PARTITION BY RANGE (slot)"
    )
    op.execute(_MONTH.replace("%s months", f"{_AHEAD} months").replace("%%", "%"))
    op.execute("INSERT INTO readings SELECT * FROM readings_before")
    op.execute("DROP TABLE readings_before")
