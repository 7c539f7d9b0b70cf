"""The tables metering owns. Times are unix seconds, energy Wh, money minor units; documents are canonical JSON bytes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table

from citykit.onramp.devices import device_tables
from citykit.onramp.heads import ChainTables

METADATA = MetaData()
_COUNTER = BigInteger().with_variant(Integer, "sqlite")

DEVICES = device_tables(METADATA)
METER_POINTS = Table(
    "meter_points",
    METADATA,
    Column("id", String, primary_key=True),
    Column("device", String, nullable=False, unique=True),
    Column("max_slot_wh", BigInteger, nullable=False),
    Column("zone", String, nullable=False),
)
CONTRACTS = Table(
    "contracts",
    METADATA,
    Column("id", String, primary_key=True),
    Column("meter_point", String, nullable=False, index=True),
    Column("subject", String, nullable=False, index=True),
    Column("tariff", String, nullable=False),
    Column("from_date", String, nullable=False),
    Column("to_date", String, nullable=False),
)
TARIFFS = Table(
    "tariffs",
    METADATA,
    Column("id", String, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("valid_from", String, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("ledger_transaction", String, nullable=False),
)
HEADS = Table(
    "heads",
    METADATA,
    Column("device", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("last_slot", BigInteger, nullable=False),
)
PACKAGES = Table(
    "packages",
    METADATA,
    Column("device", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
)
CHAINS = ChainTables(HEADS, PACKAGES)
READINGS = Table(
    "readings",
    METADATA,
    Column("meter_point", String, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("energy_wh", BigInteger, nullable=False),
    Column("device", String, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("held", String, nullable=False),
    sqlite_with_rowid=False,
)
"""`held` is empty where the reading counts, else the reason it was set aside."""
ESTIMATES = Table(
    "estimates",
    METADATA,
    Column("meter_point", String, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("energy_wh", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    sqlite_with_rowid=False,
)
ARCHIVED_MONTHS = Table(
    "archived_months",
    METADATA,
    Column("month", String, primary_key=True),
    *[Column(name, BigInteger, nullable=False) for name in ("from_time", "to_time", "rows", "energy_wh")],
    Column("file", String, nullable=False),
    Column("sha256", String, nullable=False),
    Column("archived_at", BigInteger, nullable=False),
)
"""Months of readings that are in Parquet files (PostgreSQL only): a prefix of time."""
ARCHIVE_ERASURES = Table(
    "archive_erasures",
    METADATA,
    Column("meter_point", String, primary_key=True),
    *[Column(name, BigInteger, primary_key=True, autoincrement=False) for name in ("from_time", "to_time")],
)
"""Erased, and not yet out of the files."""
GAPS = Table(
    "gaps",
    METADATA,
    Column("device", String, primary_key=True),
    Column("after_sequence", BigInteger, primary_key=True),
    Column("before_sequence", BigInteger, nullable=False),
)
QUARANTINE = Table(
    "quarantine",
    METADATA,
    Column("number", _COUNTER, primary_key=True, autoincrement=True),
    Column("device", String, nullable=False),
    Column("meter_point", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("explanation", String, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("last_slot", BigInteger, nullable=False),
    Column("readings", BigInteger, nullable=False),
    Column("open", Integer, nullable=False),
    Index("ix_quarantine_device", "device", "reason"),
    sqlite_autoincrement=True,
)
APPEALS = Table(
    "appeals",
    METADATA,
    Column("id", String, primary_key=True),
    Column("meter_point", String, nullable=False),
    Column("subject", String, nullable=False, index=True),
    Column("from_time", BigInteger, nullable=False),
    Column("to_time", BigInteger, nullable=False),
    Column("statement", String, nullable=False),
    Column("state", String, nullable=False),
    Column("decision_reason", String, nullable=False),
)
RUNS = Table(
    "runs",
    METADATA,
    Column("id", String, primary_key=True),
    Column("from_date", String, nullable=False),
    Column("to_date", String, nullable=False),
    Column("tariff", String, nullable=False),
    Column("tariff_version", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("ledger_transaction", String, nullable=False),
)
"""A run without a ledger transaction is a draft: its bills are not shown until the ledger's receipt is here."""
BILLS = Table(
    "bills",
    METADATA,
    Column("id", String, primary_key=True),
    Column("run", String, nullable=False, index=True),
    Column("position", BigInteger, nullable=False),
    Column("contract", String, nullable=False, index=True),
    Column("meter_point", String, nullable=False),
    Column("from_date", String, nullable=False),
    Column("to_date", String, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("currency", String, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("corrects", String, nullable=False, index=True),
    Column("issued_at", BigInteger, nullable=False),
    Column("provable", Integer, nullable=False),
)
LEAVES = Table(
    "leaves",
    METADATA,
    Column("run", String, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("commitment", LargeBinary, nullable=False),
)
"""Commitments of a run's bills: kept when a bill is erased, so that its neighbours stay provable."""
BILL_PAYMENTS = Table(
    "bill_payments",
    METADATA,
    Column("bill", String, primary_key=True),
    Column("payment", String, nullable=False),
    Column("captured_minor", BigInteger, nullable=False),
    Column("refunded_minor", BigInteger, nullable=False),
)
FACTS = Table(
    "facts",
    METADATA,
    Column("id", String, primary_key=True),
    Column("subject", String, nullable=False, index=True),
    Column("document", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
)
"""Openings of the events in the log metering.events; `subject` is the meter point or device they are about."""
REFUSALS = Table(
    "refusals",
    METADATA,
    Column("reason", String, primary_key=True),
    Column("device", String, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("message", String, nullable=False),
)
