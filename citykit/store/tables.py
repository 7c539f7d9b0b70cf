"""The tables the kit keeps in every service's database."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table

KIT_METADATA = MetaData()

# SQLite counts up only in a column it calls INTEGER.
_COUNTER = BigInteger().with_variant(Integer, "sqlite")

OUTBOX = Table(
    "outbox",
    KIT_METADATA,
    Column("number", _COUNTER, primary_key=True, autoincrement=True),
    Column("topic", String, nullable=False),
    Column("key", String, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("headers", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

REQUEST_IDS = Table(
    "request_ids",
    KIT_METADATA,
    Column("request_id", String, primary_key=True),
    Column("rpc", String, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False, index=True),
)

PROCESSED_EVENTS = Table(
    "processed_events",
    KIT_METADATA,
    Column("consumer_group", String, primary_key=True),
    Column("event", String, primary_key=True),
    Column("at", BigInteger, nullable=False, index=True),
)
