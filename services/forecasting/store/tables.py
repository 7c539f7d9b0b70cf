"""The tables forecasting owns. Times are unix seconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table

METADATA = MetaData()
_COUNTER = BigInteger().with_variant(Integer, "sqlite")

CHUNKS = Table(
    "chunks",
    METADATA,
    Column("number", _COUNTER, primary_key=True, autoincrement=True),
    Column("series", String, nullable=False),
    Column("last_time", BigInteger, nullable=False, index=True),
    Column("observations", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
MODELS = Table(
    "models",
    METADATA,
    Column("id", String, primary_key=True),
    Column("series_group", String, nullable=False, index=True),
    Column("trained_at", BigInteger, nullable=False),
    Column("card", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("file", String, nullable=False),
    Column("ledger_transaction", String, nullable=False),
)
